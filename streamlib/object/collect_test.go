package object

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// tidy makes passes until one finds nothing to do, with an hour before each, and returns how many there were.
func tidy(t *testing.T, s *Storage, clock *time.Time) int {
	t.Helper()
	for n := 1; ; n++ {
		*clock = clock.Add(lifetime + time.Second)
		p, err := s.pass(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if p.made+p.removed == 0 {
			return n
		}
		if n == 20 {
			t.Fatal("there is always more to do")
		}
	}
}

// clocked returns a store and a storage on it, and their clock.
func clocked(t *testing.T) (*fake, *Storage, *time.Time) {
	clock := time.Date(2024, 1, 8, 0, 0, 0, 0, time.UTC)
	f := newFake()
	f.unsigned, f.now = true, func() time.Time { return clock }
	s, err := open(t.Context(), f.options())
	if err != nil {
		t.Fatal(err)
	}
	return f, s, &clock
}

// count is how many objects of streams there are.
func (f *fake) count(folder string) (n int) {
	for _, key := range f.keys {
		if strings.HasPrefix(key, "streams/"+folder) {
			n++
		}
	}
	return n
}

// TestCollect: many small objects become few, and the stream is as it was, also for who knew only its beginning.
func TestCollect(t *testing.T) {
	is := is.New(t)
	f, s, clock := clocked(t)
	const n = 1200
	for i := range n {
		is.NoErr(put(s, i))
	}
	is.Equal(f.count("s/"), n)
	other, err := open(t.Context(), f.options())
	is.NoErr(err)
	is.True(tidy(t, s, clock) < 6)
	is.True(f.count("s/") < 40)
	clear(f.requests)
	for _, s := range []*Storage{s, other} {
		for from := range streamlib.Offset(n) {
			if from%97 != 0 {
				continue
			}
			at := from
			for events, err := range s.Read(t.Context(), "a", from, streamlib.MaxOffset) {
				is.NoErr(err)
				for _, e := range events {
					is.Equal(string(e.Data()), fmt.Sprintf(`{"n":%d}`, at))
					at++
				}
			}
			is.Equal(at, streamlib.Offset(n))
		}
	}
	is.NoErr(put(other, n))
	last, err := s.Last(t.Context(), "a", 10*int64(len(event(n).Record())))
	is.NoErr(err)
	is.Equal(last, streamlib.Offset(n-9))
}

// TestCollectTrimmed: what was trimmed goes, and the sizes that are told stay right.
func TestCollectTrimmed(t *testing.T) {
	is := is.New(t)
	f, s, clock := clocked(t)
	s.blocks = blocks{4, 3}
	at := 0
	for _, kept := range []int{10, 31, 100, 300, 301, 700} {
		for ; at < kept+50; at++ {
			is.NoErr(put(s, at))
		}
		tidy(t, s, clock)
		is.NoErr(s.Commit(t.Context(), "a", streamlib.Change{State: &streamlib.State{First: streamlib.Offset(kept)}}))
		tidy(t, s, clock)
		is.True(f.count("s/") < 60)
		for _, key := range f.keys {
			if strings.HasPrefix(key, "streams/s/") {
				h, events, err := parse(key, f.objects[key].body)
				is.NoErr(err)
				is.Equal(len(events), h.Count)
			}
		}
		info, err := s.Stat(t.Context(), "a")
		is.NoErr(err)
		size, n := int64(0), info.First
		for events, err := range s.Read(t.Context(), "a", streamlib.Beginning, streamlib.MaxOffset) {
			is.NoErr(err)
			for _, e := range events {
				is.Equal(e.Offset, n)
				size += int64(len(e.Record()))
				n++
			}
		}
		is.Equal(n, streamlib.Offset(at))
		is.Equal(size, info.Size)
	}
	// What is left of what was trimmed is in the blocks that are not at their end, and is too little for a request.
	lowest := streamlib.MaxOffset
	for _, key := range f.keys {
		if p, err := parsePosition(strings.TrimPrefix(key, s.dir("a"))); err == nil {
			lowest = min(lowest, p.first)
		}
	}
	is.True(lowest >= 512)
}

// TestBury: of a stream that was deleted one small object is left, which no list meets; its next life is another.
func TestBury(t *testing.T) {
	is := is.New(t)
	f, s, clock := clocked(t)
	was := int64(-1)
	for range 3 {
		info, err := s.Stat(t.Context(), "a")
		is.NoErr(err)
		is.True(info.Life > was)
		was = info.Life
		is.True(!info.Exists())
		for i := range 5 {
			is.NoErr(s.Commit(t.Context(), "a", streamlib.Change{Events: []streamlib.Event{event(i)},
				State: &streamlib.State{Life: info.Life}}))
		}
		names, err := s.List(t.Context(), "", "", 0)
		is.NoErr(err)
		is.Equal(names, []string{"a"})
		is.NoErr(s.Commit(t.Context(), "a", streamlib.Change{Delete: true}))
		tidy(t, s, clock)
		is.Equal([]int{f.count("s/"), f.count("d/"), f.count("g/")}, []int{0, 0, 1})
		s, err = open(t.Context(), f.options()) // that knows nothing
		is.NoErr(err)
	}
	// What went on before the deletion could be collected leaves nothing either.
	for i := range 3 {
		info, err := s.Stat(t.Context(), "a")
		is.NoErr(err)
		is.NoErr(s.Commit(t.Context(), "a", streamlib.Change{Events: []streamlib.Event{event(0)},
			State: &streamlib.State{Life: info.Life}}))
		if i < 2 {
			is.NoErr(s.Commit(t.Context(), "a", streamlib.Change{Delete: true}))
		}
	}
	tidy(t, s, clock)
	is.Equal([]int{f.count("s/"), f.count("d/")}, []int{1, 0})
	names, err := s.List(context.Background(), "", "", 0)
	is.NoErr(err)
	is.Equal(names, []string{"a"})
}

// TestPasses: of many processes one is at it at a time, and what one did not end another goes on with.
func TestPasses(t *testing.T) {
	is := is.New(t)
	f, s, clock := clocked(t)
	for i := range 100 {
		is.NoErr(put(s, i))
	}
	*clock = clock.Add(2 * lifetime)
	other, err := open(t.Context(), f.options())
	is.NoErr(err)
	p := &pass{s: other}
	due, err := p.begin(t.Context())
	is.NoErr(err)
	is.True(due)
	q, err := s.pass(t.Context())
	is.NoErr(err)
	is.Equal(q.made, 0) // the other is at it
	*clock = clock.Add(aloneTime)
	q, err = s.pass(t.Context())
	is.NoErr(err)
	is.True(q.made > 0) // it took over
	is.Equal(p.tell(t.Context()), errTaken)
	is.True(q.is.Done.Equal(p.is.Begun))
	q, err = s.pass(t.Context())
	is.NoErr(err)
	is.Equal(q.made+q.removed, 0) // it is over, for an hour
}

// TestCollectNow: who asks for a pass has one where it is due, and where the store was found to be good for it.
func TestCollectNow(t *testing.T) {
	is := is.New(t)
	_, s, clock := clocked(t)
	for i := range 100 {
		is.NoErr(put(s, i))
	}
	*clock = clock.Add(2 * lifetime)
	_, _, err := s.Collect(t.Context())
	is.True(errors.Is(err, streamlib.ErrUnavailable)) // nothing was tried
	s.collects = true
	written, removed, err := s.Collect(t.Context())
	is.NoErr(err)
	is.Equal([]int{written, removed}, []int{2, 97}) // blocks of 64, without the newest
	written, removed, err = s.Collect(t.Context())
	is.NoErr(err)
	is.Equal([]int{written, removed}, []int{0, 0})
}
