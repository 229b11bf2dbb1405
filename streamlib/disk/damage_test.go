package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// folder is the files of a data folder by their paths.
type files map[string][]byte

func (c *crashFS) files() files {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := files{}
	c.walk(func(path string, n *inode) { f[path] = n.live.bytes() })
	return f
}

// with returns the files with one of them changed.
func (f files) with(path string, b []byte) files {
	f = maps.Clone(f)
	f[path] = b
	return f
}

// open opens a store on the files.
func (f files) open(o Options) (*Store, *crashFS, error) {
	fs := newCrashFS(rand.New(rand.NewPCG(1, 1)))
	for _, folder := range []string{streamsDir, journalDir} {
		n := newFolder()
		fs.root.entries[folder], fs.root.durable[folder] = n, n
	}
	for path, b := range f {
		fs.plant(path, b)
	}
	s, err := openStore(fs, o)
	return s, fs, err
}

// write runs appends on a new folder and returns its files and the streams' events. They are all in the journal, and
// in the streams' files too where the store is closed or applied is true.
func write(
	t *testing.T, o Options, applied, closed bool, write func(add func(name string, n int)),
) (files, map[string][]streamlib.Event) {
	t.Helper()
	is := is.New(t)
	h := opened(t, o)
	write(func(name string, n int) {
		b := streamlib.Batch{Data: []json.RawMessage{}, Key: fmt.Sprint(n, h.count)}
		for _, d := range h.sends(n).data {
			b.Data = append(b.Data, json.RawMessage(d))
		}
		_, err := h.manager.Stream(name).Append(t.Context(), b)
		is.NoErr(err)
	})
	names, err := listed(h.store, "", "", 0)
	is.NoErr(err)
	truth := map[string][]streamlib.Event{}
	for _, name := range names {
		truth[name], err = readAll(h.manager.Stream(name))
		is.NoErr(err)
	}
	if closed {
		is.NoErr(h.store.Close())
	}
	f := h.fs.files()
	if !applied {
		maps.DeleteFunc(f, func(path string, _ []byte) bool { return strings.HasPrefix(path, streamsDir) })
	}
	return f, truth
}

// twoStreams are appends to write.
func twoStreams(add func(string, int)) {
	add("s", 2)
	add("t", 1)
	add("s", 3)
}

// read returns what a stream yields from an offset on.
func read(s *Store, name string, from streamlib.Offset) (events []streamlib.Event, err error) {
	for batch, e := range s.Read(context.Background(), name, from, streamlib.MaxOffset) {
		events, err = append(events, batch...), e
	}
	return events, err
}

// prefix tells whether the events are the first of truth.
func prefix(events, truth []streamlib.Event) bool {
	return len(events) <= len(truth) && slices.EqualFunc(events, truth[:len(events)], func(a, b streamlib.Event) bool {
		return a.String() == b.String() && a.Key() == b.Key()
	})
}

func corrupt(err error) bool {
	_, ok := errors.AsType[*streamlib.CorruptError](err)
	return ok
}

// flips are other values for a byte.
func flips(b byte) []byte {
	values := []byte{b ^ 1, b ^ 0x80, 0, '\n', '0'}
	return slices.DeleteFunc(values, func(v byte) bool { return v == b })
}

func TestFlippedByteInStream(t *testing.T) {
	is := is.New(t)
	f, truth := write(t, Options{}, true, true, func(add func(string, int)) {
		add("s", 1)
		add("s", 3)
		add("s", 1)
	})
	file, want := f[path("s")], truth["s"]
	last := bytes.LastIndexByte(file[:len(file)-1], '\n') + 1
	for i := 0; i < len(file); i += stride(1, 7) {
		line := bytes.Count(file[:i], []byte("\n"))
		for _, v := range flips(file[i]) {
			b := bytes.Clone(file)
			b[i] = v
			s, fs, err := f.with(path("s"), b).open(Options{})
			is.NoErr(err)
			for from := range streamlib.Offset(len(want)) {
				events, err := read(s, "s", from)
				if !prefix(events, want[from:]) || !corrupt(err) {
					t.Fatalf("byte %d is %q: read from %d yields%s, %v", i, v, from, brief(events), err)
				}
				if from == 0 && len(events) != line {
					t.Fatalf("byte %d is %q: %d events stand before it, %d are read", i, v, line, len(events))
				}
			}
			_, err = stat(s, "s")
			if err != nil && !corrupt(err) {
				t.Fatalf("byte %d is %q: stat: %v", i, v, err)
			}
			err = put(s, "s", newEvent("s", len(want)))
			if i >= last && !errors.Is(err, streamlib.ErrUnavailable) {
				t.Fatalf("byte %d is %q: append: %v", i, v, err)
			} else if i >= last {
				is.Equal(fs.contents(path("s")), b) // untouched
			}
		}
	}
}

