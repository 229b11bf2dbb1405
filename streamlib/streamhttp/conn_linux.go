package streamhttp

import (
	"net"
	"syscall"
	"time"
	"unsafe"
)

// awaitTaken waits, for a limited time, until the client's machine has acknowledged all that was written to conn:
// tcp(7), SIOCOUTQ.
func awaitTaken(conn *net.TCPConn, limit time.Duration) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	for end, wait := time.Now().Add(limit), time.Millisecond; time.Now().Before(end); wait = min(2*wait,
		100*time.Millisecond) {
		var queued int32
		err := raw.Control(func(fd uintptr) {
			_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&queued)))
		})
		if err != nil || queued == 0 {
			return
		}
		time.Sleep(wait)
	}
}
