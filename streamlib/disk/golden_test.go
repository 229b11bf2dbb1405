package disk

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

var updateFlag = flag.Bool("update", false, "write the golden folder anew: the format has changed")

// TestGolden pins the format: testdata/1 is a folder as a kill leaves it, with a stream's file and a journal that
// goes on with it. A version that writes other bytes for the same history has another format.
func TestGolden(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	history := []struct {
		name  string
		batch streamlib.Batch // none deletes the stream
	}{
		{"s", streamlib.Batch{Data: raw(`1`)}},
		{"s", streamlib.Batch{Data: raw(`{"type":"message","text":"<é \u2028 😀>"}`, `[1.0, 1e400, -0]`, `null`),
			Key: `k "1" \`}},
		{"Ü/x", streamlib.Batch{Data: raw(`"in a file of another name"`)}},
		{"", streamlib.Batch{}}, // closed and opened
		{"s", streamlib.Batch{Data: raw(`"in the journal"`)}},
		{"Ü/x", streamlib.Batch{}},
		{"Ü/x", streamlib.Batch{Data: raw(`2`), Key: "k"}},
	}
	s := openFolder(t, dir, Options{})
	truth := map[string][]streamlib.Event{}
	for i, h := range history {
		m := streamlib.NewManager(s, streamlib.Plain,
			streamlib.Options{Now: func() time.Time { return testTime.Add(time.Duration(i) * time.Millisecond) }})
		switch {
		case h.name == "":
			is.NoErr(s.Close())
			s = openFolder(t, dir, Options{})
		case h.batch.Data == nil:
			is.NoErr(m.Stream(h.name).Delete(t.Context()))
			truth[h.name] = nil
		default:
			r, err := m.Stream(h.name).Append(t.Context(), h.batch)
			is.NoErr(err)
			truth[h.name] = append(truth[h.name], r.Events...)
		}
	}
	// As in a crash before anything was applied, but for what was durable before.
	cut := func(path string, events []streamlib.Event) []byte {
		b, err := os.ReadFile(filepath.Join(dir, path))
		is.NoErr(err)
		lines := bytes.SplitAfter(b, []byte("\n"))
		return bytes.Join(lines[:len(events)], nil)
	}
	journal, err := os.ReadFile(filepath.Join(dir, journalPath(1)))
	is.NoErr(err)
	is.Equal(len(journal), 256<<10)
	got := files{
		formatFile:     []byte(format),
		path("s"):      cut(path("s"), truth["s"][:4]),
		journalPath(1): bytes.TrimRight(journal, "\x00"),
	}
	golden := filepath.Join("testdata", "1")
	for path, b := range got {
		at := filepath.Join(golden, path)
		if *updateFlag {
			is.NoErr(os.MkdirAll(filepath.Dir(at), 0o755))
			is.NoErr(os.WriteFile(at, b, 0o644))
		}
		want, err := os.ReadFile(at)
		is.NoErr(err)
		if !bytes.Equal(b, want) {
			t.Errorf("%s is\n%s\nnot\n%s", path, b, want)
		}
	}
	// What every version has to read.
	f := files{}
	for path := range got {
		f[path], err = os.ReadFile(filepath.Join(golden, path))
		is.NoErr(err)
	}
	opened, _, err := f.open(Options{})
	is.NoErr(err)
	for name, want := range truth {
		events, err := read(opened, name, 0)
		is.NoErr(err)
		is.True(len(events) == len(want) && prefix(events, want))
	}
	// And what doc.go says.
	doc, err := os.ReadFile("doc.go")
	is.NoErr(err)
	line, _, _ := bytes.Cut(f[path("s")], []byte("\n"))
	is.True(bytes.Contains(doc, line))
	first := bytes.SplitAfter(f[journalPath(1)], []byte("\n"))[1]
	is.True(bytes.Contains(doc, bytes.TrimSpace(first)))
}

func raw(values ...string) []json.RawMessage {
	var data []json.RawMessage
	for _, v := range values {
		data = append(data, json.RawMessage(v))
	}
	return data
}
