package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

const (
	// proofTime is how long a server may take to say which folder it serves.
	proofTime = 2 * time.Second
	// startTime is how long a command waits for a server that starts, its own or the winner of a race.
	startTime = 10 * time.Second
)

var (
	errTaken     = errors.New("another server has the folder")
	errOther     = errors.New("another folder's server")
	errNoStreams = errors.New("there are no streams")
	errUnseen    = errors.New("is in use by a process that cannot be seen from here")
	// errNotStarted is of a streamd that has ended with an error.
	errNotStarted = errors.New("streamd did not start")
)

// A folder is a data folder and what is done with the server that it may have.
type folder struct {
	dir    string // absolute
	stderr io.Writer
}

// A server is one that has proved to be its folder's.
type server struct {
	streamhttp.Health
	port   int    // of TCP, 0 where it has none
	secret string // that goes with each request; "" where none is wanted
	moved  bool   // the folder has another path than the server has for it
}

func (f folder) String() string { return daemon.Word(f.dir) }

func (s server) url() string { return cmp.Or(s.URL, fmt.Sprintf("http://127.0.0.1:%d", s.port)) }

func (f folder) logFile() string { return filepath.Join(f.dir, daemon.LogFile) }

// client returns a client of the folder's server, which is started where there is none; for one that only reads,
// where there are streams: else it is errNoStreams. When that server ends, the client's later connections go to its
// successor, whatever its port; none is started then.
func (f folder) client(ctx context.Context, reads bool) (*streamhttp.Client, error) {
	conn, s, err := f.reach(ctx, reads)
	if err != nil {
		return nil, err
	}
	return f.clientOver(conn, s), nil
}

// reach returns a connection to the folder's server. Of many that find none and start one, all get the same.
func (f folder) reach(ctx context.Context, reads bool) (net.Conn, server, error) {
	began := time.Now()
	for wait, taken := 10*time.Millisecond, 0; ; wait = min(2*wait, time.Second) {
		conn, s, err := f.find(ctx)
		switch {
		case err == nil && s.moved:
			conn.Close()
			return nil, s, f.moved(s)
		case err == nil:
			return conn, s, nil
		case ctx.Err() != nil:
			return nil, s, context.Cause(ctx)
		case errors.Is(err, fs.ErrPermission):
			return nil, s, f.foreign(err)
		case reads && f.empty():
			return nil, s, fmt.Errorf("%w in %v", errNoStreams, f)
		}
		pid, known := f.holder()
		unseen := pid == 0 && f.isUnseen()
		if pid == 0 && !unseen {
			conn, s, err = f.startAgain(ctx)
			if !errors.Is(err, errTaken) {
				return conn, s, err
			}
			taken++
		}
		waited := time.Since(began)
		if cause, lasting := f.hung(); lasting || known && taken > 1 || unseen && waited > proofTime || waited > startTime {
			return nil, s, cause
		}
		time.Sleep(wait)
	}
}

// startAgain starts the folder's server with the flags that it had last, and says so.
func (f folder) startAgain(ctx context.Context) (net.Conn, server, error) {
	given, err := f.kept()
	if err == nil {
		err = f.withoutHooks(given)
	}
	if err != nil {
		return nil, server{}, err
	}
	said := ""
	if flags := streamdArgs(given); len(flags) > 0 {
		said = " with " + shellWords(flags) + ", as it was started last"
	}
	if len(given["port"]) == 0 {
		given["port-fallback"] = []string{"true"}
	}
	conn, s, err := f.start(ctx, given)
	switch {
	case err == nil:
		fmt.Fprintf(f.stderr, "streamctl: started streamd (pid %d) for %v at %s%s\n", s.PID, f, s.url(), said)
	case said != "" && errors.Is(err, errNotStarted):
		err = hintError{fmt.Errorf("%w (it was to start%s)", bareUsage(err), said), f.command("server start") + withFlags}
	}
	return conn, s, err
}

