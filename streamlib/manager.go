package streamlib

import (
	"container/list"
	"context"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/iterate/durable-streams/streamlib/budget"
)

// keepIdle is how many streams that nobody uses the manager keeps ready.
const keepIdle = 16 << 10

// A Manager has the streams of one storage by name: Layer 4. It makes a stream when it is first used and drops it
// some time after the last use, so what it costs depends on the streams in use and not on those that exist. Its
// methods may be called at once.
type Manager struct {
	storage Storage
	factory Factory
	options Options

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
	return &Manager{
		storage: storage, factory: f, options: o.withDefaults(), streams: map[string]*managed{}, idle: list.New(),
	}
}

// Stream returns the stream called name. It may be kept, and costs nothing while it is not used. Where the name is
// none, its methods fail with ErrInvalid. Its Subscribe takes its place when it is called, and a deletion from then
// on ends it; what it returns must be iterated over, or the stream stays in memory.
func (m *Manager) Stream(name string) Stream { return handle{m, name} }

// List returns the names of the streams that can be read: see Storage.
func (m *Manager) List(ctx context.Context, prefix, after string, limit int) (names []string, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		page, err := m.storage.List(ctx, prefix, after, max(limit-len(names), 0))
		if err != nil {
			return nil, err
		}
		over := limit <= 0 || len(page) < limit-len(names)
		if !over {
			after = page[len(page)-1]
		}
		names = append(names, slices.DeleteFunc(page, m.making)...)
		if over || len(names) == limit {
			return names, nil
		}
	}
}

// Budget returns the bound of the memory that requests and readers hold.
func (m *Manager) Budget() *budget.Budget { return m.options.Budget }

// Stored returns how many bytes of memory a batch of so many events and bytes takes as it is stored. The error is
// ErrTooLarge where no stream takes that.
func (m *Manager) Stored(name, key string, events, bytes int) (int, error) {
	size := storedSize(len(appendQuoted(nil, name)), len(key), events, bytes)
	return size, tooLarge(size, m.options.Budget)
}

// making tells whether the storage has a stream that nobody can read yet.
func (m *Manager) making(name string) bool {
	_, making := m.options.shared.making.Load(name)
	return making
}

// Last returns from where on the stream's events take at most size bytes: see Storage.
func (m *Manager) Last(ctx context.Context, name string, size int64) (Offset, error) {
	return m.storage.Last(ctx, name, size)
}

// Damaged returns the streams that are known to be damaged: see Storage.
func (m *Manager) Damaged() []Info { return m.storage.Damaged() }

// Subscribe yields what is appended from now on to the streams whose names begin with prefix, each stream's events in
// order; streams made later are among them. A reader that falls more than 64 MiB behind gets an error, never a gap.
// What is returned is to be ranged over, once.
func (m *Manager) Subscribe(ctx context.Context, prefix string) iter.Seq2[[]Event, error] {
	feed := &m.options.shared.feed
	r := feed.join() // now, not when the iteration begins
	deaf := m.hear(ctx, prefix)
	return func(yield func([]Event, error) bool) {
		defer deaf()
		defer feed.leave(r)
		for {
			events, err := feed.next(ctx, r, prefix)
			if !yield(events, err) || err != nil {
				return
			}
		}
	}
}

// Watch returns a new one, for which so many events or bytes, where not 0, are much. Of is which streams it is for:
// NAME, or PREFIX* for those whose names begin with PREFIX; without any it is for all. It is to be closed.
func (m *Manager) Watch(events int, bytes int64, of ...string) *Watch {
	return m.options.shared.feed.watch(events, bytes, of)
}

// Import commits what another storage has of a stream: events with their offsets, times and keys, and the state. No hook
// is run, for they were when the events were appended; who follows the stream gets them as all events. Where there is no
// such stream, the state makes it, and nil is State's zero value. Where there is one, the state's Life must be its own,
// and Closed closes it; it is trimmed by Trim alone. Errors are Append's, and *ConflictError where the first event's
// offset is not the tail or the life is another one. A stream of a factory that wraps others than WithHooks does is
// ErrUnavailable.
func (m *Manager) Import(ctx context.Context, name string, c Change) error {
	s, err := m.use(name)
	if err != nil {
		return err
	}
	defer m.release(s)
	return restore(ctx, s.stream, c)
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

func (h handle) Trim(ctx context.Context, before Offset) error {
	s, err := h.m.use(h.name)
	if err != nil {
		return err
	}
	defer h.m.release(s)
	return s.stream.Trim(ctx, before)
}

func (h handle) TrimIf(ctx context.Context, before Offset, life int64) error {
	s, err := h.m.use(h.name)
	if err != nil {
		return err
	}
	defer h.m.release(s)
	return s.stream.TrimIf(ctx, before, life)
}

func (h handle) Delete(ctx context.Context) error {
	s, err := h.m.use(h.name)
	if err != nil {
		return err
	}
	defer h.m.release(s)
	return s.stream.Delete(ctx)
}

func (h handle) DeleteIf(ctx context.Context, tail Offset, life int64) error {
	s, err := h.m.use(h.name)
	if err != nil {
		return err
	}
	defer h.m.release(s)
	return s.stream.DeleteIf(ctx, tail, life)
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
