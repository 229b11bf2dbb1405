package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/daemon"
)

const (
	// A batch of lines from stdin ends at this many lines or bytes, or when the input pauses.
	batchLines = 1000
	batchBytes = 1 << 20
	// maxLine is the longest line that any server takes.
	maxLine = streamlib.MaxBatch
	// answerTime is how long a server may take to look for an event that is there.
	answerTime = 30 * time.Second
	// retryTime is how long an append with a key is tried again after its outcome was open.
	retryTime = 30 * time.Second
)

func streamAppend(ctx context.Context, c *call) error {
	name, err := c.streamName()
	if err != nil {
		return err
	}
	if err := c.contradicting("message", "event"); err != nil {
		return err
	}
	b := streamlib.Batch{Key: c.value("key")}
	if c.has("key") {
		if err := streamlib.CheckName(b.Key); err != nil {
			return c.usageErr("--key %q: it takes 1 to 255 bytes of UTF-8 without control characters", b.Key)
		}
	}
	if c.has("if-tail") {
		tail, err := streamlib.ParseOffset(c.value("if-tail"))
		if err != nil || tail < 0 {
			return c.usageErr("--if-tail %q: it takes the offset that the event will get, 0 for the first", c.value("if-tail"))
		}
		b.IfTail = &tail
	}
	switch {
	case c.has("message"):
		data, err := message(c.value("message"))
		if err != nil {
			return c.usageErr("-m: %w", err)
		}
		b.Data = []json.RawMessage{data}
	case c.has("event"):
		if err := valid([]byte(c.value("event"))); err != nil {
			return usageError{fmt.Errorf("%s: -e %s: %w; the shell takes quotes away unless the JSON stands in single "+
				"ones", c.name, clip(c.value("event")), err),
				"streamctl " + c.name + ` -n ` + name + ` -e '{"type":"greeting","text":"hello"}'`}
		}
		b.Data = []json.RawMessage{json.RawMessage(c.value("event"))}
	case daemon.IsTerminal(c.stdin):
		return usageError{fmt.Errorf("%s: nothing to append: give -m TEXT, -e JSON, or lines of JSON on stdin", c.name),
			"streamctl " + c.name + " -n " + name + " -m hello"}
	default:
		return c.appendLines(ctx, name, b)
	}
	client, err := c.connect(ctx)
	if err != nil {
		return err
	}
	receipt, err := c.append(ctx, client.Stream(name), b, false)
	if err != nil {
		return c.explain(name, fmt.Errorf("append %q: %w", name, reason(name, nobodyThere(err))))
	}
	return unprinted(name, len(receipt.Events), c.printEvents(receipt.Events))
}

// message returns the event of --message.
func message(text string) (json.RawMessage, error) {
	if !utf8.ValidString(text) {
		return nil, errors.New("the text is not UTF-8")
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}{"message", text})
	return bytes.TrimSpace(b.Bytes()), err
}

// valid tells why data is no JSON value.
func valid(data []byte) error {
	var v json.RawMessage
	if err := json.Unmarshal(data, &v); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	if !utf8.Valid(data) {
		return errors.New("not UTF-8")
	}
	return nil
}