// bareUsage returns the error of a usage error: nobody has typed it.
func bareUsage(err error) error {
	if usage, ok := errors.AsType[usageError](err); ok {
		return usage.error
	}
	return err
}

// kept returns the flags that streamd was started with last in this folder, none where there were none. The file may
// have been planted: only flags of streamd's own are taken from it, and of the user's own file.
func (f folder) kept() (given map[string][]string, err error) {
	path := filepath.Join(f.dir, daemon.ArgsFile)
	b, info, err := daemon.Read(f.dir, daemon.ArgsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string][]string{}, nil
	}
	var args, words []string
	switch {
	case err != nil:
	case !isOurs(info):
		err = errors.New("it is another user's")
	case json.Unmarshal(b, &args) != nil:
		err = errors.New("it is no JSON array of flags")
	default:
		words, given, _, err = parseFlags(args)
		for name := range given {
			if !slices.Contains(strings.Fields(streamdFlags+" port-fallback"), name) {
				words = append(words, "--"+name)
			}
		}
		if err = bareUsage(err); err == nil && len(words) > 0 {
			err = fmt.Errorf("%s is no flag for it", words[0])
		}
	}
	if err != nil {
		return nil, hintError{fmt.Errorf("%s, which says how the server was started last: %w", daemon.Word(path), err),
			f.command("server start") + withFlags}
	}
	return given, nil
}

// withoutHooks refuses kept flags with programs in them: the folder may be a copy of somebody else's, who says so what is
// to be run here. Nor is the server started without them, for what they would veto is not to be appended.
func (f folder) withoutHooks(given map[string][]string) error {
	if len(given["hooks"]) == 0 {
		return nil
	}
	return hintError{fmt.Errorf("the server of %v was started last with --hooks %s, and what is in that folder is run only "+
		"where the flag is given again", f, daemon.ShellWord(given["hooks"][0])), f.command("server start") + " " +
		shellWords(streamdArgs(given))}
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

// command returns what to type for the folder.
func (f folder) command(words string) string {
	if usual, err := filepath.Abs(".iterate"); err == nil && usual == f.dir {
		return "streamctl " + words
	}
	return "streamctl " + words + " --dir " + daemon.ShellWord(f.dir)
}

// shellWords is what to type for flags.
func shellWords(flags []string) string {
	var words []string
	for _, f := range flags {
		words = append(words, daemon.ShellWord(f))
	}
	return strings.Join(words, " ")
}

const (
	withURL   = "the same with --server and the URL of its server"
	withFlags = " with the flags that it should have"
)

// hung is the error for a folder whose lock somebody has, but not a server that answers. Lasting says that waiting
// does not help.
func (f folder) hung() (err error, lasting bool) {
	pid, known := f.holder()
	var what, try string
	if known && pid == 0 {
		return hintError{fmt.Errorf("%v %w: in another container, of another user, or on another machine", f, errUnseen),
			withURL}, false
	}
	switch has := fmt.Sprintf("pid %d has %v", pid, f); {
	case !known:
		what, try = fmt.Sprintf("a process has %v and does not answer", f), f.command("server stop")
		if b, _, err := daemon.Read(f.dir, daemon.PIDFile); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				what, try = fmt.Sprintf("%s; it said that it is pid %d", what, pid), killing(pid)+", if that is a streamd"
			}
		}
	case !isStreamd(pid):
		lasting = true
		what = fmt.Sprintf("pid %d has locked %v and is no streamd", pid, f)
		try = fmt.Sprintf("ps -fp %d, which says what it is", pid)
	case isStopped(pid):
		lasting = true
		what = has + " and does not answer, for it is stopped"
		try = fmt.Sprintf("%s, or kill -CONT %d", f.command("server stop"), pid)
	case len(ports(pid)) == 0:
		what = has + " and does not listen yet: it reads what the last server left in the journal; its log is " +
			daemon.Word(f.logOf(pid))
		try = "the same again, when " + f.command("server status") + " says that it runs"
	case !isNear(pid):
		lasting = true
		what = fmt.Sprintf("%s in a network of its own, as a container has, and listens there on port %d", has, ports(pid)[0])
		try = withURL
	default:
		what, try = has+" and does not answer; its log is "+daemon.Word(f.logOf(pid)), f.command("server stop")
	}
	return hintError{errors.New(what), try}, lasting
}

