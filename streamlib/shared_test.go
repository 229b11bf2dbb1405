package streamlib_test

import (
	"context"
	"iter"
	"sync"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamtest"
)

// TestShared runs the contract of streams whose storage has other writers over a memory that two managers share.
func TestShared(t *testing.T) {
	t.Parallel()
	streamtest.Shared(t, func(t *testing.T) func() streamlib.Shared {
		place := &place{Storage: memory.New(), changed: map[string]chan struct{}{}}
		return func() streamlib.Shared { return &sharer{place: place, seen: map[string]<-chan struct{}{}} }
	})
}

// place is a storage that several sharers have.
type place struct {
	streamlib.Storage
	mu      sync.Mutex
	changed map[string]chan struct{} // by stream, closed with its next change
}

// change returns what is closed when the stream changes. The caller holds mu.
func (p *place) change(name string) chan struct{} {
	if p.changed[name] == nil {
		p.changed[name] = make(chan struct{})
	}
	return p.changed[name]
}

type sharer struct {
	*place
	seen map[string]<-chan struct{}
}

func (s *sharer) Close() error { return nil }

func (s *sharer) Commit(ctx context.Context, name string, c streamlib.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if is, err := s.Storage.Stat(ctx, name); err == nil && c.If != nil && (is.Tail != c.If.Tail ||
		is.Life != c.If.Life || is.First != c.If.First || is.Closed != c.If.Closed ||
		is.Note != c.If.Note || is.Held != c.If.Held) {
		return &streamlib.ConflictError{Stream: name, Tail: is.Tail, Want: c.If.Tail}
	}
	err := s.Storage.Commit(ctx, name, c)
	close(s.change(name))
	s.place.changed[name] = nil
	s.seen[name] = s.change(name)
	return err
}

func (s *sharer) Stat(ctx context.Context, name string) (streamlib.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[name] = s.change(name)
	return s.Storage.Stat(ctx, name)
}

func (s *sharer) ReadLife(ctx context.Context, name string, life int64, from,
	to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	return func(yield func([]streamlib.Event, error) bool) {
		for events, err := range s.Storage.Read(ctx, name, from, to) {
			if is, _ := s.Storage.Stat(ctx, name); is.Life != life {
				yield(nil, streamlib.ErrDeleted)
				return
			}
			if !yield(events, err) {
				return
			}
		}
		if is, _ := s.Storage.Stat(ctx, name); is.Life != life {
			yield(nil, streamlib.ErrDeleted)
		}
	}
}

func (s *sharer) Changed(ctx context.Context, name string) error {
	s.mu.Lock()
	changed := s.seen[name]
	s.mu.Unlock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
