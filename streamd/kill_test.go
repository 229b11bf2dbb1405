//go:build unix

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/matryer/is"
)

// A killed server is started again on what it left, and judged by what its clients know: what was answered is there,
// what was not is there whole or not at all.

// TestKilledAgainAndAgain kills the server with SIGKILL while clients append to many streams, and starts it again.
func TestKilledAgainAndAgain(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	const rounds = 6
	var mu sync.Mutex
	acknowledged := map[string]map[int]string{} // stream → offset → data
	unanswered := map[string]string{}           // key → data
	remember := func(stream string, events []storedEvent) {
		if acknowledged[stream] == nil {
			acknowledged[stream] = map[int]string{}
		}
		for _, e := range events {
			acknowledged[stream][e.offset()] = string(e.Data)
		}
	}
	for round := range rounds {
		server := start(t, dir)
		for key, data := range unanswered { // once, whether or not the first came through
			status, events := server.append("keyed", key, data)
			is.True(status == 200 || status == 201)
			remember("keyed", events)
		}
		clear(unanswered)
		limit := 50 + rand.IntN(400)
		var clients sync.WaitGroup
		for client := range 8 {
			clients.Go(func() {
				for i := 0; ; i++ {
					id := fmt.Sprintf("%d-%d-%d", round, client, i)
					stream, key, data := fmt.Sprint("s", (client+i)%5), "", fmt.Sprintf("%q", id)
					switch i % 3 {
					case 0:
						data = fmt.Sprintf("[%[1]q,0]\n[%[1]q,1]\n[%[1]q,2]", id)
					case 1:
						stream, key = "keyed", id
					}
					status, events := server.append(stream, key, data)
					mu.Lock()
					if status == 201 {
						remember(stream, events)
						if limit--; limit == 0 {
							server.signal(syscall.SIGKILL)
						}
					} else if key != "" {
						unanswered[key] = data
					}
					mu.Unlock()
					if status == 0 {
						return
					} else if status != 201 {
						t.Errorf("append answered %d", status)
						return
					}
				}
			})
		}
		clients.Wait()
		server.wait()
	}
	server := start(t, dir)
	for stream, events := range acknowledged {
		stored := server.read(stream)
		is.Equal(len(slices.Compact(slices.Sorted(slices.Values(stored)))), len(stored)) // nothing twice
		for offset, data := range events {
			is.True(offset < len(stored)) // acknowledged and lost
			is.Equal(stored[offset], data)
		}
		for i, data := range stored {
			if id, ok := strings.CutSuffix(data, ",0]"); ok { // a batch is whole
				is.True(i+2 < len(stored))
				is.Equal(stored[i+1:i+3], []string{id + ",1]", id + ",2]"})
			}
		}
	}
	is.True(len(acknowledged) == 6)
	is.NoErr(server.end(syscall.SIGTERM))
}

const kill = "signal=KILL" // strace's word for it

// TestFaultAtEverySyscall lets strace kill the server at the n-th call of a kind, or fail the call, for every n until
// a run ends by itself. Strace counts in each thread: the disk package's tests inject at every call for certain, here
// it is the kernel that does.
func TestFaultAtEverySyscall(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if testing.Short() {
		t.Skip("it takes long")
	} else if err != nil {
		t.Skip("strace is not installed: scripts/tools does it")
	}
	if out, err := exec.Command(strace, "-f", "-e", "trace=none", "true").CombinedOutput(); err != nil {
		t.Skipf("strace cannot trace here: %s", out)
	}
	faults := []struct{ calls, effect string }{
		{"pwrite64", kill}, {"fdatasync", kill}, {"fsync", kill}, {"unlinkat", kill},
		{"pwrite64", "error=EIO"}, {"pwrite64", "error=ENOSPC"}, {"fdatasync", "error=EIO"}, {"fsync",
			"error=EIO"}, {"unlinkat", "error=EIO"},
	}
	for _, fault := range faults {
		for _, ending := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} { // a clean end leaves nothing to replay
			if fault.effect == kill && ending == syscall.SIGKILL {
				continue
			}
			t.Run(fmt.Sprint(fault.calls, "/", fault.effect, "/", ending), func(t *testing.T) {
				t.Parallel()
				n := 1
				for faultAt(t, strace, fault.calls, fault.effect, n, ending) {
					n++
				}
				if n == 1 {
					t.Fatalf("%s was never called", fault.calls)
				}
			})
		}
	}
}

