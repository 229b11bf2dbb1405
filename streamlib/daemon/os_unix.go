//go:build unix

package daemon

import (
	"os"
	"syscall"
)

// noFollow opens no link, and waits for nobody at the other end of a pipe.
const noFollow = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// Give gives f, which this process has just made in the folder, to who has the folder: what root leaves there that one
// could not read. Where root may not do that, f stays root's.
func Give(f *os.File, dir string) {
	give(dir, func(uid, gid int) { _ = f.Chown(uid, gid) })
}

// give calls chown with who has the folder, where this process is root and that is not.
func give(dir string, chown func(uid, gid int)) {
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 {
		return
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 {
		chown(int(owner.Uid), int(owner.Gid))
	}
}
