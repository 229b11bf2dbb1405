package streamtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// names are legal, and hard to keep apart or in a folder.
func names() []string {
	return []string{
		".", "..", "...", "a/b", "a", "A", "a.", "a ", " a", "/", "/etc/passwd", "../../x", `a\b`, `C:\x`, "a:b",
		"a%2Fb", "a%2fb", "%", "%00", "a?b#c",
		"*", `"`, "'", "<a>|b", "~", "-", "--help", "CON", "con", "NUL.json", "aux", "LPT1", "a.json", "a.json.json",
		".a", "+", "a+b", "a&b=c",
		"😀", "日本", "\u00e9", "e\u0301", "E\u0301", "\u00c9", "ß", "SS", "ı", "I", "i", "İ", "\u2028", "\ufeff",
		"\U0010ffff", "null", "0", "-1", "now",
		strings.Repeat("a", 255), strings.Repeat("a", 254), strings.Repeat("A", 255), strings.Repeat("/",
			255), strings.Repeat("é", 127),
		strings.Repeat("😀", 63), strings.Repeat(".", 255), strings.Repeat("a", 200), strings.Repeat("a",
			200) + ".", strings.Repeat("A", 128),
	}
}

var badNames = []string{
	"", strings.Repeat("a", 256), "a\x00", "a\nb", "\r", "\x1b[2J", "\x7f", "a\u0085", "\xff", "\xed\xa0\x80", "é"[:1],
}

func event(name string, o int, data string, at time.Time) streamlib.Event {
	record, err := streamlib.NewRecord(streamlib.Offset(o), name, json.RawMessage(data), at)
	if err != nil {
		panic(err)
	}
	e, err := streamlib.ParseRecord(record)
	if err != nil {
		panic(err)
	}
	return e
}

// events returns n events from first on, always the same.
func events(name string, first, n int) []streamlib.Event { return madeAt(name, first, n, 0) }

func madeAt(name string, first, n, at int) []streamlib.Event {
	list := make([]streamlib.Event, n)
	for i := range list {
		o := first + i
		list[i] = event(name, o, fmt.Sprintf(`{"n":%d,"s":%q,"x":"%s"}`, o, "€\" \u2028", strings.Repeat("x", o*o%97)),
			moment(at))
	}
	return list
}

func moment(seconds int) time.Time {
	return time.Date(2024, 1, 8, 0, 0, 0, 123e6, time.UTC).Add(time.Duration(seconds) * time.Second)
}

func readStorage(t *testing.T, s streamlib.Storage, name string, from, to streamlib.Offset) []streamlib.Event {
	t.Helper()
	var all []streamlib.Event
	for batch, err := range s.Read(context.Background(), name, from, to) {
		if err != nil {
			t.Fatalf("read %q from %d to %d: %v", name, from, to, err)
		}
		all = append(all, batch...)
	}
	return all
}

// sameEvents compares the records: all that a storage keeps.
func sameEvents(t *testing.T, got, want []streamlib.Event) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d events, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].Offset != want[i].Offset || !bytes.Equal(got[i].Record(), want[i].Record()) {
			t.Fatalf("event %d: %.300s, want %.300s", i, got[i].Record(), want[i].Record())
		}
	}
}

func put(s streamlib.Storage, name string, events ...streamlib.Event) error {
	return s.Commit(context.Background(), name, streamlib.Change{Events: events})
}

func drop(s streamlib.Storage, name string) error {
	return s.Commit(context.Background(), name, streamlib.Change{Delete: true})
}
