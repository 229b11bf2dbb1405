package streamlib

import (
	"bytes"
	"context"
	"fmt"
)

// An importer is a stream that takes what was committed elsewhere.
type importer interface {
	restore(ctx context.Context, c Change) error
}

// maxImport bounds the records of one import in bytes.
const maxImport = 64 << 20

// restore brings a change from elsewhere into s, where s takes one.
func restore(ctx context.Context, s Stream, c Change) error {
	if to, ok := s.(importer); ok {
		return to.restore(ctx, c)
	}
	return fmt.Errorf("import %q: %w: its factory's streams take no imports", s.Name(), ErrUnavailable)
}

func (s *core) restore(ctx context.Context, c Change) error {
	a := &appending{op: "import", change: &c}
	err := ctx.Err()
	if err == nil {
		err = a.check(s.quoted)
	}
	if err != nil {
		return fmt.Errorf("import %q: %w", s.name, err)
	}
	s.commits.Do(a)
	return a.err
}

// check finds what can be no stream's change, or not that of the stream whose quoted name is given.
func (a *appending) check(quoted []byte) error {
	if a.change.Delete {
		return fmt.Errorf("%w change: it deletes", ErrInvalid)
	}
	for i, e := range a.change.Events {
		if a.size += len(e.Record()); a.size > maxImport {
			return fmt.Errorf("%w: over %d bytes at once", ErrTooLarge, maxImport)
		}
		if !bytes.HasPrefix(e.public[nameAt:], quoted) || i > 0 && e.Offset != a.change.Events[i-1].Offset+1 {
			return fmt.Errorf("%w change: event %d of %q is not what comes next", ErrInvalid, e.Offset, e.Stream())
		}
	}
	return nil
}

// bring stores what was committed elsewhere, and shows it. Like that of an append, what becomes of it is decided here.
func (s *core) bring(a *appending) error {
	tail, was, err := s.end()
	if err != nil {
		return unavailable(err)
	}
	storedTail, stored := tail, was
	if made := !was.exists(tail); made {
		was = State{}
	}
	state := was
	if a.err = s.follows(a, tail, &state); a.err != nil {
		if s.others != nil && !s.sure {
			return errStale
		}
		return nil
	}
	change := Change{Events: a.change.Events}
	if sets := state; sets.Life != was.Life || sets.First != was.First || sets.Closed != was.Closed ||
		sets.Note != was.Note || sets.Held != was.Held {
		change.State = &sets
	}
	if len(change.Events) == 0 && change.State == nil {
		return nil
	}
	if tail == 0 {
		s.shared.making.Store(s.name, nil)
	}
	if err := s.put(change, storedTail, &stored); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.imports.Add(1)
	s.shared.keys.forget(s.name) // whoever asks next reads what there is now
	s.tail = max(s.tail, state.First)
	s.publish(change.Events, a.size, state)
	s.recent, s.size = nil, 0 // the events may be parts of much larger pieces of memory
	return nil
}

// follows tells why what was committed elsewhere cannot be where the stream ends at tail, or what the stream's state
// becomes by it: that of a stream that there is not is the zero value.
func (s *core) follows(a *appending, tail Offset, state *State) error {
	events, brought := a.change.Events, a.change.State
	if brought != nil && !state.exists(tail) {
		tail = brought.First
		*state = State{Life: brought.Life, First: tail, Keys: brought.Keys, Note: brought.Note, Held: brought.Held}
		if len(events) == 0 {
			state.UpdatedAt = brought.UpdatedAt
		}
	}
	end := tail + Offset(len(events))
	switch {
	case brought != nil && brought.Life != state.Life:
		return &ConflictError{Stream: s.name, Tail: tail, Want: tail, Life: true, Op: a.op}
	case len(events) > 0 && state.Closed:
		return &ClosedError{s.name, tail}
	case len(events) > 0 && events[0].Offset != tail:
		return &ConflictError{Stream: s.name, Tail: tail, Want: events[0].Offset, Op: a.op}
	case tail < 0 || end-1 > MaxOffset:
		return fmt.Errorf("import %q: %w offsets from %d to %d", s.name, ErrInvalid, tail, end)
	}
	for _, e := range events {
		created := e.CreatedAt()
		if created.Before(state.UpdatedAt) {
			return fmt.Errorf("import %q: %w change: event %d is older than the one before it", s.name, ErrInvalid,
				e.Offset)
		}
		state.UpdatedAt = created
	}
	state.Closed = state.Closed || brought != nil && brought.Closed
	if brought != nil && len(events) > 0 { // what was noted of these events
		state.Note, state.Held = brought.Note, brought.Held || state.Held
	}
	return nil
}
