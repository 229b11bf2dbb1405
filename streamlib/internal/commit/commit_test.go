package commit_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib/internal/commit"
	"github.com/matryer/is"
)

// bench is a group whose commits a test lets go one by one.
type bench struct {
	commit.Group[int]
	batches [][]int
	release chan bool
	callers sync.WaitGroup
	over    []int // in the order in which their Do returned
	mu      sync.Mutex
}

func newBench() *bench {
	b := &bench{release: make(chan bool)}
	b.Max = 100
	b.Size = func(n int) int { return n }
	b.Commit = func(batch []int) {
		b.batches = append(b.batches, slices.Clone(batch))
		<-b.release
	}
	return b
}

// do calls Do for each value, one after the other, and returns when all wait.
func (b *bench) do(values ...int) {
	for _, v := range values {
		b.callers.Go(func() {
			defer func() {
				recover()
				b.mu.Lock()
				defer b.mu.Unlock()
				b.over = append(b.over, v)
			}()
			b.Do(v)
		})
		synctest.Wait()
	}
}

// next lets the open commit end, and returns when all wait again.
func (b *bench) next() {
	b.release <- true
	synctest.Wait()
}

func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		b := newBench()
		b.do(1)
		is.Equal(b.batches, [][]int{{1}}) // a caller alone does not wait
		b.do(2, 3, 4)
		is.Equal(b.batches, [][]int{{1}})
		b.next()
		is.Equal(b.over, []int{1}) // it does not commit for those who came later
		is.Equal(b.batches, [][]int{{1}, {2, 3, 4}})
		b.do(5)
		b.next()
		slices.Sort(b.over)
		is.Equal(b.over, []int{1, 2, 3, 4})
		b.next()
		b.callers.Wait()
		b.do(6)
		is.Equal(b.batches, [][]int{{1}, {2, 3, 4}, {5}, {6}})
		b.next()
		b.callers.Wait()
	})
}

func TestMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		b := newBench()
		b.do(1)
		b.do(60, 40, 1, 99, 500, 100, 7, 93, 1, 101)
		want := [][]int{{1}, {60, 40}, {1, 99}, {500}, {100}, {7, 93}, {1}, {101}} // full, full, larger than Max, …
		for range want {
			b.next()
		}
		b.callers.Wait()
		is.Equal(b.batches, want)
	})
}

func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		b := newBench()
		commits := b.Commit
		b.Commit = func(batch []int) {
			commits(batch)
			if len(b.batches) == 2 {
				panic("a bug in Commit")
			}
		}
		b.do(1)
		b.do(2, 3, 4)
		b.next()
		b.do(5, 6)
		b.next() // panics
		slices.Sort(b.over)
		is.Equal(b.over, []int{1, 2, 3, 4}) // nobody is left waiting
		is.Equal(b.batches, [][]int{{1}, {2, 3, 4}, {5, 6}})
		b.next()
		b.callers.Wait()
		b.do(7)
		b.next()
		b.callers.Wait()
		is.Equal(len(b.over), 7)
	})
}

func TestRace(t *testing.T) {
	is := is.New(t)
	const callers, count = 16, 300
	var running atomic.Int32
	var all [][2]int
	g := commit.Group[[2]int]{Max: 50, Size: func([2]int) int { return 10 }, Commit: func(batch [][2]int) {
		if running.Add(1) != 1 {
			t.Error("two commits at once")
		}
		if len(batch) == 0 || len(batch) > 5 {
			t.Errorf("a batch of %d", len(batch))
		}
		all = append(all, batch...)
		running.Add(-1)
	}}
	var waiting sync.WaitGroup
	for c := range callers {
		waiting.Go(func() {
			for n := range count {
				g.Do([2]int{c, n})
			}
		})
	}
	waiting.Wait()
	is.Equal(len(all), callers*count)
	var next [callers]int
	for _, v := range all {
		is.Equal(v[1], next[v[0]]) // each once, a caller's in order
		next[v[0]]++
	}
}

// load lets callers come to a group, apart in time, and each of them again some time after its answer. It returns how
// large the batches were, and how long callers waited in all, in synctest's time.
func load(took time.Duration, callers, rounds, size int, apart, again time.Duration) (batches []int,
	waited time.Duration) {
	g := commit.Group[int]{Size: func(n int) int { return n }, Max: 1 << 30}
	g.Commit = func(batch []int) {
		batches = append(batches, len(batch))
		time.Sleep(took)
	}
	var all sync.WaitGroup
	var sum atomic.Int64
	for range callers {
		all.Go(func() {
			for range rounds {
				begun := time.Now()
				g.Do(size)
				sum.Add(int64(time.Since(begun)))
				time.Sleep(again)
			}
		})
		time.Sleep(apart)
	}
	all.Wait()
	return batches, time.Duration(sum.Load())
}

// One who commits waits for those whom the last commit answered: else there would be two halves that take turns.
func TestBatchWaitsForThoseWhoComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		batches, _ := load(time.Millisecond, 4, 5, 1, time.Microsecond, 100*time.Microsecond)
		is.Equal(batches, []int{1, 4, 4, 4, 4, 3}) // nobody else was there at first
	})
}

func TestBatchDoesNotWaitWhereCommitsAreQuickOrLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		for _, batches := range [][]int{
			first(load(99*time.Microsecond, 2, 10, 1, time.Microsecond, 10*time.Microsecond)),
			first(load(time.Millisecond, 2, 10, large, time.Microsecond, 100*time.Microsecond)),
		} {
			is.Equal(slices.Max(batches), 1)
		}
	})
}

func first(batches []int, _ time.Duration) []int { return batches }

// Callers who come once, and not for being answered, wait as long as they would without that, but for a few.
func TestBatchSeldomWaitsInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		const callers = 2000
		_, without := load(time.Millisecond, callers, 1, large, 701*time.Microsecond, 0)
		_, with := load(time.Millisecond, callers, 1, 1, 701*time.Microsecond, 0)
		is.True(with < without+without/50)
	})
}

func TestWaitForWhoDoesNotComeIsAQuarterOfACommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, waited := load(time.Millisecond, 2, 1, 1, time.Microsecond, 0)
		is.Equal(waited, time.Millisecond+(2250*time.Microsecond-time.Microsecond))
	})
}

// A large value that comes first does not wait for those who may come, as a small one does.
func TestLargeValueDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		g := commit.Group[int]{Size: func(n int) int { return n }, Max: 1 << 30,
			Commit: func([]int) { time.Sleep(time.Millisecond) }}
		for _, first := range []struct {
			size int
			want time.Duration
		}{{large, time.Millisecond}, {1, 1250 * time.Microsecond}} {
			var both sync.WaitGroup
			both.Go(func() { g.Do(1); g.Do(1) })
			synctest.Wait()
			both.Go(func() { g.Do(1) })
			both.Wait() // the last commit was for the two of them
			begun := time.Now()
			g.Do(first.size)
			is.Equal(time.Since(begun), first.want)
		}
	})
}

const large = 64<<10 + 1
