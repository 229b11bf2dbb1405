package disk

import (
	"bytes"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

func TestKillBetweenSyncAndApply(t *testing.T) {
	is := is.New(t)
	for _, name := range []int{0, 1} { // a stream that is there, and one that is not
		h := opened(t, Options{})
		is.NoErr(h.append(h.streams[0], h.sends(2), nil))
		s := h.streams[name]
		kind := "write"
		if name == 1 {
			kind = "create"
		}
		h.at(kind, path(s.name), without)
		is.NoErr(h.append(s, h.sends(3), nil))
		is.True(h.fs.down)
		is.NoErr(h.reopen(power))
		events, err := readAll(h.manager.Stream(s.name))
		is.NoErr(err)
		is.Equal(len(events), 3+2*(1-name)) // it was durable
	}
}

// A frame that an earlier use of the file left behind the end is no loss, and no data.
func TestStaleFrameBehindTheEnd(t *testing.T) {
	smallJournals(t)
	is := is.New(t)
	f, truth := write(t, Options{MaxNames: 1}, true, false, func(add func(string, int)) {
		add("s", 1)
		add("s", 1)
		add("t", 1)
	})
	var last string
	for p := range f {
		if strings.HasPrefix(p, journalDir) && p > last {
			last = p
		}
	}
	is.Equal(last, journalPath(3))
	other := f[journalPath(1)] // its frames are of generation 1
	b := bytes.Clone(f[last])
	copy(b[len(bytes.TrimRight(b, "\x00"))+777:], bytes.TrimRight(other, "\x00"))
	s, _, err := f.with(last, b).open(Options{})
	is.NoErr(err)
	for name, want := range truth {
		events, err := read(s, name, 0)
		is.NoErr(err)
		is.True(prefix(events, want) && len(events) == len(want))
	}
	_, err = stat(s, "t")
	is.NoErr(err)
	// Also where it stands at the end, with the sequence that is next.
	end := len(bytes.TrimRight(f[last], "\x00"))
	next := appendLine(make([]byte, headerLen), []byte(`{"delete":"t"`))
	(&journal{number: 1, sequence: 2}).seal(next)
	at := bytes.Clone(f[last])
	copy(at[end:], next)
	s, _, err = f.with(last, at).open(Options{})
	is.NoErr(err)
	events, err := read(s, "t", 0)
	is.NoErr(err)
	is.Equal(len(events), 1)
	// One of its own generation says that what lies before it was damaged.
	own := bytes.Clone(f[last])
	j := &journal{number: 3, sequence: 7}
	frame := appendLine(make([]byte, headerLen), []byte(`{"delete":"t"`))
	j.seal(frame)
	copy(own[end+100:], frame)
	_, _, err = f.with(last, own).open(Options{})
	is.True(corrupt(err))
}

func TestDeleteAndMakeAgain(t *testing.T) {
	is := is.New(t)
	for _, o := range []Options{{}, {JournalSize: 1}} { // in one journal, and across several
		for _, applied := range []crash{kill, power} {
			h := opened(t, o)
			a := h.streams[0]
			for range 3 {
				is.NoErr(h.append(a, h.sends(3), nil))
				is.NoErr(h.remove(a))
				is.NoErr(h.append(a, h.sends(2), nil))
				is.NoErr(h.append(a, h.sends(1), nil))
			}
			is.NoErr(h.reopen(applied))
			is.NoErr(h.remove(a))
			is.NoErr(h.reopen(applied))
			is.NoErr(h.append(a, h.sends(1), nil))
			is.NoErr(h.reopen(applied))
		}
	}
}

// A stream whose file is damaged before what its journal has cannot go on. It says so, the others do, and nothing is
// given up.
func TestDamagedPrefix(t *testing.T) {
	is := is.New(t)
	h := opened(t, Options{})
	for _, s := range h.streams {
		is.NoErr(h.append(s, h.sends(2), nil))
	}
	is.NoErr(h.store.Close())
	is.NoErr(h.open())
	for _, s := range h.streams {
		is.NoErr(h.append(s, h.sends(1), nil))
	}
	f := h.fs.files()
	a := f[path("a")]
	lines := bytes.SplitAfter(a, []byte("\n"))
	for what, damaged := range map[string][]byte{
		"a bit":             bytes.Replace(a, []byte(`"n":1`), []byte(`"n":9`), 1),
		"the last line":     append(bytes.Clone(lines[0]), lines[1][:20]...),
		"all but a line":    lines[0],
		"nothing left":      {},
		"another one's":     f[path("b")],
		"zeros in front of": append(make([]byte, 100), a...),
		"only what follows": lines[2],
	} {
		s, fs, err := f.with(path("a"), damaged).open(Options{})
		is.NoErr(err)
		for range 3 { // and it stays so
			for _, name := range []string{"b", "Older"} {
				events, err := read(s, name, 0)
				is.NoErr(err)
				is.Equal(len(events), 3)
			}
			events, err := read(s, "a", 0)
			if !corrupt(err) || len(events) > 2 {
				t.Fatalf("%s: read yields%s, %v", what, brief(events), err)
			}
			err = put(s, "a", newEvent("a", 3))
			if !errors.Is(err, streamlib.ErrUnavailable) {
				t.Fatalf("%s: append: %v", what, err)
			}
			is.Equal(fs.contents("streams/a.unreplayed-2"), lines[2])
			is.NoErr(s.Close())
			s, err = openStore(fs, Options{})
			is.NoErr(err)
		}
		is.NoErr(drop(s, "a")) // which is the other way on
		is.NoErr(put(s, "a", newEvent("a", 0)))
	}
	// The file gone altogether.
	gone := maps.Clone(f)
	delete(gone, path("a"))
	s, _, err := gone.open(Options{})
	is.NoErr(err)
	_, err = read(s, "a", 0)
	is.True(corrupt(err))
}

// A crash while lines are set aside leaves them in the journal.
func TestDamagedPrefixCrash(t *testing.T) {
	is := is.New(t)
	f, truth := write(t, Options{}, true, true, func(add func(string, int)) { add("a", 2); add("b", 1) })
	s, fs, err := f.open(Options{})
	is.NoErr(err)
	is.NoErr(put(s, "a", newEvent("a", 2)))
	f = fs.files()
	f[path("a")] = bytes.Replace(f[path("a")], []byte(`"n":1`), []byte(`"n":9`), 1)
	want := bytes.SplitAfter(f[path("a")], []byte("\n"))[2]
	for n := 1; ; n++ {
		fs := newCrashFS(fs.rng)
		for p, b := range f {
			fs.plant(p, b)
		}
		fs.before = func(o op) outcome { return outcome{crash: o.n == n, effect: effect(n % 3)} }
		_, err := openStore(fs, Options{})
		if !fs.down {
			is.NoErr(err)
			break
		}
		fs.restart(crash(n % 3))
		s, err := openStore(fs, Options{})
		is.NoErr(err)
		events, err := read(s, "a", 0)
		is.True(corrupt(err))
		is.Equal(len(events), 0)
		kept := 0
		for p, b := range fs.files() {
			if strings.HasPrefix(p, "streams/a.unreplayed-2") && bytes.Equal(b, want) {
				kept++
			}
		}
		is.Equal(kept, 1) // beside what a crash left of another
		events, err = read(s, "b", 0)
		is.NoErr(err)
		is.True(prefix(events, truth["b"]) && len(events) == 1)
	}
}

// On a full disk a start needs no room, and reading and deleting need none after it.
func TestStartOnFullDisk(t *testing.T) {
	is := is.New(t)
	smallJournals(t)
	for _, closed := range []bool{true, false} {
		h := opened(t, Options{})
		a, b := h.streams[0], h.streams[1]
		is.NoErr(h.append(a, h.sends(3), nil))
		is.NoErr(h.append(b, h.sends(3), nil))
		h.fs.limited, h.fs.room = true, 0
		for range 100 {
			is.NoErr(h.append(a, h.sends(4), nil)) // what is taken back leaves bytes that a start would keep
		}
		is.True(errors.Is(h.last, streamlib.ErrFull))
		if closed {
			is.NoErr(h.store.Close())
		}
		h.fs.restart(kill)
		is.NoErr(h.open())
		h.fs.room = 0 // somebody else took what the journal had
		is.NoErr(h.look())
		is.NoErr(h.append(a, h.sends(1), nil))
		is.True(errors.Is(h.last, streamlib.ErrFull))
		is.NoErr(h.remove(b))
		is.NoErr(h.last)
		is.Equal(len(h.fs.root.entries[streamsDir].moves), 0)
		is.NoErr(h.reopen(power))
		h.fs.room = 1 << 20
		is.NoErr(h.append(a, h.sends(1), nil))
		is.NoErr(h.last)
	}
}

// After a sync that failed, the page cache shows what the disk does not have, and says that it is clean.
func TestFailedSyncThenWarmCache(t *testing.T) {
	is := is.New(t)
	for _, reached := range []effect{without, partly, wholly} {
		h := opened(t, Options{})
		a := h.streams[0]
		is.NoErr(h.append(a, h.sends(2), nil))
		h.watch = func(o op) outcome {
			if o.kind == "sync" {
				return outcome{err: errors.New("bad sector"), effect: reached}
			}
			return outcome{}
		}
		seen := 0
		is.NoErr(h.append(a, h.sends(3), nil))
		is.True(h.last != nil && !promised(h.last)) // open
		for batch, err := range h.manager.Stream("a").Read(t.Context(), 0, streamlib.MaxOffset) {
			is.NoErr(err)
			seen += len(batch)
		}
		is.Equal(seen, 2)
		is.NoErr(h.append(a, h.sends(3), nil))
		is.True(errors.Is(h.last, streamlib.ErrUnavailable))
		is.True(h.store.Close() != nil)
		h.watch = nil
		is.NoErr(h.reopen(kill)) // found is what the cache shows
		is.NoErr(h.append(a, h.sends(1), nil))
		is.NoErr(h.last)
		is.NoErr(h.reopen(power)) // and that is durable
		events, err := readAll(h.manager.Stream("a"))
		is.NoErr(err)
		is.Equal(len(events), 6)
	}
}
