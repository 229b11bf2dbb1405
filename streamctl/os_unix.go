//go:build unix

package main

import (
	"errors"
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

// detached makes a process one of a session of its own, which no terminal ends.
var detached = &syscall.SysProcAttr{Setsid: true}

// endings are the signals that end a server, the clean one first.
var endings = []os.Signal{syscall.SIGTERM, os.Kill}

// killing is what to type to end a process that does not answer.
func killing(pid int) string { return "kill " + strconv.Itoa(pid) }

func hasEnded(p *os.Process) bool { return p.Signal(syscall.Signal(0)) != nil || isDead(p.Pid) }

// become makes this process streamd, and returns only where it cannot.
func become(path string, args []string) error {
	keepToOurselves()
	return syscall.Exec(path, append([]string{"streamd"}, args...),
		without("DURABLE_STREAMS_", "LISTEN_")) // the rest of the manager's is for this process, which it stays
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

// isLocked tells whether somebody has a lock on the folder. To find out takes it for a moment, in which no server can.
func isLocked(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == syscall.EWOULDBLOCK
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

// hasModes tells whether the mode of a file says who may use it.
const hasModes = true

// mayWrite returns why this process may not write to the folder, nil where it may: access(2).
func mayWrite(dir string) error {
	const readWriteExecute = 7
	return syscall.Access(dir, readWriteExecute)
}

// isReaderGone tells whether err is that of a write to a pipe that nobody reads.
func isReaderGone(err error) bool { return errors.Is(err, syscall.EPIPE) }

// inForeground tells whether this process's group is the one that the terminal sends its signals to.
func inForeground() bool {
	terminal, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer terminal.Close()
	var group int32
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, terminal.Fd(), syscall.TIOCGPGRP, uintptr(unsafe.Pointer(&group)))
	return errno == 0 && int(group) == syscall.Getpgrp()
}

// signalName is what kill -l calls a signal.
func signalName(s syscall.Signal) string {
	if name, ok := signalNames[s]; ok {
		return name
	}
	return "SIG" + strconv.Itoa(int(s))
}

var signalNames = map[syscall.Signal]string{
	syscall.SIGABRT: "SIGABRT", syscall.SIGALRM: "SIGALRM", syscall.SIGBUS: "SIGBUS", syscall.SIGFPE: "SIGFPE",
	syscall.SIGHUP: "SIGHUP", syscall.SIGILL: "SIGILL", syscall.SIGINT: "SIGINT", syscall.SIGIO: "SIGIO",
	syscall.SIGKILL: "SIGKILL", syscall.SIGPIPE: "SIGPIPE", syscall.SIGPROF: "SIGPROF", syscall.SIGQUIT: "SIGQUIT",
	syscall.SIGSEGV: "SIGSEGV", syscall.SIGSYS: "SIGSYS", syscall.SIGTERM: "SIGTERM", syscall.SIGTRAP: "SIGTRAP",
	syscall.SIGUSR1: "SIGUSR1", syscall.SIGUSR2: "SIGUSR2", syscall.SIGVTALRM: "SIGVTALRM", syscall.SIGXCPU: "SIGXCPU",
	syscall.SIGXFSZ: "SIGXFSZ",
}
