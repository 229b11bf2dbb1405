//go:build unix

package daemon_test

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/matryer/is"
)

// answering answers who connects with a word, until the listener is closed.
func answering(t *testing.T, l net.Listener, word string) {
	t.Helper()
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, word)
			conn.Close()
		}
	})
	t.Cleanup(func() { l.Close(); done.Wait() })
}

// word is what is answered at a path.
func word(t *testing.T, path string) string {
	t.Helper()
	conn, err := daemon.DialSocket(t.Context(), path)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// shortDir is a folder whose paths are short, as those of sockets are.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// leave leaves a stale socket, as a process does that was killed.
func leave(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

// TestSocket is its owner's alone whatever the umask, replaces a stale one, and goes when it is closed.
func TestSocket(t *testing.T) {
	is := is.New(t)
	defer syscall.Umask(syscall.Umask(0))
	dir := shortDir(t)
	path := filepath.Join(dir, daemon.SocketFile)
	for _, listen := range []func() (net.Listener, error){
		func() (net.Listener, error) { return daemon.ListenSocket(path) },
		func() (net.Listener, error) { return daemon.ListenFolder(dir) },
	} {
		leave(t, path)
		l, err := listen()
		is.NoErr(err)
		answering(t, l, "new")
		info, err := os.Lstat(path)
		is.NoErr(err)
		is.Equal(info.Mode(), fs.ModeSocket|0o600)
		is.Equal(word(t, path), "new")
		conn, secret, err := daemon.DialFolder(t.Context(), dir)
		is.NoErr(err)
		is.Equal(secret, "")
		conn.Close()
		is.NoErr(l.Close())
		is.NoErr(l.Close()) // again
		left, err := os.ReadDir(dir)
		is.NoErr(err)
		is.Equal(len(left), 0) // no lock either
	}
}

// TestSocketOfALongPath: folders may be anywhere.
func TestSocketOfALongPath(t *testing.T) {
	is := is.New(t)
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 60))
	is.NoErr(os.MkdirAll(dir, 0o700))
	l, err := daemon.ListenFolder(dir)
	path := filepath.Join(dir, daemon.SocketFile)
	if runtime.GOOS != "linux" {
		is.True(err != nil && strings.Contains(err.Error(), "at most 103 bytes"))
		return
	}
	is.NoErr(err)
	answering(t, l, "long")
	is.Equal(word(t, path), "long")
	_, err = daemon.ListenSocket(path)
	is.True(errors.Is(err, daemon.ErrTaken))
	is.NoErr(l.Close())
	_, err = os.Lstat(path)
	is.True(errors.Is(err, fs.ErrNotExist))
	leave := func() {
		l, err := daemon.ListenFolder(dir)
		is.NoErr(err)
		is.NoErr(os.Rename(path, path+".kept"))
		is.NoErr(l.Close()) // which is not what it removes
		is.NoErr(os.Rename(path+".kept", path))
	}
	leave()
	is.Equal(word(t, path), "dial unix "+path+": connect: connection refused") // and not the descriptor's path
	l, err = daemon.ListenFolder(dir)
	is.NoErr(err)
	is.NoErr(l.Close())
	_, err = daemon.ListenSocket(filepath.Join(dir, strings.Repeat("n", 100)))
	is.True(err != nil && strings.Contains(err.Error(), "at most 103 bytes"))
}

