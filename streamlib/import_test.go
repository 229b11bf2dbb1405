package streamlib_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/matryer/is"
)

// elsewhere returns events with the offsets in [from, to) as another storage has them; those with odd ones have keys.
func elsewhere(name string, from, to streamlib.Offset) []streamlib.Event {
	var events []streamlib.Event
	for o := from; o < to; o++ {
		at := time.Date(2024, 1, 8, 0, 0, int(o), 0, time.UTC)
		record, err := streamlib.NewRecord(o, name, json.RawMessage(strconv.Itoa(int(o))), at)
		if o%2 == 1 {
			record = append(record, fmt.Sprintf(`,"key":"k%d"`, o)...)
		}
		e, errParse := streamlib.ParseRecord(record)
		if err := errors.Join(err, errParse); err != nil {
			panic(err)
		}
		events = append(events, e)
	}
	return events
}

// take returns the next n events of a subscription.
func take(t *testing.T, next func() ([]streamlib.Event, error, bool), n int) (events []streamlib.Event) {
	t.Helper()
	for len(events) < n {
		more, err, _ := next()
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, more...)
	}
	return events
}

func sameRecords(t *testing.T, got, want []streamlib.Event) {
	t.Helper()
	is := is.New(t)
	is.Equal(len(got), len(want))
	for i, e := range got {
		is.Equal(string(e.Record()), string(want[i].Record()))
	}
}

// TestImport: what is imported is seen like what is appended, and what comes next goes on from it.
func TestImport(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	s, want := m.Stream("s"), elsewhere("s", 0, 40)
	next, stop := iter.Pull2(s.Subscribe(t.Context(), streamlib.Beginning))
	defer stop()
	nextOfAll, stopAll := iter.Pull2(m.Subscribe(t.Context(), ""))
	defer stopAll()
	b := streamlib.Batch{Data: streamlib.JSON("0"), Key: "k0", IfTail: new(streamlib.Offset(1))}
	_, err := s.Append(t.Context(), b)
	is.True(err != nil) // its keys have been read by now

	state := streamlib.State{Life: 5}
	is.NoErr(m.Import(t.Context(), "s", streamlib.Change{Events: want[:10], State: &state}))
	sameRecords(t, take(t, next, 10), want[:10])
	sameRecords(t, take(t, nextOfAll, 10), want[:10])
	is.NoErr(m.Import(t.Context(), "s", streamlib.Change{Events: want[10:20], State: &state}))
	is.NoErr(m.Import(t.Context(), "s", streamlib.Change{Events: want[20:]}))
	sameRecords(t, take(t, next, 30), want[10:])
	sameRecords(t, take(t, nextOfAll, 30), want[10:])
	sameRecords(t, read(t, s, 0, streamlib.MaxOffset), want)

	info, err := s.Stat(t.Context())
	is.NoErr(err)
	is.Equal(info.State, streamlib.State{Life: 5, UpdatedAt: want[39].CreatedAt()})
	is.Equal(info.Tail, streamlib.Offset(40))
	for _, o := range []streamlib.Offset{3, 39} {
		b := streamlib.Batch{Data: streamlib.JSON(strconv.Itoa(int(o))), Key: fmt.Sprintf("k%d", o)}
		receipt, err := s.Append(t.Context(), b)
		is.NoErr(err)
		is.True(receipt.Repeated)
		sameRecords(t, receipt.Events, want[o:o+1])
	}
	b = streamlib.Batch{Data: streamlib.JSON("40"), IfTail: &info.Tail, IfLife: &info.Life}
	receipt, err := s.Append(t.Context(), b)
	is.NoErr(err)
	sameRecords(t, take(t, next, 1), receipt.Events)

	closed := streamlib.State{Life: 5, First: 30, Closed: true} // where it begins stays
	is.NoErr(m.Import(t.Context(), "s", streamlib.Change{State: &closed}))
	is.NoErr(last(s.Subscribe(t.Context(), 30)))
	is.Equal(len(read(t, s, streamlib.Beginning, streamlib.MaxOffset)), 41)
	_, _, more := next()
	is.True(!more)                                                         // the end
	is.NoErr(m.Import(t.Context(), "s", streamlib.Change{State: &closed})) // again
}

