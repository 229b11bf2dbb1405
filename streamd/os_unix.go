//go:build unix

package main

import (
	"os"
	"syscall"
)

// portTaken is what listening on a port says where another program has it.
const portTaken = syscall.EADDRINUSE

// endAt ends the process as the signal does by itself.
func endAt(signal os.Signal) { _ = syscall.Kill(os.Getpid(), signal.(syscall.Signal)) }
