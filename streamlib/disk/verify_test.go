package disk

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"
)

// put makes the files a folder on the disk.
func (f files) put(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for path, b := range f {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// get reads them back.
func get(t *testing.T, dir string) files {
	t.Helper()
	f := files{}
	for _, pattern := range []string{"*", "*/*"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if b, err := os.ReadFile(path); err == nil {
				rel, _ := filepath.Rel(dir, path)
				f[filepath.ToSlash(rel)] = b
			}
		}
	}
	delete(f, "lock") // what is locked on Windows
	return f
}

// Wherever a byte is flipped, Verify finds it and changes nothing, and after Repair what stands before it is a stream
// again.
func TestVerifyAndRepair(t *testing.T) {
	smallJournals(t)
	is := is.New(t)
	rng := rand.New(rand.NewPCG(1, 1))
	for _, closed := range []bool{true, false} {
		f, truth := write(t, Options{MaxNames: 2}, true, closed, func(add func(string, int)) {
			add("s", 3)
			add(longName, 2)
			add("t", 1)
			add("s", 2)
		})
		sum, err := Verify(f.put(t), nil)
		is.NoErr(err)
		is.Equal(len(sum.Damage), 0)
		is.Equal(sum.Streams, 3)
		is.Equal(int(sum.Events), 8)
		var paths []string
		for p := range f {
			if p != formatFile && p != deletionsFile { // of which one line tells, too
				paths = append(paths, p)
			}
		}
		slices.Sort(paths)
		for _, p := range paths {
			journal := strings.HasSuffix(p, journalSuffix)
			if !closed && !journal {
				continue // the journal makes it whole
			}
			end := len(bytes.TrimRight(f[p], "\x00"))
			if p == journalPath(2) {
				end = bytes.LastIndex(f[p], []byte(frameHead)) // the last frame of all may look unfinished
			}
			for range 25 {
				i := rng.IntN(end)
				values := flips(f[p][i])
				b := bytes.Clone(f[p])
				b[i] = values[rng.IntN(len(values))]
				damaged := f.with(p, b)
				dir := damaged.put(t)
				sum, err := Verify(dir, nil)
				is.NoErr(err)
				if len(sum.Damage) == 0 || sum.Damage[0].File != p {
					t.Fatalf("%s, byte %d: verify finds %v", p, i, sum.Damage)
				}
				after := get(t, dir)
				maps.DeleteFunc(after, func(path string, _ []byte) bool { return strings.HasPrefix(path, damagedDir) })
				is.True(maps.EqualFunc(after, damaged, bytes.Equal))
				var said []string
				is.NoErr(Repair(dir, nil, false, func(s string) { said = append(said, s) }, nil))
				if len(said) == 0 {
					t.Fatalf("%s, byte %d: repair says nothing of %v", p, i, sum.Damage[0])
				}
				sum, err = Verify(dir, nil)
				is.NoErr(err)
				is.Equal(len(sum.Damage), 0)
				copies := 0
				for path, kept := range get(t, dir) {
					if path == p || journal && !bytes.HasSuffix(bytes.TrimRight(b, "\x00"), kept) ||
						!journal && !bytes.Equal(kept, b) {
						continue
					}
					copies++ // of a journal, of what was given up
				}
				if copies == 0 {
					t.Fatalf("%s, byte %d: there is no copy of the damaged file; repair said %q", p, i, said)
				}
				s := openFolder(t, dir, Options{})
				for name, want := range truth {
					events, err := read(s, name, 0)
					if err != nil || !prefix(events, want) || journal && len(events) != len(want) ||
						path(name) == p && len(events) == len(want) {
						t.Fatalf("%s, byte %d: after the repair %q is%s, %v", p, i, name, brief(events), err)
					}
					is.NoErr(appendOne(s, name, len(events)))
				}
				is.NoErr(s.Close())
			}
		}
	}
}
