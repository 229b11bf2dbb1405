package streamhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// Lines of the event streams that are no event's. The first tells when to connect again; the others are comments,
// with no blank line behind, which some clients take for an event. The client knows what deleted means.
const (
	retry   = "retry: 1000\n"
	ping    = ": ping\n"
	deleted = ": deleted\n"
)

// offsetAt is where an event's record has its offset, of 16 digits.
const offsetAt = len(`{"offset":"`)

// follow subscribes to a stream.
func (h *handler) follow(w http.ResponseWriter, r *http.Request, name string) error {
	p, err := placeOf(r)
	if err != nil {
		return err
	}
	stream := h.streams.Stream(name)
	from, tail, err := p.find(r.Context(), stream)
	if err != nil {
		return err
	}
	asked := r.Context()
	r, cancel := untilEnd(r)
	defer cancel()
	events := stream.Subscribe(r.Context(), from) // before the client hears of it: what is deleted from here on ends it
	if again, tail, err := p.find(asked, stream); err != nil || again < from {
		cancel() // it was deleted in between: from is a place in its former life
		for range events {
		}
		return cmp.Or(err, error(&streamlib.GoneError{Stream: name, After: from - 1, Tail: tail}))
	}
	if from < tail && h.damaged(name) { // who would connect again and again is refused where there is nothing to send
		next, stop := iter.Pull2(events)
		defer stop()
		batch, err, _ := next()
		if err != nil {
			return err
		}
		events = func(yield func([]streamlib.Event, error) bool) {
			for ok := true; ok && yield(batch, err); batch, err, ok = next() {
			}
		}
	}
	opening := []byte(retry)
	// Where an event is there at once it tells the position, and until then the same request goes there again.
	if !p.fixed() || from >= tail {
		opening = appendPosition(opening, from-1, tail)
	}
	f := openFrames(w, r, opening)
	defer f.close()
	f.tail = tail
	h.frame(f, r, events, p.types, true)
	return nil
}

// A place is where a request asks a subscription to begin.
type place struct {
	from  streamlib.Offset
	last  int              // instead of from
	after streamlib.Offset // the last event that was seen, and so ahead of both; Now where none is told
	types []string
}

// placeOf returns the place that r's URL and header name.
func placeOf(r *http.Request) (place, error) {
	q, err := parameters(r, "offset", "last", "type", "last-event-id", "lastEventId")
	if err == nil {
		err = q.apart("last", "offset")
	}
	if err != nil {
		return place{}, err
	}
	from, err := q.offset("offset", streamlib.Now)
	last, errLast := q.count("last")
	p := place{from, last, streamlib.Now, q["type"]}
	if err := cmp.Or(err, errLast); err != nil {
		return p, err
	}
	resume := r.Header.Get("Last-Event-ID")
	// The first is a polyfill's, which adds it to what the URL has.
	for _, name := range [...]string{"lastEventId", "last-event-id"} {
		if resume == "" && q.has(name) {
			if resume = q.get(name); resume == "" {
				return p, fmt.Errorf("%w %s: it is empty", streamlib.ErrInvalid, name)
			}
		}
	}
	if resume == "" {
		return p, nil
	}
	if p.after, err = streamlib.ParseOffset(resume); err != nil || p.after == streamlib.Now {
		return p, fmt.Errorf("%w Last-Event-ID %q: it is -1, or a number of at most %d", streamlib.ErrInvalid, resume,
			streamlib.MaxOffset)
	}
	return p, nil
}

// fixed tells whether the place stays the same while the stream grows.
func (p place) fixed() bool {
	return p.after != streamlib.Now || p.last == 0 && p.from != streamlib.Now
}

// find returns the offset of the place in s, and the tail, untold where that is damaged.
func (p place) find(ctx context.Context, s streamlib.Stream) (from, tail streamlib.Offset, err error) {
	info, err := s.Stat(ctx)
	// What stands before it still reads.
	if _, corrupt := errors.AsType[*streamlib.CorruptError](err); corrupt && p.fixed() && p.after < 0 {
		info.Tail, err = untold, nil
	}
	switch {
	case err != nil:
	// An opening's: no event was seen yet.
	case p.after == streamlib.Beginning, p.after != streamlib.Now && p.after+1 == p.from:
		from = p.after + 1
	case p.after != streamlib.Now && p.after >= info.Tail:
		err = &streamlib.GoneError{Stream: s.Name(), After: p.after, Tail: info.Tail}
	case p.after != streamlib.Now:
		from = p.after + 1
	case p.last > 0:
		from, err = startOfLast(ctx, s, info.Tail, p.last, p.types)
	case p.from == streamlib.Now:
		from = info.Tail
	default:
		from = max(p.from, 0)
	}
	return from, info.Tail, err
}

