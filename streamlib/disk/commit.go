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
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// request is what one commit can be asked for.
type request struct {
	kind     kind
	name     string
	events   []streamlib.Event
	state    *streamlib.State
	size     int
	log      *log
	from, to int              // its events' lines in the frame
	tail     streamlib.Offset // with it
	record   *stateRecord     // of the state, where the journal is to have one
	life     int64            // what the first line is to say
	deletion int64            // how many the folder has seen with this one
	made     bool             // it made the stream's file
	collect  *collection
	err      error
}

type kind int

const (
	adds    kind = iota // events to the stream, or sets its state
	deletes             // the stream
	asks                // whether there could be a commit
	swaps               // the stream's file for one that has what is kept
	ends                // all committing
)

func (s *Store) Commit(ctx context.Context, name string, c streamlib.Change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r, err := newRequest(name, &c)
	if r == nil {
		return err
	}
	if len(c.Events) > 0 && c.Events[0].Offset == 0 { // a new stream is looked for while others commit
		if l, err := s.logs.acquire(name); err == nil {
			defer s.logs.release(l)
		}
	}
	s.commits.Do(r)
	return r.err
}

// newRequest returns the request for a change, nil where that changes nothing or is none.
func newRequest(name string, c *streamlib.Change) (*request, error) {
	r := &request{kind: adds, name: name, events: c.Events, state: c.State}
	switch {
	case c.Delete && (len(c.Events) > 0 || c.State != nil):
		return nil, fmt.Errorf("%w change of %q: it deletes, and does something else", streamlib.ErrInvalid, name)
	case c.Delete:
		r.kind, r.size = deletes, 2<<10 // as a line, with the longest name
	case len(c.Events) == 0 && c.State == nil:
		return nil, nil
	}
	if c.State != nil {
		for _, text := range [...]string{c.State.Keys, c.State.Note} {
			if text != "" && !json.Valid([]byte(text)) {
				return nil, fmt.Errorf("%w change of %q: its keys or its note are no JSON", streamlib.ErrInvalid, name)
			}
		}
		if r.size = 2<<10 + 2*len(c.State.Keys) + 2*len(c.State.Note); r.size > maxState {
			return nil, fmt.Errorf("change of %q: %w: a state of %d bytes", name, streamlib.ErrTooLarge, r.size)
		}
	}
	for _, e := range c.Events {
		line := len(e.Record()) + sealLen
		if r.size += line; line > maxLine || r.size > maxFrame {
			return nil, fmt.Errorf("append %q: %w: a line has at most %d bytes, and what is appended at once %d",
				name, streamlib.ErrTooLarge, maxLine, maxFrame)
		}
	}
	return r, nil
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
	s.mu.Lock()
	s.gaveBack, s.before = false, s.retired
	s.mu.Unlock()
	if batch[0].kind == swaps {
		batch[0].err = s.swap(batch[0].collect)
		return
	}
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
	for todo := frames(batch); len(todo) > 0; {
		if err := s.isBroken(); err != nil { // since then: the frame that could not be taken back stays as it is
			for _, r := range todo[0] {
				r.err = err
			}
			todo = todo[1:]
			continue
		}
		todo = append(s.attempt(todo[0]), todo[1:]...)
	}
}

