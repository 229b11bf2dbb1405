package main

import "syscall"

// waitReaderGone waits until nobody reads the pipe fd, a small number, any more. To select(2) the writing end of such
// a pipe is readable, and it is never that before.
func waitReaderGone(fd int) bool {
	for {
		var set syscall.FdSet
		set.Bits[0] |= 1 << fd
		if _, err := syscall.Select(fd+1, &set, nil, nil, nil); err != syscall.EINTR {
			return err == nil
		}
	}
}
