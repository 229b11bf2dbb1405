package disk

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// scripted returns a history in which nothing is left to chance but what a crash keeps.
func scripted(t *testing.T, o Options) *history {
	trace := func(string, ...any) {}
	if *seedFlag != 0 {
		trace = t.Logf
	}
	h := &history{rng: rand.New(rand.NewPCG(1, 1)), trace: trace, fs: newCrashFS(rand.New(rand.NewPCG(1, 2))),
		options: o}
	for _, name := range []string{"a", "b", "Older"} {
		h.streams = append(h.streams, &truth{name: name, states: []*state{{}}})
	}
	h.fs.before = h.before
	return h
}

// opened is a scripted history whose store is open.
func opened(t *testing.T, o Options) *history {
	t.Helper()
	h := scripted(t, o)
	if err := h.open(); err != nil {
		t.Fatal(err)
	}
	return h
}

// once does something within the first operation of a kind on a path.
func (h *history) once(kind, path string, do func()) {
	h.watch = func(o op) outcome {
		if o.kind == kind && o.path == path {
			h.watch = nil
			do()
		}
		return outcome{}
	}
}

// open opens the store, which must succeed.
func (h *history) open() error {
	store, err := openStore(h.fs, h.options)
	h.store, h.manager = store, streamlib.NewManager(store, streamlib.Plain, streamlib.Options{Now: h.now})
	return err
}

// reopen crashes and opens, and looks at all there is.
func (h *history) reopen(kind crash) error {
	watch := h.watch
	h.watch = nil
	defer func() { h.watch = watch }()
	h.fs.restart(kind)
	if err := h.open(); err != nil {
		return err
	}
	return h.look()
}

