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
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// A Summary is what Verify has read.
type Summary struct {
	Streams  int
	Events   int64
	Bytes    int64
	Journals int // that wait to be replayed
	Damage   []*streamlib.CorruptError
	Unread   []error // a file each that could not be read
}

// Verify reads all of the folder's streams, with what the journals have for them: every checksum, that offsets are contiguous from 0, and that
// times never go back. It changes nothing, but that a stream that it finds damaged is marked so, and takes no appends until it is
// repaired. What it found is in the summary; the error is what kept it from reading, ErrLocked where a server has the folder. Progress,
// where not nil, is called before each of so many files and behind the last.
func Verify(dir string, progress func(s Summary, of int)) (Summary, error) {
	var sum Summary
	s, err := offline(dir)
	if err != nil {
		return sum, err
	}
	defer s.Close()
	journals, plan, err := s.readJournals(false)
	for _, j := range journals {
		defer j.file.close()
	}
	sum.Journals = len(journals)
	if err := sum.note(err); err != nil {
		return sum, err
	}
	files, err := s.streamFiles()
	if err != nil {
		return sum, err
	}
	known := maps.Clone(s.marks)
	for _, file := range files {
		if progress != nil {
			progress(sum, len(files))
		}
		sum.Streams++
		l, err := s.openFile(file)
		if err == nil {
			r := plan[l.name]
			delete(plan, l.name)
			err = errors.Join(s.verify(l, r, &sum), l.file.close())
			if m := known[l.stem()]; m != nil && err == nil {
				err = m.mended()
			}
			delete(known, l.stem())
		}
		if err := sum.note(err); err != nil {
			sum.Unread = append(sum.Unread, fmt.Errorf("%s/%s: %w", streamsDir, file, err))
		}
	}
	if progress != nil {
		progress(sum, len(files))
	}
	for name, r := range plan { // streams that have no file yet
		l := newLog(name)
		if len(r.pieces) == 0 {
			continue
		}
		if sum.Streams++; r.first > 0 {
			err = l.damaged(0, fmt.Errorf("the file is gone, the journal goes on at offset %d", r.first))
		} else {
			err = r.verify(l, &sum)
		}
		if err := sum.note(err); err != nil {
			return sum, err
		}
	}
	for _, stem := range slices.Sorted(maps.Keys(known)) {
		_ = sum.note(known[stem].corrupt())
	}
	return sum, nil
}

// mended is what is told of a stream that was found damaged, and all of whose file is whole.
func (m *mark) mended() error {
	c := m.corrupt()
	if m.Unreplayed == "" {
		c.Reason = fmt.Sprintf("it was found damaged (%s) and is whole now; repair lets it take appends again", c.Reason)
	}
	return c
}

// note keeps damage and returns any other error.
func (sum *Summary) note(err error) error {
	if corrupt, ok := errors.AsType[*streamlib.CorruptError](err); ok {
		sum.Damage = append(sum.Damage, corrupt)
		return nil
	}
	return err
}

// Repair makes a damaged folder one that a server starts on and appends to, and tells what it gave up, a sentence a
// call. It replays the journals; a damaged one up to the damage, and keeps a copy of it. Of each of the named streams, or of all
// where none is named, it cuts off what is damaged and what follows, and keeps a copy of the whole file. The events behind
// the damage are then no longer in the stream, and their offsets will be given again; with salvage, those of them that are whole
// are in a file beside it. No copy that it makes takes the place of another. A stream that cannot be repaired keeps no other from it.
func Repair(dir string, names []string, salvage bool, tell func(string)) error {
	s, err := offline(dir)
	if err != nil {
		return err
	}
	defer s.Close()
	s.tell = tell
	if err := s.recover(true); err != nil {
		return err
	}
	return s.repairAll(names, salvage)
}

// offline takes the folder without opening it.
func offline(dir string) (*Store, error) {
	lock, err := Lock(dir)
	if err != nil {
		return nil, err
	}
	root, err := openFS(dir)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s := newStore(root, Options{})
	s.lock = lock
	if err := s.checkFormat(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, err), s.Close())
	}
	if err := s.loadMarks(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, err), s.Close())
	}
	return s, nil
}

