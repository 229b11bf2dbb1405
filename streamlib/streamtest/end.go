package streamtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

func testCloses(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	closing := streamlib.Batch{Close: true}
	for n := range 3 { // events that it has, and that come with it
		s := open(fmt.Sprint("s", n))
		before := fill(t, s, n)
		sub := subscribe(t, soon(t), s, streamlib.Beginning)
		batch := streamlib.Batch{Data: slices.Repeat(streamlib.JSON(`"last"`), n), Close: true, Key: "k"}
		tail := streamlib.Offset(2 * n)
		receipt, err := s.Append(soon(t), batch)
		is.NoErr(err)
		is.True(receipt.Closed)
		is.Equal(receipt.Tail, tail)
		is.Equal(len(receipt.Events), n)
		is.Equal(sub.until(2*n+1), errEnded)
		want := append(before, receipt.Events...)
		samePublic(t, read(t, s, streamlib.Beginning, streamlib.MaxOffset), want)
		for _, from := range []streamlib.Offset{streamlib.Beginning, tail / 2, tail, tail + 5, streamlib.Now} {
			is.NoErr(end(s.Subscribe(soon(t), from)))
		}
		again, err := s.Append(soon(t), batch)
		is.NoErr(err)
		is.Equal(again.Repeated, n > 0)
		is.True(again.Closed)
		is.Equal(again.Tail, tail)
		samePublic(t, again.Events, receipt.Events)
		again, err = s.Append(soon(t), closing)
		is.NoErr(err)
		is.True(again.Closed && !again.Repeated && again.Tail == tail)
		for _, late := range []streamlib.Batch{{Data: streamlib.JSON("1")}, {Data: streamlib.JSON("1"), Close: true},
			{Data: streamlib.JSON("1"), Key: "other"}, {Data: streamlib.JSON("1"), IfTail: new(streamlib.Offset(9))}} {
			_, err = s.Append(soon(t), late)
			closed, ok := errors.AsType[*streamlib.ClosedError](err)
			is.True(ok)
			is.Equal(closed.Tail, tail)
		}
		info, err := s.Stat(soon(t))
		is.NoErr(err)
		is.True(info.Closed && info.Tail == tail)
		is.NoErr(s.Delete(soon(t)))
		fill(t, s, 1) // the next life is open
	}
}

func testCloseCondition(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("a")
	fill(t, s, 2)
	_, err := s.Append(soon(t), streamlib.Batch{Close: true, IfTail: new(streamlib.Offset(1))})
	_, conflict := errors.AsType[*streamlib.ConflictError](err)
	is.True(conflict)
	fill(t, s, 1)
	_, err = s.Append(soon(t), streamlib.Batch{Close: true, IfTail: new(streamlib.Offset(3))})
	is.NoErr(err)
}

// testCloseRace: of appends that race with one that closes, those that were acknowledged stand before the end.
func testCloseRace(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	for round := range 10 {
		s := open(fmt.Sprint("a", round))
		stored := make([]bool, 8)
		errs := together(len(stored)+1, func(i int) error {
			if i == len(stored) {
				_, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON(`"end"`), Close: true})
				return err
			}
			_, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON(fmt.Sprint(i))})
			if _, closed := errors.AsType[*streamlib.ClosedError](err); closed {
				return nil
			}
			stored[i] = err == nil
			return err
		})
		is.NoErr(errors.Join(errs...))
		there := read(t, s, streamlib.Beginning, streamlib.MaxOffset)
		is.Equal(string(there[len(there)-1].Data()), `"end"`)
		for i, acknowledged := range stored {
			is.Equal(slices.ContainsFunc(there, func(e streamlib.Event) bool { return string(e.Data()) == fmt.Sprint(i) }),
				acknowledged)
		}
	}
}