// TestImportMakesStreams: of a stream that begins behind offset 0, and of one that has no events.
func TestImportMakesStreams(t *testing.T) {
	is := is.New(t)
	storage := memory.New()
	m := streamlib.NewManager(storage, streamlib.Plain, streamlib.Options{})
	is.NoErr(m.Import(t.Context(), "deleted", streamlib.Change{Events: elsewhere("deleted", 0, 5)}))
	is.NoErr(m.Stream("deleted").Delete(t.Context()))
	is.NoErr(m.Import(t.Context(), "again", streamlib.Change{Events: elsewhere("again", 0, 5)}))
	info, err := m.Stream("again").Stat(t.Context())
	is.NoErr(err)
	is.Equal(info.Life, int64(0)) // not the one that a stream that is made now has

	// Of the data 1.
	const keys = `[{"key":"old","last":19,"count":1,"sum":2212294583,"at":1700000000000}]`
	waits, stop := iter.Pull2(m.Stream("trimmed").Subscribe(t.Context(), 22))
	defer stop()
	misses := m.Stream("trimmed").Subscribe(t.Context(), 0)
	for name, state := range map[string]streamlib.State{
		"trimmed": {Life: 1, First: 20, Keys: keys},
		"emptied": {First: 20, UpdatedAt: elsewhere("s", 19, 20)[0].CreatedAt()},
		"closed":  {Closed: true}, "ended": {First: 20, Closed: true}, "plain": {},
	} {
		var events []streamlib.Event
		switch name {
		case "trimmed":
			events = elsewhere(name, 20, 25)
		case "plain":
			events = elsewhere(name, 0, 3)
		}
		is.NoErr(m.Import(t.Context(), name, streamlib.Change{Events: events, State: &state}))
		if len(events) > 0 {
			state.UpdatedAt = events[len(events)-1].CreatedAt()
		}
		for _, stat := range []func(context.Context) (streamlib.Info, error){
			m.Stream(name).Stat, func(ctx context.Context) (streamlib.Info, error) { return storage.Stat(ctx, name) },
		} {
			info, err := stat(t.Context())
			is.NoErr(err)
			is.Equal(info.State, state)
			is.Equal(info.Tail, state.First+streamlib.Offset(len(events)))
		}
		sameRecords(t, read(t, m.Stream(name), streamlib.Beginning, streamlib.MaxOffset), events)
	}
	sameRecords(t, take(t, waits, 3), elsewhere("trimmed", 22, 25))
	_, gone := errors.AsType[*streamlib.GoneError](last(misses))
	is.True(gone)
	receipt, err := m.Stream("trimmed").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1"), Key: "old"})
	is.NoErr(err)
	is.True(receipt.Repeated)
	receipt, err = m.Stream("emptied").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})
	is.NoErr(err)
	is.Equal(receipt.Events[0].Offset, streamlib.Offset(20))
	is.NoErr(m.Import(t.Context(), "nothing", streamlib.Change{}))
	listed, err := m.List(t.Context(), "n", "", 0)
	is.NoErr(err)
	is.Equal(len(listed), 0)
}

