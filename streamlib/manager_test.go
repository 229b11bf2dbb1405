package streamlib_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamtest"
	"github.com/matryer/is"
)

// counted is a factory that counts how often it made each stream.
func counted(f streamlib.Factory) (streamlib.Factory, func(name string) int) {
	var mu sync.Mutex
	made := map[string]int{}
	return func(name string, storage streamlib.Storage, o streamlib.Options) streamlib.Stream {
			mu.Lock()
			defer mu.Unlock()
			made[name]++
			return f(name, storage, o)
		}, func(name string) int {
			mu.Lock()
			defer mu.Unlock()
			return made[name]
		}
}

func TestManagerMakesStreamsOnFirstUse(t *testing.T) {
	is := is.New(t)
	factory, made := counted(streamlib.Plain)
	m := streamlib.NewManager(memory.New(), factory, streamlib.Options{})
	s := m.Stream("orders")
	is.Equal(s.Name(), "orders")
	events := s.Read(t.Context(), 0, streamlib.MaxOffset)
	is.Equal(made("orders"), 0) // a handle alone costs nothing
	is.NoErr(last(events))
	is.Equal(made("orders"), 1)
	for next, err := range s.Subscribe(canceled(t), 0) {
		is.Equal(next, nil)
		is.True(errors.Is(err, context.Canceled))
	}
	listed, err := m.List(t.Context(), "", "", 0)
	is.NoErr(err)
	is.Equal(len(listed), 0) // looking at a stream makes none
	is.NoErr(last2(s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})))
	is.Equal(len(read(t, m.Stream("orders"), 0, streamlib.MaxOffset)), 1)
	is.Equal(made("orders"), 1) // and it is kept
	listed, err = m.List(t.Context(), "o", "a", 1)
	is.NoErr(err)
	is.Equal(listed, []string{"orders"})
	_, err = m.List(canceled(t), "", "", 0)
	is.True(errors.Is(err, context.Canceled))
}

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// TestManagerDropsIdleStreams uses more streams than are kept: those in use stay what they are, the others are made
// again.
func TestManagerDropsIdleStreams(t *testing.T) {
	is := is.New(t)
	factory, made := counted(streamlib.Plain)
	m := streamlib.NewManager(memory.New(), factory, streamlib.Options{})
	followed := m.Stream("followed")
	is.NoErr(last2(followed.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("0")})))
	next, stop := iter.Pull2(followed.Subscribe(t.Context(), 0))
	defer stop()
	_, err, _ := next()
	is.NoErr(err)
	const count = 17_000
	for round := range 2 {
		for i := range count {
			b := streamlib.Batch{Data: streamlib.JSON("1"), Key: "k"}
			receipt, err := m.Stream(fmt.Sprint("s", i)).Append(t.Context(), b)
			is.NoErr(err)
			is.Equal(receipt.Repeated, round == 1)
			is.Equal(receipt.Events[0].Offset, streamlib.Offset(0))
		}
		is.NoErr(last2(m.Stream("followed").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})))
		batch, err, _ := next()
		is.NoErr(err)
		is.Equal(batch[0].Offset, streamlib.Offset(round+1))
	}
	is.Equal(made("followed"), 1)
	is.Equal(made("s0"), 2)
	is.Equal(made(fmt.Sprint("s", count-1)), 2)
	is.NoErr(last2(m.Stream("s0").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})))
	is.NoErr(last2(m.Stream("s0").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})))
	is.Equal(made("s0"), 3) // kept again
}

// TestManagerRace uses more streams at once than are kept, so that they are dropped and made while they are used.
func TestManagerRace(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	const writers, streams = 2, 17_000
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for i := range streams {
				if err := last2(m.Stream(fmt.Sprint(i)).Append(t.Context(),
					streamlib.Batch{Data: streamlib.JSON("1")})); err != nil {
					t.Error(err) // two streams of one name would conflict
				}
			}
		})
	}
	all.Wait()
	for i := range streams {
		is.Equal(len(read(t, m.Stream(fmt.Sprint(i)), 0, streamlib.MaxOffset)), writers)
	}
}

