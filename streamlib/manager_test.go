package streamlib_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"weak"

	"github.com/iterate/durable-streams/streamlib"
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
	m := streamlib.NewManager(streamlib.NewMemory(), factory, streamlib.Options{})
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

// TestManagerDropsIdleStreams uses more streams than are kept: those in use stay what they are, the others are made again.
func TestManagerDropsIdleStreams(t *testing.T) {
	is := is.New(t)
	factory, made := counted(streamlib.Plain)
	m := streamlib.NewManager(streamlib.NewMemory(), factory, streamlib.Options{})
	followed := m.Stream("followed")
	is.NoErr(last2(followed.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("0")})))
	next, stop := iter.Pull2(followed.Subscribe(t.Context(), 0))
	defer stop()
	_, err, _ := next()
	is.NoErr(err)
	const count = 3000
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
	m := streamlib.NewManager(streamlib.NewMemory(), streamlib.Plain, streamlib.Options{})
	const writers, streams = 8, 1500
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for i := range streams {
				if err := last2(m.Stream(fmt.Sprint(i)).Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})); err != nil {
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
	veto := streamlib.Hooks{Before: []streamlib.BeforeHook{{ID: "no", Run: func(context.Context, string, json.RawMessage) error { return errors.New("no") }}}}
	storage := streamlib.NewMemory()
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
	listed, err := storage.List("", "", 0)
	is.NoErr(err)
	is.Equal(len(listed), 0)
}

func TestSubscribeAll(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(streamlib.NewMemory(), streamlib.Plain, streamlib.Options{})
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
		m := streamlib.NewManager(streamlib.NewMemory(), streamlib.Plain, streamlib.Options{})
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

// TestSubscribeAllBehind has a reader that takes nothing: beyond 64 MiB it is left behind, and holds nothing any longer.
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
