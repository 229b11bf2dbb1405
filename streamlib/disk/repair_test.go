package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// repairOn is Repair on any file system.
func repairOn(fs fsys, salvage bool) (said []string, err error) {
	s := newStore(fs, Options{})
	s.tell = func(sentence string) { said = append(said, sentence) }
	if err = errors.Join(s.checkFormat(), s.loadMarks()); err == nil {
		if err = s.recover(true); err == nil {
			err = s.repairAll(nil, salvage)
		}
	}
	return said, err
}

// five is a closed folder with five events in s and one in t.
func five(t *testing.T) (files, map[string][]streamlib.Event) {
	return write(t, Options{}, true, true, func(add func(string, int)) { add("s", 5); add("t", 1) })
}

// inLine changes a byte of the file's n-th line.
func inLine(file []byte, n int) []byte {
	l := bytes.SplitAfter(file, []byte("\n"))
	l[n] = bytes.Replace(l[n], []byte(`"n":`), []byte(`"N":`), 1)
	return bytes.Join(l, nil)
}

// A read in the middle that meets damage ends all appending to that stream, also after the next start, until it is
// repaired.
func TestDamageIsRemembered(t *testing.T) {
	is := is.New(t)
	f, truth := five(t)
	s, fs, err := f.with(path("s"), inLine(f[path("s")], 1)).open(Options{})
	is.NoErr(err)
	info, err := stat(s, "s")
	is.NoErr(err)
	is.Equal(info.Damage, nil) // nobody knows yet
	is.Equal(len(s.Damaged()), 0)
	_, err = read(s, "s", 0)
	is.True(corrupt(err))
	for i, kind := range []crash{kill, power, cold} {
		is.True(errors.Is(put(s, "s", newEvent("s", 5)), streamlib.ErrUnavailable))
		is.NoErr(put(s, "t", newEvent("t", 1+i)))
		info, err = stat(s, "s")
		is.NoErr(err)
		is.Equal(int(info.Tail), 5)
		is.Equal(info.Damage.File, path("s"))
		is.Equal(int(info.Damage.Offset), bytes.IndexByte(f[path("s")], '\n')+1)
		is.Equal(s.Damaged(), []streamlib.Info{{Name: "s", Damage: info.Damage}})
		fs.restart(kind)
		s, err = openStore(fs, Options{})
		is.NoErr(err)
	}
	names, err := listed(s, "", "", 0)
	is.NoErr(err)
	is.Equal(names, []string{"s", "t"})
	fs.restart(kill)
	_, err = repairOn(fs, false)
	is.NoErr(err)
	fs.restart(power)
	s, err = openStore(fs, Options{})
	is.NoErr(err)
	is.Equal(len(s.Damaged()), 0)
	events, err := read(s, "s", 0)
	is.NoErr(err)
	is.True(len(events) == 1 && prefix(events, truth["s"]))
	is.NoErr(put(s, "s", newEvent("s", 1)))
}

// Whatever is left of a mark is one.
func TestMarkThatCannotBeRead(t *testing.T) {
	is := is.New(t)
	f, _ := five(t)
	s, fs, err := f.with(damagedDir+"/s.json", nil).open(Options{})
	is.NoErr(err)
	is.True(errors.Is(put(s, "s", newEvent("s", 5)), streamlib.ErrUnavailable))
	is.NoErr(put(s, "t", newEvent("t", 1)))
	fs.restart(kill)
	said, err := repairOn(fs, false)
	is.NoErr(err)
	is.Equal(said[len(said)-1], `stream "s" takes appends again: all that is in its file is whole`)
}

