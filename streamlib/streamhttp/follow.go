package streamhttp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

const (
	silence  = 3 * pingAfter   // after which a connection is taken for lost
	maxPause = 5 * time.Second // between two attempts to connect
)

// A Follow says which events Follow yields; the zero value is all of them.
type Follow struct {
	From  streamlib.Offset // of the first one; Beginning and 0 are the same, Now is what comes
	Last  int              // instead of From: how many of the last events, before what comes
	Types []string         // only events that HasType; Last counts these alone

	// Reconnecting, where not nil, is called before each wait to connect again, with why it was not possible so far.
	Reconnecting func(err error)
}

// Subscribe is Follow with From alone.
func (r *Remote) Subscribe(ctx context.Context, from streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	return r.Follow(ctx, Follow{From: from})
}

// Follow yields the events that there are, then what is appended, as they come and without end. A failure of the
// first connection is an error. Once connected, it connects again by itself whenever the connection is lost, and goes
// on with no gap and no repeat. It ends with an error: the context's; streamlib.ErrDeleted when the stream is deleted
// meanwhile; *streamlib.GoneError when that is found out later; or another refusal of the server.
func (r *Remote) Follow(ctx context.Context, f Follow) iter.Seq2[[]streamlib.Event, error] {
	return iterate(ctx, "subscribe", r.name, func(yield func([]streamlib.Event, error) bool) error {
		q := url.Values{}
		if f.Last > 0 {
			setCount(q, "last", f.Last)
		} else {
			q.Set("offset", clamped(f.From))
		}
		setTypes(q, f.Types)
		req, err := r.request(request{query: q, header: http.Header{}})
		if err != nil {
			return err
		}
		p := &position{after: unknown, start: unknown, filtered: len(f.Types) > 0, retry: time.Second}
		if f.Last == 0 && f.From != streamlib.Now {
			p.start = max(f.From, 0) - 1
		}
		for failures := 0; ; {
			moved, err := r.c.follow(ctx, req, p, yield)
			switch {
			case err == errStopped || ctx.Err() != nil || p.after == unknown || !passing(err) && !busy(err):
				if gone, ok := errors.AsType[*streamlib.GoneError](err); ok {
					gone.After = p.after
				}
				return err
			case moved:
				failures = 0
			}
			if failures > 0 { // the first time at once, for a connection can break alone
				if f.Reconnecting != nil {
					f.Reconnecting(err)
				}
				pause := min(p.retry<<min(failures-1, 8), maxPause)
				select {
				case <-time.After(pause/2 + rand.N(pause/2+1)): // not all clients at once
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			failures++
			req.header["Last-Event-Id"] = []string{p.after.String()}
		}
	})
}

// follow connects and yields events until the connection is lost. It tells whether the position moved.
func (c *Client) follow(ctx context.Context, req request, p *position,
	yield func([]streamlib.Event, error) bool) (moved bool, err error) {
	s, err := c.connect(ctx, req)
	if err != nil {
		return false, err
	}
	defer s.close()
	if s.position = p; p.after == unknown {
		p.after = p.start
	}
	for {
		events, err := s.next()
		if err != nil {
			return moved || s.pinged, err
		}
		if moved = true; !yield(events, nil) {
			return moved, errStopped
		}
	}
}

// position is where a subscription is in its stream.
type position struct {
	after streamlib.Offset // the last event seen, Beginning before the first one
	// What after is once the server has begun to answer; unknown where it is for the server to tell.
	start    streamlib.Offset
	filtered bool          // events may be missing
	retry    time.Duration // the server's word
}

const unknown = streamlib.Now // the position before the server has told it

// An eventStream is a response of server-sent events.
type eventStream struct {
	lines
	*position // nil where the events are of many streams
	close     func()
	alive     *time.Timer // ends the connection when it is silent for too long
	id        []byte      // a line that has been read; what it says holds when its event is whole
	note      bool        // the event that is being read is one of the server's own, such as a position
	pinged    bool
	err       error
}

// connect opens an event stream.
func (c *Client) connect(ctx context.Context, q request) (*eventStream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &eventStream{}
	s.alive = time.AfterFunc(silence, func() { cancel(fmt.Errorf("nothing came for %v", silence)) })
	s.close = func() { s.alive.Stop(); cancel(nil) }
	if q.header == nil {
		q.header = http.Header{}
	}
	q.header["Accept"] = sseType
	resp, err := c.do(ctx, q)
	if err == nil && !is(resp, sseType[0]) {
		resp.Body.Close()
		err = errNotOurs
	}
	if err != nil {
		s.close()
		return nil, err
	}
	s.r = resp.Body
	s.close = func() { s.alive.Stop(); cancel(nil); resp.Body.Close() }
	return s, nil
}

// next waits for events and returns those that came together.
func (s *eventStream) next() (events []streamlib.Event, err error) {
	for {
		for s.err == nil {
			line, ok := s.lines.next()
			if !ok {
				break
			}
			events, s.err = s.take(line, events)
		}
		if len(events) > 0 {
			return events, nil
		}
		if s.err == nil {
			s.err = unexpected(s.fill())
			s.alive.Reset(silence)
		}
		if s.err != nil {
			return nil, s.err
		}
	}
}

// take is the effect of one line.
func (s *eventStream) take(line []byte, events []streamlib.Event) ([]streamlib.Event, error) {
	p := s.position
	if data, ok := bytes.CutPrefix(line, []byte("data: ")); ok && !s.note { // the last line of an event
		event, err := parseEvent(data)
		if err == nil && p != nil {
			if p.after != unknown && (event.Offset <= p.after || event.Offset != p.after+1 && !p.filtered) {
				return events, errGap
			}
			p.after, s.id = event.Offset, nil
		}
		if err != nil {
			return events, err
		}
		return append(events, event), nil
	}
	if id, ok := bytes.CutPrefix(line, []byte("id: ")); ok {
		s.id = id
		return events, nil
	}
	switch string(line) {
	case "": // the end of an event; where that is a position, or of an older server and has no data, its id is the position
		if p != nil && s.id != nil {
			id, err := streamlib.ParseOffset(string(s.id))
			if err != nil {
				return events, errNotOurs
			}
			if p.after == unknown || p.filtered && id > p.after {
				p.after = id
			}
		}
		s.id, s.note = nil, false
	case strings.TrimSpace(ping):
		s.pinged = true
	case strings.TrimSpace(deleted):
		return events, streamlib.ErrDeleted
	default:
		if bytes.HasPrefix(line, []byte("event: ")) {
			s.note = true
		} else if retry, ok := bytes.CutPrefix(line, []byte("retry: ")); ok && p != nil {
			if ms, err := strconv.Atoi(string(retry)); err == nil {
				p.retry = min(max(time.Duration(ms)*time.Millisecond, time.Millisecond), maxPause)
			}
		}
	}
	return events, nil
}

// lines are the lines of a reader. Their memory is not written again, so that events can stand on it.
type lines struct {
	r        io.Reader
	mem      []byte
	from, to int  // of what was read and not yet returned
	searched int  // up to here there is no end of a line
	full     bool // the last read filled mem
}

// next returns the next line that was read, without its end.
func (l *lines) next() (line []byte, ok bool) {
	n := bytes.IndexByte(l.mem[l.searched:l.to], '\n')
	if n < 0 {
		l.searched = l.to
		return nil, false
	}
	line = l.mem[l.from : l.searched+n : l.searched+n]
	l.from = l.searched + n + 1
	l.searched = l.from
	return line, true
}

// begun tells whether a line was read without its end.
func (l *lines) begun() bool { return l.from < l.to }

// fill reads on, once.
func (l *lines) fill() error {
	const smallest, largest = 16 << 10, 256 << 10
	if len(l.mem)-l.to < 512 {
		size := smallest
		if l.full { // much is there
			size = min(2*len(l.mem), largest)
		}
		begun := l.mem[l.from:l.to]
		l.mem = make([]byte, max(size, 2*len(begun)))
		l.searched -= l.from
		l.from, l.to = 0, copy(l.mem, begun)
	}
	n, err := l.r.Read(l.mem[l.to:])
	l.to += n
	l.full = l.to == len(l.mem)
	if n > 0 {
		return nil
	}
	return err
}
