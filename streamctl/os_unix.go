//go:build unix

package main

import (
	"errors"
	"os"
	"syscall"
)

// detached makes a process one of a session of its own, which no terminal ends.
var detached = &syscall.SysProcAttr{Setsid: true}

// endings are the signals that end a server, the clean one first.
var endings = []os.Signal{syscall.SIGTERM, os.Kill}

func hasEnded(p *os.Process) bool { return p.Signal(syscall.Signal(0)) != nil }

// become makes this process streamd, and returns only where it cannot.
func become(path string, args []string) error {
	return syscall.Exec(path, append([]string{"streamd"}, args...), withoutToken(os.Environ()))
}

// isReaderGone tells whether err is that of a write to a pipe that nobody reads.
func isReaderGone(err error) bool { return errors.Is(err, syscall.EPIPE) }
