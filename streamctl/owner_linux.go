package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// holder returns the pid of the process that has the folder's lock, 0 where none has or none that can be seen from here.
// Known is false on systems that do not tell.
func (f folder) holder() (pid int, known bool) {
	locks, err := os.ReadFile("/proc/locks") // proc_locks(5)
	if err != nil {
		return 0, false
	}
	dir, err := os.Stat(f.dir)
	if err != nil {
		return 0, true
	}
	inode := fmt.Sprintf(":%d", dir.Sys().(*syscall.Stat_t).Ino)
	for line := range strings.Lines(string(locks)) { // 1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[1] != "FLOCK" || !strings.HasSuffix(fields[5], inode) {
			continue
		}
		if pid, err := strconv.Atoi(fields[4]); err == nil && hasLocked(pid, dir) {
			return pid, true
		}
	}
	return 0, true
}

// hasLocked tells whether the process has a lock on this very folder: the device numbers in /proc/locks are not those of stat
// on every file system, so inodes alone do not tell.
func hasLocked(pid int, dir os.FileInfo) bool {
	proc := fmt.Sprintf("/proc/%d", pid)
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if info, err := os.Stat(filepath.Join(proc, "fd", fd.Name())); err != nil || !os.SameFile(info, dir) {
			continue
		}
		if info, err := os.ReadFile(filepath.Join(proc, "fdinfo", fd.Name())); err == nil && bytes.Contains(info, []byte("\nlock:")) {
			return true
		}
	}
	return false
}
