package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/object"
	"github.com/iterate/durable-streams/streamlib/transfer"
)

const restoreUsage = `Usage: streamd restore --from s3://BUCKET/PREFIX [--s3-endpoint URL] [--dir DIR]

Makes a folder with the streams of a place on an object store, as --mirror and --storage s3:// keep them: with the same
offsets, times and keys. The folder is made where there is none, and may have no streams. What was written is read
again and compared. A restoring that was interrupted is done again with the same words, and goes on; until it has
ended no server starts on the folder. A stream that cannot be read to its end keeps no other from being restored; it is
named, and the exit status is 1.
`

// restoringFile is in a folder that does not have all yet of what it is restored from, which it names.
const restoringFile = "restoring"

func (j job) restore(ctx context.Context) (err error) {
	if !isBucket(j.from) {
		return usageError{errors.New("restore: where from? streamd restore --from s3://BUCKET/PREFIX --dir DIR")}
	}
	o := bucketOptions(j.from, j.s3Endpoint)
	o.Existing, o.Patience = true, slowPatience
	from, err := object.Open(ctx, o)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	store, err := j.open(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := j.begin(ctx, store); err != nil {
		return err
	}
	meter := daemon.Meter{Progress: j.progress()}
	var done atomic.Int64
	meter.Before = func() string { return fmt.Sprintf("%d streams, ", done.Load()) }
	open := transfer.From(from)
	sum, err := transfer.Backup(ctx, func(ctx context.Context, q transfer.Query) (io.ReadCloser, error) {
		export, err := open(ctx, q)
		if err == nil && q.Name != "" {
			done.Add(1)
		}
		return struct {
			io.Reader
			io.Closer
		}{meter.Reader(export), export}, err
	}, store)
	meter.Clear()
	if _, broken := errors.AsType[*transfer.BrokenError](err); err == nil || broken {
		fmt.Fprintln(j.stdout, sum)
	}
	if err != nil {
		return fmt.Errorf("%w; do it again, or to use what there is, remove %s", err,
			daemon.ShellWord(filepath.Join(j.dir, restoringFile)))
	}
	return os.Remove(filepath.Join(j.dir, restoringFile))
}

// begin notes in the folder, durably, that it is restored, unless it has streams that are not of an interrupted one.
func (j job) begin(ctx context.Context, store streamlib.Storage) error {
	was, err := restoring(j.dir)
	if err != nil {
		return err
	}
	names, err := store.List(ctx, "", "", 1)
	switch {
	case err != nil:
		return err
	case was != "" && was != j.from:
		return fmt.Errorf("restore: %s is being restored from %s", daemon.Word(j.dir), daemon.Word(was))
	case was == "" && len(names) > 0:
		return fmt.Errorf("restore: %s has streams; restore into another folder", daemon.Word(j.dir))
	case was != "":
		return nil
	}
	f, err := daemon.OpenPlain(filepath.Join(j.dir, restoringFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	daemon.Give(f, j.dir)
	_, err = f.WriteString(j.from + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if d, err := os.Open(j.dir); err == nil {
		_ = d.Sync() // Windows cannot, and does not need it
		d.Close()
	}
	return nil
}

// restoring returns what the folder is being restored from, "" where it is not.
func restoring(dir string) (from string, err error) {
	b, _, err := daemon.Read(dir, restoringFile)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

// whole fails where the folder is being restored.
func whole(dir string) error {
	from, err := restoring(dir)
	if err == nil && from != "" {
		err = fmt.Errorf("%s has not all of %s yet, as its restoring was interrupted: streamd restore --from %s --dir %s "+
			"goes on with it", daemon.Word(dir), daemon.Word(from), daemon.ShellWord(from), daemon.ShellWord(dir))
	}
	return err
}