func TestDeletionEndsDamage(t *testing.T) {
	is := is.New(t)
	f, _ := five(t)
	s, fs, err := f.with(path("s"), inLine(f[path("s")], 1)).open(Options{})
	is.NoErr(err)
	for batch, err := range s.Read(context.Background(), "s", 0, 5) { // who reads on has the former life
		if len(batch) > 0 {
			is.NoErr(drop(s, "s"))
			is.NoErr(put(s, "s", newEvent("s", 0)))
			continue
		}
		is.True(corrupt(err))
	}
	is.Equal(len(s.Damaged()), 0)
	_, err = read(s, "s", 0)
	is.NoErr(err)
	for _, kind := range []crash{power, kill} {
		fs.restart(kind)
		s, err = openStore(fs, Options{})
		is.NoErr(err)
		is.Equal(len(s.Damaged()), 0)
		events, err := read(s, "s", 0)
		is.NoErr(err)
		is.Equal(len(events), 1)
	}
	// One that is known, and is deleted in a journal that has to be replayed.
	s, fs, err = f.with(path("s"), inLine(f[path("s")], 1)).open(Options{})
	is.NoErr(err)
	_, err = read(s, "s", 0)
	is.True(corrupt(err))
	is.NoErr(drop(s, "s"))
	fs.restart(power)
	s, err = openStore(fs, Options{})
	is.NoErr(err)
	is.Equal(len(s.Damaged()), 0)
	is.NoErr(put(s, "s", newEvent("s", 0)))
}

// On a full or read-only disk the damage is known for as long as the process lives, and written down when it is met
// again.
func TestMarkThatCannotBeWritten(t *testing.T) {
	is := is.New(t)
	f, _ := five(t)
	for _, failure := range []error{syscall.ENOSPC, syscall.EROFS, syscall.EIO} {
		s, fs, err := f.with(path("s"), inLine(f[path("s")], 1)).open(Options{})
		is.NoErr(err)
		fs.before = func(o op) outcome {
			if o.writes() {
				return outcome{err: failure, effect: without}
			}
			return outcome{}
		}
		_, err = read(s, "s", 0)
		is.True(corrupt(err))
		fs.before = nil
		is.NoErr(put(s, "t", newEvent("t", 1)))
		is.True(errors.Is(put(s, "s", newEvent("s", 5)), streamlib.ErrUnavailable))
		_, err = read(s, "s", 0)
		is.True(corrupt(err))
		fs.restart(power)
		s, err = openStore(fs, Options{})
		is.NoErr(err)
		is.True(errors.Is(put(s, "s", newEvent("s", 5)), streamlib.ErrUnavailable))
	}
}

// That the disk does not give a part now says nothing of what it has.
func TestFailedReadIsNoDamage(t *testing.T) {
	is := is.New(t)
	f, _ := five(t)
	s, fs, err := f.open(Options{})
	is.NoErr(err)
	_, err = stat(s, "s")
	is.NoErr(err)
	fs.before = func(o op) outcome { return outcome{err: map[bool]error{true: syscall.EIO}[o.kind == "read"]} }
	_, err = read(s, "s", 0)
	is.True(errors.Is(err, syscall.EIO) && !corrupt(err))
	fs.before = nil
	is.NoErr(put(s, "s", newEvent("s", 5)))
	is.Equal(len(s.Damaged()), 0)
}

// Two repairs that cut at the same byte keep both files as they were, and one that is repeated keeps one copy.
func TestCopiesAreNotOverwritten(t *testing.T) {
	is := is.New(t)
	f, _ := five(t)
	first := inLine(f[path("s")], 1)
	_, fs, err := f.with(path("s"), first).open(Options{})
	is.NoErr(err)
	_, err = repairOn(fs, true)
	is.NoErr(err)
	s, err := openStore(fs, Options{})
	is.NoErr(err)
	is.NoErr(put(s, "s", newEvent("s", 1), newEvent("s", 2)))
	is.NoErr(s.Close())
	second := fs.files()[path("s")]
	second = bytes.Replace(second, []byte(`"data":1`), []byte(`"data":7`), 1)
	fs.plant(path("s"), second)
	_, err = repairOn(fs, true)
	is.NoErr(err)
	at := bytes.IndexByte(f[path("s")], '\n') + 1
	got := fs.files()
	is.Equal(got[fmt.Sprintf("streams/s.damaged-%d", at)], first)
	is.Equal(got[fmt.Sprintf("streams/s.damaged-%d.2", at)], second)
	is.Equal(bytes.Count(got["streams/s.salvaged-2"], []byte("\n")), 3) // of the five, the first two are gone
	is.Equal(bytes.Count(got["streams/s.salvaged-2.2"], []byte("\n")), 1)
	fs.plant(path("s"), second) // as a crash before it was cut leaves it
	_, err = repairOn(fs, false)
	is.NoErr(err)
	for p, b := range got {
		is.Equal(fs.contents(p), b)
	}
	is.True(fs.contents(fmt.Sprintf("streams/s.damaged-%d.3", at)) == nil)
}

