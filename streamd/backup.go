package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/disk"
	"github.com/iterate/durable-streams/streamlib/transfer"
)

const backupUsage = `Usage: streamd backup [--dir DIR] TO

Makes TO a copy of the folder, which may have a server: each stream as it is at one moment, also what it drops and that
it is closed. TO is a folder of its own, made where there is none, that a server can be started on at once. Done again,
it reads what is new alone: streams that were deleted are deleted in TO. What was written is read again and compared.

A stream that cannot be read, or of which TO has more than there is, keeps no other from being copied; it is named, and
the exit status is 1.
`

func (j job) backup(ctx context.Context) (err error) {
	if len(j.words) == 0 {
		return usageError{errors.New("backup: where to? streamd backup --dir DIR TO")}
	}
	to := job{stderr: j.stderr}
	if to.dir, err = filepath.Abs(j.words[0]); err != nil {
		return err
	}
	if within(to.dir, j.dir) {
		return usageError{errors.New("backup: the folder cannot be its own copy, nor have it in it")}
	}
	from, end, err := j.origin(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	target, err := to.open(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	meter := daemon.Meter{Progress: j.progress()}
	metered := func(ctx context.Context, q transfer.Query) (io.ReadCloser, error) {
		export, err := from(ctx, q)
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{meter.Reader(export), export}, nil
	}
	sum, err := transfer.Backup(ctx, metered, target)
	meter.Clear()
	if _, broken := errors.AsType[*transfer.BrokenError](err); err == nil || broken {
		fmt.Fprintln(j.stdout, sum)
	}
	return err
}

// within tells whether a folder, which need not be there yet, is dir or in it.
func within(folder, dir string) bool {
	of, err := os.Stat(dir)
	for err == nil {
		if info, err := os.Stat(folder); err == nil && os.SameFile(info, of) {
			return true
		}
		above := filepath.Dir(folder)
		if above == folder {
			break
		}
		folder = above
	}
	return false
}

// origin returns what exports the folder's streams: its server where it has one, else the folder itself, which is taken
// until end. Files are never read beside a server: what was trimmed, and what a stream has beside events, may be in its
// memory and journal alone. The server must have proved that the folder is its own, or another one's streams would take
// the place of what the copy has.
func (j job) origin(ctx context.Context) (from transfer.Opener, end func() error, err error) {
	if err = j.present(); err == nil {
		var store *disk.Store
		if store, err = j.open(ctx, 100); err == nil { // each is read once, and the copy needs files, too
			return transfer.From(store), store.Close, nil
		}
	}
	if !errors.Is(err, disk.ErrLocked) && !errors.Is(err, fs.ErrNotExist) { // as of a server that keeps none of it
		return nil, nil, err
	}
	client, _, unknown := ask(ctx, j.dir)
	if unknown != nil {
		return nil, nil, err
	}
	client.Patience = 30 * time.Second
	return client.Export, func() error { return nil }, nil
}
