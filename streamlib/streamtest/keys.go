package streamtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

func testKey(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	fill(t, s, 1)
	batch := streamlib.Batch{Data: streamlib.JSON(`{"a": 1}`), Key: "k"}
	first, err := s.Append(soon(t), batch)
	is.NoErr(err)
	is.True(!first.Repeated)
	is.Equal(first.Events[0].Offset, streamlib.Offset(1))
	fill(t, s, 1)
	for _, data := range []string{`{"a": 1}`, `{"a":1}`, ` { "a" :1}`} { // white space is nothing
		again, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON(data), Key: "k"})
		is.NoErr(err)
		is.True(again.Repeated)
		samePublic(t, again.Events, first.Events)
	}
	for _, data := range [][]json.RawMessage{streamlib.JSON(`{"a":2}`), streamlib.JSON(`{"a":1}`, `{"a":1}`),
		streamlib.JSON(`{"a":1.0}`)} {
		receipt, err := s.Append(soon(t), streamlib.Batch{Data: data, Key: "k"})
		is.True(errors.Is(err, streamlib.ErrKeyReused))
		is.Equal(len(receipt.Events), 0)
	}
	is.Equal(len(read(t, s, 0, streamlib.MaxOffset)), 3)

	other, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON(`{"a":1}`), Key: "K"})
	is.NoErr(err)
	is.True(!other.Repeated)
	elsewhere, err := open("other").Append(soon(t), batch)
	is.NoErr(err)
	is.True(!elsewhere.Repeated)
}

func testKeyBatch(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	batch := streamlib.Batch{Data: streamlib.JSON("1", "2", "3"), Key: "k"}
	first, err := s.Append(soon(t), batch)
	is.NoErr(err)
	next, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON("1", "2", "3"), Key: "next"})
	is.NoErr(err)
	again, err := s.Append(soon(t), batch)
	is.NoErr(err)
	is.True(again.Repeated)
	samePublic(t, again.Events, first.Events)
	for _, data := range [][]json.RawMessage{streamlib.JSON("1", "2"), streamlib.JSON("2", "3"),
		streamlib.JSON("1", "2", "3", "4"), streamlib.JSON("1", "2", "4"), streamlib.JSON("1")} {
		_, err := s.Append(soon(t), streamlib.Batch{Data: data, Key: "k"})
		is.True(errors.Is(err, streamlib.ErrKeyReused))
	}
	samePublic(t, read(t, s, 0, streamlib.MaxOffset), slices.Concat(first.Events, next.Events))
}

func testKeys(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	for i, key := range []string{"a b", `"`, `\`, `\"`, `","key":"x`, `","createdAt":"2024-01-08T00:00:00.000Z`, "}",
		"😀", "é", "e\u0301", strings.Repeat("k", 255), strings.Repeat(`"`, 255), "%20", "a,b", "0"} {
		batch := streamlib.Batch{Data: []json.RawMessage{value(i, 0)}, Key: key}
		first, err := s.Append(soon(t), batch)
		if err != nil {
			t.Fatalf("key %q: %v", key, err)
		}
		again, err := s.Append(soon(t), batch)
		is.NoErr(err)
		is.True(!first.Repeated && again.Repeated)
		samePublic(t, again.Events, first.Events)
		is.Equal(string(first.Events[0].Data()), string(value(i, 0)))
		is.Equal(first.Events[0].Offset, streamlib.Offset(i))
	}
	before := read(t, s, 0, streamlib.MaxOffset)
	for _, key := range []string{strings.Repeat("k", 256), "a\x00", "a\nb", "\x7f", "a\u0085", "\xff"} {
		_, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON("1"), Key: key})
		if !errors.Is(err, streamlib.ErrInvalid) {
			t.Errorf("key %q: %v", key, err)
		}
	}
	samePublic(t, read(t, s, 0, streamlib.MaxOffset), before)
}

func testKeyCondition(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	tail := streamlib.Offset(0)
	batch := streamlib.Batch{Data: streamlib.JSON("1"), Key: "k", IfTail: &tail}
	first, err := s.Append(soon(t), batch)
	is.NoErr(err)
	again, err := s.Append(soon(t), batch) // though the tail is 1 by now
	is.NoErr(err)
	is.True(again.Repeated)
	samePublic(t, again.Events, first.Events)
	batch.Data = streamlib.JSON("2")
	_, err = s.Append(soon(t), batch)
	is.True(errors.Is(err, streamlib.ErrKeyReused))
}

func testKeyWindow(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	batch := streamlib.Batch{Data: streamlib.JSON(`"kept"`), Key: "k"}
	first, err := s.Append(soon(t), batch)
	is.NoErr(err)
	for n := range 9 {
		var fill streamlib.Batch
		for i := range 1111 {
			fill.Data = append(fill.Data, value(n, i))
		}
		fill.Key = fmt.Sprint(n)
		_, err := s.Append(soon(t), fill)
		is.NoErr(err)
	}
	again, err := s.Append(soon(t), batch)
	is.NoErr(err)
	is.True(again.Repeated)
	samePublic(t, again.Events, first.Events)
	info, err := s.Stat(soon(t))
	is.NoErr(err)
	is.Equal(info.Tail, streamlib.Offset(10_000))
}

func testTwins(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	const twins = 12
	for n := range 5 {
		var history Recorder
		name := fmt.Sprint("orders", n)
		receipts := make([]streamlib.Receipt, twins)
		errs := together(twins, func(i int) (err error) {
			receipts[i], err = history.Append(soon(t), open(name),
				streamlib.Batch{Data: []json.RawMessage{value(n, 0), value(n, 1)}, Key: "k"})
			return err
		})
		is.NoErr(errors.Join(errs...))
		repeats := 0
		for _, r := range receipts {
			samePublic(t, r.Events, receipts[0].Events)
			if r.Repeated {
				repeats++
			}
		}
		is.Equal(repeats, twins-1)
		stored := read(t, open(name), 0, streamlib.MaxOffset)
		is.Equal(len(stored), 2)
		is.NoErr(Check(stored, history.Appends()))
	}
}

func testKeyFree(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	tail := streamlib.Offset(5)
	for _, b := range []streamlib.Batch{
		{Data: streamlib.JSON("1"), Key: "k", IfTail: &tail},
		{Data: streamlib.JSON("x"), Key: "k"},
		{Data: streamlib.JSON("1", "x"), Key: "k"},
	} {
		_, err := s.Append(soon(t), b)
		is.True(err != nil && !errors.Is(err, streamlib.ErrKeyReused))
	}
	receipt, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON("2"), Key: "k"})
	is.NoErr(err)
	is.True(!receipt.Repeated)
	is.Equal(len(read(t, s, 0, streamlib.MaxOffset)), 1)
}

func testKeyDelete(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	for _, data := range []string{"1", "1", "2"} {
		receipt, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON(data), Key: "k"})
		is.NoErr(err)
		is.True(!receipt.Repeated)
		is.Equal(receipt.Events[0].Offset, streamlib.Offset(0))
		is.NoErr(s.Delete(soon(t)))
	}
}
