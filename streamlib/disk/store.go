package disk

import (
	"bytes"
	"container/list"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/internal/commit"
)

// Options of a Store; the zero value is ready to use.
type Options struct {
	// NoSync acknowledges what the operating system has and the disk may not have yet: for tests and for data that may be lost.
	NoSync      bool
	MaxOpen     int          // files of streams to keep open; 0 is 16,384, or half of what the process may have open, or a quarter of a few
	JournalSize int64        // how large a journal grows before the next one is begun, in bytes; 0 is 64 MiB
	MaxNames    int          // how many streams it names before that; 0 is 65,536
	Log         *slog.Logger // nil discards
	// Failed, where not nil, is called once, when a sync has failed and there are no more appends until the next Open. It must not
	// call the Store.
	Failed func(error)
}

// A Store is a streamlib.Storage on a folder.
type Store struct {
	fs      fsys
	lock    io.Closer
	options Options
	tell    func(string) // what Repair gave up; nil where nobody asked
	commits commit.Group[*request]

	// The committer's alone.
	prepared bool     // the folder has what belongs into it
	journal  *journal // nil until something is to be written
	number   uint64   // of the last journal there was
	frames   uint64   // in it
	round    uint64   // counts commits
	gaveBack bool     // the open commit made the journals give back what they take
	scarce   error    // why the last file that was to be made could not be
	frame    []byte
	changed  time.Time // what fsys.reachable said of the streams' folder

	mu   sync.Mutex // guards what follows; taken after a stream's own lock, and never held while the disk works
	logs map[string]*log
	idle *list.List // of those that nobody has, the last used first
	// unsynced names the streams whose file was closed with bytes that were not synced.
	unsynced map[string]bool
	full     []*journal       // waiting for their checkpoint, in order
	broken   error            // why there are no more appends: a sync failed, or the store was closed
	failed   bool             // a sync did
	syncs    int              // under way
	settling bool             // a checkpoint is under way
	removing bool             // it removes its journal
	work     *sync.Cond       // any of these five changed
	marks    map[string]*mark // by the stem of the name
	running  sync.WaitGroup

	marking sync.Mutex // held while a mark is made or removed; taken before mu
}

// request is what one commit can be asked for.
type request struct {
	kind     kind
	name     string
	events   []streamlib.Event
	size     int
	log      *log
	from, to int // its lines in the frame
	err      error
}

type kind int

const (
	adds    kind = iota // events to the stream
	deletes             // the stream
	asks                // whether there could be a commit
	ends                // all committing
)

// Open opens the folder dir, which it makes where there is none, and takes it for this process: ErrLocked where another
// has it. It replays what a former process left in the journal; where that is damaged it is *streamlib.CorruptError. It
// starts one goroutine, for checkpoints, which Close ends.
func Open(dir string, o Options) (*Store, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	lock, err := Lock(dir)
	if err != nil {
		return nil, err
	}
	root, err := openFS(dir)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s, err := openStore(root, o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", dir, err), root.close(), lock.Close())
	}
	s.lock = lock
	s.running.Go(s.checkpoints)
	return s, nil
}