// frames parts what is deleted from the rest: it has a frame to itself, for it cannot be taken back. All of the batch
// came at once, so nothing in it has to be before another.
func frames(batch []*request) (todo [][]*request) {
	added, deleted := make([]*request, 0, len(batch)), []*request(nil)
	for _, r := range batch {
		if r.kind == deletes {
			deleted = append(deleted, r)
		} else {
			added = append(added, r)
		}
	}
	for _, part := range [...][]*request{added, deleted} {
		if len(part) > 0 {
			todo = append(todo, part)
		}
	}
	return todo
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
	frame, deletions := append(s.frame[:0], make([]byte, headerLen)...), s.deletions.Load()
	for _, r := range batch {
		if r.err = s.prepare(r); r.err == nil && r.log != nil {
			held = append(held, r)
			r.err = errUnfinished
			if r.kind == deletes {
				deletions++
				r.deletion = deletions
			}
			r.from = len(frame)
			frame = s.appendLines(frame, r)
		}
	}
	if len(held) == 0 {
		return nil
	}
	if cap(frame) <= 1<<20 {
		s.frame = frame
	}
	err := s.prepareStates(held)
	if err == nil {
		err = s.beginJournal()
	}
	if err == nil {
		err = s.write(frame, held[0].kind == deletes || len(held[0].events) == 0)
	} else if err = unstored(err); held[0].kind == deletes && errors.Is(err, streamlib.ErrFull) && s.noJournals() {
		for _, r := range held {
			if r.err = s.usable(); r.err == nil {
				r.err = s.deleteAtOnce(r)
			}
		}
		return nil
	}
	switch full := errors.Is(err, streamlib.ErrFull); {
	case full && s.giveBack(err):
		return [][]*request{held}
	case full && len(held) > 1 && (int64(len(frame)) > growth || held[0].kind == deletes): // a smaller one may fit
		return slices.Collect(slices.Chunk(held, (len(held)+1)/2))
	case err != nil:
		fail(err)
		return nil
	}
	var failed, others []*request
	for i, r := range held {
		if err := s.apply(r, frame); err != nil {
			r.err = fmt.Errorf("%s: %w", r.log.path, cause(err))
			failed = append(failed, r)
			if r.kind == deletes { // the rest can still be taken back
				others = append(others, held[i+1:]...)
				break
			}
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
	s.written.Store(s.journal.end)
	s.journal.sequence++
	for _, r := range held {
		s.journal.names[r.name] = r.log.end
		if r.kind == deletes {
			s.journal.names[r.name] = -1
			s.journal.deletions = r.deletion
		}
		if r.record != nil {
			s.journal.states[stem(r.name)] = true
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
	s.gaveBack = len(s.full) > 0 || s.retired != s.before // or it was given back since
	s.mu.Unlock()
	for s.gaveBack && s.checkpoint() {
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gaveBack && len(s.full) == 0
}

// appendLines appends what the journal is to have of the request.
func (s *Store) appendLines(frame []byte, r *request) []byte {
	for i, e := range r.events {
		record := e.Record()
		if i == 0 && r.life > 0 {
			record = appendLife(record, r.life)
		}
		frame = appendLine(frame, record)
	}
	r.to = len(frame)
	if r.record != nil {
		frame = append(frame, r.record.line()...)
	}
	if r.kind == deletes {
		record, _ := json.Marshal(deletion{r.name, r.log.firstSum(), r.deletion})
		frame = appendLine(frame, record[:len(record)-1])
	}
	return frame
}

// beginJournal makes sure that there is a journal. Its first frame says what the former one must have.
func (s *Store) beginJournal() error {
	if s.journal != nil {
		return nil
	}
	if err := s.writeDeletions(s.deletions.Load()); err != nil { // so that there is a file when the disk is full
		return fmt.Errorf("begin a journal: %w", err)
	}
	j := &journal{number: s.number + 1, path: journalPath(s.number + 1), names: map[string]int64{}, states: map[string]bool{}}
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
	s.written.Store(j.end)
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
	begun := time.Now()
	if err := s.journal.file.sync(); err != nil {
		s.fail(err)
		return fmt.Errorf("sync %s: %v", s.journal.path, err)
	}
	if s.options.Synced != nil {
		s.options.Synced(time.Since(begun))
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
		case size == 0 && (r.made || f == nil):
			if e := s.fs.remove(r.log.path); e != nil && !errors.Is(e, fs.ErrNotExist) {
				err = errors.Join(err, e)
			} else {
				s.names.Note(r.name, false)
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
		return s.removeStream(r.name)
	}
	if !l.exists {
		r.made = true
		f, err := s.fs.open(l.path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
		if err != nil {
			if !errors.Is(err, fs.ErrExist) {
				s.scarce = err
			}
			return err
		}
		s.names.Note(r.name, true)
		l.mu.Lock()
		l.file, l.exists = f, true
		l.mu.Unlock()
	}
	if r.to == r.from {
		return nil
	}
	_, err := l.file.WriteAt(frame[r.from:r.to], l.end)
	l.end += int64(r.to - r.from)
	s.logs.wrote(l)
	return err
}

// noJournals tells that no journal names anything.
func (s *Store) noJournals() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journal == nil && len(s.full) == 0
}

// publish lets readers see what r did.
func (s *Store) publish(r *request) {
	if r.kind == deletes {
		s.deletions.Add(1)
		s.mu.Lock()
		r.log.deleted = true
		delete(s.trimmed, r.name)
		s.mu.Unlock()
		s.logs.discard(r.log)
		if err := s.unmark(r.log); err != nil {
			s.options.Log.Error("a stream that was deleted stays marked as damaged", "stream", r.name, "error", err)
		}
		return
	}
	l := r.log
	l.mu.Lock()
	defer l.mu.Unlock()
	l.size, l.tail = l.end, r.tail
	if r.state != nil {
		s.deletions.Store(max(s.deletions.Load(), r.state.Life))
		trims := r.state.First > l.state.First
		l.state, l.stated = *r.state, l.stated || r.record != nil
		s.mu.Lock()
		if r.record != nil {
			s.states[stem(r.name)] = r.record
		}
		if trims {
			s.trimmed[r.name] = true
			s.work.Broadcast()
		}
		s.mu.Unlock()
	}
	if n := len(r.events); n > 0 {
		l.updated = r.events[n-1].CreatedAt()
	} else if r.state != nil && l.updated.IsZero() {
		l.updated = r.state.UpdatedAt
	}
}

// prepareStates makes the folder one that has the requests' states.
func (s *Store) prepareStates(held []*request) error {
	version := 1
	for _, r := range held {
		if r.record != nil || r.life > 0 {
			version = max(version, r.record.formatOf())
		}
	}
	return s.upgrade(version)
}
