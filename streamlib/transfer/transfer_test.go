package transfer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/disk"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/transfer"
	"github.com/matryer/is"
)

func moment(ms int) time.Time {
	return time.Date(2024, 1, 8, 0, 0, 0, 0, time.UTC).Add(time.Duration(ms) * time.Millisecond)
}

// event makes one; a key is added to each that has one.
func event(name string, o streamlib.Offset, data, key string, at time.Time) streamlib.Event {
	record, err := streamlib.NewRecord(o, name, json.RawMessage(data), at)
	if err == nil && key != "" {
		quoted, _ := json.Marshal(key)
		record = append(append(record, `,"key":`...), quoted...)
	}
	e, errParse := streamlib.ParseRecord(record)
	if err := errors.Join(err, errParse); err != nil {
		panic(err)
	}
	return e
}

// events are those with offsets in [from, to), always the same.
func events(name string, from, to int) []streamlib.Event {
	var list []streamlib.Event
	for o := from; o < to; o++ {
		key := ""
		if o%3 == 1 {
			key = fmt.Sprintf("k\"%d ü", o)
		}
		data := fmt.Sprintf(`{"n":%d,"s":"<€>&\u2028  %s"}`, o, strings.Repeat("x", o*o%97))
		list = append(list, event(name, streamlib.Offset(o), data, key, moment(o/2)))
	}
	return list
}

func put(t *testing.T, s streamlib.Storage, name string, state *streamlib.State, events ...streamlib.Event) {
	t.Helper()
	if err := s.Commit(t.Context(), name, streamlib.Change{Events: events, State: state}); err != nil {
		t.Fatal(err)
	}
}

// dump is all that a storage has.
func dump(t *testing.T, s transfer.Source) string {
	t.Helper()
	var b strings.Builder
	names, err := s.List(t.Context(), "", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		info, err := s.Stat(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		info.Size = 0
		fmt.Fprintf(&b, "%+v\n", info)
		for events, err := range s.Read(t.Context(), name, streamlib.Beginning, streamlib.MaxOffset) {
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				fmt.Fprintf(&b, "%s\n", e.Record())
			}
		}
	}
	return b.String()
}

// same tells that two storages have the same.
func same(t *testing.T, got, want transfer.Source) {
	t.Helper()
	g, w := strings.Split(dump(t, got), "\n"), strings.Split(dump(t, want), "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			t.Fatalf("line %d: %s, want %s", i+1, g[i], w[i])
		}
	}
	if len(g) != len(w) {
		t.Fatalf("%d lines, want %d", len(g), len(w))
	}
}

func export(t *testing.T, s transfer.Source, q transfer.Query) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := transfer.Export(t.Context(), s, &b, q); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// variety has one of each kind of stream.
func variety(t *testing.T) streamlib.Storage {
	s := memory.New()
	put(t, s, "plain", nil, events("plain", 0, 40)...)
	put(t, s, `a/"b" \ 😀`, nil, events(`a/"b" \ 😀`, 0, 5)...)
	put(t, s, "trimmed", &streamlib.State{Life: 4, First: 7, Keys: `[{"key":"<k>"}]`}, events("trimmed", 7, 20)...)
	put(t, s, "closed", &streamlib.State{Closed: true}, events("closed", 0, 3)...)
	put(t, s, "both", &streamlib.State{Life: 1, First: 3, Closed: true}, events("both", 3, 4)...)
	put(t, s, "emptied", &streamlib.State{Life: 2, First: 90, UpdatedAt: moment(5)})
	put(t, s, "ended", &streamlib.State{First: 90, UpdatedAt: moment(5), Closed: true})
	put(t, s, "never", &streamlib.State{Closed: true})
	return s
}

func TestWhatIsExportedIsImportedAsItWas(t *testing.T) {
	is := is.New(t)
	from, to := variety(t), memory.New()
	var b bytes.Buffer
	sum, err := transfer.Export(t.Context(), from, &b, transfer.Query{})
	is.NoErr(err)
	is.Equal(sum, transfer.Summary{Streams: 8, Events: 62})
	got, err := transfer.Import(t.Context(), to, bytes.NewReader(b.Bytes()))
	is.NoErr(err)
	is.Equal(got, transfer.Summary{Streams: 8, Events: 62, Stored: 62})
	same(t, to, from)
	is.Equal(string(export(t, to, transfer.Query{})), b.String())

	got, err = transfer.Import(t.Context(), counted{to, t}, bytes.NewReader(b.Bytes()))
	is.NoErr(err) // again: nothing is committed
	is.Equal(got, transfer.Summary{Streams: 8, Events: 62})
}

// counted fails the test when something is committed.
type counted struct {
	streamlib.Storage
	t *testing.T
}

func (c counted) Commit(_ context.Context, name string, change streamlib.Change) error {
	c.t.Errorf("a commit to %q of %d events", name, len(change.Events))
	return nil
}

