//go:build unix

package main

import (
	"errors"
	"os"
	"strconv"
	"syscall"
)

// detached makes a process one of a session of its own, which no terminal ends.
var detached = &syscall.SysProcAttr{Setsid: true}

// endings are the signals that end a server, the clean one first.
var endings = []os.Signal{syscall.SIGTERM, os.Kill}

func hasEnded(p *os.Process) bool { return p.Signal(syscall.Signal(0)) != nil || isDead(p.Pid) }

// become makes this process streamd, and returns only where it cannot.
func become(path string, args []string) error {
	keepToOurselves()
	return syscall.Exec(path, append([]string{"streamd"}, args...), environment())
}

// keepToOurselves keeps from a server what is the caller's: the descriptors from 3 up, such as a lock or a pipe whose
// end somebody waits for, and a mask that would take its own files from it.
func keepToOurselves() {
	syscall.Umask(0o077)
	last := 1 << 10
	fds, err := os.ReadDir("/dev/fd")
	if err == nil && len(fds) > 3 { // one is that of reading it; FreeBSD may show the first three alone
		last = 2
	}
	for _, fd := range fds {
		if n, err := strconv.Atoi(fd.Name()); err == nil {
			last = max(last, n)
		}
	}
	for fd := 3; fd <= last; fd++ {
		syscall.CloseOnExec(fd)
	}
}

// hasNames tells whether a file has other names than one.
func hasNames(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Nlink > 1
}

// isOurs tells whether a file belongs to this process's user.
func isOurs(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}

// isReaderGone tells whether err is that of a write to a pipe that nobody reads.
func isReaderGone(err error) bool { return errors.Is(err, syscall.EPIPE) }
