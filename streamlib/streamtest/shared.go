package streamtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// Shared tests that what open returns is a streamlib.Shared: the contract of Stream holds though each call of a stream
// goes to another one of two managers. Open is called for every subtest and returns a function that opens an empty
// place, the same one at each call, as another process does.
func Shared(t *testing.T, open func(t *testing.T) func() streamlib.Shared) {
	managers := func(t *testing.T) (all []*streamlib.Manager) {
		again := open(t)
		for range 2 {
			s := again()
			t.Cleanup(func() { s.Close() })
			all = append(all, streamlib.NewManager(s, streamlib.Plain, streamlib.Options{}))
		}
		return all
	}
	Stream(t, func(t *testing.T) func(string) streamlib.Stream {
		m := managers(t)
		var turn atomic.Int64
		return func(name string) streamlib.Stream {
			return turns{m[0].Stream(name), m[1].Stream(name), &turn}
		}
	})
	for _, test := range []struct {
		promise string
		run     func(t *testing.T, a, b *streamlib.Manager)
	}{
		{"who follows hears of others' events, of the end and of a deletion", testOthersFollowed},
		{"who follows all streams hears of others'", testOthersAll},
		{"of writers in two managers none is forestalled", testOthersRace},
		{"the reader of one life meets no other", testOthersLife},
		{"a key is looked up in what others left", testOthersKeys},
	} {
		t.Run(test.promise, func(t *testing.T) {
			m := managers(t)
			test.run(t, m[0], m[1])
		})
	}
	t.Run("a change is made only of what it was decided on", func(t *testing.T) {
		again := open(t)
		a, b := again(), again()
		t.Cleanup(func() { a.Close(); b.Close() })
		testShared(t, a, b)
	})
}

// turns is a stream whose calls go to two managers in turn.
type turns struct {
	a, b streamlib.Stream
	turn *atomic.Int64
}

func (s turns) next() streamlib.Stream {
	if s.turn.Add(1)%2 == 0 {
		return s.a
	}
	return s.b
}

func (s turns) Name() string { return s.a.Name() }

func (s turns) Append(ctx context.Context, b streamlib.Batch) (streamlib.Receipt, error) {
	return s.next().Append(ctx, b)
}

func (s turns) Read(ctx context.Context, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	return s.next().Read(ctx, from, to)
}

func (s turns) Subscribe(ctx context.Context, from streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	return s.next().Subscribe(ctx, from)
}

func (s turns) Stat(ctx context.Context) (streamlib.Info, error) { return s.next().Stat(ctx) }

func (s turns) Trim(ctx context.Context, before streamlib.Offset) error {
	return s.next().Trim(ctx, before)
}

func (s turns) TrimIf(ctx context.Context, before streamlib.Offset, life int64) error {
	return s.next().TrimIf(ctx, before, life)
}

func (s turns) Delete(ctx context.Context) error { return s.next().Delete(ctx) }

func (s turns) DeleteIf(ctx context.Context, tail streamlib.Offset, life int64) error {
	return s.next().DeleteIf(ctx, tail, life)
}

func testOthersFollowed(t *testing.T, a, b *streamlib.Manager) {
	is := is.New(t)
	for life := range 2 {
		sub := subscribe(t, soon(t), b.Stream("orders"), streamlib.Beginning)
		var all []streamlib.Event
		for n := range 3 {
			all = append(all, fill(t, a.Stream("orders"), n+life+1)...)
			is.NoErr(sub.until(len(all)))
		}
		samePublic(t, sub.events, all)
		is.NoErr(a.Stream("orders").Delete(soon(t)))
		is.True(errors.Is(sub.until(len(all)+1), streamlib.ErrDeleted))
	}
	sub := subscribe(t, soon(t), b.Stream("orders"), streamlib.Beginning)
	_, err := a.Stream("orders").Append(soon(t), streamlib.Batch{Data: streamlib.JSON("1"), Close: true})
	is.NoErr(err)
	is.Equal(sub.until(2), errEnded)
	is.Equal(len(sub.events), 1)
}

func testOthersAll(t *testing.T, a, b *streamlib.Manager) {
	is := is.New(t)
	fill(t, a.Stream("old"), 2)
	next, stop := iter.Pull2(b.Subscribe(soon(t), ""))
	defer stop()
	fill(t, a.Stream("old"), 1)
	fill(t, a.Stream("new"), 2)
	fill(t, b.Stream("own"), 1)
	seen := map[string][]streamlib.Offset{}
	for n := 0; n < 4; {
		events, err, ok := next()
		is.True(ok)
		is.NoErr(err)
		for _, e := range events {
			seen[e.Stream()] = append(seen[e.Stream()], e.Offset)
			n++
		}
	}
	is.Equal(seen, map[string][]streamlib.Offset{"old": {2}, "new": {0, 1}, "own": {0}})
}

// testOthersRace has writers of two managers, with keys and without: what one's append meets of another's is no conflict
// to it, and of twins one appends.
func testOthersRace(t *testing.T, a, b *streamlib.Manager) {
	is := is.New(t)
	var history Recorder
	errs := together(6, func(w int) error {
		s := []*streamlib.Manager{a, b}[w%2].Stream("orders")
		for n := range 8 {
			batch := streamlib.Batch{Data: []json.RawMessage{value(w, n)}}
			if w > 1 {
				batch.Key = fmt.Sprint(w, "-", n)
			}
			if w > 3 { // and its twin
				batch.Data, batch.Key = []json.RawMessage{value(0, 100+n)}, fmt.Sprint("twin", n)
			}
			if _, err := history.Append(soon(t), s, batch); err != nil {
				return err
			}
		}
		return nil
	})
	is.NoErr(errors.Join(errs...))
	stored := read(t, a.Stream("orders"), 0, streamlib.MaxOffset)
	is.Equal(len(stored), 4*8+8)
	is.NoErr(Check(stored, history.Appends()))
}

