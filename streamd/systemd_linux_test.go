package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/matryer/is"
)

// TestTellsManager: what has started it hears that it is ready, that it lives, how much there is, that it loads again,
// and that it ends.
func TestTellsManager(t *testing.T) {
	is := is.New(t)
	dir, err := os.MkdirTemp("", "notify") // the path of a socket is short
	is.NoErr(err)
	defer os.RemoveAll(dir)
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"})
	is.NoErr(err)
	defer socket.Close()
	is.NoErr(socket.SetReadDeadline(time.Now().Add(time.Minute)))
	hears := func(want string) (said string) {
		b := make([]byte, 4096)
		for {
			n, err := socket.Read(b)
			is.NoErr(err)
			if said = string(b[:n]); strings.HasPrefix(said, want) {
				return said
			}
		}
	}
	defer onHangup.Store(nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	env := environment("NOTIFY_SOCKET="+filepath.Join(dir, "s"), "WATCHDOG_USEC=20000")
	go func() {
		done <- run(ctx, []string{"--dir", t.TempDir(), "--port", "0"}, env, nil, io.Discard, io.Discard)
	}()
	hears("STATUS=opening")
	is.Equal(hears("READY=1"), "READY=1\nSTATUS=0 streams open, 0 commits, 0 failed, 0 bytes in 0 journals")
	hears("WATCHDOG=1\nSTATUS=0 streams open")
	hears("WATCHDOG=1")
	before := monotonic().Microseconds()
	is.True((*onHangup.Load())()) // without tokens too
	said := hears("RELOADING=1\nMONOTONIC_USEC=")
	at, err := strconv.ParseInt(said[strings.LastIndexByte(said, '=')+1:], 10, 64)
	is.NoErr(err)
	is.True(before <= at && at <= monotonic().Microseconds())
	hears("READY=1")
	cancel()
	hears("STOPPING=1")
	is.NoErr(<-done)
}

// TestManagerOf: what is there for another process is not for this one.
func TestManagerOf(t *testing.T) {
	is := is.New(t)
	ours, others := strconv.Itoa(os.Getpid()), strconv.Itoa(os.Getppid())
	of := func(pid string) manager {
		return managerOf(environment("NOTIFY_SOCKET=@x", "WATCHDOG_USEC=1000000", "WATCHDOG_PID="+pid, "LISTEN_FDS=2",
			"LISTEN_PID="+pid))
	}
	is.Equal(of(ours), manager{"@x", time.Second, 2})
	is.Equal(of(others), manager{"@x", 0, 0})
	is.Equal(managerOf(noEnv), manager{})
}

// TestUnitOf: what a service is called, where this is the main process of one.
func TestUnitOf(t *testing.T) {
	is := is.New(t)
	file := filepath.Join(t.TempDir(), "cgroup")
	for groups, want := range map[string]string{
		"0::/system.slice/streamd.service\n":                                                      "streamd.service",
		"0::/system.slice/system-streamd.slice/streamd@a.service\n":                               "streamd@a.service",
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/streamd.service\n":            "--user streamd.service",
		"4:memory:/x.service\n1:name=systemd:/system.slice/s.service\n0::/system.slice/s.service": "s.service",
		"0::/user.slice/user-1000.slice/session-1.scope\n":                                        "",
		"0::/\n": "", "": "",
	} {
		is.NoErr(os.WriteFile(file, []byte(groups), 0o600))
		is.Equal(manager{socket: "@x"}.unit(file), want)
		is.Equal(manager{}.unit(file), "")
	}
	is.Equal(manager{socket: "@x"}.unit(file+"-none"), "")
}

// TestLastWordsInTheJournal: why a server does not start is an error there, for who looks for these alone.
func TestLastWordsInTheJournal(t *testing.T) {
	is := is.New(t)
	f, err := os.Create(filepath.Join(t.TempDir(), "journal"))
	is.NoErr(err)
	defer f.Close()
	info, err := f.Stat()
	is.NoErr(err)
	s := info.Sys().(*syscall.Stat_t)
	c := exec.Command(streamdBinary(t), "--dir", t.TempDir(), "--tls-cert", "/none", "--tls-key", "/none")
	c.Stderr, c.Env = f, append(os.Environ(), fmt.Sprintf("JOURNAL_STREAM=%d:%d", s.Dev, s.Ino))
	is.Equal(exitStatus(c.Run()), 1)
	is.True(strings.HasPrefix(readFile(t, f.Name(), ""), "<3>streamd: --tls-cert"))
}

// onSocket starts streamd as systemd does, with the descriptor to listen on.
func onSocket(t *testing.T, l *os.File, args ...string) (c *exec.Cmd, url string, stderr *strings.Builder) {
	t.Helper()
	return onSockets(t, []*os.File{l}, args...)
}

// onSockets is onSocket with more than one.
func onSockets(t *testing.T, all []*os.File, args ...string) (c *exec.Cmd, url string, stderr *strings.Builder) {
	t.Helper()
	c = exec.Command("sh", append([]string{"-c", fmt.Sprintf(`LISTEN_PID=$$ LISTEN_FDS=%d exec "$0" "$@"`, len(all)),
		streamdBinary(t)}, args...)...)
	stderr = new(strings.Builder)
	c.ExtraFiles, c.Stderr = all, stderr
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill() })
	url, _ = bufio.NewReader(out).ReadString('\n')
	return c, strings.TrimSpace(url), stderr
}

