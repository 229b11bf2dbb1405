package streamlib

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

// How far back a key is remembered: so many events, or so many bytes of them.
const (
	keyEvents = 10_000
	keyBytes  = 64 << 20
)

// keys knows which of the stream's last events were appended with which key.
type keys struct {
	at    map[string]span
	order []string // oldest first
}

// span is the place of a batch's events.
type span struct {
	first Offset
	count int
}

func (s span) end() Offset { return s.first + Offset(s.count) }

func (k *keys) add(key string, first Offset, count int) {
	k.at[key] = span{first, count}
	k.order = append(k.order, key)
}

// forget drops what is out of the window.
func (k *keys) forget(tail Offset) {
	for len(k.order) > 0 {
		if s := k.at[k.order[0]]; s.end() > tail-keyEvents {
			return
		}
		delete(k.at, k.order[0])
		k.order = k.order[1:]
	}
}

// claim returns the events of a's key where it was used, else it holds the key until release is called: a twin waits
// here for the outcome.
func (s *core) claim(ctx context.Context, a *appending) (events []Event, release func(), err error) {
	for {
		used, life, twin, err := s.lookUp(a.key)
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("append %q: %w", s.name, unavailable(err))
		case twin != nil:
			select {
			case <-twin:
				continue
			case <-ctx.Done():
				return nil, nil, fmt.Errorf("append %q: %w", s.name, context.Cause(ctx))
			}
		case used.count == 0:
			return nil, func() { s.unclaim(a.key) }, nil
		}
		_, err = s.read(ctx, used.first, used.end(), life, func(batch []Event, _ error) bool {
			events = append(events, batch...)
			return true
		})
		switch {
		case errors.Is(err, ErrDeleted):
			events = nil
			continue
		case err != nil && ctx.Err() == nil:
			return nil, nil, fmt.Errorf("append %q: %w", s.name, unavailable(err))
		case err != nil:
			return nil, nil, fmt.Errorf("append %q: %w", s.name, err)
		}
		same := len(events) == len(a.data)
		for i := 0; same && i < len(events); i++ {
			same = bytes.Equal(events[i].Data(), a.data[i])
		}
		if !same {
			return nil, nil, fmt.Errorf("append %q: %w: %q", s.name, ErrKeyReused, a.key)
		}
		return events, nil, nil
	}
}

// lookUp returns where the key was used, or what its holder closes, or else holds it for the caller.
func (s *core) lookUp(key string) (used span, life int, twin <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if twin, ok := s.claimed[key]; ok {
		return span{}, 0, twin, nil
	}
	if err := s.load(); err != nil {
		return span{}, 0, nil, err
	}
	if s.keys == nil {
		if s.keys, err = s.loadKeys(); err != nil {
			return span{}, 0, nil, err
		}
	}
	if used, ok := s.keys.at[key]; ok {
		return used, s.life, nil, nil
	}
	if s.claimed == nil {
		s.claimed = map[string]chan struct{}{}
	}
	s.claimed[key] = make(chan struct{})
	return span{}, 0, nil, nil
}

func (s *core) unclaim(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.claimed[key])
	delete(s.claimed, key)
}

// loadKeys reads the keys of the last events, backwards in steps that double, so that it reads no more than about the
// window however large the events are. The caller holds mu.
func (s *core) loadKeys() (*keys, error) {
	type keyed struct {
		key string
		span
	}
	var found []keyed // in order; the first one may reach further back than low
	low, bytes := s.tail, 0
	window := Offset(-1) // where it begins, once that is known
	for step := Offset(64); low > 0; {
		if window < 0 && (low <= s.tail-keyEvents || bytes >= keyBytes) {
			window, step = low, 1
		}
		if window >= 0 && (len(found) == 0 || found[0].first > low || found[0].end() <= window) {
			break // what reaches into the window is whole
		}
		var part []keyed
		size, from := 0, max(0, low-step)
		for events, err := range s.storage.Read(s.name, from, low) {
			if err != nil {
				return nil, err
			}
			for _, e := range events {
				size += len(e.Record())
				if key := e.Key(); key == "" {
				} else if n := len(part); n > 0 && part[n-1].key == key && part[n-1].end() == e.Offset {
					part[n-1].count++
				} else {
					part = append(part, keyed{key, span{e.Offset, 1}})
				}
			}
			if size > keyBytes && step > 1 {
				break
			}
		}
		if size > keyBytes && step > 1 { // too much at once: a shorter step
			step = max(1, step/4)
			continue
		}
		if p, f := len(part)-1, found; p >= 0 && len(f) > 0 && part[p].key == f[0].key && part[p].end() == f[0].first {
			part[p].count += f[0].count // a batch across the steps
			found = f[1:]
		}
		found = append(part, found...)
		low, bytes, step = from, bytes+size, step*2
	}
	k := &keys{at: map[string]span{}}
	for _, f := range found {
		if f.end() > window {
			k.add(f.key, f.first, f.count)
		}
	}
	return k, nil
}
