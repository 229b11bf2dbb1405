package disk

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// Journals wait for their checkpoints for as long as it takes; they go in order.
func TestCheckpointsWait(t *testing.T) {
	is := is.New(t)
	h := opened(t, Options{JournalSize: 1, MaxOpen: 2})
	for range 5 {
		for _, s := range h.streams {
			is.NoErr(h.append(s, h.sends(1), nil))
		}
	}
	is.Equal(len(h.store.full), 15)
	for i := range 7 {
		is.True(h.store.checkpoint())
		is.True(h.fs.contents(journalPath(uint64(i+1))) == nil)
		is.True(h.fs.contents(journalPath(uint64(i+2))) != nil)
	}
	is.NoErr(h.reopen(power))
	is.Equal(len(h.store.full), 0)
}

// Files are synced by checkpoints alone, those too that were closed to make room since.
func TestClosedFilesAreSyncedByTheCheckpoint(t *testing.T) {
	is := is.New(t)
	h := opened(t, Options{MaxOpen: 1})
	ours := func(o op) bool { return strings.HasPrefix(o.path, streamsDir) || o.kind == "syncAll" }
	h.watch = func(o op) outcome {
		if strings.HasPrefix(o.kind, "sync") && ours(o) {
			t.Errorf("%s %s", o.kind, o.path)
		}
		return outcome{}
	}
	for range 3 {
		for _, s := range h.streams {
			is.NoErr(h.append(s, h.sends(1), nil))
			is.True(h.fs.handles <= 2) // with the journal
		}
	}
	h.watch = nil
	is.Equal(len(h.fs.loose()), len(h.streams))
	h.store.rotate()
	is.True(h.store.checkpoint())
	is.Equal(len(h.fs.loose()), 0)
	is.Equal(len(h.store.logs.unsynced), 0)
	is.NoErr(h.reopen(power))
}

// It is seen, too, where the file is closed while the checkpoint syncs those before it.
func TestFileIsLostDuringCheckpoint(t *testing.T) {
	if !syncAllTells {
		t.Skip("a sync of all files does not tell what was lost of one that was closed")
	}
	is := is.New(t)
	h := opened(t, Options{MaxOpen: 2})
	a, b, older := h.streams[0], h.streams[1], h.streams[2]
	is.NoErr(h.append(older, h.sends(1), nil))
	is.NoErr(h.append(b, h.sends(1), nil))
	is.NoErr(h.append(a, h.sends(1), nil))
	h.store.rotate()
	h.watch = func(o op) outcome {
		switch {
		case o.kind == "sync" && o.path == path("a"):
			is.NoErr(h.read(older)) // which closes b
		case o.kind == "close" && o.path == path("b"):
			h.watch = nil
			return outcome{err: syscall.EIO}
		}
		return outcome{}
	}
	is.True(!h.store.checkpoint())
	is.True(h.watch == nil)
	is.NoErr(h.reopen(cold))
}

// While a file is synced for an append that is taken back, the checkpointer waits for it.
func TestCheckpointerWaitsForSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		h := opened(t, Options{JournalSize: 1})
		is.NoErr(h.append(h.streams[0], h.sends(1), nil))
		tries := 0
		h.watch = func(o op) outcome {
			if o.kind == "syncDir" && o.path == streamsDir {
				if tries++; tries > 10 {
					return outcome{crash: true}
				}
			}
			return outcome{}
		}
		release := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() { is.NoErr(h.store.sync("a file", func() error { <-release; return nil })) })
		synctest.Wait()
		all.Go(h.store.checkpoints)
		synctest.Wait()
		is.True(tries <= 1)
		is.Equal(len(h.store.full), 1)
		close(release)
		synctest.Wait()
		is.Equal(len(h.store.full), 0)
		h.store.finish()
		all.Wait()
	})
}