func testOthersLife(t *testing.T, a, b *streamlib.Manager) {
	is := is.New(t)
	for n := range 3 {
		first := fill(t, a.Stream("orders"), 3)
		sub := subscribe(t, soon(t), b.Stream("orders"), 0)
		is.NoErr(sub.until(3))
		is.NoErr(a.Stream("orders").Delete(soon(t)))
		second := fill(t, a.Stream("orders"), 5+n)
		is.True(errors.Is(sub.until(4), streamlib.ErrDeleted))
		samePublic(t, sub.events, first)
		samePublic(t, read(t, b.Stream("orders"), 0, streamlib.MaxOffset), second)
		info, err := b.Stream("orders").Stat(soon(t))
		is.NoErr(err)
		_, conflict := errors.AsType[*streamlib.ConflictError](b.Stream("orders").DeleteIf(soon(t), info.Tail, info.Life-1))
		is.True(conflict)
		is.NoErr(a.Stream("orders").DeleteIf(soon(t), info.Tail, info.Life))
	}
}

// testOthersKeys looks a key up in a stream that another manager has deleted, or trimmed, since it was last known.
func testOthersKeys(t *testing.T, a, b *streamlib.Manager) {
	is := is.New(t)
	for n, change := range []func(s streamlib.Stream) error{
		func(s streamlib.Stream) error { return s.Delete(soon(t)) },
		func(s streamlib.Stream) error { return s.Trim(soon(t), 2) },
	} {
		name := fmt.Sprint("orders", n)
		fill(t, a.Stream(name), 3)
		_, err := b.Stream(name).Stat(soon(t))
		is.NoErr(err)
		is.NoErr(change(a.Stream(name)))
		tail := fill(t, a.Stream(name), 1)[0].Offset + 1
		receipt, err := b.Stream(name).Append(soon(t), streamlib.Batch{Data: streamlib.JSON("1"), Key: "k"})
		is.NoErr(err)
		is.Equal(receipt.Events[0].Offset, tail)
	}
}

func testShared(t *testing.T, a, b streamlib.Shared) {
	is := is.New(t)
	ctx := soon(t)
	is.NoErr(put(a, "a", events("a", 0, 2)...))
	was, err := b.Stat(ctx, "a")
	is.NoErr(err)
	changed := make(chan error, 1)
	waiting, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	go func() { changed <- b.Changed(waiting, "a") }()
	is.NoErr(put(a, "a", events("a", 2, 1)...))
	is.NoErr(<-changed)
	refused := func(c streamlib.Change) {
		t.Helper()
		c.If = &was
		_, conflict := errors.AsType[*streamlib.ConflictError](b.Commit(ctx, "a", c))
		is.True(conflict)
	}
	refused(streamlib.Change{Delete: true})
	refused(streamlib.Change{Events: events("a", 2, 1)})
	refused(streamlib.Change{State: &streamlib.State{Closed: true}})
	now, err := b.Stat(ctx, "a")
	is.NoErr(err)
	is.Equal(now.Tail, streamlib.Offset(3))
	is.NoErr(set(a, "a", streamlib.State{First: 1}))
	was = now
	refused(streamlib.Change{Delete: true})
	was.First = 1
	is.NoErr(set(a, "a", streamlib.State{First: 1, Note: "1"}))
	refused(streamlib.Change{Delete: true})
	was.Note = "1"
	is.NoErr(set(a, "a", streamlib.State{First: 1, Note: "1", Held: true}))
	refused(streamlib.Change{Delete: true})
	was.Held = true
	is.NoErr(set(a, "a", streamlib.State{First: 1, Note: "1", Held: true, Closed: true}))
	refused(streamlib.Change{Delete: true})
	was, err = b.Stat(ctx, "a")
	is.NoErr(err)
	is.True(was.Closed)
	is.NoErr(b.Commit(ctx, "a", streamlib.Change{Delete: true, If: &was}))
	refused(streamlib.Change{Delete: true})
	gone, err := a.Stat(ctx, "a")
	is.NoErr(err)
	is.True(gone.Life > was.Life)
	is.NoErr(set(a, "a", streamlib.State{Life: gone.Life}, events("a", 0, 4)...))
	is.True(errors.Is(end(b.ReadLife(ctx, "a", was.Life, 0, 4)), streamlib.ErrDeleted))
	var got []streamlib.Event
	for batch, err := range b.ReadLife(ctx, "a", gone.Life, 0, 4) {
		is.NoErr(err)
		got = append(got, batch...)
	}
	sameEvents(t, got, events("a", 0, 4))

	none, err := b.Stat(ctx, "new")
	is.NoErr(err)
	is.True(!none.Exists())
	is.NoErr(put(a, "new", events("new", 0, 1)...))
	is.NoErr(b.Commit(ctx, "new", streamlib.Change{Delete: true})) // what it knew not to be there
	none, err = a.Stat(ctx, "new")
	is.NoErr(err)
	is.True(!none.Exists())
}
