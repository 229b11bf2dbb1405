package disk

import "syscall"

// sync leaves out what a reader does not need, such as the time of the change: fdatasync(2).
func (f osFile) sync() error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err != syscall.EINTR {
			return err
		}
	}
}
