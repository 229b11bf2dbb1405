package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// descriptors is where the files of a folder are found behind the number of its descriptor: proc_pid_fd(5).
const descriptors = "/proc/self/fd"

// bind makes the socket one of its owner's from the beginning: unix(7) gives the file the mode that the socket has.
func bind(path string) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if e := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }); e != nil {
			return e
		}
		return err
	}}
	return lc.Listen(context.Background(), "unix", path)
}

func keepToOwner(string, os.FileInfo) error { return nil }

// giveSocket is Give, of a socket that this process has just made in the folder: only a socket, and no link, is given.
func giveSocket(path string) {
	const oPath = 0x200000
	fd, err := syscall.Open(path, oPath|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer syscall.Close(fd)
	var stat syscall.Stat_t
	if syscall.Fstat(fd, &stat) == nil && stat.Mode&syscall.S_IFMT == syscall.S_IFSOCK {
		give(filepath.Dir(path), func(uid, gid int) { _ = os.Chown(fmt.Sprintf("%s/%d", descriptors, fd), uid, gid) })
	}
}