// TestFailedSync: after a sync that failed the server is alive and not ready, or ends where it was told to, for
// whoever starts it again.
func TestFailedSync(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed: scripts/tools does it")
	}
	if out, err := exec.Command(strace, "-f", "-e", "trace=none", "true").CombinedOutput(); err != nil {
		t.Skipf("strace cannot trace here: %s", out)
	}
	for _, flag := range []string{"", "--exit-on-failure"} {
		t.Run(flag, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			dir := t.TempDir()
			server := start(t, dir, strace, "-f", "-o", filepath.Join(t.TempDir(), "strace"), "-e", "trace=fdatasync",
				"-e", "inject=fdatasync:error=EIO:when=4+", "sh", "-c", `exec "$@" `+flag, "sh")
			status, _ := server.get("/readyz")
			is.Equal(status, 200)
			acknowledged := 0
			for status = 201; status == 201; acknowledged++ {
				status, _ = server.append("s", "", "1")
			}
			if flag == "" {
				is.Equal(status, 500) // its outcome is open
				status, _ = server.append("s", "", "1")
				is.Equal(status, 503)
				status, reason := server.get("/readyz")
				is.Equal(status, 503)
				is.True(strings.Contains(reason, `"error":"cannot be done now: a sync failed (`))
				status, _ = server.get("/healthz")
				is.Equal(status, 200)
				is.True(server.end(syscall.SIGTERM) != nil)
			} else {
				exit, ok := errors.AsType[*exec.ExitError](server.wait())
				is.True(ok)
				is.Equal(exit.ExitCode(), 1)
				is.True(strings.Contains(server.stderr.String(), "streamd: cannot be done now: a sync failed ("))
			}
			server = start(t, dir)
			status, body := server.get("/readyz")
			is.Equal(status, 200)
			is.Equal(body, "{\"status\":\"ok\"}\n")
			is.True(len(server.read("s")) >= acknowledged-1)
			is.NoErr(server.end(syscall.SIGTERM))
		})
	}
}

// TestKilledServerResetsWhatItSends: an answer that over HTTP/1.0 would end as a whole one does, ends with a reset.
func TestKilledServerResetsWhatItSends(t *testing.T) {
	is := is.New(t)
	server := start(t, t.TempDir())
	line := `"` + strings.Repeat("x", 1000) + `"` + "\n"
	for range 3 { // more than the kernel takes
		status, _ := server.append("s", "", strings.Repeat(line, 7000))
		is.Equal(status, 201)
	}
	for _, accept := range []string{"application/json", "application/x-ndjson"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(server.url, "http://"))
		is.NoErr(err)
		defer conn.Close()
		fmt.Fprintf(conn, "GET /streams/s/events HTTP/1.0\r\nAccept: %s\r\n\r\n", accept)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		is.NoErr(err)
		defer resp.Body.Close()
		is.Equal(resp.Header.Get("Stream-Next-Offset"), "0000000000021000")
		defer func() {
			_, err := io.Copy(io.Discard, resp.Body)
			is.True(errors.Is(err, syscall.ECONNRESET))
		}()
	}
	is.True(server.end(syscall.SIGKILL) != nil)
}