// append appends b. Where b has a key, and the outcome of a try is open, it tries again for a while; where nobody
// listens it does so only if somebody has answered before.
func (c *call) append(ctx context.Context, s streamlib.Stream, b streamlib.Batch,
	answered bool) (streamlib.Receipt, error) {
	deadline := time.Now().Add(retryTime)
	told, left := false, false
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		receipt, err := s.Append(ctx, b)
		if err == nil {
			return receipt, nil
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		left = left || leftOpen(err)
		if b.Key == "" || refused(err) || !answered && unreachable(err) || ctx.Err() != nil || time.Now().After(deadline) {
			if left && !refused(err) {
				err = openError{err, len(b.Data)}
			}
			return receipt, err
		}
		answered = true
		if !told && wait > time.Second {
			told = true
			fmt.Fprintf(c.stderr, "streamctl: %v; trying again\n", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// refused tells whether the server has said that it stored nothing, for a reason that stays.
func refused(err error) bool {
	_, conflict := errors.AsType[*streamlib.ConflictError](err)
	_, damaged := errors.AsType[*streamlib.CorruptError](err)
	return conflict || damaged || refusedData(err) || errors.Is(err, streamlib.ErrFull) || lasting(err)
}

// refusedData tells whether it said so because of an event.
func refusedData(err error) bool {
	_, veto := errors.AsType[*streamlib.HookError](err)
	return veto || errors.Is(err, streamlib.ErrInvalid) || errors.Is(err, streamlib.ErrTooLarge)
}

// leftOpen tells whether the server may have stored what err is the answer to.
func leftOpen(err error) bool {
	return !refused(err) && !unreachable(err) && !errors.Is(err, streamlib.ErrUnavailable)
}

// An openError is that of an append whose outcome is open.
type openError struct {
	error
	events int
}

func (e openError) Error() string {
	if e.events == 1 {
		return e.error.Error() + ", which leaves open whether the event was appended"
	}
	return fmt.Sprintf("%v, which leaves open whether %d events were appended", e.error, e.events)
}

func (e openError) Unwrap() error { return e.error }

// A line is an event on stdin.
type line struct {
	number int
	data   json.RawMessage
}

// A lineError is what stands against a line of stdin.
type lineError struct {
	number int
	error
}

func (e lineError) Error() string { return fmt.Sprintf("line %d: %v", e.number, e.error) }

func (e lineError) Unwrap() error { return e.error }

// appender appends lines in batches, each with a key of its own, so that trying again never doubles a line.
type appender struct {
	*call
	name     string
	stream   streamlib.Stream // nil until there is a line
	run      string           // what the keys of this run begin with
	count    int              // events appended
	last     int              // the line of the last one
	printing error            // why stdout takes no more; lines are appended all the same
	progress func(count int, end bool)
}

// appendLines appends the lines of stdin. With a key or a condition they are one append, all or nothing.
func (c *call) appendLines(ctx context.Context, name string, whole streamlib.Batch) error {
	a := &appender{call: c, name: name, run: "streamctl-" + rand.Text(), progress: func(int, bool) {}}
	if daemon.IsTerminal(c.stderr) && !daemon.IsTerminal(c.stdout.under) {
		a.progress = progressLine(c.stderr)
	}
	interrupted, ctx, stop := interruptible(ctx)
	defer stop()
	atomic := whole.Key != "" || whole.IfTail != nil
	type batch struct {
		lines []line
		err   error // behind them
	}
	batches := make(chan batch)
	go func() { // a read of stdin cannot be ended: this ends with it, or with the process
		defer close(batches)
		for lines, err := range readBatches(c.stdin, atomic) {
			select {
			case batches <- batch{lines, err}:
			case <-interrupted.Done():
				return
			}
		}
	}()
	for {
		select {
		case <-interrupted.Done():
			return a.failed(context.Cause(interrupted))
		case b, more := <-batches:
			var err error
			switch {
			case !more:
				a.progress(a.count, true)
				return unprinted(a.name, a.count, a.printing)
			case atomic && b.err == nil:
				err = a.sendWhole(ctx, b.lines, whole)
			case !atomic:
				err = a.send(ctx, b.lines)
			}
			if err := cmp.Or(err, b.err); err != nil {
				return a.failed(err)
			}
		}
	}
}

// readBatches yields the lines of in, those that are there together in one batch, and with the last of them why no
// more can be read. A whole input is one batch.
func readBatches(stdin io.Reader, whole bool) iter.Seq2[[]line, error] {
	return func(yield func([]line, error) bool) {
		in := bufio.NewReaderSize(stdin, batchBytes)
		var batch []line
		size := 0
		for number := 1; ; number++ {
			data, err := readLine(in)
			end := err == io.EOF
			if end || err == nil {
				if data, err = lineValue(data, number == 1); err != nil {
					err = lineError{number, err}
				}
			}
			if err == nil && len(data) > 0 {
				batch = append(batch, line{number, data})
				size += len(data)
			}
			if whole && size > streamlib.MaxBatch {
				err = lineError{number, fmt.Errorf("with --key or --if-tail all lines are one append, of at most %d bytes",
					streamlib.MaxBatch)}
			}
			switch {
			case err != nil:
				yield(batch, err)
				return
			case end:
				yield(batch, nil)
				return
			case !whole && (len(batch) == batchLines || size >= batchBytes || !lineReady(in)):
				if !yield(batch, nil) {
					return
				}
				batch, size = nil, 0
			}
		}
	}
}

// lineValue returns the JSON value of a line, nothing where that is blank. The first one may begin with a byte order
// mark.
func lineValue(data []byte, first bool) (json.RawMessage, error) {
	if first {
		halves := len(data) > 1 && (data[0] == 0) != (data[1] == 0)
		// As PowerShell writes.
		if halves || bytes.HasPrefix(data, []byte("\xFF\xFE")) || bytes.HasPrefix(data, []byte("\xFE\xFF")) {
			return nil, hintError{errors.New("the input looks like UTF-16 and must be UTF-8"),
				"iconv -f UTF-16 -t UTF-8 FILE, and append what that prints"}
		}
		data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	}
	if data = bytes.TrimSpace(data); len(data) == 0 {
		return nil, nil
	}
	if len(data) > maxLine {
		return nil, fmt.Errorf("%w: it is over %d bytes", streamlib.ErrTooLarge, maxLine)
	}
	return data, valid(data)
}

// readLine returns the next line, which is the caller's. The last one may lack its end and comes with io.EOF. One
// that is longer than any server takes is cut.
func readLine(in *bufio.Reader) (data []byte, err error) {
	for {
		part, err := in.ReadSlice('\n')
		data = append(data, part...)
		if err != bufio.ErrBufferFull {
			return data, err
		}
		if len(data) > maxLine {
			return data, nil
		}
	}
}

// lineReady tells whether a whole line can be had without waiting.
func lineReady(in *bufio.Reader) bool {
	b, _ := in.Peek(in.Buffered())
	return bytes.IndexByte(b, '\n') >= 0
}

// send appends lines as one batch. Where the server refuses that for one of them, the lines before that one are
// appended and the error names it.
func (a *appender) send(ctx context.Context, lines []line) error {
	if len(lines) == 0 {
		return nil
	}
	key := fmt.Sprintf("%s-%d-%d", a.run, lines[0].number, len(lines))
	err := a.sendWhole(ctx, lines, streamlib.Batch{Key: key})
	if !refusedData(err) {
		return err
	}
	if len(lines) == 1 {
		return lineError{lines[0].number, err}
	}
	half := len(lines) / 2
	if err := a.send(ctx, lines[:half]); err != nil {
		return err
	}
	return a.send(ctx, lines[half:])
}

// sendWhole appends lines as the data of b.
func (a *appender) sendWhole(ctx context.Context, lines []line, b streamlib.Batch) error {
	if len(lines) == 0 {
		return nil
	}
	for _, l := range lines {
		b.Data = append(b.Data, l.data)
	}
	if a.stream == nil {
		client, err := a.connect(ctx)
		if err != nil {
			return err
		}
		a.stream = client.Stream(a.name)
	}
	receipt, err := a.append(ctx, a.stream, b, a.count > 0)
	if err != nil {
		return reason(a.name, err)
	}
	a.count += len(receipt.Events)
	a.last = lines[len(lines)-1].number
	a.progress(a.count, false)
	if a.printing == nil {
		a.printing = a.printEvents(receipt.Events)
	}
	return nil
}

// reason is err, of an append, without what stands before it: the operation, the stream, and which event of one it
// was.
func reason(name string, err error) error {
	words := strings.TrimPrefix(err.Error(), fmt.Sprintf("append %q: ", name))
	return rewordedError{strings.TrimPrefix(words, "invalid event 1: "), err}
}

// A rewordedError is an error in other words.
type rewordedError struct {
	words string
	error
}

func (e rewordedError) Error() string { return e.words }

func (e rewordedError) Unwrap() error { return e.error }

// unprinted is the error err of printing events that are appended.
func unprinted(name string, events int, err error) error {
	if err == nil || err == errReaderGone {
		return err
	}
	return fmt.Errorf("append %q: %w; events appended all the same: %d", name, err, events)
}

// failed says with the error what was appended before it, and how to go on.
func (a *appender) failed(err error) error {
	a.progress(a.count, true)
	err = nobodyThere(err)
	_, open := errors.AsType[openError](err)
	said := "nothing was appended"
	if a.count > 0 {
		said = fmt.Sprintf("events appended before it: %d", a.count)
	} else if open {
		said = "nothing else was appended"
	}
	bad, isBad := errors.AsType[lineError](err)
	err = a.explain(a.name, fmt.Errorf("append %q: %w; %s", a.name, err, said))
	again := "the same again"
	if a.count > 0 {
		again = fmt.Sprintf("tail -n +%d FILE | streamctl stream append -n %s", a.last+1, a.name)
	}
	switch _, hinted := errors.AsType[hintError](err); {
	case hinted:
		return err
	case isBad:
		return hintError{err, fmt.Sprintf("%s, with line %d mended", again, bad.number)}
	case a.count > 0:
		return hintError{err, again}
	}
	return err
}

// progressLine returns a function that shows a count in one line of a terminal.
func progressLine(w io.Writer) func(int, bool) {
	var last time.Time
	return func(count int, end bool) {
		if now := time.Now(); end || now.Sub(last) > 100*time.Millisecond {
			last = now
			fmt.Fprintf(w, "\r%d events appended", count)
		}
		if end {
			fmt.Fprintln(w)
		}
	}
}
