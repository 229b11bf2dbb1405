package streamlib

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	// keepIdle is how many streams that nobody uses the manager keeps ready.
	keepIdle = 1024
	// maxBehind is how many bytes of events a subscriber to all streams may be behind.
	maxBehind = 64 << 20
)

// A Manager has the streams of one storage by name: Layer 4. It makes a stream when it is first used and drops it some time
// after the last use, so what it costs depends on the streams in use and not on those that exist. Its methods may be
// called at once.
type Manager struct {
	storage Storage
	factory Factory
	options Options
	feed    feed

	mu      sync.Mutex // guards what follows
	streams map[string]*managed
	idle    *list.List // of *managed without uses, the longest idle first
}

type managed struct {
	stream Stream
	uses   int
	idle   *list.Element
}

// NewManager returns a manager of the streams that f makes over storage. There must be one for a storage.
func NewManager(storage Storage, f Factory, o Options) *Manager {
	m := &Manager{factory: f, options: o.withDefaults(), streams: map[string]*managed{}, idle: list.New()}
	m.storage = fed{storage, &m.feed}
	return m
}

// Stream returns the stream called name. It may be kept, and costs nothing while it is not used. Where the name is none, its
// methods fail with ErrInvalid. Its Subscribe takes its place when it is called, and a deletion from then on ends it; what it
// returns must be iterated over, or the stream stays in memory.
func (m *Manager) Stream(name string) Stream { return handle{m, name} }

// List returns the names of the streams there are: see Storage.
func (m *Manager) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return m.storage.List(prefix, after, limit)
}

// Subscribe yields what is appended from now on to the streams whose names begin with prefix, each stream's events in
// order; streams made later are among them. A reader that falls more than 64 MiB behind gets an error, never a gap. What is
// returned is to be ranged over, once.
func (m *Manager) Subscribe(ctx context.Context, prefix string) iter.Seq2[[]Event, error] {
	r := m.feed.join() // now, not when the iteration begins
	return func(yield func([]Event, error) bool) {
		defer m.feed.leave(r)
		for {
			events, err := m.feed.next(ctx, r, prefix)
			if !yield(events, err) || err != nil {
				return
			}
		}
	}
}

func (m *Manager) use(name string) (*managed, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.streams[name]
	if !ok {
		s = &managed{stream: m.factory(name, m.storage, m.options)}
		m.streams[name] = s
	}
	if s.uses++; s.idle != nil {
		m.idle.Remove(s.idle)
		s.idle = nil
	}
	return s, nil
}

func (m *Manager) release(s *managed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.uses--; s.uses > 0 {
		return
	}
	if s.idle = m.idle.PushBack(s); m.idle.Len() > keepIdle {
		oldest := m.idle.Remove(m.idle.Front()).(*managed)
		delete(m.streams, oldest.stream.Name())
	}
}

// handle is a stream by its name; it holds the stream itself for as long as a call takes.
type handle struct {
	m    *Manager
	name string
}

func (h handle) Name() string { return h.name }

func (h handle) Append(ctx context.Context, b Batch) (Receipt, error) {
	s, err := h.m.use(h.name)
	if err != nil {
		return Receipt{}, err
	}
	defer h.m.release(s)
	return s.stream.Append(ctx, b)
}

func (h handle) Stat(ctx context.Context) (Info, error) {
	s, err := h.m.use(h.name)
	if err != nil {
		return Info{}, err
	}
	defer h.m.release(s)
	return s.stream.Stat(ctx)
}

func (h handle) Delete(ctx context.Context) error {
	s, err := h.m.use(h.name)
	if err != nil {
		return err
	}
	defer h.m.release(s)
	return s.stream.Delete(ctx)
}

func (h handle) Read(ctx context.Context, from, to Offset) iter.Seq2[[]Event, error] {
	return func(yield func([]Event, error) bool) {
		s, err := h.m.use(h.name)
		if err != nil {
			yield(nil, err)
			return
		}
		defer h.m.release(s)
		s.stream.Read(ctx, from, to)(yield)
	}
}

// Subscribe has the stream from now until the first iteration ends; a second one begins anew.
func (h handle) Subscribe(ctx context.Context, from Offset) iter.Seq2[[]Event, error] {
	s, err := h.m.use(h.name)
	if err != nil {
		return func(yield func([]Event, error) bool) { yield(nil, err) }
	}
	events := s.stream.Subscribe(ctx, from)
	var begun atomic.Bool
	return func(yield func([]Event, error) bool) {
		if begun.Swap(true) {
			h.Subscribe(ctx, from)(yield)
			return
		}
		defer h.m.release(s)
		events(yield)
	}
}

// fed is the storage that the manager gives its streams: it tells the feed what has become durable. A stream appends one
// batch at a time, so the feed has each stream's events in order.
type fed struct {
	Storage
	feed *feed
}

func (s fed) Append(name string, events []Event) error {
	err := s.Storage.Append(name, events)
	if err == nil {
		s.feed.publish(name, events)
	}
	return err
}

// feed is the list of commits that the subscribers to all streams go along. A commit is kept until the slowest has
// passed it, and who is too far behind is left behind.
type feed struct {
	mu      sync.Mutex // guards what follows, and each link's fields until its ready is closed
	last    *link      // the one to come; nil while there are no readers
	bytes   int64      // that went through
	checked int64      // the bytes when the readers were last looked at
	readers map[*reader]struct{}
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

func (f *feed) publish(name string, events []Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last == nil {
		return
	}
	for _, e := range events {
		f.bytes += int64(len(e.Record()))
	}
	l := f.last
	f.last = &link{ready: make(chan struct{})}
	l.name, l.events, l.end, l.next = name, events, f.bytes, f.last
	close(l.ready)
	if f.bytes-f.checked > maxBehind/64 {
		f.checked = f.bytes
		for r := range f.readers {
			if f.bytes-r.done > maxBehind {
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
