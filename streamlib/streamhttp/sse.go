package streamhttp

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// Lines of the event streams that are no event's. The first tells when to connect again; the others are comments,
// with no blank line behind, which some clients take for an event. The client knows what deleted means.
const (
	retry   = "retry: 1000\n"
	ping    = ": ping\n"
	tailIs  = ": tail " // and the offset: instead of a ping where all before it was sent
	deleted = ": deleted\n"
)

// offsetAt is where an event's record has its offset, of 16 digits.
const offsetAt = len(`{"offset":"`)

// seated is route for no more subscribers at once than there may be.
func (h *handler) seated(route route) route {
	if h.MaxSubscribers == 0 {
		return route
	}
	return func(w http.ResponseWriter, r *http.Request, name string) error {
		defer h.seats.Add(-1)
		if h.seats.Add(1) > int64(h.MaxSubscribers) && r.Method == http.MethodGet {
			return &Error{http.StatusTooManyRequests, fmt.Sprintf("there are %d subscriptions, and no more at once",
				h.MaxSubscribers)}
		}
		return route(w, r, name)
	}
}

// followAll subscribes to all streams with a prefix.
func (h *handler) followAll(w http.ResponseWriter, r *http.Request, _ string) error {
	q, err := parameters(r, "prefix", "type", "details")
	if err != nil {
		return err
	}
	details, err := q.bool("details")
	if err == nil && details {
		err = q.apart("details", "type")
	}
	if err != nil {
		return err
	}
	if r.Method == http.MethodHead {
		w.Header()["Content-Type"] = sseUTF8
		return nil
	}
	if details {
		h.followChanges(w, r, q.get("prefix"))
		return nil
	}
	r, cancel := UntilEnd(r)
	defer cancel()
	events := h.streams.Subscribe(r.Context(), q.get("prefix")) // from here on; hence before the client hears of it
	f := openFrames(w, r, 0, untold, []byte(retry))             // no position, for there is none to resume from
	defer f.close()
	defer h.counted.subscribed(f, "")()
	h.frame(f, r, readable(r, events), q["type"], false)
	return nil
}

// frame writes the events, and in the end why there are no more, where that is for the client to know. It tells
// whether there are no more for good.
func (h *handler) frame(f *frames, r *http.Request, events iter.Seq2[[]streamlib.Event, error], types []string,
	ids bool) (ended bool) {
	for batch, err := range events {
		switch {
		case err == nil && f.send(batch, types, ids) == nil:
			if f.until && f.caughtUp() {
				return
			}
			continue
		case f.ctx.Err() != nil || err == nil: // the client has gone or the server ends
		case errors.Is(err, streamlib.ErrDeleted):
			_ = f.write([]byte(deleted), true)
		default:
			h.logBreak(r, "subscription broken off", err)
			breakOff(connection(r))
		}
		return false
	}
	return true
}

// frames are a response of server-sent events. It is written by the subscription, and while that is silent by a
// timer. A write that fails ends the request's context.
type frames struct {
	w     http.ResponseWriter
	c     *http.ResponseController
	ctx   context.Context // the request's
	stop  func()          // the interruption of a write that hangs, once it is over
	until bool            // they end where they have caught up

	suffix string       // of the stream's life
	at     atomic.Int64 // next, to be read while a write hangs

	mu     sync.Mutex       // held while writing; guards what follows, of which the subscription alone writes next and tail
	next   streamlib.Offset // what is before it was written
	tail   streamlib.Offset // as it is known to the subscription; untold where events are of many streams
	wrote  time.Time        // when the last write began
	due    time.Time        // the write deadline
	beat   *time.Timer
	failed bool // a write: what stands before the next one may be half a line
	closed bool
	ends   context.Context // done when the server ends; nil where that is not told
}

// openFrames sends the header and the opening at once.
func openFrames(w http.ResponseWriter, r *http.Request, next, tail streamlib.Offset, opening []byte) *frames {
	f := &frames{w: w, c: http.NewResponseController(w), ctx: r.Context(), next: next, tail: tail}
	f.ends, _ = r.Context().Value(endKey{}).(context.Context)
	f.at.Store(int64(next))
	if f.caughtUp() {
		opening = appendTail(opening, tail)
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(f.ctx, func() {
		defer close(interrupted)
		_ = f.c.SetWriteDeadline(time.Now().Add(time.Second))
	})
	f.stop = func() {
		if !stop() { // it runs, or did
			<-interrupted
		}
	}
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
// Where the server ends, each client is told another time to come back after, so that they do not all come at once.
func (f *frames) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.beat.Stop()
	if f.ends != nil && f.ends.Err() != nil && !f.failed {
		_ = f.c.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = fmt.Fprintf(f.w, "retry: %d\n\n", (minReturn + rand.N(maxReturn-minReturn)).Milliseconds())
	}
	f.stop()
}

// Between these times after the end of a server its subscribers are asked to come back.
const minReturn, maxReturn = time.Second, 4 * time.Second

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
		b := []byte(ping)
		if f.next == f.tail { // from beyond the tail it is not known where that is by now
			b = appendTail(nil, f.tail)
		}
		_ = f.writeLocked(b, true)
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
	f.failed = f.failed || err != nil
	return err
}

// caughtUp tells whether everything was written up to a tail.
func (f *frames) caughtUp() bool { return f.tail != untold && f.next >= f.tail }

// appendTail appends a comment that tells who has had everything before the tail so.
func appendTail(b []byte, tail streamlib.Offset) []byte {
	return append(append(append(b, tailIs...), tail.String()...), '\n')
}

// appendPosition appends an event that tells a client where it is, behind after: some take an id only from an event,
// and some hand every event to what parses its data.
func appendPosition(b []byte, after, tail streamlib.Offset, suffix string) []byte {
	b = append(append(b, "event: position\nid: "...), after.String()...)
	if after >= 0 {
		b = append(b, suffix...)
	}
	if tail == untold {
		return append(b, "\ndata: {}\n\n"...)
	}
	b = append(append(b, "\ndata: {\"tail\":\""...), tail.String()...)
	return append(b, "\"}\n\n"...)
}

// appendEnd appends the event behind which there will be none. It has no id: a client that connects again names the
// last event's, and is answered 204.
func appendEnd(b []byte, tail streamlib.Offset) []byte {
	return append(append(append(b, "event: end\ndata: {\"tail\":\""...), tail.String()...), "\"}\n\n"...)
}

// send writes a batch in chunks, and flushes it once. With ids, the position moves along with events that have none
// of types too, and the end of catching up is told.
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
	b, sent, next, tail, behind := *buf, false, f.next, f.tail, !f.caughtUp()
	if ids {
		next = events[len(events)-1].Offset + 1
	}
	if tail != untold {
		tail = max(tail, next)
	}
	for i, e := range events {
		switch has := e.HasType(types...); {
		case has && ids:
			b = append(append(b, "id: "...), e.Record()[offsetAt:offsetAt+16]...)
			b = append(append(b, f.suffix...), '\n')
			fallthrough
		case has:
			b = append(e.AppendJSON(append(b, "data: "...)), "\n\n"...)
		case ids && i == len(events)-1:
			b = appendPosition(b, e.Offset, tail, f.suffix)
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
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.next, f.tail = next, tail; behind && f.caughtUp() {
		b = appendTail(b, tail)
	}
	err := f.writeLocked(b, true)
	if err == nil {
		f.at.Store(int64(next))
	}
	return err
}
