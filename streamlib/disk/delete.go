package disk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// removeStream removes the stream's file, and then that of its state.
func (s *Store) removeStream(name string) error {
	if err := s.fs.remove(path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.names.Note(name, false)
	return s.removeState(name)
}

// deleteAtOnce deletes a stream where there is no room to begin a journal, and none that would make it again. What has
// a file for its state besides is deleted once that has another name, which needs no room: see finishDeletion.
func (s *Store) deleteAtOnce(r *request) error {
	if err := s.writeDeletions(s.deletions.Load() + 1); err != nil {
		return unstored(err)
	}
	if s.version.Load() == 1 {
		if err := s.removeStream(r.name); err != nil {
			s.deletions.Add(1) // for it may be gone all the same
			return err
		}
		if err := s.syncStreams(); err != nil {
			return err
		}
		s.publish(r)
		return nil
	}
	from := statePath(stem(r.name))
	if err := s.fs.rename(from, deletedState); err != nil && !errors.Is(err, fs.ErrNotExist) {
		f, gone := s.fs.open(from, os.O_RDONLY)
		if gone == nil { // nothing has happened
			return errors.Join(err, f.close())
		}
		s.fail(err)
		return err
	}
	err := s.sync(stateDir, func() error { return s.fs.syncDir(stateDir) })
	if err == nil {
		err = s.removeStream(r.name)
	}
	if err == nil {
		err = s.syncStreams()
	}
	if err == nil {
		err = s.removeDeleted()
	}
	if err != nil {
		s.fail(err) // the next start goes on
		return err
	}
	s.publish(r)
	return nil
}

// finishDeletion deletes the stream whose state deleteAtOnce has renamed. Until it is gone for good nobody can have made
// another of that name.
func (s *Store) finishDeletion() error {
	b, err := readStart(s.fs, deletedState, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if record, err := unseal(b); err == nil {
		if r, err := parseState(record); err == nil {
			if err := s.removeStream(r.Stream); isReadOnly(err) {
				return nil // who may write the folder goes on
			} else if err != nil {
				return err
			}
			if err := s.syncStreams(); err != nil {
				return err
			}
		}
	}
	return s.removeDeleted()
}

func (s *Store) removeDeleted() error {
	if err := s.fs.remove(deletedState); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.sync(stateDir, func() error { return s.fs.syncDir(stateDir) })
}

// deletionsRecord is how many deletions the folder has seen. Its file has two, of which one at a time is written over:
// so it needs no room on a full disk, and a torn one leaves the other.
type deletionsRecord struct {
	Deletions string `json:"deletions"`
}

const deletionsLen = int64(len(`{"deletions":"0000000000000000"`) + sealLen)

func deletionsLine(n int64) []byte {
	record, _ := json.Marshal(deletionsRecord{fmt.Sprintf("%016d", n)})
	return appendLine(nil, record[:len(record)-1])
}

// readDeletions returns the count, -1 where there is none. Where the file is damaged it is a number that no count ever
// reaches, which tells lives apart as well.
func (s *Store) readDeletions() (n int64, err error) {
	b, err := readStart(s.fs, deletionsFile, 2*deletionsLen)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	} else if err != nil {
		return 0, err
	}
	n = -1
	for ; len(b) >= int(deletionsLen); b = b[deletionsLen:] {
		record, err := unseal(b[:deletionsLen])
		var r deletionsRecord
		if err == nil && json.Unmarshal(append(record, '}'), &r) == nil {
			if o, err := streamlib.ParseOffset(r.Deletions); err == nil {
				n = max(n, int64(o))
			}
		}
	}
	if n < 0 {
		return time.Now().Unix(), &streamlib.CorruptError{File: deletionsFile, Reason: "no line in it is whole"}
	}
	return n, nil
}

// writeDeletions makes the count durable in its place.
func (s *Store) writeDeletions(n int64) error {
	s.counting.Lock()
	defer s.counting.Unlock()
	if n <= s.counted {
		return nil
	}
	f, err := s.fs.open(deletionsFile, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		if err := writeWhole(s.fs, deletionsFile, slices.Concat(deletionsLine(n), deletionsLine(n))); err != nil {
			return err
		}
		if err := s.sync(".", func() error { return s.fs.syncDir(".") }); err != nil {
			return err
		}
		s.counted = n
		return nil
	}
	if err != nil {
		return err
	}
	for _, at := range [...]int64{0, deletionsLen} { // one whole while the other is written over
		if err == nil {
			_, err = f.WriteAt(deletionsLine(n), at)
		}
		if err == nil {
			err = s.sync(deletionsFile, f.sync)
		}
	}
	if err = errors.Join(err, f.close()); err == nil && s.counted < 0 { // its name may be of a rename that failed
		err = s.sync(".", func() error { return s.fs.syncDir(".") })
	}
	if err == nil {
		s.counted = n
	}
	return err
}