// get returns what is at a path.
func (s *server) get(path string) (status int, body string) {
	resp, err := s.client.Get(s.url + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// faultAt tells whether there was an n-th call.
func faultAt(t *testing.T, strace, calls, effect string, n int, ending syscall.Signal) bool {
	dir := t.TempDir()
	log, data := filepath.Join(dir, "strace"), filepath.Join(dir, "data")
	server := start(t, data, strace, "-f", "-o", log, "-e", "trace="+calls,
		"-e", fmt.Sprintf("inject=%s:%s:when=%d", calls, effect, n))
	possible := server.history(t)
	_ = server.end(ending) // it may have died before, or say that its sync failed
	trace, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	again := start(t, data)
	got := again.state()
	if err := again.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(possible, got) {
		t.Fatalf("fault at call %d: the streams are\n%s\nand should be one of\n%s", n, got, strings.Join(possible, "\n"))
	}
	if effect == kill {
		return bytes.Contains(trace, []byte("killed by SIGKILL"))
	}
	return bytes.Contains(trace, []byte("INJECTED"))
}

// history does what the fault is to hit, and returns the states that the answers allow.
func (s *server) history(t *testing.T) (possible []string) {
	states := []map[string][]string{{}}
	dead := s.url == ""
	step := func(request func() int, change func(map[string][]string)) {
		if dead {
			return
		}
		status := request()
		dead = status == 0
		for _, state := range states {
			changed := maps.Clone(state)
			change(changed)
			switch status {
			case 201, 204:
				clear(state)
				maps.Copy(state, changed)
			case 0, 500: // no answer, or an open outcome
				states = append(states, changed)
			case 503, 507: // nothing was stored
			default:
				t.Fatalf("an answer of %d", status)
			}
		}
	}
	add := func(stream string, data ...string) {
		step(func() int {
			status, _ := s.append(stream, "", strings.Join(data, "\n"))
			return status
		}, func(m map[string][]string) { m[stream] = slices.Concat(m[stream], data) })
	}
	add("a", `1`)
	add("b", `[1]`, `[2]`, `[3]`)
	add("a", `2`, `3`)
	step(func() int { return s.delete("b") }, func(m map[string][]string) { delete(m, "b") })
	add("b", `4`)
	add("c", `5`)
	add("a", `6`)
	for _, state := range states {
		possible = append(possible, show(state))
	}
	return possible
}

func (s *server) state() string {
	return show(map[string][]string{"a": s.read("a"), "b": s.read("b"), "c": s.read("c")})
}

func show(state map[string][]string) string {
	return fmt.Sprintf("a: %v, b: %v, c: %v", state["a"], state["b"], state["c"])
}

// server is a streamd in a process of its own.
type server struct {
	t      *testing.T
	cmd    *exec.Cmd
	url    string // "" where it ended before it listened
	stderr bytes.Buffer
	client http.Client
}

// start starts streamd on a folder, below another command where one is given.
func start(t *testing.T, dir string, under ...string) *server {
	t.Helper()
	return startOn(t, dir, "0", under...)
}

// startOn starts streamd on a folder and a port.
func startOn(t *testing.T, dir, port string, under ...string) *server {
	t.Helper()
	args := append(under, streamdBinary(t), "--dir", dir, "--port", port)
	s := &server{t: t, cmd: exec.Command(args[0], args[1:]...)}
	s.client.Timeout = 30 * time.Second
	s.client.Transport = &http.Transport{}
	s.cmd.Stderr = &s.stderr
	stdout, err := s.cmd.StdoutPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	s.url = strings.TrimSpace(line)
	if err != nil && len(under) == 0 {
		t.Fatalf("streamd did not start: %s", s.stderr.String())
	}
	go io.Copy(io.Discard, stdout)                 // ends with the process, which wait waits for
	t.Cleanup(func() { _ = s.cmd.Process.Kill() }) // where the test has not ended it
	return s
}

// signal signals the server itself, also below strace.
func (s *server) signal(sig syscall.Signal) {
	pid := s.cmd.Process.Pid
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", pid)); err == nil && len(b) > 0 {
		if child, err := strconv.Atoi(strings.Fields(string(b))[0]); err == nil {
			pid = child
		}
	}
	_ = syscall.Kill(pid, sig)
}

func (s *server) wait() error { return s.cmd.Wait() }

func (s *server) end(sig syscall.Signal) error {
	s.client.CloseIdleConnections()
	s.signal(sig)
	if err := s.wait(); err != nil {
		return fmt.Errorf("%w: %s", err, s.stderr.String())
	}
	return nil
}

type storedEvent struct {
	Offset string          `json:"offset"`
	Data   json.RawMessage `json:"data"`
}

func (e storedEvent) offset() int {
	n, _ := strconv.Atoi(e.Offset)
	return n
}

// append appends the lines, as one batch; without an answer the status is 0.
func (s *server) append(stream, key, lines string) (status int, events []storedEvent) {
	req, err := http.NewRequest("POST", s.url+"/streams/"+stream, strings.NewReader(lines))
	if err != nil {
		s.t.Error(err)
		return 0, nil
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	var answer struct{ Events []storedEvent }
	status, body := s.do(req)
	if status == 200 || status == 201 {
		if json.Unmarshal(body, &answer) != nil {
			return 0, nil
		}
	}
	return status, answer.Events
}

func (s *server) delete(stream string) int {
	req, _ := http.NewRequest("DELETE", s.url+"/streams/"+stream, nil)
	status, _ := s.do(req)
	return status
}

func (s *server) do(req *http.Request) (int, []byte) {
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil
	}
	return resp.StatusCode, body
}

// read returns the data of a stream's events, whose offsets it checks.
func (s *server) read(stream string) (data []string) {
	s.t.Helper()
	req, _ := http.NewRequest("GET", s.url+"/streams/"+stream+"/events", nil)
	status, body := s.do(req)
	var answer struct{ Events []storedEvent }
	if err := json.Unmarshal(body, &answer); status != 200 || err != nil {
		s.t.Fatalf("reading %s: status %d, %v", stream, status, err)
	}
	for i, e := range answer.Events {
		if e.offset() != i {
			s.t.Fatalf("offset %s of %s at place %d", e.Offset, stream, i)
		}
		data = append(data, string(e.Data))
	}
	return data
}

var binDir string // the folder with the server

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	if signal.Ignored(syscall.SIGHUP) { // as under nohup(1): the servers would inherit that
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	var err error
	if binDir, err = os.MkdirTemp("", "streamd"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(binDir)
	return m.Run()
}

// binary is the server, built once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binDir, "streamd")
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

func streamdBinary(t *testing.T) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
