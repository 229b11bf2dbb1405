package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/matryer/is"
)

// The tests run both programs as users do: as processes, in real folders, with real signals.

var (
	update = flag.Bool("update", false, "write what the commands print into testdata")
	bin    string // the folder with both programs
	port   string // what this streamd takes for 3000; it is taken
)

func TestMain(m *testing.M) {
	if os.Getenv("COUNT_INTERRUPTS") != "" {
		countInterrupts()
		os.Exit(0)
	}
	if signal.Ignored(syscall.SIGHUP) { // under nohup, which would make the commands here ignore it too
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	flag.Parse()
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	var err error
	if bin, err = os.MkdirTemp("", "streamctl"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(bin)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer l.Close()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build builds both programs, streamd with a default port that is taken, so that no test depends on who uses 3000,
// nor on the version that git would give them.
func build() error {
	for _, program := range []string{"streamctl", "streamd"} {
		args := []string{"build", "-buildvcs=false", "-ldflags", "-X main.defaultPort=" + port, "-o",
			filepath.Join(bin, program)}
		if raceEnabled {
			args = append(args, "-race")
		}
		c := exec.Command("go", append(args, ".")...)
		c.Dir = filepath.Join("..", program)
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", program, err, out)
		}
	}
	return nil
}

// A place is a working directory, empty at first. The servers of its folders are stopped at the end of the test.
type place struct {
	t   *testing.T
	dir string
}

func newPlace(t *testing.T) place {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := place{t, dir}
	t.Cleanup(func() {
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == "daemon.log" {
				if err := p.command("streamctl server stop --dir " + daemon.ShellWord(filepath.Dir(path))).Run(); err != nil {
					if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 3 {
						t.Errorf("stop the server of %s: %v", path, err)
					}
				}
			}
			return nil
		})
	})
	return p
}

// command is a line of shell.
func (p place) command(line string) *exec.Cmd {
	c := exec.Command("sh", "-c", line)
	c.Dir = p.dir
	c.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "DURABLE_STREAMS_URL=", "DURABLE_STREAMS_TOKEN=",
		"GORACE=atexit_sleep_ms=0") // without it every process built for the race detector takes a second to end
	return c
}

// A result is what a command did.
type result struct {
	stdout, stderr string
	code           int
}

func (p place) run(line string, args ...any) result {
	p.t.Helper()
	var out, err bytes.Buffer
	c := p.command(fmt.Sprintf(line, args...))
	c.Stdout, c.Stderr = &out, &err
	if e := c.Run(); e != nil && c.ProcessState == nil {
		p.t.Fatal(e)
	}
	return result{out.String(), err.String(), c.ProcessState.ExitCode()}
}

// ok runs a command that must succeed and must have nothing to say on stderr, and returns its stdout.
func (p place) ok(line string, args ...any) string {
	p.t.Helper()
	r := p.run(line, args...)
	if r.code != 0 || r.stderr != "" {
		p.t.Fatalf("$ %s\nexit %d\n%s%s", fmt.Sprintf(line, args...), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// start starts the folder's server on a free port.
func (p place) start() {
	p.t.Helper()
	p.ok("streamctl server start --port 0")
}

// port is the one on which the folder's server listens.
func (p place) port() int {
	p.t.Helper()
	port, err := strconv.Atoi(strings.TrimSpace(p.ok("cat .iterate/daemon.port")))
	if err != nil {
		p.t.Fatal(err)
	}
	return port
}

// texts returns the texts of a stream's messages.
func (p place) texts(stream string, flags ...string) []string {
	p.t.Helper()
	return texts(p.ok("streamctl stream get -n %s %s", stream, strings.Join(flags, " ")))
}

var textMember = regexp.MustCompile(`"text":"([^"]*)"`)

func texts(out string) (texts []string) {
	for _, m := range textMember.FindAllStringSubmatch(out, -1) {
		texts = append(texts, m[1])
	}
	return texts
}

// TestTranscripts runs the sessions in testdata. A line that begins with "$ " is a command; below it stands its
// stdout, then its stderr with "! " before each line, then its exit status where that is not 0. What differs from run
// to run is written in capitals.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			want, err := os.ReadFile(file)
			is.NoErr(err)
			got := newPlace(t).transcript(string(want))
			if *update {
				is.NoErr(os.WriteFile(file, []byte(got), 0o644))
			} else if got != string(want) {
				t.Errorf("%s differs: see with -update\n%s", file, firstDifference(string(want), got))
			}
		})
	}
}

func firstDifference(want, got string) string {
	g := strings.Split(got, "\n")
	for i, line := range strings.Split(want, "\n") {
		if i >= len(g) || line != g[i] {
			return fmt.Sprintf("line %d\nis   %s\nnot  %s", i+1,
				strings.Join(g[min(i, len(g)):min(i+3, len(g))], "\n     "), line)
		}
	}
	return "more lines"
}

// transcript runs a transcript's commands and returns it as it is now.
func (p place) transcript(session string) string {
	var b strings.Builder
	for line := range strings.Lines(session) {
		if strings.HasPrefix(line, "#") {
			if b.Len() > 0 {
				fmt.Fprintln(&b)
			}
			b.WriteString(line)
		}
		command, isCommand := strings.CutPrefix(line, "$ ")
		if !isCommand {
			continue
		}
		r := p.run("%s", command)
		b.WriteString(line + p.normal(r.stdout))
		for line := range strings.Lines(p.normal(r.stderr)) {
			b.WriteString("! " + line)
		}
		if r.code != 0 {
			fmt.Fprintf(&b, "[exit %d]\n", r.code)
		}
	}
	return b.String()
}

var volatile = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z`), "TIME"},
	{regexp.MustCompile(`(pid"?:? *)\d+`), "${1}PID"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "127.0.0.1:PORT"},
	{regexp.MustCompile(`(version"?:? *"?)[\w.+-]+`), "${1}VERSION"},
	{regexp.MustCompile(`(streamctl|streamd) (v\d[\w.+-]+|devel|unknown)\n`), "${1} VERSION\n"},
	{regexp.MustCompile(`((?:uptime|synced) +)\d\S*`), "${1}TIME"},
	{regexp.MustCompile(`(disk +)\d.* used, .* free`), "${1}USED used, FREE free"},
	{regexp.MustCompile(`("disk(?:Free|Used)":)\d+`), "${1}N"},
	{regexp.MustCompile(` {2,}(\d+s ago|now)\b`), "  AGE"},
	{regexp.MustCompile(`--port=\d{4,}`), "--port=PORT"},
}

func (p place) normal(s string) string {
	s = strings.ReplaceAll(s, p.dir, "DIR")
	for _, v := range volatile {
		s = v.pattern.ReplaceAllString(s, v.with)
	}
	return s
}
