//go:build unix

package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/disk"
	"github.com/matryer/is"
)

// TestBackup: a folder is copied while its server runs and takes appends, again with what is new alone, and a server
// serves the copy.
func TestBackup(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	dir, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	first := start(t, dir)
	backup := func() string {
		out, err := exec.Command(streamdBinary(t), "backup", "--dir", dir, to).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	send := func(method, path string) {
		req, err := http.NewRequest(method, first.url+path, nil)
		is.NoErr(err)
		if method == "POST" {
			req.Header.Set("Stream-Closed", "true")
		}
		status, _ := first.do(req)
		is.Equal(status, 204)
	}
	for i := range 20 {
		first.append(fmt.Sprint("s", i), "k", "1\n2\n3\n")
	}
	send("DELETE", "/streams/s1/events?before=2")
	send("POST", "/streams/s2")
	is.Equal(backup(), "20 streams, 58 events, 58 new")
	is.Equal(backup(), "20 streams, 0 events, 0 new") // and reads nothing
	send("DELETE", "/streams/s3")
	send("DELETE", "/streams/s4")
	first.append("s4", "", "4\n")
	send("DELETE", "/streams/s5/events?before=now")

	var writing sync.WaitGroup
	writing.Go(func() {
		for i := range 200 {
			first.append("busy", "", fmt.Sprintln(i))
		}
	})
	for range 3 {
		backup()
	}
	writing.Wait()
	backup()
	all := func(s *server) (state string) {
		_, state = s.get("/streams?details=true")
		for _, name := range []string{"s0", "s1", "s2", "s4", "s5", "busy"} {
			_, events := s.get("/streams/" + name + "/events")
			state += events
		}
		return state
	}
	want := all(first)
	is.NoErr(first.end(syscall.SIGTERM))
	is.Equal(backup(), "20 streams, 0 events, 0 new") // without a server, too
	copied := start(t, to)
	is.Equal(all(copied), want)
	out, err := exec.Command(streamdBinary(t), "backup", "--dir", dir, to).CombinedOutput()
	is.Equal(statusOf(err), 4) // the copy has a server
	is.True(strings.Contains(string(out), to))
	is.NoErr(copied.end(syscall.SIGTERM))
	for _, words := range [][]string{nil, {dir}, {to, to}} {
		out, err := exec.Command(streamdBinary(t), append([]string{"backup", "--dir", dir}, words...)...).CombinedOutput()
		is.Equal(statusOf(err), 2)
		is.True(strings.Contains(string(out), "streamd: backup: "))
	}
}

// TestBackupWithoutFiles: of streams that are in a server's memory alone, and of a server that asks for tokens, for who
// may read the folder may copy it.
func TestBackupWithoutFiles(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	tokens := filepath.Join(t.TempDir(), "tokens")
	tokensFile(t, tokens, "a read")
	for _, flags := range []string{"--storage memory", "--tokens " + tokens} {
		dir, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
		if strings.HasPrefix(flags, "--tokens") {
			first := start(t, dir)
			first.append("s", "k", "1\n2\n")
			is.NoErr(first.end(syscall.SIGTERM))
		}
		s := start(t, dir, "sh", "-c", `exec "$0" "$@" `+flags)
		if strings.HasPrefix(flags, "--storage") {
			s.append("s", "k", "1\n2\n")
		}
		out, err := exec.Command(streamdBinary(t), "backup", "--dir", dir, to).CombinedOutput()
		is.NoErr(err)
		is.Equal(string(out), "1 stream, 2 events, 2 new\n")
		is.NoErr(s.end(syscall.SIGTERM))
		is.Equal(start(t, to).read("s"), []string{"1", "2"})
	}
}

// TestBackupThatIsKilled at any time leaves a copy that a server starts on, with first events of the streams, and is
// made again.
func TestBackupThatIsKilled(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	dir, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	first := start(t, dir)
	const streams, lines = 60, 300
	for i := range streams {
		first.append(fmt.Sprint("s", i), "", strings.Repeat("\""+strings.Repeat("x", 200)+"\"\n", lines))
	}
	run := func(args ...string) string {
		out, err := exec.Command(streamdBinary(t), args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	for n := 1; n < streams; n += 8 { // files in the copy when it is killed
		cmd := exec.Command(streamdBinary(t), "backup", "--dir", dir, to)
		is.NoErr(cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for over := false; !over; {
			select {
			case err := <-ended:
				ended <- err
				over = true
			default:
				files, _ := os.ReadDir(filepath.Join(to, "streams"))
				over = len(files) >= n
			}
		}
		_ = cmd.Process.Kill()
		<-ended
		copied := start(t, to)
		for i := range streams {
			there := copied.read(fmt.Sprint("s", i))
			is.True(len(there) == 0 || len(there) == lines) // they are small
		}
		_ = copied.end(syscall.SIGKILL)
	}
	run("backup", "--dir", dir, to)
	is.NoErr(first.end(syscall.SIGTERM))
	is.Equal(run("export", "--dir", to), run("export", "--dir", dir))
	is.True(strings.HasSuffix(run("verify", "--dir", to), " 0 damaged\n"))
}

// TestBackupOfAnotherServer: what a crash left in daemon.port may lead to the server of another folder, which is not
// copied over what the copy has. Nor is a folder taken for one that has streams.
func TestBackupOfAnotherServer(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	dir, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	first := start(t, dir)
	first.append("mine", "", "1\n")
	is.NoErr(first.end(syscall.SIGTERM))
	backup := func(dir string) error {
		return exec.Command(streamdBinary(t), "backup", "--dir", dir, to).Run()
	}
	is.NoErr(backup(dir))
	other := start(t, t.TempDir())
	other.append("another's", "", "1\n")
	_, port, _ := strings.Cut(strings.TrimPrefix(other.url, "http://"), ":")
	is.NoErr(os.WriteFile(filepath.Join(dir, daemon.PortFile), []byte(port+"\n"), 0o600))
	lock, err := disk.Lock(dir) // such as verify has
	is.NoErr(err)
	is.Equal(statusOf(backup(dir)), 4)
	is.NoErr(lock.Close())
	empty := t.TempDir()
	is.Equal(statusOf(backup(empty)), 1)
	files, err := os.ReadDir(empty)
	is.NoErr(err)
	is.Equal(len(files), 0)
	link := filepath.Join(t.TempDir(), "link")
	is.NoErr(os.Symlink(dir, link))
	for _, to := range []string{link, filepath.Join(link, "a", "b")} {
		is.Equal(statusOf(exec.Command(streamdBinary(t), "backup", "--dir", dir, to).Run()), 2)
	}
	copied := start(t, to)
	is.Equal(copied.read("mine"), []string{"1"})
	is.Equal(len(copied.read("another's")), 0)
}

func statusOf(err error) int {
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode()
	}
	return -1
}