// TestNoWayAroundHooks tries to append through everything that the manager gives.
func TestNoWayAroundHooks(t *testing.T) {
	is := is.New(t)
	veto := streamlib.Hooks{Before: []streamlib.BeforeHook{{ID: "no",
		Run: func(context.Context, string, json.RawMessage) error { return errors.New("no") }}}}
	storage := memory.New()
	m := streamlib.NewManager(storage, streamlib.Factory(streamlib.Plain).WithHooks(veto), streamlib.Options{})
	tail := streamlib.Offset(0)
	for _, b := range []streamlib.Batch{
		{Data: streamlib.JSON("1")},
		{Data: streamlib.JSON("1"), Key: "k"},
		{Data: streamlib.JSON("1"), Key: "k"},
		{Data: streamlib.JSON("1"), IfTail: &tail},
		{Data: streamlib.JSON("1"), Admit: func(context.Context) error { return nil }},
	} {
		_, err := m.Stream("orders").Append(t.Context(), b)
		_, vetoed := errors.AsType[*streamlib.HookError](err)
		is.True(vetoed)
	}
	listed, err := storage.List(t.Context(), "", "", 0)
	is.NoErr(err)
	is.Equal(len(listed), 0)
}

func TestSubscribeAll(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	add := func(name string, data ...string) {
		is.NoErr(last2(m.Stream(name).Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(data...)})))
	}
	add("a/1", "0")
	all, some := m.Subscribe(t.Context(), ""), m.Subscribe(t.Context(), "a/")
	add("a/1", "1", "2")
	add("b", "3")
	is.NoErr(m.Stream("a/1").Delete(t.Context()))
	add("a/1", "4")
	add("a/2", "5") // made later
	_ = last2(m.Stream("a/2").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("x")}))
	add("c", "6")
	take := func(events iter.Seq2[[]streamlib.Event, error], n int) (got []string) {
		for batch, err := range events {
			is.NoErr(err)
			for _, e := range batch {
				got = append(got, fmt.Sprintf("%s %d %s", e.Stream(), e.Offset, e.Data()))
			}
			if len(got) >= n {
				break
			}
		}
		return got
	}
	is.Equal(take(some, 4), []string{"a/1 1 1", "a/1 2 2", "a/1 0 4", "a/2 0 5"})
	is.Equal(take(all, 6), []string{"a/1 1 1", "a/1 2 2", "b 0 3", "a/1 0 4", "a/2 0 5", "c 0 6"})
	is.True(last(m.Subscribe(canceled(t), "")) != nil)
	is.True(last(all) != nil) // it is for one iteration
}

func TestSubscribeAllRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
		const streams, writers, count = 12, 3, 60
		ctx, cancel := context.WithCancel(t.Context())
		var writing, reading sync.WaitGroup
		got := make([]map[string][]streamlib.Event, 8)
		for r := range got {
			got[r] = map[string][]streamlib.Event{}
			prefix := ""
			if r%2 == 1 {
				prefix = "s1"
			}
			events := m.Subscribe(ctx, prefix)
			reading.Go(func() {
				for batch, err := range events {
					if err != nil && !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					for _, e := range batch {
						got[r][e.Stream()] = append(got[r][e.Stream()], e)
					}
				}
			})
		}
		for i := range streams {
			for w := range writers {
				writing.Go(func() {
					for n := range count {
						data := streamlib.JSON(fmt.Sprintf(`{"w":%d,"n":%d}`, w, n))
						if err := last2(m.Stream(fmt.Sprint("s", i)).Append(ctx, streamlib.Batch{Data: data})); err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
		writing.Wait()
		synctest.Wait() // the readers have all that there is
		cancel()
		reading.Wait()
		for i := range streams {
			name := fmt.Sprint("s", i)
			stored := read(t, m.Stream(name), 0, streamlib.MaxOffset)
			for r := range got {
				if r%2 == 1 && !strings.HasPrefix(name, "s1") {
					if len(got[r][name]) > 0 {
						t.Errorf("reader %d saw %s", r, name)
					}
					continue
				}
				if err := streamtest.Check(got[r][name], historyOf(stored)); err != nil {
					t.Errorf("reader %d of %s: %v", r, name, err)
				}
			}
		}
	})
}

// TestToldIsReadable: what anything tells of an event can be read by then, and who follows all streams has their
// lives in order.
func TestToldIsReadable(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	const streams, lives, size = 4, 200, 3
	ctx, cancel := context.WithCancel(t.Context())
	all := m.Subscribe(ctx, "")
	readable := func(name string, o streamlib.Offset) bool {
		n := 0
		for batch, err := range m.Stream(name).Read(t.Context(), o, o+1) {
			if n += len(batch); err != nil {
				t.Error(err)
			}
		}
		return n == 1
	}
	var writing, following sync.WaitGroup
	for i := range streams {
		name := fmt.Sprint("deleted", i)
		kept := fmt.Sprint("kept", i)
		writing.Go(func() {
			for life := range lives {
				data := streamlib.JSON(fmt.Sprint(life))
				for range size {
					if err := errors.Join(last2(m.Stream(name).Append(t.Context(), streamlib.Batch{Data: data})),
						last2(m.Stream(kept).Append(t.Context(), streamlib.Batch{Data: data}))); err != nil {
						t.Error(err)
					}
				}
				once := fmt.Sprint("once", i, "-", life)
				if err := errors.Join(m.Stream(name).Delete(t.Context()),
					last2(m.Stream(once).Append(t.Context(), streamlib.Batch{Data: data}))); err != nil {
					t.Error(err)
				}
			}
		})
		following.Go(func() {
			for ctx.Err() == nil {
				info, err := m.Stream(kept).Stat(t.Context())
				if err != nil || info.Tail > 0 && !readable(kept, info.Tail-1) {
					t.Errorf("stat says %d (%v), which cannot be read", info.Tail, err)
				}
			}
		})
	}
	following.Go(func() {
		for after := ""; ctx.Err() == nil; {
			names, err := m.List(t.Context(), "once", after, 7)
			if err != nil {
				t.Error(err)
			}
			for _, name := range names {
				if !readable(name, 0) {
					t.Errorf("%q is listed and cannot be read", name)
				}
				after = name
			}
			if len(names) < 7 {
				after = ""
			}
		}
	})
	type place struct {
		life   string
		offset streamlib.Offset
	}
	last := map[string]place{}
	total := streams * lives * (2*size + 1)
	for batch, err := range all {
		is.NoErr(err)
		for _, e := range batch {
			is := is.New(t)
			name, now := e.Stream(), place{string(e.Data()), e.Offset}
			if before, ok := last[name]; ok && strings.HasPrefix(name, "deleted") && before.life != now.life {
				is.Equal(before.offset, streamlib.Offset(size-1)) // the whole of the former life was told
				is.Equal(now.offset, streamlib.Offset(0))
			} else if ok {
				is.Equal(now.offset, before.offset+1)
			}
			last[name] = now
			total--
		}
		if total == 0 {
			break
		}
	}
	writing.Wait()
	cancel()
	following.Wait()
}

// TestFollowersReadWhatTheyGot: an event that came to who follows all streams can be read by then.
func TestFollowersReadWhatTheyGot(t *testing.T) {
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	var writing, following sync.WaitGroup
	for range 4 {
		all := m.Subscribe(ctx, "")
		following.Go(func() {
			for batch := range all {
				if len(batch) == 0 {
					return
				}
				e, n := batch[len(batch)-1], 0 // the one that came just now
				for events := range m.Stream("orders").Read(t.Context(), e.Offset, e.Offset+1) {
					n += len(events)
				}
				if n != 1 {
					t.Errorf("%v was told and cannot be read", e)
				}
			}
		})
	}
	for range 3 {
		writing.Go(func() {
			for range 20_000 {
				b := streamlib.Batch{Data: streamlib.JSON("1")}
				if err := last2(m.Stream("orders").Append(t.Context(), b)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	cancel()
	following.Wait()
}

// TestOpenOutcomeForAll: who follows all streams gets what an append stored whose outcome was open, in its place,
// also where the storage did not say so at once and the stream was dropped meanwhile.
func TestOpenOutcomeForAll(t *testing.T) {
	for name, drop := range map[string]bool{"told at once": false, "told later": true} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			storage := newFaulty()
			m := streamlib.NewManager(storage, streamlib.Plain, streamlib.Options{})
			soon, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			next, stop := iter.Pull2(m.Subscribe(soon, "orders"))
			defer stop()
			var got []streamlib.Event
			until := func(n int) {
				for len(got) < n {
					batch, err, _ := next()
					is.NoErr(err)
					got = append(got, batch...)
				}
			}
			add := func(data ...string) error {
				return last2(m.Stream("orders").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(data...)}))
			}
			is.NoErr(add("0"))
			for round := range 3 {
				storage.append = func(name string, events []streamlib.Event) error {
					is.NoErr(storage.sound.append(name, events))
					return errDisk
				}
				if drop {
					storage.stat = func(string) (streamlib.Info, error) { return streamlib.Info{}, errDisk }
				}
				is.True(errors.Is(add("1", "2"), errDisk))
				storage.heal()
				if drop {
					useOthers(t, m)
				} else {
					until(3*round + 3) // before anybody comes
				}
				is.NoErr(add("3"))
				until(3*round + 4)
			}
			stored := read(t, m.Stream("orders"), 0, streamlib.MaxOffset)
			is.Equal(fmt.Sprint(got), fmt.Sprint(stored))
		})
	}
}

// useOthers uses so many other streams that those that nobody uses are dropped.
func useOthers(t *testing.T, m *streamlib.Manager) {
	t.Helper()
	for i := range 17_000 {
		if _, err := m.Stream(fmt.Sprint("other", i)).Stat(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStorageLosesEvents: where events are gone that nobody deleted, as when their file was removed, no offset is
// given again.
func TestStorageLosesEvents(t *testing.T) {
	is := is.New(t)
	storage := newFaulty()
	m := streamlib.NewManager(storage, streamlib.Plain, streamlib.Options{})
	s := m.Stream("orders")
	add := func(b streamlib.Batch) error {
		b.Data = streamlib.JSON("1", "2")
		return last2(s.Append(t.Context(), b))
	}
	is.NoErr(add(streamlib.Batch{Key: "k"}))
	kept := read(t, s, 0, streamlib.MaxOffset)
	refused := func() {
		t.Helper()
		for _, b := range []streamlib.Batch{
			{}, {Key: "k"}, {Key: "new"}, {IfTail: new(streamlib.Offset)}, {IfTail: new(streamlib.Offset(2))},
		} {
			err := add(b)
			_, conflict := errors.AsType[*streamlib.ConflictError](err)
			if !errors.Is(err, streamlib.ErrUnavailable) || conflict {
				t.Errorf("%+v: %v", b, err)
			}
		}
		if err := last(s.Read(t.Context(), 0, 2)); err == nil {
			t.Error("what is gone was read as if it had never been there")
		}
		if info, err := s.Stat(t.Context()); err == nil {
			t.Errorf("stat: %+v", info)
		}
	}
	live, stop := iter.Pull2(s.Subscribe(t.Context(), 2))
	defer stop()
	is.NoErr(storage.sound.delete("orders")) // by somebody else
	is.True(errors.Is(add(streamlib.Batch{}), streamlib.ErrUnavailable))
	_, err, _ := live()
	is.True(err != nil)
	stop()
	refused()
	useOthers(t, m)
	refused()
	is.NoErr(storage.sound.append("orders", kept[:1])) // a part of it comes back
	refused()
	is.NoErr(storage.sound.append("orders", kept[1:])) // all of it
	is.NoErr(add(streamlib.Batch{}))
	is.Equal(len(read(t, s, 0, streamlib.MaxOffset)), 4)

	is.NoErr(storage.sound.delete("orders"))
	refused()
	is.NoErr(s.Delete(t.Context())) // now it is meant
	is.NoErr(add(streamlib.Batch{IfTail: new(streamlib.Offset)}))
	is.Equal(len(read(t, s, 0, streamlib.MaxOffset)), 2)

	more := append(slices.Clone(kept), event(t, 2, "orders", "3"))
	is.NoErr(storage.sound.append("orders", more[2:])) // one more than is known, as of a writer who came late
	is.True(errors.Is(add(streamlib.Batch{}), streamlib.ErrUnavailable))
	is.NoErr(add(streamlib.Batch{IfTail: new(streamlib.Offset(3))}))
}

// TestListWhileMade lists while the storage has a stream's first events and the stream does not show them yet: the
// pages are whole.
func TestListWhileMade(t *testing.T) {
	is := is.New(t)
	storage := newFaulty()
	m := streamlib.NewManager(storage, streamlib.Plain, streamlib.Options{})
	add := func(name string) error {
		return last2(m.Stream(name).Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")}))
	}
	for _, name := range []string{"a", "c", "e", "f"} {
		is.NoErr(add(name))
	}
	list := func(after string, limit int) []string {
		names, err := m.List(t.Context(), "", after, limit)
		is.NoErr(err)
		return names
	}
	look := func() {
		is.Equal(list("", 0), []string{"a", "c", "e", "f"})
		is.Equal(list("", 2), []string{"a", "c"})
		is.Equal(list("a", 2), []string{"c", "e"})
		is.Equal(list("a", 3), []string{"c", "e", "f"})
		is.Equal(list("a", 4), []string{"c", "e", "f"})
	}
	look()
	storage.append = func(name string, events []streamlib.Event) error {
		err := storage.sound.append(name, events)
		if name == "b" {
			storage.append = storage.sound.append
			look()
			storage.append = func(name string, events []streamlib.Event) error {
				err := storage.sound.append(name, events)
				look() // neither b nor d
				return err
			}
			is.NoErr(add("d"))
		}
		info, errStat := m.Stream(name).Stat(t.Context())
		is.Equal(info, streamlib.Info{Name: name})
		return errors.Join(err, errStat)
	}
	is.NoErr(add("b"))
	is.Equal(list("", 0), []string{"a", "b", "c", "d", "e", "f"})
}

// TestSubscribeAllBehind has a reader that takes nothing: beyond 64 MiB it is left behind, and holds nothing any
// longer.
func TestSubscribeAllBehind(t *testing.T) {
	is := is.New(t)
	storage := newFaulty()
	var records []weak.Pointer[byte]
	storage.append = func(_ string, events []streamlib.Event) error { // keeps nothing itself
		for _, e := range events {
			records = append(records, weak.Make(&e.Record()[0]))
		}
		return nil
	}
	held := func() (n int) {
		runtime.GC()
		for _, r := range records {
			if r.Value() != nil {
				n++
			}
		}
		return n
	}
	m := streamlib.NewManager(storage, streamlib.Plain, streamlib.Options{})
	value := streamlib.JSON(`"` + strings.Repeat("x", streamlib.MaxEvent-2) + `"`)
	add := func(n int) {
		for range n {
			is.NoErr(last2(m.Stream("orders").Append(t.Context(), streamlib.Batch{Data: value})))
		}
	}
	add(3)
	is.Equal(held(), 0) // nobody listens
	slow, stopSlow := iter.Pull2(m.Subscribe(t.Context(), ""))
	defer stopSlow()
	fast, stopFast := iter.Pull2(m.Subscribe(t.Context(), ""))
	defer stopFast()
	var seen int
	take := func() {
		for seen < len(records)-3 {
			batch, err, _ := fast()
			is.NoErr(err)
			seen += len(batch)
		}
	}
	add(50)
	take()
	is.Equal(held(), 50) // for the slow one, who may still come
	for range 20 {
		add(1)
		take()
	}
	is.True(held() <= 2) // it is given up
	batch, err, _ := slow()
	is.True(err != nil)
	is.Equal(len(batch), 0) // an error, never a gap
	_, _, more := slow()
	is.True(!more)
	add(10)
	take()
	stopFast()
	add(5)
	is.True(held() <= 2) // who left holds nothing
}
