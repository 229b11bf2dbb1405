package disk

import (
	"errors"
	"io"
	"io/fs"
)

// ErrLocked says that another process has the folder.
var ErrLocked = errors.New("the folder is in use by another process")

// Lock takes the folder for this process, or fails at once with ErrLocked. Closing gives it back, and so does the end
// of the process, however it ends: it is an flock(2) on the folder itself, on Windows a LockFileEx on the file "lock"
// in it.
func Lock(dir string) (io.Closer, error) {
	f, err := openLock(dir)
	if err != nil {
		return nil, err
	}
	if err := tryLock(f); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "lock", Path: dir, Err: err}
	}
	return f, nil
}
