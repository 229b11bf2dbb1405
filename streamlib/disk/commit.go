package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"github.com/iterate/durable-streams/streamlib"
)

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

func (s *Store) Commit(ctx context.Context, name string, c streamlib.Change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := &request{kind: adds, name: name, events: c.Events}
	switch {
	case c.Delete && len(c.Events) > 0:
		return fmt.Errorf("%w change of %q: it appends and deletes", streamlib.ErrInvalid, name)
	case c.Delete:
		r.kind, r.size = deletes, streamlib.MaxBatch // a frame of its own
	case len(c.Events) == 0:
		return nil
	}
	for _, e := range c.Events {
		line := len(e.Record()) + sealLen
		if r.size += line; line > maxLine || r.size > maxFrame {
			return fmt.Errorf("append %q: %w: a line has at most %d bytes, and what is appended at once %d",
				name, streamlib.ErrTooLarge, maxLine, maxFrame)
		}
	}
	s.commits.Do(r)
	return r.err
}

// Ready returns nil where appends can be made, of new streams too: the folder is there, the disk has room, and no
// sync failed. Else it says why not. It waits for the commits that are under way.
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
		s.finish()
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
			batch[0].err = unstored(err)
		}
		return
	}
	for todo := [][]*request{batch}; len(todo) > 0; {
		todo = append(s.attempt(todo[0]), todo[1:]...)
	}
}

// finish is the last commit.
func (s *Store) finish() {
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

// attempt commits the batch in one frame. Where that cannot be and nothing of it was stored, it returns what is to be
// tried again: all when the journals were given back to a full disk, a large frame's halves, the others where one
// stream failed.
func (s *Store) attempt(batch []*request) (again [][]*request) {
	held := batch[:0:0]
	defer func() {
		for _, r := range held {
			s.logs.release(r.log)
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
	err := s.beginJournal()
	if err == nil {
		err = s.write(frame, held[0].kind == deletes)
	} else if err = unstored(err); held[0].kind == deletes && errors.Is(err, streamlib.ErrFull) && s.noJournals() {
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
		} else if classify(first) == streamlib.ErrFull && !errors.Is(posix(first), syscall.EFBIG) &&
			s.giveBack(first) {
			again = [][]*request{held}
		} else {
			for _, r := range failed {
				r.err = unstored(r.err)
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

// beginJournal makes sure that there is a journal. Its first frame says what the former one must have.
func (s *Store) beginJournal() error {
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
			err = s.nameIsDurable()
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
		return unstored(err)
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
			s.logs.pin(r.log) // readers must not come to see what the file has now
		}
		return fmt.Errorf("%v; taking it back: %v", cause, err)
	}
	for _, l := range made {
		s.logs.discard(l)
	}
	return nil
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
	s.logs.wrote(l)
	return err
}

// removeStream removes the stream's file.
func removeStream(fsys fsys, name string) error {
	if err := fsys.remove(path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// noJournals tells that no journal names anything.
func (s *Store) noJournals() bool {
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
		s.logs.discard(r.log)
		if err := s.unmark(r.log); err != nil {
			s.options.Log.Error("a stream that was deleted stays marked as damaged", "stream", r.name, "error", err)
		}
		return
	}
	last := r.events[len(r.events)-1]
	r.log.publish(r.log.end, last.Offset+1, last.CreatedAt())
}
