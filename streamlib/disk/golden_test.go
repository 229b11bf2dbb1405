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

// act is one thing that a golden folder's history does: it closes and opens the folder where it names no stream, and
// deletes the stream where there is nothing else.
type act struct {
	name  string
	batch streamlib.Batch
	trim  streamlib.Offset
}

// goldenFirst is what testdata/1 was made of by a version that knew no states.
var goldenFirst = []act{
	{name: "s", batch: streamlib.Batch{Data: raw(`1`)}},
	{name: "s", batch: streamlib.Batch{Data: raw(`{"type":"message","text":"<é \u2028 😀>"}`, `[1.0, 1e400, -0]`, `null`),
		Key: `k "1" \`}},
	{name: "Ü/x", batch: streamlib.Batch{Data: raw(`"in a file of another name"`)}},
	{},
	{name: "s", batch: streamlib.Batch{Data: raw(`"in the journal"`)}},
	{name: "Ü/x"},
	{name: "Ü/x", batch: streamlib.Batch{Data: raw(`2`), Key: "k"}},
}

// TestGoldenFirst: a folder of the first format is read, and one in which no stream has a state is one of it.
func TestGoldenFirst(t *testing.T) {
	is := is.New(t)
	golden := readGolden(t, filepath.Join("testdata", "1"))
	opened, _, err := golden.open(Options{})
	is.NoErr(err)
	want := map[string][]string{"s": {"1", `{"type":"message","text":"<é \u2028 😀>"}`, "[1.0,1e400,-0]", "null",
		`"in the journal"`}, "Ü/x": {"2"}}
	for name, data := range want {
		events, err := read(opened, name, 0)
		is.NoErr(err)
		is.Equal(len(events), len(data))
		for i, e := range events {
			is.Equal(string(e.Data()), data[i])
		}
	}
	got, _ := makeGolden(t, goldenFirst[:5], journalPath(1), path("s"))
	is.True(bytes.HasPrefix(golden[journalPath(1)], got[journalPath(1)]))
	is.Equal(got[formatFile], golden[formatFile])
	is.True(bytes.HasPrefix(got[path("s")], golden[path("s")]))
}

// TestGolden pins the format: testdata/2 is a folder as a kill leaves it, with streams' files, what they have beside
// events, and a journal that goes on with them. A version that writes other bytes for the same history has another
// format.
func TestGolden(t *testing.T) {
	is := is.New(t)
	history := append(goldenFirst[:4:4],
		act{name: "Ü/x"},
		act{name: "Ü/x", batch: streamlib.Batch{Data: raw(`2`), Key: "k"}},
		act{name: "s", trim: 1}, // of which too little goes for a new file
		act{name: "done", batch: streamlib.Batch{Data: raw(`"all"`), Close: true}},
		act{},
		act{name: "s", batch: streamlib.Batch{Data: raw(`"in the journal"`)}},
		act{name: "s", trim: 2},
		act{name: "Ü/x"},
		act{name: "Ü/x", batch: streamlib.Batch{Data: raw(`3`), Close: true}})
	got, truth := makeGolden(t, history, path("s"), path("done"), path("Ü/x"), statePath("s"), statePath("done"),
		deletionsFile, journalPath(1))
	// As in a crash before anything was applied, but for what was durable before.
	lines := bytes.SplitAfter(got[path("s")], []byte("\n"))
	is.Equal(len(lines), 6)
	got[path("s")] = bytes.Join(lines[:4], nil)
	delete(got, path("Ü/x"))
	dir := filepath.Join("testdata", "2")
	for path, b := range got {
		if at := filepath.Join(dir, path); *updateFlag {
			is.NoErr(os.MkdirAll(filepath.Dir(at), 0o755))
			is.NoErr(os.WriteFile(at, b, 0o644))
		}
	}
	golden := readGolden(t, dir)
	is.Equal(len(golden), len(got))
	for path, b := range got {
		if !bytes.Equal(b, golden[path]) {
			t.Errorf("%s is\n%s\nnot\n%s", path, b, golden[path])
		}
	}
	opened, _, err := golden.open(Options{}) // what every version has to read
	is.NoErr(err)
	for name, want := range map[string]streamlib.State{"s": {First: 2}, "done": {Life: 1, Closed: true},
		"Ü/x": {Life: 2, Closed: true}} {
		events, err := read(opened, name, streamlib.Beginning)
		is.NoErr(err)
		kept := truth[name][want.First:]
		is.True(len(events) == len(kept) && prefix(events, kept))
		info, err := stat(opened, name)
		is.NoErr(err)
		is.Equal(info.Keys != "", name == "s")
		info.UpdatedAt, info.Keys = time.Time{}, ""
		is.Equal(info.State, want)
	}
	doc, err := os.ReadFile("doc.go") // and what it says
	is.NoErr(err)
	first, _, _ := bytes.Cut(readGolden(t, filepath.Join("testdata", "1"))[path("s")], []byte("\n"))
	is.True(bytes.Contains(doc, first))
	for _, what := range [][]byte{got[statePath("s")], got[statePath("done")],
		bytes.SplitAfter(got[deletionsFile], []byte("\n"))[0], bytes.SplitAfter(got[journalPath(1)], []byte("\n"))[1]} {
		if !bytes.Contains(doc, bytes.TrimSpace(what)) {
			t.Errorf("doc.go does not have %s", what)
		}
	}
}

// makeGolden returns the named files of the folder that the history makes, and the streams.
func makeGolden(t *testing.T, history []act, paths ...string) (files, map[string][]streamlib.Event) {
	is := is.New(t)
	dir := t.TempDir()
	s := openFolder(t, dir, Options{})
	truth := map[string][]streamlib.Event{}
	for i, a := range history {
		stream := streamlib.NewManager(s, streamlib.Plain, streamlib.Options{
			Now: func() time.Time { return testTime.Add(time.Duration(i) * time.Millisecond) }}).Stream(a.name)
		switch {
		case a.name == "":
			is.NoErr(s.Close())
			s = openFolder(t, dir, Options{})
		case a.trim > 0:
			is.NoErr(stream.Trim(t.Context(), a.trim))
		case a.batch.Data == nil:
			is.NoErr(stream.Delete(t.Context()))
			truth[a.name] = nil
		default:
			r, err := stream.Append(t.Context(), a.batch)
			is.NoErr(err)
			truth[a.name] = append(truth[a.name], r.Events...)
		}
	}
	got := files{}
	for _, path := range append(paths, formatFile) {
		b, err := os.ReadFile(filepath.Join(dir, path))
		is.NoErr(err)
		if path == journalPath(1) {
			is.Equal(len(b), 256<<10)
			b = bytes.TrimRight(b, "\x00")
		}
		got[path] = b
	}
	return got, truth
}

func readGolden(t *testing.T, dir string) files {
	is := is.New(t)
	f := files{}
	is.NoErr(filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err == nil {
			f[filepath.ToSlash(name)], err = os.ReadFile(path)
		}
		return err
	}))
	return f
}

func raw(values ...string) []json.RawMessage {
	var data []json.RawMessage
	for _, v := range values {
		data = append(data, json.RawMessage(v))
	}
	return data
}
