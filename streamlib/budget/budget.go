// Package budget bounds the memory that requests and readers of one process hold together.
//
// A [Budget] has two shares, so that who reads slowly never makes an append wait: what requests bring, from the first
// byte of a body to the last one of the answer, and what readers are about to write. Who has room holds it until he is
// done; nothing is taken from anybody. Who finds none waits in turn, a request a little and then no longer, a reader
// holding nothing meanwhile. So whatever waits holds on to nothing for ever, and there is no deadlock: a request that
// holds a part of its body waits a second for the rest, and no longer.
//
// What is held is an estimate of live memory, and a half of the bound at most; the other half is for what the
// collector has not found yet, for connections, and for the one commit that is on its way to the disk.
package budget

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// Default is the bound where none was chosen, in bytes, and Least the least that makes sense.
const (
	Default = 2 << 30
	Least   = 64 << 20
)

// A Budget is a bound with its shares. Make it with New. All methods may be called at once.
type Budget struct {
	Requests, Readers Share

	bound   int64
	mu      sync.Mutex
	windows func() int64
}

// New returns a budget of so many bytes; 0 is Default.
func New(bytes int64) *Budget {
	if bytes <= 0 {
		bytes = Default
	}
	b := &Budget{bound: bytes}
	b.Requests.bound, b.Readers.bound = bytes/4, bytes/4
	return b
}

// Bound returns the bound in bytes.
func (b *Budget) Bound() int64 { return b.bound }

// Held returns how many bytes are held, key windows among them.
func (b *Budget) Held() int64 {
	b.mu.Lock()
	windows := b.windows
	b.mu.Unlock()
	held := b.Requests.Held() + b.Readers.Held()
	if windows != nil {
		held += windows()
	}
	return held
}

// Windows returns how many bytes the key windows of all streams may take, and is told who knows what they do.
func (b *Budget) Windows(held func() int64) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.windows = held
	return min(64<<20, b.bound/32)
}

// Behind returns how many bytes the subscribers to all streams may be behind.
func (b *Budget) Behind() int64 { return min(64<<20, b.bound/32) }

// Batch returns how many bytes one batch may take as stored.
func (b *Budget) Batch() int { return int(min(64<<20, max(16<<20, b.bound/8))) }

// A Rank says how much of a share may be taken. Those of one rank wait in the order in which they came.
type Rank int

const (
	Small    Rank = iota // what is small may take all of it
	Whole                // what is large and will not wait for anybody's network, seven eighths
	Arriving             // what is large and does, a half
	ranks
)

// SmallSize is what is small, in bytes.
const SmallSize = 64 << 10

// A Share is a part of a budget, counted in bytes.
type Share struct {
	mu      sync.Mutex // guards what follows
	bound   int64
	held    int64
	waiting list.List // of *waiter
}

type waiter struct {
	n     int64
	rank  Rank
	ready chan struct{}
}

// Held returns how much of the share is held.
func (s *Share) Held() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// limit is up to where the rank may take.
func (s *Share) limit(rank Rank) int64 {
	switch rank {
	case Small:
		return s.bound
	case Whole:
		return s.bound / 8 * 7
	}
	return s.bound / 2
}

// take waits for n bytes as long as ctx says, and for no longer than patience where that is not 0. It tells whether it
// has them.
func (s *Share) take(ctx context.Context, n int64, rank Rank, patience time.Duration) bool {
	s.mu.Lock()
	w := &waiter{n: n, rank: rank}
	var blocked [ranks]bool
	for e := s.waiting.Front(); e != nil; e = e.Next() {
		blocked[e.Value.(*waiter).rank] = true
	}
	if !blocked[rank] && s.fits(w) {
		s.held += n
		s.mu.Unlock()
		return true
	}
	w.ready = make(chan struct{})
	place := s.waiting.PushBack(w)
	s.mu.Unlock()
	if patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	select {
	case <-w.ready:
		return true
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-w.ready:
		return true
	default:
	}
	s.waiting.Remove(place)
	s.grant() // those behind it
	return false
}

// fits tells whether there is room for w. What is larger than all that there is fits when it has it for itself. The
// caller holds mu.
func (s *Share) fits(w *waiter) bool { return s.held == 0 || s.held+w.n <= s.limit(w.rank) }

// give gives n bytes back.
func (s *Share) give(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held -= n
	s.grant()
}

// grant lets go on who has room now. The caller holds mu.
func (s *Share) grant() {
	var blocked [ranks]bool
	for e := s.waiting.Front(); e != nil; {
		w, next := e.Value.(*waiter), e.Next()
		if blocked[w.rank] = blocked[w.rank] || !s.fits(w); !blocked[w.rank] {
			s.held += w.n
			s.waiting.Remove(e)
			close(w.ready)
		}
		e = next
	}
}

// A Hold is what one holder has of a share. It is for one goroutine.
type Hold struct {
	share *Share
	n     int64
}

// Hold returns one that has nothing yet.
func (s *Share) Hold() Hold { return Hold{share: s} }

// Grow makes the hold one of n bytes, or tells that there is no room for that: it waits until there is, ctx is done or
// patience is over, where that is not 0. What is small needs not be told to be: it is by its size. A hold larger than
// its rank's limit has the limit: it has the share nearly for itself.
func (h *Hold) Grow(ctx context.Context, n int64, rank Rank, patience time.Duration) bool {
	if n <= SmallSize {
		rank = Small
	}
	n = min(n, h.share.limit(rank))
	if n <= h.n {
		return true
	}
	if !h.share.take(ctx, n-h.n, rank, patience) {
		return false
	}
	h.n = n
	return true
}

// Force makes the hold one of n bytes at least, whatever there is: what came is larger than was known. Others wait the
// longer.
func (h *Hold) Force(n int64) {
	if n <= h.n {
		return
	}
	h.share.mu.Lock()
	defer h.share.mu.Unlock()
	h.share.held += n - h.n
	h.n = n
}

// Release gives all of it back.
func (h *Hold) Release() {
	if h.n > 0 {
		h.share.give(h.n)
		h.n = 0
	}
}
