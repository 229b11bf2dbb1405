package main

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// What Windows lacks: signals to a process without a console, so that a server is stopped as by a crash, which loses
// nothing that was acknowledged; a way to see who has a lock; exec(2); and time limits for reading from a pipe, so
// that a command waits for as long as the server that it starts takes to listen or to end.

// detached makes a process one without a console, which Ctrl-C in this one's does not reach.
var detached = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP | detachedProcess}

const detachedProcess = 0x8

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

func isLocked(string) bool { return false } // it is not asked: another's processes are seen, too

func hasNames(os.FileInfo) bool { return false }

func isOurs(os.FileInfo) bool { return true }

const hasModes = false

func mayWrite(string) error { return nil }

// inForeground: what is typed reaches every process of the console.
func inForeground() bool { return true }

func signalName(s syscall.Signal) string { return s.String() }
