package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// What is no file, where one should be, is named by each refusal, and mended by Repair.
func TestNoFile(t *testing.T) {
	for what, put := range map[string]func(path string) error{
		"folder": func(path string) error { return os.Mkdir(path, 0o700) },
		"fifo":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"loop":   func(path string) error { return os.Symlink(filepath.Base(path), path) },
		"abroad": func(path string) error { return os.Symlink("/dev/null", path) },
		"socket": func(path string) error { return syscall.Mknod(path, syscall.S_IFSOCK|0o600, 0) },
	} {
		t.Run(what, func(t *testing.T) {
			is := is.New(t)
			names := func(err error, path string) bool { return err != nil && strings.Contains(err.Error(), path) }

			dir := t.TempDir()
			s := openFolder(t, dir, Options{})
			is.NoErr(appendOne(s, "b", 0))
			is.NoErr(put(filepath.Join(dir, path("a"))))
			batch := []*request{
				{kind: adds, name: "a", events: []streamlib.Event{newEvent("a", 0)}},
				{kind: adds, name: "b", events: []streamlib.Event{newEvent("b", 1)}},
			}
			s.commit(batch)
			is.True(errors.Is(batch[0].err, streamlib.ErrUnavailable) && names(batch[0].err, path("a")))
			is.NoErr(batch[1].err)
			_, err := stat(s, "a")
			is.True(names(err, path("a")))
			is.NoErr(s.Close())

			at := filepath.Join(dir, journalPath(3))
			is.NoErr(put(at))
			_, err = Open(dir, Options{})
			is.True(names(err, journalPath(3)))
			sum, _ := Verify(dir, nil)
			is.Equal(sum.Damage[0].File, journalPath(3))
			is.NoErr(os.Remove(filepath.Join(dir, path("a"))))
			sum, err = Verify(dir, nil)
			is.NoErr(err)
			is.Equal(sum.Events, int64(2)) // it goes on
			var told []string
			is.NoErr(Repair(dir, nil, false, func(s string) { told = append(told, s) }, nil))
			is.True(strings.Contains(strings.Join(told, "\n"), journalPath(3)))
			s = openFolder(t, dir, Options{})
			is.NoErr(expect(s, "b", 2))
			is.NoErr(s.Close())

			if what != "folder" {
				there := filepath.Join(dir, "other")
				is.NoErr(put(there))
				_, err = Open(there, Options{})
				is.True(names(err, there))
				_, err = Verify(there, nil)
				is.True(names(err, there))
			}
			for _, file := range []string{formatFile, journalDir, streamsDir} {
				is.NoErr(os.RemoveAll(filepath.Join(dir, file)))
				is.NoErr(put(filepath.Join(dir, file)))
				_, err = Open(dir, Options{})
				if _, e := Verify(dir, nil); what != "folder" || file == formatFile {
					is.True(names(err, file))
					is.True(names(e, file))
				}
				is.NoErr(os.RemoveAll(filepath.Join(dir, file)))
				if file == formatFile {
					is.NoErr(os.WriteFile(filepath.Join(dir, file), []byte(format), 0o600))
				} else {
					is.NoErr(os.Mkdir(filepath.Join(dir, file), 0o700))
				}
			}
		})
	}
}

// The folder above may be one that cannot be synced, as long as nothing was made in it.
func TestFolderAboveCannotBeSynced(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), programEnv+"=below-proc")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, fs.ErrPermission) || strings.Contains(string(out), "cannot mount") {
		t.Skip("nothing can be mounted: ", err, string(out))
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// belowProc uses /proc, which says EINVAL as a squashfs does.
func belowProc([]string) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot mount: %w", err)
	}
	if err := syscall.Mount("tmpfs", "/proc/fs", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("cannot mount: %w", err)
	}
	s, err := Open("/proc/fs", Options{})
	if err != nil {
		return err
	}
	return errors.Join(appendOne(s, "a", 0), s.Close())
}

// A link to another disk is not followed, and what to do instead is said.
func TestStreamsOnAnotherDisk(t *testing.T) {
	is := is.New(t)
	dir, other := t.TempDir(), t.TempDir()
	is.NoErr(os.Symlink(other, filepath.Join(dir, streamsDir)))
	_, err := Open(dir, Options{})
	is.True(err != nil && strings.Contains(err.Error(), filepath.Join(dir, streamsDir)+" is a link"))
	is.True(strings.Contains(err.Error(), "mount"))
}

