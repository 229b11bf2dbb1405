package streamlib_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamtest"
	"github.com/matryer/is"
)

func TestClockJumpsBack(t *testing.T) {
	is := is.New(t)
	zone := time.FixedZone("elsewhere", 3600)
	start := time.Date(2024, 1, 8, 12, 0, 0, 999_999_999, zone)
	now := start
	storage := memory.New()
	options := streamlib.Options{Now: func() time.Time { return now }}
	s := streamlib.Plain("orders", storage, options)
	var got []string
	for i, jump := range []time.Duration{0, time.Hour, -5 * time.Hour, time.Nanosecond, 6 * time.Hour} {
		now = now.Add(jump)
		if i == 3 {
			s = streamlib.Plain("orders", storage, options) // what the storage knows counts as well
		}
		receipt, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})
		is.NoErr(err)
		at := receipt.Events[0].CreatedAt()
		is.Equal(at.Location(), time.UTC)
		got = append(got, at.Format("15:04:05.000000"))
	}
	is.Equal(got, []string{"11:00:00.999000", "12:00:00.999000", "12:00:00.999000", "12:00:00.999000", "13:00:01.000000"})
}

// TestClockOutOfRange: what an event's time cannot say is refused, and no event is stored that cannot be read back.
func TestClockOutOfRange(t *testing.T) {
	is := is.New(t)
	var now time.Time
	s := streamlib.Plain("orders", memory.New(), streamlib.Options{Now: func() time.Time { return now }})
	end := time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		now  time.Time
		want string // "" where it is refused
	}{
		{end, ""},
		{time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC), "0001-01-01T00:00:00.000Z"},
		{time.Unix(0, 0), "1970-01-01T00:00:00.000Z"},
		{end.In(time.FixedZone("west", -3600)), ""},
		{time.Unix(1<<55, 0), ""},
		{time.Date(2024, 1, 8, 0, 0, 0, 0, time.UTC), "2024-01-08T00:00:00.000Z"},
		{end.Add(-1), "9999-12-31T23:59:59.999Z"},
		{end, ""},
		{time.Date(2024, 1, 8, 0, 0, 0, 0, time.UTC), "9999-12-31T23:59:59.999Z"}, // times never go back
	} {
		now = test.now
		receipt, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})
		if test.want == "" {
			is.True(errors.Is(err, streamlib.ErrUnavailable))
			continue
		}
		is.NoErr(err)
		is.True(strings.HasSuffix(receipt.Events[0].String(), `"createdAt":"`+test.want+`"}`))
	}
	for _, e := range read(t, s, 0, streamlib.MaxOffset) {
		_, err := streamlib.ParseRecord(e.Record())
		is.NoErr(err)
	}
}

// TestGroupCommit holds one commit on the disk while others queue: they share the next one, in their order, deletions
// too.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		storage := newFaulty()
		s := storage.stream("orders")
		var commits [][]string
		onDisk := make(chan bool)
		storage.append = func(name string, events []streamlib.Event) error {
			var data []string
			for _, e := range events {
				data = append(data, string(e.Data()))
			}
			commits = append(commits, data)
			<-onDisk
			return storage.sound.append(name, events)
		}
		var callers sync.WaitGroup
		call := func(do func() error) {
			callers.Go(func() {
				if err := do(); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		add := func(offset streamlib.Offset, data ...string) {
			call(func() error {
				receipt, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(data...)})
				if err == nil && receipt.Events[0].Offset != offset {
					err = fmt.Errorf("%v is at %d, want %d", data, receipt.Events[0].Offset, offset)
				}
				return err
			})
		}
		add(0, "1")
		add(1, "2")
		add(2, "3", "4")
		call(func() error { return s.Delete(t.Context()) })
		add(0, "5")
		add(1, "6")
		for range 3 {
			onDisk <- true
			synctest.Wait()
		}
		callers.Wait()
		is.Equal(commits, [][]string{{"1"}, {"2", "3", "4"}, {"5", "6"}})
	})
}