// TestSocketLeavesOthersFiles: what stands there and is no stale socket of one's own stays.
func TestSocketLeavesOthersFiles(t *testing.T) {
	dir := shortDir(t)
	path, other := filepath.Join(dir, "s"), filepath.Join(dir, "other")
	leave(t, other)
	live, err := net.Listen("unix", filepath.Join(dir, "live"))
	if err != nil {
		t.Fatal(err)
	}
	answering(t, live, "live")
	for name, test := range map[string]struct {
		plant func() error
		says  string
	}{
		"file":   {func() error { return os.WriteFile(path, []byte("mine"), 0o600) }, "is there and no socket"},
		"folder": {func() error { return os.Mkdir(path, 0o700) }, "is there and no socket"},
		"link":   {func() error { return os.Symlink(other, path) }, "is there and no socket"},
		"pipe":   {func() error { return syscall.Mkfifo(path, 0o600) }, "is there and no socket"},
		"server": {func() error { return os.Link(filepath.Join(dir, "live"), path) }, "another server listens there"},
		"other user": {func() error {
			if os.Geteuid() != 0 {
				t.Skip("only root leaves another user's")
			}
			leave(t, path)
			return os.Lchown(path, 65534, 65534)
		}, "is another user's socket"},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			is.NoErr(test.plant())
			defer os.Remove(path)
			before, err := os.Lstat(path)
			is.NoErr(err)
			_, err = daemon.ListenSocket(path)
			is.True(err != nil && strings.Contains(err.Error(), test.says))
			after, err := os.Lstat(path)
			is.NoErr(err)
			is.True(os.SameFile(before, after))
			is.Equal(word(t, filepath.Join(dir, "live")), "live")
		})
	}
}

// TestCloseLeavesAnotherSocket that has taken the place meanwhile.
func TestCloseLeavesAnotherSocket(t *testing.T) {
	is := is.New(t)
	path := filepath.Join(shortDir(t), "s")
	first, err := daemon.ListenSocket(path)
	is.NoErr(err)
	is.NoErr(os.Remove(path))
	second, err := daemon.ListenSocket(path)
	is.NoErr(err)
	answering(t, second, "second")
	is.NoErr(first.Close())
	is.Equal(word(t, path), "second")
}

// TestRaceForASocket: many want one path, where a stale socket stands, at once. One gets it and is reached, the others
// are told so.
func TestRaceForASocket(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	for range 20 {
		is := is.New(t)
		leave(t, path)
		const racers = 16
		var won [racers]net.Listener
		var lost [racers]error
		var racing sync.WaitGroup
		for i := range racers {
			racing.Go(func() { won[i], lost[i] = daemon.ListenSocket(path) })
		}
		racing.Wait()
		winners := 0
		for i, l := range won {
			if lost[i] != nil {
				is.True(errors.Is(lost[i], daemon.ErrTaken))
				continue
			}
			winners++
			answering(t, l, "winner")
			is.Equal(word(t, path), "winner")
			is.NoErr(l.Close())
		}
		is.Equal(winners, 1)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	is.New(t).NoErr(err)
	is.New(t).Equal(len(left), 0)
}

// TestSecretInTheSocketsPlace: where there is no socket a port and a secret lead to the server; what has another form
// leads nowhere, for a file of the folder may be somebody else's.
func TestSecretInTheSocketsPlace(t *testing.T) {
	is := is.New(t)
	dir := shortDir(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	is.NoErr(err)
	answering(t, l, "by port")
	const secret = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	good := string(daemon.Secret(l.Addr().(*net.TCPAddr).Port, secret))
	path := filepath.Join(dir, daemon.SecretFile)
	for text, leads := range map[string]bool{
		good: true, secret + "\n": false, good + "X: y\n": false, strings.Replace(good, " ", "\t", 1): false,
		strings.Replace(good, "ABC", "A/C", 1): false, "root:x:0:0:root:/root:/bin/sh\n": false,
	} {
		is.NoErr(os.WriteFile(path, []byte(text), 0o600))
		conn, told, err := daemon.DialFolder(t.Context(), dir)
		is.Equal(err == nil, leads)
		is.Equal(told == secret, leads)
		if err == nil {
			conn.Close()
		}
	}
	is.NoErr(os.WriteFile(path+".real", []byte(good), 0o600))
	is.NoErr(os.Remove(path))
	is.NoErr(os.Symlink(path+".real", path))
	_, _, err = daemon.DialFolder(t.Context(), dir)
	is.True(err != nil)
}
