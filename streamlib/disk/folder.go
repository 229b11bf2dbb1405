package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// makeDir makes the folder, and those above it that are missing, and makes the names of all of them durable. Its own
// is even where it is there: who made it may have ended before.
func makeDir(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	_, err = os.Stat(dir)
	made := errors.Is(err, fs.ErrNotExist)
	above := []string{filepath.Dir(dir)}
	for top := above[0]; top != filepath.Dir(top); top = filepath.Dir(top) {
		if _, err := os.Stat(top); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		above = append(above, filepath.Dir(top))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, folder := range above {
		f, err := os.Open(folder)
		if errors.Is(err, fs.ErrPermission) {
			continue // it is not ours, and was there
		} else if err != nil {
			return err
		}
		err = syncFolder(f)
		if errors.Is(err, syscall.EINVAL) && !made {
			err = nil // such as a squashfs, in which nothing is ever made
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// format is that of a folder in which no stream has a state. Versions that know that alone leave the other untouched.
const (
	format  = "durable-streams 1\n"
	format2 = "durable-streams 2\n"
	format3 = "durable-streams 3\n"
)

// prepareFolder makes what belongs into a folder. One that cannot be written can still be read.
func (s *Store) prepareFolder() error {
	err := s.checkFormat()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.makeFolder()
	case err != nil:
		return err
	}
	// A copy may lack folders that were empty, and a power cut have taken one, but not the format that was written then.
	err = errors.Join(s.fs.mkdir(streamsDir), s.fs.mkdir(journalDir))
	if s.version.Load() > 1 {
		err = errors.Join(err, s.fs.mkdir(stateDir))
	}
	return err
}

// checkFormat fails where the folder is of a version that this one does not know: it is left untouched then.
func (s *Store) checkFormat() error {
	b, err := readStart(s.fs, formatFile, 100)
	if err != nil {
		return err
	}
	switch string(b) {
	case format:
		s.version.Store(1)
	case format2:
		s.version.Store(2)
	case format3:
		s.version.Store(3)
	default:
		return fmt.Errorf("the folder's format is %q, this version knows %q: it was left as it is",
			bytes.TrimSpace(b), strings.TrimSpace(format3))
	}
	return nil
}

// makeFolder writes the format last, so that where it is everything is.
func (s *Store) makeFolder() error {
	syncNames := func() error { return s.sync(".", func() error { return s.fs.syncDir(".") }) }
	if err := errors.Join(s.fs.mkdir(streamsDir), s.fs.mkdir(journalDir)); err != nil {
		return err
	}
	if err := s.syncStreams(); err != nil { // what was converted has its name for good
		return err
	}
	if err := syncNames(); err != nil {
		return err
	}
	if err := writeWhole(s.fs, formatFile, []byte(format)); err != nil {
		return err
	}
	s.version.Store(1)
	return syncNames()
}
