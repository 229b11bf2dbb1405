package daemon

import (
	"syscall"
	"unsafe"
)

var getDiskFreeSpace = syscall.NewLazyDLL("kernel32.dll").NewProc("GetDiskFreeSpaceExW")

// Free is how many bytes the file system of dir has left for this user; files are -1, for it has no bound.
func Free(dir string) (bytes, files int64, err error) {
	path, err := syscall.UTF16PtrFromString(dir)
	if err != nil {
		return 0, 0, err
	}
	if ok, _, errno := getDiskFreeSpace.Call(uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&bytes)), 0,
		0); ok == 0 {
		return 0, 0, errno
	}
	return bytes, -1, nil
}
