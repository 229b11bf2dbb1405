package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/iterate/durable-streams/streamlib/transfer"
)

func exportStreams(ctx context.Context, c *call) error {
	q := transfer.Query{Prefix: c.value("prefix"), Name: c.value("name")}
	err := c.contradicting("name", "prefix")
	if err == nil && c.has("name") {
		_, err = c.streamName()
	}
	if err != nil {
		return err
	}
	client, err := c.connect(ctx)
	if err != nil {
		return c.noStreams(err)
	}
	meter := daemon.Meter{Progress: c.progress()}
	if meter.Progress != nil {
		meter.Of = sizes(ctx, client, q)
	}
	body, err := client.Export(ctx, q)
	if err != nil {
		return c.explain("", err)
	}
	defer body.Close()
	sum, err := transfer.Check(ctx, meter.Reader(io.TeeReader(body, c.stdout)))
	if meter.Clear(); err != nil {
		return c.explain("", err)
	}
	if sum.Streams == 0 && c.has("name") {
		c.noStream(q.Name, "")
	}
	return nil
}

// progress returns a progress on stderr, nil where that is no terminal, or the output stands there.
func (c *call) progress() *daemon.Progress {
	if daemon.IsTerminal(c.stdout.under) || c.dumb() {
		return nil
	}
	return daemon.NewProgress(c.stderr)
}

// sizes returns about how many bytes an export has, 0 where that is not known.
func sizes(ctx context.Context, client *streamhttp.Client, q transfer.Query) (size int64) {
	o := streamhttp.ListOptions{Prefix: cmp.Or(q.Name, q.Prefix), Details: true, Limit: 1000}
	for {
		page, err := client.List(ctx, o)
		if err != nil {
			return 0
		}
		for _, info := range page.Streams {
			if q.Name == "" || q.Name == info.Name {
				size += info.Size
			}
		}
		if o.After = page.Next; o.After == "" || q.Name != "" {
			return size
		}
	}
}

func importStreams(ctx context.Context, c *call) error {
	if daemon.IsTerminal(c.stdin) {
		return c.usageErr("it reads an export from its input: streamctl import < FILE")
	}
	client, err := c.connect(ctx)
	if err != nil {
		return err
	}
	meter := daemon.Meter{Of: daemon.Remaining(c.stdin)}
	if !c.dumb() {
		meter.Progress = daemon.NewProgress(c.stderr)
	}
	sum, err := client.Import(ctx, meter.Reader(c.stdin))
	meter.Clear()
	_, broken := errors.AsType[*transfer.BrokenError](err)
	if err == nil || broken {
		if c.has("json") {
			line, _ := json.Marshal(sum)
			fmt.Fprintf(c.stdout, "%s\n", line)
		} else {
			fmt.Fprintln(c.stdout, sum)
		}
	}
	if answer, ok := errors.AsType[*streamhttp.Error](err); err != nil && !broken && (!ok || answer.Status >= 500) &&
		!errors.Is(err, streamlib.ErrInvalid) {
		err = hintError{c.explain("", err), "the same again, which adds what is not there yet"}
		return err
	}
	return c.explain("", err)
}
