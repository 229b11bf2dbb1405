package streamlib_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// fullWindows is a storage all of whose streams have 10,000 events with keys, and the function that counts its reads.
func fullWindows(t *testing.T) (storage *faulty, reads func() int) {
	t.Helper()
	const tail = 10_000
	all := make([]streamlib.Event, tail)
	for o := range all {
		var err error
		record := event(t, streamlib.Offset(o), "s", "1").Record()
		if all[o], err = streamlib.ParseRecord(fmt.Appendf(nil, `%s,"key":"key-%d"`, record, o)); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	tails, n := map[string]streamlib.Offset{}, 0
	storage = newFaulty()
	storage.stat = func(name string) (streamlib.Info, error) {
		mu.Lock()
		defer mu.Unlock()
		return streamlib.Info{Name: name, Tail: tail + tails[name]}, nil
	}
	storage.append = func(name string, events []streamlib.Event) error {
		mu.Lock()
		defer mu.Unlock()
		tails[name] += streamlib.Offset(len(events))
		return nil
	}
	storage.read = func(_ string, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
		mu.Lock()
		n += int(to - from)
		mu.Unlock()
		return func(yield func([]streamlib.Event, error) bool) {
			if from < min(to, tail) && !yield(all[from:min(to, tail)], nil) {
				return
			}
			for o := max(from, tail); o < to; o++ { // what was appended, by no key that is asked for
				if !yield([]streamlib.Event{event(t, o, "s", "1")}, nil) {
					return
				}
			}
		}
	}
	return storage, func() (events int) {
		mu.Lock()
		defer mu.Unlock()
		events, n = n, 0
		return events
	}
}

// TestKeyWindowsAreBounded: the windows of all streams have one bound together, whether the streams are in use or
// not, and there is no number of streams from which on each append reads a window.
func TestKeyWindowsAreBounded(t *testing.T) {
	is := is.New(t)
	storage, reads := fullWindows(t)
	m := streamlib.NewManager(storage, streamlib.Plain, streamlib.Options{})
	add := func(i int, key string) {
		t.Helper()
		b := streamlib.Batch{Data: streamlib.JSON("1"), Key: key}
		receipt, err := m.Stream(fmt.Sprint("s", i)).Append(t.Context(), b)
		is.NoErr(err)
		is.True(!receipt.Repeated)
	}
	const all = 400          // without a bound these hold 120 MB
	for i := range all / 2 { // these are in use
		_ = m.Stream(fmt.Sprint("s", i)).Subscribe(t.Context(), streamlib.Now)
	}
	heap := func() int {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return int(stats.HeapAlloc)
	}
	before := heap()
	for i := range all {
		add(i, "a")
	}
	held := heap() - before
	is.True(held < 80<<20) // 64 MiB, and the streams
	is.True(held > 20<<20)

	const streams = 230 // there is room for about 200
	for round := range 3 {
		reads()
		for i := range streams {
			add(i, fmt.Sprint("round", round))
		}
		missed := reads() / 10_000
		is.True(round == 0 || missed < streams*9/10) // were the longest unused dropped, it would be all
		is.True(missed > 0)
	}
	for i := range streams {
		b := streamlib.Batch{Data: streamlib.JSON("1"), Key: "key-9000"}
		receipt, err := m.Stream(fmt.Sprint("s", i)).Append(t.Context(), b)
		is.NoErr(err)
		is.True(receipt.Repeated) // forgotten or not
		is.Equal(receipt.Events[0].Offset, streamlib.Offset(9000))
	}
}

// TestSmallKeyWindowsStay: streams with few keys each do not read them again, however many take turns.
func TestSmallKeyWindowsStay(t *testing.T) {
	is := is.New(t)
	storage := newFaulty()
	var reads atomic.Int64
	storage.read = func(name string, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
		reads.Add(1)
		return storage.sound.read(name, from, to)
	}
	m := streamlib.NewManager(storage, streamlib.Plain, streamlib.Options{})
	for round := range 2 {
		for i := range 17_000 { // more than the manager keeps ready
			b := streamlib.Batch{Data: streamlib.JSON("1"), Key: fmt.Sprint(round)}
			is.NoErr(last2(m.Stream(fmt.Sprint("s", i)).Append(t.Context(), b)))
		}
	}
	is.Equal(reads.Load(), int64(0))
}

// TestKeysAreReadOutsideTheLock holds a stream's keys on the disk: who has no key does not wait for them, and what
// becomes of the stream meanwhile is known afterwards.
func TestKeysAreReadOutsideTheLock(t *testing.T) {
	for name, fails := range map[string]error{"appended to": nil, "deleted": nil, "left": nil, "failing": errDisk} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				storage := newFaulty()
				for _, key := range []string{"old", ""} {
					b := streamlib.Batch{Data: streamlib.JSON("0"), Key: key}
					is.NoErr(last2(storage.stream("s").Append(t.Context(), b)))
				}
				s := storage.stream("s")
				onDisk, loads := make(chan bool), 0
				storage.read = func(name string, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
					if from == 0 && to > 1 { // the keys
						loads++
					}
					if from > 0 || to == 1 || loads > 1 {
						return storage.sound.read(name, from, to)
					}
					return func(yield func([]streamlib.Event, error) bool) {
						if <-onDisk; fails != nil {
							yield(nil, fails)
							return
						}
						storage.sound.read(name, from, to)(yield)
					}
				}
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				var keyed sync.WaitGroup
				receipts, errs := make([]streamlib.Receipt, 3), make([]error, 3)
				for i, key := range []string{"old", "new", "old"} {
					keyed.Go(func() {
						ctx := ctx
						if i > 0 {
							ctx = t.Context()
						}
						receipts[i], errs[i] = s.Append(ctx, streamlib.Batch{Data: streamlib.JSON("0"), Key: key})
					})
					synctest.Wait()
				}
				add := func() { is.NoErr(last2(s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")}))) }
				add() // nobody of these waits
				is.Equal(len(read(t, s, 1, streamlib.MaxOffset)), 2)
				switch name {
				case "deleted":
					is.NoErr(s.Delete(t.Context()))
					add()
				case "left":
					leave()
				}
				close(onDisk)
				keyed.Wait()
				first, known := receipts[0], name != "deleted"
				switch name {
				case "failing":
					is.True(errors.Is(errs[0], streamlib.ErrUnavailable))
				case "left":
					is.True(errors.Is(errs[0], context.Canceled))
					is.Equal(loads, 1) // it was read for the others
				default:
					is.NoErr(errs[0])
					is.Equal(first.Repeated || receipts[2].Repeated, true)
					is.Equal(first.Repeated && receipts[2].Repeated, known)
				}
				is.NoErr(errors.Join(errs[1:]...))
				is.True(!receipts[1].Repeated)
				is.True(!known || receipts[2].Repeated)
			})
		})
	}
}

