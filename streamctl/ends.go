package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/daemon"
)

func streamClose(ctx context.Context, c *call) error {
	b := streamlib.Batch{Close: true}
	name, err := c.streamName()
	if err = cmp.Or(err, c.ifTail(&b)); err != nil {
		return err
	}
	client, err := c.connect(ctx)
	if err != nil {
		return err
	}
	stream := client.Stream(name)
	missing, err := absent(ctx, stream)
	if err == nil {
		_, err = c.append(ctx, stream, b, false)
	}
	if err != nil {
		return c.explain(name, fmt.Errorf("close %q: %w", name, reason(name, nobodyThere(err))))
	}
	if missing { // else a wrong name would stay unseen
		fmt.Fprintf(c.stderr, "streamctl: close %q: there was no such stream; now there is one, closed and without events\n",
			name)
	}
	return nil
}

func streamTrim(ctx context.Context, c *call) error {
	name, err := c.streamName()
	if err != nil {
		return err
	}
	before, keep, err := c.trimming(name)
	if err != nil {
		return err
	}
	client, err := c.connect(ctx)
	if err != nil {
		return c.noStreams(err)
	}
	stream := client.Stream(name)
	was, err := stream.Stat(ctx)
	if err != nil {
		return c.explain(name, err)
	}
	if none(was) {
		c.noStream(name, "")
		return nil
	}
	if keep > 0 { // what is appended meanwhile is kept beside them
		err = stream.TrimIf(ctx, max(0, was.Tail-keep), was.Life)
	} else {
		err = stream.Trim(ctx, before)
	}
	if err != nil {
		return c.explain(name, err)
	}
	if !c.has("json") && !daemon.IsTerminal(c.stderr) {
		return nil
	}
	is, err := stream.Stat(ctx)
	if err != nil {
		return c.explain(name, fmt.Errorf("the events are dropped, but how many is not known: %w", err))
	}
	dropped := max(0, is.First-was.First)
	if c.has("json") {
		return c.printJSON(struct {
			Name       string `json:"name"`
			Dropped    int64  `json:"dropped"`
			First      string `json:"first"`
			NextOffset string `json:"nextOffset"`
		}{name, int64(dropped), is.First.String(), is.Tail.String()})
	}
	fmt.Fprintf(c.stderr, "streamctl: trim %q: events dropped: %d, kept: %d", name, dropped, is.Tail-is.First)
	if is.First < is.Tail {
		fmt.Fprintf(c.stderr, ", from offset %d on", is.First)
	}
	fmt.Fprintln(c.stderr)
	return nil
}

// trimming returns what --before or --keep says: the offset before which all goes, or how many events stay, 0 where
// the offset says it.
func (c *call) trimming(name string) (before, keep streamlib.Offset, err error) {
	switch {
	case c.has("before") == c.has("keep"):
		return 0, 0, usageError{fmt.Errorf("%s: which events go? Give one of --before OFFSET and --keep N", c.name),
			"streamctl " + c.name + " -n " + daemon.ShellWord(name) + " --keep 1000"}
	case c.has("before"):
		if before, err = streamlib.ParseOffset(c.value("before")); err != nil || before < 0 && before != streamlib.Now {
			err = c.usageErr("--before %q: it takes the offset of the first event to keep, or now to keep none",
				c.value("before"))
		}
		return before, 0, err
	}
	n, err := strconv.ParseInt(c.value("keep"), 10, 64)
	if err != nil || n < 0 {
		return 0, 0, c.usageErr("--keep %q: it takes how many of the last events to keep, 0 for none", c.value("keep"))
	}
	return streamlib.Now, streamlib.Offset(n), nil
}
