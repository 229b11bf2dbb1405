//go:build unix

package disk

import (
	"os"
	"syscall"
)

// notInNames are the bytes that no file's name has.
const notInNames = "/\x00"

func openLock(dir string) (*os.File, error) {
	return os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY, 0)
}

func tryLock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == syscall.EWOULDBLOCK {
		return ErrLocked
	}
	return err
}

// giver returns what gives a file or a folder that root has made to the owner of root's folder, who could else not
// open it. It is nil where that is root, or nobody can give. What may not be given stays as it is.
func giver(dir *os.Root) func(*os.File) {
	info, err := dir.Stat(".")
	if err != nil || os.Geteuid() != 0 {
		return nil
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	return func(f *os.File) { _ = f.Chown(int(owner.Uid), int(owner.Gid)) }
}

func syncFolder(f *os.File) error { return f.Sync() }

// maxOpen is half of the descriptors that the process may have, or a quarter where these are few; the rest is for
// others, such as connections.
func maxOpen() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 512
	}
	if limit.Cur < 4096 {
		return int(max(limit.Cur/4, 4))
	}
	return int(min(limit.Cur/2, 16<<10))
}

// posix returns err, which has POSIX's names already.
func posix(err error) error { return err }