// What recovery sets aside and cuts off does not take the place of what it did before.
func TestCopiesOfRecoveryAreNotOverwritten(t *testing.T) {
	is := is.New(t)
	smallJournals(t)
	f, _ := write(t, Options{}, true, true, func(add func(string, int)) { add("a", 2) })
	s, fs, err := f.open(Options{})
	is.NoErr(err)
	is.NoErr(put(s, "a", newEvent("a", 2)))
	f = fs.files()
	end := len(bytes.TrimRight(f[journalPath(1)], "\x00"))
	f[journalPath(1)] = append(f[journalPath(1)][:end], "a frame that was not finished"...)
	f["streams/a.unreplayed-2"] = []byte("older\n")
	f[fmt.Sprintf("%s.torn-%d", journalPath(1), end)] = []byte("older\n")
	f["streams/a.torn-100"] = []byte("older\n")
	f[path("a")] = f[path("a")][:100] // the prefix is damaged
	_, fs, err = f.open(Options{})
	is.NoErr(err)
	got := fs.files()
	for p, b := range f {
		if bytes.Equal(b, []byte("older\n")) {
			is.Equal(got[p], b)
		}
	}
	is.True(bytes.Contains(got["streams/a.unreplayed-2.2"], []byte(`"data":2`)))
	is.Equal(string(got[fmt.Sprintf("%s.torn-%d.2", journalPath(1), end)]), "a frame that was not finished")
}

// lives is a folder as a kill leaves it: s has a life of three events, is deleted, and has another of two.
func lives(t *testing.T, before, after int) (files, []streamlib.Event) {
	is := is.New(t)
	h := opened(t, Options{})
	s := &truth{name: "s", states: []*state{{}}}
	for i, n := range []int{before, after} {
		if i == 1 {
			is.NoErr(h.append(h.streams[1], h.sends(1), nil))
			is.NoErr(h.remove(s))
		}
		if n > 0 {
			is.NoErr(h.append(s, h.sends(n), nil))
		}
	}
	events, err := readAll(h.manager.Stream("s"))
	is.NoErr(err)
	return h.fs.files(), events
}

// frames are where the journal's frames begin.
func framesOf(journal []byte) (at []int) {
	for i := 0; ; i++ {
		k := bytes.Index(journal[i:], []byte(frameHead))
		if k < 0 {
			return at
		}
		i += k
		at = append(at, i)
	}
}

// somewhere tells whether a file that is not the journal has the event, whole.
func somewhere(f files, e streamlib.Event) bool {
	for p, b := range f {
		if strings.HasPrefix(p, streamsDir) && bytes.Contains(b, e.Record()) {
			return true
		}
	}
	return false
}

