package streamhttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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
	pingTime = 3 * pingAfter   // after which a connection is taken for lost
	maxPause = 5 * time.Second // between two attempts to connect
)

// A Follow says which events Follow yields; the zero value is all of them, with none dropped.
type Follow struct {
	From  streamlib.Offset // of the first one; Beginning is the first that is kept, Now is what comes
	Last  int              // instead of From: how many of the last events, before what comes
	Since string           // instead of From: the time since when, or how long ago by the server's clock; see ParseSince
	Types []string         // only events that HasType; Last counts these alone

	// Resume says that From is where an earlier subscription ended. When the stream does not have the event before it,
	// as the stream was deleted and made again, the error is *streamlib.GoneError; else a From beyond the tail waits.
	Resume bool
	// Life, where not nil, is set to the life of the stream (see streamlib.State) before anything of it is yielded. With
	// Resume it is the one that From is of; nil is the present one.
	Life *int64
	// UntilTail ends it without an error, once everything was yielded up to the tail as it was when the server was
	// asked.
	UntilTail bool
	// CaughtUp, where not nil, is called when everything before tail was yielded, or has none of Types: when catching up
	// ends, and then in each longer silence.
	CaughtUp func(tail streamlib.Offset)
	// Reconnecting, where not nil, is called before each wait to connect again, with why it was not possible so far.
	Reconnecting func(err error)
}

// Subscribe is Follow with From alone.
func (r *Remote) Subscribe(ctx context.Context, from streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	return r.Follow(ctx, Follow{From: from})
}

