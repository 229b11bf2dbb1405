package streamhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/http"
	"slices"
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

// A subscription is what a request is to follow.
type subscription struct {
	*place
	r       *http.Request // whose context ends with the subscription
	cancel  func()
	stream  streamlib.Stream
	of      streamlib.Info
	begin   streamlib.Offset
	events  iter.Seq2[[]streamlib.Event, error] // nil where there is nothing to send
	opening []byte
}

// follow subscribes to a stream. What it needs of its goroutine's stack, of which there is one for each subscriber, is
// little while it waits, while the header is written, for which net/http takes much, and while the storage is asked:
// so that stays at 8 KiB. What is known of the stream is therefore kept elsewhere.
func (h *handler) follow(w http.ResponseWriter, r *http.Request, name string) error {
	s, err := h.subscribe(w, r, name)
	if s == nil {
		return err
	}
	defer s.cancel()
	f := openFrames(w, s.r, s.begin, s.of.Tail, s.opening)
	defer f.close()
	if s.events == nil {
		return nil
	}
	f.until, f.suffix = s.until, suffixOf(s.of.Life)
	defer h.counted.subscribed(f, name)()
	if h.frame(f, s.r, s.events, s.types, true) {
		s.end(r.Context(), f)
	}
	return nil
}

// end writes that nothing will come any more.
func (s *subscription) end(ctx context.Context, f *frames) {
	end := f.tail // of one that from was beyond no event has told
	if now, err := s.stream.Stat(ctx); err == nil && now.Life == s.of.Life {
		end = now.Tail
	}
	_ = f.write(appendEnd(nil, end), true)
}

// subscribe begins the subscription that r asks for; it is nil where the answer is none. Where nothing will come any
// more that is 204, which ends a browser's attempts.
func (h *handler) subscribe(w http.ResponseWriter, r *http.Request, name string) (*subscription, error) {
	p, err := placeOf(r)
	if err != nil {
		return nil, err
	}
	s := &subscription{place: p, r: r, cancel: func() {}, stream: h.streams.Stream(name), opening: []byte(retry)}
	if err := s.find(r.Context()); err != nil {
		return nil, err
	}
	if s.until && !s.of.Closed && s.of.Tail != untold && s.begin >= s.of.Tail { // there is nothing to send
		if s.after != streamlib.Now { // to a reader who has had all, and whom this keeps from coming again
			w.WriteHeader(http.StatusNoContent)
			return nil, nil
		}
		s.opening = appendPosition(s.opening, s.begin-1, s.of.Tail, suffixOf(s.of.Life))
		return s, nil
	}
	s.r, s.cancel = UntilEnd(r)
	// Before the client hears of it: what is deleted from here on ends it.
	s.events = s.stream.Subscribe(h.inTurn(s.r.Context(), 0), s.begin)
	was, life := there(s.of), s.of.Life
	err = s.stat(r.Context())
	// It was deleted in between, and the place is one in its former life, or it was trimmed.
	again := was && (s.of.Life != life || s.of.First > s.begin)
	over := s.of.Closed && s.of.Tail != untold && s.begin >= s.of.Tail
	if err != nil || again || over {
		s.cancel()
		for range s.events {
		}
	}
	switch {
	case err != nil:
		return nil, err
	case again:
		return h.subscribe(w, r, name)
	case over:
		setTail(w.Header(), s.of)
		setClosed(w.Header())
		w.WriteHeader(http.StatusNoContent)
		return nil, nil
	}
	// Who would connect again and again is refused where there is nothing to send.
	if s.begin < s.of.Tail && h.damaged(name) {
		if err := s.try(); err != nil {
			s.cancel()
			return nil, err
		}
	}
	// All that the subscription yields is of this life, for if that is not the one that it began in it yields nothing.
	// Where an event is there at once it tells the position, and until then the same request goes there again.
	if !s.fixed() || s.begin >= s.of.Tail {
		s.opening = appendPosition(s.opening, s.begin-1, s.of.Tail, suffixOf(s.of.Life))
	}
	return s, nil
}

// try waits for what the subscription yields first, and returns the error where it is one.
func (s *subscription) try() error {
	next, stop := iter.Pull2(s.events)
	end := s.cancel
	s.cancel = func() { stop(); end() }
	batch, err, _ := next()
	s.events = func(yield func([]streamlib.Event, error) bool) {
		for ok := true; ok && yield(batch, err); batch, err, ok = next() {
		}
	}
	return err
}

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

