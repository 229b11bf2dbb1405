package streamlib

import (
	"context"
	"fmt"
	"sync"
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
	// maxRecords bounds the records of one batch in bytes, for many small values grow on their way to the disk.
	maxRecords = 64 << 20
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
	options Options
	shared  *shared
	commits commit.Group[*appending]

	mu        sync.Mutex    // guards what follows; held for reading and publishing, never while a commit is on the disk
	loaded    bool          // tail and last are what the storage has
	ended     bool          // not loaded after a deletion whose outcome is open
	tail      Offset        // behind what was published; unknown before it was loaded
	last      time.Time     // when the last event was created
	life      int           // counts deletions
	deleting  chan struct{} // closed when the deletion that is under way is over; nil where there is none
	changed   chan struct{} // closed when tail or life changes; nil while nobody waits
	followers int
	recent    []Event // the last commits' events while there are followers
	size      int     // of recent, in bytes
	claimed   map[string]chan struct{}
}

const unknown Offset = -1

// newCore returns the stream called name in storage. There must be one at a time.
func newCore(name string, storage Storage, o Options) *core {
	o = o.withDefaults()
	s := &core{name: name, quoted: appendQuoted(nil, name), storage: storage, options: o, shared: o.shared, tail: unknown}
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
	case info.Tail < s.tail && s.ended:
		s.begin()
	case info.Tail < s.tail: // offsets that were given are not given again
		return fmt.Errorf("the storage lost events: its tail is %d, it was %d", info.Tail, s.tail)
	}
	if s.tail < info.Tail {
		for events, err := range s.storage.Read(context.Background(), s.name, s.tail, info.Tail) {
			if err != nil {
				return err
			}
			size := 0
			for _, e := range events {
				size += len(e.Record())
			}
			s.publish(events, size, info.UpdatedAt)
		}
		if s.tail < info.Tail {
			return fmt.Errorf("the storage ended at %d, before %d", s.tail, info.Tail)
		}
	}
	s.loaded, s.ended, s.last = true, false, info.UpdatedAt
	s.shared.doubts.Delete(s.name)
	return nil
}

func (s *core) Stat(ctx context.Context) (info Info, err error) {
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
	case err != nil || info.Tail <= s.tail:
	case s.tail == 0:
		info = Info{Name: s.name}
	default:
		info.Tail, info.UpdatedAt = s.tail, s.last
	}
	return info, s.life != life, err
}