// TestConditionsInOneCommit has several conditions decided in one commit: each on top of what stands before it there.
func TestConditionsInOneCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newFaulty()
		s := storage.stream("orders")
		onDisk := make(chan bool)
		storage.append = func(name string, events []streamlib.Event) error {
			<-onDisk
			return storage.sound.append(name, events)
		}
		var callers sync.WaitGroup
		for i, test := range []struct{ ifTail, at, tail streamlib.Offset }{
			{0, 0, 0}, // alone on the disk, while the rest queues
			{2, 2, 0},
			{2, -1, 4},
			{0, -1, 4},
			{4, 4, 0},
			{4, -1, 6},
			{6, 6, 0},
			{streamlib.MaxOffset, -1, 8},
		} {
			callers.Go(func() {
				receipt, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1", "2"), IfTail: &test.ifTail})
				conflict, lost := errors.AsType[*streamlib.ConflictError](err)
				switch {
				case lost && (test.at >= 0 || *conflict != streamlib.ConflictError{Stream: "orders", Tail: test.tail,
					Want: test.ifTail}):
					t.Errorf("append %d: %v", i, err)
				case !lost && (err != nil || receipt.Events[0].Offset != test.at):
					t.Errorf("append %d: %v, %v", i, receipt.Events, err)
				}
			})
			synctest.Wait()
		}
		close(onDisk)
		callers.Wait()
		if n := len(read(t, s, 0, streamlib.MaxOffset)); n != 8 {
			t.Errorf("%d events", n)
		}
	})
}

// TestReadyTogether lets a follower be behind: it gets what it missed in one batch.
func TestReadyTogether(t *testing.T) {
	is := is.New(t)
	s := plain("orders")
	add := func(n int) {
		for range n {
			is.NoErr(last2(s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})))
		}
	}
	add(3)
	var sizes []int
	for batch, err := range s.Subscribe(t.Context(), 0) {
		is.NoErr(err)
		switch sizes = append(sizes, len(batch)); len(sizes) {
		case 1:
			add(1)
		case 2:
			add(5)
		case 3:
			is.Equal(sizes, []int{3, 1, 5})
			return
		}
	}
}

// countingReads returns a storage and how often it was read.
func countingReads() (*faulty, *atomic.Int32) {
	storage, reads := newFaulty(), new(atomic.Int32)
	storage.read = func(name string, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
		reads.Add(1)
		return storage.sound.read(name, from, to)
	}
	return storage, reads
}

// TestRecent has followers take the last commits from memory: they get what the storage has, whatever the size and
// whatever they do to what they were given, and read the storage only to catch up.
func TestRecent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		storage, reads := countingReads()
		s := storage.stream("orders")
		ctx, cancel := context.WithCancel(t.Context())
		var followers sync.WaitGroup
		runs := make([]streamtest.Run, 0, 20)
		follow := func(from streamlib.Offset, pause <-chan bool) {
			runs = append(runs, streamtest.Run{From: from})
			r := &runs[len(runs)-1]
			followers.Go(func() {
				for batch := range s.Subscribe(ctx, from) {
					r.Events = append(r.Events, batch...)
					_ = append(batch, streamlib.Event{}) // theirs
					if pause != nil {
						<-pause
					}
				}
			})
			synctest.Wait()
		}
		pause := make(chan bool)
		follow(0, nil)
		follow(0, pause)
		n := 0
		for i, size := range []int{1, 100, 4000, 4000, 4000, 4000, 4000, 17 << 10, 10, 300 << 10, 10, 10, 100 << 10, 1,
			1, 1} {
			before := reads.Load()
			var b streamlib.Batch
			for range i%3 + 1 {
				b.Data = append(b.Data, json.RawMessage(fmt.Sprintf(`"%d %s"`, n, strings.Repeat("x", size))))
				n++
			}
			is.NoErr(last2(s.Append(t.Context(), b)))
			synctest.Wait()
			if size < 50<<10 {
				is.Equal(reads.Load(), before) // a live follower reads no storage
			}
			if i%4 == 2 {
				follow(streamlib.Offset(n/2), nil)
				follow(streamlib.Now, nil)
			}
		}
		close(pause)
		synctest.Wait()
		stored := read(t, s, 0, streamlib.MaxOffset)
		is.Equal(len(stored), n)
		cancel()
		followers.Wait()
		is.NoErr(streamtest.Check(stored, historyOf(stored), runs...))
		for _, r := range runs {
			is.Equal(r.Events[len(r.Events)-1].Offset, streamlib.Offset(n-1))
		}
	})
}

