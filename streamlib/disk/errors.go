package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/iterate/durable-streams/streamlib"
)

// isReadOnly tells whether err says that something must not be written.
func isReadOnly(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(posix(err), syscall.EROFS)
}

// classify returns the sentinel for what the operating system said, nil where there is none.
func classify(err error) error {
	err = posix(err)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return streamlib.ErrFull
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE),
		errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return streamlib.ErrUnavailable
	}
	return nil
}

// classified lets callers tell err's kind, where it has one.
func classified(err error) error {
	if kind := classify(err); kind != nil {
		return fmt.Errorf("%w: %w", kind, err)
	}
	return err
}

// unstored is err as the error of what stored nothing.
func unstored(err error) error {
	if errors.Is(err, streamlib.ErrInvalid) {
		return err
	}
	if classify(err) == nil {
		return fmt.Errorf("%w: %w", streamlib.ErrUnavailable, err)
	}
	return classified(err)
}

// cause is what the operating system said, without the path.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

var errClosed = fmt.Errorf("%w: the storage is closed", streamlib.ErrUnavailable)

// errUnfinished is what is told of a commit that panics.
var errUnfinished = errors.New("the commit did not finish")

// outOfDescriptors tells whether err says that the process, or the machine, has as many files open as it may.
func outOfDescriptors(err error) bool {
	err = posix(err)
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// noFile is err of opening path as damage, where it is none of the disk's errors: something else is in the place of a
// file.
func noFile(path string, err error) error {
	if classify(err) != nil || errors.Is(posix(err), syscall.EIO) || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return &streamlib.CorruptError{File: path, Reason: cause(err).Error()}
}

func isCorrupt(err error) bool {
	_, ok := errors.AsType[*streamlib.CorruptError](err)
	return ok
}