// What was lost of a file after it was closed is seen before its journal goes.
func TestClosedFileIsLost(t *testing.T) {
	if !syncAllTells {
		t.Skip("a sync of all files does not tell what was lost of one that was closed")
	}
	for _, reached := range []effect{without, partly, wholly} {
		is := is.New(t)
		h := opened(t, Options{MaxOpen: 1})
		is.NoErr(h.append(h.streams[0], h.sends(3), nil))
		h.watch = func(o op) outcome {
			if o.kind == "close" && o.path == path("a") {
				return outcome{err: syscall.EIO, effect: reached}
			}
			return outcome{}
		}
		is.NoErr(h.append(h.streams[1], h.sends(1), nil))
		is.NoErr(h.last) // it is in the journal
		h.watch = nil
		h.store.rotate()
		is.True(!h.store.checkpoint())
		is.NoErr(h.append(h.streams[1], h.sends(1), nil))
		is.True(errors.Is(h.last, streamlib.ErrUnavailable))
		is.NoErr(h.reopen(cold))
	}
}

// A checkpoint that syncs a file just before an append writes to it has not synced that.
func TestCheckpointDuringApply(t *testing.T) {
	is := is.New(t)
	h := opened(t, Options{JournalSize: 1})
	a := h.streams[0]
	is.NoErr(h.append(a, h.sends(1), nil))
	is.NoErr(h.append(a, h.sends(1), nil))
	h.once("write", path("a"), func() { is.True(h.store.checkpoint()) })
	is.NoErr(h.append(a, h.sends(1), nil))
	for h.store.checkpoint() {
	}
	is.Equal(h.fs.loose(), nil)
	is.NoErr(h.reopen(power))
}

// A stream that is made again while an old journal that names it is checkpointed has no file yet.
func TestCheckpointDuringCreate(t *testing.T) {
	is := is.New(t)
	h := opened(t, Options{JournalSize: 1})
	a := h.streams[0]
	is.NoErr(h.append(a, h.sends(1), nil))
	is.NoErr(h.remove(a))
	h.once("create", path("a"), func() { is.True(h.store.checkpoint()) })
	is.NoErr(h.append(a, h.sends(1), nil))
	is.NoErr(h.reopen(power))
}

func TestDeleteWhileClosedFileIsSynced(t *testing.T) {
	for _, kind := range []string{"open", "sync", "close"} {
		is := is.New(t)
		h := opened(t, Options{MaxOpen: 1})
		a, b := h.streams[0], h.streams[1]
		is.NoErr(h.append(a, h.sends(1), nil))
		is.NoErr(h.append(b, h.sends(1), nil)) // which closes the other
		h.store.rotate()
		deleted := false
		h.watch = func(o op) outcome {
			if o.kind == kind && o.path == path("a") {
				h.watch = nil
				is.NoErr(h.remove(a))
				is.NoErr(h.append(a, h.sends(2), nil))
				deleted = true
			}
			return outcome{}
		}
		is.True(h.store.checkpoint())
		is.True(deleted)
		is.NoErr(h.store.Close())
		is.Equal(h.fs.handles, 0)
		is.NoErr(h.reopen(power))
	}
}

// Too few descriptors are no reason to fail: a checkpoint closes a file for the one that it needs, and where there is
// none to close it has the word of the whole file system.
func TestCheckpointWithoutDescriptors(t *testing.T) {
	if !syncAllTells {
		t.Skip("a sync of all files does not tell what was lost of one that was closed")
	}
	is := is.New(t)
	h := opened(t, Options{JournalSize: 1, MaxOpen: 1})
	for range 3 {
		for _, s := range h.streams {
			is.NoErr(h.append(s, h.sends(1), nil))
		}
	}
	h.watch = func(o op) outcome {
		if (o.kind == "open" || o.kind == "create") && h.fs.handles >= len(h.store.full)+1 {
			return outcome{err: syscall.EMFILE}
		}
		return outcome{}
	}
	for range 9 {
		is.True(h.store.checkpoint())
	}
	is.Equal(len(h.fs.loose()), 0)
	h.watch = nil
	is.NoErr(h.reopen(power))
}

