package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/disk"
)

const (
	verifyUsage = `Usage: streamd verify [--dir DIR]
       streamd verify --storage s3://BUCKET/PREFIX [--s3-endpoint URL]

Reads every line of every stream in the folder, with what the journal has for it, and changes none of them. A stream
that it finds damaged is marked in DIR/damaged, and takes no appends until it is repaired. No server may be running
on the folder. Exit status 1 says that something is damaged or could not be read: each file is named with the place
and the reason.

With --storage it reads every object of a place on an object store, also while servers use it, and changes nothing:
checksums, that no event is missing and none there twice, and what overlaps, which the next collecting removes.
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

// A job is what is done with a folder beside serving it.
type job struct {
	dir            string // absolute
	words          []string
	salvage        bool
	dumb           bool // the terminal
	prefix, name   string
	from           string // s3://BUCKET/PREFIX
	storage        string // the same
	s3Endpoint     string
	stdin          io.Reader
	stdout, stderr io.Writer
}

// jobs are the commands beside serving.
var jobs = map[string]struct {
	usage string
	flags string // beside --dir
	words int    // it takes, -1 any number
	run   func(j job, ctx context.Context) error
}{
	"verify":  {verifyUsage, "storage s3-endpoint", 0, job.verify},
	"repair":  {repairUsage, "salvage", -1, job.repair},
	"export":  {exportUsage, "prefix name", 0, job.export},
	"import":  {importUsage, "", 0, job.take},
	"backup":  {backupUsage, "", 1, job.backup},
	"restore": {restoreUsage, "from s3-endpoint", 0, job.restore},
}

// do does the job called command.
func (j job) do(ctx context.Context, command string, args []string) error {
	does := jobs[command]
	f := flag.NewFlagSet(command, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&j.dir, "dir", ".iterate", "")
	for _, name := range strings.Fields(does.flags) {
		switch name {
		case "salvage":
			f.BoolVar(&j.salvage, name, false, "")
		case "prefix":
			f.StringVar(&j.prefix, name, "", "")
		case "from":
			f.StringVar(&j.from, name, "", "")
		case "storage":
			f.StringVar(&j.storage, name, "", "")
		case "s3-endpoint":
			f.StringVar(&j.s3Endpoint, name, "", "")
		case "name":
			f.StringVar(&j.name, name, "", "")
		}
	}
	once(f)
	var err error
	j.words, err = parseAnywhere(f, args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(j.stdout, does.usage)
		return err
	}
	if err == nil && does.words >= 0 && len(j.words) > does.words {
		err = fmt.Errorf("unexpected argument %q", j.words[does.words])
	}
	if err != nil {
		return usageError{fmt.Errorf("%s: %w", command, err)}
	}
	if j.dir, err = filepath.Abs(j.dir); err != nil {
		return err
	}
	if err = does.run(j, ctx); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", command, err)
	}
	return err
}

// parseAnywhere reads flags that may stand before and behind the words that it returns, up to "--".
func parseAnywhere(f *flag.FlagSet, args []string) (words []string, err error) {
	for {
		if err := f.Parse(args); err != nil {
			return nil, err
		}
		read := len(args) - f.NArg()
		if f.NArg() == 0 || read > 0 && args[read-1] == "--" {
			return append(words, f.Args()...), nil
		}
		words, args = append(words, f.Arg(0)), f.Args()[1:]
	}
}

func (j job) repair(ctx context.Context) error {
	p := j.progress()
	begun := time.Now()
	defer p.Clear()
	return whenFree(ctx, j.dir, func() error {
		tell := func(sentence string) { p.Clear(); fmt.Fprintln(j.stdout, sentence) }
		return disk.Repair(j.dir, j.words, j.salvage, tell, func(done, of int) {
			p.Show(func() string { return fmt.Sprintf("%d of %d streams%s", done, of, daemon.Left(begun, done, of)) })
		})
	})
}

func (j job) verify(ctx context.Context) error {
	if j.storage != "" {
		return j.verifyBucket(ctx)
	}
	var sum disk.Summary
	err := whenFree(ctx, j.dir, func() (err error) {
		sum, err = disk.Verify(j.dir, verifying(j.progress()))
		return err
	})
	if err != nil {
		return err
	}
	for _, damage := range sum.Damage {
		fmt.Fprintln(j.stdout, daemon.Message(damage))
	}
	for _, err := range sum.Unread {
		fmt.Fprintln(j.stdout, daemon.Message(err))
	}
	fmt.Fprintf(j.stdout, "%d streams, %d events, %d bytes, %d journals to replay, %d damaged\n", sum.Streams,
		sum.Events, sum.Bytes, sum.Journals, len(sum.Damage))
	if len(sum.Damage) > 0 {
		return fmt.Errorf("%s is damaged; streamd repair --dir %s keeps what stands before the damage, with "+
			"--salvage also what is whole behind it", daemon.Word(j.dir), daemon.ShellWord(j.dir))
	} else if len(sum.Unread) == 1 {
		return fmt.Errorf("1 file in %s could not be read", daemon.Word(j.dir))
	} else if len(sum.Unread) > 0 {
		return fmt.Errorf("%d files in %s could not be read", len(sum.Unread), daemon.Word(j.dir))
	}
	return nil
}

// progress returns one on stderr, nil where that is no terminal, or one that can do no more than print.
func (j job) progress() *daemon.Progress {
	if j.dumb {
		return nil
	}
	return daemon.NewProgress(j.stderr)
}

// verifying returns what shows how far a verification is; nil where p is.
func verifying(p *daemon.Progress) func(disk.Summary, int) {
	if p == nil {
		return nil
	}
	begun := time.Now()
	return func(s disk.Summary, of int) {
		p.Show(func() string {
			return fmt.Sprintf("%d of %d streams, %d events%s", s.Streams, of, s.Events, daemon.Left(begun, s.Streams, of))
		})
		if s.Streams == of {
			p.Clear()
		}
	}
}
