package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// recover replays the journals, oldest first, and removes them. Where one was written without syncs, and the machine
// was started again since, any stream may be damaged, and is repaired.
func (s *Store) recover(repair bool) error {
	// What a former start had removed must not come back: a journal beside what this one does, a stream that it
	// showed as deleted, the mark of one. Nor may a folder be gone again in which there is something.
	for _, dir := range [...]string{".", journalDir, streamsDir, damagedDir, stateDir} {
		if err := s.fs.syncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !isReadOnly(err) {
			return err
		}
	}
	deletions, err := s.readDeletions()
	s.counted = -1 // what is read may be in the page cache alone, and a sync that failed have made it clean there
	if isCorrupt(err) {
		s.say(fmt.Sprintf("%v; the count of deletions goes on from the time", err))
	} else if err != nil {
		return err
	} else if err := s.writeDeletions(deletions); err != nil && (classify(err) == nil || s.isBroken() != nil) {
		return err // else a checkpoint tries it again
	}
	deletions = max(deletions, 0)
	s.deletions.Store(deletions)
	if err := s.finishDeletion(); err != nil {
		return err
	}
	if err := s.removeTrimmed(); err != nil && !isReadOnly(err) {
		return err
	}
	journals, plan, err := s.readJournals(repair)
	owned := false // by the checkpoints, which close them
	defer func() {
		if !owned {
			for _, j := range journals {
				j.file.close()
			}
		}
	}()
	if err != nil {
		return err
	} else if len(journals) == 0 {
		return s.rejoinAll()
	}
	start := time.Now()
	noSync, rebooted, unclear := false, false, repair
	for _, j := range journals {
		if err := s.keepTorn(j); err != nil {
			return err
		}
		noSync, rebooted, unclear = noSync || j.noSync, rebooted || j.rebooted, unclear || !j.clean
		deletions = max(deletions, j.deletions)
	}
	s.deletions.Store(deletions)
	// Nothing goes into a stream's file that the journal may lose again.
	if err := journals[len(journals)-1].secure(); err != nil {
		return err
	}
	together := len(plan) >= manyFiles && s.fs.syncsClosed()
	s.together = together
	for i, name := range slices.Sorted(maps.Keys(plan)) {
		if err := s.replay(plan[name]); err != nil {
			return fmt.Errorf("replay %q: %w", name, err)
		}
		if (i+1)%10_000 == 0 {
			s.options.Log.Info("replaying", "streams", i+1, "of", len(plan))
		}
	}
	s.together = false
	if err := s.rejoinAll(); err != nil {
		return err
	}
	states := maps.Clone(s.states)
	full := errors.Join(s.writeStates(slices.Collect(maps.Keys(states))), s.writeDeletions(deletions))
	stays := classify(full) == streamlib.ErrFull && s.isBroken() == nil && !repair
	if full != nil && !stays {
		return full
	}
	if rebooted {
		if err := s.repairAll(nil, false); err != nil {
			return err
		}
	}
	// What a damaged frame named may not be durable, and nobody knows of it any more.
	if noSync || unclear || together {
		if err := s.fs.syncAll(); err != nil {
			return err
		}
	}
	if err := s.fs.syncDir(streamsDir); err != nil {
		return err
	}
	if err := s.fs.syncDir(stateDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	last := journals[len(journals)-1]
	s.number = last.number
	if stays { // a checkpoint is for what there was no room for
		s.frames = last.sequence
		for _, j := range journals {
			j.names, j.states = map[string]int64{}, map[string]bool{}
			for stem := range states {
				j.states[stem] = true
			}
			s.full = append(s.full, j)
		}
		owned = true
		s.options.Log.Error("the journals stay until there is room for what they have", "error", full)
		return nil
	}
	for _, j := range journals {
		if err := removeJournal(s.fs, j.path); err != nil {
			return err
		}
	}
	s.options.Log.Info("replayed the journal",
		"journals", len(journals), "streams", len(plan), "took", time.Since(start))
	return nil
}

// keepTorn copies what stands behind a journal's last frame. It was never acknowledged.
func (s *Store) keepTorn(j *journal) error {
	if j.clean {
		return nil
	}
	kept, n, err := s.keep(j.file, j.end, j.allocated, fmt.Sprintf("%s.torn-%d", j.path, j.end))
	if err != nil || n == 0 {
		return err
	}
	s.options.Log.Warn("the journal ends in a frame that was not finished, and so not acknowledged",
		"file", j.path, "offset", j.end, "bytes", n, "kept", kept)
	return nil
}

// keep is keepCopy for what was not acknowledged: that there is no room for it is no reason not to start.
func (s *Store) keep(f io.ReaderAt, from, to int64, path string) (kept string, n int64, err error) {
	kept, n, err = s.keepCopy(f, from, to, path)
	if classify(err) != streamlib.ErrFull {
		return kept, n, err
	}
	s.options.Log.Error("what was not acknowledged is cut off, and there is no room to keep it",
		"bytes", n, "kept", kept, "error", err)
	return "", 0, nil
}

// replay makes the stream's file what the journals say, durably. Doing it twice is harmless. Where the file is not
// what they go on from, or cannot be read, it stays as it is and what they have is set aside.
func (s *Store) replay(r *replayed) error {
	l := newLog(r.name)
	if len(r.former) > 0 {
		if err := s.replayDeletion(l, r); err != nil {
			return err
		}
	}
	if len(r.pieces) == 0 && r.state == nil {
		return nil
	}
	if f, err := s.fs.open(l.path, os.O_RDONLY); err == nil {
		f.close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return s.excuse(l, r, err)
	} else if _, err := s.adopt(l); err != nil && !isCorrupt(err) {
		return err // what is damaged there is told when the journal finds nothing to go on from
	}
	flag := os.O_RDWR
	if len(r.pieces) > 0 || r.state.Made {
		flag |= os.O_CREATE
	}
	var err error
	if l.file, err = s.fs.open(l.path, flag); errors.Is(err, fs.ErrNotExist) {
		return s.setAside(l, r, l.damaged(0, errors.New("the file is gone")))
	} else if err != nil {
		return s.excuse(l, r, err)
	}
	defer l.file.close()
	if err := s.replayState(l, &r.life); err != nil {
		return s.excuse(l, r, err)
	}
	return nil
}

// replayState makes the life's lines the end of the stream's file, and its state the stream's.
func (s *Store) replayState(l *log, r *life) error {
	was, err := s.readState(l.stem())
	if r.state != nil {
		was, err = r.state, nil
	}
	if err != nil && !isCorrupt(err) {
		return err
	}
	if was != nil {
		l.state, _ = was.state()
	}
	if len(r.pieces) > 0 {
		if err := s.add(l, r); err != nil {
			return err
		}
	}
	if r.state != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.states[l.stem()] = r.state
	}
	return nil
}

