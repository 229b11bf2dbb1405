package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

const (
	// A batch of lines from stdin is so many, or so many bytes, or what there is when the input pauses.
	batchLines = 1000
	batchBytes = 1 << 20
	// maxLine is the longest line that any server takes.
	maxLine = streamlib.MaxBatch
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
			return usageError{fmt.Errorf("%s: -e %s: %w; the shell takes quotes away unless the JSON stands in single ones", c.name, clip(c.value("event")), err),
				"streamctl " + c.name + ` -n ` + name + ` -e '{"type":"greeting","text":"hello"}'`}
		}
		b.Data = []json.RawMessage{json.RawMessage(c.value("event"))}
	case isTerminal(c.stdin):
		return usageError{fmt.Errorf("%s: nothing to append: give -m TEXT, -e JSON, or lines of JSON on stdin", c.name), "streamctl " + c.name + " -n " + name + " -m hello"}
	default:
		return c.appendLines(ctx, name, b)
	}
	client, err := c.connect(ctx)
	if err != nil {
		return err
	}
	receipt, err := c.append(ctx, client.Stream(name), b, false)
	if err != nil {
		return c.explain(name, err)
	}
	return c.printEvents(receipt.Events)
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

// append appends b. Where b has a key, and the outcome of a try is open, it tries again for a while; where nobody listens it
// does so only if somebody has answered before.
func (c *call) append(ctx context.Context, s streamlib.Stream, b streamlib.Batch, answered bool) (streamlib.Receipt, error) {
	deadline := time.Now().Add(retryTime)
	told := false
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		receipt, err := s.Append(ctx, b)
		if err == nil || b.Key == "" || refused(err) || !answered && unreachable(err) || time.Now().After(deadline) {
			return receipt, err
		}
		answered = true
		if !told && wait > time.Second {
			told = true
			fmt.Fprintf(c.stderr, "streamctl: %v; trying again\n", err)
		}
		time.Sleep(wait)
	}
}

// refused tells whether the server has said that it stored nothing, for a reason that stays.
func refused(err error) bool {
	answer, ok := errors.AsType[*streamhttp.Error](err)
	_, conflict := errors.AsType[*streamlib.ConflictError](err)
	return conflict || refusedData(err) || errors.Is(err, streamlib.ErrFull) || ok && answer.Status < 500
}

// refusedData tells whether it said so because of an event.
func refusedData(err error) bool {
	_, veto := errors.AsType[*streamlib.HookError](err)
	return veto || errors.Is(err, streamlib.ErrInvalid) || errors.Is(err, streamlib.ErrTooLarge)
}

// A line is an event on stdin.
type line struct {
	number int
	data   json.RawMessage
}

// appender appends lines in batches, each with a key of its own, so that trying again never doubles a line.
type appender struct {
	*call
	name     string
	stream   streamlib.Stream // nil until there is a line
	run      string           // what the keys of this run begin with
	count    int              // events appended
	progress func(count int, end bool)
}

// appendLines appends the lines of stdin. With a key or a condition they are one append, all or nothing.
func (c *call) appendLines(ctx context.Context, name string, whole streamlib.Batch) error {
	a := &appender{call: c, name: name, run: "streamctl-" + rand.Text(), progress: func(int, bool) {}}
	if isTerminal(c.stderr) && !isTerminal(c.stdout.under) {
		a.progress = progressLine(c.stderr)
	}
	atomic := whole.Key != "" || whole.IfTail != nil
	in := bufio.NewReaderSize(c.stdin, batchBytes)
	var batch []line
	size := 0
	for number := 1; ; number++ {
		data, err := readLine(in)
		end := err == io.EOF
		if end {
			err = nil
		}
		if data = bytes.TrimSpace(data); err == nil && len(data) > 0 {
			err = valid(data)
		}
		if err != nil {
			if !atomic {
				if err := a.send(ctx, batch); err != nil {
					return a.failed(err)
				}
			}
			return a.failed(fmt.Errorf("line %d: %w", number, err))
		}
		if len(data) > 0 {
			batch = append(batch, line{number, data})
			size += len(data)
		}
		switch {
		case atomic && size > streamlib.MaxBatch:
			return a.failed(fmt.Errorf("line %d: with --key or --if-tail all lines are one append, of at most %d bytes", number, streamlib.MaxBatch))
		case atomic && end:
			if err := a.sendWhole(ctx, batch, whole); err != nil {
				return a.failed(err)
			}
		case !atomic && (end || len(batch) == batchLines || size >= batchBytes || !lineReady(in)):
			if err := a.send(ctx, batch); err != nil {
				return a.failed(err)
			}
			batch, size = nil, 0
		}
		if end {
			a.progress(a.count, true)
			return nil
		}
	}
}

// readLine returns the next line, which is the caller's. The last one may lack its end and comes with io.EOF.
func readLine(in *bufio.Reader) (data []byte, err error) {
	for {
		part, err := in.ReadSlice('\n')
		data = append(data, part...)
		if err != bufio.ErrBufferFull {
			return data, err
		}
		if len(data) > maxLine {
			return nil, fmt.Errorf("over %d bytes: %w", maxLine, streamlib.ErrTooLarge)
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
		return fmt.Errorf("line %d: %w", lines[0].number, err)
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
		return err
	}
	a.count += len(receipt.Events)
	a.progress(a.count, false)
	return a.printEvents(receipt.Events)
}

// failed says what was appended before the error.
func (a *appender) failed(err error) error {
	a.progress(a.count, true)
	if errors.Is(err, errReaderGone) { // the input was not read to its end
		err = errors.New("stdout was closed")
	}
	err = nobodyThere(err)
	if a.count == 0 {
		return a.explain(a.name, fmt.Errorf("%w; nothing was appended", err))
	}
	return a.explain(a.name, fmt.Errorf("%w; events appended before it: %d", err, a.count))
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
