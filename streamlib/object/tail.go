package object

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// A tail is what is known of a stream's end. It is not changed once others can see it.
type tail struct {
	head            // of the last change; the zero value where there was none
	there  bool     // there is a stream
	next   position // of the next change
	at     position // of the last change
	known  time.Time
	events []streamlib.Event // of the last change, where size is not 0
	size   int               // bytes that those take in memory, about; 0 where they are not kept
}

// keep keeps in mind what is known of a stream, unless more is known.
func (s *Storage) keep(name string, t *tail) *tail {
	s.mu.Lock()
	defer s.mu.Unlock()
	if is := s.known[name]; is != nil && (t.next.before(is.next) || t.next == is.next && t.known.Before(is.known)) {
		return is
	}
	s.set(name, t)
	for other, o := range s.known { // begins anywhere
		switch {
		case len(s.known) <= maxKnown && s.held <= maxHeld:
			return t
		case other == name:
		case len(s.known) > maxKnown, o.size == 0 && o.cost() > 0:
			s.set(other, nil)
		case o.size > 0:
			bare := *o
			bare.events, bare.size = nil, 0
			s.set(other, &bare)
		}
	}
	return t
}

// set sets what is known of a stream, nil where that is nothing. The caller holds mu.
func (s *Storage) set(name string, t *tail) {
	if was := s.known[name]; was != nil {
		s.held -= was.cost()
	}
	if t == nil {
		delete(s.known, name)
		return
	}
	s.known[name] = t
	s.held += t.cost()
}

// cost is what has no bound by itself, in bytes.
func (t *tail) cost() int { return t.size + len(t.Keys) + len(t.Note) }

func (s *Storage) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(name, nil)
}

// mind returns what is known of the stream, nil where that is nothing or too old to be built on.
func (s *Storage) mind(name string) *tail {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.known[name]
	if age := time.Duration(0); t != nil {
		if age = s.c.now().Sub(t.known); age > believe || age < -believe {
			s.set(name, nil)
			t = nil
		}
	}
	return t
}

// behind is what is known once the object at p was read, where what follows it was not there when it was known.
func behind(name string, p position, body []byte, known time.Time) (*tail, error) {
	h, events, err := parse(p.String(), body)
	if err != nil {
		return nil, err
	}
	if h.Stream != name {
		return nil, &streamlib.CorruptError{File: p.String(), Reason: fmt.Sprintf("it is of the stream %q", h.Stream)}
	}
	t := &tail{head: h, there: !h.Deleted, at: p, known: known, next: position{p.gen, h.end(), 0}}
	switch {
	case h.Deleted:
		t.next = position{p.gen + 1, 0, 0}
	case h.end() == p.first:
		t.next.n = p.n + 1
	}
	if len(body) <= maxBody {
		t.events, t.size = events, len(body)+eventCost*len(events)
	}
	return t, nil
}

// learn returns the stream's end as it is now or later.
func (s *Storage) learn(ctx context.Context, name string) (*tail, error) {
	ctx, cancel := s.c.patient(ctx, "stat")
	defer cancel()
	for t, steps := s.mind(name), 0; t != nil && steps < 8; steps++ {
		r, err := s.c.get(ctx, s.key(name, t.next))
		if err == errNone && r.known.Sub(t.known) <= believe { // else what was there may be collected
			now := *t
			now.known = r.known
			return s.keep(name, &now), nil
		} else if err == errNone {
			break
		} else if err != nil {
			return nil, err
		}
		// Nothing tells since when there is an object behind this one: what was known of the end stays as old as it was.
		if t, err = behind(name, t.next, r.body, t.known); err != nil {
			return nil, err
		} else if t.Merged {
			break
		}
		s.keep(name, t)
	}
	for range 8 { // what a listing has may be collected before it is read
		l, err := s.c.list(ctx, s.dir(name), "", "", 1)
		if err != nil {
			return nil, err
		}
		if len(l.Contents) == 0 {
			t, err := s.unborn(ctx, name, l.known)
			if err == errNone {
				continue
			} else if err != nil {
				return nil, err
			}
			return s.keep(name, t), nil
		}
		p, err := parsePosition(strings.TrimPrefix(l.Contents[0].Key, s.dir(name)))
		if err != nil {
			return nil, fmt.Errorf("stream %q: %w", name, err)
		}
		r, err := s.c.get(ctx, s.key(name, p))
		if err == errNone {
			continue
		} else if err != nil {
			return nil, err
		}
		t, err := behind(name, p, r.body, l.known)
		if err != nil {
			return nil, err
		} else if t.Merged { // since it was listed it was superseded for an hour
			continue
		}
		return s.keep(name, t), nil
	}
	return nil, fmt.Errorf("%w: stream %q: it changes too fast", streamlib.ErrUnavailable, name)
}

// unborn is what is known of a stream that has no objects: its last life may be buried. It is errNone where that has
// just changed.
func (s *Storage) unborn(ctx context.Context, name string, known time.Time) (*tail, error) {
	graves := s.grave(stem(name), "")
	l, err := s.c.list(ctx, graves, "", "", 1)
	if err != nil || len(l.Contents) == 0 {
		return &tail{known: known}, err
	}
	p, err := parsePosition(strings.TrimPrefix(l.Contents[0].Key, graves) + position{}.String()[16:])
	if err != nil {
		return nil, fmt.Errorf("stream %q: %w", name, err)
	}
	r, err := s.c.get(ctx, l.Contents[0].Key)
	if err != nil {
		return nil, err
	}
	return behind(name, p, r.body, known)
}

func (t *tail) info(name string) streamlib.Info {
	if !t.there {
		return streamlib.Info{Name: name, State: streamlib.State{Life: t.Life}}
	}
	return streamlib.Info{Name: name, State: t.state(), Tail: t.end(), Size: t.Bytes - t.Dropped, CreatedAt: t.CreatedAt}
}
