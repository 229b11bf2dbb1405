package disk

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/iterate/durable-streams/streamlib"
)

// isBroken tells why there are no more appends until the next start.
func (s *Store) isBroken() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// usable tells why nothing can be committed.
func (s *Store) usable() error {
	err := s.isBroken()
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

// probe tells whether a file can be made in the streams' folder, and written. After one that could not be made, it is
// asked before each frame: those that would make one cost the others no frame that is taken back then.
func (s *Store) probe() error {
	f, err := s.fs.open(probeFile, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(make([]byte, reserve), 0)
	return errors.Join(err, f.close(), s.fs.remove(probeFile))
}

// prepare finds out whether r can be committed. The log it takes is nil where there is nothing to do.
func (s *Store) prepare(r *request) error {
	l, err := s.logs.acquire(r.name)
	if err != nil {
		return unstored(err)
	}
	if l.round != s.round {
		f, size, tail := l.published()
		l.round, l.fresh, l.exists, l.end, l.next = s.round, true, f != nil, size, tail
		l.there, l.pending = l.exists, l.publishedState()
	}
	if err = s.check(l, r); err != nil || r.kind == deletes && !l.exists && !s.anything(l) {
		s.logs.release(l)
		return err
	}
	if r.log = l; r.kind == deletes {
		return nil
	}
	if len(r.events) == 0 && r.record == nil { // it has that state
		r.log = nil
		s.logs.release(l)
		return nil
	}
	l.next, l.there = r.tail, true
	if r.state != nil {
		l.pending = *r.state
	}
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
			return unstored(err)
		}
		l.fresh = false
	}
	if !l.exists && s.scarce != nil {
		return unstored(fmt.Errorf("%s: %w", l.path, cause(s.scarce)))
	}
	return l.accepts(r)
}

// anything tells whether there is something to delete of a stream that has no file.
func (s *Store) anything(l *log) bool {
	_, journalled := s.journalled(l.name)
	return journalled || s.marked(l) != nil
}

// unchanged fails where the stream's file is not as the store left it. Its size is asked at each commit, whether it
// is still the one at its path where the folder has changed.
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
		return s.found(l, l.damaged(at, fmt.Errorf("somebody changed it: it has %d bytes, the server left %d",
			size, left)))
	}
	if !l.replaced && !s.changed.IsZero() && s.changed.Equal(l.looked) {
		return nil
	}
	same, err := s.fs.same(l.path, l.file)
	if err != nil {
		return err
	}
	if l.looked = s.changed; same {
		return nil
	}
	if !l.replaced {
		l.replaced = true
		s.logs.pin(l)
	}
	return fmt.Errorf("somebody removed %s, or put another file in its place", l.path)
}

// journalled tells whether a journal has events of the stream that were not deleted, and how large its file is with
// them.
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
