package bench

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Durations of 256 ns and more are counted in buckets as wide as 1/128 of where they begin, to an hour and more.
const (
	perOctave = 128
	longest   = 1<<42 - 1
	buckets   = (42-7)*perOctave + perOctave
)

// A Histogram counts durations. A percentile is at most 0.4 % off, the maximum exact. Its size is fixed, its zero
// value is empty, and its methods may be called at once.
type Histogram struct {
	counts [buckets]atomic.Int64
	max    atomic.Int64
}

// Add counts d.
func (h *Histogram) Add(d time.Duration) {
	n := int64(max(d, 0))
	h.counts[bucket(uint64(min(n, longest)))].Add(1)
	raise(&h.max, n)
}

// bucket returns the index for v: v itself below 256, and above that 128 an octave.
func bucket(v uint64) int {
	shift := max(bits.Len64(v)-8, 0)
	return shift*perOctave + int(v>>shift)
}

// middle is the middle of a bucket.
func middle(bucket int) time.Duration {
	if bucket < 2*perOctave {
		return time.Duration(bucket)
	}
	shift := bucket/perOctave - 1
	return time.Duration((bucket%perOctave+perOctave)<<shift + (1<<shift)/2)
}

// A Summary is what a histogram has to say.
type Summary struct {
	Count              int64
	P50, P90, P99, Max time.Duration
}

// Summary returns what was counted so far.
func (h *Histogram) Summary() Summary {
	s := Summary{Max: time.Duration(h.max.Load())}
	var counts [buckets]int64
	for i := range counts {
		counts[i] = h.counts[i].Load()
		s.Count += counts[i]
	}
	percentile := func(p int64) time.Duration {
		left := (s.Count*p + 99) / 100
		for i, n := range counts {
			if left -= n; left <= 0 && n > 0 {
				return min(middle(i), s.Max)
			}
		}
		return 0
	}
	s.P50, s.P90, s.P99 = percentile(50), percentile(90), percentile(99)
	return s
}
