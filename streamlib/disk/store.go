package disk

import (
	"container/list"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/internal/commit"
	"github.com/iterate/durable-streams/streamlib/internal/names"
)

// Options of a Store; the zero value is ready to use.
type Options struct {
	// NoSync acknowledges what the operating system has and the disk may not have yet: for tests and for data that
	// may be lost.
	NoSync bool
	// MaxOpen is how many files of streams stay open; 0 is 16,384, or half of what the process may have open, or a
	// quarter of a few.
	MaxOpen     int
	JournalSize int64        // how large a journal grows before the next one is begun, in bytes; 0 is 64 MiB
	MaxNames    int          // how many streams it names before that; 0 is 65,536
	Log         *slog.Logger // nil discards
	// Synced, where not nil, is called with how long each sync of a journal took that an append waited for. It must not
	// call the Store.
	Synced func(time.Duration)
	// Failed, where not nil, is called once, when a sync has failed and there are no more appends until the next
	// Open. It must not call the Store.
	Failed func(error)
}

// A Store is a streamlib.Storage on a folder.
type Store struct {
	fs       fsys
	lock     io.Closer
	options  Options
	tell     func(string)       // what Repair gave up; nil where nobody asked
	progress func(done, of int) // of a repair; nil where nobody asks
	// unconverted tells Verify that the streams may have the older form.
	unconverted bool
	together    bool // a replay syncs what it writes to all files with one sync
	commits     commit.Group[*request]
	logs        openLogs
	names       names.Index // while they are listed
	stated      names.Index // those of streams that have a state

	// The committer's alone.
	prepared bool     // the folder has what belongs into it
	journal  *journal // nil until something is to be written
	number   uint64   // of the last journal there was
	frames   uint64   // in it
	round    uint64   // counts commits
	gaveBack bool     // the open commit made the journals give back what they take
	before   uint64   // what retired was when the open commit began
	scarce   error    // why the last file that was to be made could not be
	frame    []byte
	changed  time.Time // what fsys.reachable said of the streams' folder

	// mu guards what follows. It is taken after a stream's own lock, and never held while the disk works.
	mu            sync.Mutex
	full          []*journal              // waiting for their checkpoint, in order
	broken        error                   // why there are no more appends: a sync failed, or the store was closed
	failed        bool                    // a sync did
	syncs         int                     // under way
	checkpointing bool                    // a checkpoint is under way
	removing      bool                    // it removes its journal
	work          *sync.Cond              // any of these five changed
	marks         map[string]*mark        // by the stem of the name
	states        map[string]*stateRecord // that are newer than their files, by the stem of the name
	trimmed       map[string]bool         // streams whose files may have what is not kept, by name
	retired       uint64                  // counts the journals that went
	stalled       bool                    // there was no room for a checkpoint
	replayed      time.Duration           // what Open took to make good what a former process left
	running       sync.WaitGroup

	marking  sync.Mutex // held while a mark is made or removed; taken before mu
	renaming sync.Mutex // held while a state's file gets its name or loses it; taken before mu

	version   atomic.Int32 // of the folder's format; whoever commits raises it
	deletions atomic.Int64 // that the folder has seen
	written   atomic.Int64 // the length of the journal that is written, 0 where there is none
	counting  sync.Mutex
	counted   int64 // of them in their file, -1 where there is none; counting guards it
}

// Open opens the folder dir, which it makes where there is none, and takes it for this process: ErrLocked where
// another has it. It replays what a former process left in the journal; where that is damaged it is
// *streamlib.CorruptError. It starts one goroutine, for checkpoints, which Close ends.
func Open(dir string, o Options) (*Store, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	lock, root, err := take(dir)
	if err != nil {
		return nil, err
	}
	s, err := openStore(root, o)
	if err != nil {
		return nil, errors.Join(&fs.PathError{Op: "open", Path: dir, Err: err}, root.close(), lock.Close())
	}
	s.lock = lock
	s.running.Go(s.checkpoints)
	s.running.Go(s.collects)
	return s, nil
}

