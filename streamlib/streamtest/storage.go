package streamtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// Storage tests that what open returns is a streamlib.Storage. It is called for every subtest and returns an empty
// one, which the suite closes.
func Storage(t *testing.T, open func(t *testing.T) streamlib.Storage) {
	for _, test := range []struct {
		promise string
		run     func(t *testing.T, s streamlib.Storage)
	}{
		{"an append is read as it was written", testRecords},
		{"an append is there whole or not at all", testStorageAtomic},
		{"an append that does not begin at the tail stores nothing", testStorageConflict},
		{"a read is half-open and ends at the tail", testStorageRanges},
		{"what a read yields may be kept", testKeep},
		{"reading a name that was never appended to makes nothing", testNothing},
		{"a deleted stream is an empty one and starts again at 0", testStorageDelete},
		{"a read that meets a deletion yields nothing of what comes after it", testStorageDeleteRace},
		{"names are told apart, and are no paths", testStorageNames},
		{"what is no name is refused and changes nothing", testStorageBadNames},
		{"a change appends or deletes", testChange},
		{"a stream's state is what it was set to, with what is kept by it", testState},
		{"a state that cannot be changes nothing", testStateInvalid},
		{"last finds what takes so many bytes", testLast},
		{"a context that is done ends a call before it changes anything", testStorageContext},
		{"stat tells the tail and the times", testStat},
		{"list pages through the names in byte order", testList},
		{"large and many events", testLarge},
		{"all at once", testConcurrent},
		{"after close appends are refused", testClose},
	} {
		t.Run(test.promise, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() { s.Close() })
			test.run(t, s)
		})
	}
}