func testTrim(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("a")
	is.NoErr(s.Trim(soon(t), 5)) // makes nothing
	isEmpty(t, s)
	all := fill(t, s, 20)
	first, tail := streamlib.Offset(0), streamlib.Offset(20)
	for _, before := range []streamlib.Offset{streamlib.Beginning, 0, 1, 7, 3, 7, 12, streamlib.Now} {
		is.NoErr(s.Trim(soon(t), before))
		if first = max(first, before); before == streamlib.Now {
			first = tail
		}
		info, err := s.Stat(soon(t))
		is.NoErr(err)
		is.Equal(info.First, first)
		is.Equal(info.Tail, tail)
		is.Equal(info.UpdatedAt, all[len(all)-1].CreatedAt())
		since, err := streamlib.Since(soon(t), s, time.Time{})
		is.NoErr(err)
		is.Equal(since, first)
		for _, from := range []streamlib.Offset{streamlib.Beginning, first, tail, streamlib.Now} {
			low := max(from, first)
			if from == streamlib.Now {
				low = tail
			}
			samePublic(t, read(t, s, from, streamlib.MaxOffset), all[low:])
		}
		sub := subscribe(t, soon(t), s, streamlib.Beginning)
		is.NoErr(sub.until(int(tail - first)))
		samePublic(t, sub.events, all[first:])
		for _, below := range []streamlib.Offset{first / 2, first - 1} {
			if below < 0 || first == 0 {
				continue
			}
			want := streamlib.GoneError{Stream: "a", After: below - 1, Tail: tail, First: first}
			gone, ok := errors.AsType[*streamlib.GoneError](end(s.Subscribe(soon(t), below)))
			is.True(ok)
			is.Equal(*gone, want)
			gone, ok = errors.AsType[*streamlib.GoneError](end(s.Read(soon(t), below, streamlib.MaxOffset)))
			is.True(ok)
			is.Equal(*gone, want)
		}
	}
	_, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON("1"), IfTail: &tail}) // as before
	is.NoErr(err)
	is.NoErr(s.Trim(soon(t), 1000)) // what is there
	all = append(all, fill(t, s, 1)...)
	is.Equal(all[20].Offset, streamlib.Offset(21))
	_, err = s.Append(soon(t), streamlib.Batch{Close: true})
	is.NoErr(err)
	is.NoErr(s.Trim(soon(t), streamlib.Now)) // also of a closed one
	is.NoErr(end(s.Subscribe(soon(t), streamlib.Beginning)))
}

// testTrimKeys: a repeat is one whether what it repeats is kept, in part, or not at all.
func testTrimKeys(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("a")
	batch := streamlib.Batch{Data: streamlib.JSON("1", "2", "3"), Key: "k"}
	first, err := s.Append(soon(t), batch)
	is.NoErr(err)
	other := fill(t, s, 2)
	for before := range streamlib.Offset(6) {
		is.NoErr(s.Trim(soon(t), before))
		again, err := s.Append(soon(t), batch)
		is.NoErr(err)
		is.True(again.Repeated)
		is.Equal(again.Tail, streamlib.Offset(3))
		samePublic(t, again.Events, first.Events)
		for _, data := range [][]json.RawMessage{streamlib.JSON("1", "2", "4"), streamlib.JSON("1", "2", "3", "4")} {
			_, err = s.Append(soon(t), streamlib.Batch{Data: data, Key: "k"})
			is.True(errors.Is(err, streamlib.ErrKeyReused))
		}
	}
	is.Equal(fill(t, s, 1)[0].Offset, other[1].Offset+1)
	is.NoErr(s.Delete(soon(t)))
	again, err := s.Append(soon(t), batch)
	is.NoErr(err)
	is.True(!again.Repeated)
}

// testTrimKeysWindow: of what was dropped as much is remembered as State.Keys has room for.
func testTrimKeysWindow(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("a")
	batch := func(i int) streamlib.Batch {
		return streamlib.Batch{Data: []json.RawMessage{value(1, i)}, Key: fmt.Sprint("key ", i)}
	}
	const count = 1200
	for i := range count {
		_, err := s.Append(soon(t), batch(i))
		is.NoErr(err)
		if i%100 == 99 {
			is.NoErr(s.Trim(soon(t), streamlib.Now))
		}
	}
	for i := count - 1; i >= count-300; i-- {
		again, err := s.Append(soon(t), batch(i))
		is.NoErr(err)
		is.True(again.Repeated)
		is.Equal(again.Events[0].Offset, streamlib.Offset(i))
	}
	fresh, err := s.Append(soon(t), batch(0))
	is.NoErr(err)
	is.True(!fresh.Repeated)
}