// foreign is the error for a folder that has what this user may not read.
func (f folder) foreign(err error) error {
	return hintError{fmt.Errorf("%v, or what is in it, belongs to another user: %w", f, err), withURL}
}

// moved is the error for a folder that was moved while s serves it.
func (f folder) moved(s server) error {
	err := fmt.Errorf("%v was moved while pid %d serves it as %s", f, s.PID, daemon.Word(s.Dir))
	return hintError{err, f.restart(s)}
}

// find returns a connection to the folder's server where that runs, and what it said about itself on this connection.
// The folder's own door leads there. Where there is none, as on a disk without room, daemon.port may, and where that
// does not the lock does on systems that tell who has it.
func (f folder) find(ctx context.Context) (net.Conn, server, error) {
	conn, s, err := f.enter(ctx)
	if err == nil || errors.Is(err, errOther) {
		return conn, s, err
	}
	b, _, err := daemon.Read(f.dir, daemon.PortFile)
	if err == nil {
		var port int
		if port, err = strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			if conn, s, err = f.prove(ctx, port, 0); err == nil {
				return conn, s, nil
			}
		}
	}
	pid, _ := f.holder()
	if pid == 0 || isStopped(pid) || !isNear(pid) {
		return nil, server{}, err
	}
	for _, port := range ports(pid) {
		if conn, s, err := f.prove(ctx, port, pid); err == nil {
			return conn, s, nil
		}
	}
	return nil, server{}, err
}

// prove connects to a port of this machine and asks the server there which folder it has. A holder, where not 0, is
// known to have this one and to listen on the port: its answer need not be the same path and pid as here.
func (f folder) prove(ctx context.Context, port, holder int) (net.Conn, server, error) {
	s := server{port: port}
	ctx, cancel := context.WithTimeout(ctx, proofTime)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, s, err
	}
	err = s.ask(conn)
	switch {
	case err != nil:
	case holder == 0 && (s.PID == 0 || !f.is(s.Dir)):
		err = errOther
	case holder != 0 && s.PID == 0: // it tells no stranger of itself
		s.PID, s.Dir, s.Args = holder, f.dir, argsOf(holder)
	case holder != 0:
		s.PID, s.moved = holder, seesSame(holder) && !f.is(s.Dir)
	}
	if err != nil {
		conn.Close()
		return nil, s, fmt.Errorf("%s: %w", s.url(), err)
	}
	return conn, s, nil
}

// is tells whether dir is the folder, whatever it is called.
func (f folder) is(dir string) bool {
	ours, err := os.Stat(f.dir)
	if err != nil {
		return false
	}
	theirs, err := os.Stat(dir)
	return err == nil && os.SameFile(ours, theirs)
}

// start starts streamd with flags, detached, and returns when it listens. The error is errTaken where another server
// has the folder.
func (f folder) start(ctx context.Context, given map[string][]string) (net.Conn, server, error) {
	path, err := streamd()
	if err != nil {
		return nil, server{}, err
	}
	keepToOurselves()
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, server{}, err
	}
	log, err := f.openLog()
	if err != nil {
		return nil, server{}, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, server{}, err
	}
	defer r.Close()
	streamd := exec.Command(path, append([]string{"--dir=" + f.dir}, streamdArgs(given)...)...)
	streamd.Dir, streamd.Env, streamd.Stdout, streamd.SysProcAttr = "/", environment(), w, detached
	var unlogged bytes.Buffer // read when streamd has ended
	var before int64
	if streamd.Stderr = &unlogged; log != nil {
		defer log.Close()
		streamd.Stderr = log
		before, err = log.Seek(0, io.SeekEnd)
	}
	if err == nil {
		err = streamd.Start()
	}
	w.Close()
	if err != nil {
		return nil, server{}, err
	}
	r.SetReadDeadline(time.Now().Add(startTime))
	line, err := bufio.NewReader(r).ReadString('\n') // its URL, once it listens, or why it does not
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err, _ := f.hung()
		return nil, server{}, err
	case err != nil, strings.HasPrefix(line, "streamd: "):
		streamd.Wait()
		words, said := f.lastWords(before, append(unlogged.Bytes(), line...))
		switch err := fmt.Errorf("%w: %s", errNotStarted, words); {
		case streamd.ProcessState.ExitCode() == 2 && said: // which is the runtime's, too, where it crashes
			return nil, server{}, usageError{err, "streamctl server start --help"}
		case streamd.ProcessState.ExitCode() == daemon.Taken:
			return nil, server{}, errTaken
		default:
			return nil, server{}, err
		}
	}
	return f.find(ctx)
}