// A place is where a request asks a subscription to begin.
type place struct {
	from  streamlib.Offset
	last  int              // instead of from
	since *time.Time       // instead of both; nil where none is told
	after streamlib.Offset // the last event that was seen, and so ahead of all; Now where none is told
	life  *int64           // that it was seen in; nil is the present one
	types []string
	until bool // the subscription ends where it has caught up
}

// placeOf returns the place that r's URL and header name.
func placeOf(r *http.Request) (*place, error) {
	q, err := parameters(r, "offset", "since", "last", "until", "type", "last-event-id", "lastEventId")
	if err == nil {
		err = cmp.Or(q.apart("last", "offset"), q.apart("since", "offset"), q.apart("since", "last"))
	}
	if err != nil {
		return nil, err
	}
	from, err := q.offset("offset", streamlib.Now)
	last, errLast := q.count("last")
	since, errSince := q.since("since")
	p := &place{from, last, since, streamlib.Now, nil, q["type"], q.has("until")}
	if p.until && q.get("until") != "tail" {
		err = cmp.Or(err, fmt.Errorf("%w until %q: it is tail", streamlib.ErrInvalid, q.get("until")))
	}
	if err := cmp.Or(err, errLast, errSince); err != nil {
		return p, err
	}
	resume := r.Header.Get("Last-Event-ID")
	sent := resume != ""
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
	m, err := parseMark(resume)
	if err != nil {
		return p, fmt.Errorf("%w Last-Event-ID %q: it is the id of an event, -1, or a number of at most %d",
			streamlib.ErrInvalid, resume, streamlib.MaxOffset)
	}
	if sent && m.offset >= 0 && m.life == nil { // the id of a client that writes numbers in its own way
		m.life = new(int64)
	}
	p.after, p.life = m.offset, m.life
	return p, nil
}

// fixed tells whether the place stays the same while the stream grows.
func (p *place) fixed() bool {
	return p.after != streamlib.Now || p.last == 0 && p.from != streamlib.Now
}

// stat learns what is known of the stream, with a tail that is untold where that is damaged and the place does not
// need it: what stands before the damage still reads.
func (s *subscription) stat(ctx context.Context) (err error) {
	s.of, err = s.stream.Stat(ctx)
	if _, corrupt := errors.AsType[*streamlib.CorruptError](err); corrupt && s.fixed() && s.after < 0 {
		s.of.Tail, err = untold, nil
	}
	return err
}

// find learns what is known of the stream, and the offset of the place in it.
func (s *subscription) find(ctx context.Context) error {
	err := s.stat(ctx)
	if err != nil {
		return err
	}
	switch resumed := s.after != streamlib.Now; {
	case resumed && there(s.of) && !(mark{s.after, s.life}).of(s.of.Life):
		return &streamlib.GoneError{Stream: s.of.Name, After: s.after, Tail: s.of.Tail}
	case resumed && s.after+1 < s.of.First:
		return s.gone(s.after)
	// An opening's: no event was seen yet.
	case s.after == streamlib.Beginning, resumed && s.after+1 == s.from:
		s.begin = s.after + 1
	case resumed && s.after >= s.of.Tail:
		return s.gone(s.after)
	case resumed:
		s.begin = s.after + 1
	case s.last > 0:
		s.begin, err = startOfLast(ctx, s.stream, s.of, s.last, s.types)
	case s.since != nil:
		s.begin, err = startOfSince(ctx, s.stream, s.of.Tail, *s.since)
	case s.from == streamlib.Now:
		s.begin = s.of.Tail
	case s.from == streamlib.Beginning:
		s.begin = s.of.First
	case s.from < s.of.First:
		return s.gone(s.from - 1)
	default:
		s.begin = s.from
	}
	return err
}

// gone says that what follows after is not kept, or not yet there.
func (s *subscription) gone(after streamlib.Offset) error {
	return &streamlib.GoneError{Stream: s.of.Name, After: after, Tail: s.of.Tail, First: s.of.First}
}

// untold is a tail that is not known.
const untold = streamlib.Now

// damaged tells whether the stream is known to be.
func (h *handler) damaged(name string) bool {
	return slices.ContainsFunc(h.streams.Damaged(), func(info streamlib.Info) bool { return info.Name == name })
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
