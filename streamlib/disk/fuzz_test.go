package disk

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/iterate/durable-streams/streamlib"
)

// FuzzLine: a line is the event that made it, or none; nothing else is taken for one.
func FuzzLine(f *testing.F) {
	f.Add([]byte(`{"offset":"0000000000000000","eventStreamId":"s","data":1,` +
		`"createdAt":"2024-01-08T00:00:00.000Z","crc32c":"7918e28e"}` + "\n"))
	f.Add(appendLine(nil, newEvent("s", 12).Record()))
	f.Add(appendLine(nil, []byte(`{"unreplayed":"x"`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := parseLine(b, quote("s")); err == nil {
			if again := appendLine(nil, e.Record()); !bytes.Equal(again, b) {
				t.Fatalf("%q is read as the event of %q", b, again)
			}
		}
		// With a right checksum around it, it may be an event whose data is what the checksum says it is.
		sealed := appendLine(nil, bytes.ReplaceAll(b, []byte("\n"), nil))
		e, err := parseLine(sealed, quote("s"))
		if err != nil {
			return
		}
		if e.Stream() != "s" ||
			!strings.HasPrefix(e.String(), `{"offset":"`+e.Offset.String()+`","eventStreamId":"s","data":`) {
			t.Fatalf("%q is read as %v", sealed, e)
		}
		_, _, _ = e.Key(), e.CreatedAt(), e.Data()
	})
}

// FuzzRecoverStream: arbitrary bytes as a stream's file are read as the events of their whole lines and then as
// damage.
func FuzzRecoverStream(f *testing.F) {
	var lines []byte
	for o := range 3 {
		lines = appendLine(lines, newEvent("s", o).Record())
	}
	f.Add(lines)
	f.Add(lines[:len(lines)-7])
	f.Add([]byte(`{"events":[{"offset":"0000000000000000","data":1,"createdAt":"2024-01-08T00:00:00.000Z"}]}`))
	f.Add(appendLine(nil, []byte(`{"unreplayed":"streams/s.unreplayed-0","reason":"x"`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		older := bytes.Contains(b, []byte(`"events"`)) && !bytes.HasPrefix(b, []byte(`{"offset"`))
		s, fs, err := files{formatFile: []byte(format), path("s"): b}.open(Options{})
		if err != nil {
			t.Fatal(err)
		}
		events, readErr := read(s, "s", 0)
		var whole []byte
		for i, e := range events {
			if int(e.Offset) != i || e.Stream() != "s" {
				t.Fatalf("at %d there is %v", i, e)
			}
			whole = appendLine(whole, e.Record())
		}
		if !older && (!bytes.HasPrefix(b, whole) || readErr == nil && len(whole) != len(b)) {
			t.Fatalf("%q is read as %q, %v", b, whole, readErr)
		}
		if readErr != nil && !corrupt(readErr) {
			t.Fatal(readErr)
		}
		info, err := stat(s, "s")
		if err == nil && readErr == nil && int(info.Tail) != len(events) {
			t.Fatalf("%d events, the tail is %d", len(events), info.Tail)
		}
		if err != nil || older {
			return
		}
		err = put(s, "s", newEvent("s", int(info.Tail)))
		if readErr == nil && err != nil || readErr != nil && !errors.Is(err, streamlib.ErrUnavailable) {
			t.Fatalf("the tail is %d, a read ends with %v, an append with %v", info.Tail, readErr, err)
		}
		if !bytes.HasPrefix(fs.contents(path("s")), b) {
			t.Fatal("an append changed what stood before it")
		}
	})
}

// FuzzRecoverTrimmed: whatever stands in a stream's file and in that of its state, what is read is in order and whole, and
// stays what it is when room is given back; what takes no append is marked, and repair makes it one that does.
func FuzzRecoverTrimmed(f *testing.F) {
	var lines []byte
	for o := range 6 {
		lines = appendLine(lines, newEvent("s", o).Record())
	}
	fourth := bytes.Index(lines, []byte(`{"offset":"0000000000000003"`))
	state := func(state streamlib.State) []byte { return newStateRecord("s", state, false, false).line() }
	f.Add(lines, state(streamlib.State{First: 3}))
	f.Add(lines[fourth:], state(streamlib.State{First: 3, Life: 2}))
	f.Add(lines[fourth:], state(streamlib.State{First: 5, Closed: true}))
	f.Add(lines[fourth:], state(streamlib.State{First: 2}))
	f.Add(lines[:fourth], state(streamlib.State{First: 6}))
	f.Add([]byte{}, state(streamlib.State{First: 6, Keys: `[{"key":"k"}]`}))
	f.Add(lines, []byte(`{"stream":"s","first":"-1","crc32c":"00000000"}`))
	f.Fuzz(func(t *testing.T, b, state []byte) {
		there := files{formatFile: []byte(format2), path("s"): b, statePath("s"): state}
		s, fs, err := there.open(Options{})
		if err != nil {
			t.Fatal(err)
		}
		events, readErr := read(s, "s", streamlib.Beginning)
		for i, e := range events {
			if e.Offset != events[0].Offset+streamlib.Offset(i) || e.Stream() != "s" {
				t.Fatalf("at %d there is %v", i, e)
			}
		}
		info, err := stat(s, "s")
		marked := len(s.Damaged()) > 0
		if (err != nil || readErr != nil) && !marked && !corrupt(errors.Join(err, readErr)) {
			t.Fatal(err, readErr)
		}
		unknown := err != nil || readErr != nil // and not marked: what a later version wrote
		if !marked && !unknown && (int(info.Tail-info.First) != len(events) || len(events) > 0 && events[0].Offset != info.First) {
			t.Fatalf("%+v, and there are %v", info, events)
		}
		for s.collect() {
		}
		if again, _ := read(s, "s", streamlib.Beginning); len(again) != len(events) || !prefix(again, events) {
			t.Fatalf("%v are %v when room was given back", events, again)
		}
		err = put(s, "s", newEvent("s", int(info.Tail)))
		if !marked && !unknown && err != nil || marked && !errors.Is(err, streamlib.ErrUnavailable) {
			t.Fatalf("marked %v, and an append says %v", marked, err)
		}
		fs.restart(kill)
		if _, err := repairOn(fs, false); err != nil {
			t.Fatal(err)
		}
		fs.restart(power)
		if s, err = openStore(fs, Options{}); err != nil {
			t.Fatal(err)
		}
		info, err = stat(s, "s")
		if events, readErr = read(s, "s", streamlib.Beginning); errors.Join(err, readErr) != nil || len(s.Damaged()) > 0 ||
			int(info.Tail-info.First) != len(events) {
			t.Fatalf("after repair there is %+v, %v, %v, %v", info, events, err, readErr)
		}
	})
}

// FuzzRecoverJournal: arbitrary bytes as a journal are refused, or replayed up to where they end, twice with the same
// result.
func FuzzRecoverJournal(f *testing.F) {
	smallJournals(f)
	s, fs, err := files{formatFile: []byte(format)}.open(Options{})
	if err != nil {
		f.Fatal(err)
	}
	for o := range 3 {
		if err := put(s, "s", newEvent("s", o)); err != nil {
			f.Fatal(err)
		}
	}
	if err := drop(s, "s"); err != nil {
		f.Fatal(err)
	}
	whole := bytes.TrimRight(fs.contents(journalPath(1)), "\x00")
	f.Add(whole, true)
	f.Add(whole[:len(whole)-5], true)
	f.Add([]byte(`{"offset":"0000000000000000","eventStreamId":"t","data":1,"createdAt":"2024-01-08T00:00:00.000Z"`),
		false)
	f.Add([]byte(`{"delete":"t"`), false)
	f.Fuzz(func(t *testing.T, b []byte, raw bool) {
		if !raw { // the lines of a frame, with all checksums right
			j := &journal{number: 1, sequence: 1}
			head := appendLine(make([]byte, headerLen),
				[]byte(`{"journal":1,"previous":0,"frames":0,"sync":"always","boot":""`))
			(&journal{number: 1}).seal(head)
			frame := make([]byte, headerLen)
			for line := range bytes.SplitSeq(b, []byte("\n")) {
				frame = appendLine(frame, line)
			}
			j.seal(frame)
			b = append(head, frame...)
		}
		f := files{formatFile: []byte(format), journalPath(1): b,
			path("s"): appendLine(nil, newEvent("s", 0).Record())}
		s, fs, err := f.open(Options{})
		if err != nil {
			if !corrupt(err) {
				t.Fatal(err)
			}
			return
		}
		once := fs.files()
		names, err := listed(s, "", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if _, err := read(s, name, 0); err != nil && !corrupt(err) {
				t.Fatal(err)
			}
		}
		again := files(once).with(journalPath(1), b) // as if it had not gone
		s, fs, err = again.open(Options{})
		if err != nil {
			t.Fatal(err)
		}
		for p, was := range once {
			if now := fs.contents(p); !bytes.Equal(now, was) && !bytes.Contains(was, []byte(`"unreplayed"`)) {
				t.Fatalf("replayed twice, %s is %q and was %q", p, now, was)
			}
		}
	})
}

// FuzzStem: a name and its file's name stand for each other, on file systems that know no upper case too, and no name
// is a path.
func FuzzStem(f *testing.F) {
	for _, name := range []string{"a", "A", "..", "a/b", `a\b`, "con", "CON", "com1.txt", "%41", "~x", "😀", "e\u0301",
		"é", "ſ", "K", ".", "x.", "x ", "x.json"} {
		f.Add(name, "a")
		f.Add(name, strings.ToUpper(name))
	}
	f.Add(strings.Repeat("A", 255), strings.Repeat("a", 255))
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, name := range []string{a, b} {
			if streamlib.CheckName(name) != nil {
				return
			}
			s := stem(name)
			if len(s) > maxStem || s == "" || s != strings.ToLower(s) ||
				strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_.%~") != "" || !utf8.ValidString(s) {
				t.Fatalf("%q has the file %q", name, s)
			}
			for i := range len(s) {
				if s[i] >= utf8.RuneSelf {
					t.Fatalf("%q has the file %q", name, s)
				}
			}
			if s[0] == '.' || isDevice(s) {
				t.Fatalf("%q has the file %q", name, s)
			}
			if back, hashed := unstem(s); !hashed && back != name || hashed && len(s) != 65 {
				t.Fatalf("%q has the file %q, which is %q's", name, s, back)
			}
			if raw := rawPath(name); raw != "" && (strings.Count(raw, "/") != 1 || raw == path(a) || raw == path(b)) {
				t.Fatalf("%q would have had %q", name, raw)
			}
		}
		if a != b && strings.EqualFold(stem(a), stem(b)) {
			t.Fatalf("%q and %q have one file: %q", a, b, stem(a))
		}
	})
}