// Whatever byte of the journal is damaged, an acknowledged event that is whole in its stream's file stays in the
// stream, or is set aside beside it, and that is told.
func TestLinesThatTheJournalLost(t *testing.T) {
	is := is.New(t)
	smallJournals(t)
	for _, before := range []int{0, 3} {
		f, want := lives(t, before, 2)
		journal := f[journalPath(1)]
		frames := framesOf(journal)
		end := len(bytes.TrimRight(journal, "\x00"))
		for _, repaired := range []bool{false, true} {
			for _, from := range append(frames, end) {
				for _, many := range []bool{false, true} { // one byte, or all from there on
					b := bytes.Clone(journal)
					switch {
					case many:
						clear(b[from:])
					case from == end:
						continue
					default:
						b[from+headerLen+20] ^= 1
					}
					what := fmt.Sprintf("before %d, repaired %v, from %d of %v, all %v",
						before, repaired, from, frames, many)
					_, fs, err := f.with(journalPath(1), b).open(Options{})
					if repaired {
						if _, fs, err = f.with(journalPath(1), b).open(Options{}); err != nil {
							fs = newCrashFS(rand.New(rand.NewPCG(1, 1)))
							for p, b := range f.with(journalPath(1), b) {
								fs.plant(p, b)
							}
						}
						_, err = repairOn(fs, false)
						is.NoErr(err)
					} else if corrupt(err) {
						continue // it does not start: nothing has changed
					}
					is.NoErr(err)
					s, err := openStore(fs, Options{})
					is.NoErr(err)
					events, _ := read(s, "s", 0)
					for _, e := range want {
						if !somewhere(fs.files(), e) {
							t.Fatalf("%s: %s is nowhere", what, e)
						}
					}
					if whole := prefix(events, want) && len(events) == len(want); !whole && !repaired &&
						len(s.Damaged()) == 0 {
						t.Fatalf("%s: the stream is%s, and nobody says why", what, brief(events))
					}
				}
			}
		}
	}
}

// The only frame that names a stream is damaged after a kill, and looks like one that was not finished: what the
// stream's file has is served by the next start, and durable then.
func TestLinesThatTheJournalLostAreDurable(t *testing.T) {
	is := is.New(t)
	smallJournals(t)
	for seed := range uint64(20) {
		fs := newCrashFS(rand.New(rand.NewPCG(seed, 1)))
		s, err := openStore(fs, Options{})
		is.NoErr(err)
		is.NoErr(put(s, "a", newEvent("a", 0)))
		is.NoErr(put(s, "b", newEvent("b", 0)))
		fs.restart(kill)
		_, _, n := fs.find(journalPath(1))
		frames := framesOf(n.live.bytes())
		n.change(change{int64(frames[len(frames)-1] + headerLen + 20), []byte("x")})
		n.settle()
		for _, kind := range []crash{power, kill} {
			s, err = openStore(fs, Options{})
			is.NoErr(err)
			events, err := read(s, "b", 0)
			is.NoErr(err)
			is.Equal(len(events), 1)
			fs.restart(kind)
		}
	}
}

// A deletion ends the damage also where it was replayed, and the power goes after that.
func TestMarkOfDeletedStreamDoesNotComeBack(t *testing.T) {
	is := is.New(t)
	f, _ := five(t)
	for seed := range uint64(20) {
		s, fs, err := f.with(path("s"), inLine(f[path("s")], 1)).open(Options{})
		is.NoErr(err)
		fs.rng = rand.New(rand.NewPCG(seed, 1))
		_, err = read(s, "s", 0)
		is.True(corrupt(err))
		fs.before = func(o op) outcome { return outcome{crash: o.kind == "syncDir" && o.path == damagedDir} }
		_ = drop(s, "s")
		is.True(fs.down)
		fs.before = nil
		for _, kind := range []crash{kill, power, kill} {
			fs.restart(kind)
			s, err = openStore(fs, Options{})
			is.NoErr(err)
			is.Equal(len(s.Damaged()), 0)
		}
	}
}

