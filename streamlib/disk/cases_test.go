package disk

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

func TestKillBetweenSyncAndApply(t *testing.T) {
	is := is.New(t)
	for _, name := range []int{0, 1} { // a stream that is there, and one that is not
		h := scripted(t, Options{})
		is.NoErr(h.open())
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
	_, err = s.Stat("t")
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
			h := scripted(t, o)
			is.NoErr(h.open())
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

// A stream whose file is damaged before what its journal has cannot go on. It says so, the others do, and nothing is given up.
func TestDamagedPrefix(t *testing.T) {
	is := is.New(t)
	h := scripted(t, Options{})
	is.NoErr(h.open())
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
			err = s.Append("a", []streamlib.Event{event(t, "a", 3)})
			if !errors.Is(err, streamlib.ErrUnavailable) {
				t.Fatalf("%s: append: %v", what, err)
			}
			is.Equal(fs.contents("streams/a.unreplayed-2"), lines[2])
			is.NoErr(s.Close())
			s, err = openStore(fs, Options{})
			is.NoErr(err)
		}
		is.NoErr(s.Delete("a")) // which is the other way on
		is.NoErr(s.Append("a", []streamlib.Event{event(t, "a", 0)}))
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
	is.NoErr(s.Append("a", []streamlib.Event{event(t, "a", 2)}))
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

func TestDiskFillsBetweenJournalAndApply(t *testing.T) {
	is := is.New(t)
	h := scripted(t, Options{})
	is.NoErr(h.open())
	is.NoErr(h.append(h.streams[0], h.sends(3), nil))
	h.watch = func(o op) outcome { // only what is there can be written
		h.fs.limited, h.fs.room = strings.HasPrefix(o.path, streamsDir), 100
		return outcome{}
	}
	for _, s := range h.streams {
		is.NoErr(h.append(s, h.sends(4), nil))
		is.True(errors.Is(h.last, streamlib.ErrFull))
		is.NoErr(h.read(s))
	}
	is.NoErr(h.remove(h.streams[0]))
	is.NoErr(h.last)
	h.watch = func(op) outcome { h.fs.limited = false; return outcome{} }
	for _, s := range h.streams {
		is.NoErr(h.append(s, h.sends(4), nil))
		is.NoErr(h.last)
	}
	is.NoErr(h.reopen(power))
}

// On a full disk a start needs no room, and reading and deleting need none after it.
func TestStartOnFullDisk(t *testing.T) {
	is := is.New(t)
	smallJournals(t)
	for _, closed := range []bool{true, false} {
		h := scripted(t, Options{})
		is.NoErr(h.open())
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

// A deletion without a journal, whose sync fails, has an open outcome; what the next start shows of it is durable then. It was not: the
// folder was never synced again.
func TestDeletionOnFullDiskWhoseSyncFails(t *testing.T) {
	smallJournals(t)
	for seed := range uint64(20) {
		is := is.New(t)
		h := scripted(t, Options{})
		h.fs.rng = rand.New(rand.NewPCG(2, seed))
		is.NoErr(h.open())
		a := h.streams[0]
		is.NoErr(h.append(a, h.sends(3), nil))
		is.NoErr(h.store.Close())
		h.fs.restart(kill)
		is.NoErr(h.open())
		h.fs.limited, h.fs.room = true, 0
		h.watch = func(o op) outcome {
			if o.kind == "syncDir" && o.path == streamsDir {
				return outcome{err: errors.New("bad sector"), effect: without}
			}
			return outcome{}
		}
		is.NoErr(h.remove(a))
		is.True(h.last != nil)
		h.watch = nil
		is.NoErr(h.reopen(kill))
		is.NoErr(h.reopen(power))
	}
}

// What cannot be taken back is in the file, whole or in part, and nobody is served it.
func TestTakingBackFails(t *testing.T) {
	is := is.New(t)
	h := scripted(t, Options{MaxOpen: 1})
	is.NoErr(h.open())
	is.NoErr(h.append(h.streams[0], h.sends(2), nil))
	for i, had := range []int{2, 0} { // one that is there, and one that is not
		s := h.streams[i]
		h.watch = func(o op) outcome {
			if o.path == path(s.name) && (o.kind == "write" || o.kind == "truncate" || o.kind == "remove") {
				return outcome{err: errors.New("bad sector"), effect: map[string]effect{"write": wholly}[o.kind]}
			}
			return outcome{}
		}
		is.NoErr(h.append(s, h.sends(3), nil))
		is.True(h.last != nil && !promised(h.last)) // open
		h.watch = nil
		for _, other := range h.streams { // which would close what may be closed
			is.NoErr(h.read(other))
		}
		events, err := readAll(h.manager.Stream(s.name))
		is.NoErr(err)
		is.Equal(len(events), had)
		is.NoErr(h.reopen(kill))
		events, err = readAll(h.manager.Stream(s.name))
		is.NoErr(err)
		is.Equal(len(events), had+3) // it was in the journal
	}
}

// After a sync that failed, the page cache shows what the disk does not have, and says that it is clean.
func TestFailedSyncThenWarmCache(t *testing.T) {
	is := is.New(t)
	for _, reached := range []effect{without, partly, wholly} {
		h := scripted(t, Options{})
		is.NoErr(h.open())
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

// What a deletion removes is what the stream owns: "%41.json" is the file of "A", and would be the older one of "%41".
func TestDeleteLeavesOthersFiles(t *testing.T) {
	is := is.New(t)
	pairs := [][2]string{{"A", "%41"}, {".x", "%2ex"}, {"con", "%63on"}, {"%41", "%2541"}}
	for _, pair := range pairs {
		s, _, err := files{}.open(Options{})
		is.NoErr(err)
		for _, name := range pair {
			is.NoErr(s.Append(name, []streamlib.Event{event(t, name, 0)}))
		}
		is.NoErr(s.Delete(pair[1]))
		events, err := read(s, pair[0], 0)
		is.NoErr(err)
		is.Equal(len(events), 1)
		is.NoErr(s.Append(pair[0], []streamlib.Event{event(t, pair[0], 1)}))

		// Nor is it taken where it has the older form.
		older := `{"events":[{"offset":"0","data":1,"createdAt":"2024-01-08T00:00:00.000Z"}]}`
		s, _, err = files{path(pair[0]): []byte(older)}.open(Options{})
		is.NoErr(err)
		is.NoErr(s.Append(pair[1], []streamlib.Event{event(t, pair[1], 0)}))
		is.NoErr(s.Delete(pair[1]))
		events, err = read(s, pair[0], 0)
		is.NoErr(err)
		is.Equal(len(events), 1)
	}
}

// One file that must not be written is one stream that takes no appends.
func TestReadOnlyFile(t *testing.T) {
	is := is.New(t)
	h := scripted(t, Options{})
	is.NoErr(h.open())
	a, b := h.streams[0], h.streams[1]
	is.NoErr(h.append(a, h.sends(1), nil))
	is.NoErr(h.append(b, h.sends(1), nil))
	is.NoErr(h.store.Close())
	is.NoErr(h.open())
	h.watch = func(o op) outcome {
		if o.kind == "open" && o.path == path("a") && o.writable {
			return outcome{err: os.ErrPermission}
		}
		return outcome{}
	}
	is.NoErr(h.read(a))
	is.NoErr(h.append(a, h.sends(1), nil))
	is.True(errors.Is(h.last, streamlib.ErrUnavailable))
	is.NoErr(h.append(b, h.sends(1), nil))
	is.NoErr(h.last)
	h.watch = nil
	is.NoErr(h.append(a, h.sends(1), nil)) // it is looked at again
	is.NoErr(h.last)
	is.NoErr(h.reopen(power))
}

// A deletion is in the journal even where somebody removed the file: else the journal would make it again.
func TestDeleteOfRemovedFile(t *testing.T) {
	is := is.New(t)
	h := scripted(t, Options{MaxOpen: 1})
	is.NoErr(h.open())
	a, b := h.streams[0], h.streams[1]
	is.NoErr(h.append(a, h.sends(2), nil))
	is.NoErr(h.append(b, h.sends(2), nil)) // so that the other is closed
	is.NoErr(h.fs.remove(path("a")))
	is.NoErr(h.remove(a))
	is.NoErr(h.last)
	is.NoErr(h.reopen(kill))
}

// Whether a file is there is asked again when its folder has changed.
func TestRemovedFileIsLookedFor(t *testing.T) {
	is := is.New(t)
	h := scripted(t, Options{})
	is.NoErr(h.open())
	a, b := h.streams[0], h.streams[1]
	looks := 0
	h.watch = func(o op) outcome {
		if o.kind == "same" {
			looks++
		}
		return outcome{}
	}
	for _, want := range []int{0, 1, 1, 1} { // it is new, it is looked at, nothing has changed
		is.NoErr(h.append(a, h.sends(1), nil))
		is.NoErr(h.last)
		is.Equal(looks, want)
	}
	is.NoErr(h.append(b, h.sends(1), nil)) // makes a file
	is.NoErr(h.append(a, h.sends(1), nil))
	is.Equal(looks, 2)
	is.NoErr(h.fs.remove(path("a")))
	for range 2 {
		is.NoErr(h.append(a, h.sends(1), nil))
		is.True(errors.Is(h.last, streamlib.ErrUnavailable))
	}
	is.Equal(looks, 4)
}

// A copy may have left out the folders that were empty, as git does.
func TestEmptyFoldersLeftOut(t *testing.T) {
	is := is.New(t)
	f, truth := write(t, Options{}, true, true, func(add func(string, int)) { add("a", 2) })
	for _, f := range []files{f, {formatFile: []byte(format)}} {
		s := openFolder(t, f.put(t), Options{})
		events, err := read(s, "a", 0)
		is.NoErr(err)
		is.True(prefix(events, truth["a"]))
		is.NoErr(s.Append("a", []streamlib.Event{event(t, "a", len(events))}))
		is.NoErr(s.Close())
	}
}

func events0(t *testing.T) []streamlib.Event { return []streamlib.Event{event(t, "x", 0)} }

func TestLongestName(t *testing.T) {
	is := is.New(t)
	for _, name := range []string{
		strings.Repeat("a", 255), strings.Repeat("a", 220), strings.Repeat("a", 221), strings.Repeat("A", 255), strings.Repeat(`"`, 255),
		strings.Repeat("😀", 63), strings.Repeat(".", 255), "~" + strings.Repeat("0", 64),
	} {
		s, fs, err := files{}.open(Options{})
		is.NoErr(err)
		is.NoErr(s.Append(name, []streamlib.Event{event(t, name, 0)}))
		names, err := s.List("", "", 0)
		is.NoErr(err)
		is.Equal(names, []string{name})
		fs.restart(power)
		s, err = openStore(fs, Options{})
		is.NoErr(err)
		events, err := read(s, name, 0)
		is.NoErr(err)
		is.Equal(len(events), 1)
		for p := range fs.files() {
			is.True(len(p)-len("streams/") < 255-len(".unreplayed-0000000000000000"))
		}
		is.NoErr(s.Delete(name))
		names, err = s.List("", "", 0)
		is.NoErr(err)
		is.Equal(len(names), 0)
	}
}

func TestNewerFormat(t *testing.T) {
	is := is.New(t)
	for _, newer := range []string{"durable-streams 2\n", "", "durable-streams 1", format + "x", strings.Repeat("x", 1000)} {
		f, _ := write(t, Options{}, true, false, func(add func(string, int)) { add("a", 1) })
		f[formatFile] = []byte(newer)
		_, fs, err := f.open(Options{})
		is.True(err != nil)
		is.Equal(fs.files(), f)
		for _, n := range fs.root.entries {
			is.Equal(len(n.since)+len(n.moves), 0)
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
	is.True(errors.Is(s.Append("a", []streamlib.Event{event(t, "a", 2)}), streamlib.ErrUnavailable))
	is.Equal(fs.contents(path("a")), f[path("a")])
}

// The order is the offset's, and time does not go back, across starts too.
func TestClockJumpsBack(t *testing.T) {
	is := is.New(t)
	h := scripted(t, Options{})
	is.NoErr(h.open())
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	var last time.Time
	for i := range 6 {
		m := streamlib.NewManager(h.store, streamlib.Plain, streamlib.Options{Now: func() time.Time { return now }})
		r, err := m.Stream("a").Append(t.Context(), streamlib.Batch{Data: []json.RawMessage{[]byte("1"), []byte("2")}})
		is.NoErr(err)
		is.Equal(int(r.Events[0].Offset), 2*i)
		for _, e := range r.Events {
			is.True(!e.CreatedAt().Before(last))
			last = e.CreatedAt()
		}
		now = now.Add(-time.Hour * 24 * 365)
		if i%2 == 1 {
			h.fs.restart(kill)
			is.NoErr(h.open())
		}
	}
}

// What could not be read again is refused.
func TestTooLarge(t *testing.T) {
	is := is.New(t)
	large := func(o, line int) streamlib.Event {
		record, err := streamlib.NewRecord(streamlib.Offset(o), "a", json.RawMessage(`""`), testTime)
		is.NoErr(err)
		data := `"` + strings.Repeat("x", line-sealLen-len(record)) + `"`
		record = bytes.Replace(record, []byte(`"data":""`), []byte(`"data":`+data), 1)
		e, err := streamlib.ParseRecord(record)
		is.NoErr(err)
		return e
	}
	s, fs, err := files{}.open(Options{})
	is.NoErr(err)
	is.True(errors.Is(s.Append("a", []streamlib.Event{large(0, maxLine+1)}), streamlib.ErrTooLarge))
	is.NoErr(s.Append("a", []streamlib.Event{large(0, maxLine)}))
	var events []streamlib.Event
	for o := range maxFrame/maxLine + 1 {
		events = append(events, large(1+o, maxLine))
	}
	is.True(errors.Is(s.Append("a", events), streamlib.ErrTooLarge))
	fs.restart(kill)
	s, err = openStore(fs, Options{})
	is.NoErr(err)
	info, err := s.Stat("a")
	is.NoErr(err)
	is.Equal(int(info.Tail), 1)
}
