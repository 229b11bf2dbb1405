package main

import (
	"syscall"
	"time"
	"unsafe"
)

// monotonic is the time of CLOCK_MONOTONIC, by which systemd tells which reload an answer is of.
func monotonic() time.Duration {
	var now syscall.Timespec
	const clockMonotonic = 1
	_, _, _ = syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&now)), 0)
	return time.Duration(now.Nano())
}

// listens tells whether a descriptor is a socket that takes connections.
func listens(fd uintptr) bool {
	syscall.CloseOnExec(int(fd))
	takes, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
	return err == nil && takes == 1
}