// A copy that has a journal from before a deletion and a stream's file from after it has no stream of two lives.
func TestLivesAreNotMixed(t *testing.T) {
	is := is.New(t)
	smallJournals(t)
	for before := range 4 {
		for after := range 8 {
			h := opened(t, Options{})
			a := h.streams[0]
			if before > 0 {
				is.NoErr(h.append(a, h.sends(before), nil))
			}
			is.NoErr(h.store.Close())
			is.NoErr(h.open())
			is.NoErr(h.append(a, h.sends(3), nil))
			earlier := h.fs.files()
			old, err := readAll(h.manager.Stream("a"))
			is.NoErr(err)
			is.NoErr(h.remove(a))
			h.clock = h.clock.Add(time.Hour) // by which it can be noticed
			if after > 0 {
				is.NoErr(h.append(a, h.sends(after), nil))
			}
			later, err := readAll(h.manager.Stream("a"))
			is.NoErr(err)
			f := h.fs.files().with(journalPath(1), earlier[journalPath(1)])
			s, fs, err := f.open(Options{})
			is.NoErr(err)
			events, err := read(s, "a", 0)
			if !prefix(events, old) && !prefix(events, later) {
				t.Fatalf("%d before, %d after: %s", before, after, brief(events))
			}
			if err == nil && len(events) < max(len(later), 1) {
				t.Fatalf("%d before, %d after: %s, and no error", before, after, brief(events))
			}
			for _, e := range slices.Concat(old[before:], later) {
				is.True(somewhere(fs.files(), e))
			}
		}
	}
}

// Salvage keeps the whole lines behind each damage, with those that a damaged line's end hides, and says which they
// are.
func TestSalvage(t *testing.T) {
	is := is.New(t)
	f, truth := write(t, Options{}, true, true, func(add func(string, int)) { add("s", 12); add("t", 1) })
	l := bytes.SplitAfter(f[path("s")], []byte("\n"))
	l[2] = inLine(l[2], 0)
	l[5][len(l[5])-1] = 'x' // its end, so that it is one with the next
	l[9] = l[9][:10]
	file := bytes.Join(l, nil)
	_, fs, err := f.with(path("s"), file).open(Options{})
	is.NoErr(err)
	said, err := repairOn(fs, true)
	is.NoErr(err)
	is.True(strings.HasSuffix(said[0], "are in streams/s.salvaged-3, with the offsets 3 to 4, 6 to 8, 10 to 11"))
	var want []byte
	for _, i := range []int{3, 4, 6, 7, 8, 10, 11} {
		want = append(want, l[i]...)
	}
	is.Equal(string(fs.contents("streams/s.salvaged-3")), string(want))
	is.True(json.Valid(l[3]))
	s, err := openStore(fs, Options{})
	is.NoErr(err)
	events, err := read(s, "s", 0)
	is.NoErr(err)
	is.True(len(events) == 2 && prefix(events, truth["s"]))
	names, err := listed(s, "", "", 0)
	is.NoErr(err)
	is.Equal(names, []string{"s", "t"}) // what was salvaged is no stream
}

// A stream whose file cannot be opened has its own trouble: the others are listed, verified, repaired and served, and
// start.
func TestTroubleOfOneStream(t *testing.T) {
	is := is.New(t)
	f, truth := write(t, Options{}, true, true,
		func(add func(string, int)) { add("a", 2); add("b", 2); add(longName, 2) })
	for _, name := range []string{"a", longName} {
		s, fs, err := f.open(Options{})
		is.NoErr(err)
		is.NoErr(put(s, name, newEvent(name, 2))) // for the journal to go on with
		is.NoErr(put(s, "b", newEvent("b", 2)))
		for _, failure := range []error{os.ErrPermission, syscall.EISDIR, syscall.EIO, syscall.ELOOP} {
			fs.restart(kill)
			g := fs.files()
			deny := func(o op) outcome {
				if o.path == path(name) && (o.kind == "open" || o.kind == "create") {
					return outcome{err: failure}
				}
				return outcome{}
			}
			denied := newCrashFS(rand.New(rand.NewPCG(1, 1)))
			for p, b := range g {
				denied.plant(p, b)
			}
			denied.before = deny
			s, err := openStore(denied, Options{})
			is.NoErr(err)
			events, err := read(s, "b", 0)
			is.NoErr(err)
			is.Equal(len(events), 3)
			is.NoErr(put(s, "b", newEvent("b", 3)))
			_, err = listed(s, "", "", 0)
			is.NoErr(err)
			_, err = read(s, name, 0)
			is.True(err != nil)
			is.True(!strings.Contains(err.Error(), "append"))
			is.True(errors.Is(put(s, name, newEvent(name, 3)), streamlib.ErrUnavailable))
			is.NoErr(s.Close())
			_, err = repairOn(denied, false)
			is.True(err != nil) // it cannot be, and says so behind all the others
			denied.before = nil // and then the permission is given
			s, err = openStore(denied, Options{})
			is.NoErr(err)
			events, err = read(s, name, 0)
			is.NoErr(err)
			is.True(len(events) == 3 && prefix(events[:2], truth[name]))
			is.NoErr(put(s, name, newEvent(name, 3))) // nobody had to repair what was not damaged
		}
	}
}

