package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/iterate/durable-streams/streamlib"
)

// A collection gives back the room of what a stream does not keep: it copies what is kept to a file that then takes the
// place of the stream's. That is only done where it is not more than what goes, so no more is ever written for it than
// was appended.
type collection struct {
	log     *log
	to      file
	from    int64            // in the stream's file, of what is copied
	copied  int64            // of it so far
	retired uint64           // how many journals had gone before the last copy
	next    streamlib.Offset // that follows
}

// closeEnough is how much may have been appended to a stream since the last copy when its file is swapped: while that
// is copied commits wait.
const closeEnough = 256 << 10

// collects does what there is to do until the store is closed or has failed.
func (s *Store) collects() {
	for {
		s.mu.Lock()
		for len(s.trimmed) == 0 && s.broken == nil {
			s.work.Wait()
		}
		done := s.broken != nil
		s.mu.Unlock()
		if done {
			return
		}
		s.collect()
	}
}

// collect looks at one of the streams that were trimmed. It tells whether there may be more.
func (s *Store) collect() bool {
	s.mu.Lock()
	name, any := "", false
	for name = range s.trimmed {
		any = true
		break
	}
	delete(s.trimmed, name)
	done := s.broken != nil || s.failed
	s.mu.Unlock()
	if !any || done {
		return false
	}
	if err := s.collectOne(name); err != nil {
		s.options.Log.Warn("what a stream does not keep stays where it is for now", "stream", name, "error", err)
	}
	return true
}

func (s *Store) collectOne(name string) error {
	l, err := s.logs.acquire(name)
	if err != nil {
		return err
	}
	defer s.logs.release(l)
	s.mu.Lock()
	delete(s.trimmed, name) // by who opened it, if that was this
	s.mu.Unlock()
	if l.file == nil || l.corrupt != nil || l.readOnly || s.marked(l) != nil {
		return nil
	}
	_, size, _ := l.published()
	first, begin, err := l.start()
	if err != nil || begin == 0 || begin < size-begin {
		return err
	}
	c := &collection{log: l, from: begin, next: first}
	if c.to, err = s.fs.open(newTrimmed, os.O_RDWR|os.O_CREATE|os.O_TRUNC); err != nil {
		return err
	}
	switch err = s.collected(c); {
	case err == nil, errors.Is(err, errSwapped):
		return nil
	case err == errDeleted:
		err = nil
	}
	return errors.Join(err, c.to.close(), s.removeTrimmed())
}

var errDeleted = errors.New("the stream was deleted meanwhile")

// errSwapped is an error behind which the new file has its place.
var errSwapped = errors.New("the file was swapped")

// collected copies what is kept, nearly all of it while commits go on, and lets a commit swap the files. What is copied
// within that commit is not synced in the new file: the journals have it, if none went since the last sync, and none
// goes before a sync of the file and of its name.
func (s *Store) collected(c *collection) error {
	for {
		s.mu.Lock()
		for s.checkpointing && s.broken == nil {
			s.work.Wait()
		}
		err := s.broken
		c.retired = s.retired
		s.mu.Unlock()
		if err != nil {
			return err
		}
		for before := c.copied - closeEnough; c.copied-before >= closeEnough; {
			before = c.copied
			if err := c.copy(); err != nil {
				return s.found(c.log, err)
			}
			if err := s.syncTrimmed(c); err != nil {
				return err
			}
		}
		r := &request{kind: swaps, collect: c, size: streamlib.MaxBatch}
		s.commits.Do(r)
		switch {
		case r.err == errAgain:
			continue
		case r.err != nil:
			return r.err
		}
		if err := s.syncStreams(); err != nil {
			return fmt.Errorf("%w, and then: %w", errSwapped, err)
		}
		s.nameIt(c)
		return nil
	}
}

// errAgain says that a journal went meanwhile.
var errAgain = errors.New("to be copied and synced again")

func (s *Store) syncTrimmed(c *collection) error {
	if s.options.NoSync {
		return nil
	}
	return s.sync(newTrimmed, c.to.sync)
}

// nameIt notes that the new file's name is durable.
func (s *Store) nameIt(c *collection) {
	s.logs.mu.Lock()
	l := s.logs.logs[c.log.name]
	s.logs.mu.Unlock()
	if l != nil && l.file == c.to {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.unnamed = false
	}
}

// copy appends what was published since to the new file. What is not whole is not copied.
func (c *collection) copy() error {
	f, size, tail := c.log.published()
	const step = 1 << 20
	var out []byte
	flush := func() error {
		if len(out) == 0 {
			return nil
		}
		_, err := c.to.WriteAt(out, c.copied)
		c.copied += int64(len(out))
		out = out[:0]
		return err
	}
	for lines := (scanner{f: f, pos: c.from + c.copied, size: size, chunk: 256 << 10}); ; {
		begin := lines.pos
		line, err := lines.next()
		if err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		e, err := parseLine(line, c.log.quoted)
		if err == nil && e.Offset != c.next {
			err = fmt.Errorf("offset %d where %d should be", e.Offset, c.next)
		}
		if err != nil {
			return c.log.damaged(begin, err)
		}
		c.next++
		if out = append(out, line...); len(out) >= step {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if c.next != tail {
		return c.log.damaged(size, fmt.Errorf("the file ends before offset %d", tail))
	}
	return flush()
}

// swap lets the new file have the place of the old one. It is a commit, so nothing is appended meanwhile.
func (s *Store) swap(c *collection) error {
	l := c.log
	s.mu.Lock()
	deleted, again := l.deleted, s.checkpointing || s.retired != c.retired
	s.mu.Unlock()
	switch {
	case deleted:
		return errDeleted
	case again:
		return errAgain
	}
	if s.marked(l) != nil || l.replaced {
		return errors.New("it is not as it was")
	}
	if same, err := s.fs.same(l.path, l.file); err != nil || !same {
		return errors.Join(err, errors.New("somebody put another file in its place"))
	}
	if err := c.copy(); err != nil {
		return err
	}
	if err := s.fs.rename(newTrimmed, l.path); err != nil {
		if same, _ := s.fs.same(l.path, c.to); !same {
			return err
		} // a file system at the other end of a network may do it, and lose its answer
	}
	by := newLog(l.name)
	by.opening.Do(func() {})
	by.file, by.unnamed = c.to, true
	l.mu.Lock()
	by.size, by.tail, by.updated, by.state, by.stated = c.copied, l.tail, l.updated, l.state, l.stated
	l.mu.Unlock()
	s.mu.Lock()
	journals := append(s.full[:len(s.full):len(s.full)], s.journal)
	s.mu.Unlock()
	for _, j := range journals {
		if j == nil {
			continue
		}
		if size, ok := j.names[l.name]; ok && size >= c.from {
			j.names[l.name] = size - c.from
		} else if ok && size >= 0 { // all that it has of the stream is gone
			j.names[l.name] = 0
		}
	}
	s.logs.replace(l, by)
	return nil
}

// removeTrimmed removes what a collection that did not come to its end left.
func (s *Store) removeTrimmed() error {
	if err := s.fs.remove(newTrimmed); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