// Durable tests that a Storage keeps what it acknowledged when it is closed and opened again. Open opens the one in
// the folder dir, and closes it when the test ends if that has not been done.
func Durable(t *testing.T, open func(t *testing.T, dir string) streamlib.Storage) {
	t.Run("what was appended and deleted is so when it is opened again", func(t *testing.T) {
		is := is.New(t)
		dir := t.TempDir()
		s := open(t, dir)
		want := map[string][]streamlib.Event{}
		for round := range 5 {
			for i, name := range append(names(), "a", "b", "c") {
				if i%3 == 0 && round == 3 {
					is.NoErr(drop(s, name))
					want[name] = nil
				} else {
					batch := events(name, len(want[name]), round+i%4+1)
					is.NoErr(put(s, name, batch...))
					want[name] = append(want[name], batch...)
				}
			}
			is.NoErr(s.Close())
			s = open(t, dir)
			var there []string
			for name, events := range want {
				sameEvents(t, readStorage(t, s, name, 0, streamlib.MaxOffset), events)
				if len(events) > 0 {
					there = append(there, name)
				}
			}
			slices.Sort(there)
			listed, err := s.List(context.Background(), "", "", 0)
			is.NoErr(err)
			is.Equal(listed, there)
		}
		is.NoErr(s.Close())
	})
	t.Run("what was set is so when it is opened again", func(t *testing.T) {
		is := is.New(t)
		dir := t.TempDir()
		s := open(t, dir)
		again := func() {
			is.NoErr(s.Close())
			s = open(t, dir)
		}
		for _, name := range names() {
			is.NoErr(put(s, name, events(name, 0, 1)...))
			is.NoErr(drop(s, name))
			state, there := setStates(t, s, name)
			again()
			hasState(t, s, name, state, there)
			is.NoErr(drop(s, name))
			again()
			life := isOver(t, s, name, state.Life)
			empty := streamlib.State{Life: life, First: 7, UpdatedAt: moment(3), Closed: true}
			is.NoErr(set(s, name, empty))
			again()
			hasState(t, s, name, empty, nil)
		}
		is.NoErr(s.Close())
	})
	t.Run("it keeps no reference to what it is given", func(t *testing.T) {
		is := is.New(t)
		dir := t.TempDir()
		s := open(t, dir)
		batch := events("a", 0, 3)
		want := strings.Clone(fmt.Sprint(batch))
		is.NoErr(put(s, "a", batch...))
		for _, e := range batch {
			clear(e.Record())
		}
		is.Equal(fmt.Sprint(readStorage(t, s, "a", 0, streamlib.MaxOffset)), want)
		is.NoErr(s.Close())
		is.Equal(fmt.Sprint(readStorage(t, open(t, dir), "a", 0, streamlib.MaxOffset)), want)
	})
	t.Run("keys, conditions and times go on when it is opened again", func(t *testing.T) {
		is := is.New(t)
		dir := t.TempDir()
		s := open(t, dir)
		later := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
		stream := streamlib.NewManager(s, streamlib.Plain,
			streamlib.Options{Now: func() time.Time { return later }}).Stream("a")
		_, err := stream.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("0"), Key: "other"})
		is.NoErr(err)
		batch := streamlib.Batch{Data: streamlib.JSON("1", "2", "3"), Key: `"k\`}
		first, err := stream.Append(t.Context(), batch)
		is.NoErr(err)
		is.NoErr(s.Close())

		s = open(t, dir)
		stream = streamlib.NewManager(s, streamlib.Plain, streamlib.Options{}).Stream("a")
		again, err := stream.Append(t.Context(), batch)
		is.NoErr(err)
		is.True(again.Repeated)
		sameEvents(t, again.Events, first.Events)
		_, err = stream.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1", "2"), Key: batch.Key})
		is.True(errors.Is(err, streamlib.ErrKeyReused))
		tail := streamlib.Offset(3)
		_, err = stream.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("4"), IfTail: &tail})
		conflict, _ := errors.AsType[*streamlib.ConflictError](err)
		is.True(conflict != nil && conflict.Tail == 4)
		next, err := stream.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("4"), IfTail: &conflict.Tail})
		is.NoErr(err)
		is.Equal(next.Events[0].Offset, streamlib.Offset(4))
		is.Equal(next.Events[0].CreatedAt(), later) // the clock is an hour behind
		is.NoErr(s.Close())
	})
}

func testRecords(t *testing.T, s streamlib.Storage) {
	is := is.New(t)
	want := events(`s "\ 😀`, 0, 3)
	keyed, err := streamlib.ParseRecord(append(want[2].Record(), `,"key":"\"k\\ü"`...))
	is.NoErr(err)
	want[2] = keyed
	is.NoErr(put(s, `s "\ 😀`, want...))
	got := readStorage(t, s, `s "\ 😀`, 0, streamlib.MaxOffset)
	sameEvents(t, got, want)
	is.Equal(got[2].Key(), `"k\ü`)
	is.Equal(got[2].Stream(), `s "\ 😀`)
}

func testStorageAtomic(t *testing.T, s streamlib.Storage) {
	is := is.New(t)
	const size, count = 7, 60
	done := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < count && err == nil; i++ {
			err = put(s, "a", events("a", i*size, size)...)
		}
		done <- err
	}()
	for over := false; !over; {
		select {
		case err := <-done:
			is.NoErr(err)
			over = true
		default:
		}
		info, err := s.Stat(context.Background(), "a")
		is.NoErr(err)
		is.Equal(info.Tail%size, streamlib.Offset(0)) // stat saw a part of a batch
		n := len(readStorage(t, s, "a", 0, streamlib.MaxOffset))
		is.Equal(n%size, 0) // read saw a part of a batch
		is.True(n >= int(info.Tail))
		is.True(!over || n == size*count)
	}
}

func testStorageConflict(t *testing.T, s streamlib.Storage) {
	is := is.New(t)
	is.NoErr(put(s, "a", events("a", 0, 2)...))
	for _, first := range []int{0, 1, 3, 1 << 40} {
		err := put(s, "a", events("a", first, 2)...)
		conflict, ok := errors.AsType[*streamlib.ConflictError](err)
		is.True(ok)
		is.Equal(*conflict, streamlib.ConflictError{Stream: "a", Tail: 2, Want: streamlib.Offset(first)})
	}
	_, ok := errors.AsType[*streamlib.ConflictError](put(s, "b", events("b", 1, 1)...))
	is.True(ok)
	is.NoErr(put(s, "a", events("a", 2, 1)...))
	sameEvents(t, readStorage(t, s, "a", 0, streamlib.MaxOffset), events("a", 0, 3))
	listed, err := s.List(context.Background(), "", "", 0)
	is.NoErr(err)
	is.Equal(listed, []string{"a"})
}

