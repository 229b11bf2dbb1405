package disk

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// olderFolder is a history of a folder as the first implementation left it, with streams whose raw names are others'
// own names.
func olderFolder(t *testing.T) *history {
	h := scripted(t, Options{})
	h.streams = nil
	for i, name := range []string{"older", "Older", "A", "%41", "%2541", ".x", "con", longName,
		"~" + strings.Repeat("0", 64)} {
		s := &truth{name: name, states: []*state{{}}}
		h.plant(s, 1+i%3)
		h.streams = append(h.streams, s)
	}
	h.fs.plant("streams/OLDER.json", []byte(olderDamaged))
	h.fs.plant("streams/notes.txt", []byte(olderDamaged))
	return h
}

// convertsTogether has few files named at once, and none synced by itself.
func convertsTogether(together bool) (restore func()) {
	was, wasFew := maxNew, fewNew
	if together {
		maxNew, fewNew = 4, 1
	}
	return func() { maxNew, fewNew = was, wasFew }
}

// olderOne is a file of the older form with one event.
const olderOne = `{"events":[{"offset":"0","eventStreamId":%q,"data":1,"createdAt":"2024-01-08T00:00:00.000Z"}]}`

const olderDamaged = `{"events":[{"offset":"0","data":1,"createdAt":"2024-01-08T00:00:00.000Z"},{"offset":"1","da`

// lookConverted looks at all streams of such a folder, and at what must not have been lost.
func lookConverted(h *history) error {
	if err := h.look(); err != nil {
		return err
	}
	events, err := read(h.store, "OLDER", 0)
	if !corrupt(err) || len(events) != 1 {
		return fmt.Errorf("what stands before the damage: %d events, %v", len(events), err)
	}
	err = put(h.store, "OLDER", newEvent("OLDER", 1))
	if !errors.Is(err, streamlib.ErrUnavailable) {
		return fmt.Errorf("an append behind the damage: %v", err)
	}
	kept := 0
	for path, b := range h.fs.files() {
		if string(b) == olderDamaged {
			kept++
		} else if bytes.HasPrefix(b, []byte("{\n")) {
			return fmt.Errorf("%s is of the older form", path)
		} else if strings.HasSuffix(path, ".converting") {
			return fmt.Errorf("%s is left", path)
		}
	}
	if kept != 2 { // and the one that is no stream's
		return fmt.Errorf("%d copies of what was damaged", kept-1)
	}
	for _, s := range h.streams {
		if err := h.append(s, h.sends(1), nil); err != nil || h.last != nil {
			return errors.Join(err, h.last)
		}
	}
	return nil
}

// A crash at any operation of the first opening, and at one of the next, costs no stream of the older form anything.
func TestCrashDuringConversion(t *testing.T) {
	is := is.New(t)
	smallJournals(t)
	runs := 0
	for down, n := true, 1; down; n += stride(1, 5) {
		down = false
		for seed := range uint64(9) {
			restore := convertsTogether(seed%2 == 0)
			h := olderFolder(t)
			h.fs.rng = rand.New(rand.NewPCG(seed, 2))
			for _, at := range []int{n, 1 + n*int(seed+1)*7%80} {
				at += h.fs.ops
				h.watch = func(o op) outcome { return outcome{crash: o.n == at, effect: effect(seed / 3)} }
				err := h.open()
				down = down || at == n && h.fs.down
				if !h.fs.down && err != nil {
					t.Fatalf("crash at %d, seed %d: %v", n, seed, err)
				}
				h.watch = nil
				h.fs.restart(crash(seed % 3))
			}
			is.NoErr(h.open())
			if err := lookConverted(h); err != nil {
				t.Fatalf("crash at %d, seed %d: %v", n, seed, err)
			}
			is.NoErr(h.reopen(power))
			restore()
			runs++
		}
	}
	t.Logf("%d runs", runs)
}

