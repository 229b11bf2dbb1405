//go:build unix

package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/iterate/durable-streams/streamlib/metrics"
)

// writeProcess writes what the operating system knows of the process.
func writeProcess(p *metrics.Page) {
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &used) == nil {
		p.Counter("process_cpu_seconds_total", "CPU time, of the system for it too.",
			float64(used.Utime.Nano()+used.Stime.Nano())/1e9)
	}
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		if fields := strings.Fields(string(statm)); len(fields) > 1 {
			if pages, err := strconv.Atoi(fields[1]); err == nil {
				p.Gauge("process_resident_memory_bytes", "Memory that it has in RAM.", float64(pages*os.Getpagesize()))
			}
		}
	}
	if n := openFiles(); n >= 0 {
		p.Gauge("process_open_fds", "Descriptors that are open.", float64(n))
	}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		p.Gauge("process_max_fds", "Descriptors that may be open.", float64(limit.Cur))
	}
}
