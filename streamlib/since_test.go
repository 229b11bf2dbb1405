package streamlib_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/matryer/is"
)

// clocked returns a stream whose clock is now.
func clocked(now *time.Time) streamlib.Stream {
	o := streamlib.Options{Now: func() time.Time { return *now }}
	return streamlib.NewManager(memory.New(), streamlib.Plain, o).Stream("orders")
}

func TestSinceIsTheFirstEventThatIsNotBeforeTheTime(t *testing.T) {
	is := is.New(t)
	var now time.Time
	s := clocked(&now)
	// The clock is set back behind the fourth event: until it is there again, events are as old as that one.
	for _, minute := range []int{0, 2, 2, 5, 3, 4, 6} {
		now = noon().Add(time.Duration(minute) * time.Minute)
		_, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})
		is.NoErr(err)
	}
	for _, test := range []struct {
		after time.Duration // noon
		want  streamlib.Offset
	}{
		{-time.Hour, 0}, {0, 0}, {time.Nanosecond, 1}, {time.Minute, 1}, {2 * time.Minute, 1},
		{2*time.Minute + time.Nanosecond, 3}, {4 * time.Minute, 3}, {5 * time.Minute, 3}, {6 * time.Minute, 6},
		{6*time.Minute + time.Millisecond, 7}, {time.Hour, 7},
	} {
		got, err := streamlib.Since(t.Context(), s, noon().Add(test.after).Local())
		is.NoErr(err)
		if got != test.want {
			t.Errorf("since %v after noon: %d, want %d", test.after, got, test.want)
		}
	}
	got, err := streamlib.Since(t.Context(), s, time.Time{})
	is.NoErr(err)
	is.Equal(got, streamlib.Offset(0))
}

// watched calls read before each read of a stream, which its error ends.
type watched struct {
	streamlib.Stream
	read func(from, to streamlib.Offset) error
}

func (w watched) Read(ctx context.Context, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	if err := w.read(from, to); err != nil {
		return func(yield func([]streamlib.Event, error) bool) { yield(nil, err) }
	}
	return w.Stream.Read(ctx, from, to)
}

func TestSinceReadsFewEvents(t *testing.T) {
	is := is.New(t)
	now := noon()
	s := clocked(&now)
	for range 100 {
		now = now.Add(time.Second)
		var b streamlib.Batch
		for i := range 1000 {
			b.Data = append(b.Data, fmt.Appendf(nil, "%d", i))
		}
		_, err := s.Append(t.Context(), b)
		is.NoErr(err)
	}
	for second := range 102 {
		reads := 0
		got, err := streamlib.Since(t.Context(), watched{s, func(from, to streamlib.Offset) error {
			reads++
			is.Equal(to, from+1) // an event at a time
			return nil
		}}, noon().Add(time.Duration(second)*time.Second))
		is.NoErr(err)
		is.Equal(got, streamlib.Offset(max(second-1, 0)*1000))
		is.True(reads <= 17) // there are 100,000 < 2^17 events
	}
}

func TestSinceOverADeletionIsOfTheNextLife(t *testing.T) {
	is := is.New(t)
	now := noon()
	s := clocked(&now)
	add := func(n int) {
		for range n {
			now = now.Add(time.Second)
			_, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})
			is.NoErr(err)
		}
	}
	add(100)
	for _, told := range []error{nil, streamlib.ErrDeleted} { // a read that begins later sees nothing
		reads := 0
		got, err := streamlib.Since(t.Context(), watched{s, func(streamlib.Offset, streamlib.Offset) error {
			if reads++; reads != 2 {
				return nil
			}
			is.NoErr(s.Delete(t.Context()))
			add(5)
			return told
		}}, now.Add(3*time.Second))
		is.NoErr(err)
		is.Equal(got, streamlib.Offset(2))
		add(95)
	}
}

func TestSinceLooksAtWhatIsKept(t *testing.T) {
	is := is.New(t)
	now := noon()
	s := clocked(&now)
	for range 100 {
		now = now.Add(time.Second)
		_, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})
		is.NoErr(err)
	}
	is.NoErr(s.Trim(t.Context(), 10))
	reads := 0
	trims := watched{s, func(streamlib.Offset, streamlib.Offset) error {
		if reads++; reads == 2 {
			is.NoErr(s.Trim(t.Context(), 90))
		}
		return nil
	}}
	for second, want := range map[time.Duration]streamlib.Offset{1: 90, 80: 90, 91: 90, 92: 91} {
		got, err := streamlib.Since(t.Context(), trims, noon().Add(second*time.Second))
		is.NoErr(err)
		is.Equal(got, want)
	}
}

func TestSinceTellsWhyItCannotRead(t *testing.T) {
	is := is.New(t)
	now := noon()
	s := clocked(&now)
	_, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})
	is.NoErr(err)
	corrupt := &streamlib.CorruptError{File: "f"}
	_, err = streamlib.Since(t.Context(),
		watched{s, func(streamlib.Offset, streamlib.Offset) error { return corrupt }}, now)
	is.Equal(err, error(corrupt))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = streamlib.Since(ctx, s, now)
	is.True(errors.Is(err, context.Canceled))
}
