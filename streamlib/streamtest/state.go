package streamtest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// set commits a state, with events.
func set(s streamlib.Storage, name string, state streamlib.State, events ...streamlib.Event) error {
	return s.Commit(context.Background(), name, streamlib.Change{Events: events, State: &state})
}

// hasState tells that the stream has the state and the events from its first on.
func hasState(t *testing.T, s streamlib.Storage, name string, state streamlib.State, want []streamlib.Event) {
	t.Helper()
	is := is.New(t)
	info, err := s.Stat(context.Background(), name)
	is.NoErr(err)
	is.Equal(info.Life, state.Life)
	is.Equal(info.First, state.First)
	is.Equal(info.Closed, state.Closed)
	is.Equal(info.Note, state.Note)
	is.Equal(info.Held, state.Held)
	is.Equal(info.Tail, state.First+streamlib.Offset(len(want)))
	if len(want) > 0 {
		is.Equal(info.CreatedAt, want[0].CreatedAt())
		is.Equal(info.UpdatedAt, want[len(want)-1].CreatedAt())
	} else {
		is.True(info.CreatedAt.IsZero())
		is.Equal(info.UpdatedAt, state.UpdatedAt)
		is.Equal(info.Size, int64(0))
	}
	sameEvents(t, readStorage(t, s, name, streamlib.Beginning, streamlib.MaxOffset), want)
	sameEvents(t, readStorage(t, s, name, state.First, streamlib.MaxOffset), want)
	for _, below := range []streamlib.Offset{0, state.First / 2, state.First - 1} {
		if below < 0 || below >= state.First {
			continue
		}
		gone, ok := errors.AsType[*streamlib.GoneError](end(s.Read(context.Background(), name, below, streamlib.MaxOffset)))
		is.True(ok)
		is.Equal(*gone, streamlib.GoneError{Stream: name, After: below - 1, Tail: info.Tail, First: state.First})
	}
}

// isOver tells that there is no stream of that name, and that the next will not have a life up to that of the last.
func isOver(t *testing.T, s streamlib.Storage, name string, was int64) (life int64) {
	t.Helper()
	info, err := s.Stat(context.Background(), name)
	if err != nil || info.Life <= was {
		t.Fatalf("stat %q: life %d, and it had been %d: %v", name, info.Life, was, err)
	}
	hasState(t, s, name, streamlib.State{Life: info.Life}, nil)
	return info.Life
}

// states are what a stream may come to have beside events, each with the events that are there then.
func setStates(t *testing.T, s streamlib.Storage, name string) (state streamlib.State, there []streamlib.Event) {
	is := is.New(t)
	state = streamlib.State{Life: 3}
	is.NoErr(set(s, name, state, events(name, 0, 3)...))
	hasState(t, s, name, state, events(name, 0, 3))
	is.NoErr(put(s, name, events(name, 3, 4)...)) // which leaves it as it is
	state.First = 2
	is.NoErr(set(s, name, state))
	hasState(t, s, name, state, events(name, 2, 5))
	state.First = 7 // among those that come with it
	is.NoErr(set(s, name, state, events(name, 7, 2)...))
	hasState(t, s, name, state, events(name, 7, 2))
	state.First, state.UpdatedAt = 9, moment(0) // all there are
	is.NoErr(set(s, name, state))
	hasState(t, s, name, state, nil)
	is.NoErr(put(s, name, events(name, 9, 30)...))
	state.First, state.Closed, state.Note, state.Held = 20, true, `[{"n":"<\\\" "},1]`, true
	is.NoErr(set(s, name, state, events(name, 39, 1)...))
	hasState(t, s, name, state, events(name, 20, 20))
	return state, events(name, 20, 20)
}

func testState(t *testing.T, s streamlib.Storage) {
	is := is.New(t)
	for _, name := range names() {
		is.NoErr(put(s, name, events(name, 0, 1)...))
		is.NoErr(drop(s, name))
		state, there := setStates(t, s, name)
		hasState(t, s, name, state, there)
	}
	is.NoErr(set(s, "empty", streamlib.State{Closed: true}))
	hasState(t, s, "empty", streamlib.State{Closed: true}, nil)
	noted := streamlib.State{Note: `{}`, UpdatedAt: moment(3)}
	is.NoErr(set(s, "noted", noted))
	hasState(t, s, "noted", noted, nil)
	is.NoErr(put(s, "noted", events("noted", 0, 1)...))
	hasState(t, s, "noted", noted, events("noted", 0, 1))
	begun := streamlib.State{First: 50, UpdatedAt: moment(3)}
	is.NoErr(set(s, "later", begun))
	hasState(t, s, "later", begun, nil)
	is.NoErr(put(s, "later", madeAt("later", 50, 2, 4)...))
	hasState(t, s, "later", begun, madeAt("later", 50, 2, 4))
	is.NoErr(set(s, "at once", begun, events("at once", 50, 2)...))
	hasState(t, s, "at once", begun, events("at once", 50, 2))
	want := append(names(), "empty", "noted", "later", "at once")
	slices.Sort(want)
	listed, err := s.List(context.Background(), "", "", 0)
	is.NoErr(err)
	is.Equal(listed, want)
	for _, name := range want {
		was, err := s.Stat(context.Background(), name)
		is.NoErr(err)
		is.NoErr(drop(s, name))
		isOver(t, s, name, was.Life)
	}
}

func testStateInvalid(t *testing.T, s streamlib.Storage) {
	is := is.New(t)
	is.NoErr(put(s, "a", events("a", 0, 5)...))
	state := streamlib.State{First: 3}
	is.NoErr(set(s, "a", state))
	for _, first := range []streamlib.Offset{0, 2, 6, streamlib.MaxOffset} {
		is.True(errors.Is(set(s, "a", streamlib.State{First: first}), streamlib.ErrInvalid))
	}
	both := streamlib.Change{State: &streamlib.State{First: 4}, Delete: true}
	is.True(errors.Is(s.Commit(context.Background(), "a", both), streamlib.ErrInvalid))
	_, conflict := errors.AsType[*streamlib.ConflictError](set(s, "a", streamlib.State{First: 4}, events("a", 6, 1)...))
	is.True(conflict)
	hasState(t, s, "a", state, events("a", 3, 2))
}

func testLast(t *testing.T, s streamlib.Storage) {
	is := is.New(t)
	last := func(name string, size int64) streamlib.Offset {
		o, err := s.Last(context.Background(), name, size)
		is.NoErr(err)
		return o
	}
	sizes := []int64{0} // with so many events
	for i := range 40 {
		is.NoErr(put(s, "a", events("a", i, 1)...))
		info, err := s.Stat(context.Background(), "a")
		is.NoErr(err)
		sizes = append(sizes, info.Size)
	}
	for _, first := range []streamlib.Offset{0, 17} {
		is.NoErr(set(s, "a", streamlib.State{First: first}))
		for kept := range streamlib.Offset(40) - first + 1 {
			size := sizes[40] - sizes[40-kept]
			is.Equal(last("a", size), 40-kept)
			if kept > 0 {
				is.Equal(last("a", size-1), 40-kept+1)
			}
		}
		is.Equal(last("a", 1<<40), first)
	}
	is.Equal(last("a", -1), streamlib.Offset(40))
	is.Equal(last("nothing", 5), streamlib.Offset(0))
	is.NoErr(set(s, "empty", streamlib.State{First: 9}))
	is.Equal(last("empty", 0), streamlib.Offset(9))
}