// TestKeyInFlight: what is appended with a key while its stream's keys are read is known afterwards.
func TestKeyInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		storage := newFaulty()
		s := storage.stream("s")
		add := func(b streamlib.Batch) {
			b.Data = streamlib.JSON("1")
			receipt, err := s.Append(t.Context(), b)
			is.NoErr(err)
			is.True(!receipt.Repeated)
		}
		var all sync.WaitGroup
		admitted, onDisk := make(chan bool), make(chan bool)
		b := streamlib.Batch{Key: "k", Admit: func(context.Context) error { <-admitted; return nil }}
		all.Go(func() { add(b) })
		synctest.Wait() // it has looked its key up
		add(streamlib.Batch{})
		is.NoErr(s.Delete(t.Context())) // and its keys are forgotten
		add(streamlib.Batch{})
		storage.read = func(name string, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
			<-onDisk
			return storage.sound.read(name, from, to)
		}
		all.Go(func() { add(streamlib.Batch{Key: "other"}) })
		synctest.Wait()
		close(admitted)
		synctest.Wait()
		close(onDisk)
		all.Wait()
		receipt, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1"), Key: "k"})
		is.NoErr(err)
		is.True(receipt.Repeated)
		is.Equal(receipt.Events[0].Offset, streamlib.Offset(1))
	})
}