// What somebody does to a file under the store is noticed before anything is written to it.
func TestChangedFile(t *testing.T) {
	is := is.New(t)
	f, truth := five(t)
	whole := f[path("s")]
	lines := bytes.SplitAfter(whole, []byte("\n"))
	overwrite := func(b []byte) func(*crashFS) {
		return func(fs *crashFS) { // as cp does: the inode stays
			_, _, n := fs.find(path("s"))
			n.change(change{at: 0})
			n.change(change{0, b})
			n.settle()
		}
	}
	for _, c := range []struct {
		name string
		do   func(fs *crashFS)
	}{
		{"shorter", overwrite(bytes.Join(lines[:3], nil))},
		{"cut in a line", overwrite(whole[:len(whole)-7])},
		{"empty", overwrite([]byte{})},
		{"longer", overwrite(append(bytes.Clone(whole), "a line of somebody's\n"...))},
	} {
		for _, evicted := range []bool{false, true} {
			s, fs, err := f.open(Options{MaxOpen: 1})
			is.NoErr(err)
			is.NoErr(put(s, "s", newEvent("s", 5)))
			if evicted {
				is.NoErr(put(s, "t", newEvent("t", 1)))
				_, err = stat(s, "t")
				is.NoErr(err)
			}
			c.do(fs)
			left := fs.contents(path("s"))
			if !evicted && c.name != "longer" { // what is left still reads, and the rest is damage
				whole := bytes.Count(left, []byte("\n"))
				for _, from := range []int{0, 1, 5} {
					got, err := read(s, "s", streamlib.Offset(from))
					is.Equal(len(got), max(0, whole-from))
					is.True(prefix(got, truth["s"][min(from, whole):]))
					is.True(corrupt(err))
				}
				info, err := stat(s, "s")
				is.True(err == nil || corrupt(err))
				is.Equal(info.Tail, streamlib.Offset(6))
			}
			for range 2 {
				err = put(s, "s", newEvent("s", 6))
				if !errors.Is(err, streamlib.ErrUnavailable) && !(evicted && isConflict(err)) {
					t.Fatalf("%s, evicted %v: append: %v", c.name, evicted, err)
				}
				is.Equal(fs.contents(path("s")), left)
			}
			is.True(len(s.Damaged()) == 1 || c.name == "empty" && evicted)
		}
	}
}

func isConflict(err error) bool {
	_, ok := errors.AsType[*streamlib.ConflictError](err)
	return ok
}

