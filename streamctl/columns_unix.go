//go:build unix

package main

import (
	"os"
	"syscall"
	"unsafe"
)

// columns returns how many columns f has, 0 where that is not known, and whether it is a terminal.
func columns(f *os.File) (n int, terminal bool) {
	var size struct{ rows, columns, x, y uint16 }
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, false
	}
	_ = raw.Control(func(fd uintptr) {
		_, _, e := syscall.Syscall(syscall.SYS_IOCTL, fd, uintptr(syscall.TIOCGWINSZ), uintptr(unsafe.Pointer(&size)))
		terminal = e == 0
	})
	return int(size.columns), terminal
}
