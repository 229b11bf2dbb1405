package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// holder returns the pid of the process that has the folder's lock, 0 where none has or none that can be seen from
// here. Known is false on systems that do not tell.
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

// hasLocked tells whether the process has a lock on this very folder: the device numbers in /proc/locks are not those
// of stat on every file system, so inodes alone do not tell.
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
		if info, err := os.ReadFile(filepath.Join(proc, "fdinfo", fd.Name())); err == nil &&
			bytes.Contains(info, []byte("\nlock:")) {
			return true
		}
	}
	return false
}

// proc is a file of the process in /proc.
func proc(pid int, file string) string { return fmt.Sprintf("/proc/%d/%s", pid, file) }

// ports returns the TCP ports on which the process listens.
func ports(pid int) (ports []int) {
	fds, err := os.ReadDir(proc(pid, "fd"))
	if err != nil {
		return nil
	}
	own := map[string]bool{} // inodes of its sockets
	for _, fd := range fds {
		if link, err := os.Readlink(proc(pid, "fd/"+fd.Name())); err == nil {
			if inode, ok := strings.CutPrefix(link, "socket:["); ok {
				own[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	for _, table := range []string{"net/tcp", "net/tcp6"} {
		b, err := os.ReadFile(proc(pid, table))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) { // sl local_address rem_address st … inode: proc_pid_net(5)
			fields := strings.Fields(line)
			if len(fields) < 10 || fields[3] != "0A" || !own[fields[9]] {
				continue
			}
			_, hex, _ := strings.Cut(fields[1], ":")
			if port, err := strconv.ParseUint(hex, 16, 16); err == nil && !slices.Contains(ports, int(port)) {
				ports = append(ports, int(port))
			}
		}
	}
	return ports
}

func isStreamd(pid int) bool {
	comm, err := os.ReadFile(proc(pid, "comm"))
	return err == nil && strings.HasPrefix(string(comm), "streamd")
}

// argsOf returns what stood behind its name when the process was started.
func argsOf(pid int) []string {
	line, err := os.ReadFile(proc(pid, "cmdline"))
	if err != nil || len(line) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")[1:]
}

// state is the process's, 0 where there is none: proc_pid_stat(5).
func state(pid int) byte {
	b, err := os.ReadFile(proc(pid, "stat"))
	if i := bytes.LastIndexByte(b, ')'); err == nil && i >= 0 && i+2 < len(b) {
		return b[i+2]
	}
	return 0
}

func isStopped(pid int) bool { return state(pid) == 'T' || state(pid) == 't' }

// isDead tells whether the process has ended, but nobody has asked how.
func isDead(pid int) bool { return state(pid) == 'Z' || state(pid) == 'X' }

// isNear tells whether the process has the same network as this one: only then its ports are those of 127.0.0.1 here.
func isNear(pid int) bool { return same(pid, "ns/net") }

// seesSame tells whether paths are the same files to the process as to this one.
func seesSame(pid int) bool { return same(pid, "ns/mnt") }

func same(pid int, namespace string) bool {
	ours, err := os.Readlink("/proc/self/" + namespace)
	theirs, errTheirs := os.Readlink(proc(pid, namespace))
	return err != nil || errTheirs != nil || ours == theirs
}

// logOf says where the process's stderr goes.
func (f folder) logOf(pid int) string {
	to, err := os.Readlink(proc(pid, "fd/2"))
	switch {
	case err != nil:
		return f.logFile()
	case strings.HasPrefix(to, "pipe:"), strings.HasPrefix(to, "socket:"):
		kind, _, _ := strings.Cut(to, ":")
		return fmt.Sprintf("stderr of pid %d, a %s", pid, kind)
	}
	return to
}
