package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
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

// Verify reads all of the folder's streams, with what the journals have for them: every checksum, that offsets are
// contiguous from 0, and that times never go back. It changes nothing, but that a stream that it finds damaged is
// marked so, and takes no appends until it is repaired. What it found is in the summary; the error is what kept it
// from reading, ErrLocked where a server has the folder. Progress, where not nil, is called before each of the
// files and behind the last; of is how many files there are.
func Verify(dir string, progress func(s Summary, of int)) (Summary, error) {
	var sum Summary
	s, err := offline(dir)
	if err != nil {
		return sum, err
	}
	defer s.Close()
	if _, err := s.readDeletions(); sum.note(err) != nil {
		return sum, err
	}
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
	if err := s.orphans(files, plan); err != nil {
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
		} else {
			delete(known, strings.TrimSuffix(file, suffix)) // that it cannot be opened says more
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
		c.Reason = fmt.Sprintf("it was found damaged (%s) and is whole now; repair lets it take appends again",
			c.Reason)
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

// offline takes the folder without opening it.
func offline(dir string) (*Store, error) {
	lock, root, err := take(dir)
	if err != nil {
		return nil, err
	}
	s := newStore(root, Options{})
	s.lock = lock
	err = s.checkFormat()
	if s.unconverted = errors.Is(err, fs.ErrNotExist); err != nil && !s.unconverted {
		return nil, errors.Join(&fs.PathError{Op: "open", Path: dir, Err: err}, s.Close())
	}
	if err := s.loadMarks(); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "open", Path: dir, Err: err}, s.Close())
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
	if s.unconverted {
		if older, err := isOlderForm(l.file, l.size); err != nil {
			return err
		} else if older {
			sum.Bytes += l.size
			return rewrite(io.Discard, io.NewSectionReader(l.file, 0, l.size), l.path, l.name)
		}
	}
	if err := s.stateFor(l, r); err != nil {
		return err
	}
	if r != nil && len(r.former) > 0 {
		switch whose, err := r.whose(l); {
		case err != nil:
			return err
		case whose == stranger:
			return l.damaged(0,
				errors.New("the journal says that it was deleted, and does not know the events that it has"))
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
		return s.found(l, l.damaged(end, fmt.Errorf("the file ends before offset %d, the journal goes on at %d",
			next, r.first)))
	}
	if _, _, err := s.goesOn(l, &r.life); err != nil {
		return s.found(l, err)
	}
	return r.verify(l, sum)
}

// stateFor sets the state that the log has once the journals are replayed.
func (s *Store) stateFor(l *log, r *replayed) error {
	record, err := s.readState(l.stem())
	if r != nil && (r.state != nil || len(r.former) > 0) {
		record, err = r.state, nil
	}
	if record != nil {
		l.state, _ = record.state()
	}
	return s.found(l, err)
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

// check reads the lines of the file up to the offset upTo, and returns the offset and the place behind the last that
// is whole and in order.
//
// It begins where the stream may begin: before, or at, the first event that is kept.
func (l *log) check(upTo streamlib.Offset, sum *Summary) (next streamlib.Offset, end int64, err error) {
	var last time.Time
	if next, err = l.base(); err != nil {
		return 0, 0, err
	} else if next > l.state.First {
		return 0, 0, l.lostBeginning(next)
	}
	if next == unknown {
		if next = 0; l.size == 0 {
			return l.state.First, 0, nil
		}
	}
	defer func() {
		if err == nil && next < l.state.First && next < upTo {
			err = l.damaged(end, fmt.Errorf("it ends before offset %d, the first that is kept", l.state.First))
		}
	}()
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