func testStorageRanges(t *testing.T, s streamlib.Storage) {
	is := is.New(t)
	want := events("a", 0, 10)
	is.NoErr(put(s, "a", want[:1]...))
	is.NoErr(put(s, "a", want[1:7]...))
	is.NoErr(put(s, "a", want[7:]...))
	for from := streamlib.Beginning; from < 12; from++ {
		for to := streamlib.Offset(0); to < 13; to++ {
			low := min(max(from, 0), 10)
			high := max(low, min(to, 10))
			sameEvents(t, readStorage(t, s, "a", from, to), want[low:high])
		}
	}
	sameEvents(t, readStorage(t, s, "a", 4, streamlib.MaxOffset), want[4:])
	for range s.Read(context.Background(), "a", 0, 10) { // it may be left at any time
		break
	}
}

func testKeep(t *testing.T, s streamlib.Storage) {
	is := is.New(t)
	const count = 2000
	var kept [][]streamlib.Event
	for i := 0; i < count; i += 100 {
		is.NoErr(put(s, "a", events("a", i, 100)...))
		for _, to := range []streamlib.Offset{streamlib.Offset(i) / 2, streamlib.MaxOffset} {
			for batch, err := range s.Read(context.Background(), "a", 0, to) {
				is.NoErr(err)
				is.True(len(batch) > 0)
				kept = append(kept, append(batch, streamlib.Event{})[:len(batch)]) // the caller's, to grow as well
			}
		}
	}
	want := events("a", 0, count)
	for _, batch := range kept {
		first := int(batch[0].Offset)
		sameEvents(t, batch, want[first:first+len(batch)])
	}
}

func testNothing(t *testing.T, s streamlib.Storage) {
	is := is.New(t)
	is.Equal(len(readStorage(t, s, "a", 0, streamlib.MaxOffset)), 0)
	is.Equal(len(readStorage(t, s, "a", 5, 9)), 0)
	info, err := s.Stat(context.Background(), "a")
	is.NoErr(err)
	is.Equal(info, streamlib.Info{Name: "a", State: streamlib.State{Life: info.Life}})
	is.NoErr(drop(s, "a"))
	listed, err := s.List(context.Background(), "", "", 0)
	is.NoErr(err)
	is.Equal(len(listed), 0)
}

func testStorageDelete(t *testing.T, s streamlib.Storage) {
	is := is.New(t)
	is.NoErr(put(s, "b", events("b", 0, 1)...))
	for life := range 3 {
		is.NoErr(put(s, "a", events("a", 0, 3+life)...))
		is.NoErr(put(s, "a", events("a", 3+life, 1)...))
		is.NoErr(drop(s, "a"))
		is.NoErr(drop(s, "a"))
		testNothing(t, prefixed{s, "a"})
		_, conflict := errors.AsType[*streamlib.ConflictError](put(s, "a", events("a", 4+life, 1)...))
		is.True(conflict)
	}
	is.NoErr(put(s, "a", events("a", 0, 2)...))
	sameEvents(t, readStorage(t, s, "a", 0, streamlib.MaxOffset), events("a", 0, 2))
	sameEvents(t, readStorage(t, s, "b", 0, streamlib.MaxOffset), events("b", 0, 1))
}

// prefixed lists only some of a storage.
type prefixed struct {
	streamlib.Storage
	prefix string
}

func (p prefixed) List(ctx context.Context, _, after string, limit int) ([]string, error) {
	return p.Storage.List(ctx, p.prefix, after, limit)
}

func testChange(t *testing.T, s streamlib.Storage) {
	is := is.New(t)
	is.NoErr(put(s, "a", events("a", 0, 2)...))
	both := streamlib.Change{Events: events("a", 2, 1), Delete: true}
	is.True(errors.Is(s.Commit(context.Background(), "a", both), streamlib.ErrInvalid))
	is.NoErr(s.Commit(context.Background(), "a", streamlib.Change{}))
	sameEvents(t, readStorage(t, s, "a", 0, streamlib.MaxOffset), events("a", 0, 2))
}

func testStorageContext(t *testing.T, s streamlib.Storage) {
	is := is.New(t)
	is.NoErr(put(s, "a", events("a", 0, 2)...))
	over := errors.New("over")
	ctx, end := context.WithCancelCause(context.Background())
	end(over)
	isOver := func(err error) bool { return errors.Is(err, over) || errors.Is(err, context.Canceled) }
	is.True(isOver(s.Commit(ctx, "a", streamlib.Change{Events: events("a", 2, 1)})))
	is.True(isOver(s.Commit(ctx, "a", streamlib.Change{Delete: true})))
	_, err := s.Stat(ctx, "a")
	is.True(isOver(err))
	_, err = s.List(ctx, "", "", 0)
	is.True(isOver(err))
	for batch, err := range s.Read(ctx, "a", 0, streamlib.MaxOffset) {
		is.Equal(len(batch), 0)
		is.True(isOver(err))
	}
	sameEvents(t, readStorage(t, s, "a", 0, streamlib.MaxOffset), events("a", 0, 2))
}

