//go:build linux || darwin || freebsd

package daemon

import "syscall"

// Free is how many bytes the file system of dir has left for this user, and how many more files it takes, -1 where it
// has no bound.
func Free(dir string) (bytes, files int64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	if files = -1; s.Files > 0 {
		files = int64(s.Ffree)
	}
	return int64(s.Bavail) * int64(s.Bsize), files, nil
}
