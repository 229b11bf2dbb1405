package disk

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"
)

// On Windows folders can be neither locked nor synced, there is no sync(2), and no time of a change that programs
// cannot set. Files are opened, renamed and removed through os.Root, which has POSIX's semantics there too:
// one that is open can be replaced and removed.

const notInNames = "/\x00\\\"*:<>?|"

func openLock(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
}

var lockFileEx = syscall.NewLazyDLL("kernel32.dll").NewProc("LockFileEx")

// tryLock locks the first byte of the file, which stays empty, so that it can be copied.
func tryLock(f *os.File) error {
	const exclusive, failImmediately, errorLockViolation = 2, 1, syscall.Errno(33)
	ok, _, err := lockFileEx.Call(f.Fd(), exclusive|failImmediately, 0, 1, 0,
		uintptr(unsafe.Pointer(new(syscall.Overlapped))))
	switch {
	case ok != 0:
		return nil
	case err == errorLockViolation:
		return ErrLocked
	}
	return err
}

func giver(*os.Root) func(*os.File) { return nil }

// syncFolder does nothing: names are the file system's journal's, which is written in order, and no later than at the
// next sync of a file.
func syncFolder(*os.File) error { return nil }

// syncAll syncs the files one by one.
func (o *osFS) syncAll() error {
	names, err := o.names(streamsDir)
	if err != nil {
		return err
	}
	for _, name := range names {
		f, err := o.open(streamsDir+"/"+name, os.O_RDWR)
		if err != nil {
			return err
		}
		if err := errors.Join(f.sync(), f.close()); err != nil {
			return err
		}
	}
	return nil
}

func maxOpen() int { return 16 << 10 } // handles are bounded by memory alone

// posix returns err by the name that POSIX has for it, where the store asks for that.
func posix(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		if named, ok := posixNames[errno]; ok {
			return named
		}
	}
	return err
}

var posixNames = map[syscall.Errno]error{
	4:    syscall.EMFILE, // ERROR_TOO_MANY_OPEN_FILES
	19:   syscall.EROFS,  // ERROR_WRITE_PROTECT
	21:   syscall.EIO,    // ERROR_NOT_READY
	23:   syscall.EIO,    // ERROR_CRC
	27:   syscall.EIO,    // ERROR_SECTOR_NOT_FOUND
	30:   syscall.EIO,    // ERROR_READ_FAULT
	31:   syscall.EIO,    // ERROR_GEN_FAILURE
	32:   syscall.EACCES, // ERROR_SHARING_VIOLATION: another program has it, which is no damage
	33:   syscall.EACCES, // ERROR_LOCK_VIOLATION, a part of it
	39:   syscall.ENOSPC, // ERROR_HANDLE_DISK_FULL
	112:  syscall.ENOSPC, // ERROR_DISK_FULL
	223:  syscall.EFBIG,  // ERROR_FILE_TOO_LARGE
	1117: syscall.EIO,    // ERROR_IO_DEVICE
	1295: syscall.EDQUOT, // ERROR_DISK_QUOTA_EXCEEDED
}
