package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
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
	// answerTime is how long a server may send nothing, and how long it may take to look for an event that is there.
	answerTime = 30 * time.Second
	// retryTime is how long an append with a key is tried again after its outcome was open.
	retryTime = 30 * time.Second
)

func streamAppend(ctx context.Context, c *call) error {
	name, err := c.streamName()
	if err != nil {
		return err
	}
	err = cmp.Or(c.contradicting("message", "event", "text"), c.contradicting("event", "text"))
	if err != nil {
		return err
	}
	b := streamlib.Batch{Key: c.value("key"), Close: c.has("close")}
	if c.has("key") {
		if err := streamlib.CheckName(b.Key); err != nil {
			return c.usageErr("--key %q: it takes 1 to 255 bytes of UTF-8 without control characters", b.Key)
		}
	}
	if err := c.ifTail(&b); err != nil {
		return err
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
				"streamctl " + c.name + ` -n ` + daemon.ShellWord(name) + ` -e '{"type":"greeting","text":"hello"}'`}
		}
		b.Data = []json.RawMessage{json.RawMessage(c.value("event"))}
	case daemon.IsTerminal(c.stdin) && !c.has("text"): // text is what a person may well type
		try := "streamctl " + c.name + " -n " + daemon.ShellWord(name) + " -m hello"
		if b.Close {
			try = "streamctl stream close -n " + daemon.ShellWord(name)
		}
		return usageError{fmt.Errorf("%s: nothing to append: give -m TEXT, -e JSON, or lines of JSON on stdin", c.name), try}
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
	if c.has("quiet") {
		return nil
	}
	return unprinted(name, len(receipt.Events), c.printEvents(receipt.Events, asJSON))
}

// ifTail sets the condition of --if-tail where it was given.
func (c *call) ifTail(b *streamlib.Batch) error {
	if !c.has("if-tail") {
		return nil
	}
	tail, err := streamlib.ParseOffset(c.value("if-tail"))
	if err != nil || tail < 0 {
		return c.usageErr("--if-tail %q: it takes the offset that the event will get, 0 for the first", c.value("if-tail"))
	}
	b.IfTail = &tail
	return nil
}

// message returns the event of --message.
func message(text string) (json.RawMessage, error) {
	if !utf8.ValidString(text) {
		return nil, errors.New("the text is not UTF-8")
	}
	return asEvent(aMessage{"message", text, ""}), nil
}

type aMessage struct {
	Type string `json:"type"`
	Text string `json:"text"`
	From string `json:"from,omitempty"`
}