// TestTheFormOfAnExport: it is the one that the package's documentation shows.
func TestTheFormOfAnExport(t *testing.T) {
	is := is.New(t)
	s := memory.New()
	put(t, s, "orders", &streamlib.State{Life: 2, First: 7, Closed: true},
		event("orders", 7, `{"n":7}`, "", moment(0)), event("orders", 8, `{"n":8}`, "k", moment(4000)))
	doc, err := os.ReadFile("doc.go")
	is.NoErr(err)
	_, shown, _ := strings.Cut(string(doc), "//\n//\t{")
	shown, _, _ = strings.Cut("//\t{"+shown, "//\n")
	got := string(export(t, s, transfer.Query{}))
	is.Equal(got, strings.ReplaceAll(shown, "//\t", ""))
	lines := strings.SplitAfter(got, "\n")

	is.Equal(string(export(t, s, transfer.Query{From: 7})), got)
	tail := strings.SplitAfter(string(export(t, s, transfer.Query{From: 8})), "\n")
	is.Equal(len(tail), len(lines)-1)
	is.True(strings.Contains(tail[1], `,"first":"0000000000000007","from":"0000000000000008","closed":true,`))
	is.Equal(tail[2:4], lines[3:5])
	for _, from := range []streamlib.Offset{9, 1000, streamlib.Now} {
		tail := strings.SplitAfter(string(export(t, s, transfer.Query{From: from})), "\n")
		is.Equal(len(tail), len(lines)-2)
		is.True(strings.Contains(tail[1], `,"from":"0000000000000009",`))
	}
}

func TestAnExportIsOfTheStreamsThatAreAskedFor(t *testing.T) {
	is := is.New(t)
	s := memory.New()
	for i := range 2500 { // more than a page
		name := fmt.Sprintf("%c/%d", 'a'+i%2, i)
		put(t, s, name, nil, events(name, 0, 1)...)
	}
	for q, want := range map[transfer.Query]int{
		{}: 2500, {Prefix: "a/"}: 1250, {Prefix: "a/10"}: 56, {Name: "a/10"}: 1, {Name: "a/1"}: 0, {Prefix: "x"}: 0,
	} {
		sum, err := transfer.Export(t.Context(), s, io.Discard, q)
		is.NoErr(err)
		is.Equal(sum.Streams, want)
	}
	_, err := transfer.Export(t.Context(), s, io.Discard, transfer.Query{Name: "\n"})
	is.True(errors.Is(err, streamlib.ErrInvalid))
}

// cut is an input that ends with an error after some bytes.
type cut struct {
	r   io.Reader
	n   int
	err error
}

func (c *cut) Read(b []byte) (int, error) {
	if c.n == 0 {
		return 0, c.err
	}
	n, err := c.r.Read(b[:min(len(b), c.n)])
	c.n -= n
	return n, err
}

func TestAnImportThatWasCutOffGoesOn(t *testing.T) {
	is := is.New(t)
	from := variety(t)
	whole := export(t, from, transfer.Query{})
	lost := errors.New("lost")
	to := memory.New()
	for n := 0; n < len(whole); n += 1 + rand.IntN(200) {
		_, err := transfer.Import(t.Context(), to, &cut{bytes.NewReader(whole), n, lost})
		is.True(errors.Is(err, lost))
		_, err = transfer.Import(t.Context(), to, bytes.NewReader(whole[:n]))
		is.True(errors.Is(err, streamlib.ErrInvalid))
		is.True(strings.Contains(err.Error(), ": it ends here and is not whole"))
		isPrefix(t, to, from)
	}
	_, err := transfer.Import(t.Context(), to, bytes.NewReader(whole))
	is.NoErr(err)
	same(t, to, from)
}

// isPrefix tells that a target has first events of the source's streams, and that what is closed is whole.
func isPrefix(t *testing.T, to, from streamlib.Storage) {
	t.Helper()
	is := is.New(t)
	names, err := to.List(t.Context(), "", "", 0)
	is.NoErr(err)
	for _, name := range names {
		has, err := to.Stat(t.Context(), name)
		is.NoErr(err)
		all, err := from.Stat(t.Context(), name)
		is.NoErr(err)
		is.True(has.Tail <= all.Tail && has.First == all.First && has.Life == all.Life)
		is.True(!has.Closed || all.Closed && has.Tail == all.Tail)
		var there []streamlib.Event
		for events, err := range from.Read(t.Context(), name, all.First, has.Tail) {
			is.NoErr(err)
			there = append(there, events...)
		}
		for events, err := range to.Read(t.Context(), name, has.First, has.Tail) {
			is.NoErr(err)
			for i, e := range events {
				is.Equal(string(e.Record()), string(there[i].Record()))
			}
			there = there[len(events):]
		}
		is.Equal(len(there), 0)
	}
}

