package disk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

func TestDiskFillsBetweenJournalAndApply(t *testing.T) {
	is := is.New(t)
	h := opened(t, Options{})
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

// TestJournalGoesWhileTheNextFindsNoRoom: nothing is left to be given back, and there is room.
func TestJournalGoesWhileTheNextFindsNoRoom(t *testing.T) {
	is := is.New(t)
	h := opened(t, Options{JournalSize: 1})
	is.NoErr(h.append(h.streams[0], h.sends(1), nil))
	is.NoErr(h.last)
	h.watch = func(o op) outcome {
		if o.path != journalPath(2) {
			return outcome{}
		}
		h.watch = nil
		is.True(h.store.checkpoint())
		return outcome{err: syscall.ENOSPC}
	}
	is.NoErr(h.append(h.streams[1], h.sends(1), nil))
	is.NoErr(h.last)
	is.NoErr(h.reopen(power))
}

// A deletion without a journal, whose sync fails, has an open outcome; what the next start shows of it is durable
// then. It was not: the folder was never synced again.
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
	h := opened(t, Options{MaxOpen: 1})
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

// What a deletion removes is what the stream owns: "%41.json" is the file of "A", and would be the older one of "%41".
func TestDeleteLeavesOthersFiles(t *testing.T) {
	is := is.New(t)
	pairs := [][2]string{{"A", "%41"}, {".x", "%2ex"}, {"con", "%63on"}, {"%41", "%2541"}}
	for _, pair := range pairs {
		s, _, err := files{}.open(Options{})
		is.NoErr(err)
		for _, name := range pair {
			is.NoErr(put(s, name, newEvent(name, 0)))
		}
		is.NoErr(drop(s, pair[1]))
		events, err := read(s, pair[0], 0)
		is.NoErr(err)
		is.Equal(len(events), 1)
		is.NoErr(put(s, pair[0], newEvent(pair[0], 1)))

		// Nor is it taken where it has the older form.
		older := fmt.Sprintf(olderOne, pair[0])
		s, _, err = files{path(pair[0]): []byte(older)}.open(Options{})
		is.NoErr(err)
		is.NoErr(put(s, pair[1], newEvent(pair[1], 0)))
		is.NoErr(drop(s, pair[1]))
		events, err = read(s, pair[0], 0)
		is.NoErr(err)
		is.Equal(len(events), 1)
	}
}

// One file that must not be written is one stream that takes no appends.
func TestReadOnlyFile(t *testing.T) {
	is := is.New(t)
	h := opened(t, Options{})
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
	h := opened(t, Options{MaxOpen: 1})
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
	h := opened(t, Options{})
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

func TestLongestName(t *testing.T) {
	is := is.New(t)
	for _, name := range []string{
		strings.Repeat("a", 255), strings.Repeat("a", 220), strings.Repeat("a", 221),
		strings.Repeat("A", 255), strings.Repeat(`"`, 255),
		strings.Repeat("😀", 63), strings.Repeat(".", 255), "~" + strings.Repeat("0", 64),
	} {
		s, fs, err := files{}.open(Options{})
		is.NoErr(err)
		is.NoErr(put(s, name, newEvent(name, 0)))
		names, err := listed(s, "", "", 0)
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
		is.NoErr(drop(s, name))
		names, err = listed(s, "", "", 0)
		is.NoErr(err)
		is.Equal(len(names), 0)
	}
}

// The order is the offset's, and time does not go back, across starts too.
func TestClockJumpsBack(t *testing.T) {
	is := is.New(t)
	h := opened(t, Options{})
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
	is.True(errors.Is(put(s, "a", large(0, maxLine+1)), streamlib.ErrTooLarge))
	is.NoErr(put(s, "a", large(0, maxLine)))
	var events []streamlib.Event
	for o := range maxFrame/maxLine + 1 {
		events = append(events, large(1+o, maxLine))
	}
	is.True(errors.Is(put(s, "a", events...), streamlib.ErrTooLarge))
	fs.restart(kill)
	s, err = openStore(fs, Options{})
	is.NoErr(err)
	info, err := stat(s, "a")
	is.NoErr(err)
	is.Equal(int(info.Tail), 1)
}

// deletions are requests to delete the streams.
func deletions(streams ...*truth) (batch []*request, attempts []attempt) {
	for _, s := range streams {
		batch = append(batch, &request{kind: deletes, name: s.name})
		attempts = append(attempts, s.deletes())
	}
	return batch, attempts
}

// Streams that are deleted at once have one frame together, and a stream that is appended to meanwhile another.
func TestDeletionsTogether(t *testing.T) {
	is := is.New(t)
	h := opened(t, Options{})
	for _, s := range h.streams {
		is.NoErr(h.append(s, h.sends(1), nil))
	}
	batch, attempts := deletions(h.streams...)
	other := &request{kind: adds, name: "other", events: []streamlib.Event{newEvent("other", 0)}}
	syncs := 0
	h.watch = func(o op) outcome {
		if o.kind == "sync" && o.path == h.store.journal.path {
			syncs++
		}
		return outcome{}
	}
	h.store.commit(append(batch, other, &request{kind: deletes, name: "none"}))
	h.watch = nil
	is.NoErr(other.err)
	is.Equal(syncs, 2)
	for i, r := range batch {
		is.NoErr(r.err)
		is.NoErr(attempts[i].done("a deletion"))
	}
	is.Equal(h.store.deletions.Load(), int64(3))
	h.fs.restart(kill)
	is.NoErr(h.open())
	is.Equal(h.store.deletions.Load(), int64(3))
	again, _ := deletions(h.streams[0], h.streams[0])
	is.NoErr(put(h.store, "a", newEvent("a", 0)))
	h.store.commit(again)
	is.NoErr(again[0].err)
	is.NoErr(again[1].err)
	h.fs.restart(power)
	is.NoErr(h.open())
	is.True(h.store.deletions.Load() >= 4)
	names, err := listed(h.store, "", "", 0)
	is.NoErr(err)
	is.Equal(names, []string{"other"})
}

// One that cannot be removed is not deleted, and the others are. Where others were removed before it nobody knows, and
// the next start finds out.
func TestDeletionFailsAmongOthers(t *testing.T) {
	for fails := range 3 {
		is := is.New(t)
		h := opened(t, Options{})
		for _, s := range h.streams {
			is.NoErr(h.append(s, h.sends(1), nil))
		}
		batch, attempts := deletions(h.streams...)
		h.watch = func(o op) outcome {
			if o.kind == "remove" && o.path == path(h.streams[fails].name) {
				return outcome{err: syscall.EPERM}
			}
			return outcome{}
		}
		h.store.commit(batch)
		h.watch = nil
		h.manager = streamlib.NewManager(h.store, streamlib.Plain, streamlib.Options{Now: h.now})
		for i, r := range batch {
			switch {
			case fails > 0:
				is.True(r.err != nil && !promised(r.err))
			case i == fails:
				is.True(promised(r.err))
				is.NoErr(attempts[i].refused())
			default:
				is.NoErr(r.err)
				is.NoErr(attempts[i].done("a deletion"))
			}
		}
		is.NoErr(h.append(h.streams[0], h.sends(1), nil))
		is.Equal(errors.Is(h.last, streamlib.ErrUnavailable), fails > 0)
		is.NoErr(h.reopen(power))
	}
}

// A full disk has room for one deletion, and after it for the next.
func TestDeletionsTogetherOnFullDisk(t *testing.T) {
	is := is.New(t)
	h := opened(t, Options{})
	for i := range 60 {
		s := &truth{name: fmt.Sprint("s", i, strings.Repeat("x", 150)), states: []*state{{}}}
		h.streams = append(h.streams, s)
		is.NoErr(h.append(s, h.sends(1), nil))
	}
	for j := h.store.journal; j.allocated-j.end > reserve+1000; {
		is.NoErr(h.append(h.streams[0], h.sends(1), nil))
	}
	h.fs.limited, h.fs.room = true, 0
	batch, attempts := deletions(h.streams[3:]...)
	h.store.commit(batch)
	for i, r := range batch {
		is.NoErr(r.err)
		is.NoErr(attempts[i].done("a deletion"))
	}
	is.NoErr(h.reopen(power))
}
