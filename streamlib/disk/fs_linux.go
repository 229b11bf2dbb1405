package disk

import (
	"fmt"
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

// syncsClosed tells whether the file system is one whose syncfs(2) is as good as the files' fsync: it waits for the
// bytes and has the disk write its cache, and tells of errors. FUSE and 9p ask nothing of who has the disk, and
// overlayfs does not tell.
func (o *osFS) syncsClosed() bool {
	const ext, xfs, btrfs = 0xEF53, 0x58465342, 0x9123683E // statfs(2)
	f, err := o.folder(streamsDir)                         // from here on it tells
	if err != nil || syncfs == 0 {
		return false
	}
	var stat syscall.Statfs_t
	var u syscall.Utsname
	if syscall.Fstatfs(int(f.Fd()), &stat) != nil || syscall.Uname(&u) != nil {
		return false
	}
	var release []byte
	for _, c := range u.Release {
		release = append(release, byte(c))
	}
	var major, minor int
	_, err = fmt.Sscanf(string(release), "%d.%d", &major, &minor)
	kind := uint32(stat.Type)
	return err == nil && (major > 5 || major == 5 && minor >= 8) && (kind == ext || kind == xfs || kind == btrfs)
}

// syncfs is the number of syncfs(2), which package syscall does not have; 0 where it is not known.
var syncfs = map[string]uintptr{"386": 344, "amd64": 306, "arm": 373, "arm64": 267, "loong64": 267, "ppc64": 348,
	"ppc64le": 348, "riscv64": 267, "s390x": 338}[runtime.GOARCH]

// syncAll is syncfs(2), on a folder that has been open since the start: since Linux 5.8 it tells of each error of the
// file system since then, and since it was asked last, whether or not the file is still in memory.
func (o *osFS) syncAll() error {
	f, err := o.folder(streamsDir)
	if err != nil {
		return err
	}
	if syncfs == 0 {
		syscall.Sync()
		return nil
	}
	for {
		if _, _, err := syscall.Syscall(syncfs, f.Fd(), 0, 0); err != syscall.EINTR {
			if err != 0 {
				return err
			}
			return nil
		}
	}
}
