// Package metrics counts what a process does and writes it in the text format of Prometheus, version 0.0.4
// (prometheus.io/docs/instrumenting/exposition_formats). Counting is atomic and allocates nothing; all of it may be
// done by many goroutines at once.
package metrics

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
)

// ContentType is that of what a Page has.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// A Counter counts what only becomes more; the zero value is ready to use.
type Counter struct{ n atomic.Uint64 }

// Add adds n, which is not negative.
func (c *Counter) Add(n int) { c.n.Add(uint64(n)) }

// Value is what was added so far.
func (c *Counter) Value() float64 { return float64(c.n.Load()) }

// A Histogram counts observations by size.
type Histogram struct {
	bounds []float64
	counts []atomic.Uint64 // of those up to each bound and above the one before, and of those above all
	sum    atomic.Uint64   // the bits of a float64
}

// Seconds are bounds for what takes between a tenth of a millisecond and half a minute.
func Seconds() []float64 {
	return []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
}

// Sizes are bounds for what there are between one and some thousands of.
func Sizes() []float64 {
	return []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384}
}

// NewHistogram returns one with buckets up to each of the bounds, which ascend, and one above.
func NewHistogram(bounds []float64) *Histogram {
	return &Histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

// Observe counts one observation.
func (h *Histogram) Observe(v float64) {
	i, _ := slices.BinarySearch(h.bounds, v)
	h.counts[i].Add(1)
	for {
		old := h.sum.Load()
		if h.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// A Page is what is answered to one who asks for the metrics: the zero value is empty. Those of one name follow each
// other, with different labels. One goroutine writes it.
type Page struct {
	text []byte
	name string
}

// Bytes is the page so far.
func (p *Page) Bytes() []byte { return p.text }

// Counter writes what only becomes more; its name ends with _total. Labels are names and values in turn.
func (p *Page) Counter(name, help string, v float64, labels ...string) {
	p.head(name, help, "counter")
	p.sample(name, v, labels)
}

// Gauge writes what becomes more and less.
func (p *Page) Gauge(name, help string, v float64, labels ...string) {
	p.head(name, help, "gauge")
	p.sample(name, v, labels)
}

// Histogram writes what was observed.
func (p *Page) Histogram(name, help string, h *Histogram, labels ...string) {
	p.head(name, help, "histogram")
	total := uint64(0)
	bucket := append(slices.Clone(labels), "le", "+Inf")
	for i := range h.counts {
		total += h.counts[i].Load()
		if bucket[len(bucket)-1] = "+Inf"; i < len(h.bounds) {
			bucket[len(bucket)-1] = number(h.bounds[i])
		}
		p.sample(name+"_bucket", float64(total), bucket)
	}
	p.sample(name+"_sum", math.Float64frombits(h.sum.Load()), labels)
	p.sample(name+"_count", float64(total), labels)
}

func (p *Page) head(name, help, kind string) {
	if p.name == name {
		return
	}
	p.name = name
	p.text = append(p.text, "# HELP "+name+" "+helpText.Replace(help)+"\n# TYPE "+name+" "+kind+"\n"...)
}

var (
	helpText  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelText = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

func (p *Page) sample(name string, v float64, labels []string) {
	p.text = append(p.text, name...)
	for i := 0; i+1 < len(labels); i += 2 {
		before := ","
		if i == 0 {
			before = "{"
		}
		p.text = append(p.text, before+labels[i]+`="`+labelText.Replace(strings.ToValidUTF8(labels[i+1], "\uFFFD"))+`"`...)
	}
	if len(labels) > 1 {
		p.text = append(p.text, '}')
	}
	p.text = append(append(append(p.text, ' '), number(v)...), '\n')
}

func number(v float64) string {
	if math.IsInf(v, 1) {
		return "+Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}