// lines counts a log's records.
type lines struct{ n int }

func (l *lines) Write(b []byte) (int, error) { l.n++; return len(b), nil }

func TestJournalOfManyStreams(t *testing.T) {
	is := is.New(t)
	const streams = 20_000
	count := &lines{}
	o := Options{MaxOpen: 64, MaxNames: streams + 1, NoSync: true,
		Log: slog.New(slog.NewTextHandler(count, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	h := opened(t, o)
	for i := range streams {
		name := fmt.Sprint("s", i)
		is.NoErr(put(h.store, name, newEvent(name, 0)))
		is.True(h.fs.handles <= o.MaxOpen+4)
	}
	h.fs.restart(kill)
	count.n = 0
	s, err := openStore(h.fs, o)
	is.NoErr(err)
	is.Equal(h.fs.handles, 0)
	is.True(count.n < 10) // it is told, and not once a stream
	names, err := listed(s, "", "", 0)
	is.NoErr(err)
	is.Equal(len(names), streams)
	for i := range streams {
		is.NoErr(put(s, fmt.Sprint("s", i), newEvent(fmt.Sprint("s", i), 1)))
	}
	count.n = 0
	is.NoErr(s.Close())
	is.True(count.n < 10)
	is.Equal(h.fs.handles, 0)
}

// Readers that are stuck on other streams do not make appends open their files again and again.
func TestStuckReadersLeaveRoom(t *testing.T) {
	is := is.New(t)
	h := opened(t, Options{MaxOpen: 4})
	a, b := h.streams[0], h.streams[1]
	for i := range 8 {
		name := fmt.Sprint("other", i)
		is.NoErr(put(h.store, name, newEvent(name, 0)))
		next, stop := iter.Pull2(h.store.Read(context.Background(), name, 0, 1))
		_, err, ok := next()
		is.True(ok && err == nil)
		defer stop()
	}
	opened := 0
	h.watch = func(o op) outcome {
		if o.kind == "open" {
			opened++
		}
		return outcome{}
	}
	for range 5 {
		is.NoErr(h.append(a, h.sends(1), nil))
		is.NoErr(h.append(b, h.sends(1), nil))
	}
	is.True(opened <= 4) // looking for the new ones' file, and for one under the raw name
}

// The files of many streams are synced together. What is written meanwhile is not taken for synced, and where that
// fails the journal stays.
func TestCheckpointOfManyStreams(t *testing.T) {
	smallJournals(t)
	for _, fault := range []outcome{{}, {err: syscall.EIO}, {err: syscall.EIO, effect: partly}} {
		is := is.New(t)
		h := opened(t, Options{MaxOpen: 2})
		for range 2 {
			for _, s := range h.streams {
				is.NoErr(h.append(s, h.sends(1), nil))
			}
		}
		h.store.rotate()
		synced := 0
		h.watch = func(o op) outcome {
			switch {
			case o.kind == "sync" && strings.HasSuffix(o.path, suffix):
				t.Errorf("%s was synced by itself", o.path)
			case o.kind == "syncAll":
				synced++
				h.watch = nil
				if fault.err != nil {
					return fault
				}
				is.NoErr(h.append(h.streams[2], h.sends(1), nil)) // whose file is open
			}
			return outcome{}
		}
		is.Equal(h.store.checkpoint(), fault.err == nil)
		is.Equal(synced, 1)
		h.watch = nil
		if fault.err == nil {
			h.store.rotate()
			h.once("sync", path("Older"), func() { synced++ }) // the one stream of the next journal
			is.True(h.store.checkpoint())
			is.Equal(synced, 2)
			is.Equal(len(h.fs.loose()), 0)
		} else {
			is.NoErr(h.append(h.streams[1], h.sends(1), nil))
			is.True(errors.Is(h.last, streamlib.ErrUnavailable))
		}
		is.NoErr(h.reopen(power))
	}
}