// replayDeletion removes what was deleted. A file that begins like the life after it stays. One that is neither that
// nor, as far as the journals can tell, of a life that was deleted, has events that they lost.
func (s *Store) replayDeletion(l *log, r *replayed) error {
	f, err := s.fs.open(l.path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return s.removeAgain(l)
	}
	reason := "the journal says that it was deleted, and does not know the events that it had"
	whose := stranger
	if err == nil {
		l.file = f
		whose, err = r.whose(l)
		err = errors.Join(err, f.close())
	}
	switch {
	case classify(err) != nil && !errors.Is(err, fs.ErrPermission):
		return err
	case err != nil:
		reason = "the journal says that it was deleted, and it could not be read: " + err.Error()
	case whose == nobody, whose == former:
		return s.removeAgain(l)
	case whose == current:
		return s.removeState(l.name) // where the life after it has none; else that is yet to be written
	}
	kept, err := s.putAside(l.path, l.beside("deleted", 0))
	if err != nil {
		return err
	}
	return errors.Join(s.removeState(l.name), s.mark(l, mark{File: l.path, Reason: reason + "; it is now " + kept}))
}

// owner is whose events a file begins with.
type owner int

const (
	nobody   owner = iota // it has none
	former                // a life that was deleted
	current               // the life after that
	stranger              // a life that the journals do not know
)

