package main

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"unsafe"
)

// What Windows lacks: signals to a process without a console, so that a server is stopped as by a crash, which loses
// nothing that was acknowledged; a way to see who has a lock, but not that somebody has it; exec(2); and time limits
// for reading from a pipe, so that a command waits for as long as the server that it starts takes to listen or to end.

// detached makes a process one without a console, which Ctrl-C in this one's does not reach.
var detached = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP | detachedProcess}

const detachedProcess = 0x8

// killing is what to type to end a process that does not answer.
func killing(pid int) string { return "taskkill /f /pid " + strconv.Itoa(pid) }

var endings = []os.Signal{os.Kill}

func hasEnded(p *os.Process) (ended bool) {
	err := p.WithHandle(func(handle uintptr) {
		event, _ := syscall.WaitForSingleObject(syscall.Handle(handle), 0)
		ended = event == syscall.WAIT_OBJECT_0
	})
	return ended || err != nil
}

// become runs streamd in this process's place and ends with it. Ctrl-C reaches both, and is streamd's to obey.
func become(path string, args []string) error {
	signal.Ignore(os.Interrupt)
	streamd := exec.Command(path, args...)
	streamd.Env = environment()
	streamd.Stdin, streamd.Stdout, streamd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := streamd.Run()
	if streamd.ProcessState == nil {
		return err
	}
	os.Exit(streamd.ProcessState.ExitCode())
	return nil
}

func isReaderGone(err error) bool {
	const errorBrokenPipe, errorNoData = syscall.Errno(109), syscall.Errno(232)
	return errors.Is(err, errorBrokenPipe) || errors.Is(err, errorNoData)
}

func keepToOurselves() {} // only what exec.Cmd names is inherited

var lockFileEx = syscall.NewLazyDLL("kernel32.dll").NewProc("LockFileEx")

// isLocked tells whether somebody has a lock on the folder. To find out takes it for a moment, in which no server can.
func isLocked(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	const failImmediately, errorLockViolation = 1, syscall.Errno(33)
	ok, _, err := lockFileEx.Call(f.Fd(), failImmediately, 0, 1, 0, uintptr(unsafe.Pointer(new(syscall.Overlapped))))
	return ok == 0 && err == errorLockViolation
}

func hasNames(os.FileInfo) bool { return false }

func isOurs(os.FileInfo) bool { return true }

const hasModes = false

func mayWrite(string) error { return nil }

// inForeground: what is typed reaches every process of the console.
func inForeground() bool { return true }

func signalName(s syscall.Signal) string { return s.String() }
