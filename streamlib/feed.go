package streamlib

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// feed is the list of commits that the subscribers to all streams go along. A commit is kept until the slowest has
// passed it, and who is too far behind is left behind.
type feed struct {
	most int64 // bytes of events that a subscriber to all streams may be behind

	mu      sync.Mutex // guards what follows, and each link's fields until its ready is closed
	last    *link      // the one to come; nil while there are no readers
	bytes   int64      // that went through
	checked int64      // the bytes when the readers were last looked at
	readers map[*reader]struct{}
	watches map[*Watch]struct{}
}

type link struct {
	name   string
	events []Event
	end    int64 // the feed's bytes with it
	next   *link
	ready  chan struct{}
}

type reader struct {
	at   *link // nil when it was left behind
	done int64 // bytes before at
}

var errBehind = errors.New("the reader is too far behind what is appended")

func (f *feed) join() *reader {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last == nil {
		f.last, f.readers = &link{ready: make(chan struct{})}, map[*reader]struct{}{}
	}
	r := &reader{at: f.last, done: f.bytes}
	f.readers[r] = struct{}{}
	return r
}

func (f *feed) leave(r *reader) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.at = nil
	if delete(f.readers, r); len(f.readers) == 0 {
		f.last = nil
	}
}

// publish adds the events, size bytes, of one stream's commit. The stream holds its lock, so that each stream's are
// in order.
func (f *feed) publish(name string, events []Event, size int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watches {
		w.note(name, len(events), int64(size))
	}
	if f.last == nil {
		return
	}
	f.bytes += int64(size)
	l := f.last
	f.last = &link{ready: make(chan struct{})}
	l.name, l.events, l.end, l.next = name, events, f.bytes, f.last
	close(l.ready)
	if f.bytes-f.checked > f.most/64 {
		f.checked = f.bytes
		for r := range f.readers {
			if f.bytes-r.done > f.most {
				r.at = nil
			}
		}
	}
}

// next returns what is ready for r, and waits until something is.
func (f *feed) next(ctx context.Context, r *reader, prefix string) (events []Event, err error) {
	for len(events) == 0 {
		f.mu.Lock()
		at := r.at
		f.mu.Unlock()
		if at == nil {
			return nil, fmt.Errorf("subscribe to all: %w", errBehind)
		}
		select {
		case <-at.ready:
		case <-ctx.Done():
			return nil, fmt.Errorf("subscribe to all: %w", context.Cause(ctx))
		}
		f.mu.Lock()
		for n := 0; r.at != nil && r.at.next != nil && n < keepCommit; {
			if l := r.at; strings.HasPrefix(l.name, prefix) {
				n += int(l.end - r.done)
				events = append(events, l.events...)
			}
			r.done, r.at = r.at.end, r.at.next
		}
		f.mu.Unlock()
	}
	return events, nil
}