func TestFlippedByteInLongStream(t *testing.T) {
	is := is.New(t)
	f, truth := write(t, Options{}, true, true, func(add func(string, int)) {
		for range 400 {
			add("s", 3)
		}
	})
	file, want := f[path("s")], truth["s"]
	is.True(len(file) > 200<<10) // a search is more than reading all
	rng := rand.New(rand.NewPCG(1, 1))
	for range stride(300, 30) {
		i := rng.IntN(len(file))
		line := streamlib.Offset(bytes.Count(file[:i], []byte("\n")))
		values := flips(file[i])
		b := bytes.Clone(file)
		b[i] = values[rng.IntN(len(values))]
		s, _, err := f.with(path("s"), b).open(Options{})
		is.NoErr(err)
		for range 10 {
			from := streamlib.Offset(rng.IntN(len(want)))
			events, err := read(s, "s", from)
			if !prefix(events, want[from:]) || err != nil && !corrupt(err) {
				t.Fatalf("byte %d: read from %d yields%s, %v", i, from, brief(events), err)
			}
			if complete := len(events) == len(want[from:]); complete != (err == nil) || complete && from <= line {
				t.Fatalf("byte %d in line %d: read from %d yields %d events, %v", i, line, from, len(events), err)
			}
		}
	}
}

// Lines that are whole and not in order, as a program that edits the file may leave them.
func TestLinesOutOfOrder(t *testing.T) {
	is := is.New(t)
	f, truth := write(t, Options{}, true, true, func(add func(string, int)) { add("s", 6) })
	l := bytes.SplitAfter(f[path("s")], []byte("\n"))
	for what, file := range map[string][][]byte{
		"one is gone":        {l[0], l[1], l[3], l[4], l[5]},
		"the first is gone":  {l[1], l[2], l[3], l[4], l[5]},
		"one is twice there": {l[0], l[1], l[1], l[2], l[3], l[4], l[5]},
		"two are exchanged":  {l[0], l[2], l[1], l[3], l[4], l[5]},
	} {
		s, _, err := f.with(path("s"), bytes.Join(file, nil)).open(Options{})
		is.NoErr(err)
		for from := range streamlib.Offset(6) {
			events, err := read(s, "s", from)
			if !prefix(events, truth["s"][from:]) || err != nil && !corrupt(err) ||
				err == nil && len(events) != 6-int(from) || err == nil && from == 0 {
				t.Fatalf("%s: read from %d yields%s, %v", what, from, brief(events), err)
			}
		}
	}
}

// Cut at a line's end, a stream that no journal names looks like a shorter one. This is the one loss that cannot be
// seen.
func TestCutStream(t *testing.T) {
	is := is.New(t)
	f, truth := write(t, Options{}, true, true, func(add func(string, int)) {
		add("s", 2)
		add("s", 2)
	})
	file, want := f[path("s")], truth["s"]
	for _, zeros := range []int{0, 1, 100, 5000} {
		for n := range len(file) + 1 {
			b := append(bytes.Clone(file[:n]), make([]byte, zeros)...)
			s, _, err := f.with(path("s"), b).open(Options{})
			is.NoErr(err)
			events, err := read(s, "s", 0)
			whole := bytes.Count(file[:n], []byte("\n"))
			if !prefix(events, want) || len(events) != whole {
				t.Fatalf("cut at %d, %d zeros: read yields%s", n, zeros, brief(events))
			}
			if seen, visible := corrupt(err), zeros > 0 || n > 0 && file[n-1] != '\n'; seen != visible {
				t.Fatalf("cut at %d, %d zeros: read ends with %v", n, zeros, err)
			}
			err = put(s, "s", newEvent("s", whole))
			if visible := zeros > 0 ||
				n > 0 && file[n-1] != '\n'; visible != errors.Is(err, streamlib.ErrUnavailable) {
				t.Fatalf("cut at %d, %d zeros: append: %v", n, zeros, err)
			}
		}
	}
}

// What a journal names is whole again, wherever the streams' files end.
func TestCutStreamWithJournal(t *testing.T) {
	is := is.New(t)
	f, truth := write(t, Options{}, true, false, func(add func(string, int)) {
		add("s", 2)
		add("t", 1)
		add("s", 2)
	})
	file := f[path("s")]
	for _, zeros := range []int{0, 100} {
		for n := 0; n <= len(file); n += stride(1, 7) {
			s, fs, err := f.with(path("s"), append(bytes.Clone(file[:n]), make([]byte, zeros)...)).open(Options{})
			is.NoErr(err)
			for name, want := range truth {
				events, err := read(s, name, 0)
				is.NoErr(err)
				is.True(prefix(events, want) && len(events) == len(want))
			}
			is.Equal(fs.contents(path("s")), file)
		}
	}
}

