package streamlib

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/iterate/durable-streams/streamlib/budget"
)

func (s *core) Read(ctx context.Context, from, to Offset) iter.Seq2[[]Event, error] {
	return func(yield func([]Event, error) bool) {
		if err := s.fresh(ctx); err != nil {
			yield(nil, fmt.Errorf("read %q: %w", s.name, err))
			return
		}
		pos, life, tail, err := s.position(from)
		corrupt, damaged := errors.AsType[*CorruptError](err)
		if damaged && from != Now {
			tail, err = MaxOffset, nil // what stands before the damage still reads
		}
		if err == nil {
			if pos, err = s.read(ctx, pos, min(to, tail), life, yield); err == nil && damaged && pos < to {
				err = corrupt
			}
		}
		if err != nil && err != errStopped {
			yield(nil, fmt.Errorf("read %q: %w", s.name, err))
		}
	}
}

// Subscribe takes its place in the stream's life when it is called.
func (s *core) Subscribe(ctx context.Context, from Offset) iter.Seq2[[]Event, error] {
	fresh := s.fresh(ctx)
	pos, life, _, err := s.position(from)
	err = cmp.Or(fresh, err)
	if _, corrupt := errors.AsType[*CorruptError](err); corrupt && from == Now {
		pos = MaxOffset // no place; what stands before the damage is not asked for
	}
	return func(yield func([]Event, error) bool) {
		if err := s.follow(ctx, pos, life, err, yield); err != errStopped && err != nil {
			yield(nil, fmt.Errorf("subscribe %q: %w", s.name, err))
		}
	}
}

// errStopped ends an iteration whose consumer wants no more.
var errStopped = errors.New("the consumer stopped")

// position resolves from, and returns the life and the tail that go with it.
func (s *core) position(from Offset) (pos Offset, life int, tail Offset, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.load()
	switch pos = from; {
	case from == Now:
		pos = s.tail
	case from < 0:
		pos = s.state.First
	case err == nil:
		err = s.gone(pos)
	}
	return pos, s.life, s.tail, err
}

// gone tells that what comes at pos was dropped. The caller holds mu.
func (s *core) gone(pos Offset) error {
	if pos >= s.state.First {
		return nil
	}
	return &GoneError{Stream: s.name, After: pos - 1, Tail: s.tail, First: s.state.First}
}

// follow is the one loop for catching up and for being live. Err is that of looking pos up. At the end of a stream that
// is closed it returns nil.
func (s *core) follow(ctx context.Context, pos Offset, life int, err error, yield func([]Event, error) bool) error {
	if err != nil {
		if _, corrupt := errors.AsType[*CorruptError](err); corrupt {
			if _, err := s.read(ctx, pos, MaxOffset, life, yield); err != nil {
				return err
			}
		}
		return err
	}
	s.mu.Lock()
	if s.followers++; s.followers == 1 && s.others != nil {
		s.deaf = s.listen()
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		deaf := s.deaf
		if s.followers--; s.followers > 0 || deaf == nil {
			deaf = func() {}
		}
		if s.followers == 0 {
			s.recent, s.size, s.deaf = nil, 0, nil
		}
		s.mu.Unlock()
		deaf()
	}()
	for {
		recent, tail, changed, err := s.look(pos, life)
		switch {
		case err == errEnded:
			return nil
		case err != nil:
			return err
		case changed != nil:
			select {
			case <-changed:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		case len(recent) > 0:
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if pos += Offset(len(recent)); !yield(recent, nil) {
				return errStopped
			}
		default:
			if pos, err = s.read(ctx, pos, tail, life, yield); err != nil {
				return err
			}
		}
	}
}

// errEnded says that there will be no more events.
var errEnded = errors.New("the stream is closed")

// look returns what a follower at pos does next: take the recent events, read up to the tail, or wait for a change.
func (s *core) look(pos Offset, life int) (recent []Event, tail Offset, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return nil, 0, nil, err
	}
	err = s.gone(pos)
	switch {
	case s.life != life:
		return nil, 0, nil, ErrDeleted
	case err != nil:
		return nil, 0, nil, err
	case pos >= s.tail && s.state.Closed:
		return nil, 0, nil, errEnded
	case pos >= s.tail:
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		return nil, s.tail, s.changed, nil
	case len(s.recent) > 0 && s.recent[0].Offset <= pos:
		return slices.Clip(s.recent[pos-s.recent[0].Offset:]), s.tail, nil, nil
	}
	return nil, s.tail, nil, nil
}

// read yields [from, to) from the storage as long as the stream lives its given life, and returns where it ended.
func (s *core) read(ctx context.Context, from, to Offset, life int, yield func([]Event, error) bool) (Offset, error) {
	if from >= to {
		return from, nil
	}
	turn, room := budget.TakeTurn(ctx)
	switch {
	case ctx.Err() != nil:
		turn.End()
		return from, context.Cause(ctx)
	case !room:
		return from, fmt.Errorf("%w: too much is being read, and there is no room in memory for more", ErrUnavailable)
	}
	defer turn.End()
	var failed error
	s.mu.Lock()
	of := s.state.Life
	over := s.life != life
	s.mu.Unlock()
	if over {
		return from, ErrDeleted
	}
	for again := true; again; {
		again = false
		for events, err := range s.stored(ctx, from, to, of) {
			if failed = err; failed != nil {
				break
			}
			s.mu.Lock()
			over, gone := s.life != life, s.gone(from)
			s.mu.Unlock()
			switch {
			case over: // what was read may be of the next life
				return from, ErrDeleted
			case gone != nil: // or begin further on
				return from, gone
			}
			if turn != nil {
				turn.Has(bytesOf(events))
			}
			if !yield(events, nil) {
				return from, errStopped
			}
			if from += Offset(len(events)); from < to && turn.Wanted() {
				again = true
				break // for the storage holds more than it has yielded
			}
		}
		if again && !turn.Next(ctx) {
			return from, context.Cause(ctx)
		}
	}
	if failed == nil && (from >= to || to == MaxOffset) {
		return from, nil
	}
	if err := s.settled(ctx, life); err != nil {
		return from, err
	}
	if failed == nil {
		failed = fmt.Errorf("the storage ended at %d, before %d", from, to)
	}
	return from, failed
}

func bytesOf(events []Event) (n int64) {
	for _, e := range events {
		n += int64(len(e.Record()))
	}
	return n
}

// settled waits for a deletion that is under way, and returns ErrDeleted where the life is over.
func (s *core) settled(ctx context.Context, life int) error {
	s.mu.Lock()
	deleting := s.deleting
	s.mu.Unlock()
	if deleting != nil {
		select {
		case <-deleting:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if _, now, _, _ := s.position(0); now != life {
		return ErrDeleted
	}
	return nil
}

// remember keeps the last commits for the followers, who then need not read them from the storage each. What they
// were given stays as it is: the slice only grows, or is replaced. The caller holds mu.
func (s *core) remember(events []Event, size int) {
	if s.followers == 0 || size > keepCommit {
		s.recent, s.size = nil, 0
		return
	}
	if s.size+size > keepRecent { // half of it stays, for those who are a little behind
		kept := s.recent
		for ; len(kept) > 0 && s.size+size > keepRecent/2; kept = kept[1:] {
			s.size -= len(kept[0].Record())
		}
		s.recent = slices.Clone(kept)
	}
	s.recent, s.size = append(s.recent, events...), s.size+size
}

// wake lets the followers look again. The caller holds mu.
func (s *core) wake() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}