// Follow yields the events that there are, then what is appended, as they come. A failure of the
// first connection is an error. Once connected, it connects again by itself whenever the connection is lost, and goes
// on with no gap and no repeat. It ends without an error behind the last event of a stream that is closed. Else it ends
// with one: the context's; streamlib.ErrDeleted when the stream is deleted meanwhile; *streamlib.GoneError when that is
// found out later; or another refusal of the server.
func (r *Remote) Follow(ctx context.Context, f Follow) iter.Seq2[[]streamlib.Event, error] {
	return iterate(ctx, "subscribe", r.name, func(yield func([]streamlib.Event, error) bool) error {
		q, header := url.Values{}, http.Header{}
		switch {
		case f.Last > 0:
			setCount(q, "last", f.Last)
		case f.Since != "":
			q.Set("since", f.Since)
		case f.Resume && f.From > 0 && f.Life != nil:
			header["Last-Event-Id"] = []string{(f.From - 1).String() + suffixOf(*f.Life)}
		case f.Resume && f.From > 0:
			q.Set("last-event-id", strconv.FormatInt(int64(f.From-1), 10)) // of the present life
		default:
			q.Set("offset", clamped(f.From))
		}
		setTypes(q, f.Types)
		if f.UntilTail {
			q.Set("until", "tail")
		}
		req, err := r.request(request{query: q, header: header})
		if err != nil {
			return err
		}
		p := &position{after: unknown, start: unknown, filtered: len(f.Types) > 0, retry: time.Second}
		if f.Last == 0 && f.Since == "" && f.From != streamlib.Now {
			p.again = true
			if f.From >= 0 {
				p.start = f.From - 1
			}
		}
		for failures := 0; ; {
			moved, err := r.c.follow(ctx, req, p, &f, yield)
			switch {
			case err == errEnd:
				return nil
			case err == errStopped || ctx.Err() != nil || p.lost() || !passing(err) && !busy(err):
				if gone, ok := errors.AsType[*streamlib.GoneError](err); ok {
					if gone.After = p.after; p.after == unknown {
						gone.After = max(p.start, streamlib.Beginning)
					}
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
			if p.id != nil {
				req.header["Last-Event-Id"] = []string{string(p.id)}
			}
		}
	})
}

// follow connects and yields events until the connection is lost. It tells whether the position moved.
func (c *Client) follow(ctx context.Context, req request, p *position, f *Follow,
	yield func([]streamlib.Event, error) bool) (moved bool, err error) {
	s, err := c.connect(ctx, req)
	if err != nil {
		return false, err
	}
	defer s.close()
	if s.position, p.begun = p, true; p.after == unknown {
		p.after = p.start
	}
	for {
		events, err := s.next()
		if err != nil {
			return moved || s.pinged, err
		}
		if f.Life != nil {
			p.tellLife(f.Life)
		}
		if len(events) > 0 {
			if moved = true; !yield(events, nil) {
				return moved, errStopped
			}
		}
		if !s.toldTail {
			continue
		}
		if s.toldTail = false; f.CaughtUp != nil && p.after+1 == s.tail { // neither behind what was yielded nor ahead of it
			f.CaughtUp(s.tail)
		}
		if f.UntilTail {
			return moved, errStopped
		}
	}
}

// position is where a subscription is in its stream.
type position struct {
	after streamlib.Offset // the last event seen, Beginning before the first one
	id    []byte           // as the server told it; nil where it did not yet
	// What after is once the server has begun to answer; unknown where it is for the server to tell.
	start    streamlib.Offset
	again    bool          // the request finds it again, as long as no event was seen
	begun    bool          // the server has answered
	filtered bool          // events may be missing
	retry    time.Duration // the server's word
}

// lost tells whether there is no way back to the position.
func (p *position) lost() bool { return p.after == unknown && !(p.again && p.begun) }

// tellLife sets life where it is another than that of the position.
func (p *position) tellLife(life *int64) {
	if m, err := parseMark(string(p.id)); err == nil && m.life != nil && *m.life != *life {
		*life = *m.life
	}
}

const unknown = streamlib.Now // the position before the server has told it

// errEnd says that behind what came there will be no events.
var errEnd = errors.New("the stream is closed")

// An eventStream is a response of server-sent events.
type eventStream struct {
	lines
	*position // nil where the events are of many streams
	close     func()
	id        []byte // a line that has been read; what it says holds when its event is whole
	note      bool   // the event that is being read is one of the server's own, such as a position
	end       bool   // it is the one behind the last
	pinged    bool
	caughtUp  bool             // the server has said so
	toldTail  bool             // and again since this was last looked at
	tail      streamlib.Offset // that it told
	err       error
}

// connect opens an event stream.
func (c *Client) connect(ctx context.Context, q request) (*eventStream, error) {
	if q.header == nil {
		q.header = http.Header{}
	}
	q.header["Accept"], q.limit = sseType, pingTime
	resp, err := c.do(ctx, q)
	if err == nil && !is(resp, sseType[0]) {
		resp.Body.Close()
		switch err = errNotOurs; {
		case resp.StatusCode != http.StatusNoContent:
		case isClosed(resp.Header):
			err = errEnd
		case q.header["Last-Event-Id"] != nil, q.query.Has("last-event-id"): // there is no more behind it
			err = errStopped
		}
	}
	if err != nil {
		return nil, err
	}
	return &eventStream{lines: lines{r: resp.Body}, close: func() { resp.Body.Close() }}, nil
}

// next waits for events and returns those that came together, none where the server told the tail alone.
func (s *eventStream) next() (events []streamlib.Event, err error) {
	for {
		for s.err == nil {
			line, ok := s.lines.next()
			if !ok {
				break
			}
			events, s.err = s.take(line, events)
		}
		if len(events) > 0 || s.toldTail {
			return events, nil
		}
		if s.err == nil {
			s.err = unexpected(s.fill())
		}
		if s.err != nil {
			return nil, s.err
		}
	}
}

// take is the effect of one line.
func (s *eventStream) take(line []byte, events []streamlib.Event) ([]streamlib.Event, error) {
	p := s.position
	data, isData := bytes.CutPrefix(line, []byte("data: "))
	switch {
	case isData && s.end:
		var told struct{ Tail string }
		_ = json.Unmarshal(data, &told)
		tail, err := streamlib.ParseOffset(told.Tail)
		if err == nil && p.after != unknown && p.after+1 < tail && !p.filtered {
			err = errGap
		}
		return events, err
	case isData && !s.note: // the last line of an event
		event, err := parseEvent(data)
		if err == nil && p != nil {
			if p.after != unknown && (event.Offset <= p.after || event.Offset != p.after+1 && !p.filtered) {
				return events, errGap
			}
			if !bytes.HasPrefix(s.id, data[offsetAt:offsetAt+16]) { // as nearly all have it
				if m, err := parseMark(string(s.id)); err != nil || m.offset != event.Offset {
					return events, errNotOurs
				}
			}
			p.after, p.id, s.id = event.Offset, s.id, nil
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
			m, err := parseMark(string(s.id))
			if err != nil {
				return events, errNotOurs
			}
			if p.after == unknown || p.filtered && m.offset > p.after {
				p.after = m.offset
			}
			if p.after == m.offset {
				p.id = s.id
			}
		}
		if s.end {
			return events, errEnd
		}
		s.id, s.note = nil, false
	case strings.TrimSpace(ping):
		s.pinged = true
	case strings.TrimSpace(deleted):
		return events, streamlib.ErrDeleted
	default:
		if bytes.HasPrefix(line, []byte("event: ")) {
			s.note, s.end = true, p != nil && string(line) == "event: end"
		} else if tail, ok := bytes.CutPrefix(line, []byte(tailIs)); ok && p != nil {
			var err error
			if s.tail, err = streamlib.ParseOffset(string(tail)); err != nil {
				return events, errNotOurs
			}
			s.pinged = s.pinged || s.caughtUp // the first one comes without a silence
			s.caughtUp, s.toldTail = true, true
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
