package streamlib

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iterate/durable-streams/streamlib/internal/commit"
)

// shared is what the streams of one manager have in common.
type shared struct {
	feed   feed
	keys   *windows
	making sync.Map // names of streams whose first append is under way: the storage may list what nobody can read yet
	doubts sync.Map // tails, by name, that the storage may not have: a manager may drop such a stream
}

const (
	// keepRecent is how many bytes of the last commits a followed stream keeps for its followers.
	keepRecent = 16 << 10
	// keepCommit is how large a commit may be for being kept whatever keepRecent says.
	keepCommit = 256 << 10
)

// core is the stream without hooks.
type core struct {
	name    string
	quoted  []byte
	storage Storage
	others  Shared // the storage, where it has other writers
	options Options
	shared  *shared
	commits commit.Group[*appending]
	imports atomic.Int64 // that were published, and what came of others

	mu        sync.Mutex    // guards what follows; held for reading and publishing, never while a commit is on the disk
	loaded    bool          // tail and state are what the storage has
	ended     bool          // not loaded after a deletion whose outcome is open
	lived     bool          // state has the life that was last seen
	tail      Offset        // behind what was published; unknown before it was loaded
	state     State         // with the tail
	life      int           // counts the deletions that were seen, for those who read; state.Life is for who asks
	deleting  chan struct{} // closed when the deletion that is under way is over; nil where there is none
	changed   chan struct{} // closed when tail or life changes; nil while nobody waits
	followers int
	losing    time.Time // since when a commit loses against others; of who commits, and
	sure      bool      // that it is decided on what was asked for it
	deaf      func()    // ends the listening to others, while there are followers
	recent    []Event   // the last commits' events while there are followers
	size      int       // of recent, in bytes
	claimed   map[string]chan struct{}
}

const unknown Offset = -1

// newCore returns the stream called name in storage. There must be one at a time.
func newCore(name string, storage Storage, o Options) *core {
	o = o.withDefaults()
	s := &core{name: name, quoted: appendQuoted(nil, name), storage: storage, options: o, shared: o.shared, tail: unknown}
	s.others, _ = storage.(Shared)
	if tail, ok := o.shared.doubts.Load(name); ok {
		s.tail = tail.(Offset)
	}
	s.commits = commit.Group[*appending]{Commit: s.commit, Size: func(a *appending) int { return a.size }, Max: MaxBatch}
	return s
}

func (s *core) Name() string { return s.name }

// doubt forgets what a commit whose outcome is open may have changed: the storage knows it, and is asked at once, for
// followers wait for what was stored. Where it does not answer, who comes next asks again.
func (s *core) doubt(ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loaded, s.ended, s.recent, s.size = false, ended, nil, 0
	s.shared.keys.forget(s.name)
	if s.shared.doubts.Delete(s.name); !ended && s.tail != unknown {
		s.shared.doubts.Store(s.name, s.tail)
	}
	s.wake()
	_ = s.load()
}

// load makes sure that the tail is known, and publishes what an append whose outcome was open has stored. The
// caller holds mu: what waits for it waits for the tail.
func (s *core) load() error {
	if s.loaded { // each wake-up of a follower comes here; what reads costs it two allocations
		return nil
	}
	return s.reload()
}

func (s *core) reload() error {
	info, err := s.storage.Stat(context.Background(), s.name)
	switch {
	case err != nil:
		return err
	case s.tail == unknown:
		s.tail = info.Tail
	case s.others != nil && s.lived && info.Life != s.state.Life:
		s.begin()
	case info.Tail < s.tail && s.ended:
		s.begin()
	case info.Tail < s.tail: // offsets that were given are not given again
		return fmt.Errorf("the storage lost events: its tail is %d, it was %d", info.Tail, s.tail)
	}
	if s.state.First = info.First; s.tail < info.First { // nobody can read what was between
		s.tail, s.recent, s.size = info.First, nil, 0
		s.shared.keys.forget(s.name)
		s.wake()
	}
	if s.others != nil { // keys are looked up again
		s.state.Life = info.Life
		s.imports.Add(1)
	}
	if s.tail < info.Tail {
		for events, err := range s.stored(context.Background(), s.tail, info.Tail, info.Life) {
			if err != nil {
				return err
			}
			size := 0
			for _, e := range events {
				size += len(e.Record())
				if key := e.Key(); key != "" {
					s.shared.keys.add(s.name, key, e.Offset)
				}
			}
			s.publish(events, size, s.state)
		}
		if s.tail < info.Tail {
			return fmt.Errorf("the storage ended at %d, before %d", s.tail, info.Tail)
		}
	}
	if s.loaded, s.ended, s.lived, s.state = true, false, true, info.State; s.state.Closed {
		s.wake()
	}
	s.shared.doubts.Delete(s.name)
	return nil
}

func (s *core) Stat(ctx context.Context) (info Info, err error) {
	err = s.fresh(ctx)
	for again := true; again && err == nil; {
		s.mu.Lock()
		life := s.life
		s.mu.Unlock()
		if info, err = s.storage.Stat(ctx, s.name); err == nil {
			info, again, err = s.readable(info, life)
		}
	}
	if err != nil {
		return info, fmt.Errorf("stat %q: %w", s.name, err)
	}
	return info, ctx.Err()
}

// readable is what of info, which the storage told in the given life, can be read: it may have more than was
// published.
func (s *core) readable(info Info, life int) (readable Info, again bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tail == unknown { // who reads it will find what the storage has
		return info, false, nil
	}
	err = s.load()
	switch {
	case err != nil || info.Life == s.state.Life && info.Tail <= s.tail && info.First <= s.state.First &&
		(s.state.Closed || !info.Closed) && info.Note == s.state.Note && info.Held == s.state.Held: // as it was, or may be, a moment ago
	case !s.state.exists(s.tail):
		info = Info{Name: s.name, State: s.state}
	default:
		info.Tail, info.State = s.tail, s.state
	}
	return info, s.life != life, err
}
