//go:build linux

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/iterate/durable-streams/streamctl/internal/bench"
)

// appendAndSync is the floor of an append: one thread appends size bytes to a growing file and syncs it, again and
// again.
func appendAndSync(dir string, size int, d time.Duration) (bench.Summary, error) {
	var h bench.Histogram
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return h.Summary(), err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	event := bytes.Repeat([]byte("x"), size)
	for end := time.Now().Add(d); time.Now().Before(end); {
		begin := time.Now()
		if _, err := f.Write(event); err != nil {
			return h.Summary(), err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return h.Summary(), err
		}
		h.Add(time.Since(begin))
	}
	return h.Summary(), nil
}

// sequentialWrite returns how many bytes a second the disk takes of one large file, the sync at its end included.
func sequentialWrite(dir string) (float64, error) {
	const size = 512 << 20
	f, err := os.Create(filepath.Join(dir, "sequential"))
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	part := bytes.Repeat([]byte("x"), 1<<20)
	begin := time.Now()
	for range size / len(part) {
		if _, err := f.Write(part); err != nil {
			return 0, err
		}
	}
	if err := syscall.Fdatasync(int(f.Fd())); err != nil {
		return 0, err
	}
	return size / time.Since(begin).Seconds(), nil
}
