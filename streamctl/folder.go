package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

const (
	// proofTime is how long a server may take to say which folder it serves.
	proofTime = 2 * time.Second
	// startTime is how long a command waits for a server that starts, its own or the winner of a race.
	startTime = 10 * time.Second
	// folderTaken is streamd's exit status where another server has the folder.
	folderTaken = 4
)

var (
	errTaken     = errors.New("another server has the folder")
	errOther     = errors.New("another folder's server")
	errNoStreams = errors.New("there are no streams")
)

// A folder is a data folder and what is done with the server that it may have.
type folder struct {
	dir    string // absolute
	stderr io.Writer
}

// A server is one that has proved to be its folder's.
type server struct {
	streamhttp.Health
	port int
}

func (s server) url() string { return fmt.Sprintf("http://127.0.0.1:%d", s.port) }

func (f folder) logFile() string { return filepath.Join(f.dir, "daemon.log") }

// client returns a client of the folder's server, which is started where there is none; for one that only reads, where there
// are streams: else it is errNoStreams. When that server ends, the client's later connections go to its successor, whatever its
// port; none is started then.
func (f folder) client(ctx context.Context, reads bool) (*streamhttp.Client, error) {
	conn, s, err := f.reach(ctx, reads)
	if err != nil {
		return nil, err
	}
	first := make(chan net.Conn, 1)
	first <- conn
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		select {
		case conn := <-first:
			return conn, nil
		default:
		}
		conn, _, err := f.find(ctx)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("no server has %s", f.dir)
		}
		return conn, err
	}
	return &streamhttp.Client{URL: s.url(), HTTP: &http.Client{Transport: &http.Transport{DialContext: dial, DisableCompression: true}}}, nil
}

// reach returns a connection to the folder's server. Of many that find none and start one, all get the same.
func (f folder) reach(ctx context.Context, reads bool) (net.Conn, server, error) {
	deadline := time.Now().Add(startTime)
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		conn, s, err := f.find(ctx)
		if err == nil {
			return conn, s, nil
		}
		if ctx.Err() != nil {
			return nil, s, context.Cause(ctx)
		}
		if reads && f.empty() {
			return nil, s, fmt.Errorf("%w in %s", errNoStreams, f.dir)
		}
		conn, s, err = f.start(ctx, []string{"--dir=" + f.dir, "--port-fallback"})
		if err == nil {
			fmt.Fprintf(f.stderr, "streamctl: started streamd (pid %d) for %s at %s\n", s.PID, f.dir, s.url())
			return conn, s, nil
		}
		if !errors.Is(err, errTaken) {
			return nil, s, err
		}
		if time.Now().After(deadline) {
			return nil, s, f.hung()
		}
		time.Sleep(wait)
	}
}

// empty tells whether there is no folder, or one that never had a stream and has no server.
func (f folder) empty() bool {
	for _, name := range []string{"format", "streams"} {
		if _, err := os.Lstat(filepath.Join(f.dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	pid, _ := f.holder()
	return pid == 0
}

// hung is the error for a folder whose lock somebody has, but not a server that answers.
func (f folder) hung() error {
	who := "a process"
	if pid, _ := f.holder(); pid != 0 {
		who = fmt.Sprintf("pid %d", pid)
	}
	return hintError{fmt.Errorf("%s has %s and does not answer; its log is %s", who, f.dir, f.logFile()), "streamctl server stop"}
}

// find returns a connection to the folder's server where that runs, and what it said about itself on this connection.
func (f folder) find(ctx context.Context) (net.Conn, server, error) {
	b, err := os.ReadFile(filepath.Join(f.dir, "daemon.port"))
	if err != nil {
		return nil, server{}, err
	}
	port, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, server{}, err
	}
	return f.prove(ctx, port)
}

// prove connects to a port of this machine and asks the server there which folder it has.
func (f folder) prove(ctx context.Context, port int) (net.Conn, server, error) {
	s := server{port: port}
	ctx, cancel := context.WithTimeout(ctx, proofTime)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, s, err
	}
	conn.SetDeadline(time.Now().Add(proofTime))
	if err = f.ask(conn, &s); err != nil {
		conn.Close()
		return nil, s, fmt.Errorf("%s: %w", s.url(), err)
	}
	conn.SetDeadline(time.Time{})
	return conn, s, nil
}

// ask sends GET /healthz and reads exactly its answer, so that conn can be used on.
func (f folder) ask(conn net.Conn, s *server) error {
	if _, err := fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s\r\n", s.port, f.secret()); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK || answer.Close || json.Unmarshal(body, &s.Health) != nil || s.PID == 0 {
		return errOther
	}
	ours, err := os.Stat(f.dir)
	if err != nil {
		return err
	}
	if theirs, err := os.Stat(s.Dir); err != nil || !os.SameFile(ours, theirs) {
		return errOther
	}
	return nil
}