// TestRecentKeepsTheLast: who is a little behind does not read the storage either, whenever older commits are let go.
func TestRecentKeepsTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		storage, reads := countingReads()
		s := storage.stream("orders")
		ctx, cancel := context.WithCancel(t.Context())
		pause, got := make(chan bool), 0
		var follower sync.WaitGroup
		follower.Go(func() {
			for batch := range s.Subscribe(ctx, 0) {
				got += len(batch)
				<-pause
			}
		})
		synctest.Wait()
		n := 0
		for range 30 {
			for range 3 {
				is.NoErr(last2(s.Append(t.Context(), streamlib.Batch{Data: []json.RawMessage{[]byte(`"` + strings.Repeat("x",
					1000) + `"`)}})))
				n++
			}
			synctest.Wait()
			pause <- true
			synctest.Wait()
		}
		is.Equal(reads.Load(), int32(0))
		is.True(got >= n-3)
		cancel()
		close(pause)
		follower.Wait()
	})
}

// TestRecentIsTheReaders: a reader may append to what it was given, which others have a part of.
func TestRecentIsTheReaders(t *testing.T) {
	is := is.New(t)
	s := plain("orders")
	add := func(n int) {
		for range n {
			is.NoErr(last2(s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})))
		}
	}
	add(1)
	next, stop := iter.Pull2(s.Subscribe(t.Context(), 0))
	defer stop()
	_, err, _ := next() // from here on it follows
	is.NoErr(err)
	for tail := streamlib.Offset(1); tail < 30; tail += 4 {
		add(3)
		batch, err, _ := next()
		is.NoErr(err)
		add(1)
		_ = append(batch, streamlib.Event{Offset: -7})
		batch, err, _ = next()
		is.NoErr(err)
		is.Equal(batch[0].Offset, tail+3)
	}
}

// TestRecentIsBounded follows a stream live: of what went by, no more than a little is kept for followers.
func TestRecentIsBounded(t *testing.T) {
	is := is.New(t)
	storage := newFaulty()
	s := storage.stream("orders")
	is.NoErr(last2(s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("0")})))
	next, stop := iter.Pull2(s.Subscribe(t.Context(), 0))
	defer stop()
	_, err, _ := next() // from here on it follows
	is.NoErr(err)
	var records []weak.Pointer[byte]
	storage.append = func(_ string, events []streamlib.Event) error { // keeps nothing itself
		records = append(records, weak.Make(&events[0].Record()[0]))
		return nil
	}
	value := streamlib.JSON(`"` + strings.Repeat("x", 3<<10) + `"`)
	for range 100 {
		is.NoErr(last2(s.Append(t.Context(), streamlib.Batch{Data: value})))
		batch, err, _ := next()
		is.NoErr(err)
		is.Equal(len(batch), 1)
	}
	runtime.GC()
	held := 0
	for _, r := range records {
		if r.Value() != nil {
			held++
		}
	}
	is.True(held >= 1 && held <= 6) // 16 KiB of them, and what was yielded last
}

func TestLastOffset(t *testing.T) {
	is := is.New(t)
	storage := newFaulty()
	tail := streamlib.MaxOffset - 1
	storage.stat = func(string) (streamlib.Info, error) { return streamlib.Info{Tail: tail}, nil }
	storage.append = func(_ string, events []streamlib.Event) error { tail += streamlib.Offset(len(events)); return nil }
	s := storage.stream("orders")
	is.True(errors.Is(last2(s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1", "2", "3")})),
		streamlib.ErrUnavailable))
	receipt, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1", "2")})
	is.NoErr(err)
	is.Equal(receipt.Events[1].Offset, streamlib.MaxOffset)
	is.Equal(receipt.Events[1].Offset.String(), "9007199254740991")
	is.True(errors.Is(last2(s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})), streamlib.ErrUnavailable))
}

func TestMaxEvent(t *testing.T) {
	is := is.New(t)
	for limit, max := range map[int]int{5: 5, 0: streamlib.MaxEvent, 1 << 40: streamlib.MaxBatch} {
		s := streamlib.Plain("orders", memory.New(), streamlib.Options{MaxEvent: limit})
		of := func(n int) streamlib.Batch {
			return streamlib.Batch{Data: streamlib.JSON(` "` + strings.Repeat("x", n-2) + `" `)} // white space does not count
		}
		is.True(errors.Is(last2(s.Append(t.Context(), of(max+1))), streamlib.ErrTooLarge))
		is.NoErr(last2(s.Append(t.Context(), of(max))))
	}
	many := make([]json.RawMessage, 700_000) // small values that would be large on the disk
	for i := range many {
		many[i] = json.RawMessage("1")
	}
	is.True(errors.Is(last2(plain("orders").Append(t.Context(), streamlib.Batch{Data: many})), streamlib.ErrTooLarge))
}