func testStorageDeleteRace(t *testing.T, s streamlib.Storage) {
	is := is.New(t)
	const lives, size = 30, 400
	done := make(chan error, 1)
	go func() {
		var err error
		for life := 0; life < lives && err == nil; life++ {
			err = errors.Join(put(s, "a", madeAt("a", 0, size, life)...), put(s, "a", madeAt("a", size, size, life)...),
				drop(s, "a"))
		}
		done <- err
	}()
	for over := false; !over; {
		select {
		case err := <-done:
			is.NoErr(err)
			over = true
		default:
		}
		var got []streamlib.Event
		for batch, err := range s.Read(context.Background(), "a", 0, streamlib.MaxOffset) {
			if err != nil {
				break // that the stream is gone may be an error
			}
			got = append(got, batch...)
		}
		for i, e := range got {
			is.Equal(e.Offset, streamlib.Offset(i))
			is.Equal(e.CreatedAt(), got[0].CreatedAt()) // one life
		}
	}
}

func testStorageNames(t *testing.T, s streamlib.Storage) {
	is := is.New(t)
	want := names()
	for i, name := range want {
		is.NoErr(streamlib.CheckName(name))
		is.NoErr(put(s, name, events(name, 0, i%5+1)...))
	}
	for i, name := range want {
		sameEvents(t, readStorage(t, s, name, 0, streamlib.MaxOffset), events(name, 0, i%5+1))
		info, err := s.Stat(context.Background(), name)
		is.NoErr(err)
		is.Equal(info.Name, name)
		is.Equal(info.Tail, streamlib.Offset(i%5+1))
	}
	slices.Sort(want)
	listed, err := s.List(context.Background(), "", "", 0)
	is.NoErr(err)
	is.Equal(listed, want)
	for i, name := range want {
		is.NoErr(drop(s, name))
		listed, err := s.List(context.Background(), "", "", 0)
		is.NoErr(err)
		is.True(slices.Equal(listed, want[i+1:])) // it deletes that name alone
	}
}

func testStorageBadNames(t *testing.T, s streamlib.Storage) {
	is := is.New(t)
	is.NoErr(put(s, "a", events("a", 0, 1)...))
	for _, name := range badNames {
		_, stat := s.Stat(context.Background(), name)
		read := end(s.Read(context.Background(), name, 0, streamlib.MaxOffset))
		added, deleted := put(s, name, events("a", 0, 1)...), drop(s, name)
		for what, err := range map[string]error{"append": added, "delete": deleted, "stat": stat, "read": read} {
			if !errors.Is(err, streamlib.ErrInvalid) {
				t.Errorf("%s %q: %v", what, name, err)
			}
		}
	}
	is.NoErr(put(s, "a", events("a", 1, 1)...))
	sameEvents(t, readStorage(t, s, "a", 0, streamlib.MaxOffset), events("a", 0, 2))
	listed, err := s.List(context.Background(), "", "", 0)
	is.NoErr(err)
	is.Equal(listed, []string{"a"})
}

func testStat(t *testing.T, s streamlib.Storage) {
	is := is.New(t)
	is.NoErr(put(s, "a", madeAt("a", 0, 2, 5)...))
	is.NoErr(put(s, "a", madeAt("a", 2, 3, 7)...))
	info, err := s.Stat(context.Background(), "a")
	is.NoErr(err)
	is.True(info.Size >= int64(5*len(events("a", 0, 1)[0].Record())))
	is.Equal(info, streamlib.Info{Name: "a", State: streamlib.State{UpdatedAt: moment(7)}, Tail: 5,
		Size: info.Size, CreatedAt: moment(5)})
}

