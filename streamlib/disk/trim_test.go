package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// TestTrimGivesRoomBack: what goes is gone when it is as much as what stays, and no more is written for it than that.
func TestTrimGivesRoomBack(t *testing.T) {
	is := is.New(t)
	fs := newCrashFS(rand.New(rand.NewPCG(1, 1)))
	swaps := 0
	s, err := openStore(fs, Options{})
	is.NoErr(err)
	fs.before = func(o op) outcome {
		if o.kind == "rename" && o.path == newTrimmed {
			swaps++
		}
		return outcome{}
	}
	stream := streamlib.NewManager(s, streamlib.Plain, streamlib.Options{}).Stream("s")
	size := func() int64 { return int64(len(fs.contents(path("s")))) }
	for i := range 100 {
		_, err := stream.Append(t.Context(), streamlib.Batch{Data: raw(fmt.Sprint(i + 100))})
		is.NoErr(err)
		is.NoErr(stream.Trim(t.Context(), max(0, streamlib.Offset(i-9)))) // ten are kept
		for s.collect() {
		}
		is.True(size() <= 20*120)
	}
	is.Equal(swaps, 9) // of ten lines, once in ten appends
	events, err := read(s, "s", streamlib.Beginning)
	is.NoErr(err)
	is.Equal(len(events), 10)
	is.NoErr(stream.Trim(t.Context(), streamlib.Now))
	for s.collect() {
	}
	is.Equal(size(), int64(0))
	r, err := stream.Append(t.Context(), streamlib.Batch{Data: raw("1")})
	is.NoErr(err)
	is.Equal(r.Events[0].Offset, streamlib.Offset(100))
}

// TestTornBehindTrim: of a life that the journal has whole, behind a deletion, the file has lost its beginning to a trim,
// and the line after that to a power cut. What stands behind tells whose it is.
func TestTornBehindTrim(t *testing.T) {
	is := is.New(t)
	h := opened(t, Options{})
	a := h.streams[0]
	is.NoErr(h.append(a, h.sends(1), nil))
	is.NoErr(h.remove(a))
	is.NoErr(h.append(a, h.sends(4), nil))
	is.NoErr(h.manager.Stream("a").Trim(t.Context(), 2))
	for h.store.collect() {
	}
	want, err := read(h.store, "a", 2)
	is.NoErr(err)
	files := h.fs.files()
	file := slices.Clone(files[path("a")])
	is.Equal(bytes.Count(file, []byte("\n")), 2) // 2 and 3 are left
	clear(file[:10])
	s, _, err := files.with(path("a"), file).open(Options{})
	is.NoErr(err)
	got, err := read(s, "a", 2)
	is.NoErr(err)
	is.Equal(got, want)
	is.NoErr(put(s, "a", newEvent("a", 4)))
}

// TestTrimUnderReader: a retention that runs between a follower's read of the file and its next. The follower sees a gap
// never, but is told what is gone.
func TestTrimUnderReader(t *testing.T) {
	is := is.New(t)
	s := openFolder(t, t.TempDir(), Options{})
	stream := streamlib.NewManager(s, streamlib.Plain, streamlib.Options{}).Stream("s")
	large := slices.Repeat(raw(`"`+strings.Repeat("x", 900)+`"`), 100)
	fill := func(n int) {
		for range n {
			_, err := stream.Append(t.Context(), streamlib.Batch{Data: large})
			is.NoErr(err)
		}
	}
	fill(30)
	next, last := streamlib.Offset(0), error(nil)
	for batch, err := range stream.Subscribe(t.Context(), streamlib.Beginning) {
		if last = err; err != nil {
			break
		}
		for _, e := range batch {
			is.Equal(e.Offset, next) // no gap
			next++
		}
		is.NoErr(stream.Trim(t.Context(), 2900)) // and it is collected in the background
	}
	gone, ok := errors.AsType[*streamlib.GoneError](last)
	is.True(ok)
	is.Equal(*gone, streamlib.GoneError{Stream: "s", After: next - 1, Tail: 3000, First: 2900})
	is.True(next < 2900)
}

// TestTrimWhileAppending: collections, appends, reads and checkpoints at once.
func TestTrimWhileAppending(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	s := openFolder(t, dir, Options{JournalSize: 64 << 10})
	m := streamlib.NewManager(s, streamlib.Plain, streamlib.Options{})
	var all sync.WaitGroup
	for w := range 3 {
		stream := m.Stream(fmt.Sprint("s", w))
		all.Go(func() {
			for i := range 400 {
				r, err := stream.Append(context.Background(), streamlib.Batch{Data: slices.Repeat(raw(`"0123456789"`), 10)})
				if err == nil && i%3 == 0 {
					err = stream.Trim(context.Background(), r.Tail-25)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
		all.Go(func() {
			for next := streamlib.Beginning; ; {
				for batch, err := range stream.Subscribe(context.Background(), next) {
					if gone, ok := errors.AsType[*streamlib.GoneError](err); ok {
						next = gone.First
						break
					} else if err != nil {
						t.Error(err)
						return
					}
					if next >= 0 && batch[0].Offset != next {
						t.Errorf("%d where %d should be", batch[0].Offset, next)
					}
					if next = batch[len(batch)-1].Offset + 1; next == 4000 {
						return
					}
				}
			}
		})
	}
	all.Wait()
	is.NoErr(s.Close())
	sum, err := Verify(dir, nil)
	is.NoErr(err)
	is.Equal(len(sum.Damage), 0)
	for w := range 3 {
		info, err := os.Stat(filepath.Join(dir, path(fmt.Sprint("s", w))))
		is.NoErr(err)
		is.True(info.Size() < 4000*120/4)
	}
}