// testLifeConditions: what was said of one life of a stream does not hold of the next.
func testLifeConditions(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("a")
	lives := map[int64]bool{}
	for range 3 {
		fill(t, s, 3)
		info, err := s.Stat(soon(t))
		is.NoErr(err)
		is.True(!lives[info.Life])
		for life := range lives {
			_, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON("1"), IfTail: &info.Tail, IfLife: &life})
			conflict, ok := errors.AsType[*streamlib.ConflictError](err)
			is.True(ok)
			is.True(conflict.Life)
			is.Equal(conflict.Tail, info.Tail)
		}
		lives[info.Life] = true
		receipt, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON("1"), IfTail: &info.Tail,
			IfLife: &info.Life})
		is.NoErr(err)
		is.Equal(receipt.Life, info.Life)
		for life := range lives {
			if life == info.Life {
				continue
			}
			conflict, ok := errors.AsType[*streamlib.ConflictError](s.TrimIf(soon(t), 1, life))
			is.True(ok)
			is.Equal(*conflict, streamlib.ConflictError{Stream: "a", Tail: 4, Want: 4, Life: true, Op: "trim"})
			is.Equal(len(read(t, s, streamlib.Beginning, streamlib.MaxOffset)), 4)
		}
		is.NoErr(s.TrimIf(soon(t), 1, info.Life))
		is.Equal(len(read(t, s, streamlib.Beginning, streamlib.MaxOffset)), 3)
		is.NoErr(s.Delete(soon(t)))
	}
}

// testDeleteIf: what was appended since is not deleted, nor what was made again under the name.
func testDeleteIf(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("a")
	refused := func(tail streamlib.Offset, life int64, want streamlib.ConflictError) {
		t.Helper()
		before := read(t, s, streamlib.Beginning, streamlib.MaxOffset)
		conflict, ok := errors.AsType[*streamlib.ConflictError](s.DeleteIf(soon(t), tail, life))
		is.True(ok)
		want.Stream, want.Op = "a", "delete"
		is.Equal(*conflict, want)
		samePublic(t, read(t, s, streamlib.Beginning, streamlib.MaxOffset), before)
	}
	is.NoErr(s.DeleteIf(soon(t), 0, 0)) // there is none
	isEmpty(t, s)
	refused(1, 0, streamlib.ConflictError{Want: 1})
	var last int64
	for life := range 3 {
		fill(t, s, 3)
		info, err := s.Stat(soon(t))
		is.NoErr(err)
		if life > 0 {
			refused(3, last, streamlib.ConflictError{Tail: 3, Want: 3, Life: true})
		}
		last = info.Life
		refused(0, last, streamlib.ConflictError{Tail: 3})
		fill(t, s, 1)
		refused(3, last, streamlib.ConflictError{Tail: 4, Want: 3})
		sub := subscribe(t, soon(t), s, 3)
		is.NoErr(sub.until(1))
		is.NoErr(s.Trim(soon(t), streamlib.Now)) // moves no tail
		is.NoErr(s.DeleteIf(soon(t), 4, last))
		isEmpty(t, s)
		is.True(errors.Is(sub.until(2), streamlib.ErrDeleted))
	}
}

// testDeleteIfRace: of those who append and one who deletes what nobody appended to, an append that was acknowledged
// behind the tail that was looked at is there.
func testDeleteIfRace(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("a")
	var deleted int
	for deleted < 20 {
		info, err := s.Stat(soon(t))
		is.NoErr(err)
		var receipt streamlib.Receipt
		var errDelete error
		errs := together(2, func(i int) (err error) {
			if i == 0 {
				receipt, err = s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON("1")})
				return err
			}
			errDelete = s.DeleteIf(soon(t), info.Tail, info.Life)
			return nil
		})
		is.NoErr(errors.Join(errs...))
		if _, late := errors.AsType[*streamlib.ConflictError](errDelete); late {
			is.Equal(receipt.Events[0].Offset, info.Tail)
		} else {
			is.NoErr(errDelete)
			is.Equal(receipt.Events[0].Offset, streamlib.Offset(0))
			deleted++
		}
		samePublic(t, read(t, s, receipt.Events[0].Offset, streamlib.MaxOffset), receipt.Events)
	}
}