// asEvent returns the event of a value that JSON has a form for.
func asEvent(v any) json.RawMessage {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSpace(b.Bytes())
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

// append appends b. Where b has a key, or closes the stream and does nothing else, and the outcome of a try is open,
// it tries again for as long as c.patience says; where nobody listens it does so only if somebody has answered before.
func (c *call) append(ctx context.Context, s streamlib.Stream, b streamlib.Batch,
	answered bool) (streamlib.Receipt, error) {
	deadline := time.Now().Add(cmp.Or(c.patience, retryTime))
	repeatable := b.Key != "" || len(b.Data) == 0
	told, left := false, false
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		receipt, err := s.Append(ctx, b)
		if err == nil && b.Close && !receipt.Closed {
			err = errStaysOpen
		}
		if err == nil || err == errStaysOpen {
			return receipt, err
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		left = left || leftOpen(err)
		if !repeatable || refused(err) || !answered && unreachable(err) || ctx.Err() != nil || time.Now().After(deadline) {
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

// errStaysOpen is that of a repeat of what did not close the stream.
var errStaysOpen = errors.New("it was appended before with this key, and the stream was not closed by it")

// refused tells whether the server has said that it stored nothing, for a reason that stays.
func refused(err error) bool {
	_, conflict := errors.AsType[*streamlib.ConflictError](err)
	_, closed := errors.AsType[*streamlib.ClosedError](err)
	_, damaged := errors.AsType[*streamlib.CorruptError](err)
	return conflict || closed || damaged || refusedData(err) || errors.Is(err, streamlib.ErrFull) || lasting(err)
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
	switch e.events {
	case 0:
		return e.error.Error() + ", which leaves open whether the stream was closed"
	case 1:
		return e.error.Error() + ", which leaves open whether the event was appended"
	}
	return fmt.Sprintf("%v, which leaves open whether %d events were appended", e.error, e.events)
}

func (e openError) Unwrap() error { return e.error }

// appender appends lines in batches, each with a key of its own, so that trying again never doubles a line.
type appender struct {
	*call
	name     string
	stream   streamlib.Stream // nil until there is a line
	run      string           // what the keys of this run begin with
	count    int              // events appended
	last     int              // the line of the last one
	replaced int              // bytes of them that were not UTF-8
	quiet    bool             // their events are not printed
	printing error            // why stdout takes no more; lines are appended all the same
	meter    daemon.Meter     // on the input
	shown    atomic.Int64     // count, for the meter
	begun    time.Time
	first    streamlib.Offset // of the events
	final    streamlib.Event  // the last one of them
	// tooLong appends something else for a line that is too long, nil where that is an error.
	tooLong func(context.Context, line, error) error
}

// appendLines appends the lines of stdin. With a key or a condition they are one append, all or nothing.
func (c *call) appendLines(ctx context.Context, name string, whole streamlib.Batch) error {
	a := &appender{call: c, name: name, run: "streamctl-" + rand.Text(), begun: time.Now()}
	// On a terminal a person knows what was typed, and summary says how much of it was appended.
	a.quiet = c.has("quiet") || c.onTerminal() && !c.has("json")
	if !c.has("quiet") && !daemon.IsTerminal(c.stdin) && (a.quiet || !c.onTerminal()) && !c.dumb() {
		a.meter = daemon.Meter{Progress: daemon.NewProgress(c.stderr), Of: daemon.Remaining(c.stdin)}
		a.meter.Before = func() string { return fmt.Sprintf("%d events appended, ", a.shown.Load()) }
	}
	input := a.meter.Reader(c.stdin)
	interrupted, ctx, stop := interruptible(ctx)
	defer stop()
	format := jsonLine
	if c.has("text") {
		format = textLine
		defer a.tellReplaced()
	}
	q := &queue{most: batchBytes, whole: whole.Key != "" || whole.IfTail != nil}
	go func() { // a read of stdin cannot be ended: this ends with it, or with the process
		end := io.EOF
		for lines, err := range readBatches(input, format, q.whole) {
			end = cmp.Or(err, end)
			if (err == nil || !q.whole) && !q.put(interrupted, lines...) {
				return
			}
		}
		q.close(end)
	}()
	for {
		lines, end := q.take(interrupted)
		var err error
		switch last := end == io.EOF; {
		case !q.whole:
			err = a.send(ctx, lines, last && whole.Close)
		case last:
			err = a.sendWhole(ctx, lines, whole)
		}
		switch err = cmp.Or(err, end); err {
		case nil:
		case io.EOF:
			a.meter.Clear()
			return unprinted(a.name, a.count, cmp.Or(a.printing, a.summary()))
		default:
			return a.failed(err)
		}
	}
}

// tellReplaced says how many bytes were not what the input should be.
func (a *appender) tellReplaced() {
	if a.replaced > 0 {
		fmt.Fprintf(a.stderr, "streamctl: %s %q: bytes that were not UTF-8, and are U+FFFD in the stream: %d\n",
			strings.TrimPrefix(a.call.name, "stream "), a.name, a.replaced)
	}
}

// send appends lines as one batch, which closes the stream where the last of all lines is among them or before them.
// Where the server refuses that for one of them, the lines before that one are appended and the error names it.
func (a *appender) send(ctx context.Context, lines []line, closes bool) error {
	b := streamlib.Batch{Close: closes}
	if len(lines) > 0 {
		b.Key = fmt.Sprintf("%s-%d-%d", a.run, lines[0].number, len(lines))
	}
	err := a.sendWhole(ctx, lines, b)
	if len(lines) == 0 || !refusedData(err) {
		return err
	}
	if len(lines) == 1 && a.tooLong != nil && errors.Is(err, streamlib.ErrTooLarge) {
		return a.tooLong(ctx, lines[0], err)
	}
	if len(lines) == 1 {
		return lineError{lines[0].number, err}
	}
	half := len(lines) / 2
	if err := a.send(ctx, lines[:half], false); err != nil {
		return err
	}
	return a.send(ctx, lines[half:], closes)
}

// sendWhole appends lines as the data of b.
func (a *appender) sendWhole(ctx context.Context, lines []line, b streamlib.Batch) error {
	if len(lines) == 0 && !b.Close {
		return nil
	}
	replaced := 0
	for _, l := range lines {
		b.Data = append(b.Data, l.data)
		replaced += l.replaced
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
	if len(lines) > 0 {
		a.last = lines[len(lines)-1].number
	}
	a.replaced += replaced
	if a.shown.Store(int64(a.count)); len(receipt.Events) > 0 {
		if a.count == len(receipt.Events) {
			a.first = receipt.Events[0].Offset
		}
		a.final = receipt.Events[len(receipt.Events)-1]
	}
	if !a.quiet && a.printing == nil {
		a.printing = a.printEvents(receipt.Events, asJSON)
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
	a.meter.Clear()
	err = nobodyThere(err)
	left, open := errors.AsType[openError](err)
	said := "nothing was appended"
	if a.count > 0 {
		said = fmt.Sprintf("events appended before it: %d", a.count)
	} else if left.events > 0 {
		said = "nothing else was appended"
	}
	_, isClosed := errors.AsType[*streamlib.ClosedError](err)
	if a.has("close") && !open && !isClosed {
		said += ", and the stream was not closed"
	}
	bad, isBad := errors.AsType[lineError](err)
	err = a.explain(a.name, fmt.Errorf("append %q: %w; %s", a.name, err, said))
	again := "the same again"
	if a.count > 0 {
		again = fmt.Sprintf("tail -n +%d FILE | streamctl stream append -n %s", a.last+1, daemon.ShellWord(a.name))
		if a.has("text") {
			again += " --text"
		}
		if a.has("close") {
			again += " --close"
		}
	}
	switch _, hinted := errors.AsType[hintError](err); {
	case hinted, isClosed:
		return err
	case isBad:
		return hintError{err, fmt.Sprintf("%s, with line %d mended", again, bad.number)}
	case a.count > 0:
		return hintError{err, again}
	}
	return err
}

// summary tells a person how much was appended: a single event on stdout, more in a line on stderr.
func (a *appender) summary() error {
	switch {
	case a.has("quiet"):
		return nil
	case a.quiet && a.count == 1:
		return a.printEvents([]streamlib.Event{a.final}, asJSON)
	case !daemon.IsTerminal(a.stderr) || a.count == 0:
		return nil
	}
	took := time.Since(a.begun).Round(time.Millisecond)
	_, err := fmt.Fprintf(a.stderr, "streamctl: append %q: %d events, from offset %d to %d, in %v\n", a.name, a.count, a.first,
		a.final.Offset, took)
	return err
}
