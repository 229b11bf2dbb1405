package streamhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"sync"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// Lines of the event streams that browsers pass over. The client knows what deleted means.
const (
	ping    = ": ping\n\n"
	deleted = ": deleted\n\n"
)

// offsetAt is where an event's record has its offset, of 16 digits.
const offsetAt = len(`{"offset":"`)

// follow subscribes to a stream.
func (h *handler) follow(w http.ResponseWriter, r *http.Request, name string) error {
	q, err := parameters(r, "offset", "last", "type", "last-event-id")
	if err == nil {
		err = q.apart("last", "offset")
	}
	if err != nil {
		return err
	}
	r, cancel := untilEnd(r)
	defer cancel()
	stream, types := h.streams.Stream(name), q["type"]
	from, err := start(r, q, stream)
	if err != nil {
		return err
	}
	events := stream.Subscribe(r.Context(), from) // before the client hears of it: what is deleted from here on ends it
	if again, err := start(r, q, stream); err != nil || again < from {
		cancel() // it was deleted in between: from is a place in its former life
		for range events {
		}
		return cmp.Or(err, error(&streamlib.GoneError{Stream: name, After: from - 1, Tail: again}))
	}
	f := openFrames(w, r, fmt.Sprintf("retry: 1000\nid: %v\n\n", from-1))
	defer f.close()
	h.frame(f, r, events, types, true)
	return nil
}

// start returns the offset from which the request subscribes.
func start(r *http.Request, q query, s streamlib.Stream) (streamlib.Offset, error) {
	offset, err := q.offset("offset", streamlib.Now)
	last, errLast := q.count("last")
	if err := cmp.Or(err, errLast); err != nil {
		return 0, err
	}
	resume := r.Header.Get("Last-Event-ID") // of the last event, and so ahead of what is in the URL
	if resume == "" && q.has("last-event-id") {
		if resume = q.get("last-event-id"); resume == "" {
			return 0, fmt.Errorf("%w last-event-id: it is empty", streamlib.ErrInvalid)
		}
	}
	if resume != "" {
		after, err := streamlib.ParseOffset(resume)
		if err != nil || after == streamlib.Now {
			return 0, fmt.Errorf("%w Last-Event-ID %q: it is -1, or a number of at most %d", streamlib.ErrInvalid, resume, streamlib.MaxOffset)
		}
		if after == streamlib.Beginning || q.has("offset") && after+1 == offset { // the opening id: no event was seen yet
			return after + 1, nil
		}
		info, err := s.Stat(r.Context())
		if err == nil && after >= info.Tail {
			err = &streamlib.GoneError{Stream: s.Name(), After: after, Tail: info.Tail}
		}
		return after + 1, err
	}
	switch {
	case last > 0:
		return startOfLast(r.Context(), s, last, q["type"])
	case offset == streamlib.Now:
		info, err := s.Stat(r.Context())
		return info.Tail, err
	}
	return max(offset, 0), nil
}

// followAll subscribes to all streams with a prefix.
func (h *handler) followAll(w http.ResponseWriter, r *http.Request) error {
	q, err := parameters(r, "prefix", "type")
	if err != nil {
		return err
	}
	if r.Method == http.MethodHead {
		w.Header()["Content-Type"] = sseType
		return nil
	}
	r, cancel := untilEnd(r)
	defer cancel()
	events := h.streams.Subscribe(r.Context(), q.get("prefix")) // from here on; hence before the client hears of it
	f := openFrames(w, r, "retry: 1000\n\n")
	defer f.close()
	h.frame(f, r, readable(r, events), q["type"], false)
	return nil
}