// Where an operation of the first opening fails, the folder is refused, or is all that it should be, and so is the
// next opening.
func TestConversionThatFails(t *testing.T) {
	is := is.New(t)
	smallJournals(t)
	for n, reached := 1, true; reached; n += stride(1, 5) {
		reached = false
		for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EROFS, syscall.EMFILE} {
			for e := range effect(3) {
				restore := convertsTogether(e != partly)
				h := olderFolder(t)
				h.watch = func(o op) outcome {
					if o.n != n || o.kind == "sync" && errno != syscall.EIO ||
						o.kind == "syncDir" && errno != syscall.EIO {
						return outcome{}
					}
					reached = true
					return outcome{err: errno, effect: e}
				}
				err := h.open()
				h.watch = nil
				if err == nil {
					is.NoErr(h.look())
				}
				h.fs.restart(crash(n % 3))
				is.NoErr(h.open())
				if err := lookConverted(h); err != nil {
					t.Fatalf("operation %d, %v: %v", n, errno, err)
				}
				is.NoErr(h.reopen(power))
				restore()
			}
		}
	}
}

// What is lost between the write of a file and the sync of all of them is an error, and the older file is there still.
func TestLossWhileConverting(t *testing.T) {
	is := is.New(t)
	defer convertsTogether(true)()
	h := olderFolder(t)
	before := h.fs.files()
	h.watch = func(o op) outcome {
		h.fs.lost = h.fs.lost || o.kind == "close" && strings.HasSuffix(o.path, ".converting")
		return outcome{}
	}
	is.True(errors.Is(h.open(), syscall.EIO))
	h.watch = nil
	for path, b := range before {
		is.Equal(string(h.fs.contents(path)), string(b))
	}
	h.fs.restart(power)
	is.NoErr(h.open())
	is.NoErr(lookConverted(h))
}

// Where the disk has no room for the new files beside the older ones, these go first.
func TestConversionOnATightDisk(t *testing.T) {
	is := is.New(t)
	for _, prefix := range []string{"s", "S"} { // which keeps its file's name, and does not
		fs := newCrashFS(rand.New(rand.NewPCG(1, 1)))
		for _, folder := range []string{streamsDir, journalDir} {
			n := newFolder()
			fs.root.entries[folder], fs.root.durable[folder] = n, n
		}
		const streams = 20
		for i := range streams {
			fs.plant(fmt.Sprintf("streams/%s%d.json", prefix, i), fmt.Appendf(nil, olderOne, fmt.Sprint(prefix, i)))
		}
		fs.limited, fs.room = true, 1000
		s, err := openStore(fs, Options{})
		is.NoErr(err)
		for i := range streams {
			events, err := read(s, fmt.Sprint(prefix, i), 0)
			is.NoErr(err)
			is.Equal(len(events), 1)
		}
	}
}

// Of two files that say the same stream's name one is that, whichever is met first; the other stays.
func TestOlderFilesOfOneStream(t *testing.T) {
	is := is.New(t)
	defer convertsTogether(true)()
	two := fmt.Appendf(nil, `{"events":[%s,%[1]s]}`, strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf(olderOne, "a:b:c"),
		`{"events":[`), "]}"))
	two = bytes.Replace(two, []byte(`},{"offset":"0"`), []byte(`},{"offset":"1"`), 1)
	for range 20 { // in any order
		f := files{"streams/a%3Ab%3ac.json": fmt.Appendf(nil, olderOne, "a:b:c"), "streams/a:b:c.json": two}
		before := maps.Clone(f)
		s, fs, err := f.open(Options{})
		is.NoErr(err)
		events, err := read(s, "a:b:c", 0)
		is.NoErr(err)
		stayed := "streams/a%3Ab%3ac.json"
		if len(events) == 1 {
			stayed = "streams/a:b:c.json"
		}
		is.Equal(string(fs.contents(stayed)), string(before[stayed]))
	}
}

// A folder that must not be written is refused with what is the matter, and stays as it is. One that has nothing of
// the older form is not.
func TestConversionOfReadOnlyFolder(t *testing.T) {
	is := is.New(t)
	readOnly := func(o op) outcome {
		if o.writes() {
			return outcome{err: syscall.EROFS}
		}
		return outcome{}
	}
	h := olderFolder(t)
	before := h.fs.files()
	h.watch = readOnly
	err := h.open()
	is.True(errors.Is(err, syscall.EROFS) &&
		strings.Contains(err.Error(), "streams of an older version must be converted"))
	is.Equal(h.fs.files(), before)
	h = scripted(t, Options{})
	h.watch = readOnly
	is.NoErr(h.open())
}

