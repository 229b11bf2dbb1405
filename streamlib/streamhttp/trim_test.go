package streamhttp_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// dropped is what is answered to who asks for an event of s, of the three of abc, before the first one kept.
func dropped(from, first string) string {
	return `{"error":"read \"s\" from ` + from + `: the events before ` + first + ` were dropped","tail":"0000000000000003",` +
		`"first":"000000000000000` + first + `"}` + "\n"
}

// TestTrimming sends requests one after the other, about one stream.
func TestTrimming(t *testing.T) {
	is := is.New(t)
	client, m := serve(t, streamhttp.Config{})
	add(t, m.Stream("s"), abc...)
	e2 := event(2, abc[2])
	for _, test := range []struct {
		request string
		headers string
		status  int
		answer  string // the body; where it begins with ~, a part of it
		first   string // of the headers, by its last digit
	}{
		{"DELETE /streams/s/events", "", 400, `~invalid before \"\": it is the offset of the first event to keep, or now`, ""},
		{"DELETE /streams/s/events?before=", "", 400, "~before", ""},
		{"DELETE /streams/s/events?before=-1", "", 400, "~before", ""},
		{"DELETE /streams/s/events?before=x", "", 400, "~before", ""},
		{"DELETE /streams/s/events?before=9007199254740992", "", 400, "~before", ""},
		{"DELETE /streams/s/events?before=1&before=2", "", 400, "~before", ""},
		{"DELETE /streams/s/events?offset=1", "", 400, "~before", ""},
		{"DELETE /streams/none/events?before=now", "", 204, "", ""},
		{"GET /streams", "", 200, `{"streams":["s"]}` + "\n", ""},
		{"DELETE /streams/s/events?before=0", "", 204, "", ""},
		{"HEAD /streams/s", "", 200, "", ""},
		{"GET /streams/s/events?limit=1", "", 200, events(event(0, abc[0])), ""},
		{"DELETE /streams/s/events?before=0000000000000002", "", 204, "", "2"},
		{"DELETE /streams/s/events?before=1", "", 204, "", "2"},
		{"HEAD /streams/s", "", 200, "", "2"},
		{"GET /streams?details=true", "", 200, `{"streams":[{"name":"s","first":"0000000000000002",` +
			`"nextOffset":"0000000000000003","size":113,"createdAt":"TIME","updatedAt":"TIME"}]}` + "\n", ""},
		// Reads.
		{"GET /streams/s/events", "", 200, events(e2), "2"},
		{"GET /streams/s/events?offset=-1", "", 200, events(e2), "2"},
		{"GET /streams/s/events?limit=1", "", 200, events(e2), "2"},
		{"GET /streams/s/events?wait=1h", "", 200, events(e2), "2"},
		{"GET /streams/s/events?offset=2", "", 200, events(e2), "2"},
		{"GET /streams/s/events?last=9", "", 200, events(e2), "2"},
		{"GET /streams/s/events?last=9&type=a", "", 200, events(e2), "2"},
		{"GET /streams/s/events?last=9&type=b", "", 200, events(), "2"},
		{"GET /streams/s/events?since=1h", "", 200, events(e2), "2"},
		{"GET /streams/s/events?offset=now", "", 200, events(), "2"},
		{"GET /streams/s/events?offset=0", "", 410, dropped("0", "2"), "2"},
		{"GET /streams/s/events?offset=1", "", 410, dropped("1", "2"), "2"},
		{"GET /streams/s/events?offset=0&limit=1", "", 410, dropped("0", "2"), "2"},
		{"GET /streams/s/events?offset=1&wait=1h&type=x", "", 410, dropped("1", "2"), "2"},
		{"GET /streams/s/events?offset=1", "Accept: application/x-ndjson", 410, dropped("1", "2"), "2"},
		// Subscriptions.
		{"GET /streams/s?until=tail&offset=-1", "", 200, "retry: 1000\n" + frame(2, abc[2]) + "\n" + caughtUp(3), ""},
		{"GET /streams/s?until=tail&offset=2", "", 200, "retry: 1000\n" + frame(2, abc[2]) + "\n" + caughtUp(3), ""},
		{"GET /streams/s?until=tail", "Last-Event-ID: 0000000000000001", 200,
			"retry: 1000\n" + frame(2, abc[2]) + "\n" + caughtUp(3), ""}, // has missed nothing
		{"GET /streams/s?until=tail&last=9", "", 200, "retry: 1000\n" +
			position("0000000000000001", "0000000000000003") + "\n" + frame(2, abc[2]) + "\n" + caughtUp(3), ""},
		{"GET /streams/s?offset=0", "", 410, dropped("0", "2"), "2"},
		{"GET /streams/s?offset=1", "", 410, dropped("1", "2"), "2"},
		{"GET /streams/s?offset=1", "Last-Event-ID: 0000000000000000", 410, dropped("1", "2"), "2"},
		{"GET /streams/s", "Last-Event-ID: 0000000000000000", 410, dropped("1", "2"), "2"},
		{"GET /streams/s?lastEventId=0", "", 410, dropped("1", "2"), "2"},
		{"GET /streams/s?offset=-1", "Last-Event-ID: -1", 410, dropped("0", "2"), "2"}, // who waited for the first event
		{"GET /streams/s", "Last-Event-ID: 3", 410, "~the stream was deleted since", "2"},
		// Nothing is kept.
		{"DELETE /streams/s/events?before=now", "", 204, "", "3"},
		{"DELETE /streams/s/events?before=7", "", 204, "", "3"},
		{"HEAD /streams/s", "", 200, "", "3"},
		{"GET /streams?details=true", "", 200, `{"streams":[{"name":"s","first":"0000000000000003",` +
			`"nextOffset":"0000000000000003","updatedAt":"TIME"}]}` + "\n", ""},
		{"GET /streams/s/events", "", 200, events(), "3"},
		{"GET /streams/s/events?last=1", "", 200, events(), "3"},
		{"GET /streams/s/events?since=1h", "", 200, events(), "3"},
		{"GET /streams/s/events?offset=2", "", 410, dropped("2", "3"), "3"},
		{"GET /streams/s?until=tail&offset=-1", "", 200, "retry: 1000\n" +
			position("0000000000000002", "0000000000000003") + "\n" + caughtUp(3), ""},
		{"GET /streams/s?until=tail", "Last-Event-ID: 0000000000000002", 204, "", ""},
		{"GET /streams/s", "Last-Event-ID: 0000000000000001", 410, dropped("2", "3"), "3"},
		{"POST /streams/s", "If-None-Match: *", 412, "~tail is 3, not 0", ""},
		{"POST /streams/s", `If-Match: "3"`, 201, event(3, "1") + "\n", ""},
		{"GET /streams/s/events", "", 200, events(event(3, "1")), "3"},
	} {
		t.Run(test.request+" "+test.headers, func(t *testing.T) {
			is := is.New(t)
			var headers []string
			if test.headers != "" {
				headers = strings.Split(test.headers, "|")
			}
			body := ""
			if strings.HasPrefix(test.request, "POST") {
				body = `{"data":1}`
			}
			got := ask(t, client, test.request, strings.NewReader(body), headers...)
			is.Equal(got.status, test.status)
			if part, ok := strings.CutPrefix(test.answer, "~"); ok {
				is.True(strings.Contains(got.body, part))
			} else {
				is.Equal(got.body, test.answer)
			}
			is.Equal(strings.TrimPrefix(got.header.Get("Stream-First-Offset"), "000000000000000"), test.first)
		})
	}
}