func TestEmptyBatch(t *testing.T) {
	is := is.New(t)
	s := plain("orders")
	receipt, err := s.Append(t.Context(), streamlib.Batch{})
	is.NoErr(err)
	is.Equal(len(receipt.Events), 0)
	info, err := s.Stat(t.Context())
	is.NoErr(err)
	is.Equal(info, streamlib.Info{Name: "orders"})
}

// TestTwinLeaves: a twin that waits for its key's holder leaves when its context does.
func TestTwinLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		s := plain("orders")
		open := make(chan bool)
		var first sync.WaitGroup
		first.Go(func() {
			_ = last2(s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1"), Key: "k",
				Admit: func(context.Context) error { <-open; return nil }}))
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		is.True(errors.Is(last2(s.Append(ctx, streamlib.Batch{Data: streamlib.JSON("1"), Key: "k"})),
			context.DeadlineExceeded))
		close(open)
		first.Wait()
		is.Equal(len(read(t, s, 0, streamlib.MaxOffset)), 1)
	})
}

// TestKeysAreReadBackwards has a stream of 9,000,000 events, all with keys: about the window is read of it, however
// large the events are, and a batch that reaches over the window's edge is known as a whole.
func TestKeysAreReadBackwards(t *testing.T) {
	const tail = 9_000_000
	for _, test := range []struct{ size, batch, window, most int }{
		{1, 1, 10_000, 20_000},
		{1, 3, 10_000, 20_000},
		{1, 12_000, 10_000, 50_000},
		{1, 20_000, 10_000, 60_000},
		{1 << 20, 5, 60, 300},
	} {
		t.Run(fmt.Sprintf("%d bytes by %d", test.size, test.batch), func(t *testing.T) {
			is := is.New(t)
			value := `"` + strings.Repeat("x", test.size) + `"`
			record := event(t, 0, "orders", value).Record()
			end := bytes.IndexByte(record, ',')
			batchOf := func(o streamlib.Offset) string { return fmt.Sprint("k", int(o)/test.batch) }
			storage := newFaulty()
			storage.stat = func(string) (streamlib.Info, error) { return streamlib.Info{Tail: tail}, nil }
			made := 0
			storage.read = func(name string, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
				return func(yield func([]streamlib.Event, error) bool) {
					for o := from; o < to; o++ {
						made++
						e, err := streamlib.ParseRecord(fmt.Appendf(nil, `{"offset":"%016d"%s,"key":%q`, o, record[end:], batchOf(o)))
						if !yield([]streamlib.Event{e}, err) {
							return
						}
					}
				}
			}
			storage.append = func(string, []streamlib.Event) error { return nil }
			var b streamlib.Batch
			for range test.batch {
				b.Data = append(b.Data, json.RawMessage(value))
			}
			for _, back := range []int{1, test.window, 6*test.window/5 + 1, 8 * test.window / 5, 5 * test.window / 2} {
				if test.size > 1 && back != test.window && back != 5*test.window/2 {
					continue // two of the slow ones
				}
				first := (tail - back) / test.batch * test.batch
				b.Key, made = batchOf(streamlib.Offset(first)), 0
				receipt, err := streamlib.Plain("orders", storage, streamlib.Options{MaxEvent: 2 << 20}).Append(t.Context(), b)
				is.NoErr(err) // a batch that is known in part would be taken for another one
				if receipt.Repeated {
					is.Equal(receipt.Events[0].Offset, streamlib.Offset(first))
					is.Equal(len(receipt.Events), test.batch)
				} else if first+test.batch > tail-test.window {
					t.Errorf("the key of %d events at %d before the tail was forgotten", test.batch, tail-first)
				}
				if made > test.most+test.batch { // the original is read again
					t.Errorf("read %d events to know the keys of %d", made, test.window)
				}
			}
		})
	}
}