// take opens the folder and takes it for this process.
func take(dir string) (lock io.Closer, root fsys, err error) {
	if lock, err = Lock(dir); err != nil {
		return nil, nil, err
	}
	if root, err = openFS(dir); err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	return lock, root, nil
}

// openStore is Open on any file system, without the goroutine: the caller steps the checkpoints.
func openStore(root fsys, o Options) (*Store, error) {
	s := newStore(root, o)
	if err := s.loadMarks(); err != nil {
		return nil, err
	}
	if err := s.convert(); err != nil {
		return nil, err
	}
	err := s.prepareFolder()
	if err != nil && classify(err) != streamlib.ErrUnavailable {
		return nil, err
	}
	s.prepared = err == nil
	begun := time.Now()
	err = s.recover(false)
	s.replayed = time.Since(begun)
	return s, err
}

func newStore(root fsys, o Options) *Store {
	if o.MaxOpen == 0 {
		o.MaxOpen = maxOpen()
	}
	if o.JournalSize == 0 {
		o.JournalSize = 64 << 20
	}
	if o.MaxNames == 0 {
		o.MaxNames = 65536
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{fs: root, options: o, marks: map[string]*mark{}, states: map[string]*stateRecord{},
		trimmed: map[string]bool{}}
	s.logs = openLogs{fs: root, options: o, open: s.openLog, sync: s.sync, logs: map[string]*log{}, idle: list.New(),
		unsynced: map[string]bool{}}
	s.work = sync.NewCond(&s.mu)
	s.commits = commit.Group[*request]{Commit: s.commit, Size: func(r *request) int { return r.size },
		Max: streamlib.MaxBatch}
	return s
}

// Figures are what a Store tells of itself.
type Figures struct {
	Streams      int           // that are kept ready, most of them with an open file
	Journals     int           // that there are, with the one that is written
	JournalBytes int64         // in them
	Replay       time.Duration // what Open took to make good what a former process left
	Failed       bool          // a sync has: there are no more appends until the next start
}

// Figures returns them as they are now.
func (s *Store) Figures() Figures {
	s.mu.Lock()
	f := Figures{Journals: len(s.full), Replay: s.replayed, Failed: s.failed}
	for _, j := range s.full {
		f.JournalBytes += j.end
	}
	s.mu.Unlock()
	if written := s.written.Load(); written > 0 {
		f.Journals++
		f.JournalBytes += written
	}
	s.logs.mu.Lock()
	defer s.logs.mu.Unlock()
	f.Streams = len(s.logs.logs)
	return f
}

// fail ends all appending: after a failed sync nobody knows what is on the disk. The next start finds out, from the
// journal.
func (s *Store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.failed {
		s.failed = true
		s.broken = fmt.Errorf("%w: a sync failed (%v): the server must be started again",
			streamlib.ErrUnavailable, err)
		s.options.Log.Error("a sync failed: no more appends until the next start", "error", err)
		if s.options.Failed != nil {
			s.options.Failed(s.broken)
		}
	}
	s.work.Broadcast()
}

// sync syncs a file or folder, or fails the store. A second sync of it would then return nil for what the first one
// lost, so a checkpoint lets no journal go while another sync is under way.
func (s *Store) sync(path string, sync func() error) error {
	s.mu.Lock()
	s.syncs++
	s.mu.Unlock()
	err := sync()
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
		s.fail(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.syncs--
	s.work.Broadcast()
	return err
}

// syncStreams makes the streams' names durable.
func (s *Store) syncStreams() error {
	return s.sync(streamsDir, func() error { return s.fs.syncDir(streamsDir) })
}

// Close makes everything durable in its place, so that the next start has nothing to replay, and gives the folder
// back.
func (s *Store) Close() error {
	s.commits.Do(&request{kind: ends, size: streamlib.MaxBatch})
	s.running.Wait()
	for s.checkpoint() {
	}
	s.logs.close()
	s.names.Close()
	s.stated.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.failed {
		err = s.broken
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return errors.Join(err, s.fs.close())
}