// TestImportOfWhatDoesNotFollow: it changes nothing.
func TestImportOfWhatDoesNotFollow(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	is.NoErr(m.Import(t.Context(), "s", streamlib.Change{Events: elsewhere("s", 0, 5), State: &streamlib.State{Life: 2}}))
	is.NoErr(m.Import(t.Context(), "closed",
		streamlib.Change{Events: elsewhere("closed", 0, 5), State: &streamlib.State{Closed: true}}))
	old := elsewhere("s", 1, 3)
	record, err := streamlib.NewRecord(5, "s", json.RawMessage("5"), old[0].CreatedAt())
	is.NoErr(err)
	older, err := streamlib.ParseRecord(record)
	is.NoErr(err)
	conflict := func(err error) bool { _, ok := errors.AsType[*streamlib.ConflictError](err); return ok }
	isClosed := func(err error) bool { _, ok := errors.AsType[*streamlib.ClosedError](err); return ok }
	behind := streamlib.State{First: 2}
	invalid := func(err error) bool { return errors.Is(err, streamlib.ErrInvalid) }
	for what, test := range map[string]struct {
		name string
		c    streamlib.Change
		is   func(error) bool
	}{
		"a gap":              {"s", streamlib.Change{Events: elsewhere("s", 6, 7)}, conflict},
		"events there are":   {"s", streamlib.Change{Events: elsewhere("s", 4, 7)}, conflict},
		"another life":       {"s", streamlib.Change{Events: elsewhere("s", 5, 7), State: &streamlib.State{}}, conflict},
		"no first events":    {"new", streamlib.Change{Events: elsewhere("new", 1, 2)}, conflict},
		"not from the first": {"new", streamlib.Change{Events: elsewhere("new", 3, 4), State: &behind}, conflict},
		"behind the end":     {"closed", streamlib.Change{Events: elsewhere("closed", 5, 7)}, isClosed},
		"another stream's":   {"s", streamlib.Change{Events: elsewhere("closed", 5, 7)}, invalid},
		"a hole":             {"s", streamlib.Change{Events: append(elsewhere("s", 5, 7), elsewhere("s", 8, 9)...)}, invalid},
		"an older event":     {"s", streamlib.Change{Events: []streamlib.Event{older}}, invalid},
		"a deletion":         {"s", streamlib.Change{Delete: true}, invalid},
		"no name":            {"", streamlib.Change{}, invalid},
		"beyond all offsets": {"new", streamlib.Change{State: &streamlib.State{First: streamlib.MaxOffset + 2}}, invalid},
		"before all offsets": {"new", streamlib.Change{State: &streamlib.State{First: -1}}, invalid},
	} {
		t.Run(what, func(t *testing.T) {
			if err := m.Import(t.Context(), test.name, test.c); !test.is(err) {
				t.Error(err)
			}
		})
	}
	sameRecords(t, read(t, m.Stream("s"), 0, streamlib.MaxOffset), elsewhere("s", 0, 5))
	listed, err := m.List(t.Context(), "", "", 0)
	is.NoErr(err)
	is.Equal(listed, []string{"closed", "s"})
}

// TestImportBringsAKeyInFlight: an append whose key comes with an import, once it was looked up, is a repeat.
func TestImportBringsAKeyInFlight(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	admitted := 0
	receipt, err := m.Stream("s").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("3"), Key: "k3",
		Admit: func(ctx context.Context) error {
			admitted++
			return m.Import(ctx, "s", streamlib.Change{Events: elsewhere("s", 0, 5)})
		}})
	is.NoErr(err)
	is.True(receipt.Repeated)
	is.Equal(admitted, 1)
	sameRecords(t, receipt.Events, elsewhere("s", 3, 4))

	receipt, err = m.Stream("s").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("3"), Key: "other",
		Admit: func(ctx context.Context) error {
			admitted++
			return m.Import(ctx, "s", streamlib.Change{Events: elsewhere("s", 5, 6)})
		}})
	is.NoErr(err)
	is.True(!receipt.Repeated)
	is.Equal(receipt.Events[0].Offset, streamlib.Offset(6))
	is.Equal(admitted, 2) // once each
}

// TestImportAmongAppends: what waits for a commit together is decided in its order.
func TestImportAmongAppends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		storage, begin := &halting{Storage: memory.New()}, make(chan bool)
		storage.before = func() { <-begin }
		m := streamlib.NewManager(storage, streamlib.Plain, streamlib.Options{})
		var all sync.WaitGroup
		offsets := make([]streamlib.Offset, 4)
		for i := range offsets {
			all.Go(func() {
				if i == 2 {
					e := elsewhere("s", 2, 4) // which are not older than the others
					is.NoErr(m.Import(t.Context(), "s", streamlib.Change{Events: e}))
					offsets[i] = 2
					return
				}
				receipt, err := m.Stream("s").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})
				is.NoErr(err)
				offsets[i] = receipt.Events[0].Offset
			})
			synctest.Wait() // in this order
		}
		close(begin)
		all.Wait()
		is.Equal(offsets, []streamlib.Offset{0, 1, 2, 4})
		sameRecords(t, read(t, m.Stream("s"), 2, 4), elsewhere("s", 2, 4))
	})
}