// start starts streamd with args, detached, and returns when it listens. The error is errTaken where another server has
// the folder.
func (f folder) start(ctx context.Context, args []string) (net.Conn, server, error) {
	path, err := streamd()
	if err != nil {
		return nil, server{}, err
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, server{}, err
	}
	log, err := os.OpenFile(f.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, server{}, err
	}
	defer log.Close()
	before, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, server{}, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, server{}, err
	}
	defer r.Close()
	daemon := exec.Command(path, args...)
	daemon.Dir, daemon.Stdout, daemon.Stderr = "/", w, log
	daemon.Env = withoutToken(os.Environ())
	daemon.SysProcAttr = detached
	err = daemon.Start()
	w.Close()
	if err != nil {
		return nil, server{}, err
	}
	r.SetReadDeadline(time.Now().Add(startTime))
	line, err := bufio.NewReader(r).ReadString('\n') // its URL, once it listens
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, server{}, fmt.Errorf("streamd (pid %d) does not listen yet; see %s", daemon.Process.Pid, f.logFile())
	case err != nil:
		daemon.Wait()
		switch err := fmt.Errorf("streamd did not start: %s", f.lastWords(before)); daemon.ProcessState.ExitCode() {
		case 2:
			return nil, server{}, usageError{err, "streamctl server start --help"}
		case folderTaken:
			return nil, server{}, errTaken
		default:
			return nil, server{}, err
		}
	}
	line = strings.TrimSpace(line)
	port, err := strconv.Atoi(line[strings.LastIndexByte(line, ':')+1:])
	if err != nil {
		return nil, server{}, fmt.Errorf("streamd said %q, which is no URL", line)
	}
	return f.prove(ctx, port)
}

// lastWords returns the error that a streamd logged last.
func (f folder) lastWords(from int64) string {
	log, err := os.Open(f.logFile())
	if err != nil {
		return err.Error()
	}
	defer log.Close()
	b, err := io.ReadAll(io.NewSectionReader(log, from, 1<<20))
	if err != nil {
		return err.Error()
	}
	const prefix = "streamd: "
	if i := bytes.LastIndex(b, []byte("\n"+prefix)); i >= 0 {
		b = b[i+1:]
	}
	if said, ok := strings.CutPrefix(string(b), prefix); ok {
		said, _, _ = strings.Cut(said, "\n")
		return said
	}
	return "see " + f.logFile()
}

// streamd returns the path of the streamd to start: the one beside this program, else the one on PATH.
func streamd() (string, error) {
	self, err := os.Executable()
	if err == nil {
		if self, err = filepath.EvalSymlinks(self); err == nil {
			if path, err := exec.LookPath(filepath.Join(filepath.Dir(self), "streamd")); err == nil {
				return path, nil
			}
		}
	}
	path, err := exec.LookPath("streamd")
	if err != nil {
		return "", hintError{fmt.Errorf("streamd is neither beside %s nor on PATH", self), "scripts/build, which builds both"}
	}
	return filepath.Abs(path)
}