func testList(t *testing.T, s streamlib.Storage) {
	is := is.New(t)
	all := []string{"A", "a", "a/1", "a/10", "a/2", "a0", "b", "ä", "😀"}
	for _, name := range slices.Backward(all) {
		is.NoErr(put(s, name, events(name, 0, 1)...))
	}
	is.NoErr(put(s, "gone", events("gone", 0, 1)...))
	is.NoErr(drop(s, "gone"))
	for _, test := range []struct {
		prefix, after string
		limit         int
		want          []string
	}{
		{"", "", 0, all},
		{"", "", 2, all[:2]},
		{"", "", 100, all},
		{"", "", -1, all},
		{"", "a", 0, all[2:]},
		{"", "a/11", 2, all[4:6]},
		{"a", "", 0, all[1:6]},
		{"a/", "", 2, all[2:4]},
		{"a/", "a/10", 2, all[4:5]},
		{"a/", "b", 0, nil},
		{"b", "a", 1, all[6:7]},
		{"x", "", 0, nil},
		{"", "\U0010ffff", 0, nil},
	} {
		listed, err := s.List(context.Background(), test.prefix, test.after, test.limit)
		is.NoErr(err)
		if !slices.Equal(listed, test.want) {
			t.Errorf("list %q after %q, at most %d: %q, want %q", test.prefix, test.after, test.limit, listed, test.want)
		}
	}
}

func testLarge(t *testing.T, s streamlib.Storage) {
	is := is.New(t)
	const at = 3000
	is.NoErr(put(s, "a", events("a", 0, at)...))
	var batch []streamlib.Event // eight events, as large as one may be by default and as a batch may be
	for i := range 8 {
		batch = append(batch, event("a", at+i, `"`+strings.Repeat("x", streamlib.MaxEvent-2)+`"`, moment(0)))
	}
	is.NoErr(put(s, "a", batch...))
	is.NoErr(put(s, "a", events("a", at+8, at)...))
	sameEvents(t, readStorage(t, s, "a", at-1, at+9), slices.Concat(events("a", at-1, 1), batch, events("a", at+8, 1)))
	is.NoErr(put(s, "b", []streamlib.Event{event("b", 0, `"`+strings.Repeat("y", streamlib.MaxBatch-2)+`"`,
		moment(0))}...))
	is.Equal(len(readStorage(t, s, "b", 0, 1)[0].Data()), streamlib.MaxBatch)
	for _, o := range []int{0, 1, 500, at - 1, at + 8, at + 9, 2*at - 100, 2*at + 7} {
		sameEvents(t, readStorage(t, s, "a", streamlib.Offset(o), streamlib.Offset(o)+1), events("a", o, 1))
	}
}

func testConcurrent(t *testing.T, s streamlib.Storage) {
	is := is.New(t)
	const count = 20
	var all sync.WaitGroup
	errs := make(chan error, 32)
	for i := range 8 {
		name := fmt.Sprint("s", i)
		all.Go(func() {
			for o := range count {
				if err := put(s, name, events(name, o*2, 2)...); err != nil {
					errs <- err
					return
				}
			}
		})
		all.Go(func() {
			for n := 0; n < 2*count; {
				got := 0
				for batch, err := range s.Read(context.Background(), name, 0, streamlib.MaxOffset) {
					if err != nil {
						errs <- err
						return
					}
					got += len(batch)
				}
				info, err := s.Stat(context.Background(), name)
				if _, err2 := s.List(context.Background(), "s", "", 3); err != nil || err2 != nil || got < n ||
					int(info.Tail) < got {
					errs <- fmt.Errorf("read %d, then %d, tail %d: %w", n, got, info.Tail, errors.Join(err, err2))
					return
				}
				n = got
			}
		})
		all.Go(func() {
			for range 10 {
				if err := errors.Join(put(s, name+"x", events(name+"x", 0, 1)...), drop(s, name+"x")); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	for i := range 8 {
		name := fmt.Sprint("s", i)
		sameEvents(t, readStorage(t, s, name, 0, streamlib.MaxOffset), events(name, 0, 2*count))
	}
	listed, err := s.List(context.Background(), "", "", 0)
	is.NoErr(err)
	is.Equal(len(listed), 8)
}

func testClose(t *testing.T, s streamlib.Storage) {
	is := is.New(t)
	is.NoErr(put(s, "a", events("a", 0, 1)...))
	is.NoErr(s.Close())
	is.True(errors.Is(put(s, "a", events("a", 1, 1)...), streamlib.ErrUnavailable))
	is.True(errors.Is(put(s, "b", events("b", 0, 1)...), streamlib.ErrUnavailable))
}
