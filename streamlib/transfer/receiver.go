package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"

	"github.com/iterate/durable-streams/streamlib"
)

// A DifferentError says that the target has a stream of that name, and that it is another one.
type DifferentError struct {
	Stream string
	Offset streamlib.Offset // from where on
	Reason string
}

func (e *DifferentError) Error() string {
	return fmt.Sprintf("stream %q is another one here, from offset %d on: %s", e.Stream, e.Offset, e.Reason)
}

// A receiver brings one stream into a target.
type receiver struct {
	to Target // nil is none, for who wants to know only whether the stream is whole
	head
	exact  bool // the target is to have no more than this
	looked bool
	there  bool           // the target has such a stream
	has    streamlib.Info // and this is what is known of it

	stored streamlib.Offset // the first event that was, where the target is to be exact
	sum    hash.Hash32      // of the records from there on
}

// take brings the stream's next events into the target, and returns how many the target did not have. Whole says that
// there are no more.
func (r *receiver) take(ctx context.Context, events []streamlib.Event, whole bool) (stored int, err error) {
	if r.to == nil {
		return 0, nil
	}
	if !r.looked {
		if err := r.look(ctx); err != nil {
			return 0, err
		}
		r.looked = true
	}
	for len(events) > 0 && events[0].Offset < r.has.First { // the target dropped them
		events = events[1:]
	}
	n := 0
	for n < len(events) && events[n].Offset < r.has.Tail {
		n++
	}
	if err := r.compare(ctx, events[:n]); err != nil {
		return 0, err
	}
	events = events[n:]
	c := streamlib.Change{Events: events}
	if len(events) > 0 || whole {
		c.State = r.state(whole)
	}
	if err := r.commit(ctx, c); err != nil {
		return 0, err
	}
	if r.exact && len(events) > 0 {
		if r.sum == nil {
			r.sum, r.stored = crc32.New(castagnoli), events[0].Offset
		}
		for _, e := range events {
			r.sum.Write(e.Record())
		}
	}
	if whole && r.sum != nil {
		err = r.check(ctx)
	}
	return len(events), err
}