// TestImportIsListedWhenItCanBeRead: not when the storage has it.
func TestImportIsListedWhenItCanBeRead(t *testing.T) {
	is := is.New(t)
	storage := &halting{Storage: memory.New()}
	m := streamlib.NewManager(storage, streamlib.Plain, streamlib.Options{})
	listed := func() int {
		names, err := m.List(t.Context(), "", "", 0)
		is.NoErr(err)
		return len(names)
	}
	storage.after = func() { is.Equal(listed(), 0) }
	is.NoErr(m.Import(t.Context(), "s", streamlib.Change{Events: elsewhere("s", 0, 5)}))
	is.Equal(listed(), 1)
}

// TestImportAndHooks: none is run, and a stream that hides what is below it takes none.
func TestImportAndHooks(t *testing.T) {
	is := is.New(t)
	no := streamlib.Hooks{Before: []streamlib.BeforeHook{{ID: "no",
		Run: func(context.Context, string, json.RawMessage) error { return errors.New("no") }}}}
	hooked := streamlib.Factory(streamlib.Plain).WithHooks(no).WithHooks(no)
	m := streamlib.NewManager(memory.New(), hooked, streamlib.Options{})
	is.NoErr(m.Import(t.Context(), "s", streamlib.Change{Events: elsewhere("s", 0, 5)}))
	sameRecords(t, read(t, m.Stream("s"), 0, streamlib.MaxOffset), elsewhere("s", 0, 5))

	other := streamlib.Factory(func(name string, s streamlib.Storage, o streamlib.Options) streamlib.Stream {
		return struct{ streamlib.Stream }{streamlib.Plain(name, s, o)}
	})
	m = streamlib.NewManager(memory.New(), other.WithHooks(no), streamlib.Options{})
	err := m.Import(t.Context(), "s", streamlib.Change{Events: elsewhere("s", 0, 5)})
	is.True(errors.Is(err, streamlib.ErrUnavailable))
}

// halting is a storage that does something before and after it commits, and whose next commit stores, and says that it
// may not have.
type halting struct {
	streamlib.Storage
	before, after func()
	next          bool
}

func (h *halting) Commit(ctx context.Context, name string, c streamlib.Change) error {
	if h.before != nil {
		h.before()
	}
	err := h.Storage.Commit(ctx, name, c)
	if h.after != nil {
		h.after()
	}
	if h.next {
		h.next = false
		return errDisk
	}
	return err
}

// TestImportWithAnOpenOutcome: what was stored is shown all the same.
func TestImportWithAnOpenOutcome(t *testing.T) {
	is := is.New(t)
	storage := &halting{Storage: memory.New()}
	m := streamlib.NewManager(storage, streamlib.Plain, streamlib.Options{})
	state, want := streamlib.State{Life: 3, First: 20}, elsewhere("s", 20, 30)
	next, stop := iter.Pull2(m.Stream("s").Subscribe(t.Context(), 20))
	defer stop()
	for len(want) > 0 {
		storage.next = true
		is.True(errors.Is(m.Import(t.Context(), "s", streamlib.Change{Events: want[:5], State: &state}), errDisk))
		sameRecords(t, take(t, next, 5), want[:5])
		want = want[5:]
	}
	storage.next = true
	state.Closed = true
	is.True(errors.Is(m.Import(t.Context(), "s", streamlib.Change{State: &state}), errDisk))
	is.NoErr(last(m.Stream("s").Subscribe(t.Context(), 20)))
	info, err := m.Stream("s").Stat(t.Context())
	is.NoErr(err)
	state.UpdatedAt = elsewhere("s", 29, 30)[0].CreatedAt()
	is.Equal(info.State, state)
}
