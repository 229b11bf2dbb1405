package streamhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/budget"
)

// read answers with events that there are, or waits for the first.
func (h *handler) read(w http.ResponseWriter, r *http.Request, name string) error {
	q, err := parameters(r, "offset", "since", "limit", "last", "before", "type", "wait")
	if err == nil {
		err = cmp.Or(q.apart("before", "wait"), q.apart("last", "offset"), q.apart("last", "limit"), q.apart("last", "wait"),
			q.apart("since", "offset"), q.apart("since", "last"))
	}
	if err != nil {
		return err
	}
	from, err := q.offset("offset", streamlib.Beginning)
	since, errSince := q.since("since")
	before, errBefore := q.before()
	limit, errLimit := q.count("limit")
	last, errLast := q.count("last")
	wait, errWait := q.duration("wait")
	if err := cmp.Or(err, errSince, errBefore, errLimit, errLast, errWait); err != nil {
		return err
	}
	lines, types, stream := accepts(r, lineType[0]), q["type"], h.streams.Stream(name)
	a := newAnswer(w, r, http.StatusOK, lines)
	defer a.release()
	if r.Method == http.MethodHead {
		a.start()
		return nil
	}
	info, err := stream.Stat(r.Context())
	fixed := last == 0 && since == nil && from != streamlib.Now
	if _, corrupt := errors.AsType[*streamlib.CorruptError](err); corrupt && fixed {
		info.Tail, err = untold, nil // what stands before the damage still reads
	}
	switch {
	case err != nil:
	case last > 0:
		high := info
		high.Tail = min(info.Tail, before)
		from, err = startOfLast(r.Context(), stream, high, last, types)
		limit = last
	case since != nil:
		from, err = startOfSince(r.Context(), stream, info.Tail, *since)
	case from == streamlib.Now:
		from = info.Tail
	}
	if err != nil {
		return err
	}
	setFirst(w.Header(), info.First)
	begin := from
	if from == streamlib.Beginning { // which it is up to the read where the stream is trimmed meanwhile
		from = info.First
	}
	to := info.Tail
	if info.Tail == untold {
		to = streamlib.MaxOffset + 1
	}
	to = min(to, max(from, before))
	if info.Tail != untold && limit > 0 && len(types) == 0 {
		to = min(to, from+streamlib.Offset(limit))
	}
	if info.Tail != untold && (limit == 0 || len(types) == 0) {
		a.next = to
	}
	reached := untold // where a.next is not told
	a.ends = func() bool {
		return info.Closed && info.Tail != untold && max(a.next, reached) >= info.Tail && lives(r.Context(), stream, info)
	}
	for events, err := range stream.Read(h.inTurn(r.Context(), roomTime), begin, to) {
		if err != nil {
			return h.broken(a, r, err)
		}
		more, err := a.addAll(events, types, limit)
		if err != nil {
			return nil // the client has gone
		}
		if from = a.passed; !more {
			break
		}
	}
	reached = min(from, to)
	if from < a.next { // it was deleted meanwhile, and maybe made again
		if a.sent {
			return h.broken(a, r, fmt.Errorf("read %q: it ended at %d, before %d", name, from, a.next))
		}
		a.next = from
	}
	if a.count == 0 && wait > 0 {
		waiting, done := UntilEnd(r)
		defer done()
		ctx, cancel := context.WithTimeout(waiting.Context(), wait)
		defer cancel()
		look := func() { // it may have been closed meanwhile
			if now, err := stream.Stat(r.Context()); err == nil && now.Life == info.Life {
				info = now
			}
		}
		ended := true
		for events, err := range stream.Subscribe(h.inTurn(ctx, roomTime), from) {
			if ended = false; err != nil && ctx.Err() != nil && r.Context().Err() == nil {
				break // nothing came, or nobody waits
			}
			if err != nil {
				return h.broken(a, r, err)
			}
			look()
			switch a.next = events[len(events)-1].Offset + 1; {
			case limit > 0 && len(types) > 0:
				a.next = untold
			case limit > 0:
				a.next = min(a.next, from+streamlib.Offset(limit))
			}
			if _, err := a.addAll(events, types, limit); err != nil || a.count > 0 {
				break
			}
			ended = true // unless more comes
		}
		if reached = max(reached, a.passed); ended {
			look()
			a.next = info.Tail
		}
	}
	_ = a.end() // the client may have gone
	return nil
}

// inTurn is for reading what is written on: see budget.
func (h *handler) inTurn(ctx context.Context, patience time.Duration) context.Context {
	return budget.WithTurns(ctx, &h.streams.Budget().Readers, patience)
}

// lives tells whether the stream that info is of is still there, and was all the time since.
func lives(ctx context.Context, s streamlib.Stream, info streamlib.Info) bool {
	now, err := s.Stat(ctx)
	return err == nil && now.Life == info.Life
}

// broken ends an answer that met an error: with a status while nothing was sent, else so that the client sees it is
// not whole.
func (h *handler) broken(a *answer, r *http.Request, err error) error {
	if a.count == 0 {
		return err
	}
	h.logBreak(r, "answer broken off", err)
	_ = cmp.Or(a.flush(), a.c.Flush()) // what stands before the damage still reads
	breakOff(a.conn)
	return nil
}

// startOfSince returns the offset of the first event since t, tail where there is none below it.
func startOfSince(ctx context.Context, s streamlib.Stream, tail streamlib.Offset,
	t time.Time) (streamlib.Offset, error) {
	o, err := streamlib.Since(ctx, s, t)
	return min(o, tail), err
}