// TestTrimmedWhileTheBeginningIsLookedFor: what is asked from the beginning begins where that is by then.
func TestTrimmedWhileTheBeginningIsLookedFor(t *testing.T) {
	for query, want := range map[string]string{
		"/events": events(event(2, abc[2])), "/events?last=9&type=a": events(event(2, abc[2])),
		"?until=tail&offset=-1": "retry: 1000\n" + frame(2, abc[2]) + "\n" + caughtUp(3),
		"?until=tail&last=9": "retry: 1000\n" + position("0000000000000001", "0000000000000003") + "\n" +
			frame(2, abc[2]) + "\n" + caughtUp(3),
		"?until=tail&offset=0": dropped("0", "2"),
	} {
		t.Run(query, func(t *testing.T) {
			is := is.New(t)
			storage := &meddling{Storage: memory.New()}
			m := streamlib.NewManager(storage, streamlib.Plain, streamlib.Options{})
			client := serveHandler(t, streamhttp.NewHandler(m, streamhttp.Config{}))
			add(t, m.Stream("s"), abc...)
			storage.then = func() { is.NoErr(m.Stream("s").Trim(t.Context(), 2)) }
			is.Equal(ask(t, client, "GET /streams/s"+query, nil).body, want)
		})
	}
}

// slow is a stream whose readers have one event when all are dropped.
type slow struct{ streamlib.Stream }

func (s slow) after(ctx context.Context, events iter.Seq2[[]streamlib.Event, error]) iter.Seq2[[]streamlib.Event, error] {
	return func(yield func([]streamlib.Event, error) bool) {
		for batch, err := range events {
			if err == nil && yield(batch[:1], nil) {
				_ = s.Trim(ctx, streamlib.Now)
				err = &streamlib.GoneError{Stream: s.Name(), After: batch[0].Offset, Tail: 3, First: 3}
			}
			yield(nil, err)
			return
		}
	}
}