// What is there already, in a folder whose format somebody removed, is not written over.
func TestConversionSparesOthersEvents(t *testing.T) {
	is := is.New(t)
	f, truth := write(t, Options{}, true, true, func(add func(string, int)) { add("A", 2); add("b", 2) })
	f = maps.Clone(f)
	delete(f, formatFile)
	f["streams/A.json"] = []byte(olderDamaged)
	s, fs, err := f.open(Options{})
	is.NoErr(err)
	for _, name := range []string{"A", "b"} {
		events, err := read(s, name, 0)
		is.NoErr(err)
		is.True(len(events) == 2 && prefix(events, truth[name]))
		is.NoErr(put(s, name, newEvent(name, 2)))
	}
	is.Equal(string(fs.contents("streams/A.json")), olderDamaged)
}

// The stream is the one that the first event names, where that can be the file's name.
func TestNameOfOlderFile(t *testing.T) {
	is := is.New(t)
	for _, test := range []struct{ file, id, stream string }{
		{"a", "a", "a"}, {"a", "", "a"}, {"a", "b", "a"}, {"%41", "%41", "%41"}, {"%41", "A", "A"},
		{"%41", "", "%41"}, {"a%2Fb", "a/b", "a/b"},
		{"a%2Fb", "", "a%2Fb"}, {"é", "é", "é"}, {"%C3%A9", "é", "é"}, {"~x", "", "~x"},
	} {
		older := fmt.Sprintf(olderOne, test.id)
		s, fs, err := files{"streams/" + test.file + suffix: []byte(older)}.open(Options{})
		is.NoErr(err)
		names, err := listed(s, "", "", 0)
		is.NoErr(err)
		is.Equal(names, []string{test.stream})
		events, err := read(s, test.stream, 0)
		is.NoErr(err)
		is.Equal(len(events), 1)
		is.Equal(len(fs.files()), 2) // and the format
	}
}

// In a folder that has a format nothing is converted, nor passed over.
func TestOlderFileInFolderWithFormat(t *testing.T) {
	is := is.New(t)
	for _, name := range []string{"x", "X"} {
		f := files{formatFile: []byte(format), "streams/" + name + suffix: []byte(olderDamaged)}
		s, fs, err := f.open(Options{})
		is.NoErr(err)
		is.True(errors.Is(put(s, name, newEvent(name, 0)), streamlib.ErrUnavailable))
		is.Equal(string(fs.contents("streams/"+name+suffix)), olderDamaged)
		fs.restart(power)
		is.NoErr(fs.remove(formatFile))
		s, err = openStore(fs, Options{})
		is.NoErr(err)
		events, _ := read(s, name, 0)
		is.Equal(len(events), 1)
		is.True(errors.Is(put(s, name, newEvent(name, 1)), streamlib.ErrUnavailable))
	}
}

// A damaged file of the older form keeps the events before the damage, and all of it is kept beside.
func TestOlderFormDamaged(t *testing.T) {
	is := is.New(t)
	const one = `{"offset":"0000000000000000","eventStreamId":"x","data":1,"createdAt":"2024-01-08T00:00:00.000Z"}`
	for _, older := range []string{
		`{"events":[` + one,
		`{"events":[` + one + `]`,
		`{"events":[` + one + `]} {}`,
		`{"events":[` + one + `,` + one + `]}`,
		`{"events":{}}`,
		`{"events":[{"offset":"x","data":1,"createdAt":"2024-01-08T00:00:00.000Z"}]}`,
		`{"events":[` + strings.Replace(one, "2024-01-08T00:00:00.000Z", "9999-12-31T23:59:59.999-01:00", 1) + `]}`,
		`{"events":[` + strings.Replace(one, "1,", `"`+strings.Repeat("x", maxLine)+`",`, 1) + `]}`,
		`{"events":[` + strings.Replace(one, `"data":1,`, ``, 1) + `]}`,
	} {
		for _, name := range []string{"x", "X"} {
			f := files{"streams/" + name + suffix: []byte(older), "streams/b.json": []byte(`{"events":[]}`)}
			s, fs, err := f.open(Options{})
			is.NoErr(err)
			is.NoErr(put(s, "b", newEvent("b", 0)))
			whole, err := read(s, name, 0)
			is.True(corrupt(err))
			is.True(errors.Is(put(s, name, newEvent(name, len(whole))), streamlib.ErrUnavailable))
			kept := func() (n int) {
				for path, b := range fs.files() {
					if string(b) == older && strings.Contains(path, ".damaged-") {
						n++
					}
				}
				return n
			}
			is.Equal(kept(), 1)
			fs.restart(power)
			said, err := repairOn(fs, true)
			is.NoErr(err)
			is.Equal(len(said), 1)
			s, err = openStore(fs, Options{})
			is.NoErr(err)
			events, err := read(s, name, 0)
			is.NoErr(err)
			is.Equal(len(events), len(whole))
			is.NoErr(put(s, name, newEvent(name, len(events))))
			is.Equal(kept(), 1)
		}
	}
}