func manager(s streamlib.Storage) transfer.Streams {
	return transfer.Streams{Manager: streamlib.NewManager(s, streamlib.Plain, streamlib.Options{})}
}

// TestAnExportIsOfOneMoment exports a stream that is appended to in pairs, trimmed, closed at last, deleted and made
// again: each event tells the life that it is of.
func TestAnExportIsOfOneMoment(t *testing.T) {
	is := is.New(t)
	storage := memory.New()
	streams := manager(storage)
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			for life := range 500 {
				s := streams.Stream("s")
				for i := range 10 {
					data := streamlib.JSON(fmt.Sprint(life), fmt.Sprint(life))
					if _, err := s.Append(t.Context(), streamlib.Batch{Data: data, Close: i == 9}); err != nil {
						return err
					}
					if err := s.Trim(t.Context(), streamlib.Offset(i)); err != nil {
						return err
					}
				}
				if err := s.Delete(t.Context()); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	seen, closed, broken := 0, 0, 0
	for over := false; !over; {
		select {
		case err := <-done:
			is.NoErr(err)
			over = true
		default:
		}
		var b bytes.Buffer
		to := memory.New()
		_, err := transfer.Export(t.Context(), streams, &b, transfer.Query{})
		isBroken := func(err error) bool { _, ok := errors.AsType[*transfer.BrokenError](err); return ok }
		is.True(err == nil || isBroken(err))
		if isBroken(err) {
			broken++
		}
		_, again := transfer.Import(t.Context(), to, bytes.NewReader(b.Bytes()))
		is.True(again == nil && err == nil || isBroken(again) && isBroken(err))
		info, errStat := to.Stat(t.Context(), "s")
		is.NoErr(errStat)
		if info.Tail == 0 {
			continue
		}
		seen++
		is.True(err != nil || info.Tail%2 == 0) // no half of a batch
		is.Equal(info.Closed, err == nil && info.Tail == 20)
		if info.Closed {
			closed++
		}
		for events, err := range to.Read(t.Context(), "s", streamlib.Beginning, streamlib.MaxOffset) {
			is.NoErr(err)
			for _, e := range events {
				is.Equal(string(e.Data()), fmt.Sprint(info.Life))
			}
		}
	}
	t.Log(seen, "seen,", closed, "closed,", broken, "broken off")
	is.True(seen > 0)
}

// TestAnImportIsFollowed: a follower of a manager's stream gets what is imported while it is, and can append behind it.
func TestAnImportIsFollowed(t *testing.T) {
	is := is.New(t)
	from, to := memory.New(), manager(memory.New())
	var want []streamlib.Event
	for o := range 10 { // two batches
		want = append(want, event("s", streamlib.Offset(o), `"`+strings.Repeat("x", 1<<20-2)+`"`, "", moment(o)))
	}
	put(t, from, "s", &streamlib.State{Life: 9, Closed: true}, want...)
	followed := to.Stream("s").Subscribe(t.Context(), streamlib.Beginning)
	lines, imported := export(t, from, transfer.Query{}), make(chan error, 1)
	go func() {
		_, err := transfer.Import(t.Context(), to, bytes.NewReader(lines))
		imported <- err
	}()
	for events, err := range followed { // up to the end
		is.NoErr(err)
		for _, e := range events {
			is.Equal(string(e.Record()), string(want[0].Record()))
			want = want[1:]
		}
	}
	is.Equal(len(want), 0)
	is.NoErr(<-imported)
	same(t, to, from)
}

// TestCopiesOnDisk: what is imported into a folder is there when that is opened again, whatever was deleted before.
func TestCopiesOnDisk(t *testing.T) {
	is := is.New(t)
	from, dir := large(t), t.TempDir()
	whole := export(t, from, transfer.Query{})
	to := open(t, dir)
	for _, name := range []string{"plain", "closed", "trimmed"} {
		put(t, to, name, nil, events(name, 0, 3)...)
		is.NoErr(to.Commit(t.Context(), name, streamlib.Change{Delete: true}))
	}
	_, err := transfer.Import(t.Context(), to, bytes.NewReader(whole[:len(whole)/2]))
	is.True(errors.Is(err, streamlib.ErrInvalid))
	is.NoErr(to.Close())
	to = open(t, dir)
	isPrefix(t, to, from)
	_, err = transfer.Import(t.Context(), to, bytes.NewReader(whole))
	is.NoErr(err)
	same(t, to, from)
	is.NoErr(to.Close())
	to = open(t, dir)
	same(t, to, from)
	is.True(bytes.Equal(export(t, to, transfer.Query{}), whole))
	is.NoErr(to.Close())
	sum, err := disk.Verify(dir, nil)
	is.NoErr(err)
	is.Equal(len(sum.Damage), 0)
}
