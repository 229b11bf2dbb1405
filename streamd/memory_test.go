package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/iterate/durable-streams/streamlib/budget"
	"github.com/matryer/is"
)

func TestParseMemory(t *testing.T) {
	is := is.New(t)
	for text, want := range map[string]int64{
		"536870912": 512 << 20, "512M": 512 << 20, "512MiB": 512 << 20, "2GiB": 2 << 30, "2g": 2 << 30, "1.5G": 3 << 29,
		"100MB": 100e6, "65536k": 64 << 20, "1 GB": 1e9,
	} {
		got, err := parseSize(text, budget.Least)
		is.NoErr(err)
		is.Equal(got, want) // text
	}
	for _, text := range []string{"", "0", "1", "63M", "-1G", "1e9", "2GBit", "G", "512 M B", "99999999T"} {
		if n, err := parseSize(text, budget.Least); err == nil {
			t.Errorf("%q is %d bytes", text, n)
		}
	}
}

// TestMachineMemory: the least limit of the machine and of all groups that this process is in counts, of either
// version.
func TestMachineMemory(t *testing.T) {
	is := is.New(t)
	const meminfo, group = "proc/meminfo", "proc/self/cgroup"
	for _, test := range []struct {
		files map[string]string
		want  int64
		total int64
	}{
		{nil, 1 << 30, 0},       // another system's
		{nil, 1 << 29, 1 << 30}, // as a service has it, whose /proc has only processes
		{map[string]string{meminfo: "MemTotal: 524288 kB\n"}, 1 << 28, 1 << 30},
		{map[string]string{meminfo: "MemTotal:       24683520 kB\nMemFree: 1 kB\n"}, 2 << 30, 0},
		{map[string]string{meminfo: "MemTotal: 1048576 kB\n"}, 1 << 29, 0},
		{map[string]string{meminfo: "MemTotal: 1024 kB\n"}, 64 << 20, 0},
		{map[string]string{meminfo: "MemTotal: 8388608 kB\n", group: "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "314572800\n"}, 150 << 20, 0},
		{map[string]string{meminfo: "MemTotal: 8388608 kB\n", group: "3:cpu:/x\n4:memory:/docker/1\n0::/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "314572800\n"}, 150 << 20, 0}, // as a container sees its own
		{map[string]string{meminfo: "MemTotal: 8388608 kB\n", group: "4:memory:/a\n",
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712\n"}, 2 << 30, 0},
	} {
		root := t.TempDir()
		for name, text := range test.files {
			is.NoErr(os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o700))
			is.NoErr(os.WriteFile(filepath.Join(root, name), []byte(text), 0o600))
		}
		is.Equal(machineMemory(root, test.total), test.want)
	}
}

// TestTotalMemory: the system tells it without a file.
func TestTotalMemory(t *testing.T) {
	is := is.New(t)
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Skip("there is nothing to compare it with: ", err)
	}
	var kib int64
	_, err = fmt.Sscanf(string(b), "MemTotal: %d kB", &kib)
	is.NoErr(err)
	is.Equal(totalMemory(), kib<<10)
}