func TestReadOnlyFolder(t *testing.T) {
	is := is.New(t)
	if os.Getuid() != 0 {
		t.Skip("only root can become somebody who must not write")
	}
	for _, journal := range []string{"clean", "journal"} {
		dir := t.TempDir()
		is.NoErr(os.Chmod(filepath.Dir(dir), 0o755))
		s := openFolder(t, dir, Options{})
		is.NoErr(appendOne(s, "a", 0))
		if journal == "journal" { // as a kill leaves it
			copied := t.TempDir()
			is.NoErr(os.CopyFS(copied, os.DirFS(dir)))
			dir = copied
		}
		is.NoErr(s.Close())
		is.NoErr(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			mode := fs.FileMode(0o444)
			if d.IsDir() {
				mode = 0o555
			}
			return errors.Join(err, os.Chmod(path, mode))
		}))
		done := make(chan error)
		go func() { // a thread that is somebody else to the file system, and ends
			runtime.LockOSThread()
			if err := syscall.Setfsuid(65534); err != nil {
				done <- err
				return
			}
			done <- onReadOnlyFolder([]string{dir, journal})
		}()
		is.NoErr(<-done)
	}
}

func TestReadOnlyMount(t *testing.T) {
	is := is.New(t)
	for _, journal := range []string{"clean", "journal"} {
		dir := t.TempDir()
		s := openFolder(t, dir, Options{})
		is.NoErr(appendOne(s, "a", 0))
		from := dir
		if journal == "journal" {
			from = t.TempDir()
			is.NoErr(os.CopyFS(from, os.DirFS(dir)))
		}
		is.NoErr(s.Close())
		at := t.TempDir()
		if err := syscall.Mount(from, at, "", syscall.MS_BIND, ""); err != nil {
			t.Skip("nothing can be mounted: ", err)
		}
		defer syscall.Unmount(at, 0)
		if err := syscall.Mount("", at, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			t.Skip("it cannot be mounted read-only: ", err)
		}
		run(t, "read-only", at, journal)
	}
}

// onReadOnlyFolder expects a folder with one event in it, and maybe a journal.
func onReadOnlyFolder(args []string) error {
	s, err := Open(args[0], Options{})
	if args[1] == "journal" {
		if err == nil || !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
			return fmt.Errorf("with a journal to replay: %v", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if err := expect(s, "a", 1); err != nil {
		return err
	}
	if err := appendOne(s, "a", 1); !errors.Is(err, streamlib.ErrUnavailable) {
		return fmt.Errorf("append: %v", err)
	}
	if err := appendOne(s, "new", 0); !errors.Is(err, streamlib.ErrUnavailable) {
		return fmt.Errorf("append: %v", err)
	}
	if err := drop(s, "a"); !errors.Is(err, streamlib.ErrUnavailable) {
		return fmt.Errorf("delete: %v", err)
	}
	return errors.Join(expect(s, "a", 1), s.Close())
}

// A sync of the folder is made where each sync in doc.go says: the trace of the system calls.
func TestSyscalls(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("there is no strace")
	}
	is := is.New(t)
	dir := filepath.Join(t.TempDir(), "new", "data")
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command(strace, "-f", "-y", "-o", trace, "-e",
		"trace=openat,pwrite64,fdatasync,fsync,renameat,unlinkat,mkdirat,write", os.Args[0], dir)
	cmd.Env = append(os.Environ(), programEnv+"=syscalls")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("strace: %v\n%s", err, out)
	}
	b, err := os.ReadFile(trace)
	is.NoErr(err)
	var calls []string
	for line := range strings.Lines(string(b)) {
		if i := strings.Index(line, "MARK "); i >= 0 {
			calls = append(calls, "MARK "+strings.TrimRight(strings.Split(line[i+5:], `\n`)[0], `"`))
			continue
		}
		i := strings.Index(line, filepath.Dir(filepath.Dir(dir)))
		if i < 0 || !strings.Contains(line, "sync(") {
			continue
		}
		rest := line[i+len(filepath.Dir(filepath.Dir(dir))):]
		calls = append(calls, "sync "+rest[:strings.IndexAny(rest, `>"`)])
	}
	joined := strings.Join(calls, "\n") + "\n"
	for _, want := range []string{
		"sync \n",     // the parent of new, which has that name
		"sync /new\n", // the parent of data
		"sync /new/data\n",
		"MARK append\nsync /new/data/deletions.new\nsync /new/data\n" +
			"sync /new/data/journal/0000000000000001.journal\nsync /new/data\nsync /new/data/journal\n" +
			"sync /new/data/journal/0000000000000001.journal\nMARK appended\n",
		"MARK close\nsync /new/data/streams/a.json\nsync /new/data/streams\nsync /new/data/journal\nMARK closed",
	} {
		if !strings.Contains(joined, want) {
			t.Errorf("there is no\n%sin\n%s", want, joined)
		}
	}
}

func init() {
	programs["below-proc"] = belowProc
	programs["read-only"] = onReadOnlyFolder
	programs["syscalls"] = func(args []string) error {
		s, err := Open(args[0], Options{})
		if err != nil {
			return err
		}
		fmt.Println("MARK append")
		err = appendOne(s, "a", 0)
		fmt.Println("MARK appended")
		if err != nil {
			return err
		}
		fmt.Println("MARK close")
		err = s.Close()
		fmt.Println("MARK closed")
		return err
	}
}
