package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// ErrLocked says that another process has the folder.
var ErrLocked = errors.New("the folder is in use by another process")

// Lock takes the folder for this process, or fails at once with ErrLocked. Closing gives it back, and so does the end of the
// process, however it ends: it is an flock(2) on the folder itself.
func Lock(dir string) (io.Closer, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if err == syscall.EWOULDBLOCK {
			return nil, fmt.Errorf("lock %s: %w", dir, ErrLocked)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}