// whose tells whose events the file of a stream that was deleted begins with.
func (r *replayed) whose(l *log) (owner, error) {
	begin, line, err := l.firstWhole()
	if line == nil || err != nil {
		return nobody, err
	}
	is := func(life life) bool {
		if begin == 0 && life.sum == lineSum(line) || life.sum == "" && life.deleted {
			return true
		}
		_, ours := life.beginning(begin, line)
		return ours
	}
	switch {
	case is(r.life):
		return current, nil
	case slices.ContainsFunc(r.former, is):
		return former, nil
	}
	return stranger, nil
}

// removeAgain removes the stream's file, and what was known of its damage.
func (s *Store) removeAgain(l *log) error {
	return errors.Join(s.removeStream(l.name), s.unmark(l))
}

// firstWhole returns the file's first line that is an event of the stream, and where it begins; nil where there is
// none.
func (l *log) firstWhole() (begin int64, line []byte, err error) {
	size, err := l.file.size()
	if err != nil {
		return 0, nil, err
	}
	for s := (scanner{f: l.file, size: size, chunk: 4 << 10}); ; {
		begin = s.pos
		line, err := s.next()
		if err == io.EOF {
			return 0, nil, nil
		} else if err != nil {
			return 0, nil, err
		}
		if _, bad := parseLine(line, l.quoted); bad == nil {
			return begin, line, nil
		}
	}
}

// halfWritten is an error met while writing to a stream's file, which the journal must write again.
type halfWritten struct{ error }

func (u halfWritten) Unwrap() error { return u.error }

// add makes the life's lines the end of the stream's file, durably, or to be synced with the others'.
func (s *Store) add(l *log, r *life) error {
	pos, next, err := s.goesOn(l, r)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.NewOffsetWriter(l.file, pos),
		io.NewSectionReader(r.pieces, 0, r.pieces.size())); err != nil {
		return halfWritten{err}
	}
	if err := s.cut(l, pos+r.pieces.size(), next); err != nil {
		return halfWritten{err}
	}
	if s.together {
		return nil
	}
	if err := l.file.sync(); err != nil {
		return halfWritten{err}
	}
	return nil
}