// A folder that no server had yet is verified as it is; repair converts it, and tells what it gave up.
func TestVerifyAndRepairOlderFolder(t *testing.T) {
	is := is.New(t)
	dir := files{"streams/X.json": []byte(olderDamaged), "streams/b.json": []byte(`{"events":[]}`)}.put(t)
	sum, err := Verify(dir, nil)
	is.NoErr(err)
	is.True(sum.Streams == 2 && len(sum.Damage) == 1 && sum.Damage[0].File == "streams/X.json")
	_, err = os.Stat(filepath.Join(dir, damagedDir))
	is.True(errors.Is(err, os.ErrNotExist))
	var said []string
	is.NoErr(Repair(dir, nil, false, func(sentence string) { said = append(said, sentence) }, nil))
	is.True(len(said) == 2 && strings.Contains(said[0], "streams/%58.damaged-"))
	s := openFolder(t, dir, Options{})
	defer s.Close()
	is.NoErr(put(s, "X", newEvent("X", 1)))
}

// A file that somebody moved to the stream's raw name is the stream, and not an older one's that is passed over.
func TestFileMovedToRawName(t *testing.T) {
	is := is.New(t)
	f, truth := write(t, Options{}, true, true, func(add func(string, int)) { add("Orders", 3) })
	for _, running := range []bool{true, false} {
		s, fs, err := f.open(Options{})
		is.NoErr(err)
		if running {
			is.NoErr(put(s, "Orders", newEvent("Orders", 3)))
		}
		is.NoErr(fs.rename(path("Orders"), "streams/Orders.json"))
		is.NoErr(fs.syncDir(streamsDir))
		if running {
			is.True(errors.Is(put(s, "Orders", newEvent("Orders", 4)), streamlib.ErrUnavailable))
		}
		fs.restart(power)
		s, err = openStore(fs, Options{})
		is.NoErr(err)
		events, err := read(s, "Orders", 0)
		is.NoErr(err)
		is.True(len(events) == map[bool]int{false: 3, true: 4}[running] && prefix(events[:3], truth["Orders"]))
		is.True(isConflict(put(s, "Orders", newEvent("Orders", 0))))
		is.NoErr(put(s, "Orders", newEvent("Orders", len(events))))
		names, err := listed(s, "", "", 0)
		is.NoErr(err)
		is.Equal(names, []string{"Orders"})
	}
	// What is under that name and no such file is not passed over either.
	s, _, err := files{formatFile: []byte(format), "streams/Orders.json": []byte("what is this?\n")}.open(Options{})
	is.NoErr(err)
	is.True(errors.Is(put(s, "Orders", newEvent("Orders", 0)), streamlib.ErrUnavailable))
}

// TestNamesThatDifferByCase: where the file system takes upper for lower case, the raw name of a stream leads to
// another one's file, which is neither the stream's nor damaged. A file that has the raw name is the stream there, too.
func TestNamesThatDifferByCase(t *testing.T) {
	is := is.New(t)
	s, fs, err := files{}.open(Options{})
	is.NoErr(err)
	fs.folds = true
	all := []string{"orders", "ORDERS", "Orders"} // the first one's file has this name
	for _, name := range all {
		events, err := read(s, name, 0)
		is.NoErr(err)
		is.Equal(len(events), 0)
		is.NoErr(put(s, name, newEvent(name, 0)))
	}
	names, err := listed(s, "", "", 0)
	is.NoErr(err)
	is.Equal(names, []string{"ORDERS", "Orders", "orders"})
	is.NoErr(s.Close())
	fs.restart(power)
	is.NoErr(fs.remove(path("orders")))
	is.NoErr(fs.rename(path("Orders"), "streams/Orders.json"))
	s, err = openStore(fs, Options{})
	is.NoErr(err)
	for _, name := range all[1:] {
		events, err := read(s, name, 0)
		is.NoErr(err)
		is.Equal(len(events), 1)
	}
}