func (s slow) Read(ctx context.Context, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	return s.after(ctx, s.Stream.Read(ctx, from, to))
}

func (s slow) Subscribe(ctx context.Context, from streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	return s.after(ctx, s.Stream.Subscribe(ctx, from))
}

// TestReadersInTheMiddleOfWhatIsDropped see that they are cut off, and are told of it when they ask again.
func TestReadersInTheMiddleOfWhatIsDropped(t *testing.T) {
	want := streamlib.GoneError{Stream: "s", After: 0, Tail: 3, First: 3}
	for name, read := range map[string]func(*streamhttp.Remote) iter.Seq2[[]streamlib.Event, error]{
		"a read": func(s *streamhttp.Remote) iter.Seq2[[]streamlib.Event, error] {
			return s.Read(t.Context(), streamlib.Beginning, streamlib.MaxOffset)
		},
		"a subscription": func(s *streamhttp.Remote) iter.Seq2[[]streamlib.Event, error] {
			return s.Subscribe(t.Context(), streamlib.Beginning)
		},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			var log bytes.Buffer
			m := streamlib.NewManager(memory.New(), func(name string, s streamlib.Storage, o streamlib.Options) streamlib.Stream {
				return slow{streamlib.Plain(name, s, o)}
			}, streamlib.Options{})
			client := serveHandler(t, streamhttp.NewHandler(m, streamhttp.Config{Log: slog.New(slog.NewTextHandler(&log,
				&slog.HandlerOptions{Level: slog.LevelWarn}))}))
			add(t, m.Stream("s"), abc...)
			var got []streamlib.Event
			var last error
			for events, err := range read(client.Stream("s")) {
				got, last = append(got, events...), err
			}
			is.Equal(len(got), 1)
			gone, ok := errors.AsType[*streamlib.GoneError](last)
			is.True(ok)
			is.Equal(*gone, want)
			is.Equal(log.String(), "") // it is no fault of the server's
		})
	}
	t.Run("raw", func(t *testing.T) {
		is := is.New(t)
		m := streamlib.NewManager(memory.New(), func(name string, s streamlib.Storage, o streamlib.Options) streamlib.Stream {
			return slow{streamlib.Plain(name, s, o)}
		}, streamlib.Options{})
		client := serveHandler(t, streamhttp.NewHandler(m, streamhttp.Config{}))
		add(t, m.Stream("s"), abc...)
		_, err := io.ReadAll(subscribe(t, client, "/streams/s?offset=0").r)
		is.True(err != nil)
		is.Equal(ask(t, client, "GET /streams/s?offset=0", nil, "Last-Event-ID: 0000000000000000").body, dropped("1", "3"))
	})
}

func TestRemoteReadsFromTheBeginningThatIsKept(t *testing.T) {
	is := is.New(t)
	client, m := serve(t, streamhttp.Config{})
	add(t, m.Stream("s"), "0", "1", "2", "3", "4", "5")
	is.NoErr(client.Stream("s").Trim(t.Context(), 2))
	for to, want := range map[streamlib.Offset]int{0: 0, 1: 0, 2: 0, 3: 1, 5: 3, 9: 4, streamlib.MaxOffset + 1: 4} {
		for _, from := range []streamlib.Offset{streamlib.Beginning, -7} {
			n := 0
			for events, err := range client.Stream("s").Read(t.Context(), from, to) {
				is.NoErr(err)
				is.True(len(events) > 0)
				n += len(events)
			}
			is.Equal(n, want)
		}
	}
	is.NoErr(client.Stream("s").Trim(t.Context(), streamlib.MaxOffset+1))
	info, err := client.Stream("s").Stat(t.Context())
	is.NoErr(err)
	is.Equal(info.First, streamlib.Offset(6))
	page, err := client.List(t.Context(), streamhttp.ListOptions{Details: true})
	is.NoErr(err)
	is.Equal(page.Streams[0], info)
}

// TestFollowBeginsWithWhatIsKept, also where the connection is lost before the first event.
func TestFollowBeginsWithWhatIsKept(t *testing.T) {
	is := is.New(t)
	var asked []string
	note := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.URL.RawQuery+" "+r.Header.Get("Last-Event-ID"))
			next(w, r)
		}
	}
	client, _ := script(t, note(frames("retry: 1\n")), note(frames("retry: 1\n"+wire(5))), note(frames(wire(6)+wire(8))))
	n, last := 0, error(nil)
	for events, err := range client.Stream("s").Subscribe(t.Context(), streamlib.Beginning) {
		n, last = n+len(events), err
	}
	is.Equal(n, 2)
	is.True(strings.Contains(last.Error(), "left out or repeated"))
	is.Equal(asked, []string{"offset=-1 ", "offset=-1 ", "offset=-1 0000000000000005"})
}
