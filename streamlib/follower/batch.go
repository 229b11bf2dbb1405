package follower

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// A part is a change, and what holds once it was delivered.
type part struct {
	Change
	from    position
	to      position
	none    bool             // there is no stream
	dropped streamlib.Offset // how many events were, before these
	since   time.Time        // when it was seen that there is something
}

// batch takes from the streams that have something as much as is handed over at once.
func (f *Follower) batch(ctx context.Context) (b []part) {
	for room := f.o.Bytes; room > 0 && len(f.order) > 0 && ctx.Err() == nil; {
		name, since := f.pop()
		if f.rests(name) {
			continue
		}
		p, size, err := f.look(ctx, name, room)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			f.fail(name, since, err)
			continue
		case len(p.Events) == 0 && !(f.o.States && p.states()):
			f.note(p)
			delete(f.failing, name)
			continue
		}
		p.since = since
		b = append(b, p)
		room -= size
	}
	return b
}

// states tells whether something else changes of the stream than its events.
func (p part) states() bool {
	return p.Deleted || p.to.closed != p.from.closed || p.to.first != p.from.first || p.to.note != p.from.note
}

// errMoving is of a stream that changes whenever it is looked at.
var errMoving = errors.New("it is deleted or trimmed again and again")

// look returns what comes next of a stream, with no more events than have size bytes, but with one where there is any.
// What is known of a stream and what is read of it are two questions, so the first one is asked again behind the second.
func (f *Follower) look(ctx context.Context, name string, size int) (p part, read int, err error) {
	s := f.o.Manager.Stream(name)
	for range 10 {
		info, err := s.Stat(ctx)
		if err != nil {
			return p, 0, err
		}
		p = f.begins(name, info)
		if p.none || p.to.next == info.Tail {
			return p, 0, nil
		}
		from := p.to.next
		read, err = p.read(ctx, s, info.Tail, size)
		_, gone := errors.AsType[*streamlib.GoneError](err)
		now, errStat := s.Stat(ctx)
		switch {
		case gone || errors.Is(err, streamlib.ErrDeleted):
			continue
		case errStat != nil:
			return p, 0, errStat
		case now.Life != info.Life || now.First > from || now.Tail < p.Tail:
			continue
		case err != nil && len(p.Events) == 0:
			return p, 0, err
		}
		p.State = now.State
		p.More = p.Tail < now.Tail
		p.State.Closed = now.Closed && !p.More
		if f.o.States {
			p.has(now.State)
		}
		return p, read, nil
	}
	return p, 0, errMoving
}

// begins returns the part that begins where the stream was handed over up to.
func (f *Follower) begins(name string, info streamlib.Info) (p part) {
	was, known := f.cursor.streams[name]
	p.Stream, p.from, p.State, p.Tail = name, was, info.State, info.Tail
	p.none = !info.Exists()
	p.to = was
	switch {
	case known && was.next == streamlib.Now:
		p.to = position{life: info.Life, next: info.Tail}
	case !known, p.none, was.life != info.Life:
		p.Deleted = known
		p.from, p.to = position{}, position{life: info.Life, next: info.First}
	case was.next > info.Tail:
		f.o.Log.Warn("a stream has fewer events than were handed over; it goes on from its end", "follower", f.o.Streams,
			"stream", name, "was", was.next.String(), "tail", info.Tail.String())
		p.to.next = info.Tail
	case was.next < info.First:
		p.to.next, p.dropped = info.First, info.First-was.next
	}
	if p.to.next == info.Tail && f.o.States {
		p.has(info.State)
	} else if p.to.next < info.Tail {
		p.Tail = p.to.next
	}
	return p
}

// has notes what is handed over of the state: of what is known of the stream only behind its events, all but the first.
func (p *part) has(state streamlib.State) {
	p.to.first = state.First
	if !p.More {
		p.to.closed, p.to.note = state.Closed, noteOf(state)
	}
}

// noteOf is short and tells of a state what is noted in it and whether it is held: "" where neither is.
func noteOf(s streamlib.State) string {
	if s.Note == "" && !s.Held {
		return ""
	}
	sum := sha256.Sum256(fmt.Append(nil, s.Held, s.Note))
	return hex.EncodeToString(sum[:8])
}

// read reads events up to the tail, and returns how many bytes they have.
func (p *part) read(ctx context.Context, s streamlib.Stream, tail streamlib.Offset, size int) (read int, err error) {
	for events, err := range s.Read(ctx, p.to.next, tail) {
		if err != nil {
			return read, err
		}
		for _, e := range events {
			if n := len(e.Record()); read > 0 && read+n > size {
				return read, nil
			} else {
				read += n
			}
			if e.Offset != p.to.next {
				return read, fmt.Errorf("event %d stands where %d should", e.Offset, p.to.next)
			}
			p.Events = append(p.Events, e)
			p.to.next++
			p.Tail = p.to.next
		}
	}
	return read, nil
}

// holds tells whether the events of a batch are still those of the streams.
func (f *Follower) holds(ctx context.Context, b []part) bool {
	for _, p := range b {
		info, err := f.o.Manager.Stream(p.Stream).Stat(ctx)
		none := err == nil && !info.Exists()
		if err == nil && (none != p.none || !none && (info.Life != p.State.Life || info.First > p.State.First)) {
			return false
		}
	}
	return true
}

// pass is the first look at all streams, which may have changed while nobody followed them.
type pass struct {
	names  []string // that are still to be looked at
	listed bool     // all
	after  string
	failed bool // to be listed
}

// step looks at some streams, and tells whether there are more.
func (p *pass) step(ctx context.Context, f *Follower) (more bool) {
	if p.listed && len(p.names) == 0 {
		return false
	}
	begun := time.Now()
	for ctx.Err() == nil {
		for ; len(p.names) > 0; p.names = p.names[1:] {
			if ctx.Err() != nil || time.Since(begun) >= workTime {
				wait(ctx, time.Since(begun))
				return true
			}
			if f.changed(ctx, p.names[0]) {
				f.push(p.names[0], time.Now())
			}
		}
		if p.names = nil; p.listed {
			return false
		}
		names, more, err := f.list(ctx, p.after)
		if err != nil {
			if !p.failed && ctx.Err() == nil {
				f.o.Log.Warn("the streams cannot be listed, and will be later", "follower", f.o.Streams, "error", err)
			}
			p.failed = true
			return false
		}
		if p.listed = !more; more {
			p.after = names[len(names)-1]
		}
		for _, name := range names {
			if _, known := f.cursor.streams[name]; !known { // the others were looked at
				p.names = append(p.names, name)
			}
		}
	}
	return false
}

// changed tells whether a stream is not as it was handed over.
func (f *Follower) changed(ctx context.Context, name string) bool {
	was, known := f.cursor.streams[name]
	info, err := f.o.Manager.Stream(name).Stat(ctx)
	if err != nil {
		return true
	}
	is := positionOf(info)
	if !f.o.States {
		is.first, is.closed, is.note = was.first, was.closed, was.note
	}
	return known != info.Exists() || known && is != was
}
