package main

import "syscall"

// totalMemory is the machine's in bytes, 0 where that is not known. A service whose unit has ProcSubset=pid has no
// /proc/meminfo.
func totalMemory() int64 {
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit)
}