// TestRepairSparesTheOtherNameOfAFile: what is cut is the stream's, and not what its name is a link to.
func TestRepairSparesTheOtherNameOfAFile(t *testing.T) {
	for kind, link := range map[string]func(from, to string) error{
		"symbolic": func(from, to string) error { return os.Symlink(filepath.Base(from), to) },
		"hard":     os.Link,
	} {
		t.Run(kind, func(t *testing.T) {
			is := is.New(t)
			dir := t.TempDir()
			s := openFolder(t, dir, Options{})
			is.NoErr(put(s, "b", newEvent("b", 0), newEvent("b", 1)))
			is.NoErr(s.Close())
			b := filepath.Join(dir, path("b"))
			want, err := os.ReadFile(b)
			is.NoErr(err)
			if err := link(b, filepath.Join(dir, path("c"))); err != nil {
				t.Skip("no links here:", err)
			}
			var said []string
			is.NoErr(Repair(dir, nil, false, func(sentence string) { said = append(said, sentence) }, nil))
			is.True(strings.Contains(strings.Join(said, "\n"), `stream "c"`))
			left, err := os.ReadFile(b)
			is.NoErr(err)
			is.Equal(string(left), string(want))
			s = openFolder(t, dir, Options{})
			is.NoErr(put(s, "b", newEvent("b", 2)))
			is.NoErr(put(s, "c", newEvent("c", 0)))
		})
	}
}

// TestReplaySparesAnotherStreamsFile: lines of another stream are not written over, whatever the journal has for the
// name that their file was given.
func TestReplaySparesAnotherStreamsFile(t *testing.T) {
	is := is.New(t)
	f, _ := write(t, Options{}, true, false, func(add func(string, int)) { add("b", 3); add("c", 3) })
	want := f[path("b")]
	f[path("c")] = want
	delete(f, path("b"))
	s, fs, err := f.open(Options{})
	is.NoErr(err)
	is.True(bytes.Equal(fs.contents(path("c")), want))
	got, err := read(s, "b", 0)
	is.NoErr(err)
	is.Equal(len(got), 3)
	is.True(errors.Is(put(s, "c", newEvent("c", 3)), streamlib.ErrUnavailable))
	is.NoErr(s.Close())
	_, err = repairOn(fs, false)
	is.NoErr(err)
	s, err = openStore(fs, Options{})
	is.NoErr(err)
	for _, name := range []string{"b", "c"} {
		got, err := read(s, name, 0)
		is.NoErr(err)
		is.Equal(len(got), 3)
	}
}

// TestRepairOfWhatWasDropped: the file of a stream of which all was dropped is damaged, and the journal has lost the
// last of its events. The stream begins where what is left ends, and can be read.
func TestRepairOfWhatWasDropped(t *testing.T) {
	is := is.New(t)
	s, fs, err := files{}.open(Options{})
	is.NoErr(err)
	for i := range 3 {
		is.NoErr(put(s, "a", newEvent("a", i)))
	}
	is.NoErr(s.Commit(t.Context(), "a", streamlib.Change{State: &streamlib.State{First: 3}}))
	is.NoErr(s.Close())
	fs.restart(kill)
	whole := fs.contents(path("a"))
	lines := bytes.SplitAfter(whole, []byte("\n"))
	torn := bytes.Clone(whole)
	torn[10] ^= 1
	fs.plant(path("a"), torn)
	fs.plant("streams/a.unreplayed-1", lines[1])
	s, err = openStore(fs, Options{})
	is.NoErr(err)
	is.NoErr(s.mark(newLog("a"), mark{File: path("a"), Reason: "damaged", Unreplayed: "streams/a.unreplayed-1",
		State: newStateRecord("a", streamlib.State{First: 3}, false, false)}))
	is.NoErr(s.Close())
	fs.restart(kill)
	_, err = repairOn(fs, false)
	is.NoErr(err)
	s, err = openStore(fs, Options{})
	is.NoErr(err)
	info, err := stat(s, "a")
	is.NoErr(err)
	is.Equal(info.First, streamlib.Offset(2))
	is.Equal(info.Tail, streamlib.Offset(2))
	events, err := readAll(streamlib.NewManager(s, streamlib.Plain, streamlib.Options{}).Stream("a"))
	is.NoErr(err)
	is.Equal(len(events), 0)
	is.NoErr(put(s, "a", newEvent("a", 2)))
}
