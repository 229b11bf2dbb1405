//go:build unix

package main

import (
	"fmt"
	"os"
	"syscall"
)

// portTaken is what listening on a port says where another program has it.
const portTaken = syscall.EADDRINUSE

// endAt ends the process as the signal does by itself.
func endAt(signal os.Signal) { _ = syscall.Kill(os.Getpid(), signal.(syscall.Signal)) }

// isJournal tells whether f is the stream that stream names, as systemd does it: DEVICE:INODE.
func isJournal(f *os.File, stream string) bool {
	info, err := f.Stat()
	if err != nil || stream == "" {
		return false
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", s.Dev, s.Ino)
}

// maxConns is how many connections leave to the streams' files and to the rest what these may have of the descriptors.
func maxConns() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 512
	}
	n := int64(min(limit.Cur, 1<<20))
	return int(max(n-min(n/2, 16<<10)-64, n/4, 1))
}
