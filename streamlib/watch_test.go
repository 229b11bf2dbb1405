package streamlib_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/matryer/is"
)

func TestWatchNotesWhatChanges(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(memory.New(), streamlib.Active, streamlib.Options{})
	do := func(name string, b streamlib.Batch) { is.NoErr(last2(m.Stream(name).Append(t.Context(), b))) }
	one := streamlib.Batch{Data: streamlib.JSON("1")}
	do("before", one)
	w := m.Watch(0, 0)
	other := m.Watch(0, 0)
	streams := func(w *streamlib.Watch) []string { return slices.Sorted(slices.Values(w.Streams())) }
	is.Equal(len(w.Streams()), 0)
	for range 3 {
		do("a", one)
		do("b", one)
	}
	do("before", streamlib.Batch{Close: true})
	do("empty", streamlib.Batch{Close: true})
	is.Equal(streams(w), []string{"a", "b", "before", "empty"})
	is.Equal(len(w.Streams()), 0)
	do("before", streamlib.Batch{Close: true}) // again
	is.Equal(len(w.Streams()), 0)
	is.NoErr(m.Stream("a").Trim(t.Context(), 1))
	is.NoErr(m.Stream("b").Delete(t.Context()))
	is.Equal(streams(w), []string{"a", "b"})
	w.Close()
	do("late", one)
	is.Equal(len(w.Streams()), 0)
	is.Equal(streams(other), []string{"a", "b", "before", "empty", "late"})
}

func TestWatchTellsOfMuchInOneStream(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(memory.New(), streamlib.Active, streamlib.Options{})
	fill := func(name string, data string) {
		is.NoErr(last2(m.Stream(name).Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(data)})))
	}
	w := m.Watch(10, 1000)
	defer w.Close()
	much := func() bool {
		select {
		case <-w.Much:
			return true
		default:
			return false
		}
	}
	for i := range 100 {
		fill(fmt.Sprint(i), "1")
	}
	for range 8 {
		fill("0", "1")
	}
	is.True(!much())
	fill("0", "1")
	is.True(much())
	fill("0", "1") // yet more
	w.Streams()
	is.True(!much())
	fill("1", `"`+strings.Repeat("0", 1000)+`"`)
	is.True(much())
}

func TestWatchNotesTheStreamsThatItIsFor(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(memory.New(), streamlib.Active, streamlib.Options{})
	w := m.Watch(1, 0, "jobs/*", "one")
	defer w.Close()
	for _, name := range []string{"job", "jobs", "jobs/", "jobs/1", "one", "one/2", "two"} {
		is.NoErr(last2(m.Stream(name).Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})))
	}
	is.Equal(slices.Sorted(slices.Values(w.Streams())), []string{"jobs/", "jobs/1", "one"})
	is.NoErr(last2(m.Stream("two").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})))
	is.Equal(len(w.Much), 0)
}
