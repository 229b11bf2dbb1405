package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
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

// owner returns the folder's server. Where that does not answer but its process can be known, s has its pid alone; the
// error is errNotRunning where there is none.
func (f folder) owner(ctx context.Context) (s server, answers bool, err error) {
	conn, s, err := f.find(ctx)
	if err == nil {
		conn.Close()
	}
	pid, known := f.holder()
	switch {
	case err == nil && (!known || pid == s.PID):
		return s, true, nil
	case err == nil:
		return s, true, fmt.Errorf("%s is served at %s by a process that cannot be seen from here", f.dir, s.url())
	case pid == 0:
		return server{}, false, fmt.Errorf("%w: no server has %s", errNotRunning, f.dir)
	}
	s = server{}
	s.PID = pid
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err != nil || !strings.HasPrefix(string(comm), "streamd") {
		return s, false, fmt.Errorf("pid %d has locked %s and is no streamd", pid, f.dir)
	}
	if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && len(line) > 0 {
		s.Args = strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")[1:]
	}
	return s, false, nil
}

// stop ends the folder's server s: cleanly, or where that takes longer than patience by SIGKILL, which killed tells.
// It returns when the folder is free.
func (f folder) stop(s server, patience time.Duration) (killed bool, err error) {
	process, err := os.FindProcess(s.PID)
	if err != nil {
		return false, err
	}
	defer process.Release()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		// The process is held now, so its pid is not given to another between this look and the signal.
		if pid, known := f.holder(); known && pid != s.PID {
			return killed, nil
		}
		if err := process.Signal(signal); errors.Is(err, os.ErrProcessDone) {
			return killed, nil
		} else if err != nil {
			return false, fmt.Errorf("stop pid %d: %w", s.PID, err)
		}
		killed = signal == syscall.SIGKILL
		deadline := time.Now().Add(patience)
		for wait := time.Millisecond; time.Now().Before(deadline); wait = min(2*wait, 50*time.Millisecond) {
			if pid, known := f.holder(); known && pid != s.PID || !known && process.Signal(syscall.Signal(0)) != nil {
				return killed, nil
			}
			time.Sleep(wait)
		}
	}
	return false, fmt.Errorf("pid %d was killed and still has %s", s.PID, f.dir)
}
