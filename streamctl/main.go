// Streamctl appends events to durable streams and reads them, and runs the server that keeps them.
//
//	streamctl stream append|get|subscribe|wait|list|close|trim|delete
//	streamctl run
//	streamctl server run|start|stop|restart|status
//	streamctl service install|uninstall|status
//	streamctl token create
//	streamctl bench
//	streamctl completion bash|zsh|fish
//	streamctl man [streamctl|streamd]
//	streamctl version
//
// Every command and every flag is told by --help, on each level. Flags are written as -x, --x or --x=v and may stand
// before and after the command's words.
//
// # The server
//
// Commands go to the server of --server, or of the folder --dir; without these to the server of the environment's
// DURABLE_STREAMS_URL, else to that of the folder .iterate in the working directory. Where a folder has none, streamd
// is started for it, detached, from beside this program or from PATH; it logs to daemon.log in the folder and lives
// until "streamctl server stop". It takes port 3000, or a free one where that is taken. A server that was given flags
// gets them again, which is said: they are kept in daemon.args in the folder, over a clean end too, until "streamctl
// server start" is given others or none. No server is started where a URL was given, nor to get, list, trim or
// delete where the folder has no streams.
//
// A folder's server is reached by the socket daemon.sock in the folder, and needs no token, certificate or port there.
// It proves that it is one: each connection is used only after the server behind it has said, on that connection, that
// the folder is its own. Where there is no socket the files daemon.secret and daemon.port say where to ask, and where
// these do not lead to it, Linux says who has the folder's lock and where that process listens. Only a process that
// holds the lock is ever signalled. Which folder it has a server tells through that socket alone: with an http URL
// "server stop" and "server restart" find no folder, and "server status" says less.
//
// A server that sends nothing for 30 seconds, while a command waits for something, has failed it; a subscription
// waits for 45, three of the server's pings.
//
// What is in the file of --token-file, else in DURABLE_STREAMS_TOKEN, is sent to servers as a bearer token. It is no
// flag, for flags are seen by everybody on the machine.
//
// # Output
//
// Data goes to stdout, one JSON value a line, or with --json where a person's form is the default, as for events and
// lists on a terminal; all else goes to stderr. There NO_COLOR and TERM=dumb take the colours away. Exit status: 0 done, 1 failed, 2 usage, 3 not running; run has that of its command. Where the reader of stdout goes away the command
// ends quietly, but an append goes on to the end of its input. With --text the text of messages is printed as it is;
// on a terminal the control characters of whatever is printed of an event, and those that turn the direction of writing,
// stand as in JSON, for whoever may append could move the reader's cursor.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/iterate/durable-streams/streamlib/daemon"
)

func main() {
	signal.Ignore(syscall.SIGPIPE) // a write to a closed pipe is errReaderGone instead
	err := run(context.Background(), os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)
	err = outcome(err, named(os.Stdout.Close())) // which on some file systems is where a write fails
	tell(os.Stderr, err)
	if i, ok := errors.AsType[interruption](err); ok {
		i.raise()
	}
	os.Exit(exitCode(err))
}

// A usageError is the caller's: what was typed is not a command.
type usageError struct {
	error
	try string // what to type next
}

func (e usageError) Unwrap() error { return e.error }

// A hintError is an error with what to type next.
type hintError struct {
	error
	try string
}

func (e hintError) Unwrap() error { return e.error }

// An interruption is a signal to end, kept back until the command has said where it was.
type interruption struct{ os.Signal }

func (i interruption) Error() string { return "interrupted" }

// raise ends the process by the signal, where the system can, so that the shell ends its loop, too.
func (i interruption) raise() {
	if self, err := os.FindProcess(os.Getpid()); err == nil && self.Signal(i.Signal) == nil {
		time.Sleep(time.Second) // another thread may be the one that takes it
	}
}

// interruptible returns a context that ends with the first signal to end, and one that ends a little later, for what
// has begun. The second signal ends the process at once.
func interruptible(ctx context.Context) (interrupted, graced context.Context, stop func()) {
	const grace = 2 * time.Second
	graced, cancel := context.WithCancelCause(ctx)
	interrupted, interrupt := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	if !signal.Ignored(os.Interrupt) { // which it is for what a script has put into the background
		signal.Notify(signals, os.Interrupt)
	}
	go func() {
		select {
		case s := <-signals:
			signal.Stop(signals)
			interrupt(interruption{s})
			time.AfterFunc(grace, func() { cancel(interruption{s}) })
		case <-interrupted.Done():
		}
	}()
	return interrupted, graced, func() { signal.Stop(signals); interrupt(nil); cancel(nil) }
}

// A toldError is one that the command's output says.
type toldError struct{ error }

func (e toldError) Unwrap() error { return e.error }

// A statusError is the end of a command that streamctl ran, whose exit status is streamctl's.
type statusError struct {
	error
	status int
}

func (e statusError) Unwrap() error { return e.error }

var (
	errNotRunning = errors.New("Not running")
	errReaderGone = errors.New("the reader of stdout has gone")
)

func exitCode(err error) int {
	_, usage := errors.AsType[usageError](err)
	ended, ran := errors.AsType[statusError](err)
	switch {
	case err == nil, err == errReaderGone:
		return 0
	case ran:
		return ended.status
	case usage:
		return 2
	case errors.Is(err, errNotRunning):
		return 3
	}
	return 1
}

// tell prints an error, and below it what to type next.
func tell(stderr io.Writer, err error) {
	if _, told := errors.AsType[toldError](err); err == nil || told || err == errReaderGone {
		return
	}
	fmt.Fprintf(stderr, "streamctl: %s\n", daemon.Message(err))
	if e, ok := errors.AsType[usageError](err); ok && e.try != "" {
		fmt.Fprintf(stderr, "Try: %s\n", e.try)
	}
	if e, ok := errors.AsType[hintError](err); ok {
		fmt.Fprintf(stderr, "Try: %s\n", e.try)
	}
}