// TestRestartRefusesNobody: while a server on a socket that another process has is started again, under load, each
// request that comes on a connection of its own is answered, and all that was acknowledged is there.
func TestRestartRefusesNobody(t *testing.T) {
	is := is.New(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	is.NoErr(err)
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	is.NoErr(err)
	defer f.Close()
	dir := t.TempDir()
	server, url, _ := onSocket(t, f, "--dir", dir, "--port", "1")
	is.Equal(url, "http://"+l.Addr().String())
	is.Equal(strings.TrimSpace(readFile(t, dir, "daemon.port")), url[strings.LastIndexByte(url, ':')+1:])

	const appenders = 4
	stop := make(chan struct{})
	acknowledged := make([]int, appenders)
	var appending sync.WaitGroup
	for i := range appenders {
		client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
		appending.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				answer, err := client.Post(fmt.Sprintf("%s/streams/s%d", url, i), "application/json",
					strings.NewReader(`{"data":1}`))
				if err != nil {
					t.Error(err)
					return
				}
				answer.Body.Close()
				if answer.StatusCode != http.StatusCreated {
					t.Errorf("%s", answer.Status)
				}
				acknowledged[i]++
			}
		})
	}
	for range 3 {
		is.NoErr(server.Process.Signal(syscall.SIGTERM))
		is.NoErr(server.Wait())
		server, _, _ = onSocket(t, f, "--dir", dir)
	}
	close(stop)
	appending.Wait()
	for i, n := range acknowledged {
		answer, err := http.Get(fmt.Sprintf("%s/streams/s%d/events", url, i))
		is.NoErr(err)
		b, err := io.ReadAll(answer.Body)
		is.NoErr(err)
		is.Equal(strings.Count(string(b), `"offset"`), n)
	}
	is.NoErr(server.Process.Signal(syscall.SIGTERM))
	is.NoErr(server.Wait())
}

// TestSocketsAreUnderTheRule: one that other machines reach is refused as a --host is, and what does not listen, too.
func TestSocketsAreUnderTheRule(t *testing.T) {
	is := is.New(t)
	l, err := net.Listen("tcp", "0.0.0.0:0")
	is.NoErr(err)
	f, err := l.(*net.TCPListener).File()
	is.NoErr(err)
	defer f.Close()
	is.NoErr(l.Close())
	c, _, stderr := onSocket(t, f, "--dir", t.TempDir())
	is.Equal(exitStatus(c.Wait()), 2)
	is.True(strings.Contains(stderr.String(), "can be reached by other machines"))
	is.True(strings.HasPrefix(stderr.String(), "streamd: the socket "))

	r, w, err := os.Pipe()
	is.NoErr(err)
	defer r.Close()
	defer w.Close()
	c, _, stderr = onSocket(t, r, "--dir", t.TempDir())
	is.Equal(exitStatus(c.Wait()), 1)
	is.True(strings.Contains(stderr.String(), "it does not listen"))
}

// TestUnixSocketOfManager: one that systemd has made beside that of the port is as that of --unix, and stays systemd's:
// it is there, and keeps who comes, while no server runs.
func TestUnixSocketOfManager(t *testing.T) {
	is := is.New(t)
	dir, err := os.MkdirTemp("", "unix") // the path of a socket is short
	is.NoErr(err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	var files []*os.File
	for _, of := range [][2]string{{"unix", path}, {"tcp", "127.0.0.1:0"}} {
		l, err := net.Listen(of[0], of[1])
		is.NoErr(err)
		defer l.Close()
		f, err := l.(interface{ File() (*os.File, error) }).File()
		is.NoErr(err)
		defer f.Close()
		files = append(files, f)
	}
	pair, _ := newPair(t)
	tokens := filepath.Join(dir, "tokens")
	tokensFile(t, tokens, "ci read")
	flags := append(pair.flags(), "--dir", t.TempDir(), "--tokens", tokens)
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}}}
	get := func(path, token string) (status int, body string) {
		r, err := http.NewRequest("GET", "http://localhost"+path, nil)
		is.NoErr(err)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		answer, err := client.Do(r)
		is.NoErr(err)
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		is.NoErr(err)
		return answer.StatusCode, string(b)
	}
	for _, all := range [][]*os.File{files, {files[1], files[0]}} {
		server, url, _ := onSockets(t, all, flags...)
		is.True(strings.HasPrefix(url, "https://127.0.0.1:")) // for which the certificate is
		status, _ := get("/streams", "")
		is.Equal(status, http.StatusUnauthorized)
		status, _ = get("/streams", "secret-ci")
		is.Equal(status, http.StatusOK)
		_, health := get("/healthz", "secret-ci")
		is.True(!strings.Contains(health, `"pid"`)) // that the folder's own socket tells
		is.NoErr(server.Process.Signal(syscall.SIGTERM))
		is.NoErr(server.Wait())
	}
	waiting, err := net.Dial("unix", path)
	is.NoErr(err)
	defer waiting.Close()
	_, err = io.WriteString(waiting, "GET /readyz HTTP/1.0\r\n\r\n")
	is.NoErr(err)
	server, _, _ := onSockets(t, files, flags...)
	is.NoErr(waiting.SetReadDeadline(time.Now().Add(time.Minute)))
	answer, err := bufio.NewReader(waiting).ReadString('\n')
	is.NoErr(err)
	is.Equal(strings.TrimSpace(answer), "HTTP/1.0 200 OK")
	is.NoErr(server.Process.Signal(syscall.SIGTERM))
	is.NoErr(server.Wait())
}
