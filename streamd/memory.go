package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/iterate/durable-streams/streamlib/budget"
)

// memoryUnits are the suffixes that --memory takes: M and MiB as programs of the system have them, MB as the standard does.
var memoryUnits = map[string]float64{
	"": 1, "b": 1, "k": 1 << 10, "kib": 1 << 10, "kb": 1e3, "m": 1 << 20, "mib": 1 << 20, "mb": 1e6,
	"g": 1 << 30, "gib": 1 << 30, "gb": 1e9, "t": 1 << 40, "tib": 1 << 40, "tb": 1e12,
}

// parseSize reads a size in bytes, which is at least so many.
func parseSize(s string, least int64) (int64, error) {
	number := strings.TrimRight(s, letters)
	unit := memoryUnits[strings.ToLower(s[len(number):])]
	number = strings.TrimSuffix(number, " ")
	whole, part, pointed := strings.Cut(number, ".")
	if unit == 0 || !isDigits(whole) || pointed && !isDigits(part) {
		return 0, errors.New("it is a number of bytes, such as 536870912, 512M or 2GiB")
	}
	n, err := strconv.ParseFloat(number, 64)
	if n *= unit; err != nil || n < float64(least) || n > 1<<60 {
		return 0, fmt.Errorf("it is at least %dM", least>>20)
	}
	return int64(n), nil
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// sizeValue is a flag's: it keeps how the size was written.
type sizeValue struct {
	bytes *int64
	least int64
	text  string
}

func (v *sizeValue) String() string { return v.text }

func (v *sizeValue) Set(s string) (err error) {
	*v.bytes, err = parseSize(s, v.least)
	v.text = s
	return err
}

// machineMemory is the memory bound where none is chosen: half of what the machine, or the control group of this process
// has, at most budget.Default. The machine has total bytes, or less where /proc/meminfo says so, as in a container; total
// is 0 where it is not known. Root is / but in tests.
func machineMemory(root string, total int64) int64 {
	least := int64(math.MaxInt64)
	if total > 0 {
		least = total
	}
	read := func(file string) {
		if b, err := os.ReadFile(path.Join(root, file)); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 { // v2 says max for none
				least = min(least, n)
			}
		}
	}
	if b, err := os.ReadFile(path.Join(root, "proc/meminfo")); err == nil {
		_, rest, _ := strings.Cut(string(b), "MemTotal:") // in kB: proc_meminfo(5)
		if fields := strings.Fields(rest); len(fields) > 0 {
			if n, err := strconv.ParseInt(fields[0], 10, 64); err == nil {
				least = min(least, n<<10)
			}
		}
	}
	groups, _ := os.ReadFile(path.Join(root, "proc/self/cgroup")) // of other systems there is none: cgroups(7)
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) < 3 {
			continue
		}
		dir, file := "sys/fs/cgroup", "memory.max"
		if parts[1] == "memory" {
			dir, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		} else if parts[1] != "" {
			continue
		}
		// The limits of all groups above hold, too. In a container the path may be the host's, and the root is the group.
		for at := path.Join("/", parts[2]); ; at = path.Dir(at) {
			if read(path.Join(dir, at, file)); at == "/" {
				break
			}
		}
	}
	if least == math.MaxInt64 { // it is not known
		return budget.Default / 2
	}
	return max(budget.Least, min(budget.Default, least/2))
}

// limitMemory lets the collector work the harder the nearer the bound is, unless GOMEMLIMIT was set, which is limit.
func limitMemory(bytes int64, limit string) {
	if limit == "" {
		debug.SetMemoryLimit(bytes / 10 * 9)
	}
}
