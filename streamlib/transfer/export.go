package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/iterate/durable-streams/streamlib"
)

// A Source has streams: a streamlib.Storage, or whoever tells of streams as that does.
type Source interface {
	List(ctx context.Context, prefix, after string, limit int) ([]string, error)
	Stat(ctx context.Context, name string) (streamlib.Info, error)
	Read(ctx context.Context, name string, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error]
}

// A Query says what is exported; the zero value is all there is.
type Query struct {
	Prefix string // streams whose names begin so
	Name   string // or the stream of this name alone
	// From leaves out the events before it. Now leaves out all events, but not what is known of the streams.
	From streamlib.Offset
}

// A Summary is what was exported or imported.
type Summary struct {
	Streams int   `json:"streams"` // that are whole
	Events  int64 `json:"events"`
	Stored  int64 `json:"stored"` // of the events, those that the target did not have
	// Deleted are the streams that a backup deleted.
	Deleted int `json:"deleted,omitempty"`
	// Broken are the streams of which the export has not all, by name, with the cause.
	Broken map[string]string `json:"broken,omitempty"`
}

func (s *Summary) broken(name, cause string) {
	if s.Broken == nil {
		s.Broken = map[string]string{}
	}
	s.Broken[name] = cause
}

// String is the summary for a person.
func (s Summary) String() string {
	text := fmt.Sprintf("%s, %s, %d new", counted(s.Streams, "stream"), counted(s.Events, "event"), s.Stored)
	if s.Deleted > 0 {
		text += fmt.Sprintf(", %s deleted", counted(s.Deleted, "stream"))
	}
	return text
}

func counted[N int | int64](n N, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprint(n, " ", what)
}

// Err returns a *BrokenError where there are broken streams.
func (s Summary) Err() error {
	if len(s.Broken) == 0 {
		return nil
	}
	return &BrokenError{s.Broken}
}

// A BrokenError says that all was done but for some streams, which end before their tails.
type BrokenError struct {
	Streams map[string]string // by name the cause
}

func (e *BrokenError) Error() string {
	names := slices.Sorted(maps.Keys(e.Streams))
	text := fmt.Sprintf("stream %q is not whole: %s", names[0], e.Streams[names[0]])
	if n := len(names) - 1; n > 0 {
		text += fmt.Sprintf("; and %d more", n)
	}
	return text
}

const (
	chunk    = 128 << 10 // bytes are written at once, about
	namePage = 1000      // names are asked for at once
)

// Export writes what q asks for to w, in the form that the package's documentation has. Each stream is exact as of
// one moment. One that cannot be read up to its tail, as it is damaged or was deleted meanwhile, does not keep the
// others from being exported: the export says so, and the error is a *BrokenError. Any other error has ended it.
func Export(ctx context.Context, from Source, w io.Writer, q Query) (Summary, error) {
	x := exporter{from: from, w: w, q: q}
	if err := x.all(ctx); err != nil {
		return x.Summary, fmt.Errorf("export: %w", err)
	}
	return x.Summary, x.Err()
}

type exporter struct {
	Summary
	from Source
	w    io.Writer
	q    Query
	buf  []byte
}

func (x *exporter) all(ctx context.Context) error {
	x.buf = appendStart(x.buf)
	for after, more := "", true; more; {
		names := []string{x.q.Name}
		if more = x.q.Name == ""; more {
			var err error
			if names, err = x.from.List(ctx, x.q.Prefix, after, namePage); err != nil {
				return err
			}
			if more = len(names) == namePage; more {
				after = names[namePage-1]
			}
		} else if err := streamlib.CheckName(x.q.Name); err != nil {
			return err
		}
		if err := x.streams(ctx, names); err != nil {
			return err
		}
	}
	x.buf = total{x.Streams, x.Events}.append(x.buf)
	return x.flush()
}

