package object

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// Commit is one PUT where the stream's end is known and nobody else was first.
func (s *Storage) Commit(ctx context.Context, name string, c streamlib.Change) error {
	if err := cmp.Or(streamlib.CheckName(name), ctx.Err()); err != nil {
		return err
	}
	switch {
	case s.closed.Load():
		return errClosed
	case c.Delete && (len(c.Events) > 0 || c.State != nil):
		return fmt.Errorf("%w change of %q: it deletes, and does something else", streamlib.ErrInvalid, name)
	case !c.Delete && len(c.Events) == 0 && c.State == nil:
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*s.c.o.Patience)
	defer cancel()
	for try := 0; ; try++ {
		t, asked := s.mind(name), false
		var err error
		if t == nil {
			asked = true
			if t, err = s.learn(ctx, name); err != nil {
				return err
			}
		}
		h, err := s.change(ctx, name, t, c)
		if (err != nil || h == nil) && !asked { // that it is not done is decided on what there is
			if t, err = s.learn(ctx, name); err != nil {
				return err
			}
			h, err = s.change(ctx, name, t, c)
		}
		if err != nil || h == nil {
			return err
		}
		if h.Deleted {
			mark := s.mark(stem(name), t.next.generation())
			if _, err := s.c.put(ctx, mark, []byte(name), ifAbsent); err != nil && err != errTaken {
				return err
			}
		}
		taken, err := s.put(ctx, name, t, *h, c.Events)
		if err != nil || !taken {
			return err
		}
		now, err := s.learn(ctx, name)
		if err != nil {
			return unavailable(err)
		}
		if c.If != nil || try == 10 {
			return &streamlib.ConflictError{Stream: name, Tail: now.info(name).Tail, Want: t.info(name).Tail}
		}
	}
}

// unavailable makes err one that promises that nothing was stored.
func unavailable(err error) error { return fmt.Errorf("%w: %w", streamlib.ErrUnavailable, err) }

// change is the head of the change of a stream that ends with t, nil where nothing is to be done.
func (s *Storage) change(ctx context.Context, name string, t *tail, c streamlib.Change) (*head, error) {
	is := t.info(name)
	if w := c.If; w != nil && (w.Tail != is.Tail || w.Life != is.Life || w.First != is.First || w.Closed != is.Closed ||
		w.Note != is.Note || w.Held != is.Held) {
		return nil, &streamlib.ConflictError{Stream: name, Tail: is.Tail, Want: w.Tail}
	}
	h := head{Nonce: rand.Text(), Stream: name, Life: is.Life, First: is.Tail}
	if t.there {
		h = t.head
		h.Nonce, h.First, h.Count = rand.Text(), t.end(), 0
	}
	if c.Delete {
		if !t.there {
			return nil, nil
		}
		return &head{Nonce: h.Nonce, Stream: name, First: h.First, Life: max(h.Life, t.at.gen) + 1, Deleted: true}, nil
	}
	if t.next.n > maxChanges {
		return nil, fmt.Errorf("%w: stream %q was changed too often at offset %d", streamlib.ErrUnavailable, name, h.First)
	}
	if c.State != nil && h.Kept == h.First && c.State.First > h.First { // it begins there
		h.First, h.Kept = c.State.First, c.State.First
	}
	if len(c.Events) > 0 && c.Events[0].Offset != h.First {
		return nil, &streamlib.ConflictError{Stream: name, Tail: is.Tail, Want: c.Events[0].Offset}
	}
	h.Count = len(c.Events)
	before := h.Bytes
	if h.Kept == h.First && h.Count > 0 {
		h.Dropped, h.CreatedAt = h.Bytes, c.Events[0].CreatedAt()
	}
	for _, e := range c.Events {
		h.Bytes += int64(len(e.Record()))
		h.UpdatedAt = e.CreatedAt()
	}
	if c.State == nil {
		return &h, nil
	}
	first := c.State.First
	if first < h.Kept || first > h.end() {
		return nil, fmt.Errorf("%w change of %q: the first event would be %d, there are those from %d to %d",
			streamlib.ErrInvalid, name, first, h.Kept, h.end())
	}
	switch {
	case first == h.Kept:
	case first == h.end():
		h.Dropped, h.CreatedAt = h.Bytes, time.Time{}
	case first >= h.First:
		h.Dropped = before
		for _, e := range c.Events[:first-h.First] {
			h.Dropped += int64(len(e.Record()))
		}
		h.CreatedAt = c.Events[first-h.First].CreatedAt()
	default:
		b, err := s.holding(ctx, name, t, first)
		if err != nil {
			return nil, unavailable(err)
		}
		h.Dropped = b.head.Bytes
		for _, e := range b.events[first-b.head.First:] {
			h.Dropped -= int64(len(e.Record()))
		}
		h.CreatedAt = b.events[first-b.head.First].CreatedAt()
	}
	h.Note, h.Held = c.State.Note, c.State.Held
	h.Life, h.Kept, h.Closed, h.Keys = c.State.Life, first, c.State.Closed, c.State.Keys
	if h.UpdatedAt.IsZero() {
		h.UpdatedAt = c.State.UpdatedAt
	}
	return &h, nil
}

// put sends the change, signed with the time at which t was known: the store refuses it where that is long ago. Taken
// says that another is in its place. An error that is no ErrUnavailable leaves the outcome open.
func (s *Storage) put(ctx context.Context, name string, t *tail, h head, events []streamlib.Event) (taken bool,
	err error) {
	body, key, maybe := h.body(events), s.key(name, t.next), false
	ctx, cancel := context.WithTimeout(ctx, s.c.o.Patience*6/5)
	defer cancel()
	for try, wait := 0, 20*time.Millisecond; ; try, wait = try+1, wait*2 {
		r, err := s.c.do(ctx, http.MethodPut, key, nil, body, ifAbsent, t.known)
		if err == nil && r.status < 300 {
			if done, err := behind(name, t.next, body, r.known); err == nil {
				s.keep(name, done)
			}
			return false, nil
		}
		refused := err != nil && errors.Is(err, streamlib.ErrUnavailable) || err == nil && r.refused()
		if maybe = maybe || !refused; err == nil {
			err = s.c.failed("append", r)
		}
		final := refused && !r.again() && !r.taken()
		if final && !maybe {
			if s.forget(name); r.code == tooSkewed { // it is to be decided on what there is now
				return true, nil
			}
			return false, err
		}
		if r, err := s.c.do(ctx, http.MethodGet, key, nil, nil, "", time.Time{}); err == nil && r.status == http.StatusOK {
			there, err := behind(name, t.next, r.body, t.known)
			switch {
			case err != nil && maybe:
				return false, fmt.Errorf("append: the outcome is open: %v", err)
			case err != nil:
				return false, unavailable(err)
			case !there.Merged:
				s.keep(name, there)
				return there.Nonce != h.Nonce, nil
			case !maybe:
				s.forget(name)
				return true, nil
			}
			final = true // whose it was cannot be told any more
		}
		if try < 4 && !final {
			select {
			case <-time.After(wait):
				continue
			case <-ctx.Done():
			}
		}
		s.forget(name)
		if maybe {
			return false, fmt.Errorf("append: the outcome is open: %v", err)
		}
		return false, unavailable(err)
	}
}