// openStore is Open on any file system, without the goroutine: the caller steps the checkpoints.
func openStore(root fsys, o Options) (*Store, error) {
	s := newStore(root, o)
	if err := s.checkFormat(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	err := s.prepareFolder()
	if err != nil && classify(err) != streamlib.ErrUnavailable {
		return nil, err
	}
	s.prepared = err == nil
	if err := s.loadMarks(); err != nil {
		return nil, err
	}
	return s, s.recover(false)
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
	s := &Store{fs: root, options: o, logs: map[string]*log{}, marks: map[string]*mark{}, idle: list.New(), unsynced: map[string]bool{}}
	s.work = sync.NewCond(&s.mu)
	s.commits = commit.Group[*request]{Commit: s.commit, Size: func(r *request) int { return r.size }, Max: streamlib.MaxBatch}
	return s
}

func (s *Store) Append(name string, events []streamlib.Event) error {
	if len(events) == 0 {
		return nil
	}
	r := &request{kind: adds, name: name, events: events}
	for _, e := range events {
		line := len(e.Record()) + sealLen
		if r.size += line; line > maxLine || r.size > maxFrame {
			return fmt.Errorf("append %q: %w: a line has at most %d bytes, and what is appended at once %d",
				name, streamlib.ErrTooLarge, maxLine, maxFrame)
		}
	}
	s.commits.Do(r)
	return r.err
}

func (s *Store) Delete(name string) error {
	r := &request{kind: deletes, name: name, size: streamlib.MaxBatch} // a frame of its own
	s.commits.Do(r)
	return r.err
}

// Ready returns nil where appends can be made, of new streams too: the folder is there, the disk has room, and no sync failed. Else it
// says why not. It waits for the commits that are under way.
func (s *Store) Ready() error {
	r := &request{kind: asks, size: streamlib.MaxBatch}
	s.commits.Do(r)
	return r.err
}

// commit is called by one goroutine at a time. Journal, sync, apply, publish: see doc.go.
func (s *Store) commit(batch []*request) {
	for _, r := range batch {
		r.err = errUnfinished
	}
	if batch[0].kind == ends {
		s.end()
		return
	}
	if err := s.usable(); err != nil {
		for _, r := range batch {
			r.err = err
		}
		return
	}
	s.gaveBack = false
	if batch[0].kind == asks {
		err := s.probe()
		if err != nil && s.giveBack(err) {
			err = s.probe()
		}
		if batch[0].err = nil; err != nil {
			batch[0].err = refused(err)
		}
		return
	}
	for todo := [][]*request{batch}; len(todo) > 0; {
		todo = append(s.attempt(todo[0]), todo[1:]...)
	}
}

// attempt commits the batch in one frame. Where that cannot be and nothing of it was stored, it returns what is to be
// tried again: all when the journals were given back to a full disk, a large frame's halves, the others where one
// stream failed.
func (s *Store) attempt(batch []*request) (again [][]*request) {
	held := batch[:0:0]
	defer func() {
		for _, r := range held {
			s.release(r.log)
		}
	}()
	fail := func(err error) {
		for _, r := range held {
			r.err = err
		}
	}
	if s.scarce != nil {
		s.scarce = s.probe()
	}
	s.round++
	frame := append(s.frame[:0], make([]byte, headerLen)...)
	for _, r := range batch {
		if r.err = s.prepare(r); r.err == nil && r.log != nil {
			held = append(held, r)
			r.err = errUnfinished
			r.from = len(frame)
			frame = r.appendLines(frame)
			r.to = len(frame)
		}
	}
	if len(held) == 0 {
		return nil
	}
	if cap(frame) <= 1<<20 {
		s.frame = frame
	}
	err := s.begin()
	if err == nil {
		err = s.write(frame, held[0].kind == deletes)
	} else if err = refused(err); held[0].kind == deletes && errors.Is(err, streamlib.ErrFull) && s.settled() {
		fail(s.deleteAtOnce(held[0]))
		return nil
	}
	switch full := errors.Is(err, streamlib.ErrFull); {
	case full && s.giveBack(err):
		return [][]*request{held}
	case full && len(held) > 1 && int64(len(frame)) > growth: // a smaller one may have room
		return slices.Collect(slices.Chunk(held, (len(held)+1)/2))
	case err != nil:
		fail(err)
		return nil
	}
	var failed, others []*request
	for _, r := range held {
		if err := s.apply(r, frame); err != nil {
			r.err = fmt.Errorf("%s: %w", r.log.path, cause(err))
			failed = append(failed, r)
		} else {
			others = append(others, r)
		}
	}
	if len(failed) > 0 {
		first := failed[0].err
		if err := s.takeBack(held, first); err != nil {
			fail(err)
		} else if classify(first) == streamlib.ErrFull && !errors.Is(posix(first), syscall.EFBIG) && s.giveBack(first) {
			again = [][]*request{held}
		} else {
			for _, r := range failed {
				r.err = refused(r.err)
			}
			if len(others) > 0 {
				again = [][]*request{others}
			}
		}
		return again
	}
	s.journal.end += int64(len(frame))
	s.journal.sequence++
	for _, r := range held {
		s.journal.names[r.name] = r.log.end
		if r.kind == deletes {
			s.journal.names[r.name] = -1
		}
		s.publish(r)
		r.err = nil
	}
	if s.journal.end >= s.options.JournalSize || len(s.journal.names) >= s.options.MaxNames {
		s.rotate()
	}
	return nil
}

// giveBack lets the disk have what the journals take, once a commit, where that is more than a new one would, or the
// journal has come to a limit for files. It tells whether it did. This is the one time that an append waits for a
// checkpoint.
func (s *Store) giveBack(cause error) bool {
	if s.gaveBack {
		return false
	}
	if j := s.journal; j != nil && j.sequence > 1 && (j.allocated > growth || errors.Is(posix(cause), syscall.EFBIG)) {
		s.rotate()
	}
	s.mu.Lock()
	s.gaveBack = len(s.full) > 0
	s.mu.Unlock()
	for s.gaveBack && s.checkpoint() {
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gaveBack && len(s.full) == 0
}

// probe tells whether a file can be made in the streams' folder, and written. After one that could not be made, it is asked before each
// frame: those that would make one cost the others no frame that is taken back then.
func (s *Store) probe() error {
	f, err := s.fs.open(probeFile, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(make([]byte, reserve), 0)
	return errors.Join(err, f.close(), s.fs.remove(probeFile))
}

// usable tells why nothing can be committed.
func (s *Store) usable() error {
	s.mu.Lock()
	err := s.broken
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if !s.prepared {
		if err := s.prepareFolder(); err != nil {
			return fmt.Errorf("%w: the folder cannot be prepared: %w", streamlib.ErrUnavailable, err)
		}
		s.prepared = true
	}
	if s.changed, err = s.fs.reachable(); err != nil {
		return fmt.Errorf("%w: %w", streamlib.ErrUnavailable, err)
	}
	return nil
}

// prepare finds out whether r can be committed. The log it takes is nil where there is nothing to do.
func (s *Store) prepare(r *request) error {
	l, err := s.acquire(r.name)
	if err != nil {
		return refused(err)
	}
	if l.round != s.round {
		f, size, tail := l.published()
		l.round, l.fresh, l.exists, l.end, l.next = s.round, true, f != nil, size, tail
	}
	if err = s.check(l, r); err != nil || r.kind == deletes && !l.exists && !s.anything(l) {
		s.release(l)
		return err
	}
	l.next += streamlib.Offset(len(r.events))
	r.log = l
	return nil
}

func (s *Store) check(l *log, r *request) error {
	if r.kind == deletes {
		return nil
	}
	if m := s.marked(l); m != nil {
		return fmt.Errorf("%w: %w", streamlib.ErrUnavailable, m.corrupt())
	}
	if l.corrupt != nil {
		return fmt.Errorf("%w: %w", streamlib.ErrUnavailable, l.corrupt)
	}
	if l.readOnly {
		return fmt.Errorf("%w: %s must not be written", streamlib.ErrUnavailable, l.path)
	}
	if l.fresh {
		if err := s.unchanged(l); err != nil {
			return refused(err)
		}
		l.fresh = false
	}
	if !l.exists && s.scarce != nil {
		return refused(fmt.Errorf("%s: %w", l.path, cause(s.scarce)))
	}
	if r.events[0].Offset != l.next {
		return &streamlib.ConflictError{Stream: r.name, Tail: l.next, Want: r.events[0].Offset}
	}
	return nil
}

// anything tells whether there is something to delete of a stream that has no file.
func (s *Store) anything(l *log) bool {
	_, journalled := s.journalled(l.name)
	return journalled || s.marked(l) != nil
}

// unchanged fails where the stream's file is not as the store left it. Its size is asked at each commit, whether it is still the one at its
// path where the folder has changed.
func (s *Store) unchanged(l *log) error {
	left, known := s.journalled(l.name)
	if !l.exists {
		if known {
			return fmt.Errorf("somebody removed %s", l.path)
		}
		return nil
	}
	size, err := l.file.size()
	if err != nil {
		return err
	}
	if !known {
		left = l.end
	}
	if size != left {
		at := min(size, left)
		return s.found(l, l.damaged(at, fmt.Errorf("somebody changed it: it has %d bytes, the server left %d", size, left)))
	}
	if !l.lost && !s.changed.IsZero() && s.changed.Equal(l.looked) {
		return nil
	}
	same, err := s.fs.same(l.path, l.file)
	if err != nil {
		return err
	}
	if l.looked = s.changed; same {
		return nil
	}
	if !l.lost {
		l.lost = true
		s.pin(l)
	}
	return fmt.Errorf("somebody removed %s, or put another file in its place", l.path)
}

// journalled tells whether a journal has events of the stream that were not deleted, and how large its file is with them.
func (s *Store) journalled(name string) (size int64, ok bool) {
	s.mu.Lock()
	journals := slices.Clone(s.full)
	s.mu.Unlock()
	if s.journal != nil {
		journals = append(journals, s.journal)
	}
	for _, j := range slices.Backward(journals) {
		if size, ok := j.names[name]; ok {
			return size, size >= 0
		}
	}
	return 0, false
}

func (r *request) appendLines(frame []byte) []byte {
	for _, e := range r.events {
		frame = appendLine(frame, e.Record())
	}
	if r.kind == deletes {
		record, _ := json.Marshal(deletion{r.name, r.log.firstSum()})
		frame = appendLine(frame, record[:len(record)-1])
	}
	return frame
}

// deletion and opening are the journal's own records.
type deletion struct {
	Delete string `json:"delete"`
	First  string `json:"first,omitempty"` // the CRC-32C of the first line that goes, by which replay knows it again; none, or "" for any
}

type opening struct {
	Journal  uint64 `json:"journal"`
	Previous uint64 `json:"previous"` // the journal before, 0 where that is gone
	Frames   uint64 `json:"frames"`   // in that one
	Sync     string `json:"sync"`     // always or none
	Boot     string `json:"boot"`     // the run of the operating system, where syncs are left out
}

// begin makes sure that there is a journal. Its first frame says what the former one must have.
func (s *Store) begin() error {
	if s.journal != nil {
		return nil
	}
	j := &journal{number: s.number + 1, path: journalPath(s.number + 1), names: map[string]int64{}}
	o := opening{Journal: j.number, Previous: s.number, Frames: s.frames, Sync: "always"}
	if s.options.NoSync {
		o.Sync, o.Boot = "none", bootID()
	}
	record, _ := json.Marshal(o)
	frame := appendLine(make([]byte, headerLen), record[:len(record)-1])
	j.seal(frame)
	var err error
	if j.file, err = s.fs.open(j.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC); err != nil {
		return fmt.Errorf("begin a journal: %w", err)
	}
	if err = j.write(frame, reserve); err == nil {
		// The folders' own names, too: a start that made them may have ended before it came to that.
		if err = errors.Join(j.file.sync(), s.fs.syncDir("."), s.fs.syncDir(journalDir)); err != nil {
			s.fail(err)
		} else {
			err = s.begun()
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("begin a journal: %w", err), j.file.close(), s.fs.remove(j.path))
	}
	j.end, j.sequence = int64(len(frame)), 1
	s.journal, s.number = j, j.number
	return nil
}

// write makes the frame durable. Where a sync fails the outcome is open.
func (s *Store) write(frame []byte, deletes bool) error {
	room := int64(reserve)
	if deletes {
		room = 0
	}
	s.journal.seal(frame)
	if err := s.journal.write(frame, room); err != nil {
		err = fmt.Errorf("%s: %w", s.journal.path, cause(err))
		if open := s.takeBack(nil, err); open != nil {
			return open
		}
		return refused(err)
	}
	if s.options.NoSync {
		return nil
	}
	if err := s.journal.file.sync(); err != nil {
		s.fail(err)
		return fmt.Errorf("sync %s: %v", s.journal.path, err)
	}
	return nil
}

// takeBack undoes the frame that was written last and what of it was applied, durably. Where that fails, too, the
// outcome is open and the store fails; the frame then stays, so that the next start has all of it or nothing.
func (s *Store) takeBack(applied []*request, cause error) error {
	var err error
	var made []*log // for this frame
	for _, r := range applied {
		f, size, _ := r.log.published()
		switch {
		case r.kind == deletes && f == nil:
		case r.kind == deletes:
			same, e := s.fs.same(r.log.path, f)
			if e == nil && !same {
				e = errors.New("the file is gone")
			}
			err = errors.Join(err, e)
		case errors.Is(r.err, fs.ErrExist): // somebody put a file there
		case size == 0:
			if e := s.fs.remove(r.log.path); e != nil && !errors.Is(e, fs.ErrNotExist) {
				err = errors.Join(err, e)
			}
			made = append(made, r.log)
		default:
			err = errors.Join(err, f.truncate(size), s.sync(r.log.path, f.sync))
		}
	}
	if len(made) > 0 {
		err = errors.Join(err, s.syncStreams())
	}
	if err == nil {
		err = s.journal.undo()
	}
	if err != nil {
		s.fail(err)
		for _, r := range applied {
			s.pin(r.log) // readers must not come to see what the file has now
		}
		return fmt.Errorf("%v; taking it back: %v", cause, err)
	}
	for _, l := range made {
		s.discard(l)
	}
	return nil
}

// fail ends all appending: after a failed sync nobody knows what is on the disk. The next start finds out, from the journal.
func (s *Store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.failed {
		s.failed = true
		s.broken = fmt.Errorf("%w: a sync failed (%v): the server must be started again", streamlib.ErrUnavailable, err)
		s.options.Log.Error("a sync failed: no more appends until the next start", "error", err)
		if s.options.Failed != nil {
			s.options.Failed(s.broken)
		}
	}
	s.work.Broadcast()
}

// apply writes what is durable in the journal to where it belongs.
func (s *Store) apply(r *request, frame []byte) error {
	l := r.log
	if r.kind == deletes {
		return removeStream(s.fs, r.name)
	}
	if !l.exists {
		f, err := s.fs.open(l.path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
		if err != nil {
			if !errors.Is(err, fs.ErrExist) {
				s.scarce = err
			}
			return err
		}
		l.mu.Lock()
		l.file, l.exists = f, true
		l.mu.Unlock()
	}
	_, err := l.file.WriteAt(frame[r.from:r.to], l.end)
	l.end += int64(r.to - r.from)
	s.mu.Lock()
	defer s.mu.Unlock()
	l.dirty = true // only now: a checkpoint that synced the file before the write must not take this back
	l.writes++
	return err
}

// removeStream removes the stream's file, and before it one of the older form that was not removed when it was converted.
func removeStream(fsys fsys, name string) error {
	if raw, ok, err := hasOlder(fsys, name); err != nil {
		return err
	} else if ok {
		if err := fsys.remove(raw); err != nil {
			return err
		}
	}
	if err := fsys.remove(path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// settled tells that no journal names anything.
func (s *Store) settled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journal == nil && len(s.full) == 0
}

// deleteAtOnce deletes a stream where there is no room to begin a journal, and none that would make it again.
func (s *Store) deleteAtOnce(r *request) error {
	if err := removeStream(s.fs, r.name); err != nil {
		return err
	}
	if err := s.syncStreams(); err != nil {
		return err
	}
	s.publish(r)
	return nil
}

// publish lets readers see what r did.
func (s *Store) publish(r *request) {
	if r.kind == deletes {
		s.mu.Lock()
		r.log.deleted = true
		s.mu.Unlock()
		s.discard(r.log)
		if err := s.unmark(r.log); err != nil {
			s.options.Log.Error("a stream that was deleted stays marked as damaged", "stream", r.name, "error", err)
		}
		return
	}
	last := r.events[len(r.events)-1]
	r.log.publish(r.log.end, last.Offset+1, last.CreatedAt())
}

// sync syncs a file or folder, or fails the store. A second sync of it would then return nil for what the first one lost, so a
// checkpoint lets no journal go while another sync is under way.
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

// Close makes everything durable in its place, so that the next start has nothing to replay, and gives the folder back.
func (s *Store) Close() error {
	s.commits.Do(&request{kind: ends, size: streamlib.MaxBatch})
	s.running.Wait()
	for s.checkpoint() {
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.logs {
		s.forget(l) // what a reader still has is closed when it is released
		if l.refs == 0 {
			s.shut(l)
		}
	}
	var err error
	if s.failed {
		err = s.broken
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return errors.Join(err, s.fs.close())
}

// end is the last commit.
func (s *Store) end() {
	if s.journal != nil {
		s.rotate()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		s.broken = errClosed
	}
	s.work.Broadcast()
}

// bootID names the run of the operating system, "" where nobody says: random(4).
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(bytes.TrimSpace(b))
}