// frame writes the events, and in the end why there are no more, where that is for the client to know.
func (h *handler) frame(f *frames, r *http.Request, events iter.Seq2[[]streamlib.Event, error], types []string, ids bool) {
	for batch, err := range events {
		switch {
		case err == nil && f.send(batch, types, ids) == nil:
			continue
		case f.ctx.Err() != nil || err == nil: // the client has gone or the server ends
		case errors.Is(err, streamlib.ErrDeleted):
			_ = f.write([]byte(deleted), true)
		case err != nil:
			h.Log.Error("subscription broken off", "path", r.URL.EscapedPath(), "error", err)
			panic(http.ErrAbortHandler)
		}
		return
	}
}

// frames are a response of server-sent events. It is written by the subscription, and while that is silent by a timer. A
// write that fails ends the request's context.
type frames struct {
	w    http.ResponseWriter
	c    *http.ResponseController
	ctx  context.Context // the request's
	stop func() bool     // the interruption of a write that hangs

	mu     sync.Mutex // held while writing; guards what follows
	wrote  time.Time  // when the last write began
	due    time.Time  // the write deadline
	beat   *time.Timer
	closed bool
}

// openFrames sends the header and the opening at once.
func openFrames(w http.ResponseWriter, r *http.Request, opening string) *frames {
	f := &frames{w: w, c: http.NewResponseController(w), ctx: r.Context()}
	f.stop = context.AfterFunc(f.ctx, func() { _ = f.c.SetWriteDeadline(time.Now().Add(time.Second)) })
	w.Header()["Content-Type"] = sseType
	w.Header().Set("X-Accel-Buffering", "no")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.beat = time.AfterFunc(time.Hour, f.ping)
	f.beat.Reset(pingAfter)                  // behind the assignment, which a ping that finds mu held reads
	_ = f.writeLocked([]byte(opening), true) // where this fails, so does what follows
	return f
}

// close is called before the handler returns: nothing may be written afterwards. Net/http takes the deadline away.
func (f *frames) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.beat.Stop()
	f.stop()
}

// ping is the timer's, which nobody moves while there are writes: it looks for itself how long the silence is.
func (f *frames) ping() {
	if !f.mu.TryLock() {
		f.beat.Reset(pingAfter) // there is no silence
		return
	}
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	silence := time.Since(f.wrote)
	if silence >= pingAfter {
		silence = 0
		_ = f.writeLocked([]byte(ping), true)
	}
	f.beat.Reset(pingAfter - silence)
}

func (f *frames) write(b []byte, flush bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.writeLocked(b, flush)
}

func (f *frames) writeLocked(b []byte, flush bool) error {
	f.wrote = time.Now()
	if f.due.Sub(f.wrote) < writeTime { // moved once a second at most: at each write it was 8 % of the time
		f.due = f.wrote.Add(writeTime + time.Second)
		_ = f.c.SetWriteDeadline(f.due)
	}
	if err := f.ctx.Err(); err != nil {
		return err
	}
	_, err := f.w.Write(b)
	if err == nil && flush {
		err = f.c.Flush()
	}
	return err
}

// send writes a batch in chunks, and flushes it once. With ids, the position moves along with events that have none of types too.
func (f *frames) send(events []streamlib.Event, types []string, ids bool) error {
	pool, size := &smallBuffers, 0
	for _, e := range events {
		if size += len(e.Record()) + len("id: data: ") + 24; size > smallBuffers.size {
			pool = &largeBuffers
			break
		}
	}
	buf := pool.get()
	defer pool.put(buf)
	b, sent := *buf, false
	for i, e := range events {
		has := e.HasType(types...)
		if ids && (has || i == len(events)-1) {
			b = append(append(append(b, "id: "...), e.Record()[offsetAt:offsetAt+16]...), '\n')
		}
		switch {
		case has:
			b = append(e.AppendJSON(append(b, "data: "...)), "\n\n"...)
		case ids && i == len(events)-1:
			b = append(b, '\n')
		}
		if len(b) >= chunk {
			if err := f.write(b, false); err != nil {
				return err
			}
			b, sent = b[:0], true
		}
	}
	if *buf = b; len(b) == 0 && !sent {
		return nil
	}
	return f.write(b, true)
}
