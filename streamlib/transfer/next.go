package transfer

import (
	"context"
	"errors"
	"fmt"

	"github.com/iterate/durable-streams/streamlib"
)

// Copy makes to's stream of a name what it is in from, as Backup does with all of them: it reads only what is new,
// and where from has none it deletes to's.
func Copy(ctx context.Context, from Source, to streamlib.Storage, name string) (Summary, error) {
	b := backup{open: From(from), to: to}
	info, err := from.Stat(ctx, name)
	if err == nil {
		err = b.stream(ctx, listed{head{name: name, State: info.State}, false})
	}
	if err != nil {
		return b.Summary, fmt.Errorf("copy: %w", err)
	}
	return b.Summary, b.Summary.Err()
}

// Next is what comes next of a stream, as who follows it gets it.
type Next struct {
	Stream string
	Events []streamlib.Event
	Tail   streamlib.Offset // behind the events

	// State is the stream's, that of none where there is none. With More it is ahead of the events: they are not its
	// last ones.
	State streamlib.State
	More  bool
}

// Add makes to's stream what it is with what comes next: that is a question and one commit, or two where it was
// deleted. Where it does not have exactly what stands before, added is false, nothing was changed but that an earlier
// life was deleted, and Copy sees to it.
func Add(ctx context.Context, to streamlib.Storage, n Next) (added bool, err error) {
	info, err := to.Stat(ctx, n.Stream)
	is := streamlib.Info{State: n.State, Tail: n.Tail}
	if err == nil && info.Exists() && (!is.Exists() || info.Life < n.State.Life) {
		err = to.Commit(ctx, n.Stream, streamlib.Change{Delete: true, If: &info})
		if err == nil {
			info, err = to.Stat(ctx, n.Stream)
		}
	}
	if err != nil || !is.Exists() && !info.Exists() {
		return err == nil, n.failed(err)
	}
	from := n.Tail - streamlib.Offset(len(n.Events))
	fits := from == n.State.First // nothing that is kept stands before
	if info.Exists() {
		fits = info.Life == n.State.Life && info.Tail == from && info.First <= n.State.First &&
			(!info.Closed || n.State.Closed && len(n.Events) == 0)
	}
	if !fits {
		return false, nil
	}
	if err = to.Commit(ctx, n.Stream, n.change(info)); err != nil {
		return false, n.failed(err)
	}
	return true, nil
}

// change is that of a stream that is as info says, and may not be there.
func (n Next) change(info streamlib.Info) streamlib.Change {
	was := info.State
	if !info.Exists() {
		was = streamlib.State{Life: n.State.Life}
	}
	state := was
	state.First, state.Keys = n.State.First, n.State.Keys
	if !n.More {
		state.Closed, state.Note, state.Held = n.State.Closed, n.State.Note, n.State.Held
	}
	c := streamlib.Change{Events: n.Events, If: &info}
	if state != was || !info.Exists() {
		c.State = &state
	}
	if !info.Exists() && len(n.Events) == 0 {
		state.UpdatedAt = n.State.UpdatedAt
	}
	return c
}

// failed is nil where somebody else has changed the stream: it is then not what it was.
func (n Next) failed(err error) error {
	if _, conflict := errors.AsType[*streamlib.ConflictError](err); err == nil || conflict {
		return nil
	}
	return fmt.Errorf("stream %q: %w", n.Stream, err)
}
