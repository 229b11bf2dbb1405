// Package commit lets many callers share one commit: while one batch is being committed, the next one fills.
package commit

import (
	"sync"
	"time"
)

// Group turns concurrent calls of Do into calls of Commit with batches, one at a time, in the order in which Do was
// called. It owns no goroutine: one of the callers commits for all.
//
// Those whom a commit has answered are likely to come again at once, and one commit for all is cheaper than one for
// each half. So where commits are slow and batches small, a batch waits until as many callers are in it as there were
// around the last commit, for a quarter of that commit's time for each who is missing. Where they do not come in that
// time, most of the next batches do not wait. PostgreSQL's commit_delay and commit_siblings are the same thought with
// fixed numbers (postgresql.org/docs, runtime-config-wal).
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

	// Of the last commit:
	ended  time.Time
	took   time.Duration
	around int // callers in it, or in the queue at its end; 0 where it was large

	enough chan struct{} // closed when the queue has as many; nil while nobody waits for them
	pause  int           // how many batches do not wait after one that waited in vain
	left   int           // of them
}

const (
	slow     = 100 * time.Microsecond // a commit that takes less is not worth waiting for
	patience = 5 * time.Millisecond   // nobody waits longer
	large    = 64 << 10               // a batch of more is worth a commit of its own
	maxPause = 255
)

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
	if g.enough != nil && len(g.queue) >= g.around {
		close(g.enough)
		g.enough = nil
	}
	g.mu.Unlock()
	if wait && !<-c.turn {
		return
	}
	g.lead()
}

// lead commits the batch at the head of the queue, of which the caller's value is the first, then hands on.
func (g *Group[R]) lead() {
	g.mu.Lock()
	g.gather()
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

	begun := time.Now()
	defer func() { // also where Commit panics
		g.mu.Lock()
		g.ended = time.Now()
		g.took, g.around = g.ended.Sub(begun), n+len(g.queue)
		if size > large {
			g.around = 0
		}
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

// gather waits for those who are likely to come. The caller holds mu, and leads.
func (g *Group[R]) gather() {
	missing := g.around - len(g.queue)
	if missing <= 0 || g.took < slow || g.Size(g.queue[0].value) > large {
		return
	}
	wait := min(g.took/4*time.Duration(missing), patience)
	rest := wait - time.Since(g.ended)
	if rest <= 0 {
		return // there was nobody for a while
	}
	if g.left > 0 {
		g.left--
		return
	}
	enough := make(chan struct{})
	g.enough = enough
	g.mu.Unlock()
	timer := time.NewTimer(rest)
	select {
	case <-enough:
	case <-timer.C:
	}
	timer.Stop()
	g.mu.Lock()
	g.enough = nil
	if time.Since(g.ended) < wait { // the timer may have been late
		g.pause = 0
	} else {
		g.pause = min(2*g.pause+1, maxPause)
	}
	g.left = g.pause
}