// startOfLast returns the offset of the n-th event before the tail that has one of types, of the first event that is
// kept where that is not among them. It looks backwards in steps.
func startOfLast(ctx context.Context, s streamlib.Stream, info streamlib.Info, n int,
	types []string) (streamlib.Offset, error) {
	if len(types) == 0 {
		return max(info.First, info.Tail-streamlib.Offset(n)), nil
	}
	first, high, step := info.First, info.Tail, streamlib.Offset(1024)
look:
	for high > first {
		low := max(first, high-step)
		var found []streamlib.Offset
		for events, err := range s.Read(ctx, low, high) {
			if gone, ok := errors.AsType[*streamlib.GoneError](err); ok && gone.First > first { // it was trimmed meanwhile
				first = gone.First
				continue look
			}
			if err != nil {
				return 0, err
			}
			for _, e := range events {
				if e.HasType(types...) {
					found = append(found, e.Offset)
				}
			}
		}
		if len(found) >= n {
			return found[len(found)-n], nil
		}
		n, high, step = n-len(found), low, min(2*step, 64<<10)
	}
	return first, nil
}

// Buffers are for what is about to be written, so that a subscriber who waits holds none. There are two kinds, for
// one who takes nothing holds one until it is cut off.
var (
	smallBuffers = buffers{size: 4 << 10}
	largeBuffers = buffers{size: chunk + chunk/4}
)

type buffers struct {
	pool sync.Pool
	size int
}

func (p *buffers) get() *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	return new(make([]byte, 0, p.size))
}

// put gives b back, unless a large event made it large, or it is none of these.
func (p *buffers) put(b *[]byte) {
	if p.size <= cap(*b) && cap(*b) <= 2*p.size {
		*b = (*b)[:0]
		p.pool.Put(b)
	}
}

const (
	beforeEvents = `{"events":[`
	afterEvents  = `]}`
)

// An answer is a response of events, as a JSON array or as lines, that is sent in chunks: its memory does not grow
// with it. One of a single chunk has a Content-Length.
type answer struct {
	w     http.ResponseWriter
	c     *http.ResponseController
	code  int
	lines bool
	buf   *[]byte // nil before the first event: who waits for one holds none
	count int     // of events
	sent  bool
	next  streamlib.Offset // promised: the answer goes up to here; untold where that is not known when it begins
	conn  *net.TCPConn

	passed streamlib.Offset // behind the last event that addAll has looked at
	ends   func() bool      // whether behind the answer there will be no event; nil is no
}

func newAnswer(w http.ResponseWriter, r *http.Request, code int, lines bool) *answer {
	return &answer{w: w, c: http.NewResponseController(w), code: code, lines: lines, next: untold, conn: connection(r)}
}

func (a *answer) release() {
	if a.buf != nil {
		largeBuffers.put(a.buf)
		a.buf = nil
	}
}

// addAll adds those events that have one of types, up to limit in all, and tells whether it takes more.
func (a *answer) addAll(events []streamlib.Event, types []string, limit int) (more bool, err error) {
	defer func() { // who waits for what comes next holds none
		if err == nil && a.sent && a.buf != nil {
			err = a.flush()
		}
	}()
	for _, e := range events {
		if a.passed = e.Offset + 1; !e.HasType(types...) {
			continue
		}
		if err := a.add(e); err != nil {
			return false, err
		}
		if a.count == limit {
			return false, nil
		}
	}
	return true, nil
}

func (a *answer) add(e streamlib.Event) error {
	if a.buf == nil {
		a.buf = largeBuffers.get()
	}
	b := *a.buf
	switch {
	case a.lines:
	case a.count == 0:
		b = append(b, beforeEvents...)
	default:
		b = append(b, ',')
	}
	b = e.AppendJSON(b)
	if a.lines {
		b = append(b, '\n')
	}
	*a.buf = b
	if a.count++; len(b) < chunk {
		return nil
	}
	if !a.sent {
		resetOnClose(a.conn, true)
	}
	return a.flush()
}

// start sends the header.
func (a *answer) start() {
	if a.sent {
		return
	}
	a.sent = true
	a.w.Header()["Content-Type"] = jsonType
	if a.lines {
		a.w.Header()["Content-Type"] = lineType
	}
	if a.next != untold {
		a.w.Header()["Stream-Next-Offset"] = []string{a.next.String()}
	}
	if a.ends != nil && a.ends() {
		setClosed(a.w.Header())
	}
	a.w.WriteHeader(a.code)
}

func (a *answer) flush() error {
	a.start()
	if a.buf == nil {
		return nil
	}
	_ = a.c.SetWriteDeadline(time.Now().Add(writeTime)) // where there are none, the server's own bound holds
	_, err := a.w.Write(*a.buf)
	a.release()
	return err
}

// end sends what is left.
func (a *answer) end() error {
	if a.buf == nil {
		a.buf = new([]byte)
	}
	switch {
	case a.lines:
	case a.count == 0:
		*a.buf = append(*a.buf, beforeEvents+afterEvents+"\n"...)
	default:
		*a.buf = append(*a.buf, afterEvents+"\n"...)
	}
	if !a.sent {
		a.w.Header()["Content-Length"] = []string{strconv.Itoa(len(*a.buf))}
		return a.flush()
	}
	err := cmp.Or(a.flush(), a.c.Flush())
	if err == nil {
		resetOnClose(a.conn, false)
	}
	return err
}
