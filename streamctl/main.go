// Streamctl appends events to durable streams and reads them, and runs the server that keeps them.
//
//	streamctl stream append -n NAME -m TEXT             append {"type":"message","text":TEXT}
//	streamctl stream append -n NAME -e JSON             append a JSON value
//	streamctl stream append -n NAME < LINES             append each line, a JSON value
//	streamctl stream get -n NAME                        print the events there are
//	streamctl stream subscribe -n NAME                  print events as they come
//	streamctl stream wait -n NAME --type TYPE           print the first event of a type, once there is one
//	streamctl stream list                               print the streams' names
//	streamctl stream delete -n NAME                     delete a stream
//	streamctl server run|start|stop|restart|status      the server of this folder
//	streamctl bench                                     measure a server under load
//
// Every command and every flag is told by --help, on each level. Flags are written as -x, --x or --x=v and may stand before
// and after the command's words.
//
// # The server
//
// Commands go to the server of --server, or of the folder --dir; without these to the server of the environment's
// DURABLE_STREAMS_URL, else to that of the folder .iterate in the working directory. Where a folder has none, streamd is started for
// it, detached, from beside this program or from PATH; it logs to daemon.log in the folder and lives until "streamctl server
// stop". It takes port 3000, or a free one where that is taken. No server is started where a URL was given, nor to get, list or
// delete where the folder has no streams.
//
// A folder's server proves that it is one: the files daemon.pid and daemon.port are only where to ask, and each
// connection is used only after the server behind it has said, on that connection, that the folder is its own. Only a process
// that holds the folder's lock is ever signalled.
//
// DURABLE_STREAMS_TOKEN is sent to servers as a bearer token.
//
// # Output
//
// Data goes to stdout, one JSON value a line, or with --json where a person's form is the default; all else goes to stderr.
// Exit status: 0 done, 1 failed, 2 usage, 3 not running. Where the reader of stdout goes away the command ends quietly.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
)

func main() {
	signal.Ignore(syscall.SIGPIPE) // a write to a closed pipe is errReaderGone instead
	err := run(context.Background(), os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)
	tell(os.Stderr, err)
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

var (
	errNotRunning = errors.New("Not running")
	errTold       = errors.New("the command's output has said it")
	errReaderGone = errors.New("the reader of stdout has gone")
)

func exitCode(err error) int {
	_, usage := errors.AsType[usageError](err)
	switch {
	case err == nil, errors.Is(err, errReaderGone):
		return 0
	case usage:
		return 2
	case errors.Is(err, errNotRunning):
		return 3
	}
	return 1
}

// tell prints an error, and below it what to type next.
func tell(stderr io.Writer, err error) {
	if err == nil || errors.Is(err, errTold) || errors.Is(err, errReaderGone) {
		return
	}
	fmt.Fprintf(stderr, "streamctl: %v\n", err)
	if e, ok := errors.AsType[usageError](err); ok && e.try != "" {
		fmt.Fprintf(stderr, "Try: %s\n", e.try)
	}
	if e, ok := errors.AsType[hintError](err); ok {
		fmt.Fprintf(stderr, "Try: %s\n", e.try)
	}
}

// buildVersion is what the go command stamped into the binary.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := strings.Trim(info.Main.Version, "()")
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			version += "-" + s.Value[:min(12, len(s.Value))]
		}
	}
	return version
}
