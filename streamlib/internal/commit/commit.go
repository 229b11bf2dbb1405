// Package commit lets many callers share one commit: while one batch is being committed, the next one fills.
package commit

import "sync"

// Group turns concurrent calls of Do into calls of Commit with batches, one at a time, in the order in which Do was
// called. It owns no goroutine: one of the callers commits for all.
type Group[R any] struct {
	// Commit commits a batch of at least one. What it has to say to each caller it writes into the caller's R. It must
	// be able to tell there that it did not finish, for where it panics every caller's Do returns all the same.
	Commit func(batch []R)
	// Size is what a value adds to a batch, and Max what a batch may add up to; one value alone may be larger.
	Size func(R) int
	Max  int

	mu    sync.Mutex // held while callers queue, never during Commit
	queue []call[R]
	busy  bool // some caller commits, or was told to
}

type call[R any] struct {
	value R
	turn  chan bool // true: commit the next batch; false: your value was in a batch that is over
}

// Do returns when a Commit of a batch with r in it is over.
func (g *Group[R]) Do(r R) {
	c := call[R]{value: r}
	g.mu.Lock()
	wait := g.busy
	if wait {
		c.turn = make(chan bool, 1)
	}
	g.busy = true
	g.queue = append(g.queue, c)
	g.mu.Unlock()
	if wait && !<-c.turn {
		return
	}
	g.lead()
}

// lead commits the batch at the head of the queue, of which the caller's value is the first, then hands on.
func (g *Group[R]) lead() {
	g.mu.Lock()
	n, size := 0, 0
	for n < len(g.queue) && (n == 0 || size < g.Max) {
		if size += g.Size(g.queue[n].value); size > g.Max && n > 0 {
			break
		}
		n++
	}
	calls := g.queue[:n:n]
	if g.queue = g.queue[n:]; len(g.queue) == 0 {
		g.queue = nil
	}
	g.mu.Unlock()

	defer func() { // also where Commit panics
		g.mu.Lock()
		if g.busy = len(g.queue) > 0; g.busy {
			g.queue[0].turn <- true
		}
		g.mu.Unlock()
		for _, c := range calls[1:] {
			c.turn <- false
		}
	}()
	batch := make([]R, n)
	for i, c := range calls {
		batch[i] = c.value
	}
	g.Commit(batch)
}