// environment is this process's, without what is not for a server that it starts: how clients find one, and what the
// manager of this process, such as systemd, has for that alone.
func environment() []string {
	return without("DURABLE_STREAMS_", "LISTEN_", "NOTIFY_SOCKET=", "WATCHDOG_")
}

// without is this process's environment without the variables that begin so.
func without(prefixes ...string) []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(v, prefix) })
	})
}

// isOurs tells whether the folder belongs to this process's user.
func (f folder) isOurs() bool {
	info, err := os.Stat(f.dir)
	return err == nil && isOurs(info)
}

// openLog opens daemon.log for a server to append to; nil is none, for there is no room or nothing may be written. The
// folder may be somebody else's: a link is not followed.
func (f folder) openLog() (*os.File, error) {
	path := f.logFile()
	log, err := daemon.OpenPlain(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND)
	if err == nil {
		daemon.Give(log, f.dir)
	} else if errors.Is(err, fs.ErrExist) {
		log, err = daemon.OpenPlain(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND)
	}
	if info, e := os.Lstat(path); e == nil && (!info.Mode().IsRegular() || hasNames(info)) {
		if err == nil {
			log.Close()
		}
		err := fmt.Errorf("%s is a link, or no file: nothing is written to it", daemon.Word(path))
		return nil, hintError{err, "rm " + daemon.ShellWord(path)}
	}
	switch {
	case errors.Is(err, fs.ErrPermission) && !f.isOurs():
		return nil, f.foreign(err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EROFS),
		errors.Is(err, fs.ErrPermission):
		fmt.Fprintf(f.stderr, "streamctl: the server will have no log: %s\n", daemon.Message(err))
		return nil, nil
	}
	return log, err
}

// lastWords returns the error that a streamd logged last, from a place on, or wrote where it had no log; said tells
// whether it has said one.
func (f folder) lastWords(from int64, unlogged []byte) (words string, said bool) {
	b := unlogged
	if log, err := daemon.OpenPlain(f.logFile(), os.O_RDONLY); err == nil && len(b) == 0 {
		defer log.Close()
		if b, err = io.ReadAll(io.NewSectionReader(log, from, 1<<20)); err != nil {
			return err.Error(), false
		}
	}
	last := map[string]string{}
	for line := range strings.Lines(string(b)) {
		for _, prefix := range []string{"streamd: ", "panic: ", "fatal error: "} {
			if words, ok := strings.CutPrefix(line, prefix); ok {
				last[prefix] = strings.TrimSpace(words)
			}
		}
	}
	if words, said = last["streamd: "]; said {
		return words, true
	}
	if crash := cmp.Or(last["panic: "], last["fatal error: "]); crash != "" {
		return fmt.Sprintf("it crashed: %s; all it said is in %s", crash, daemon.Word(f.logFile())), false
	}
	return "it said nothing; its log is " + daemon.Word(f.logFile()), false
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
		err = fmt.Errorf("streamd is neither beside %s nor on PATH", daemon.Word(self))
		return "", hintError{err, "scripts/build, which builds both"}
	}
	return filepath.Abs(path)
}
