//go:build unix && !aix && !solaris

package tokens

import (
	"os"
	"syscall"
)

// lock waits until no other process has f, which then has it until it is closed.
func lock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX) }
