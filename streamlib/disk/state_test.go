package disk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// stated is a closed folder with a stream that keeps the last three of its five events and is closed, one that is
// closed and empty, and one that has no state.
func stated(t *testing.T) files {
	is := is.New(t)
	s, fs, err := files{}.open(Options{})
	is.NoErr(err)
	m := streamlib.NewManager(s, streamlib.Plain, streamlib.Options{})
	for _, name := range []string{"s", "plain"} {
		for range 5 {
			_, err = m.Stream(name).Append(t.Context(), streamlib.Batch{Data: raw(`1`)})
			is.NoErr(err)
		}
	}
	is.NoErr(m.Stream("s").Trim(t.Context(), 2))
	for _, name := range []string{"s", "empty"} {
		_, err = m.Stream(name).Append(t.Context(), streamlib.Batch{Close: true})
		is.NoErr(err)
	}
	is.NoErr(s.Close())
	return fs.files()
}

// TestStateDamage: a stream whose state is damaged, or whose file is not the one that the state is of, is told as damaged
// wherever it is met, reads what there is, takes no appends, and is mended by repair.
func TestStateDamage(t *testing.T) {
	whole := stated(t)
	lines := bytes.SplitAfter(whole[path("s")], []byte("\n"))
	for name, test := range map[string]struct {
		damaged files
		stream  string
		reads   int
		first   streamlib.Offset // after repair
		tail    streamlib.Offset
		closed  bool
	}{
		"a state whose checksum is wrong": {whole.with(statePath("s"), []byte(strings.Replace(
			string(whole[statePath("s")]), "2", "1", 1))), "s", 5, 0, 5, false},
		"an empty state":             {whole.with(statePath("s"), nil), "s", 5, 0, 5, false},
		"a beginning that is lost":   {whole.with(path("s"), bytes.Join(lines[3:], nil)), "s", 2, 3, 5, true},
		"an end that is lost":        {whole.with(path("s"), lines[0]), "s", 0, 1, 1, true},
		"a file that is gone":        {whole.without(path("s")), "s", 0, 0, 0, false},
		"an empty file that is gone": {whole.without(path("empty")), "empty", 0, 0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			s, fs, err := test.damaged.open(Options{})
			is.NoErr(err)
			events, _ := read(s, test.stream, streamlib.Beginning)
			is.Equal(len(events), test.reads)
			is.Equal(len(s.Damaged()), 1)
			is.Equal(s.Damaged()[0].Name, test.stream)
			err = s.Commit(t.Context(), test.stream, streamlib.Change{State: &streamlib.State{First: 4}})
			is.True(errors.Is(err, streamlib.ErrUnavailable))
			is.NoErr(s.Close())

			dir := test.damaged.put(t)
			sum, err := Verify(dir, nil)
			is.NoErr(err)
			is.Equal(len(sum.Damage), 1)
			for _, f := range []files{test.damaged, fs.files(), get(t, dir)} { // whoever met it first
				dir := f.put(t)
				is.NoErr(Repair(dir, nil, false, func(string) {}, nil))
				sum, err := Verify(dir, nil)
				is.NoErr(err)
				is.Equal(len(sum.Damage), 0)
				s := openFolder(t, dir, Options{})
				info, err := stat(s, test.stream)
				is.NoErr(err)
				is.Equal(info.First, test.first)
				is.Equal(info.Tail, test.tail)
				is.Equal(info.Closed, test.closed)
				is.Equal(len(s.Damaged()), 0)
				is.NoErr(s.Commit(t.Context(), "plain", streamlib.Change{State: &streamlib.State{First: 3}}))
				is.NoErr(s.Close())
			}
		})
	}
}

func (f files) without(path string) files {
	f = f.with(path, nil)
	delete(f, path)
	return f
}

