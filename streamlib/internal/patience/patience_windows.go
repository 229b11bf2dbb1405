package patience

import (
	"errors"
	"syscall"
	"time"
)

const limit = 2 * time.Second

const errorSharingViolation = syscall.Errno(32)

// Open is explained where there is nothing to wait for.
func Open(open func() error) error {
	return again(open, errorSharingViolation)
}

// Replace is explained there, too. That a file is open which is to be replaced, Windows calls a denied access.
func Replace(replace func() error) error {
	return again(replace, errorSharingViolation, syscall.ERROR_ACCESS_DENIED)
}

func again(do func() error, hindered ...error) error {
	for end := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		err := do()
		isHindered := false
		for _, h := range hindered {
			isHindered = isHindered || errors.Is(err, h)
		}
		if !isHindered || time.Now().After(end) {
			return err
		}
	}
}
