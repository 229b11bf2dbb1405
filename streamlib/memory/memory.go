// Package memory is a streamlib.Storage that forgets: for tests, and for data that nobody needs after the process.
package memory

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/iterate/durable-streams/streamlib"
)

// New returns an empty one.
func New() streamlib.Storage { return &memory{streams: map[string]remembered{}} }

type memory struct {
	mu      sync.RWMutex // guards all below; the slices only ever grow
	streams map[string]remembered
	closed  bool
}

type remembered struct {
	events []streamlib.Event
	size   int64
}

func (m *memory) Commit(ctx context.Context, name string, c streamlib.Change) error {
	if err := cmp.Or(streamlib.CheckName(name), ctx.Err()); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	stored, events := m.streams[name], c.Events
	switch tail := streamlib.Offset(len(stored.events)); {
	case m.closed:
		return errClosed
	case c.Delete && len(events) > 0:
		return fmt.Errorf("%w change of %q: it appends and deletes", streamlib.ErrInvalid, name)
	case c.Delete:
		delete(m.streams, name)
		return nil
	case len(events) == 0:
		return nil
	case events[0].Offset != tail:
		return &streamlib.ConflictError{Stream: name, Tail: tail, Want: events[0].Offset}
	}
	for _, e := range events {
		stored.size += int64(len(e.Record()))
	}
	stored.events = append(stored.events, events...)
	m.streams[name] = stored
	return nil
}

func (m *memory) Read(ctx context.Context, name string, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	return func(yield func([]streamlib.Event, error) bool) {
		if err := cmp.Or(streamlib.CheckName(name), context.Cause(ctx)); err != nil {
			yield(nil, err)
			return
		}
		m.mu.RLock()
		events := m.streams[name].events
		m.mu.RUnlock()
		from, to := max(from, 0), min(to, streamlib.Offset(len(events)))
		if from < to {
			yield(slices.Clip(events[from:to]), nil)
		}
	}
}

func (m *memory) Stat(ctx context.Context, name string) (streamlib.Info, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	stored := m.streams[name]
	info := streamlib.Info{Name: name, Tail: streamlib.Offset(len(stored.events)), Size: stored.size}
	if n := len(stored.events); n > 0 {
		info.CreatedAt, info.UpdatedAt = stored.events[0].CreatedAt(), stored.events[n-1].CreatedAt()
	}
	return info, cmp.Or(streamlib.CheckName(name), context.Cause(ctx))
}

func (m *memory) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	m.mu.RLock()
	var names []string
	for name := range m.streams {
		if strings.HasPrefix(name, prefix) && name > after {
			names = append(names, name)
		}
	}
	m.mu.RUnlock()
	slices.Sort(names)
	if limit > 0 && len(names) > limit {
		names = names[:limit]
	}
	return names, context.Cause(ctx)
}

func (m *memory) Damaged() []streamlib.Info { return nil }

func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

var errClosed = fmt.Errorf("%w: the storage is closed", streamlib.ErrUnavailable)
