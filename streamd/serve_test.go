//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/disk"
	"github.com/matryer/is"
)

// inProcess runs streamd in a goroutine and returns when it listens. End is what a signal does; it returns run's
// error and the log.
func inProcess(t *testing.T, dir string, args ...string) (url string, end func() (string, error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	var log bytes.Buffer // read when run has returned
	done := make(chan error, 1)
	go func() {
		if !slices.Contains(args, "--port") {
			args = append(args, "--port", "0")
		}
		done <- run(ctx, append([]string{"--dir", dir}, args...), noEnv, nil, w, &log)
		w.Close()
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	end = sync.OnceValues(func() (string, error) {
		cancel()
		err := <-done
		return log.String(), err
	})
	t.Cleanup(func() { end() })
	if err != nil {
		_, err := end()
		t.Fatal(err)
	}
	return strings.TrimSpace(line), end
}

func exitStatus(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	} else if err != nil {
		return -1
	}
	return 0
}

// TestManyStartsOnOneFolder: one gets it, the others end with its pid, URL and folder.
func TestManyStartsOnOneFolder(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	url, _ := inProcess(t, dir)
	path := streamdBinary(t)
	const starts = 50
	var said [starts]string
	var wg sync.WaitGroup
	for i := range starts {
		wg.Go(func() {
			out, err := exec.Command(path, "--dir", dir, "--port", "0").CombinedOutput()
			said[i] = fmt.Sprintf("%d %s", exitStatus(err), out)
		})
	}
	wg.Wait()
	want := fmt.Sprintf("4 streamd: %v: %s belongs to the server with pid %d at %s\n", disk.ErrLocked, dir,
		os.Getpid(), url)
	for _, said := range said {
		is.Equal(said, want)
	}
}

// TestStartsAtOnce is the same race from the beginning: nobody has the folder yet.
func TestStartsAtOnce(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	path := streamdBinary(t)
	const starts = 50
	ended := make(chan string, starts)
	won := make(chan *exec.Cmd, starts)
	for range starts {
		c := exec.Command(path, "--dir", dir, "--port", "0")
		var log bytes.Buffer
		c.Stderr = &log
		out, err := c.StdoutPipe()
		is.NoErr(err)
		is.NoErr(c.Start())
		t.Cleanup(func() { c.Process.Kill() })
		go func() {
			if _, err := bufio.NewReader(out).ReadString('\n'); err == nil {
				won <- c
				return
			}
			ended <- fmt.Sprintf("%d %s", exitStatus(c.Wait()), &log)
		}()
	}
	for range starts - 1 {
		is.True(strings.HasPrefix(<-ended, fmt.Sprintf("4 streamd: %v: %s belongs to the server with pid ",
			disk.ErrLocked, dir)))
	}
	winner := <-won
	is.Equal(readFile(t, dir, daemon.PIDFile), fmt.Sprintln(winner.Process.Pid))
	is.NoErr(winner.Process.Signal(syscall.SIGTERM))
	is.NoErr(winner.Wait())
}

func readFile(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTakenPort(t *testing.T) {
	is := is.New(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	is.NoErr(err)
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	dir := t.TempDir()
	err = run(t.Context(), []string{"--dir", dir, "--port", port}, noEnv, nil, io.Discard, io.Discard)
	is.True(strings.HasPrefix(err.Error(), "port "+port+" of 127.0.0.1 is taken"))
	is.Equal(exitCode(err), 1)
	url, end := inProcess(t, dir, "--port", port, "--port-fallback") // and the folder is free again
	is.True(!strings.HasSuffix(url, ":"+port))
	_, err = end()
	is.NoErr(err)
	l.Close()
	url, _ = inProcess(t, dir, "--port", port, "--port-fallback")
	is.True(strings.HasSuffix(url, ":"+port))
}

// TestFolderThatBecomesFree is taken: who had it was ending, or only looked.
func TestFolderThatBecomesFree(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	lock, err := disk.Lock(dir)
	is.NoErr(err)
	var once sync.Once
	asked := httptest.NewUnstartedServer(nil)
	asked.Listener.Close()
	asked.Listener, err = daemon.ListenFolder(dir)
	is.NoErr(err)
	asked.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // it has found it taken
		once.Do(func() { asked.Listener.Close(); lock.Close() })
		http.NotFound(w, r)
	})
	asked.Start()
	defer asked.Close()
	_, end := inProcess(t, dir)
	_, err = end()
	is.NoErr(err)
}

// TestEndLeavesNothing: subscriptions end, the files go, the folder is free.
func TestEndLeavesNothing(t *testing.T) {
	for _, storage := range []string{"fs", "memory"} {
		t.Run(storage, func(t *testing.T) {
			is := is.New(t)
			dir := filepath.Join(t.TempDir(), "made", "by", "streamd")
			url, end := inProcess(t, dir, "--storage", storage)
			info, err := os.Stat(dir)
			is.NoErr(err)
			is.Equal(info.Mode().Perm(), os.FileMode(0o700))
			is.Equal(readFile(t, dir, daemon.PIDFile), fmt.Sprintln(os.Getpid()))
			is.True(strings.HasSuffix(url+"\n", ":"+readFile(t, dir, daemon.PortFile)))
			_, err = disk.Lock(dir)
			is.True(errors.Is(err, disk.ErrLocked)) // memory has the folder, too

			subscription, err := http.Get(url + "/streams/x")
			is.NoErr(err)
			defer subscription.Body.Close()
			_, err = end()
			is.NoErr(err)
			_, err = io.ReadAll(subscription.Body)
			is.NoErr(err) // ended, and not cut off
			for _, name := range []string{daemon.PIDFile, daemon.PortFile} {
				_, err := os.Stat(filepath.Join(dir, name))
				is.True(errors.Is(err, os.ErrNotExist))
			}
			lock, err := disk.Lock(dir)
			is.NoErr(err)
			lock.Close()
		})
	}
}

// TestEndLeavesOthersFiles: the folder was replaced, and the new one has a server of its own.
func TestEndLeavesOthersFiles(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	_, end := inProcess(t, dir)
	is.NoErr(writeNumber(dir, daemon.PIDFile, 1))
	_, err := end()
	is.NoErr(err)
	is.Equal(readFile(t, dir, daemon.PIDFile), "1\n")
	readFile(t, dir, daemon.PortFile)
}

// TestPlantedLinks: in a folder that somebody else has prepared nothing is written through a link, and no pipe is
// waited for.
func TestPlantedLinks(t *testing.T) {
	for kind, plant := range map[string]func(victim, path string) error{
		"symbolic": os.Symlink,
		"hard":     os.Link,
		"pipe":     func(_, path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		t.Run(kind, func(t *testing.T) {
			is := is.New(t)
			dir := t.TempDir()
			victim := filepath.Join(t.TempDir(), "victim")
			is.NoErr(os.WriteFile(victim, []byte("precious"), 0o600))
			for _, name := range []string{daemon.PIDFile, daemon.PortFile, daemon.ArgsFile, "format"} {
				is.NoErr(plant(victim, filepath.Join(dir, name+".new")))
				if name != "format" {
					is.NoErr(plant(victim, filepath.Join(dir, name)))
				}
			}
			url, end := inProcess(t, dir, "--max-event", "100")
			is.True(strings.HasSuffix(url+"\n", ":"+readFile(t, dir, daemon.PortFile)))
			is.Equal(readFile(t, dir, daemon.ArgsFile), `["--max-event=100","--port=0"]`+"\n")
			log, err := end()
			is.NoErr(err)
			is.True(!strings.Contains(log, "streamctl will not")) // a slow machine may warn of other things
			b, err := os.ReadFile(victim)
			is.NoErr(err)
			is.Equal(string(b), "precious")
		})
	}
}

// TestArgsAreKept, but not what every start says anew, and none where there were none.
func TestArgsAreKept(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	_, end := inProcess(t, dir, "-factory", "validated", "--allow-host", "a", "--allow-host=b", "--port-fallback",
		"--retain=logs/*=7d,1GB", "--expire", "tmp/*=30d", "--retain", "*=100000")
	is.Equal(readFile(t, dir, daemon.ArgsFile), `["--allow-host=a","--allow-host=b","--expire=tmp/*=30d",`+
		`"--factory=validated","--port=0","--retain=logs/*=7d,1GB","--retain=*=100000","--port-fallback"]`+"\n")
	end()
	readFile(t, dir, daemon.ArgsFile) // a clean end may be that of the machine
	o, err := parse([]string{"--dir", dir, "--port-fallback"}, noEnv, io.Discard)
	is.NoErr(err)
	is.Equal(len(o.own), 0)
	is.NoErr(keepArgs(dir, o.own))
	_, err = os.Stat(filepath.Join(dir, daemon.ArgsFile))
	is.True(errors.Is(err, os.ErrNotExist))
}

// TestWhatIsKeptNoLongerGoes is the way of --retain and --expire to the sweeper.
func TestWhatIsKeptNoLongerGoes(t *testing.T) {
	is := is.New(t)
	url, end := inProcess(t, t.TempDir(), "--retain", "*=2", "--expire", "tmp/*=1s", "--storage", "memory")
	followed, err := http.Get(url + "/streams/tmp%2F1")
	is.NoErr(err)
	defer followed.Body.Close()
	resp, err := http.Post(url+"/streams/tmp%2F1", "application/x-ndjson", strings.NewReader("1\n2\n3\n4\n5\n"))
	is.NoErr(err)
	is.NoErr(resp.Body.Close())
	_, err = io.Copy(io.Discard, followed.Body) // until the stream is deleted
	is.NoErr(err)
	log, err := end()
	is.NoErr(err)
	is.True(strings.Contains(log, `level=INFO msg="old events go" retain="[*=2]" expire="[tmp/*=1s]"`))
	is.True(strings.Contains(log, "trimmed=1 events=3 deleted=0"))
	is.True(strings.Contains(log, "trimmed=0 events=0 deleted=1"))
}

// TestWrongRulesTouchNothing: the folder is not made.
func TestWrongRulesTouchNothing(t *testing.T) {
	is := is.New(t)
	dir := filepath.Join(t.TempDir(), "none")
	is.Equal(exitCode(run(t.Context(), []string{"--dir", dir, "--retain", "*=7q"}, noEnv, nil, io.Discard, io.Discard)), 2)
	_, err := os.Stat(dir)
	is.True(errors.Is(err, os.ErrNotExist))
}

// TestLogIsBounded, where it is the folder's daemon.log, however it was opened, and nowhere else.
func TestLogIsBounded(t *testing.T) {
	is := is.New(t)
	for _, name := range []string{daemon.LogFile, "other.log"} {
		for _, flag := range []int{os.O_APPEND, 0} {
			dir := t.TempDir()
			path := filepath.Join(dir, name)
			log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|flag, 0o600)
			is.NoErr(err)
			defer log.Close()
			c := exec.Command(streamdBinary(t), "--dir", dir, "--port", "0")
			c.Stderr = log
			out, err := c.StdoutPipe()
			is.NoErr(err)
			is.NoErr(c.Start())
			_, err = bufio.NewReader(out).ReadString('\n')
			is.NoErr(err)
			// As the server's own.
			_, err = log.Write(append(bytes.Repeat([]byte("an early line\n"), maxLog/14), "the last one\n"...))
			is.NoErr(err)
			is.NoErr(c.Process.Signal(syscall.SIGTERM))
			is.NoErr(c.Wait())
			text := readFile(t, dir, name)
			// In this order.
			is.True(strings.Contains(text, "an early line\nthe last one\n") && strings.Contains(text, "msg=ending"))
			is.Equal(name == daemon.LogFile, strings.HasPrefix(text,
				`level=INFO msg="what stood before was cut off"`+"\nan early line\n"))
			is.Equal(name == daemon.LogFile, len(text) < 2*keptLog)
			is.True(!strings.Contains(text, "\x00"))
		}
	}
}

// TestLogIsOpenedAgain: where daemon.log was renamed SIGHUP makes a new one, and takes one that was made, but none that
// may be another file's name.
func TestLogIsOpenedAgain(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	path := filepath.Join(dir, daemon.LogFile)
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	is.NoErr(err)
	defer log.Close()
	c := exec.Command(streamdBinary(t), "--dir", dir, "--port", "0")
	c.Stderr, c.SysProcAttr = log, &syscall.SysProcAttr{Setsid: true} // as streamctl starts it
	out, err := c.StdoutPipe()
	is.NoErr(err)
	is.NoErr(c.Start())
	t.Cleanup(func() { c.Process.Kill() })
	_, err = bufio.NewReader(out).ReadString('\n')
	is.NoErr(err)
	// hangup signals, and returns when the file says something.
	hangup := func(file, says string) {
		t.Helper()
		is.NoErr(c.Process.Signal(syscall.SIGHUP))
		for begun := time.Now(); ; {
			if b, err := os.ReadFile(filepath.Join(dir, file)); err == nil && bytes.Contains(b, []byte(says)) {
				return
			}
			if time.Since(begun) > time.Minute {
				t.Fatalf("%s does not say %q", file, says)
			}
		}
	}
	is.NoErr(os.Rename(path, path+".1"))
	hangup(daemon.LogFile, "the log was opened again")
	is.NoErr(os.Rename(path, path+".2"))
	is.NoErr(os.WriteFile(path, nil, 0o600)) // as logrotate does with "create"
	hangup(daemon.LogFile, "the log was opened again")
	is.NoErr(os.Rename(path, path+".3"))
	is.NoErr(os.WriteFile(path, []byte("mine\n"), 0o600))
	hangup(daemon.LogFile+".3", "the log goes on where it was")
	is.NoErr(os.Remove(path))
	is.NoErr(os.Symlink("elsewhere", path))
	is.NoErr(os.Truncate(path+".3", 0))
	hangup(daemon.LogFile+".3", "the log goes on where it was")
	is.NoErr(os.Remove(path))
	hangup(daemon.LogFile, "the log was opened again")
	is.NoErr(c.Process.Signal(syscall.SIGTERM))
	is.NoErr(c.Wait())
	is.True(strings.Contains(readFile(t, dir, daemon.LogFile), "msg=ending"))
	for _, former := range []string{".1", ".2", ".3"} {
		is.True(!strings.Contains(readFile(t, dir, daemon.LogFile+former), "msg=ending"))
	}
	_, err = os.Lstat(filepath.Join(dir, "elsewhere"))
	is.True(errors.Is(err, fs.ErrNotExist))
}

// TestSignals: the first ends it cleanly, finishing what has begun; the second at once, unless it says once more that
// the terminal has gone.
func TestSignals(t *testing.T) {
	is := is.New(t)
	for _, test := range []struct {
		signals []syscall.Signal
		between bool // the two of them, the server stops to take connections
	}{
		{[]syscall.Signal{syscall.SIGTERM}, true},
		{[]syscall.Signal{syscall.SIGINT}, true},
		{[]syscall.Signal{syscall.SIGHUP}, true},
		{[]syscall.Signal{syscall.SIGHUP, syscall.SIGHUP}, true},
		{[]syscall.Signal{syscall.SIGHUP, syscall.SIGHUP}, false},
		{[]syscall.Signal{syscall.SIGHUP, syscall.SIGTERM}, true},
		{[]syscall.Signal{syscall.SIGTERM, syscall.SIGTERM}, true},
		{[]syscall.Signal{syscall.SIGINT, syscall.SIGINT}, true},
		{[]syscall.Signal{syscall.SIGTERM, syscall.SIGINT}, false},
	} {
		dir := t.TempDir()
		server := start(t, dir)
		conn, err := net.Dial("tcp", strings.TrimPrefix(server.url, "http://"))
		is.NoErr(err)
		answers := bufio.NewReader(conn)
		// The request has begun: the server asks for the body.
		fmt.Fprintf(conn, "POST /streams/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
		line, err := answers.ReadString('\n')
		is.NoErr(err)
		is.Equal(line, "HTTP/1.1 100 Continue\r\n")
		server.signal(test.signals[0])
		for test.between {
			other, err := net.Dial("tcp", conn.RemoteAddr().String())
			if err != nil {
				break
			}
			other.Close()
		}
		if len(test.signals) == 2 {
			server.signal(test.signals[1])
		}
		if len(test.signals) == 2 && test.signals[1] != syscall.SIGHUP {
			server.wait()
			is.True(slices.Contains(test.signals, server.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal()))
		} else {
			fmt.Fprint(conn, `{"data":1}`)
			answers.ReadString('\n') // the end of "100 Continue"
			line, err := answers.ReadString('\n')
			is.NoErr(err)
			is.True(strings.HasPrefix(line, "HTTP/1.1 201 ")) // what had begun is done, and answered
			is.NoErr(server.wait())
			journals, err := os.ReadDir(filepath.Join(dir, "journal"))
			is.NoErr(err)
			is.Equal(len(journals), 0) // there is nothing to recover
		}
		conn.Close()
	}
}

// TestIgnoredHangup: what was started by nohup(1) goes on when its terminal has gone.
func TestIgnoredHangup(t *testing.T) {
	is := is.New(t)
	server := start(t, t.TempDir(), "sh", "-c", `trap "" HUP; exec "$0" "$@"`)
	server.signal(syscall.SIGHUP)
	status, _ := server.append("x", "", "1")
	is.Equal(status, 201)
	is.NoErr(server.end(syscall.SIGTERM))
	is.True(strings.Contains(server.stderr.String(), `cause="signal: terminated"`))
}

// TestStartIsSaid: where, what, and each choice that the default promises do not cover.
func TestStartIsSaid(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	url, end := inProcess(t, dir)
	log, err := end()
	is.NoErr(err)
	is.True(strings.Contains(log, "msg=serving dir="+dir+" url="+url+" storage=fs sync=always "+
		"pid="+strconv.Itoa(os.Getpid())))
	is.True(!strings.Contains(log, "WARN"))

	url, end = inProcess(t, t.TempDir(), "--sync", "none", "--host", "0.0.0.0", "--insecure-no-auth")
	is.True(strings.HasPrefix(url, "http://127.0.0.1:"))
	log, _ = end()
	is.True(strings.Contains(log, "level=WARN") && strings.Contains(log, "--sync none") &&
		strings.Contains(log, "--insecure-no-auth"))

	_, end = inProcess(t, t.TempDir(), "--storage", "memory")
	log, _ = end()
	is.True(strings.Contains(log, "--storage memory"))
}

// TestOtherLoopbackHost: 127.0.0.1 is served as well, for streamctl.
func TestOtherLoopbackHost(t *testing.T) {
	is := is.New(t)
	url, _ := inProcess(t, t.TempDir(), "--host", "127.0.0.2")
	is.True(strings.HasPrefix(url, "http://127.0.0.2:"))
	for _, url := range []string{url, strings.Replace(url, "127.0.0.2", "127.0.0.1", 1)} {
		resp, err := http.Get(url + "/healthz")
		is.NoErr(err)
		resp.Body.Close()
		is.Equal(resp.StatusCode, 200)
	}
}

// TestLogEscapes: what clients send can make no line of the log and no text that runs backwards on a terminal.
func TestLogEscapes(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	stream := "/streams/" + url.PathEscape("x\u2028\u202e level=INFO msg=forged")
	address, end := inProcess(t, dir)
	post := func(status int) {
		resp, err := http.Post(address+stream, "application/json", strings.NewReader(`{"data":1}`))
		is.NoErr(err)
		resp.Body.Close()
		is.Equal(resp.StatusCode, status)
	}
	post(201)
	end()
	files, err := filepath.Glob(filepath.Join(dir, "streams", "*.json"))
	is.NoErr(err)
	is.NoErr(os.WriteFile(files[0], []byte("damage"), 0o600))
	address, end = inProcess(t, dir)
	post(503)
	log, err := end()
	is.NoErr(err)
	is.True(strings.Contains(log, `stream="x\u2028\u202e level=INFO msg=forged"`))
}

func TestFlags(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		says string // its error or its output
	}{
		{"--help", 0, "Usage: streamd [flags]"},
		{"-h", 0, "Usage: streamd [flags]"},
		{"--version", 0, "streamd "},
		{"--prot 1", 2, "-prot"},
		{"verfy", 2, `"verfy"`},
		{"--port 65536", 2, `--port "65536"`},
		{"--port 80a", 2, `--port "80a"`},
		{"--port -1", 2, `--port "-1"`},
		{"--storage tape", 2, "it is fs, memory or s3://BUCKET/PREFIX"},
		{"--sync often", 2, "it is always or none"},
		{"--factory x", 2, "it is plain, validated or agent"},
		{"--max-event 0", 2, "from 1 to 8388608"},
		{"--max-event 8388609", 2, "from 1 to 8388608"},
		{"--retain jobs*", 2, `--retain "jobs*": a rule is NAME=BOUNDS or PREFIX*=BOUNDS`},
		{"--retain *=7d --retain *=1GB", 2, `--retain "*=1GB": there is another rule for "*"`},
		{"--expire *=1GB", 2, `--expire "*=1GB": a stream expires by an age alone`},
		{"--retain *=7d --expire tmp/*=0d", 2, `--expire "tmp/*=0d": "0d": it would keep nothing`},
		{"--dir=", 2, "--dir is empty"},
		{"--port 0 --host 0.0.0.0", 2, "add --insecure-no-auth"},
		{"--port 0 --host ::", 2, "add --insecure-no-auth"},
		{"--port 0 --host=", 2, "add --insecure-no-auth"},
		{"--port 0 --host 192.0.2.1 --insecure-no-auth", 1, "192.0.2.1"},
		{"--check --retain logs/*=7d,1GB,100000 --retain *=5 --expire tmp/*=30d", 0, ""},
		{"--check --retain *=7q", 2, `there is no unit "q"`},
	} {
		t.Run(c.args, func(t *testing.T) {
			is := is.New(t)
			var out bytes.Buffer
			args := strings.Fields(c.args)
			if !strings.Contains(c.args, "--dir") && strings.Contains(c.args, "--host") {
				args = append(args, "--dir", t.TempDir())
			}
			err := run(t.Context(), args, noEnv, nil, &out, io.Discard)
			is.Equal(exitCode(err), c.code)
			is.True(strings.Contains(fmt.Sprint(out.String(), err), c.says))
		})
	}
}

// TestAllowedHosts are those that a request can be for.
func TestAllowedHosts(t *testing.T) {
	is := is.New(t)
	for hosts, can := range map[string]bool{
		"example.com|a|A-b.c_d.example.|xn--bcher-kva.de|example.com:8080|192.0.2.1|192.0.2.1:80|::1|[::1]|[fe80::1]:80":     true,
		"|a b| a|*|*.example.com|http://example.com|example.com/|a..b|.|example.com:|example.com:http|a:80:80|bücher.de|a\n": false,
	} {
		for host := range strings.SplitSeq(hosts, "|") {
			o, err := parse([]string{"--allow-host", host}, noEnv, io.Discard)
			if can {
				is.NoErr(err)
				is.Equal(o.allowHosts, []string{host})
				continue
			}
			is.Equal(exitCode(err), 2)
			is.True(strings.Contains(err.Error(), "such as streams.example.com"))
		}
	}
}

// TestFlagsAreTold: each flag that streamd takes is in the table that its help and streamctl's are made of, and no
// other.
func TestFlagsAreTold(t *testing.T) {
	is := is.New(t)
	var took, told []string
	flagSet(&options{}).VisitAll(func(f *flag.Flag) { took = append(took, f.Name) })
	for _, f := range slices.Concat([]daemon.Flag{daemon.Dir}, daemon.Flags, daemon.Own) {
		told = append(told, f.Name)
		is.True(strings.Contains(usage, "--"+f.Name+" "))
	}
	took = append(took, "help") // which package flag has
	slices.Sort(took)
	slices.Sort(told)
	is.Equal(took, told)
}

// TestFewFiles: with no descriptor left for a connection or a stream the server refuses what it cannot do, and
// recovers.
func TestFewFiles(t *testing.T) {
	is := is.New(t)
	server := start(t, t.TempDir(), "sh", "-c", `ulimit -n 64; exec "$0" "$@"`)
	address := strings.TrimPrefix(server.url, "http://")
	status, _ := server.append("s", "", "1") // on the connection that the client keeps
	is.Equal(status, 201)
	var idle []net.Conn
	for range 100 {
		conn, err := net.Dial("tcp", address) // the kernel takes it, the server cannot
		is.NoErr(err)
		idle = append(idle, conn)
	}
	for i := range 100 {
		status, _ := server.append(fmt.Sprint("s", i), "", "1")
		is.True(status == 201 || status == 503)
		is.Equal(len(server.read("s")), 1)
	}
	for _, conn := range idle {
		conn.Close()
	}
	for status := 503; status != 200; { // until the server noticed that enough of them are closed
		resp, err := http.Get(server.url + "/streams/s/events") // on a new connection
		is.NoErr(err)
		resp.Body.Close()
		status = resp.StatusCode
		is.True(status == 200 || status == 503)
	}
	for i := range 100 {
		for status := 503; status != 201; { // until all the closed connections have been noticed
			status, _ = server.append(fmt.Sprint("s", i), "", "1")
			is.True(status == 201 || status == 503)
		}
	}
	is.NoErr(server.end(syscall.SIGTERM))
	is.True(strings.Contains(server.stderr.String(), "too many open files"))
}

// TestVerifyAndRepair damages a stream as a disk would, and mends it.
func TestFlagsBehindNames(t *testing.T) {
	is := is.New(t)
	for _, test := range []struct{ args, words string }{
		{"--salvage a b --dir d", "a b"}, {"a --salvage b --dir=d", "a b"}, {"--dir d a --salvage=true -- --b -c", "a --b -c"},
		{"--salvage --dir d", ""}, {"--salvage --dir d -- -a", "-a"},
	} {
		f := flag.NewFlagSet("", flag.ContinueOnError)
		dir, salvage := f.String("dir", "", ""), f.Bool("salvage", false, "")
		words, err := parseAnywhere(f, strings.Fields(test.args))
		is.NoErr(err)
		is.Equal(strings.Join(words, " "), test.words)
		is.True(*dir == "d" && *salvage)
	}
}

func TestVerifyAndRepair(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	server := start(t, dir)
	for _, data := range []string{"1", "2", "3"} {
		status, _ := server.append("s", "", data)
		is.Equal(status, 201)
	}
	server.append("whole", "", "1")
	run := func(args ...string) (string, error) {
		out, err := exec.Command(streamdBinary(t), append(args, "--dir", dir)...).CombinedOutput()
		return strings.ReplaceAll(string(out), dir, "DIR"), err
	}
	out, err := run("verify") // a server has the folder
	is.True(err != nil)
	is.True(strings.Contains(out, server.url))
	is.NoErr(server.end(syscall.SIGTERM))

	out, err = run("verify")
	is.NoErr(err)
	is.Equal(out, "2 streams, 4 events, 476 bytes, 0 journals to replay, 0 damaged\n")
	path := filepath.Join(dir, "streams", "s.json")
	b, err := os.ReadFile(path)
	is.NoErr(err)
	damaged := bytes.Replace(b, []byte(`"data":2`), []byte(`"data":7`), 1)
	is.NoErr(os.WriteFile(path, damaged, 0o600))
	out, err = run("verify")
	is.True(err != nil)
	is.Equal(out, `streams/s.json is corrupt at byte 118: a line whose checksum is wrong
2 streams, 2 events, 240 bytes, 0 journals to replay, 1 damaged
streamd: DIR is damaged; streamd repair --dir DIR keeps what stands before the damage, with --salvage also what is whole behind it
`)
	out, err = run("repair", "s", "--salvage")
	is.NoErr(err)
	is.Equal(out, `stream "s": 1 whole event from behind the damage is in streams/s.salvaged-2, with the offset 2
stream "s": 1 event stays; 236 bytes from byte 118 on were given up (a line whose checksum is wrong); the file as it was is streams/s.damaged-118
stream "s" takes appends again: what stands before the damage is whole
`)
	kept, err := os.ReadFile(filepath.Join(dir, "streams", "s.damaged-118"))
	is.NoErr(err)
	is.True(bytes.Equal(kept, damaged))
	_, err = run("verify")
	is.NoErr(err)
	server = start(t, dir)
	is.Equal(server.read("s"), []string{"1"})
	status, _ := server.append("s", "", "4")
	is.Equal(status, 201)
	is.NoErr(server.end(syscall.SIGTERM))
}
