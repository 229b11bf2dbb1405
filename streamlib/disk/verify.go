package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
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
}

// Verify reads all of the folder's streams, with what the journals have for them, and changes nothing: every checksum,
// that offsets are contiguous from 0, and that times never go back. Damage is in the summary; the error is what kept it
// from reading, ErrLocked where a server has the folder. Progress, where not nil, is called before each of so many files and behind the last.
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
	for _, file := range files {
		if progress != nil {
			progress(sum, len(files))
		}
		l, f, err := s.openFile(file)
		if err != nil {
			return sum, err
		}
		r := plan[l.name]
		delete(plan, l.name)
		if r != nil && r.deleted && l.path == path(l.name) {
			err = r.verify(l, &sum) // the file is of a former life
		} else {
			err = l.verify(r, &sum)
		}
		err = errors.Join(sum.note(err), f.close())
		if sum.Streams++; err != nil {
			return sum, fmt.Errorf("verify %s: %w", file, err)
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
		if r.first > 0 {
			err = l.damaged(0, fmt.Errorf("the file is gone, the journal goes on at offset %d", r.first))
		} else {
			err = r.verify(l, &sum)
		}
		if sum.Streams++; sum.note(err) != nil {
			return sum, err
		}
	}
	return sum, nil
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
// the damage are then no longer in the stream, and their offsets will be given again.
func Repair(dir string, names []string, tell func(string)) error {
	s, err := offline(dir)
	if err != nil {
		return err
	}
	defer s.Close()
	s.tell = tell
	if err := s.recover(true); err != nil {
		return err
	}
	return s.repairAll(names)
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
func (s *Store) openFile(file string) (*log, file, error) {
	name, err := s.streamName(file)
	if err != nil {
		return nil, nil, err
	}
	l := newLog(name)
	l.path = streamsDir + "/" + file
	f, _, err := openAny(s.fs, l.path)
	if err != nil {
		return nil, nil, err
	}
	l.file = f
	l.size, err = f.size()
	return l, f, err
}

// verify reads the stream's file up to where the journal goes on, and that.
func (l *log) verify(r *replayed, sum *Summary) error {
	if older, err := isOlderForm(l.file); err != nil {
		return err
	} else if older {
		sum.Bytes += l.size
		return rewrite(io.Discard, io.NewSectionReader(l.file, 0, l.size), l.path, l.name)
	}
	upTo := streamlib.MaxOffset + 1
	if r != nil {
		upTo = r.first
	}
	next, end, err := l.check(l.size, upTo, true, sum)
	if err != nil || r == nil {
		return err
	}
	if next < r.first {
		return l.damaged(end, fmt.Errorf("the file ends before offset %d, the journal goes on at %d", next, r.first))
	}
	return r.verify(l, sum)
}

// verify checks that the journals' lines go on from each other.
func (r *replayed) verify(l *log, sum *Summary) error {
	next := r.first
	for _, p := range r.pieces {
		lines := make([]byte, p.length)
		if _, err := p.journal.file.ReadAt(lines, p.at); err != nil {
			return err
		}
		after, err := l.continues(lines, next)
		if err != nil {
			return &streamlib.CorruptError{File: p.journal.path, Offset: p.at, Reason: err.Error()}
		}
		sum.Events, sum.Bytes, next = sum.Events+int64(after-next), sum.Bytes+int64(p.length), after
	}
	return nil
}

// check reads the lines of the file's first size bytes up to the offset upTo, and returns the offset and the place behind the last
// that is whole and in order.
func (l *log) check(size int64, upTo streamlib.Offset, times bool, sum *Summary) (next streamlib.Offset, end int64, err error) {
	var last time.Time
	for s := (scanner{f: l.file, size: size, chunk: 256 << 10}); next < upTo; next++ {
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
		if err == nil && times {
			if e.CreatedAt().Before(last) {
				err = fmt.Errorf("event %d was created before its predecessor", next)
			}
			last = e.CreatedAt()
		}
		if err != nil {
			return next, end, l.damaged(end, err)
		}
		sum.Events++
		sum.Bytes += int64(len(line))
		end = s.pos
	}
	return next, end, nil
}

// repairAll cuts the damage off the named streams, or off all.
func (s *Store) repairAll(names []string) error {
	files, err := s.streamFiles()
	if err != nil {
		return err
	}
	if len(names) > 0 {
		files = nil
		for _, name := range names {
			files = append(files, stem(name)+suffix)
		}
	}
	for _, file := range files {
		if err := s.repair(file); err != nil {
			return fmt.Errorf("repair %s: %w", file, err)
		}
	}
	return s.fs.syncDir(streamsDir)
}

func (s *Store) repair(file string) error {
	l, f, err := s.openFile(file)
	if err != nil {
		return err
	}
	defer f.close()
	if older, err := isOlderForm(f); err != nil || older {
		return err // it is converted when it is first used
	}
	next, end, err := l.check(l.size, streamlib.MaxOffset+1, false, new(Summary))
	corrupt, ok := errors.AsType[*streamlib.CorruptError](err)
	if !ok {
		return err
	}
	kept := fmt.Sprintf("%s.damaged-%d", strings.TrimSuffix(l.path, suffix), end)
	if _, err := s.copyTail(f, 0, l.size, kept); err != nil {
		return err
	}
	if err := errors.Join(f.truncate(end), f.sync()); err != nil {
		return err
	}
	s.say(fmt.Sprintf("stream %q: %d events stay; %d bytes from byte %d on were given up (%s); the file as it was is %s", l.name, next, l.size-end, end, corrupt.Reason, kept))
	return nil
}

func (s *Store) say(sentence string) {
	if s.tell != nil {
		s.tell(sentence)
	}
	s.options.Log.Warn(sentence)
}
