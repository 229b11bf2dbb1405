package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/disk"
)

const (
	verifyUsage = `Usage: streamd verify [--dir DIR]

Reads every line of every stream in the folder, with what the journal has for it, and changes none of them. A stream
that it finds damaged is marked in DIR/damaged, and takes no appends until it is repaired. No server may be running
on the folder. Exit status 1 says that something is damaged or could not be read: each file is named with the place
and the reason.
`
	repairUsage = `Usage: streamd repair [--dir DIR] [--salvage] [NAME ...]

Makes a damaged folder one that a server starts on: replays the journal, and cuts the named streams, or all where
none is named, where they are damaged. What is cut off is given up, and said; a copy of each file as it was stays
beside it. A stream that was found damaged takes appends again, also where its file was restored from a copy and is
whole. No server may be running on the folder.

  --salvage  keep the whole events behind the damage in streams/NAME.salvaged-OFFSET, one a line, and say which they
             are; jq -c .data FILE | streamctl stream append -n NAME adds them again, with other offsets
`
)

// offline runs a command on a folder that no server has: verify or repair.
func offline(ctx context.Context, command string, args []string, stdout, stderr io.Writer) error {
	usage := map[string]string{"verify": verifyUsage, "repair": repairUsage}[command]
	f := flag.NewFlagSet(command, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	dir, salvage := f.String("dir", ".iterate", ""), false
	if command == "repair" {
		f.BoolVar(&salvage, "salvage", false, "")
	}
	once(f)
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		return err
	}
	if err == nil && command == "verify" && f.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if err != nil {
		return usageError{fmt.Errorf("%s: %w", command, err)}
	}
	if *dir, err = filepath.Abs(*dir); err != nil {
		return err
	}
	if command == "verify" {
		err = verify(*dir, stdout, stderr)
	} else {
		err = disk.Repair(*dir, f.Args(), salvage, func(sentence string) { fmt.Fprintln(stdout, sentence) })
	}
	switch {
	case errors.Is(err, disk.ErrLocked):
		return taken(ctx, *dir)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w", command, err)
	}
	return err
}

func verify(dir string, stdout, stderr io.Writer) error {
	sum, err := disk.Verify(dir, progress(stderr))
	if err != nil {
		return err
	}
	for _, damage := range sum.Damage {
		fmt.Fprintln(stdout, damage)
	}
	for _, err := range sum.Unread {
		fmt.Fprintln(stdout, err)
	}
	fmt.Fprintf(stdout, "%d streams, %d events, %d bytes, %d journals to replay, %d damaged\n", sum.Streams,
		sum.Events, sum.Bytes, sum.Journals, len(sum.Damage))
	if len(sum.Damage) > 0 {
		return fmt.Errorf("%s is damaged; streamd repair --dir %s keeps what stands before the damage, with "+
			"--salvage also what is whole behind it", dir, dir)
	} else if len(sum.Unread) > 0 {
		return fmt.Errorf("%d files in %s could not be read", len(sum.Unread), dir)
	}
	return nil
}

// progress returns what writes a line on a terminal, a few times a second; nil where w is none.
func progress(w io.Writer) func(disk.Summary, int) {
	if !daemon.IsTerminal(w) {
		return nil
	}
	var last time.Time
	return func(s disk.Summary, of int) {
		if now := time.Now(); now.Sub(last) > 200*time.Millisecond || s.Streams == of {
			last = now
			fmt.Fprintf(w, "\r\x1b[K%d of %d streams, %d events", s.Streams, of, s.Events)
			if s.Streams == of {
				fmt.Fprint(w, "\r\x1b[K")
			}
		}
	}
}
