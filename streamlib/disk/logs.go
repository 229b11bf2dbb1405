package disk

import (
	"github.com/iterate/durable-streams/streamlib"
)

// acquire returns the stream's log, open, for use until it is released.
func (s *Store) acquire(name string) (*log, error) {
	s.mu.Lock()
	l := s.logs[name]
	if l == nil {
		if err := streamlib.CheckName(name); err != nil {
			s.mu.Unlock()
			return nil, err
		}
		l = newLog(name)
		s.logs[name] = l
	}
	s.hold(l)
	s.mu.Unlock()
	l.opening.Do(func() {
		for l.err = l.open(s); outOfDescriptors(l.err) && s.evictOne(); l.err = l.open(s) {
		}
		if l.err == nil {
			s.judge(l)
		}
	})
	if l.err != nil {
		s.mu.Lock()
		s.forget(l)
		s.mu.Unlock()
		s.release(l)
		return nil, l.err
	}
	return l, nil
}

// judge compares a log that was just opened with what is known of its damage.
func (s *Store) judge(l *log) {
	if l.corrupt != nil {
		_ = s.found(l, l.corrupt)
	} else if m := s.marked(l); m != nil && m.Offset >= l.size {
		l.corrupt = m.corrupt() // what was lost stood at the end
	}
}

// hold counts one more user of the log. The caller holds mu.
func (s *Store) hold(l *log) {
	if l.refs++; l.place != nil {
		s.idle.Remove(l.place)
		l.place = nil
	}
}

// pin lets the log stay what it is until the next start.
func (s *Store) pin(l *log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold(l)
}

// discard forgets the log of a file that was removed.
func (s *Store) discard(l *log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.dirty = false
	delete(s.unsynced, l.name)
	s.forget(l)
}

// forget makes the log one that nobody finds; who has it keeps it. The caller holds mu.
func (s *Store) forget(l *log) {
	if s.logs[l.name] != l {
		return
	}
	delete(s.logs, l.name)
	if l.dirty && !s.options.NoSync {
		s.unsynced[l.name] = true
	}
}

// release gives the log back. Of those that nobody has then, the ones that were not used for longest are closed where
// too many are open; readers that are stuck may take half of what may be open from the others, and no more.
func (s *Store) release(l *log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.refs--; l.refs > 0 {
		return
	}
	if l.file == nil || l.corrupt != nil || l.readOnly {
		s.forget(l) // nothing to keep, or to be looked at again
	}
	if s.logs[l.name] != l {
		s.shut(l)
		return
	}
	l.place = s.idle.PushFront(l)
	for len(s.logs) > s.options.MaxOpen && s.idle.Len() > s.options.MaxOpen/2 {
		s.evict()
	}
}

// evictOne closes an idle log where more are open than should be. Else others have the descriptors, such as connections: they would
// take this one, too, and a stream that can be read could not.
func (s *Store) evictOne() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.logs) > s.options.MaxOpen && s.evict()
}

// evict closes the idle log that was not used for longest, and tells whether there is one. The caller holds mu.
func (s *Store) evict() bool {
	last := s.idle.Back()
	if last == nil {
		return false
	}
	l := s.idle.Remove(last).(*log)
	l.place = nil
	s.forget(l)
	s.shut(l)
	return true
}

// syncFile makes durable what was written to the log so far. The caller has acquired it.
func (s *Store) syncFile(l *log) error {
	s.mu.Lock()
	dirty, writes := l.dirty, l.writes
	s.mu.Unlock()
	if !dirty {
		return nil
	}
	if !s.options.NoSync {
		if err := s.sync(l.path, l.file.sync); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.writes == writes {
		l.dirty = false
	}
	return nil
}

// shut closes a log that nobody has and nobody finds.
func (s *Store) shut(l *log) {
	if l.file == nil {
		return
	}
	if err := l.file.close(); err != nil {
		s.options.Log.Error("close", "file", l.path, "error", err)
	}
}
