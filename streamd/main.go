// Streamd serves the event streams of one folder over HTTP and SSE.
//
//	streamd [flags]
//	streamd verify [--dir DIR | --storage s3://BUCKET/PREFIX]
//	streamd repair [--dir DIR] [--salvage] [NAME ...]
//	streamd export [--dir DIR] [--prefix PREFIX | --name NAME] > FILE
//	streamd import [--dir DIR] < FILE
//	streamd backup [--dir DIR] TO
//	streamd restore --from s3://BUCKET/PREFIX [--dir DIR]
//
// Its flags are told by --help.
//
// Verify reads every line of every stream in a folder that no server has, and tells what is damaged. Repair cuts that
// off, keeps a copy of each file as it was, and tells what it gave up.
//
// Export prints a folder's streams, and import adds what was printed, in the form of package transfer. Backup copies
// what is new of a folder to another one, over the folder's server where that runs: only the server knows of which
// moment what is read of a stream is. Files that are read beside it may have the half of a batch, or events without the
// state that belongs to them. Restore makes a folder of what --mirror, or --storage s3://, has put on an object store.
//
// Once it listens it prints its URL on stdout, and nothing else; the log goes to stderr. Where stderr takes nothing,
// as a file on a full disk, the error that it ends with goes to stdout. Whatever the host, it
// listens on 127.0.0.1 too.
//
// A lock on the folder, flock(2), says who owns it, for as long as that process lives. The socket daemon.sock in the
// folder, mode 0600, is the folder's own door: whoever may use the folder needs no token there, and is told by GET
// /healthz what nobody else is, pid, folder, URL and flags. Where there can be no socket, as on Windows, the file
// daemon.secret has a port of this machine and a secret that each request there is to have as its bearer token. The
// files daemon.pid and daemon.port are there while the server listens; they are hints, which a crash leaves behind. The
// file daemon.args has the flags that were given, --dir excepted, for streamctl to start the server with them again
// when it has to.
//
// With --tokens every other request but GET /healthz and /readyz needs a token, those from this machine too; package
// streamhttp/tokens has the form of the file. It is read again when it changes, and on SIGHUP. The folder then has
// session.key, which signs the cookies of pages.
//
// Where it logs to daemon.log in its folder, as when streamctl has started it, SIGHUP opens that file again, or
// makes it, for who has renamed it.
//
// SIGTERM, SIGINT and, where SIGHUP has nothing to read or to open again or comes of a terminal that closes,
// SIGHUP, unless that was ignored from the start, end it cleanly within 5 seconds: subscriptions end first,
// requests that have begun are finished, also those whose body is still to come, unless that takes longer; and what
// was appended is left in a form that needs no recovery. A second signal, other than SIGHUP, ends it at once, and
// loses nothing that was acknowledged.
//
// What no flag says the environment may: STREAMD_PORT for --port, and so on. "streamd config" prints what is in force.
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
	"syscall"

	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/disk"
)

func main() {
	ctx := signalled()
	signal.Ignore(syscall.SIGPIPE)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400) // little lives long here: a request's garbage is collected a fifth as often, for some 12 MB
	}
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		said, priority := fmt.Sprintf("streamd: %s\n", daemon.Message(err)), ""
		if isJournal(os.Stderr, os.Getenv("JOURNAL_STREAM")) {
			priority = "<3>" // of an error, as newLog has it
		}
		if _, err := io.WriteString(os.Stderr, priority+said); err != nil { // the log is on a full disk, which may be what is said
			_, _ = io.WriteString(os.Stdout, said)
		}
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
