//go:build unix

package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	return fill(args[0], func(s *Store) error { return drop(s, "a") })
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

// What has a stream's file name and is no file is told by its name, is not waited for, and hides no other stream.
func TestNoFiles(t *testing.T) {
	is := is.New(t)
	f, truth := write(t, Options{}, true, true, func(add func(string, int)) { add("a", 2); add("z", 2) })
	f[path("a")] = inLine(f[path("a")], 1)
	dir := f.put(t)
	at := func(name string) string { return filepath.Join(dir, streamsDir, name) }
	is.NoErr(os.Mkdir(at("folder.json"), 0o700))
	is.NoErr(syscall.Mkfifo(at("fifo.json"), 0o600))
	is.NoErr(os.Symlink("nowhere.json", at("dangling.json")))
	is.NoErr(os.Symlink("loop.json", at("loop.json")))
	is.NoErr(os.Symlink("/etc/hostname", at("outside.json")))
	is.NoErr(os.Symlink("outside.json", at("twice.json")))
	others := []string{"dangling", "fifo", "folder", "loop", "outside", "twice"}
	const out = "it is a link that leads out of the folder: put a file in its place"
	says := map[string]string{
		"dangling": "it is a link that leads nowhere: move it away", "fifo": "a named pipe is in its place: move that away",
		"folder": "a folder is in its place: move that away", "loop": "", "outside": out, "twice": out,
	}

	sum, err := Verify(dir, nil)
	is.NoErr(err)
	is.Equal(len(sum.Damage), 1)
	is.Equal(len(sum.Unread), len(others))
	for i, name := range others {
		is.True(strings.HasPrefix(sum.Unread[i].Error(), "streams/"+name+".json: "))
		is.True(strings.HasSuffix(sum.Unread[i].Error(), says[name]))
	}
	s := openFolder(t, dir, Options{})
	events, err := read(s, "z", 0)
	is.NoErr(err)
	is.True(len(events) == 2 && prefix(events, truth["z"]))
	names, err := listed(s, "", "", 0)
	is.NoErr(err)
	is.Equal(len(names), 2+len(others))
	for _, name := range others {
		_, err := stat(s, name)
		is.True(err != nil && strings.Contains(err.Error(), name+".json"))
		err = put(s, name, newEvent(name, 0))
		is.True(errors.Is(err, streamlib.ErrUnavailable))
	}
	is.NoErr(appendOne(s, "z", 2))
	is.NoErr(s.Close())
	var said []string
	err = Repair(dir, nil, false, func(sentence string) { said = append(said, sentence) }, nil)
	is.True(err != nil)
	for _, name := range others {
		is.True(slices.ContainsFunc(said,
			func(s string) bool { return strings.Contains(s, name+".json could not be repaired") }))
	}
	s = openFolder(t, dir, Options{})
	is.NoErr(put(s, "a", newEvent("a", 1)))
	is.NoErr(s.Close())
	_, err = os.Lstat(at("nowhere.json"))
	is.True(errors.Is(err, os.ErrNotExist))
}

// TestNoFileInTheJournal: where what the journal has finds no file in the stream's place, verify says what is there and
// not that repair helps, until that has been moved away.
func TestNoFileInTheJournal(t *testing.T) {
	is := is.New(t)
	for _, put := range []func(string) error{
		func(path string) error { return os.Mkdir(path, 0o700) },
		func(path string) error { return syscall.Mkfifo(path, 0o600) },
		func(path string) error { return os.Symlink("/etc/hostname", path) },
	} {
		f, truth := write(t, Options{}, true, false, func(add func(string, int)) { add("a", 2); add("z", 2) })
		dir := f.put(t)
		at := filepath.Join(dir, path("a"))
		is.NoErr(os.Remove(at))
		is.NoErr(put(at))
		s := openFolder(t, dir, Options{})
		is.NoErr(s.Close())
		sum, err := Verify(dir, nil)
		is.NoErr(err)
		is.Equal(len(sum.Damage), 0)
		is.Equal(len(sum.Unread), 1)
		is.True(Repair(dir, nil, false, func(string) {}, nil) != nil)
		is.NoErr(os.Remove(at))
		sum, err = Verify(dir, nil)
		is.NoErr(err)
		is.Equal(len(sum.Damage), 1) // it is marked still
		is.NoErr(Repair(dir, nil, false, func(string) {}, nil))
		s = openFolder(t, dir, Options{})
		events, err := read(s, "a", 0)
		is.NoErr(err)
		is.True(len(events) == 2 && prefix(events, truth["a"]))
		is.NoErr(s.Close())
	}
}
