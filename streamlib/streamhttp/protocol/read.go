package protocol

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/budget"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

const (
	chunk     = 1 << 20          // bytes of one answer, about
	pollTime  = 4 * time.Second  // that a long-poll waits: the conformance suite gives it 5 s
	sseTime   = 55 * time.Second // that a response of events takes, so that proxies can share the next one
	roomTime  = time.Second      // that a read waits for room in memory
	writeTime = 30 * time.Second // for a client to take what is written to it
)

// events are those in [from, to), up to about so many bytes. Those before a fork's begin are its source's.
func (h *Handler) events(ctx context.Context, name string, n *note, from, to streamlib.Offset,
	most int) (all []streamlib.Event, err error) {
	size := 0
	add := func(batch []streamlib.Event) (more bool) {
		for _, e := range batch {
			all, size = append(all, e), size+len(e.Data())
			if size >= most {
				return false
			}
		}
		return true
	}
	if n.Fork != nil && from < n.Fork.At {
		info, err := h.streams.Stream(n.Fork.Source).Stat(ctx)
		if err != nil {
			return nil, err
		}
		until := min(to, n.Fork.At)
		source := parseNote(info.Note)
		inherited, err := h.events(ctx, n.Fork.Source, &source, from, until, most)
		if err != nil {
			return nil, err
		}
		if len(inherited) == 0 { // somebody brought the one without the other
			return nil, refuse(http.StatusGone, "what this stream is a fork of is gone")
		}
		if from += streamlib.Offset(len(inherited)); !add(inherited) || from < until {
			return all, nil
		}
	}
	if from >= to {
		return all, nil
	}
	for batch, err := range h.streams.Stream(name).Read(ctx, from, to) {
		if err != nil {
			return all, err
		}
		if !add(batch) {
			break
		}
	}
	return all, nil
}

// gather is events up to the tail of what is still as info says, with the memory that they and their payload take.
func (h *Handler) gather(ctx context.Context, info streamlib.Info, n *note, from streamlib.Offset, most int) (
	events []streamlib.Event, hold budget.Hold, err error) {
	readers := &h.streams.Budget().Readers
	if events, err = h.events(budget.WithTurns(ctx, readers, roomTime), info.Name, n, from, info.Tail, most); err != nil {
		return nil, hold, err
	}
	size := 0
	for _, e := range events {
		size += len(e.Data())
	}
	hold = readers.Hold()
	hold.Force(int64(3 * size))
	now, err := h.streams.Stream(info.Name).Stat(ctx)
	if err == nil && now.Life != info.Life {
		err = errNone
	}
	if err != nil {
		hold.Release()
	}
	return events, hold, err
}

// payload is what the events are to a reader.
func payload(n *note, events []streamlib.Event) []byte {
	var b bytes.Buffer
	if n.json() {
		b.WriteByte('[')
	}
	for i, e := range events {
		switch {
		case !n.json():
			b.Write(decode(e.Data()))
		default:
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(e.Data())
		}
	}
	if n.json() {
		b.WriteByte(']')
	}
	return b.Bytes()
}

// begin is where what a stream has itself begins.
func (n *note) begin() streamlib.Offset {
	if n.Fork != nil {
		return n.Fork.At
	}
	return 0
}

// first is where a stream's reader may begin at the earliest.
func (h *Handler) first(ctx context.Context, info streamlib.Info, n *note) streamlib.Offset {
	if n.Fork == nil || info.First > n.Fork.At {
		return info.First
	}
	source, err := h.streams.Stream(n.Fork.Source).Stat(ctx)
	if err != nil {
		return info.First
	}
	of := parseNote(source.Note)
	return h.first(ctx, source, &of)
}

// cursor is where long-polls that may share an answer are in time: intervals of 20 s since 2024-10-09 (section 8.1).
func cursor(given string) string {
	now := time.Since(time.Date(2024, 10, 9, 0, 0, 0, 0, time.UTC)).Milliseconds() / 20_000
	if c, err := strconv.ParseInt(given, 10, 64); err == nil && c >= now {
		return strconv.FormatInt(c+1+rand.Int64N(180), 10)
	}
	return strconv.FormatInt(now, 10)
}

