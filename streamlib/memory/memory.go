// Package memory is a streamlib.Storage that forgets: for tests, and for data that nobody needs after the process.
package memory

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/internal/names"
)

// New returns an empty one.
func New() streamlib.Storage { return &memory{streams: map[string]remembered{}} }

type memory struct {
	mu        sync.RWMutex // guards all below; the slices only ever grow
	streams   map[string]remembered
	deletions int64
	closed    bool

	names names.Index
}

type remembered struct {
	events []streamlib.Event // from state.First on
	state  streamlib.State
	size   int64
}

func (r remembered) tail() streamlib.Offset { return r.state.First + streamlib.Offset(len(r.events)) }

func (m *memory) Commit(ctx context.Context, name string, c streamlib.Change) error {
	if err := cmp.Or(streamlib.CheckName(name), ctx.Err()); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	stored, there := m.streams[name]
	switch {
	case m.closed:
		return errClosed
	case c.Delete && (len(c.Events) > 0 || c.State != nil):
		return fmt.Errorf("%w change of %q: it deletes, and does something else", streamlib.ErrInvalid, name)
	case c.Delete:
		m.names.Note(name, false)
		if delete(m.streams, name); there {
			m.deletions++
		}
		return nil
	case len(c.Events) == 0 && c.State == nil:
		return nil
	}
	if c.State != nil {
		if c.State.First > stored.state.First && len(stored.events) == 0 {
			stored.state.First = c.State.First
		}
	}
	if len(c.Events) > 0 && c.Events[0].Offset != stored.tail() {
		return &streamlib.ConflictError{Stream: name, Tail: stored.tail(), Want: c.Events[0].Offset}
	}
	for _, e := range c.Events {
		stored.size += int64(len(e.Record()))
		stored.state.UpdatedAt = e.CreatedAt()
	}
	stored.events = append(stored.events, c.Events...)
	if c.State != nil {
		dropped := c.State.First - stored.state.First
		if dropped < 0 || dropped > streamlib.Offset(len(stored.events)) {
			return fmt.Errorf("%w change of %q: the first event would be %d, there are those from %d to %d",
				streamlib.ErrInvalid, name, c.State.First, stored.state.First, stored.tail())
		}
		for _, e := range stored.events[:dropped] {
			stored.size -= int64(len(e.Record()))
		}
		updated := stored.state.UpdatedAt
		if stored.events, stored.state = stored.events[dropped:], *c.State; !updated.IsZero() {
			stored.state.UpdatedAt = updated
		}
		m.deletions = max(m.deletions, c.State.Life)
	}
	if m.streams[name] = stored; !there {
		m.names.Note(name, true)
	}
	return nil
}

func (m *memory) Read(ctx context.Context, name string, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	return func(yield func([]streamlib.Event, error) bool) {
		if err := cmp.Or(streamlib.CheckName(name), context.Cause(ctx)); err != nil {
			yield(nil, err)
			return
		}
		m.mu.RLock()
		stored := m.streams[name]
		m.mu.RUnlock()
		first := stored.state.First
		if from < 0 {
			from = first
		} else if from < first {
			yield(nil, &streamlib.GoneError{Stream: name, After: from - 1, Tail: stored.tail(), First: first})
			return
		}
		if to = min(to, stored.tail()); from < to {
			yield(slices.Clip(stored.events[from-first:to-first]), nil)
		}
	}
}

func (m *memory) Stat(ctx context.Context, name string) (streamlib.Info, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	stored, there := m.streams[name]
	info := streamlib.Info{Name: name, State: stored.state, Tail: stored.tail(), Size: stored.size}
	if !there {
		info.Life = m.deletions
	}
	if len(stored.events) > 0 {
		info.CreatedAt = stored.events[0].CreatedAt()
	}
	return info, cmp.Or(streamlib.CheckName(name), context.Cause(ctx))
}

func (m *memory) Last(ctx context.Context, name string, size int64) (streamlib.Offset, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	stored := m.streams[name]
	n := len(stored.events)
	for ; n > 0; n-- {
		if size -= int64(len(stored.events[n-1].Record())); size < 0 {
			break
		}
	}
	return stored.state.First + streamlib.Offset(n), cmp.Or(streamlib.CheckName(name), context.Cause(ctx))
}

func (m *memory) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return m.names.Page(prefix, after, limit, func() ([]string, error) {
		m.mu.RLock()
		defer m.mu.RUnlock()
		return slices.Collect(maps.Keys(m.streams)), nil
	})
}

func (m *memory) Damaged() []streamlib.Info { return nil }

func (m *memory) Close() error {
	m.names.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

var errClosed = fmt.Errorf("%w: the storage is closed", streamlib.ErrUnavailable)