func TestFlippedByteInJournal(t *testing.T) {
	smallJournals(t)
	is := is.New(t)
	for _, applied := range []bool{false, true} {
		f, truth := write(t, Options{}, applied, false, twoStreams)
		file := f[journalPath(1)]
		end := len(bytes.TrimRight(file, "\x00"))
		last := bytes.LastIndex(file, []byte(frameHead))
		for i := 0; i < end+headerLen+10; i += stride(1, 7) {
			for _, v := range flips(file[i]) {
				b := bytes.Clone(file)
				b[i] = v
				s, _, err := f.with(journalPath(1), b).open(Options{})
				if i < last {
					if !corrupt(err) {
						t.Fatalf("byte %d is %q (applied: %v): open: %v", i, v, applied, err)
					}
					continue
				}
				is.NoErr(err)
				for name, want := range truth {
					if name == "s" && i < end && !applied {
						want = want[:2] // the last frame looks like one that was not finished
					}
					events, err := read(s, name, 0)
					if err != nil || len(events) != len(want) || !prefix(events, want) {
						t.Fatalf("byte %d is %q (applied: %v): read %s yields%s, %v",
							i, v, applied, name, brief(events), err)
					}
				}
			}
		}
	}
}

// The journal before the last one cannot end too early: the next says how many frames it has.
func TestFlippedByteInFormerJournal(t *testing.T) {
	smallJournals(t)
	f, truth := write(t, Options{MaxNames: 2}, false, false, func(add func(string, int)) {
		add("s", 1)
		add("t", 2)
		add("u", 1)
	})
	file := f[journalPath(1)]
	end := len(bytes.TrimRight(file, "\x00"))
	if f[journalPath(2)] == nil {
		t.Fatal("there is one journal")
	}
	for i := 0; i < end; i += stride(1, 7) {
		for _, v := range flips(file[i]) {
			b := bytes.Clone(file)
			b[i] = v
			if _, _, err := f.with(journalPath(1), b).open(Options{}); !corrupt(err) {
				t.Fatalf("byte %d is %q: open: %v", i, v, err)
			}
		}
		if _, _, err := f.with(journalPath(1), file[:i]).open(Options{}); !corrupt(err) {
			t.Fatalf("cut at %d: open: %v", i, err)
		}
	}
	gone := maps.Clone(f)
	delete(gone, journalPath(1)) // as after a checkpoint: this is right, though here the streams' files are gone
	s, _, err := gone.open(Options{})
	if err != nil {
		t.Fatal(err)
	}
	events, err := read(s, "u", 0)
	if err != nil || !prefix(events, truth["u"]) {
		t.Fatal(events, err)
	}
}

func TestCutJournal(t *testing.T) {
	smallJournals(t)
	is := is.New(t)
	for _, applied := range []bool{false, true} {
		f, truth := write(t, Options{}, applied, false, twoStreams)
		file := f[journalPath(1)]
		end := len(bytes.TrimRight(file, "\x00"))
		for n := end; n >= 0; n -= stride(1, 7) {
			for _, zeros := range []int{0, 3000} {
				s, _, err := f.with(journalPath(1),
					append(bytes.Clone(file[:n]), make([]byte, zeros)...)).open(Options{})
				is.NoErr(err)
				for name, want := range truth {
					events, err := read(s, name, 0)
					if err != nil || !prefix(events, want) || applied && len(events) != len(want) {
						t.Fatalf("cut at %d (applied: %v): read %s yields%s, %v", n, applied, name, brief(events), err)
					}
					if whole := n == end; whole && len(events) != len(want) {
						t.Fatalf("cut behind the last frame: read %s yields%s", name, brief(events))
					}
					if name == "s" && len(events) != 0 && len(events) != 2 && len(events) != 5 {
						t.Fatalf("cut at %d: a part of an append is there:%s", n, brief(events))
					}
				}
			}
		}
	}
}

func TestUnknownControlRecord(t *testing.T) {
	is := is.New(t)
	f, truth := write(t, Options{}, true, true, func(add func(string, int)) { add("a", 2) })
	f[path("a")] = appendLine(f[path("a")], []byte(`{"trimmed":1`))
	s, fs, err := f.open(Options{})
	is.NoErr(err)
	events, err := read(s, "a", 0)
	is.True(corrupt(err))
	is.True(prefix(events, truth["a"]) && len(events) == 2)
	is.True(errors.Is(put(s, "a", newEvent("a", 2)), streamlib.ErrUnavailable))
	is.Equal(fs.contents(path("a")), f[path("a")])
}
