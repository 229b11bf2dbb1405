package disk

import (
	"io/fs"
	"runtime"
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

// syncAllTells says that syncAll tells of bytes that were lost when they were written back, of files that were closed
// before, too.
const syncAllTells = true

// syncAll is syncfs(2), on a folder that has been open since the start: since Linux 5.8 it tells of each error of the
// file system since then, and since it was asked last, whether or not the file is still in memory. Package syscall has
// no number for it.
func (o *osFS) syncAll() error {
	f, err := o.folder(streamsDir)
	if err != nil {
		return err
	}
	number, ok := map[string]uintptr{"386": 344, "amd64": 306, "arm": 373, "arm64": 267, "loong64": 267, "ppc64": 348,
		"ppc64le": 348, "riscv64": 267, "s390x": 338}[runtime.GOARCH]
	if !ok {
		syscall.Sync()
		return nil
	}
	for {
		if _, _, err := syscall.Syscall(number, f.Fd(), 0, 0); err != syscall.EINTR {
			if err != 0 {
				return err
			}
			return nil
		}
	}
}