// untold is a tail that is not known.
const untold = streamlib.Now

// damaged tells whether the stream is known to be.
func (h *handler) damaged(name string) bool {
	return slices.ContainsFunc(h.streams.Damaged(), func(info streamlib.Info) bool { return info.Name == name })
}

// followAll subscribes to all streams with a prefix.
func (h *handler) followAll(w http.ResponseWriter, r *http.Request) error {
	q, err := parameters(r, "prefix", "type")
	if err != nil {
		return err
	}
	if r.Method == http.MethodHead {
		w.Header()["Content-Type"] = sseUTF8
		return nil
	}
	r, cancel := untilEnd(r)
	defer cancel()
	events := h.streams.Subscribe(r.Context(), q.get("prefix")) // from here on; hence before the client hears of it
	f := openFrames(w, r, []byte(retry))                        // no position, for there is none to resume from
	defer f.close()
	h.frame(f, r, readable(r, events), q["type"], false)
	return nil
}

// frame writes the events, and in the end why there are no more, where that is for the client to know.
func (h *handler) frame(f *frames, r *http.Request, events iter.Seq2[[]streamlib.Event, error], types []string,
	ids bool) {
	for batch, err := range events {
		switch {
		case err == nil && f.send(batch, types, ids) == nil:
			continue
		case f.ctx.Err() != nil || err == nil: // the client has gone or the server ends
		case errors.Is(err, streamlib.ErrDeleted):
			_ = f.write([]byte(deleted), true)
		case err != nil:
			h.Log.Error("subscription broken off", "path", r.URL.EscapedPath(), "error", err)
			breakOff(connection(r))
		}
		return
	}
}

// frames are a response of server-sent events. It is written by the subscription, and while that is silent by a
// timer. A write that fails ends the request's context.
type frames struct {
	w    http.ResponseWriter
	c    *http.ResponseController
	ctx  context.Context  // the request's
	stop func() bool      // the interruption of a write that hangs
	tail streamlib.Offset // as it is known to the subscription

	mu     sync.Mutex // held while writing; guards what follows
	wrote  time.Time  // when the last write began
	due    time.Time  // the write deadline
	beat   *time.Timer
	closed bool
}

// openFrames sends the header and the opening at once.
func openFrames(w http.ResponseWriter, r *http.Request, opening []byte) *frames {
	f := &frames{w: w, c: http.NewResponseController(w), ctx: r.Context()}
	f.stop = context.AfterFunc(f.ctx, func() { _ = f.c.SetWriteDeadline(time.Now().Add(time.Second)) })
	w.Header()["Content-Type"] = sseUTF8
	w.Header().Set("X-Accel-Buffering", "no")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.beat = time.AfterFunc(time.Hour, f.ping)
	f.beat.Reset(pingAfter)          // behind the assignment, which a ping that finds mu held reads
	_ = f.writeLocked(opening, true) // where this fails, so does what follows
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

// appendPosition appends an event that tells a client where it is, behind after: some take an id only from an event,
// and some hand every event to what parses its data.
func appendPosition(b []byte, after, tail streamlib.Offset) []byte {
	b = append(append(b, "event: position\nid: "...), after.String()...)
	if tail == untold {
		return append(b, "\ndata: {}\n\n"...)
	}
	b = append(append(b, "\ndata: {\"tail\":\""...), tail.String()...)
	return append(b, "\"}\n\n"...)
}

// send writes a batch in chunks, and flushes it once. With ids, the position moves along with events that have none
// of types too.
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
		switch has := e.HasType(types...); {
		case has && ids:
			b = append(append(append(b, "id: "...), e.Record()[offsetAt:offsetAt+16]...), '\n')
			fallthrough
		case has:
			b = append(e.AppendJSON(append(b, "data: "...)), "\n\n"...)
		case ids && i == len(events)-1:
			if f.tail != untold {
				f.tail = max(f.tail, e.Offset+1)
			}
			b = appendPosition(b, e.Offset, f.tail)
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
