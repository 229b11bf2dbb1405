package disk

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/iterate/durable-streams/streamlib"
)

// Repair makes a damaged folder one that a server starts on and appends to, and tells what it gave up, a sentence a
// call. It replays the journals; a damaged one up to the damage, and keeps a copy of it. Of each of the named
// streams, or of all where none is named, it cuts off what is damaged and what follows, and keeps a copy of the whole
// file. The events behind the damage are then no longer in the stream, and their offsets will be given again; with
// salvage, those of them that are whole are in a file beside it. No copy that it makes takes the place of another. A
// stream that cannot be repaired keeps no other from it. Progress, where not nil, gets how many of the files are done.
func Repair(dir string, names []string, salvage bool, tell func(string), progress func(done, of int)) error {
	s, err := offline(dir)
	if err != nil {
		return err
	}
	defer s.Close()
	s.tell = tell
	if err := s.convert(); err != nil {
		return err
	}
	if err := s.recover(true); err != nil {
		return err
	}
	s.progress = progress
	return s.repairAll(names, salvage)
}

// repairAll cuts the damage off the named streams, or off all.
func (s *Store) repairAll(names []string, salvage bool) error {
	files, err := s.streamFiles()
	if err != nil {
		return err
	}
	if err := s.orphans(files, nil); err != nil {
		return err
	}
	left, failed := maps.Clone(s.marks), 0
	missing := slices.Clone(names)
	for i, file := range files {
		if s.progress != nil {
			s.progress(i, len(files))
		}
		l, err := s.openFile(file)
		if l != nil {
			missing = slices.DeleteFunc(missing, func(name string) bool { return name == l.name })
			delete(left, l.stem())
			if len(names) == 0 || slices.Contains(names, l.name) {
				err = s.repair(l, salvage)
			}
			err = errors.Join(err, l.file.close())
		} else {
			delete(left, strings.TrimSuffix(file, suffix)) // it is told here
		}
		if err != nil {
			failed++
			s.say(fmt.Sprintf("%s/%s could not be repaired: %v", streamsDir, file, err))
		}
	}
	for _, m := range left {
		if len(names) > 0 && !slices.Contains(names, m.Stream) {
			continue
		}
		missing = slices.DeleteFunc(missing, func(name string) bool { return name == m.Stream })
		l := newLog(m.Stream)
		if m.Stream == "" {
			l.path = m.File
		}
		if err := s.mendGone(l); err != nil {
			failed++
			s.say(fmt.Sprintf("stream %q could not be repaired: %v", m.Stream, err))
		}
	}
	if err := s.fs.syncDir(damagedDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // a mark that one who ended too early removed would come back
	}
	switch err := s.fs.syncDir(streamsDir); {
	case err != nil:
		return err
	case len(missing) > 0:
		return fmt.Errorf("there is no stream %q", missing)
	case failed > 0:
		if failed == 1 {
			return errors.New("1 file could not be repaired")
		}
		return fmt.Errorf("%d files could not be repaired", failed)
	}
	return nil
}

// repair cuts the stream's file where it is damaged, adds what the journal had for it where that goes on there, and
// takes its mark away.
func (s *Store) repair(l *log, salvage bool) error {
	if err := s.repairState(l); err != nil {
		return err
	}
	next, end, err := l.check(streamlib.MaxOffset+1, new(Summary))
	corrupt, damaged := errors.AsType[*streamlib.CorruptError](err)
	switch {
	case err != nil && !damaged:
		return err
	case !damaged && s.marked(l) != nil:
		if err := l.file.sync(); err != nil { // who cut it may have ended before that
			return err
		}
		return s.mend(l, "all that is in its file is whole")
	case !damaged:
		return nil
	}
	_ = s.found(l, err) // it stays marked until the cut is durable
	kept, _, err := s.keepCopy(l.file, 0, l.size, l.beside("damaged", end))
	if err != nil {
		return err
	}
	if salvage {
		if err := s.salvage(l, end); err != nil {
			return err
		}
	}
	if err := s.shorten(l, end); err != nil {
		return err
	}
	if next < l.state.First { // what is left are events that were dropped
		l.state.First = next
		if err := s.setState(l); err != nil {
			return err
		}
	}
	stay := fmt.Sprintf("%d events stay", next)
	if next == 1 {
		stay = "1 event stays"
	}
	s.say(fmt.Sprintf("stream %q: %s; %d bytes from byte %d on were given up (%s); "+
		"the file as it was is %s", l.name, stay, l.size-end, end, corrupt.Reason, kept))
	return s.mend(l, "what stands before the damage is whole")
}

// repairState lets a stream that has a state begin where its file does, where that is further on, and where the state
// is damaged, whose file it keeps.
func (s *Store) repairState(l *log) error {
	err := s.stateFor(l, nil)
	corrupt, damaged := errors.AsType[*streamlib.CorruptError](err)
	if err != nil && !damaged {
		return err
	}
	base, err := l.base()
	if err != nil || !damaged && (base <= l.state.First || l.state == streamlib.State{}) {
		return err
	}
	if damaged {
		kept, err := s.putAside(corrupt.File, corrupt.File+".damaged")
		if err != nil {
			return err
		}
		s.say(fmt.Sprintf("stream %q: whether it was closed is not known any more (%s); the file that said so is %s",
			l.name, corrupt.Reason, kept))
	}
	if base > 0 {
		s.say(fmt.Sprintf("stream %q: it begins at offset %d now: those before are not there", l.name, base))
	}
	l.state.First = max(base, 0)
	return s.setState(l)
}