// streamFiles returns the names of the files that have streams.
func (s *Store) streamFiles() ([]string, error) {
	files, err := s.fs.names(streamsDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	files = slices.DeleteFunc(files, func(file string) bool { return !strings.HasSuffix(file, suffix) })
	slices.Sort(files)
	return files, nil
}

// openFile opens a stream by its file's name.
func (s *Store) openFile(file string) (*log, error) {
	name, err := s.streamName(file)
	if err != nil {
		return nil, err
	}
	l := newLog(name)
	l.path = streamsDir + "/" + file
	if l.file, l.readOnly, err = openAny(s.fs, l.path); err != nil {
		return nil, err
	}
	if l.size, err = l.file.size(); err != nil {
		return nil, errors.Join(err, l.file.close())
	}
	return l, nil
}

// verify reads the stream's file, and what the journals have for it, as replay would.
func (s *Store) verify(l *log, r *replayed, sum *Summary) error {
	if older, err := isOlderForm(l.file); err != nil {
		return err
	} else if older {
		sum.Bytes += l.size
		return s.found(l, rewrite(io.Discard, io.NewSectionReader(l.file, 0, l.size), l.path, l.name))
	}
	if r != nil && len(r.former) > 0 {
		switch whose, err := r.whose(l); {
		case err != nil:
			return err
		case whose == stranger:
			return l.damaged(0, errors.New("the journal says that it was deleted, and does not know the events that it has"))
		case whose != current:
			return r.verify(l, sum)
		}
	}
	upTo := streamlib.MaxOffset + 1
	if r != nil && len(r.pieces) > 0 {
		upTo = r.first
	}
	next, end, err := l.check(upTo, sum)
	if err != nil || r == nil || len(r.pieces) == 0 {
		return s.found(l, err)
	}
	if next < r.first {
		return s.found(l, l.damaged(end, fmt.Errorf("the file ends before offset %d, the journal goes on at %d", next, r.first)))
	}
	if _, _, err := s.goesOn(l, &r.life); err != nil {
		return s.found(l, err)
	}
	return r.verify(l, sum)
}

// verify checks that the journals' lines go on from each other.
func (r *replayed) verify(l *log, sum *Summary) error {
	next, last := r.first, time.Time{}
	for _, p := range r.pieces {
		lines := make([]byte, p.length)
		if _, err := p.in.ReadAt(lines, p.at); err != nil {
			return err
		}
		after, then, err := l.continues(lines, next, last)
		if last = then; err != nil {
			return &streamlib.CorruptError{File: p.path, Offset: p.at, Reason: err.Error()}
		}
		sum.Events, sum.Bytes, next = sum.Events+int64(after-next), sum.Bytes+int64(p.length), after
	}
	return nil
}

// check reads the lines of the file up to the offset upTo, and returns the offset and the place behind the last that is whole and in order.
func (l *log) check(upTo streamlib.Offset, sum *Summary) (next streamlib.Offset, end int64, err error) {
	var last time.Time
	for s := (scanner{f: l.file, size: l.size, chunk: 256 << 10}); next < upTo; next++ {
		end = s.pos
		line, err := s.next()
		if err == io.EOF {
			return next, end, nil
		} else if err != nil {
			return next, end, err
		}
		e, err := parseLine(line, l.quoted)
		if err == errControl {
			err = unreplayedReason(line)
		}
		if err == nil && e.Offset != next {
			err = fmt.Errorf("offset %d where %d should be", e.Offset, next)
		}
		if err == nil && e.CreatedAt().Before(last) {
			err = fmt.Errorf("event %d was created before its predecessor", next)
		}
		if err != nil {
			return next, end, l.damaged(end, err)
		}
		last = e.CreatedAt()
		sum.Events++
		sum.Bytes += int64(len(line))
		end = s.pos
	}
	return next, end, nil
}

// repairAll cuts the damage off the named streams, or off all.
func (s *Store) repairAll(names []string, salvage bool) error {
	files, err := s.streamFiles()
	if err != nil {
		return err
	}
	left, failed := maps.Clone(s.marks), 0
	missing := slices.Clone(names)
	for _, file := range files {
		l, err := s.openFile(file)
		if l != nil {
			missing = slices.DeleteFunc(missing, func(name string) bool { return name == l.name })
			delete(left, l.stem())
			if len(names) == 0 || slices.Contains(names, l.name) {
				err = s.repair(l, salvage)
			}
			err = errors.Join(err, l.file.close())
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
		if err := s.settleMark(l, "its file is gone, and it begins again at offset 0"); err != nil {
			failed++
			s.say(fmt.Sprintf("stream %q could not be repaired: %v", m.Stream, err))
		}
	}
	switch err := s.fs.syncDir(streamsDir); {
	case err != nil:
		return err
	case len(missing) > 0:
		return fmt.Errorf("there is no stream %q", missing)
	case failed > 0:
		return fmt.Errorf("%d files could not be repaired", failed)
	}
	return nil
}

// repair cuts the stream's file where it is damaged, adds what the journal had for it where that goes on there, and takes its mark away.
func (s *Store) repair(l *log, salvage bool) error {
	older, err := isOlderForm(l.file)
	if err != nil {
		return err
	}
	var next streamlib.Offset
	var end int64
	if older {
		err = rewrite(io.Discard, io.NewSectionReader(l.file, 0, l.size), l.path, l.name)
	} else {
		next, end, err = l.check(streamlib.MaxOffset+1, new(Summary))
	}
	corrupt, damaged := errors.AsType[*streamlib.CorruptError](err)
	switch {
	case err != nil && !damaged:
		return err
	case !damaged:
		return s.settleMark(l, "all that is in its file is whole")
	case older:
		end = corrupt.Offset
	}
	kept, _, err := s.keepCopy(l.file, 0, l.size, l.beside("damaged", end))
	if err != nil {
		return err
	}
	if salvage && !older {
		if err := s.salvage(l, end); err != nil {
			return err
		}
	}
	if older {
		next, err = s.convertDamaged(l)
	} else {
		err = errors.Join(l.file.truncate(end), l.file.sync())
	}
	if err != nil {
		return err
	}
	s.say(fmt.Sprintf("stream %q: %d events stay; %d bytes from byte %d on were given up (%s); the file as it was is %s", l.name, next, l.size-end, end, corrupt.Reason, kept))
	return s.settleMark(l, "what stands before the damage is whole")
}

// beside is the path of what is kept of the stream.
func (l *log) beside(what string, at int64) string {
	return fmt.Sprintf("%s/%s.%s-%d", streamsDir, l.stem(), what, at)
}

// settleMark adds what the journal had for a stream that is whole as far as it goes, and lets it take appends again.
func (s *Store) settleMark(l *log, why string) error {
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
	if err := s.unmark(l); err != nil {
		return err
	}
	s.say(fmt.Sprintf("stream %q takes appends again: %s", l.name, why))
	return nil
}

// salvage writes the whole lines behind end to a file of their own, in which order they stand there, and tells which they are.
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
		for i := 0; i >= 0 && err == nil; i = bytes.Index(line, firstMember) { // where a line's end is damaged, a whole one stands behind that
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
		told = append(told, fmt.Sprintf("%d to %d", run[0], run[1]))
	}
	s.say(fmt.Sprintf("stream %q: %d whole events from behind the damage are in %s, with the offsets %s", l.name, count, kept, strings.Join(told, ", ")))
	return nil
}

// convertDamaged makes a damaged file of the older form one of lines, with the events before the damage, and returns how many these are.
func (s *Store) convertDamaged(l *log) (streamlib.Offset, error) {
	made := path(l.name) + ".converting"
	f, err := s.fs.open(made, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return 0, err
	}
	defer f.close()
	out := bufio.NewWriterSize(io.NewOffsetWriter(f, 0), 64<<10)
	err = rewrite(out, io.NewSectionReader(l.file, 0, l.size), l.path, l.name)
	if _, damaged := errors.AsType[*streamlib.CorruptError](err); !damaged {
		return 0, err
	}
	if err := errors.Join(out.Flush(), f.sync(), s.fs.rename(made, path(l.name)), s.fs.syncDir(streamsDir)); err != nil {
		return 0, err
	}
	if l.path != path(l.name) {
		if err := s.fs.remove(l.path); err != nil {
			return 0, err
		}
	}
	c := newLog(l.name)
	c.file = f
	if c.size, err = f.size(); err != nil {
		return 0, err
	}
	next, _, err := c.check(streamlib.MaxOffset+1, new(Summary))
	return next, err
}

func (s *Store) say(sentence string) {
	if s.tell != nil {
		s.tell(sentence)
	}
	s.options.Log.Warn(sentence)
}
