package streamtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

func testAppend(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	is.Equal(s.Name(), "orders")
	var all []streamlib.Event
	for n := range 5 {
		from := time.Now().UTC().Truncate(time.Millisecond)
		batch := streamlib.Batch{}
		for i := range n + 1 {
			batch.Data = append(batch.Data, value(n, i))
		}
		receipt, err := s.Append(soon(t), batch)
		is.NoErr(err)
		is.True(!receipt.Repeated)
		is.Equal(len(receipt.Events), n+1)
		for i, e := range receipt.Events {
			is.Equal(e.Offset, streamlib.Offset(len(all)+i))
			is.Equal(e.Stream(), "orders")
			is.Equal(string(e.Data()), string(value(n, i)))
			is.True(!e.CreatedAt().Before(from))
			is.Equal(e.CreatedAt().Location(), time.UTC)
			is.Equal(e.String(), fmt.Sprintf(`{"offset":"%016d","eventStreamId":"orders","data":%s,"createdAt":"%s"}`,
				e.Offset, value(n, i), e.CreatedAt().Format("2006-01-02T15:04:05.000Z")))
		}
		all = append(all, receipt.Events...)
		info, err := s.Stat(soon(t))
		is.NoErr(err)
		is.Equal(info.Name, "orders")
		is.Equal(info.Tail, streamlib.Offset(len(all)))
	}
	samePublic(t, read(t, s, 0, streamlib.MaxOffset), all)
}

func testAtomic(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	const size, count = 7, 40
	tail := streamlib.Offset(1)
	for _, b := range []streamlib.Batch{
		{Data: streamlib.JSON("1", "2", "3", "x")},
		{Data: streamlib.JSON("1", "2", "3"), IfTail: &tail},
	} {
		_, err := s.Append(soon(t), b)
		is.True(err != nil)
		isEmpty(t, s)
	}
	done := make(chan error, 1)
	ctx := soon(t)
	go func() {
		var err error
		for n := 0; n < count && err == nil; n++ {
			var batch streamlib.Batch
			for i := range size {
				batch.Data = append(batch.Data, value(n, i))
			}
			_, err = s.Append(ctx, batch)
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
		info, err := s.Stat(ctx)
		is.NoErr(err)
		is.Equal(info.Tail%size, streamlib.Offset(0)) // stat saw a part of a batch
		n := len(read(t, s, 0, streamlib.MaxOffset))
		is.Equal(n%size, 0)          // read saw a part of a batch
		is.True(n >= int(info.Tail)) // stat told of what cannot be read
		is.True(!over || n == size*count)
	}
}

func testRace(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	var history Recorder
	const writers, count = 24, 20
	errs := together(writers, func(w int) error {
		s := open("orders")
		for n := range count {
			var batch streamlib.Batch
			for i := range (w+n)%3 + 1 {
				batch.Data = append(batch.Data, json.RawMessage(fmt.Sprintf(`{"w":%d,"n":%d,"i":%d}`, w, n, i)))
			}
			if _, err := history.Append(soon(t), s, batch); err != nil {
				return err
			}
		}
		return nil
	})
	is.NoErr(errors.Join(errs...))
	stored := read(t, open("orders"), 0, streamlib.MaxOffset)
	is.Equal(len(stored), writers*count*2)
	is.NoErr(Check(stored, history.Appends()))
}

func testRead(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	all := fill(t, s, 10)
	for _, from := range []streamlib.Offset{-7, streamlib.Beginning, 0, 1, 5, 9, 10, 11, streamlib.MaxOffset} {
		for _, to := range []streamlib.Offset{0, 1, 5, 9, 10, 11, streamlib.MaxOffset} {
			low := min(max(from, 0), 10)
			high := max(low, min(to, 10))
			samePublic(t, read(t, s, from, to), all[low:high])
		}
	}
	is.Equal(len(read(t, s, streamlib.Now, streamlib.MaxOffset)), 0)

	for range 2 { // it may be left at any time, and asked again
		for batch, err := range s.Read(soon(t), 0, streamlib.MaxOffset) {
			is.NoErr(err)
			is.True(len(batch) > 0)
			break
		}
	}
	var kept []streamlib.Event
	for batch, err := range s.Read(soon(t), 0, streamlib.MaxOffset) { // up to the tail where it began
		is.NoErr(err)
		kept = append(kept, batch...)
		fill(t, s, 1)
	}
	samePublic(t, kept, all)
}

func testReadNothing(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	for _, from := range []streamlib.Offset{streamlib.Beginning, streamlib.Now, 0, 7} {
		is.Equal(len(read(t, s, from, streamlib.MaxOffset)), 0)
	}
	isEmpty(t, s)
}

func testSince(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	since := func(at time.Time) streamlib.Offset {
		o, err := streamlib.Since(soon(t), s, at)
		is.NoErr(err)
		return o
	}
	is.Equal(since(time.Time{}), streamlib.Offset(0))
	is.Equal(since(time.Now()), streamlib.Offset(0))
	isEmpty(t, s)
	first := map[time.Time]streamlib.Offset{} // by the times, as many as there are a few of
	var last time.Time
	for tail := streamlib.Offset(0); len(first) < 4; tail++ {
		at := fill(t, s, 1)[0].CreatedAt()
		is.True(!at.Before(last))
		if at != last {
			first[at] = tail
		}
		last = at
	}
	for at, o := range first {
		is.Equal(since(at), o)
		is.Equal(since(at.Add(time.Nanosecond-time.Millisecond)), o)
	}
	info, err := s.Stat(soon(t))
	is.NoErr(err)
	is.Equal(since(last.Add(time.Millisecond)), info.Tail)
}
