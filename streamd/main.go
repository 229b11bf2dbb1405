// Streamd serves the event streams of one folder over HTTP and SSE.
//
//	streamd [flags]
//	streamd verify [--dir DIR]
//	streamd repair [--dir DIR] [--salvage] [NAME ...]
//
// Its flags are told by --help.
//
// Verify reads every line of every stream in a folder that no server has, and tells what is damaged. Repair cuts that
// off, keeps a copy of each file as it was, and tells what it gave up.
//
// Once it listens it prints its URL on stdout, and nothing else; the log goes to stderr. Whatever the host, it
// listens on 127.0.0.1 too, where streamctl looks for it.
//
// A lock on the folder, flock(2), says who owns it, for as long as that process lives. The files daemon.pid and
// daemon.port in the folder are there while the server listens; they are hints, which a crash leaves behind, and GET
// /healthz is the proof. The file daemon.args has the flags that were given, --dir excepted, for streamctl to start
// the server with them again when it has to.
//
// With --tokens every request but GET /healthz and /readyz needs a token, those from this machine too; package
// streamhttp/tokens has the form of the file. It is read again when it changes, and on SIGHUP. The folder then has
// two files more: session.key signs the cookies of pages, and daemon.secret, new at each start, is how streamctl gets
// to know from /healthz what others are not told: pid, folder and flags.
//
// SIGTERM, SIGINT and, without --tokens or when its terminal closes, SIGHUP, unless that was ignored from the start,
// end it cleanly within 5 seconds: subscriptions end first, requests that have begun are finished, also those whose
// body is still to come, unless that takes longer; and what was appended is left in a form that needs no recovery. A
// second signal, other than SIGHUP, ends it at once, and loses nothing that was acknowledged.
//
// Exit status: 0 ended as told, 1 failed, 2 usage, 4 the folder belongs to another server.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"sync/atomic"
	"syscall"

	"github.com/iterate/durable-streams/streamlib/disk"
)

func main() {
	ctx := signalled()
	signal.Ignore(syscall.SIGPIPE)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400) // little lives long here: a request's garbage is collected a fifth as often, for some 12 MB
	}
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "streamd: %v\n", err)
	}
	if exitCode(err) == 2 {
		fmt.Fprintln(os.Stderr, "Try: streamd --help")
	}
	os.Exit(exitCode(err))
}

// signalled returns a context that the first signal to end cancels. The second, unless it is SIGHUP, ends the process
// at once.
func signalled() context.Context {
	ctx, end := context.WithCancelCause(context.Background())
	signals, hangups := make(chan os.Signal, 2), make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as by nohup(1)
		signal.Notify(hangups, syscall.SIGHUP) // to the end, for a terminal that closes sends it more than once
	}
	go func() {
		var first os.Signal
		for first == nil {
			select {
			case first = <-signals:
			case hangup := <-hangups:
				if reload := onHangup.Load(); reload == nil || !(*reload)() {
					first = hangup
				}
			}
		}
		signal.Stop(signals) // before anybody sees the end begin
		end(fmt.Errorf("signal: %v", first))
		select {
		case second := <-signals: // it came before that
			endAt(second)
		default:
		}
	}()
	return ctx
}

// onHangup is what SIGHUP does where it does not end the server: it tells whether that is so.
var onHangup atomic.Pointer[func() bool]

// An output is stdout, and why it took no more.
type output struct {
	io.Writer
	err error
}

func (o *output) Write(b []byte) (int, error) {
	n, err := o.Writer.Write(b)
	o.err = cmp.Or(o.err, err)
	return n, err
}

// outcome is the error of a command beside that of its output: neither hides the other. That nobody reads it is none.
func (o *output) outcome(err error) error {
	switch {
	case o.err == nil, errors.Is(o.err, syscall.EPIPE):
		return err
	case err == nil, errors.Is(err, flag.ErrHelp):
		return o.err
	}
	return fmt.Errorf("%w; %w", err, o.err)
}

// A usageError is the caller's: a flag that does not exist, a value that it does not take.
type usageError struct{ error }

func exitCode(err error) int {
	_, usage := errors.AsType[usageError](err)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case usage:
		return 2
	case errors.Is(err, disk.ErrLocked):
		return 4
	}
	return 1
}
