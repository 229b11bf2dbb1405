package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// isSynchronized tells whether something sets the clock right: adjtimex(2).
func isSynchronized() (bool, error) {
	const timeError = 5 // TIME_ERROR
	state, err := syscall.Adjtimex(&syscall.Timex{})
	return state != timeError, err
}

// descriptorsOf is how many descriptors a process has and may have; with pid 0, one that this process starts.
func descriptorsOf(pid int) (used, most int, err error) {
	if pid == 0 {
		var limit syscall.Rlimit
		err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
		return 0, int(min(limit.Max, 1<<30)), err // a Go program takes all that it may
	}
	b, err := os.ReadFile(proc(pid, "limits"))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) { // Max open files SOFT HARD files: proc_pid_limits(5)
		rest, is := strings.CutPrefix(line, "Max open files")
		if fields := strings.Fields(rest); is && len(fields) > 1 {
			if most, err = strconv.Atoi(fields[0]); err != nil {
				most = 1 << 30 // unlimited
			}
		}
	}
	fds, err := os.ReadDir(proc(pid, "fd"))
	if err != nil {
		return 0, 0, err
	}
	return len(fds), most, nil
}

// mountOf finds the mount that a folder is on, or would be: proc_pid_mountinfo(5).
func mountOf(dir string) (best mount, err error) {
	for {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil {
			dir = real
			break
		}
		if dir == filepath.Dir(dir) {
			return best, err
		}
		dir = filepath.Dir(dir)
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return best, err
	}
	return mountIn(string(b), dir)
}

// mountIn finds it in a mountinfo. Of two on one place the later one is seen.
func mountIn(mountinfo, dir string) (best mount, err error) {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(mountinfo) {
		before, after, _ := strings.Cut(line, " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if len(fields) < 6 || len(rest) < 3 {
			continue
		}
		point := unescape.Replace(fields[4])
		is := point == "/" || point == dir || strings.HasPrefix(dir, point+"/")
		if is && len(point) >= len(best.point) {
			best = mount{point, rest[0], strings.Split(fields[5]+","+rest[2], ",")}
		}
	}
	if best.point == "" {
		err = fmt.Errorf("%s is on no mount", dir)
	}
	return best, err
}

// writeBackOf reads how the page cache is written: Documentation/admin-guide/sysctl/vm.rst of Linux.
func writeBackOf() (w writeBack, err error) {
	read := func(name string) int {
		b, e := os.ReadFile("/proc/sys/vm/" + name)
		n, e2 := strconv.Atoi(strings.TrimSpace(string(b)))
		err = cmp.Or(err, e, e2)
		return n
	}
	w.every = read("dirty_writeback_centisecs")
	bytes, ratio := read("dirty_background_bytes"), read("dirty_background_ratio")
	if w.most = int64(bytes); bytes > 0 || err != nil {
		return w, err
	}
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return w, err
	}
	for line := range strings.Lines(string(b)) { // MemAvailable: N kB
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "MemAvailable:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			w.most = kib << 10 / 100 * int64(ratio)
			return w, err
		}
	}
	return w, errors.New("/proc/meminfo has no MemAvailable")
}