// setState makes the log's state the stream's, durably.
func (s *Store) setState(l *log) error {
	r := newStateRecord(l.name, l.state, false, false)
	s.mu.Lock()
	s.states[l.stem()] = r
	s.mu.Unlock()
	return errors.Join(s.upgrade(2), s.writeStates([]string{l.stem()}))
}

// shorten leaves the first end bytes of the stream's file, in a new one: what has its name may be a link to another's.
func (s *Store) shorten(l *log, end int64) error {
	made := l.path + ".cut"
	if err := s.fs.remove(made); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := s.fs.open(made, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.NewOffsetWriter(f, 0), io.NewSectionReader(l.file, 0, end))
	if err = errors.Join(err, f.sync(), f.close()); err != nil {
		return errors.Join(err, s.fs.remove(made))
	}
	if err := errors.Join(l.file.close(), s.fs.rename(made, l.path), s.fs.syncDir(streamsDir)); err != nil {
		return err
	}
	cut, err := s.fs.open(l.path, os.O_RDWR)
	if err == nil {
		l.file = cut
	}
	return err
}

// beside is the path of what is kept of the stream.
func (l *log) beside(what string, at int64) string {
	return fmt.Sprintf("%s/%s.%s-%d", streamsDir, l.stem(), what, at)
}

// mendGone is mend for a stream whose file is gone. What it had beside its events is kept under another name.
func (s *Store) mendGone(l *log) error {
	if r, err := s.readState(l.stem()); err == nil && r != nil || isCorrupt(err) {
		kept, err := s.putAside(statePath(l.stem()), statePath(l.stem())+".gone")
		if err != nil {
			return err
		}
		s.say(fmt.Sprintf("stream %q: what it had beside its events is in %s", l.name, kept))
	}
	return s.mend(l, "its file is gone, and it begins again at offset 0")
}

// mend adds what the journal had for a stream that is whole as far as it goes, and lets it take appends again.
func (s *Store) mend(l *log, why string) error {
	m := s.marked(l)
	if m == nil {
		return nil
	}
	if m.Unreplayed != "" {
		_, err := s.rejoin(newLog(l.name), m)
		_, stays := errors.AsType[*streamlib.CorruptError](err)
		switch {
		case err == nil:
			s.say(fmt.Sprintf("stream %q: what the journal had for it, in %s, was added", l.name, m.Unreplayed))
		case stays || errors.Is(err, fs.ErrNotExist):
			s.say(fmt.Sprintf("stream %q: what the journal had for it stays in %s: %v", l.name, m.Unreplayed, err))
		default:
			return err
		}
	}
	if err := errors.Join(s.writeStates([]string{l.stem()}), s.unmark(l)); err != nil {
		return err
	}
	s.say(fmt.Sprintf("stream %q takes appends again: %s", l.name, why))
	return nil
}

// salvage writes the whole lines behind end to a file of their own, in which order they stand there, and tells which
// they are.
func (s *Store) salvage(l *log, end int64) error {
	var out file
	var to *bufio.Writer
	var kept string
	var runs [][2]streamlib.Offset
	count := 0
	save := func(line []byte) error {
		e, err := parseLine(line, l.quoted)
		if err != nil {
			return nil
		}
		if out == nil {
			if out, kept, err = s.create(l.beside("salvaged", int64(e.Offset))); err != nil {
				return err
			}
			to = bufio.NewWriterSize(io.NewOffsetWriter(out, 0), 64<<10)
		}
		if n := len(runs); n > 0 && runs[n-1][1]+1 == e.Offset {
			runs[n-1][1]++
		} else {
			runs = append(runs, [2]streamlib.Offset{e.Offset, e.Offset})
		}
		count++
		_, err = to.Write(line)
		return err
	}
	var err error
	for lines := (scanner{f: l.file, pos: end, size: l.size, chunk: 256 << 10}); err == nil; {
		var line []byte
		if line, err = lines.next(); err != nil {
			break
		}
		// Where a line's end is damaged, a whole one stands behind that.
		for i := 0; i >= 0 && err == nil; i = bytes.Index(line, firstMember) {
			if line = line[i:]; len(line) == 0 {
				break
			}
			if _, bad := parseLine(line, l.quoted); bad == nil {
				err = save(line)
				break
			}
			line = line[1:]
		}
	}
	if err == io.EOF {
		err = nil
	}
	if out == nil {
		return err
	}
	if err = errors.Join(err, to.Flush(), out.sync(), out.close(), s.fs.syncDir(streamsDir)); err != nil {
		return errors.Join(err, s.fs.remove(kept))
	}
	var told []string
	for i, run := range runs {
		if i == 20 {
			told = append(told, fmt.Sprintf("and %d more", len(runs)-i))
			break
		}
		if run[0] == run[1] {
			told = append(told, fmt.Sprint(int64(run[0])))
			continue
		}
		told = append(told, fmt.Sprintf("%d to %d", run[0], run[1]))
	}
	which := fmt.Sprintf("%d whole events from behind the damage are in %s, with the offsets", count, kept)
	if count == 1 {
		which = fmt.Sprintf("1 whole event from behind the damage is in %s, with the offset", kept)
	}
	s.say(fmt.Sprintf("stream %q: %s %s", l.name, which, strings.Join(told, ", ")))
	return nil
}

func (s *Store) say(sentence string) {
	if s.tell != nil {
		s.tell(sentence)
	}
	s.options.Log.Warn(sentence)
}
