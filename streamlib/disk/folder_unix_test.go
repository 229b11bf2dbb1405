//go:build unix

package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

func init() {
	programs["descriptors"] = withFewDescriptors
	programs["file-size"] = withFileSizeLimit
}

// Open files are bounded by the LRU and not by the number of streams.
func TestFewDescriptors(t *testing.T) { run(t, "descriptors", t.TempDir()) }

func withFewDescriptors(args []string) error {
	limit := syscall.Rlimit{Cur: 64, Max: 64}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	const streams = 1000
	s, err := Open(args[0], Options{JournalSize: 64 << 10, NoSync: true})
	if err != nil {
		return err
	}
	for round := range 3 {
		var all sync.WaitGroup
		errs := make(chan error, streams)
		for w := range 8 {
			all.Go(func() {
				for i := w; i < streams; i += 8 {
					if err := appendOne(s, fmt.Sprint("s", i), round); err != nil {
						errs <- err
					}
				}
			})
		}
		all.Wait()
		close(errs)
		if err := <-errs; err != nil {
			return err
		}
	}
	if err := s.Close(); err != nil {
		return err
	}
	// With none left, appends are refused, and it goes on when there are some.
	s, err = Open(args[0], Options{})
	if err != nil {
		return err
	}
	var taken []*os.File
	for {
		f, err := os.Open(args[0])
		if err != nil {
			break
		}
		taken = append(taken, f)
	}
	if err := appendOne(s, "s1", 3); !errors.Is(err, streamlib.ErrUnavailable) {
		return fmt.Errorf("an append without descriptors: %v", err)
	}
	for _, f := range taken {
		f.Close()
	}
	if err := appendOne(s, "s1", 3); err != nil {
		return err
	}
	for i := range streams {
		if err := expect(s, fmt.Sprint("s", i), 3+bool2int(i == 1)); err != nil {
			return err
		}
	}
	return s.Close()
}

func bool2int(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A limit on files' sizes is a full disk: ulimit -f.
func TestFileSizeLimit(t *testing.T) { run(t, "file-size", t.TempDir()) }

func withFileSizeLimit(args []string) error {
	limit := syscall.Rlimit{Cur: 64 << 10, Max: 64 << 10}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	return fill(args[0], func(s *Store) error { return s.Delete("a") })
}

// fill appends to the folder until it is full, and expects that nothing else is wrong then.
func fill(dir string, makeRoom func(s *Store) error) error {
	s, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	counts := map[string]int{}
	full := 0
	for full < 5 {
		for _, name := range []string{"a", "b", "c"} {
			switch err := appendOne(s, name, counts[name]); {
			case errors.Is(err, streamlib.ErrFull):
				full++
			case err != nil:
				return err
			default:
				counts[name]++
			}
		}
	}
	if counts["a"] < 10 {
		return fmt.Errorf("full after %v", counts)
	}
	for name, n := range counts {
		if err := expect(s, name, n); err != nil {
			return err
		}
	}
	if err := s.Close(); err != nil {
		return err
	}
	if s, err = Open(dir, Options{}); err != nil {
		return err
	}
	for name, n := range counts {
		if err := expect(s, name, n); err != nil {
			return err
		}
	}
	if err := makeRoom(s); err != nil {
		return err
	}
	if err := appendOne(s, "d", 0); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	return s.Close()
}

// The folder and what is in it are for its owner alone.
func TestModes(t *testing.T) {
	is := is.New(t)
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "data")
	s := openFolder(t, dir, Options{})
	is.NoErr(appendOne(s, "a", 0))
	is.NoErr(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		is.NoErr(err)
		info, err := d.Info()
		is.NoErr(err)
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[d.IsDir()]; info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	}))
}
