package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/iterate/durable-streams/streamctl/internal/bench"
	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

func benchServer(ctx context.Context, c *call) error {
	token, err := c.token()
	if err != nil {
		return err
	}
	l := bench.Load{Token: token}
	for _, f := range []struct {
		flag                string
		value               *int
		preset, least, most int
	}{
		{"conns", &l.Conns, 16, 1, 100_000},
		{"streams", &l.Streams, 1, 1, 1_000_000},
		{"size", &l.Size, 200, bench.MinSize, 8 << 20},
		{"batch", &l.Batch, 1, 1, 1_000_000},
		{"rate", &l.Rate, 0, 0, 1 << 30},
		{"subscribers", &l.Subscribers, 0, 0, 100_000},
	} {
		*f.value = f.preset
		if !c.has(f.flag) {
			continue
		}
		n, err := strconv.Atoi(c.value(f.flag))
		if err != nil || n < f.least || n > f.most {
			return c.usageErr("--%s %q: it takes a number from %d to %d", f.flag, c.value(f.flag), f.least, f.most)
		}
		*f.value = n
	}
	l.Duration = 10 * time.Second
	if err := c.duration("duration", &l.Duration); err != nil {
		return err
	}
	if l.Duration == 0 {
		return c.usageErr("--duration 0: it takes a time such as 10s")
	}
	l.Warmup = min(l.Duration/10, time.Second)
	l.Duration -= l.Warmup
	client, err := c.connect(ctx)
	if err != nil {
		return err
	}
	l.URL = client.URL
	if err := c.bare(ctx, &l); err != nil {
		return err
	}
	if daemon.IsTerminal(c.stderr) {
		l.Progress = func(p bench.Progress) {
			fmt.Fprintf(c.stderr, "\r%s  %d appended, %d delivered, %d failed \x1b[K", p.Elapsed.Round(time.Second),
				p.Appended, p.Delivered, p.Failed)
		}
	}
	interrupted, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(interrupted, stop) // a second signal ends it at once
	result, err := bench.Run(interrupted, l)
	if l.Progress != nil {
		fmt.Fprint(c.stderr, "\r\x1b[K")
	}
	if err != nil && len(result.Streams) == 0 {
		if unreachable(err) {
			err = &streamhttp.NoAnswerError{URL: l.URL, Err: err}
		}
		return c.explain("", err)
	}
	return outcome(errors.Join(benchFailure(result), err), c.printBench(l, result))
}

// benchFailure is the error for a result that a good server does not give.
func benchFailure(r bench.Result) error {
	switch {
	case r.Failed > 0:
		return fmt.Errorf("%d requests failed, the first: %w", r.Failed, r.Err)
	case r.Missing+r.Duplicate+r.OutOfOrder > 0:
		return errors.New("subscribers did not get each event once and in order")
	}
	return nil
}

// benchTimes are in milliseconds.
type benchTimes struct {
	Events int64   `json:"events"`
	Rate   float64 `json:"rate"` // events a second
	P50    float64 `json:"p50Ms"`
	P90    float64 `json:"p90Ms"`
	P99    float64 `json:"p99Ms"`
	Max    float64 `json:"maxMs"`
}

func timesOf(events int64, rate float64, s bench.Summary) benchTimes {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return benchTimes{events, float64(int64(rate*10)) / 10, ms(s.P50), ms(s.P90), ms(s.P99), ms(s.Max)}
}

func (c *call) printBench(l bench.Load, r bench.Result) error {
	appended, delivered := timesOf(r.Appended, r.AppendRate, r.Append), timesOf(r.Delivered, r.DeliveryRate, r.Delivery)
	if c.has("json") {
		return c.printJSON(struct {
			Server      string     `json:"server"`
			Conns       int        `json:"conns"`
			Streams     int        `json:"streams"`
			Size        int        `json:"size"`
			Batch       int        `json:"batch"`
			TargetRate  int        `json:"targetRate"`
			Subscribers int        `json:"subscribers"`
			Append      benchTimes `json:"append"`
			Failed      int64      `json:"failed"`
			Delivery    benchTimes `json:"delivery"`
			Missing     int64      `json:"missing"`
			Duplicate   int64      `json:"duplicate"`
			OutOfOrder  int64      `json:"outOfOrder"`
		}{l.URL, l.Conns, l.Streams, l.Size, l.Batch, l.Rate, l.Subscribers, appended, r.Failed, delivered, r.Missing, r.Duplicate, r.OutOfOrder})
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "\tevents\tevents/s\tp50 ms\tp90 ms\tp99 ms\tmax ms\t\n")
	row := func(name string, t benchTimes) {
		fmt.Fprintf(w, "%s\t%d\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t\n", name, t.Events, t.Rate, t.P50, t.P90, t.P99, t.Max)
	}
	row("append", appended)
	if l.Subscribers > 0 {
		row("delivery", delivered)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%d requests failed", r.Failed)
	if l.Subscribers > 0 {
		fmt.Fprintf(c.stdout, "; of the events, subscribers missed %d, got %d twice and %d out of order", r.Missing,
			r.Duplicate, r.OutOfOrder)
	}
	_, err := fmt.Fprintln(c.stdout)
	return err
}
