package disk

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// TestMain plays the other process where a test needs one: the test binary with the name of a program in its
// environment.
func TestMain(m *testing.M) {
	if program := programs[os.Getenv(programEnv)]; program != nil {
		if err := program(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const programEnv = "DISK_TEST_PROGRAM"

// programs are what the test binary can be; some are only where the system has what they need.
var programs = map[string]func(args []string) error{
	"hold": holdFolder,
}

// run runs one of programs with args, and fails the test with what it says.
func run(t *testing.T, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), programEnv+"="+program)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

func openFolder(t *testing.T, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

var testTime = time.Date(2024, 1, 8, 0, 0, 0, 0, time.UTC)

// newEvent makes an event as a stream would.
func newEvent(name string, o int) streamlib.Event {
	record, _ := streamlib.NewRecord(streamlib.Offset(o), name, json.RawMessage(strconv.Itoa(o)), testTime)
	e, _ := streamlib.ParseRecord(record)
	return e
}

func appendOne(s *Store, name string, o int) error {
	return put(s, name, newEvent(name, o))
}

// expect fails where the stream does not have exactly its first n events.
func expect(s *Store, name string, n int) error {
	events, err := read(s, name, 0)
	if err != nil {
		return err
	}
	if len(events) != n {
		return fmt.Errorf("%q has %d events, not %d", name, len(events), n)
	}
	for i, e := range events {
		if e.String() != newEvent(name, i).String() {
			return fmt.Errorf("%q has %v at %d", name, e, i)
		}
	}
	return nil
}

// A folder that is no longer at its path takes no appends.
func TestFolderGone(t *testing.T) {
	for what, do := range map[string]func(dir string) error{
		"removed":              os.RemoveAll,
		"renamed":              func(dir string) error { return os.Rename(dir, dir+".away") },
		"the streams removed":  func(dir string) error { return os.RemoveAll(filepath.Join(dir, streamsDir)) },
		"the journal removed":  func(dir string) error { return os.RemoveAll(filepath.Join(dir, journalDir)) },
		"one stream removed":   func(dir string) error { return os.Remove(filepath.Join(dir, path("a"))) },
		"one stream replaced":  func(dir string) error { return replaceFile(filepath.Join(dir, path("a"))) },
		"one stream restored":  restoreFile,
		"replaced by a copy":   replaceFolder,
		"the streams replaced": func(dir string) error { return replaceFolder(filepath.Join(dir, streamsDir)) },
		"replaced by an old form": func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.MkdirAll(filepath.Join(dir, streamsDir), 0o700))
		},
	} {
		for _, believed := range []bool{false, true} { // the time of the folder's last change can be believed
			t.Run(fmt.Sprint(what, "/", believed), func(t *testing.T) {
				t.Parallel()
				if believed && runtime.GOOS != "linux" {
					t.Skip("no such time is asked for")
				}
				is := is.New(t)
				dir := filepath.Join(t.TempDir(), "data")
				s := openFolder(t, dir, Options{})
				wait := func() {
					end := time.Now().Add(10 * time.Second)
					for believed && s.changed.IsZero() && s.usable() == nil {
						runtime.Gosched()
						if time.Now().After(end) {
							t.Skip("the times of this file system do not tell of changes")
						}
					}
				}
				is.NoErr(appendOne(s, "a", 0))
				wait()
				is.NoErr(appendOne(s, "a", 1))
				if err := do(dir); runtime.GOOS == "windows" && err != nil {
					t.Skip("what is open is protected from it:", err)
				} else {
					is.NoErr(err)
				}
				s.changed = time.Time{}
				wait()
				for range 2 {
					if err := appendOne(s, "a", 2); !errors.Is(err, streamlib.ErrUnavailable) {
						t.Fatalf("append: %v", err)
					}
				}
			})
		}
	}
}

// A folder's time is believed where a later change gets another one.
func TestDistinct(t *testing.T) {
	is := is.New(t)
	changed := testTime.Add(1)
	for age, want := range map[time.Duration]time.Time{
		-time.Hour: {}, 0: {}, 100*time.Millisecond - 1: {}, 100 * time.Millisecond: changed, time.Hour: changed,
	} {
		is.Equal(distinct(changed, changed.Add(age)), want)
	}
	is.True(distinct(testTime, testTime.Add(time.Hour)).IsZero()) // a file system of seconds
}

func replaceFile(path string) error {
	b, err := os.ReadFile(path)
	return errors.Join(err, os.WriteFile(path+".new", b, 0o600), os.Rename(path+".new", path))
}

// restoreFile does what tar does, which puts the folder's mtime back.
func restoreFile(dir string) error {
	streams := filepath.Join(dir, streamsDir)
	info, err := os.Stat(streams)
	if err != nil {
		return err
	}
	return errors.Join(replaceFile(filepath.Join(dir, path("a"))), os.Chtimes(streams, time.Time{}, info.ModTime()))
}

func replaceFolder(dir string) error {
	return errors.Join(os.CopyFS(dir+".copy", os.DirFS(dir)), os.Rename(dir, dir+".away"), os.Rename(dir+".copy", dir))
}

func TestSecondOpen(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	s := openFolder(t, dir, Options{})
	_, err := Open(dir, Options{})
	is.True(errors.Is(err, ErrLocked))
	_, err = Verify(dir, nil)
	is.True(errors.Is(err, ErrLocked))
	is.True(errors.Is(Repair(dir, nil, false, nil, nil), ErrLocked))
	is.NoErr(s.Close())
	is.NoErr(openFolder(t, dir, Options{}).Close())

	// And by another process, until that one ends, however it does.
	cmd := exec.Command(os.Args[0], dir)
	cmd.Env = append(os.Environ(), programEnv+"=hold")
	in, err := cmd.StdinPipe()
	is.NoErr(err)
	defer in.Close()
	out, err := cmd.StdoutPipe()
	is.NoErr(err)
	is.NoErr(cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	is.NoErr(err)
	is.Equal(line, "held\n")
	_, err = Open(dir, Options{})
	if !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	is.NoErr(cmd.Process.Kill())
	_ = cmd.Wait()
	s = openFolder(t, dir, Options{})
	is.NoErr(expect(s, "a", 1))
}

func holdFolder(args []string) error {
	s, err := Open(args[0], Options{})
	if err != nil {
		return err
	}
	if err := appendOne(s, "a", 0); err != nil {
		return err
	}
	fmt.Println("held")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// A copy that was made file by file while the store ran opens elsewhere: what was acknowledged before it began is in
// it, or is told to be missing.
func TestCopyWhileRunning(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	s := openFolder(t, dir, Options{JournalSize: 20_000, NoSync: true})
	for round := range 10 {
		var acknowledged [4]int
		var mu sync.Mutex
		var writers sync.WaitGroup
		stop := make(chan struct{})
		for w := range acknowledged {
			name := fmt.Sprint("s", round, w)
			writers.Go(func() {
				for o := 0; ; o += 3 {
					select {
					case <-stop:
						return
					default:
					}
					if err := put(s, name, newEvent(name, o), newEvent(name, o+1), newEvent(name, o+2)); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					acknowledged[w] = o + 3
					mu.Unlock()
				}
			})
		}
		for enough := false; !enough; { // all of them write
			mu.Lock()
			enough = true
			for _, n := range acknowledged {
				enough = enough && n > 30
			}
			mu.Unlock()
		}
		mu.Lock()
		before := acknowledged
		mu.Unlock()
		copied := t.TempDir()
		for _, part := range []string{formatFile, journalDir, streamsDir} { // as cp -r does
			is.NoErr(copyWhileRunning(dir, copied, part))
		}
		close(stop)
		writers.Wait()
		c, err := Open(copied, Options{})
		if corrupt(err) {
			t.Logf("round %d: %v", round, err) // a journal was copied while it was written: nothing is served
			continue
		}
		is.NoErr(err)
		for w, n := range before {
			name := fmt.Sprint("s", round, w)
			events, err := read(c, name, 0)
			for i, e := range events {
				is.Equal(e.String(), newEvent(name, i).String())
			}
			if err != nil {
				t.Logf("round %d: %v", round, err)
			}
			if len(events) < n && !corrupt(err) {
				t.Fatalf("%s: %d events were acknowledged before the copy, it has %d: %v", name, n, len(events), err)
			}
		}
		is.NoErr(c.Close())
	}
}

func copyWhileRunning(from, to, part string) error {
	return filepath.WalkDir(filepath.Join(from, part), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a journal has gone
		}
		rel, _ := filepath.Rel(from, path)
		if err != nil || d.IsDir() {
			return errors.Join(err, os.MkdirAll(filepath.Join(to, rel), 0o700))
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return errors.Join(err, os.WriteFile(filepath.Join(to, rel), b, 0o600))
	})
}

// A copy may have left out the folders that were empty, as git does.
func TestEmptyFoldersLeftOut(t *testing.T) {
	is := is.New(t)
	f, truth := write(t, Options{}, true, true, func(add func(string, int)) { add("a", 2) })
	for _, f := range []files{f, {formatFile: []byte(format)}} {
		s := openFolder(t, f.put(t), Options{})
		events, err := read(s, "a", 0)
		is.NoErr(err)
		is.True(prefix(events, truth["a"]))
		is.NoErr(put(s, "a", newEvent("a", len(events))))
		is.NoErr(s.Close())
	}
}

func TestNewerFormat(t *testing.T) {
	is := is.New(t)
	for _, newer := range []string{"durable-streams 4\n", "", "durable-streams 1",
		format + "x", strings.Repeat("x", 1000)} {
		f, _ := write(t, Options{}, true, false, func(add func(string, int)) { add("a", 1) })
		f[formatFile] = []byte(newer)
		_, fs, err := f.open(Options{})
		is.True(err != nil)
		is.Equal(fs.files(), f)
		for _, n := range fs.root.entries {
			is.Equal(len(n.since)+len(n.moves), 0)
		}
	}
}