func (h *Handler) read(w http.ResponseWriter, r *http.Request, name string) error {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return fmt.Errorf("%w query: %w", streamlib.ErrInvalid, err)
	}
	live, given := q.Get("live"), q["offset"]
	switch {
	case len(given) > 1 || len(given) == 1 && given[0] == "":
		return refuse(http.StatusBadRequest, "invalid offset: it is there once, and not empty")
	case live != "" && live != "long-poll" && live != "sse":
		return refuse(http.StatusBadRequest, "invalid live %q: it is long-poll or sse", live)
	case live != "" && len(given) == 0:
		return refuse(http.StatusBadRequest, "live needs an offset")
	}
	from := streamlib.Beginning
	if len(given) == 1 && given[0] == "now" {
		from = streamlib.Now
	} else if len(given) == 1 && given[0] != "-1" && given[0] != origin {
		if from, err = parseOffset(given[0]); err != nil {
			return err
		}
	} // at the origin is whatever is kept
	ctx := r.Context()
	info, n, err := h.look(ctx, name)
	if err != nil {
		return err
	}
	if begin := n.begin(); from == streamlib.Now {
		from = info.Tail
	} else if from < max(begin, info.First) {
		first := h.first(ctx, info, &n)
		if from >= 0 && from < first {
			return refuse(http.StatusGone, "the events before %d were dropped", first)
		}
		from = max(from, first)
	} else if from > info.Tail {
		return refuse(http.StatusGone, "the stream ends at %d: it was deleted and made again", info.Tail)
	}
	h.use(name, &n)
	head := w.Header()
	if live == "sse" {
		return h.follow(w, r, name, info, n, from)
	}
	if live == "long-poll" && from == info.Tail && !info.Closed {
		defer h.stay(name, &n)()
		waiting, done := streamhttp.UntilEnd(r)
		limited, cancel := context.WithTimeout(waiting.Context(), pollTime)
		err := h.wait(limited, name, from)
		cancel()
		done()
		if err != nil {
			return err
		}
		was := info
		if info, n, err = h.look(ctx, name); err == nil && info.Life != was.Life {
			err = errNone
		}
		if err != nil {
			return err
		}
	}
	events, hold, err := h.gather(ctx, info, &n, from, chunk)
	if err != nil {
		return err
	}
	defer hold.Release()
	next := from + streamlib.Offset(len(events))
	head.Set("Content-Type", n.Type)
	head.Set("Stream-Next-Offset", next.String())
	ends := false
	if next >= info.Tail {
		head.Set("Stream-Up-To-Date", "true")
		if ends = info.Closed; ends {
			head.Set("Stream-Closed", "true")
		}
	}
	if live != "" {
		head.Set("Stream-Cursor", cursor(q.Get("cursor")))
	}
	if live != "" && len(events) == 0 {
		head.Del("Content-Type")
		head.Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if len(given) == 1 && given[0] == "now" {
		head.Set("Cache-Control", "no-store")
	} else {
		tag := etag(&n, info, from, next, ends)
		head.Set("ETag", tag)
		head.Set("Cache-Control", "private, max-age=60, stale-while-revalidate=300")
		if matches(r.Header["If-None-Match"], tag) {
			head.Del("Content-Type")
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
	}
	b := payload(&n, events)
	head.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b)
	return nil
}

// wait returns when there is an event at the offset, the stream ends, or ctx is done.
func (h *Handler) wait(ctx context.Context, name string, from streamlib.Offset) error {
	for _, err := range h.streams.Stream(name).Subscribe(ctx, from) {
		if err != nil && ctx.Err() == nil && !errors.Is(err, streamlib.ErrDeleted) {
			return err
		}
		break
	}
	return nil
}

func (h *Handler) follow(w http.ResponseWriter, r *http.Request, name string, info streamlib.Info, n note,
	from streamlib.Offset) error {
	defer h.stay(name, &n)()
	waiting, done := streamhttp.UntilEnd(r)
	defer done()
	ctx, cancel := context.WithTimeout(waiting.Context(), sseTime)
	defer cancel()
	c, head := http.NewResponseController(w), w.Header()
	head.Set("Content-Type", "text/event-stream")
	head.Set("Cache-Control", "no-cache")
	head.Set("X-Accel-Buffering", "no")
	if !n.plain() {
		head.Set("Stream-SSE-Data-Encoding", "base64")
	}
	w.WriteHeader(http.StatusOK)
	life, at := info.Life, cursor(r.URL.Query().Get("cursor"))
	for {
		events, hold, err := h.gather(ctx, info, &n, from, chunk/4)
		if err != nil {
			return nil // the client comes again, and is told
		}
		from += streamlib.Offset(len(events))
		var b bytes.Buffer
		if len(events) > 0 {
			b.WriteString("event: data\n")
			data := payload(&n, events)
			if !n.plain() {
				data = []byte(base64.StdEncoding.EncodeToString(data))
			}
			data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
			data = bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))
			for line := range bytes.SplitSeq(data, []byte("\n")) {
				b.WriteString("data:")
				b.Write(line)
				b.WriteByte('\n')
			}
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "event: control\ndata:{\"streamNextOffset\":\"%s\"", from)
		reached := from >= info.Tail
		ends := reached && info.Closed
		if !ends {
			fmt.Fprintf(&b, ",\"streamCursor\":\"%s\"", at)
		}
		if reached {
			b.WriteString(",\"upToDate\":true")
		}
		if ends {
			b.WriteString(",\"streamClosed\":true")
		}
		b.WriteString("}\n\n")
		_ = c.SetWriteDeadline(time.Now().Add(writeTime))
		_, err = w.Write(b.Bytes())
		if err == nil {
			err = c.Flush()
		}
		hold.Release()
		if err != nil || ends {
			return nil
		}
		if !reached {
			continue
		}
		if err := h.wait(ctx, name, from); err != nil || ctx.Err() != nil {
			return nil
		}
		if info, n, err = h.look(context.WithoutCancel(ctx), name); err != nil || info.Life != life {
			return nil
		}
	}
}
