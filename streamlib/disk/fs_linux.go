package disk

import (
	"io/fs"
	"syscall"
	"time"
)

// sync leaves out what a reader does not need, such as the time of the change: fdatasync(2).
func (f osFile) sync() error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err != syscall.EINTR {
			return err
		}
	}
}

// changeTime is the ctime of inode(7), which no program can set, as some do with the mtime when they restore a backup.
func changeTime(info fs.FileInfo) (t time.Time) {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		t = time.Unix(stat.Ctim.Unix())
	}
	return t
}
