package main

import (
	"context"
	"sync"
)

// A queue holds lines until somebody takes them, so that those which come while a request is under way are the next
// one, together.
type queue struct {
	most  int  // how much it holds, in bytes
	whole bool // all lines are taken at once

	mu      sync.Mutex // above what follows; nothing is waited for under it
	lines   []line
	size    int
	end     error         // why no more come, io.EOF where that was all
	changed chan struct{} // closed by the next change, nil where nobody waits for it
}

// size is what a line takes in memory, roughly.
func (l line) size() int { return len(l.data) + 64 }

// put adds lines as soon as there is room for them, and tells whether there was before ctx ended. In an empty queue
// there is room for all.
func (q *queue) put(ctx context.Context, lines ...line) bool {
	size := 0
	for _, l := range lines {
		size += l.size()
	}
	return q.when(ctx, func() bool {
		room := q.size == 0 || q.size+size <= q.most
		if room {
			q.lines, q.size = append(q.lines, lines...), q.size+size
		}
		return room
	})
}

// close says that no more lines come, and why.
func (q *queue) close(why error) {
	q.when(context.Background(), func() bool { q.end = why; return true })
}

// take returns the next lines as soon as there are some: as many as make a batch. With or behind the last of them
// comes the error of close, with them all where the whole is taken at once. Before them it is that of ctx.
func (q *queue) take(ctx context.Context) (lines []line, err error) {
	ok := ctx.Err() == nil && q.when(ctx, func() bool {
		if q.whole && q.end == nil {
			return false
		}
		n, size := 0, 0
		for n < len(q.lines) && (q.whole || n < batchLines && (n == 0 || size+len(q.lines[n].data) <= batchBytes)) {
			size += len(q.lines[n].data)
			q.size -= q.lines[n].size()
			n++
		}
		if lines, q.lines = q.lines[:n:n], q.lines[n:]; len(q.lines) == 0 {
			err = q.end
		}
		return n > 0 || err != nil
	})
	if !ok {
		err = context.Cause(ctx)
	}
	return lines, err
}

// when does what can be done now or after a change, which it is itself, and tells whether it was before ctx ended.
func (q *queue) when(ctx context.Context, do func() bool) bool {
	for {
		q.mu.Lock()
		done := do()
		if done && q.changed != nil {
			close(q.changed)
			q.changed = nil
		} else if !done && q.changed == nil {
			q.changed = make(chan struct{})
		}
		changed := q.changed
		q.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}
