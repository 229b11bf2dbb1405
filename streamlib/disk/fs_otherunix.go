//go:build unix && !linux

package disk

import "syscall"

func (o *osFS) syncAll() error {
	syscall.Sync()
	return nil
}