// goesOn returns where in the stream's file the life's lines belong, and the offset that follows them. Where the file
// does not have what stands before them, or has other events in their place, it is *streamlib.CorruptError, and
// nothing has changed.
func (s *Store) goesOn(l *log, r *life) (pos int64, next streamlib.Offset, err error) {
	size, err := l.file.size()
	if err != nil {
		return 0, 0, err
	}
	var last time.Time
	base, err := l.base()
	switch {
	case err != nil:
		return 0, 0, err
	case base > l.state.First:
		return 0, 0, l.lostBeginning(base)
	case base == r.first:
	case base == unknown && r.first <= l.state.First: // its first line is not whole, and is one of them
		if err := r.align(l); err != nil {
			return 0, 0, err
		}
	case r.first < base:
		if err := r.skip(l, base); err != nil {
			return 0, 0, err
		}
	default:
		begin, end, err := l.seek(r.first-1, size)
		if err != nil {
			return 0, 0, err
		}
		line := make([]byte, end-begin)
		if _, err := l.file.ReadAt(line, begin); err != nil {
			return 0, 0, err
		}
		before, err := parseLine(line, l.quoted)
		if err != nil {
			return 0, 0, l.damaged(begin, err)
		}
		pos, last = end, before.CreatedAt()
	}
	next = r.first
	equal := true
	for _, p := range r.pieces {
		lines, there := make([]byte, p.length), make([]byte, max(0, min(int64(p.length), size-pos-p.from)))
		if _, err := p.in.ReadAt(lines, p.at); err != nil {
			return 0, 0, err
		}
		if next, last, err = l.continues(lines, next, last); err != nil {
			return 0, 0, l.damaged(pos+p.from, err)
		}
		if _, err := l.file.ReadAt(there, pos+p.from); err != nil {
			return 0, 0, err
		}
		equal = equal && bytes.Equal(there, lines[:len(there)])
	}
	if equal {
		return pos, next, nil
	}
	for lines := (scanner{f: l.file, pos: pos, size: size, chunk: 64 << 10}); lines.pos < pos+r.pieces.size(); {
		begin := lines.pos
		line, err := lines.next()
		if err == io.EOF {
			break
		} else if err != nil {
			return 0, 0, err
		}
		journals := make([]byte, len(line))
		if n, err := r.pieces.ReadAt(journals, begin-pos); err != nil && err != io.EOF {
			return 0, 0, err
		} else if bytes.Equal(journals[:n], line) {
			continue
		}
		switch _, bad := parseLine(line, l.quoted); bad {
		case nil:
			return 0, 0, l.damaged(begin, errors.New("the journal has other events in this place"))
		case errForeign: // somebody moved or linked another stream's file to this name
			return 0, 0, l.damaged(begin, errForeign)
		}
	}
	return pos, next, nil
}

// continues checks that the lines go on from next, and from the time of the event before, and returns what follows
// them.
func (l *log) continues(lines []byte, next streamlib.Offset, last time.Time) (streamlib.Offset, time.Time, error) {
	for len(lines) > 0 {
		n := bytes.IndexByte(lines, '\n') + 1
		e, err := parseLine(lines[:n], l.quoted)
		if err != nil {
			return next, last, err
		}
		if e.Offset != next {
			return next, last, fmt.Errorf("the journal has offset %d where %d should be", e.Offset, next)
		}
		if e.CreatedAt().Before(last) {
			return next, last, fmt.Errorf("the journal's event %d was created before its predecessor", next)
		}
		next, last, lines = next+1, e.CreatedAt(), lines[n:]
	}
	return next, last, nil
}

// cut ends the file at pos. Whole lines that go on from there stay: since only what a journal has durably is ever
// written to a stream's file, they were durable, and the journal lost them, or was copied before them. What else is
// there is kept beside; where there are whole lines in it, events were lost between.
func (s *Store) cut(l *log, pos int64, next streamlib.Offset) error {
	size, err := l.file.size()
	if err != nil || pos >= size {
		return err
	}
	from, gap := next, false
	for lines := (scanner{f: l.file, pos: pos, size: size, chunk: 64 << 10}); !gap; {
		line, err := lines.next()
		if err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		e, bad := parseLine(line, l.quoted)
		if bad == nil && e.Offset == next && lines.pos-int64(len(line)) == pos {
			pos, next = lines.pos, next+1
		} else {
			gap = bad == nil
		}
	}
	if next > from {
		s.options.Log.Warn("events that the journal does not have were kept",
			"stream", l.name, "from", from.String(), "to", next.String())
	}
	if pos == size {
		return nil
	}
	beside := l.beside("torn", pos)
	if gap {
		kept, _, err := s.keepCopy(l.file, pos, size, beside)
		if err == nil {
			err = s.mark(l,
				mark{File: l.path, Offset: pos, Reason: "events are missing before others, which are in " + kept})
		}
		if err != nil {
			return err
		}
		return l.file.truncate(pos)
	}
	kept, n, err := s.keep(l.file, pos, size, beside)
	if err != nil {
		return err
	}
	if n > 0 {
		s.options.Log.Warn("cut off what was not acknowledged",
			"stream", l.name, "file", l.path, "offset", pos, "bytes", n, "kept", kept)
	}
	return l.file.truncate(pos)
}