// TestLifeIsNoData: what stands behind an event in its line is not to be made by who appends it.
func TestLifeIsNoData(t *testing.T) {
	is := is.New(t)
	forged := `,"life":"0000000000000007"`
	for _, key := range []string{"", "k", forged, `\` + forged, forged[:len(forged)-1]} {
		s, fs, err := files{}.open(Options{})
		is.NoErr(err)
		m := streamlib.NewManager(s, streamlib.Plain, streamlib.Options{})
		data := raw(`"` + strings.ReplaceAll(forged, `"`, `\"`) + `"`)
		_, err = m.Stream("s").Append(t.Context(), streamlib.Batch{Data: data, Key: key})
		is.NoErr(err)
		is.NoErr(s.Close())
		s, _, err = fs.files().open(Options{})
		is.NoErr(err)
		info, err := stat(s, "s")
		is.NoErr(err)
		is.Equal(info.Life, int64(0))
		events, err := read(s, "s", 0)
		is.NoErr(err)
		is.Equal(events[0].Key(), key)
	}
}

// TestDeletionsCount: one torn line leaves the other, and where none is left lives are told apart still.
func TestDeletionsCount(t *testing.T) {
	is := is.New(t)
	s, fs, err := files{}.open(Options{})
	is.NoErr(err)
	m := streamlib.NewManager(s, streamlib.Plain, streamlib.Options{})
	append := func() int64 {
		r, err := m.Stream("s").Append(t.Context(), streamlib.Batch{Data: raw("1")})
		is.NoErr(err)
		return r.Life
	}
	for life := range int64(4) {
		is.Equal(append(), life)
		is.NoErr(m.Stream("s").Delete(t.Context()))
	}
	is.NoErr(s.Close())
	closed := fs.files()
	for torn := range 3 {
		b := slices.Clone(closed[deletionsFile])
		if torn > 0 {
			b[deletionsLen/2] ^= 1
		}
		if torn > 1 {
			b[3*deletionsLen/2] ^= 1
		}
		s, _, err := closed.with(deletionsFile, b).open(Options{})
		is.NoErr(err)
		m = streamlib.NewManager(s, streamlib.Plain, streamlib.Options{})
		life := append()
		is.True(life >= 3)
		is.True(torn > 0 || life == 4)
	}
}

// TestLivesFromElsewhere: the next life is behind all that came with a state, also after a crash that only the journal
// TestCountBehindAKill ends a process between the writing of the count and its sync: the start after that lets no
// journal go which alone has it for good.
func TestCountBehindAKill(t *testing.T) {
	for seed := range uint64(20) { // what a power cut keeps is left to chance
		is := is.New(t)
		h := opened(t, Options{JournalSize: 1})
		h.fs.rng = rand.New(rand.NewPCG(seed, 2))
		a := h.streams[0]
		is.NoErr(h.append(a, h.sends(1), nil))
		is.NoErr(h.remove(a))
		h.watch = func(o op) outcome { return outcome{crash: o.kind == "sync" && o.path == deletionsFile} }
		h.store.checkpoint()
		h.watch = nil
		h.fs.restart(kill)
		is.Equal(deletionsOf(h.fs), int64(1))
		is.NoErr(h.reopen(kill))
		is.NoErr(h.reopen(power))
		is.Equal(h.store.deletions.Load(), int64(1))
	}
}

// TestStateFolderLost: a power cut kept the format that came with the first state, and not the folder for it.
func TestStateFolderLost(t *testing.T) {
	for seed := range uint64(20) {
		is := is.New(t)
		s, fs, err := files{formatFile: []byte(format2)}.open(Options{JournalSize: 1})
		is.NoErr(err)
		stream := func() streamlib.Stream {
			return streamlib.NewManager(s, streamlib.Plain, streamlib.Options{}).Stream("s")
		}
		_, err = stream().Append(t.Context(), streamlib.Batch{Data: raw("1"), Close: true})
		is.NoErr(err)
		fs.before = func(o op) outcome { return outcome{crash: o.kind == "remove" && o.path == journalPath(1)} }
		s.checkpoint()
		fs.before = nil
		fs.rng = rand.New(rand.NewPCG(seed, 1))
		fs.restart(kill)
		s, err = openStore(fs, Options{JournalSize: 1}) // which removes the journal
		is.NoErr(err)
		is.Equal(len(fs.contents(journalPath(1))), 0)
		fs.restart(power)
		s, err = openStore(fs, Options{})
		is.NoErr(err)
		info, err := stream().Stat(t.Context())
		is.NoErr(err)
		is.True(info.Closed)
	}
}

// TestDeletionWithStateOnFullDisk: no journal can be made, and so none says that the stream is deleted. Whatever ends
// the process, there is all of the stream or nothing.
func TestDeletionWithStateOnFullDisk(t *testing.T) {
	for n, done := 1, false; !done; n++ {
		for _, e := range []effect{without, wholly} {
			for _, kind := range []crash{kill, power} {
				is := is.New(t)
				h := opened(t, Options{JournalSize: 1})
				a := h.streams[0]
				is.NoErr(h.append(a, h.sends(3), nil))
				is.NoErr(h.noted(a))
				for h.store.checkpoint() {
				}
				is.True(h.store.noJournals())
				h.fs.limited, h.fs.room = true, 0
				ops := 0
				h.watch = func(op) outcome {
					ops++
					return outcome{crash: ops == n, effect: e}
				}
				err := h.remove(a)
				h.watch = nil
				h.fs.limited = false
				if done = ops < n; done {
					is.NoErr(err)
				}
				is.NoErr(h.reopen(kind))
			}
		}
	}
}

// deletionsOf is the count that a process would read.
func deletionsOf(fs *crashFS) int64 {
	n, _ := (&Store{fs: fs}).readDeletions()
	return n
}

// survived.
func TestLivesFromElsewhere(t *testing.T) {
	for name, events := range map[string][]streamlib.Event{"beside event 0": {eventOf("s", 0, raw("1")[0])}, "alone": nil} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			s, fs, err := files{}.open(Options{})
			is.NoErr(err)
			state := streamlib.State{Life: 7}
			is.NoErr(s.Commit(t.Context(), "s", streamlib.Change{State: &state, Events: events}))
			for range 2 {
				s, fs, err = fs.files().open(Options{}) // without an end of the former
				is.NoErr(err)
				info, err := stat(s, "another")
				is.NoErr(err)
				is.Equal(info.Life, int64(7))
			}
			is.NoErr(drop(s, "s"))
			info, err := stat(s, "s")
			is.NoErr(err)
			is.Equal(info.Life, int64(8))
		})
	}
}
