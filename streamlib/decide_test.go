package streamlib_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/matryer/is"
)

// TestADecisionIsMadeWithinTheCommit: each sees what those before it have noted, though many share a commit.
func TestADecisionIsMadeWithinTheCommit(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	s := m.Stream("s")
	var all sync.WaitGroup
	refused := errors.New("even")
	for i := range 100 {
		all.Go(func() {
			_, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(strconv.Itoa(i)),
				Decide: func(tail streamlib.Offset, state *streamlib.State) error {
					n, _ := strconv.Atoi(state.Note)
					if n != int(tail) {
						return fmt.Errorf("the note is %q at %d", state.Note, tail)
					}
					state.Note = strconv.Itoa(n + 1)
					state.Closed, state.Life, state.Keys = true, 7, "[]" // which are not its to say
					if i%2 == 0 {
						return refused
					}
					return nil
				}})
			if i%2 == 0 && !errors.Is(err, refused) || i%2 == 1 && err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	info, err := s.Stat(t.Context())
	is.NoErr(err)
	is.Equal(info.Tail, streamlib.Offset(50))
	is.Equal(info.Note, "50")
	is.True(!info.Closed && info.Life == 0 && info.Keys == "")

	other := streamlib.ErrInvalid // what else refuses the batch leaves the note alone
	_, err = s.Append(t.Context(), streamlib.Batch{IfTail: new(streamlib.Offset), Decide: note("3")})
	_, conflict := errors.AsType[*streamlib.ConflictError](err)
	is.True(conflict && !errors.Is(err, other))
	_, err = s.Append(t.Context(), streamlib.Batch{Decide: note(`"` + string(make([]byte, streamlib.MaxNote)) + `"`)})
	is.True(errors.Is(err, streamlib.ErrTooLarge))
	info, err = s.Stat(t.Context())
	is.NoErr(err)
	is.Equal(info.Note, "50")
}

func note(text string) func(streamlib.Offset, *streamlib.State) error {
	return func(_ streamlib.Offset, state *streamlib.State) error {
		state.Note = text
		return nil
	}
}

// TestANoteMakesAStream: one that has no events, and that may begin anywhere.
func TestANoteMakesAStream(t *testing.T) {
	is := is.New(t)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{Now: func() time.Time { return now }})
	r, err := m.Stream("empty").Append(t.Context(), streamlib.Batch{Decide: note("{}")})
	is.NoErr(err)
	is.Equal(r.Tail, streamlib.Offset(0))
	info, err := m.Stream("empty").Stat(t.Context())
	is.NoErr(err)
	is.True(info.Exists() && info.UpdatedAt.Equal(now))
	names, err := m.List(t.Context(), "", "", 0)
	is.NoErr(err)
	is.Equal(names, []string{"empty"})

	begin := func(at streamlib.Offset) func(streamlib.Offset, *streamlib.State) error {
		return func(_ streamlib.Offset, state *streamlib.State) error {
			state.First, state.Note = at, "{}"
			return nil
		}
	}
	for i, data := range [][]string{{"1", "2"}, {}} {
		s := m.Stream(fmt.Sprint("later", i))
		r, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(data...), Decide: begin(7)})
		is.NoErr(err)
		is.Equal(r.Tail, streamlib.Offset(7+len(data)))
		_, err = s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("3"), Decide: begin(50)}) // it is there
		is.NoErr(err)
		info, err := s.Stat(t.Context())
		is.NoErr(err)
		is.Equal(info.First, streamlib.Offset(7))
		is.Equal(info.Tail, streamlib.Offset(8+len(data)))
		var got []streamlib.Event
		for events, err := range s.Read(t.Context(), streamlib.Beginning, streamlib.MaxOffset) {
			is.NoErr(err)
			got = append(got, events...)
		}
		is.Equal(got[0].Offset, streamlib.Offset(7))
		is.Equal(len(got), len(data)+1)
	}
}

// TestWhatIsHeldKeepsItsEvents until it is not held any more.
func TestWhatIsHeldKeepsItsEvents(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	s := m.Stream("s")
	hold := func(held bool) streamlib.Batch {
		return streamlib.Batch{Decide: func(_ streamlib.Offset, state *streamlib.State) error {
			state.Held = held
			return nil
		}}
	}
	ctx := context.Background()
	_, err := s.Append(ctx, streamlib.Batch{Data: streamlib.JSON("1", "2")})
	is.NoErr(err)
	_, err = s.Append(ctx, hold(true))
	is.NoErr(err)
	is.NoErr(s.Trim(ctx, 1))
	is.True(errors.Is(s.Delete(ctx), streamlib.ErrHeld))
	is.True(errors.Is(s.DeleteIf(ctx, 2, 0), streamlib.ErrHeld))
	info, err := s.Stat(ctx)
	is.NoErr(err)
	is.True(info.Held && info.First == 0 && info.Tail == 2)
	_, err = s.Append(ctx, hold(false))
	is.NoErr(err)
	is.NoErr(s.Trim(ctx, 1))
	is.NoErr(s.DeleteIf(ctx, 2, 0))
}