// script is what the fault tests break: each way to write to the folder is in it.
func (h *history) script() error {
	a, b, older := h.streams[0], h.streams[1], h.streams[2]
	if err := h.open(); err != nil {
		return err
	}
	steps := []func() error{
		func() error { return h.append(a, h.sends(1), nil) },
		func() error { return h.append(b, h.sends(3), nil) },
		func() error { return h.append(older, h.sends(2), nil) },
		func() error { h.store.checkpoint(); return nil },
		func() error { return h.append(a, h.sends(2), nil) },
		func() error { return h.read(b) },
		func() error { return h.remove(b) },
		func() error { return h.append(b, h.sends(2), nil) },
		func() error { h.store.checkpoint(); return nil },
		func() error { return h.append(a, h.sends(3), nil) },
		func() error { return h.read(a) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
		if h.after != nil {
			if err := h.after(); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestFaults lets each operation of a script fail, in each way, and then the machine.
func TestFaults(t *testing.T) {
	smallJournals(t)
	runs := 0
	for _, o := range []Options{{}, {JournalSize: 1, MaxOpen: 1}} {
		for n := 1; ; n += stride(1, 11) {
			kind := ""
			for _, fault := range faultsOf("") {
				var err error
				kind, err = runFault(t, o, n, fault, kill)
				if err != nil {
					t.Fatalf("%+v, operation %d (%s) with %+v: %v", o, n, kind, fault, err)
				}
			}
			if kind == "" {
				break
			}
			for _, fault := range faultsOf(kind) {
				for _, end := range []crash{kill, cold, power} {
					runs++
					if _, err := runFault(t, o, n, fault, end); err != nil {
						t.Fatalf("%+v, operation %d (%s) with %+v, then a %v: %v", o, n, kind, fault, end, err)
					}
				}
			}
		}
	}
	t.Logf("%d runs", runs)
}

// stride is how many of something to go at a time: fewer are tried in short runs, and under the race detector, where
// all is slow.
func stride(all, short int) int {
	if testing.Short() || raceEnabled {
		return short
	}
	return all
}

// faultsOf are the ways in which an operation of a kind can fail; of no kind, one that shows what kind it is.
func faultsOf(kind string) []outcome {
	var errs []error
	effects := []effect{without, wholly}
	switch kind {
	case "":
		return []outcome{{}}
	case "write":
		errs = []error{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG}
		effects = []effect{without, partly, wholly}
	case "sync":
		errs, effects = []error{syscall.EIO, syscall.ENOSPC}, []effect{without, partly, wholly}
	case "syncDir":
		errs = []error{syscall.EIO}
	case "open", "create":
		errs = []error{syscall.EIO, syscall.EMFILE, syscall.EROFS, syscall.ENOSPC, syscall.EACCES}
	case "read", "size", "same", "names", "close":
		errs, effects = []error{syscall.EIO}, []effect{without}
	default:
		errs = []error{syscall.EIO, syscall.EROFS, syscall.ENOSPC}
	}
	var faults []outcome
	for _, err := range errs {
		for _, e := range effects {
			faults = append(faults, outcome{err: err, effect: e})
		}
	}
	return faults
}

// runFault runs the script with its n-th operation failing, and then a crash, and says what kind of operation that
// was.
func runFault(t *testing.T, o Options, n int, fault outcome, end crash) (kind string, err error) {
	h := scripted(t, o)
	h.plant(h.streams[2], 3)
	synced := true
	h.watch = func(o op) outcome {
		if o.n != n {
			return outcome{}
		}
		kind = o.kind
		h.trace("operation %d, %s %s: %+v", o.n, o.kind, o.path, fault)
		if fault.err != nil && o.kind == "sync" &&
			(strings.HasSuffix(o.path, journalSuffix) || strings.HasSuffix(o.path, suffix)) {
			synced = false
		}
		return fault
	}
	h.after = func() error {
		if synced {
			return nil
		}
		a := h.streams[0]
		if err := h.append(a, h.sends(1), nil); err != nil {
			return err
		} else if !errors.Is(h.last, streamlib.ErrUnavailable) {
			return fmt.Errorf("a sync failed, and an append is answered %v", h.last)
		}
		return nil
	}
	err = h.script()
	if h.store == nil || err != nil && kind != "" && h.fs.ops < n+20 && damaged(err) == nil && h.count == 0 {
		return kind, h.reopen(end) // it did not open
	}
	if err != nil {
		return kind, err
	}
	if synced && fault.err != nil { // then it goes on
		if err := h.append(h.streams[0], h.sends(2), nil); err != nil {
			return kind, err
		}
		if h.last != nil && !h.store.failed && h.store.broken == nil {
			return kind, fmt.Errorf("an append after the fault: %w", h.last)
		}
	}
	if err := h.reopen(end); err != nil {
		return kind, err
	}
	for _, s := range h.streams { // and the next start is as good as new
		if err := h.append(s, h.sends(2), nil); err != nil {
			return kind, err
		}
		if h.last != nil {
			return kind, fmt.Errorf("an append after the restart: %w", h.last)
		}
	}
	return kind, h.reopen(power)
}

// TestCrashAtEveryOperation crashes at each operation of a script, in each way, and again in each way at each
// operation of the start that follows.
func TestCrashAtEveryOperation(t *testing.T) {
	smallJournals(t)
	runs := 0
	for _, o := range []Options{{}, {JournalSize: 1, MaxOpen: 1}} {
		for n := 1; ; n++ {
			down := false
			for first := kill; first <= power; first++ {
				for again := 1 + n%3; ; again += stride(3, 37) {
					h := scripted(t, o)
					h.plant(h.streams[2], 3)
					at, e := n, effect(again%3)
					down = false
					h.watch = func(o op) outcome {
						if o.n == at {
							down = true
							return outcome{crash: true, effect: e}
						}
						return outcome{}
					}
					err := h.script()
					if err != nil && !h.fs.down {
						t.Fatal(err)
					}
					if !down {
						break
					}
					h.fs.restart(first)
					down, at = false, h.fs.ops+again
					err = h.open()
					if !down && err != nil {
						t.Fatalf("%+v, crash at %d, a %v: %v", o, n, first, err)
					}
					runs++
					if err := h.reopen(power); err != nil {
						t.Fatalf("%+v, crash at %d, a %v, again at %d of the start, a power cut: %v",
							o, n, first, again, err)
					}
					if !down {
						down = true
						break
					}
				}
			}
			if !down {
				break
			}
		}
	}
	t.Logf("%d runs", runs)
}

// crashAgain lets first end in a kill, and cuts the power at each operation of the start after it and of second. It
// does so with many outcomes.
func crashAgain(t *testing.T, o Options, first, second func(h *history) error) {
	t.Helper()
	smallJournals(t)
	for n := 1; ; n++ {
		down := false
		for seed := range uint64(stride(30, 5)) {
			h := scripted(t, o)
			h.fs.rng = rand.New(rand.NewPCG(seed, 2))
			if err := first(h); err != nil {
				t.Fatal(err)
			}
			h.fs.restart(kill)
			at := h.fs.ops + n
			h.watch = func(o op) outcome { return outcome{crash: o.n == at, effect: effect(seed % 3)} }
			err := h.open()
			if err == nil && second != nil {
				err = second(h)
			}
			if down = h.fs.down; err != nil && !down {
				t.Fatal(err)
			}
			h.watch = nil
			if err := h.reopen(power); err != nil {
				t.Fatalf("killed, then a power cut at operation %d (outcome %d): %v", n, seed, err)
			}
		}
		if !down {
			return
		}
	}
}

func TestKillDuringFirstStart(t *testing.T) {
	for n := range 12 {
		crashAgain(t, Options{}, func(h *history) error {
			h.watch = func(o op) outcome { return outcome{crash: o.n == n+1, effect: wholly} }
			_ = h.open()
			return nil
		}, func(h *history) error {
			if err := h.append(h.streams[0], h.sends(2), nil); err != nil || h.fs.down {
				return err
			}
			return h.last
		})
	}
}

// A frame that the page cache has and the disk does not is applied whole or not at all.
func TestKillBeforeSync(t *testing.T) {
	for _, failed := range []bool{false, true} {
		crashAgain(t, Options{}, func(h *history) error {
			if err := h.open(); err != nil {
				return err
			}
			if err := h.append(h.streams[0], h.sends(2), nil); err != nil {
				return err
			}
			h.watch = func(o op) outcome {
				if o.kind != "sync" {
					return outcome{}
				} else if failed { // what does not reach the disk is clean all the same
					return outcome{err: syscall.EIO}
				}
				return outcome{crash: true}
			}
			return h.append(h.streams[0], h.sends(4), nil)
		}, nil)
	}
}

// A journal whose removal was not durable does not come back when later ones have gone, nor beside a new one.
func TestKillBeforeJournalIsGone(t *testing.T) {
	for _, closed := range []bool{false, true} {
		crashAgain(t, Options{JournalSize: 1}, func(h *history) error {
			if err := h.open(); err != nil {
				return err
			}
			a, b := h.streams[0], h.streams[1]
			if err := errors.Join(h.append(a, h.sends(2), nil), h.append(b, h.sends(2), nil)); err != nil {
				return err
			}
			if !closed {
				if err := h.remove(a); err != nil {
					return err
				}
				h.at("remove", journalPath(1), wholly)
			} else {
				h.at("remove", journalPath(2), wholly)
			}
			for h.store.checkpoint() {
			}
			return nil
		}, func(h *history) error {
			return h.append(h.streams[1], h.sends(1), nil)
		})
	}
}

func TestReadsAndDeletesGoOnWhenTheDiskIsFull(t *testing.T) {
	is := is.New(t)
	smallJournals(t)
	h := opened(t, Options{})
	h.streams[1] = &truth{name: longName, states: []*state{{}}} // its deletion is longer than an append
	a, b := h.streams[0], h.streams[1]
	is.NoErr(h.append(a, h.sends(3), nil))
	is.NoErr(h.append(b, h.sends(3), nil))
	h.fs.limited, h.fs.room = true, 4*growth // then no byte more
	for h.last == nil {
		is.NoErr(h.append(a, h.sends(1), nil))
	}
	for range 100 {
		is.NoErr(h.append(a, sent{append: -h.count, data: []string{"1"}}, nil))
		is.True(h.last == nil || errors.Is(h.last, streamlib.ErrFull))
		h.count++
	}
	is.True(errors.Is(h.last, streamlib.ErrFull))
	is.NoErr(h.read(a))
	h.fs.room = 0
	is.NoErr(h.remove(b))
	is.NoErr(h.last)
	h.fs.room += 1 << 20
	is.NoErr(h.append(a, h.sends(4), nil))
	is.NoErr(h.last)
	is.NoErr(h.reopen(power))
}

// A frame that finds room for itself and not for what must stay behind it leaves no trace, wherever its place begins.
func TestFrameIsTakenBackFromBehindTheZeros(t *testing.T) {
	for _, end := range []int64{growth - int64(headerLen) - 50, growth - 1, growth} {
		for seed := range uint64(20) {
			is := is.New(t)
			c := newCrashFS(rand.New(rand.NewPCG(1, seed)))
			is.NoErr(c.mkdir(journalDir))
			is.NoErr(c.syncDir("."))
			f, err := c.open(journalPath(1), os.O_RDWR|os.O_CREATE)
			is.NoErr(err)
			is.NoErr(c.syncDir(journalDir))
			j := &journal{number: 1, path: journalPath(1), file: f}
			frame := appendLine(make([]byte, headerLen), []byte(`{"delete":"s"`))
			j.seal(frame)
			is.NoErr(j.write(frame, 0))
			is.NoErr(f.sync())
			is.Equal(j.allocated, growth)
			was := c.contents(journalPath(1))
			j.end = end
			c.limited, c.room = true, int64(len(frame))
			is.True(errors.Is(j.write(frame, reserve), syscall.ENOSPC))
			is.NoErr(j.undo())
			c.restart(power)
			is.True(bytes.Equal(c.contents(journalPath(1)), was))
		}
	}
}

// One stream's failure fails its appends and no other's, wherever the machine then ends.
func TestOneFailureIsOne(t *testing.T) {
	smallJournals(t)
	for _, c := range []struct {
		kind   string
		err    error
		effect effect
		made   bool // the stream is there before
	}{
		{"create", syscall.ENOSPC, without, false},
		{"create", syscall.EDQUOT, wholly, false},
		{"create", syscall.EACCES, without, false},
		{"create", syscall.EISDIR, without, false},
		{"write", syscall.EFBIG, without, true},
		{"write", syscall.EFBIG, partly, true},
		{"write", syscall.EIO, wholly, true},
		{"write", syscall.ENOSPC, partly, false},
		{"write", syscall.EDQUOT, partly, true},
	} {
		for n := 0; ; n++ { // where the machine ends, 0 is not before the commit is over
			down := n == 0
			for end := kill; end <= power; end++ {
				is := is.New(t)
				h := opened(t, Options{MaxOpen: 1})
				a, b, c3 := h.streams[0], h.streams[1], &truth{name: "c", states: []*state{{}}}
				h.streams = append(h.streams[:2], c3)
				is.NoErr(h.append(a, h.sends(2), nil))
				if c.made {
					is.NoErr(h.append(b, h.sends(2), nil))
				}
				is.NoErr(h.read(a)) // closes the other
				from := h.fs.ops
				h.watch = func(o op) outcome {
					if n > 0 && o.n == from+n {
						down = true
						return outcome{crash: true, effect: effect(n % 3)}
					}
					if o.kind == c.kind && o.path == path("b") {
						return outcome{err: c.err, effect: c.effect}
					}
					return outcome{}
				}
				is.NoErr(h.together(a, b, c3))
				if !h.fs.down {
					is.NoErr(h.outcomes[0])
					is.True(promised(h.outcomes[1]))
					is.True(strings.Contains(h.outcomes[1].Error(), path("b")))
					is.NoErr(h.outcomes[2])
				}
				is.NoErr(h.reopen(end))
			}
			if !down {
				break
			}
		}
	}
}

// While no file can be made, those that need one cost the others no frame.
func TestNoFrameForWhatCannotBeMade(t *testing.T) {
	is := is.New(t)
	h := opened(t, Options{})
	a, b := h.streams[0], h.streams[1]
	is.NoErr(h.append(a, h.sends(1), nil))
	fails, syncs := true, 0
	h.watch = func(o op) outcome {
		switch {
		case o.kind == "create" && fails:
			return outcome{err: syscall.ENOSPC}
		case o.kind == "sync":
			syncs++
		}
		return outcome{}
	}
	is.NoErr(h.together(a, b))
	syncs = 0
	is.NoErr(h.together(a, b))
	is.Equal(syncs, 1)
	fails = false
	is.NoErr(h.together(a, b))
	for i, err := range h.outcomes {
		is.Equal(errors.Is(err, streamlib.ErrFull), i == 1 || i == 3)
	}
	is.NoErr(h.reopen(power))
}

func TestReady(t *testing.T) {
	is := is.New(t)
	smallJournals(t)
	var failed []error
	h := opened(t, Options{Failed: func(err error) { failed = append(failed, err) }})
	a := h.streams[0]
	is.NoErr(h.store.Ready())
	is.NoErr(h.append(a, h.sends(1), nil))
	is.NoErr(h.store.Ready())
	h.fs.limited, h.fs.room = true, 0
	is.True(errors.Is(h.store.Ready(), streamlib.ErrFull))
	h.fs.room = 1 << 20
	is.NoErr(h.store.Ready())
	for kind, err := range map[string]error{"create": syscall.EROFS, "reachable": os.ErrNotExist} {
		h.watch = func(o op) outcome {
			if o.kind == kind {
				return outcome{err: err}
			}
			return outcome{}
		}
		is.True(errors.Is(h.store.Ready(), streamlib.ErrUnavailable))
		h.watch = nil
		is.NoErr(h.store.Ready())
	}
	is.Equal(len(failed), 0)
	h.watch = func(o op) outcome {
		if o.kind == "sync" {
			return outcome{err: syscall.EIO}
		}
		return outcome{}
	}
	is.NoErr(h.append(a, h.sends(1), nil))
	h.watch = nil
	for range 2 {
		is.True(errors.Is(h.store.Ready(), streamlib.ErrUnavailable))
	}
	is.Equal(len(failed), 1)
	is.NoErr(h.reopen(kill))
	is.NoErr(h.store.Ready())
	is.NoErr(h.store.Close())
	is.True(errors.Is(h.store.Ready(), streamlib.ErrUnavailable))
}

// Where the folder could not be made for good, a later try does not take it for done.
func TestFolderWhoseSyncFails(t *testing.T) {
	for nth := range 2 {
		is := is.New(t)
		h := scripted(t, Options{})
		h.watch = func(o op) outcome {
			if o.kind == "mkdir" {
				return outcome{err: syscall.EROFS}
			}
			return outcome{}
		}
		is.NoErr(h.open()) // it can be read
		h.watch = func(o op) outcome {
			if o.kind == "syncDir" && o.path == "." {
				if nth--; nth < 0 {
					return outcome{err: syscall.EIO}
				}
			}
			return outcome{}
		}
		is.NoErr(h.append(h.streams[0], h.sends(1), nil))
		h.watch = nil
		is.NoErr(h.append(h.streams[0], h.sends(1), nil))
		is.True(errors.Is(h.last, streamlib.ErrUnavailable))
		is.NoErr(h.reopen(power))
	}
}

// A new journal whose folder was synced in vain, since the sync for the removal of the one before it had failed,
// takes nothing.
func TestNewJournalBesideFailedRemoval(t *testing.T) {
	for seed := range uint64(20) {
		is := is.New(t)
		h := scripted(t, Options{JournalSize: 1})
		h.fs.rng = rand.New(rand.NewPCG(seed, 2))
		is.NoErr(h.open())
		is.NoErr(h.append(h.streams[0], h.sends(1), nil))
		is.NoErr(h.last)
		h.watch = func(o op) outcome {
			if o.kind == "write" && o.path == journalPath(2) {
				h.watch = func(o op) outcome {
					if o.kind == "syncDir" && o.path == journalDir {
						h.watch = nil
						return outcome{err: syscall.EIO}
					}
					return outcome{}
				}
				is.True(!h.store.checkpoint())
			}
			return outcome{}
		}
		is.NoErr(h.append(h.streams[1], h.sends(1), nil))
		is.True(errors.Is(h.last, streamlib.ErrUnavailable))
		is.NoErr(h.reopen(power))
	}
}
