//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A server is a process that this one has started. It ends with its context, or by stop.
type server struct {
	cmd   *exec.Cmd
	url   string
	ready time.Duration // from its start to its first line
}

func newServer(ctx context.Context, path string, args ...string) *server {
	s := &server{cmd: exec.CommandContext(ctx, path, args...)}
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	s.cmd.WaitDelay = 10 * time.Second
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for this process, which then ends its servers
	return s
}

// start starts a program that prints its URL once it listens.
func start(ctx context.Context, path string, args ...string) *server {
	s := newServer(ctx, path, args...)
	var log bytes.Buffer
	s.cmd.Stderr = &log
	stdout := must(s.cmd.StdoutPipe())
	begin := time.Now()
	check(s.cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	s.ready, s.url = time.Since(begin), strings.TrimSpace(line)
	if err != nil {
		s.stop()
		check(fmt.Errorf("%s %s did not start: %s", path, strings.Join(args, " "), log.String()))
	}
	return s
}

// stop ends the process and waits for its end.
func (s *server) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	s.cmd.Wait()
}

// proc is a file of the process in /proc.
func (s *server) proc(name string) string {
	return fmt.Sprintf("/proc/%d/%s", s.cmd.Process.Pid, name)
}

// cpu returns the time that the process has run, in user and system mode: proc_pid_stat(5).
func (s *server) cpu() time.Duration {
	_, rest, _ := strings.Cut(string(must(os.ReadFile(s.proc("stat")))), ") ") // the name before it may have spaces
	fields := strings.Fields(rest)
	const tick = 10 * time.Millisecond // USER_HZ is 100: time(7)
	return time.Duration(must(strconv.Atoi(fields[11]))+must(strconv.Atoi(fields[12]))) * tick
}

// memory returns a size from the process's status, in bytes: proc_pid_status(5).
func (s *server) memory(name string) float64 {
	for line := range strings.Lines(string(must(os.ReadFile(s.proc("status"))))) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return 1024 * must(strconv.ParseFloat(strings.Fields(value)[0], 64))
		}
	}
	panic(failure{fmt.Errorf("no %s in %s", name, s.proc("status"))})
}

// A failure is what ends the run: a figure that cannot be had. It is raised by panic, so that what was started is
// ended on the way to attempt, which returns it.
type failure struct{ error }

// attempt returns the failure that ended do, if one did.
func attempt(do func()) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case failure:
			err = p.error
		default:
			panic(p)
		}
	}()
	do()
	return nil
}

func check(err error) {
	if err != nil {
		panic(failure{err})
	}
}

func must[T any](v T, err error) T {
	check(err)
	return v
}
