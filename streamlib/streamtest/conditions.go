package streamtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

func testCondition(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	for tail := range streamlib.Offset(5) {
		for _, want := range []streamlib.Offset{0, 1, tail + 1, streamlib.MaxOffset} {
			if want == tail {
				continue
			}
			_, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON("1", "2"), IfTail: &want})
			conflict, ok := errors.AsType[*streamlib.ConflictError](err)
			is.True(ok)
			is.Equal(conflict.Tail, tail)
		}
		receipt, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON("1"), IfTail: &tail})
		is.NoErr(err)
		is.Equal(receipt.Events[0].Offset, tail)
	}
	is.NoErr(s.Delete(soon(t)))
	_, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON("1"), IfTail: new(streamlib.Offset)})
	is.NoErr(err)
}

func testConditionRace(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	const writers, rounds = 12, 8
	for tail := range streamlib.Offset(rounds) {
		won := make([]bool, writers)
		errs := together(writers, func(w int) error {
			_, err := open("orders").Append(soon(t), streamlib.Batch{Data: []json.RawMessage{value(w, int(tail))},
				IfTail: &tail})
			conflict, lost := errors.AsType[*streamlib.ConflictError](err)
			if lost && conflict.Tail == tail+1 {
				return nil
			}
			won[w] = err == nil
			return err
		})
		is.NoErr(errors.Join(errs...))
		is.Equal(len(slices.DeleteFunc(won, func(won bool) bool { return !won })), 1)
	}
	// Each writer counts one up, five times, on the word of the conflict alone.
	s := open("count")
	errs := together(writers, func(int) error {
		var tail streamlib.Offset
		for n := 0; n < 5; {
			_, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON(fmt.Sprint(int(tail))), IfTail: &tail})
			if conflict, lost := errors.AsType[*streamlib.ConflictError](err); lost {
				tail = conflict.Tail
				continue
			} else if err != nil {
				return err
			}
			n++
			tail++
		}
		return nil
	})
	is.NoErr(errors.Join(errs...))
	stored := read(t, s, 0, streamlib.MaxOffset)
	is.Equal(len(stored), writers*5)
	for i, e := range stored {
		is.Equal(string(e.Data()), fmt.Sprint(i))
	}
}

func testAdmit(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	type mark struct{}
	calls := 0
	batch := streamlib.Batch{Data: streamlib.JSON("1", "2"), Key: "k", Admit: func(ctx context.Context) error {
		is.Equal(ctx.Value(mark{}), "the caller's context")
		isEmpty(t, s) // nothing is stored yet
		calls++
		return nil
	}}
	ctx := context.WithValue(soon(t), mark{}, "the caller's context")
	for range 3 {
		_, err := s.Append(ctx, batch)
		is.NoErr(err)
		is.Equal(calls, 1)
	}
	batch.Data = streamlib.JSON("3")
	_, err := s.Append(ctx, batch)
	is.True(errors.Is(err, streamlib.ErrKeyReused))
	is.Equal(calls, 1)
}

func testAdmitRefuses(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	no := errors.New("no")
	batch := streamlib.Batch{Data: streamlib.JSON("1", "2"), Key: "k", Admit: func(context.Context) error { return no }}
	for range 2 {
		receipt, err := s.Append(soon(t), batch)
		is.True(errors.Is(err, no))
		is.Equal(len(receipt.Events), 0)
	}
	isEmpty(t, s)
	batch.Admit = nil
	receipt, err := s.Append(soon(t), batch) // its key is free
	is.NoErr(err)
	is.True(!receipt.Repeated)

	ctx, cancel := context.WithCancel(soon(t))
	_, err = s.Append(ctx, streamlib.Batch{Data: streamlib.JSON("3"),
		Admit: func(context.Context) error { cancel(); return nil }})
	is.True(errors.Is(err, context.Canceled)) // nobody waits for it any more
	is.Equal(len(read(t, s, 0, streamlib.MaxOffset)), 2)
}

func testAdmitInvalid(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	admit := func(context.Context) error { t.Error("admit was called"); return nil }
	for _, b := range []streamlib.Batch{{Data: streamlib.JSON("x")}, {Data: streamlib.JSON("1"), Key: "\n"},
		{Data: streamlib.JSON(`"` + strings.Repeat("x", streamlib.MaxEvent) + `"`)}} {
		b.Admit = admit
		_, err := s.Append(soon(t), b)
		is.True(err != nil)
	}
}

func testAdmitTwin(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	no := errors.New("no")
	inside, answer := make(chan bool), make(chan error)
	admit := func(context.Context) error { inside <- true; return <-answer }
	errs := make(chan error, 2)
	repeated := make(chan bool, 2)
	for range 2 {
		go func() {
			receipt, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON("1"), Key: "k", Admit: admit})
			errs <- err
			repeated <- receipt.Repeated
		}()
	}
	<-inside // one is asked
	select {
	case <-inside:
		t.Fatal("both twins are asked at once")
	case answer <- no:
	}
	is.True(errors.Is(<-errs, no))
	<-inside // then the other
	answer <- nil
	is.NoErr(<-errs)
	is.True(!<-repeated && !<-repeated)
	is.Equal(len(read(t, s, 0, streamlib.MaxOffset)), 1)
}