// streams exports those of the names, in order. Where no events are wanted it asks for several at once: a storage may
// be far away.
func (x *exporter) streams(ctx context.Context, names []string) error {
	type answer struct {
		view
		err error
	}
	at := 1
	if x.q.From == streamlib.Now {
		at = copies
	}
	for len(names) > 0 {
		some := names[:min(at, len(names))]
		answers := make([]answer, len(some))
		var looking sync.WaitGroup
		for i, name := range some[1:] {
			looking.Go(func() { answers[i+1].view, answers[i+1].err = x.look(ctx, name) })
		}
		answers[0].view, answers[0].err = x.look(ctx, some[0])
		looking.Wait()
		for i, name := range some {
			if err := x.stream(ctx, name, answers[i].view, answers[i].err); err != nil {
				return err
			}
		}
		names = names[len(some):]
	}
	return nil
}

// stream exports one that was looked at, unless that has failed.
func (x *exporter) stream(ctx context.Context, name string, v view, err error) error {
	if v.stop != nil {
		defer v.stop()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if info := (streamlib.Info{State: v.State, Tail: v.tail}); err == nil && !info.Exists() {
		return nil // there is none
	}
	x.buf = v.append(x.buf)
	f := foot{name: name, tail: v.from}
	if err == nil && v.next != nil {
		f.tail, err = x.events(v)
	}
	x.Events += int64(f.tail - v.from)
	_, ended := errors.AsType[writeError](err)
	switch {
	case ended:
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil:
		x.Streams++
	default:
		f.cause = err.Error()
		x.broken(name, f.cause)
	}
	if x.buf = f.append(x.buf); len(x.buf) < chunk {
		return nil
	}
	return x.flush()
}

// A view is a stream as of one moment.
type view struct {
	head
	first batch                // of its events, which were looked for already
	next  func() (batch, bool) // those behind that; nil where there is nothing to read
	stop  func()
	err   error // what is wrong with it beside
}

type batch struct {
	events []streamlib.Event
	err    error
}

// look makes a view. What is known of a stream and what is read of it are two questions, so the first one is asked
// again behind the second: in between the stream may have been deleted and made again, or trimmed. A reading that has
// begun sees to that itself.
func (x *exporter) look(ctx context.Context, name string) (view, error) {
	for {
		info, err := x.from.Stat(ctx, name)
		if err != nil {
			return view{head: head{name: name}}, err
		}
		v := view{head: head{name: name, State: info.State, tail: info.Tail}}
		if v.from = max(v.First, min(x.q.From, v.tail)); x.q.From == streamlib.Now {
			v.from = v.tail
		}
		if info.Damage != nil {
			v.err = info.Damage
		}
		if v.from == v.tail {
			return v, v.err
		}
		next, stop := iter.Pull2(x.from.Read(ctx, name, v.from, v.tail))
		v.next, v.stop = func() (batch, bool) { events, err, more := next(); return batch{events, err}, more }, stop
		v.first, _ = v.next()
		now, err := x.from.Stat(ctx, name)
		if err == nil && now.Life == v.Life && now.First <= v.from && now.Tail >= v.tail {
			return v, nil
		}
		stop()
	}
}

// events exports those of a view, and returns where they end.
func (x *exporter) events(v view) (next streamlib.Offset, err error) {
	next = v.from
	for b, more := v.first, true; more; b, more = v.next() {
		for _, e := range b.events {
			if e.Offset != next {
				return next, fmt.Errorf("event %d stands where %d should", e.Offset, next)
			}
			next++
			if x.buf = appendEvent(x.buf, e); len(x.buf) >= chunk {
				if err := x.flush(); err != nil {
					return next, err
				}
			}
		}
		if b.err != nil {
			return next, b.err
		}
	}
	if next < v.tail {
		return next, fmt.Errorf("it was deleted meanwhile: it ended at %d, before %d", next, v.tail)
	}
	return next, v.err
}

// A writeError says why no more can be written.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

func (x *exporter) flush() error {
	_, err := x.w.Write(x.buf)
	if x.buf = x.buf[:0]; err != nil {
		return writeError{err}
	}
	return nil
}
