package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/disk"
	"github.com/iterate/durable-streams/streamlib/transfer"
)

const (
	exportUsage = `Usage: streamd export [--dir DIR] [--prefix PREFIX | --name NAME] > FILE

Prints the streams of a folder, or those that are meant, as lines of JSON, which streamd import and streamctl import
take. No server may be running on the folder; with one, streamctl export does the same. A stream that cannot be read to
its end does not keep the others from being printed; the exit status is 1 then.
`
	importUsage = `Usage: streamd import [--dir DIR] < FILE

Adds what streamd export or streamctl export printed to the streams of a folder, with the same offsets, times, keys and
bytes, and prints how many events were new. A folder that is not there is made. A stream that is there, and has other
events, is refused. An import that was interrupted is done again with the same input, and adds what is missing. No
server may be running on the folder; with one, streamctl import does the same.
`
)

// open opens the folder when no server has it. Files is how many of streams stay open, 0 what a server would take.
func (j job) open(ctx context.Context, files int) (store *disk.Store, err error) {
	log := slog.New(slog.NewTextHandler(j.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	err = whenFree(ctx, j.dir, func() (err error) {
		store, err = disk.Open(j.dir, disk.Options{Log: log, MaxOpen: files})
		return err
	})
	return store, err
}

// present fails where the folder has no streams: disk.Open would make it one that could have some.
func (j job) present() error {
	_, err := os.Stat(filepath.Join(j.dir, "streams"))
	return err
}

func (j job) export(ctx context.Context) (err error) {
	q := transfer.Query{Prefix: j.prefix, Name: j.name}
	if q.Prefix != "" && q.Name != "" {
		return usageError{errors.New("export: --name and --prefix contradict each other")}
	}
	if q.Name != "" {
		if err := streamlib.CheckName(q.Name); err != nil {
			return usageError{fmt.Errorf("export: %w", err)}
		}
	}
	if err := j.present(); err != nil {
		return err
	}
	store, err := j.open(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var meter daemon.Meter
	if !daemon.IsTerminal(j.stdout) {
		meter.Progress = j.progress()
	}
	if meter.Progress != nil {
		meter.Of = sizes(ctx, store, q)
	}
	_, err = transfer.Export(ctx, store, meter.Writer(j.stdout), q)
	meter.Clear()
	return err
}

// sizes returns about how many bytes an export has.
func sizes(ctx context.Context, store streamlib.Storage, q transfer.Query) (size int64) {
	names := []string{q.Name}
	if q.Name == "" {
		names, _ = store.List(ctx, q.Prefix, "", 0)
	}
	for _, name := range names {
		info, _ := store.Stat(ctx, name)
		size += info.Size
	}
	return size
}

func (j job) take(ctx context.Context) (err error) {
	if daemon.IsTerminal(j.stdin) {
		return usageError{errors.New("import: it reads an export from its input: streamd import < FILE")}
	}
	store, err := j.open(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	meter := daemon.Meter{Progress: j.progress(), Of: daemon.Remaining(j.stdin)}
	sum, err := transfer.Import(ctx, store, meter.Reader(until(ctx, j.stdin)))
	meter.Clear()
	if _, broken := errors.AsType[*transfer.BrokenError](err); err == nil || broken {
		fmt.Fprintln(j.stdout, sum)
	}
	return err
}

// until returns what reads from r until ctx is done. A read of r cannot be ended: what does it ends with it, or with
// the process.
func until(ctx context.Context, r io.Reader) io.Reader {
	in, out := io.Pipe()
	go func() {
		_, err := io.Copy(out, r)
		out.CloseWithError(err)
	}()
	context.AfterFunc(ctx, func() { in.CloseWithError(context.Cause(ctx)) })
	return in
}