// commit makes a change of the target's stream.
func (r *receiver) commit(ctx context.Context, c streamlib.Change) error {
	if len(c.Events) == 0 && c.State == nil && !c.Delete {
		return nil
	}
	switch err := r.to.Commit(ctx, r.name, c); {
	case isConflict(err):
		return &DifferentError{r.name, max(r.has.Tail, r.from), "it changed meanwhile: " + err.Error()}
	case err != nil:
		return fmt.Errorf("stream %q: %w", r.name, err)
	}
	if r.there = !c.Delete; c.Delete {
		r.has = streamlib.Info{}
	} else if c.State != nil {
		r.has.State = *c.State
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// check reads what was stored, and tells whether it is what came.
func (r *receiver) check(ctx context.Context) error {
	sum := crc32.New(castagnoli)
	for events, err := range r.to.Read(ctx, r.name, r.stored, r.tail) {
		if err != nil {
			return fmt.Errorf("stream %q: %w", r.name, err)
		}
		for _, e := range events {
			sum.Write(e.Record())
		}
	}
	if sum.Sum32() != r.sum.Sum32() {
		return fmt.Errorf("stream %q: what was written from offset %d on is not what is read", r.name, r.stored)
	}
	return nil
}

// isConflict tells that somebody else appended.
func isConflict(err error) bool {
	_, conflict := errors.AsType[*streamlib.ConflictError](err)
	_, closed := errors.AsType[*streamlib.ClosedError](err)
	return conflict || closed
}

// look finds out what the target has, and whether that can be a part of the stream.
func (r *receiver) look(ctx context.Context) error {
	info, err := r.to.Stat(ctx, r.name)
	if err != nil {
		return fmt.Errorf("stream %q: %w", r.name, err)
	}
	if r.there = info.Exists(); r.there {
		r.has = info
	}
	if r.exact {
		if err := r.drop(ctx); err != nil {
			return err
		}
	}
	tail := r.has.Tail
	different := func(at streamlib.Offset, format string, args ...any) error {
		return &DifferentError{r.name, at, fmt.Sprintf(format, args...)}
	}
	switch {
	case !r.there && r.from > r.First:
		return different(r.First, "there is none, and the export begins at %d", r.from)
	case !r.there:
		return nil
	case r.has.Life != r.Life:
		return different(0, "it was deleted and made again: its life is %d, and not %d", r.has.Life, r.Life)
	case tail < r.from && !r.restarts():
		return different(tail, "it ends here, and the export begins at %d", r.from)
	case tail == r.from && tail < r.tail && r.has.First < tail:
		return different(tail, "it ends here, where the export begins, so that there is nothing to compare")
	case r.exact && tail > r.tail:
		return different(r.tail, "it goes on here")
	case r.exact && r.has.First > r.First:
		return different(r.First, "it begins at %d here", r.has.First)
	case r.exact && r.has.Closed && !r.Closed:
		return different(tail, "it is closed here")
	case tail < r.tail && r.has.Closed:
		return different(tail, "it is closed here")
	case tail > r.tail && r.Closed:
		return different(r.tail, "it goes on here, and the exported one is closed")
	case tail == r.tail && !r.UpdatedAt.IsZero() && !r.UpdatedAt.Equal(r.has.UpdatedAt):
		return different(max(tail-1, 0), "its last event is of %s, and not of %s",
			r.has.UpdatedAt.UTC().Format(timeLayout), r.UpdatedAt.UTC().Format(timeLayout))
	}
	return nil
}

// errAgain says that all of the stream is needed, and not a part.
var errAgain = errors.New("the stream was made again")

// drop takes from the target what the stream does not have any more.
func (r *receiver) drop(ctx context.Context) error {
	later := r.there && r.Life > r.has.Life
	if (later || !r.there) && r.from > r.First {
		return errAgain
	}
	if later {
		return r.commit(ctx, streamlib.Change{Delete: true})
	}
	switch {
	case !r.there, r.Life != r.has.Life, r.has.Tail > r.First:
		return nil
	case r.has.Tail < r.First && r.First == r.tail: // no event would tell when the last one was
		return r.commit(ctx, streamlib.Change{Delete: true})
	case r.has.First == r.has.Tail:
		return nil
	}
	state := r.has.State
	state.First = r.has.Tail
	return r.commit(ctx, streamlib.Change{State: &state})
}

// restarts tells whether the target's stream has no events, and goes on further behind.
func (r *receiver) restarts() bool {
	return r.exact && r.there && r.has.First == r.has.Tail && r.has.Tail < r.First && r.from == r.First
}

// compare finds the first of the events that is another one in the target.
func (r *receiver) compare(ctx context.Context, events []streamlib.Event) error {
	if len(events) == 0 {
		return nil
	}
	for there, err := range r.to.Read(ctx, r.name, events[0].Offset, events[len(events)-1].Offset+1) {
		if err != nil {
			return fmt.Errorf("stream %q: %w", r.name, err)
		}
		for _, e := range there {
			if !bytes.Equal(e.Record(), events[0].Record()) {
				return &DifferentError{r.name, e.Offset, "its event is not the one that was exported"}
			}
			events = events[1:]
		}
	}
	if len(events) > 0 {
		return &DifferentError{r.name, events[0].Offset, "it was deleted meanwhile"}
	}
	return nil
}

// state is what the stream's becomes with what is committed next, nil where it stays.
func (r *receiver) state(whole bool) *streamlib.State {
	state := r.has.State
	if !r.there {
		state = streamlib.State{Life: r.Life}
	}
	if !r.there || r.restarts() || r.exact && whole {
		state.First, state.Keys = r.First, r.Keys
	}
	if !r.there && r.First == r.tail { // else its events tell
		state.UpdatedAt = r.UpdatedAt
	}
	state.Closed = state.Closed || whole && r.Closed
	if r.exact || r.has.Tail <= r.tail { // else the target's is a later one
		state.Note, state.Held = r.Note, r.Held || state.Held && !r.exact
	}
	if was := r.has.State; state.Life == was.Life && state.First == was.First && state.Closed == was.Closed &&
		state.Keys == was.Keys && state.Note == was.Note && state.Held == was.Held {
		return nil
	}
	return &state
}
