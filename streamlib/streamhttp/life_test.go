package streamhttp_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// secondLife makes stream s for the second time, with the events abc; it had five before.
func secondLife(t testing.TB, m *streamlib.Manager) {
	t.Helper()
	s := m.Stream("s")
	add(t, s, "0", "1", "2", "3", "4")
	if err := s.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	add(t, s, abc...)
}

// lived puts the life behind the ids of frames.
func lived(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "id: ") && line != "id: -1\n" {
			line = strings.TrimSuffix(line, "\n") + "-1\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

func TestLives(t *testing.T) {
	const tail3, tail4 = `"0000000000000003-1"`, `"0000000000000004-1"`
	const other = `{"error":"append \"s\": the stream was deleted since, and begun again; tail is 3",` +
		`"tail":"0000000000000003","deleted":true}` + "\n"
	gone := func(after string) string {
		return `{"error":"resume \"s\" after ` + after + `: tail is 3, the stream was deleted since",` +
			`"tail":"0000000000000003"}` + "\n"
	}
	const end = ": tail 0000000000000003\n"
	last := opening + lived(frame(2, abc[2])) + "\n" + end
	for _, test := range []struct {
		request string
		headers string
		status  int
		answer  string // the body; where it begins with ~, a part of it
		tag     string // the ETag
	}{
		{"HEAD /streams/s", "", 200, "", tail3},
		{"HEAD /streams/none", "", 404, "", `"0000000000000000"`}, // it has no life yet
		{"GET /streams/s/events", "", 200, events(event(0, abc[0]), event(1, abc[1]), event(2, abc[2])), ""},
		{"GET /streams/s/events?offset=0000000000000002", "", 200, events(event(2, abc[2])), ""},
		{"GET /streams?details=true", "", 200, `{"streams":[{"name":"s","nextOffset":"0000000000000003","size":337,` +
			`"createdAt":"TIME","updatedAt":"TIME","life":1}]}` + "\n", ""},
		// Conditions.
		{"POST /streams/s", "", 201, event(3, "1") + "\n", tail4},
		{"POST /streams/s", `If-Match: "0000000000000003-1"`, 201, event(3, "1") + "\n", tail4},
		{"POST /streams/s", `If-Match: "3-1"`, 201, event(3, "1") + "\n", tail4},
		{"POST /streams/s", `If-Match: "3"`, 201, event(3, "1") + "\n", tail4}, // by hand
		{"POST /streams/s", `If-Match: "003"`, 201, event(3, "1") + "\n", tail4},
		{"POST /streams/s", `If-Match: "0000000000000003"`, 412, other, tail3}, // as the former life had it
		{"POST /streams/s", `If-Match: "0000000000000002"`, 412, other, tail3},
		{"POST /streams/s", `If-Match: "0000000000000003-0"`, 412, other, tail3},
		{"POST /streams/s", `If-Match: "0000000000000003-2"`, 412, other, tail3},
		{"POST /streams/s", `If-Match: "0000000000000002-1"`, 412,
			`{"error":"append \"s\": tail is 3, not 2","tail":"0000000000000003"}` + "\n", tail3},
		{"POST /streams/s", `If-Match: "2"`, 412, "~tail is 3, not 2", tail3},
		{"POST /streams/s", `If-Match: "*-1"`, 201, event(3, "1") + "\n", tail4},
		{"POST /streams/s", `If-Match: "*-0"`, 412, other, tail3},
		{"POST /streams/s", `If-None-Match: *`, 412, "~tail is 3, not 0", tail3},
		{"POST /streams/s", `If-Match: "0000000000000000"`, 412, "~tail is 3, not 0", tail3},
		{"POST /streams/none", `If-Match: "0000000000000000"`, 201, "~none", `"0000000000000001-1"`},
		{"POST /streams/none", `If-Match: "0"`, 201, "~none", `"0000000000000001-1"`},
		{"POST /streams/none", `If-None-Match: *`, 201, "~none", `"0000000000000001-1"`},
		{"POST /streams/s", `If-Match: "*-"`, 400, "~it is an ETag, or the tail in quotes", ""},
		{"POST /streams/s", `If-Match: "*-x"`, 400, "~If-Match", ""},
		{"POST /streams/s", `If-Match: "*"`, 400, "~If-Match", ""},
		{"POST /streams/s", `If-Match: "3-x"`, 400, "~If-Match", ""},
		{"POST /streams/s", `If-Match: "3-"`, 400, "~If-Match", ""},
		{"POST /streams/s", `If-Match: "3--1"`, 400, "~If-Match", ""},
		{"POST /streams/s", `If-Match: "-1"`, 400, "~If-Match", ""},
		{"POST /streams/s", `If-Match: "-1-1"`, 400, "~If-Match", ""},
		{"POST /streams/s", `Stream-Closed: true`, 201, event(3, "1") + "\n", tail4},
		// Conditions of deleting.
		{"DELETE /streams/s", `If-Match: "0000000000000003"`, 412, strings.Replace(other, "append", "delete", 1), tail3},
		{"DELETE /streams/s", `If-Match: "*-2"`, 412, strings.Replace(other, "append", "delete", 1), tail3},
		{"DELETE /streams/s", `If-Match: "0000000000000002-1"`, 412,
			`{"error":"delete \"s\": tail is 3, not 2","tail":"0000000000000003"}` + "\n", tail3},
		{"DELETE /streams/s", `If-Match: "2"`, 412, "~tail is 3, not 2", tail3},
		{"DELETE /streams/s", `If-Match: 3`, 400, "~If-Match", ""},
		{"DELETE /streams/s", `If-Match: "0000000000000003-1"`, 204, "", ""},
		{"DELETE /streams/s", `If-Match: "*-1"`, 204, "", ""},
		{"DELETE /streams/s", `If-Match: "3"`, 204, "", ""},
		{"DELETE /streams/s/events?before=1", `If-Match: "*-0"`, 412, strings.Replace(other, "append", "trim", 1), tail3},
		{"DELETE /streams/s/events?before=1", `If-Match: "*-1"`, 204, "", ""},
		{"DELETE /streams/s/events?before=1", `If-Match: "3"`, 400, "~it is on the life alone", ""},
		{"DELETE /streams/s/events?before=1", `If-Match: x`, 400, "~If-Match", ""},
		// Subscriptions.
		{"GET /streams/s?until=tail&offset=-1", "", 200, opening + lived(frame(0, abc[0])+"\n"+frame(1, abc[1])+"\n"+
			frame(2, abc[2])) + "\n" + end, ""},
		{"GET /streams/s?until=tail&last=1&type=b", "", 200, opening + lived(position("0000000000000000", "0000000000000003")+
			"\n"+frame(1, abc[1])+"\n"+position("0000000000000002", "0000000000000003")) + "\n" + end, ""},
		{"GET /streams/s?until=tail", "", 200, opening + lived(position("0000000000000002", "0000000000000003")) + "\n" + end, ""},
		{"GET /streams/s?until=tail&last=9", "", 200, "~id: -1\n", ""},
		{"GET /streams/s?until=tail&offset=0000000000000002", "", 200, last, ""},
		{"GET /streams/s?until=tail", "Last-Event-ID: 0000000000000001-1", 200, last, ""},
		{"GET /streams/s?until=tail", "Last-Event-ID: 1-1", 200, last, ""},
		{"GET /streams/s?until=tail&lastEventId=0000000000000001-1", "", 200, last, ""},
		{"GET /streams/s?until=tail&last-event-id=1", "", 200, last, ""}, // by hand
		{"GET /streams/s?until=tail", "Last-Event-ID: 0000000000000002-1", 204, "", ""},
		{"GET /streams/s?until=tail", "Last-Event-ID: -1", 200, "~id: 0000000000000000-1\n", ""},
		{"GET /streams/s", "Last-Event-ID: 0000000000000001", 410, gone("1"), tail3},
		{"GET /streams/s", "Last-Event-ID: 1", 410, gone("1"), tail3},
		{"GET /streams/s", "Last-Event-ID: 0000000000000004", 410, gone("4"), tail3},
		{"GET /streams/s", "Last-Event-ID: 0000000000000001-0", 410, gone("1"), tail3},
		{"GET /streams/s", "Last-Event-ID: 0000000000000001-2", 410, gone("1"), tail3},
		{"GET /streams/s", "Last-Event-ID: 0000000000000003-1", 410, gone("3"), tail3},
		{"GET /streams/s?offset=2", "Last-Event-ID: 0000000000000001", 410, gone("1"), tail3},
		{"GET /streams/s?lastEventId=0000000000000001", "", 410, gone("1"), tail3}, // as a polyfill sends it
		{"GET /streams/s?last-event-id=0000000000000001", "", 410, gone("1"), tail3},
		{"GET /streams/s", "Last-Event-ID: 1-x", 400, "~Last-Event-ID", ""},
		{"GET /streams/s", "Last-Event-ID: 1-", 400, "~Last-Event-ID", ""},
		{"GET /streams/none", "Last-Event-ID: 0000000000000001", 410, "~the stream was deleted since", `"0000000000000000"`},
		{"GET /streams/none?offset=2&until=tail", "Last-Event-ID: 0000000000000001", 204, "", ""}, // it waits for the first
	} {
		t.Run(test.request+" "+test.headers, func(t *testing.T) {
			is := is.New(t)
			client, m := serve(t, streamhttp.Config{})
			secondLife(t, m)
			var headers []string
			if test.headers != "" {
				headers = []string{test.headers}
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
			is.Equal(got.header.Get("Etag"), test.tag)
			if strings.HasPrefix(test.request, "DELETE") && test.status >= 400 {
				is.Equal(ask(t, client, "HEAD /streams/s", nil).header.Get("Stream-First-Offset"), "") // nothing was dropped
				is.Equal(ask(t, client, "HEAD /streams/s", nil).header.Get("Etag"), tail3)
			}
			if test.tag != "" { // which is no offset
				is.Equal(got.header.Get("Stream-Next-Offset"), test.tag[1:17])
			}
		})
	}
}

// TestOtherLivesInWhatIsLeft: the place of a former life is not taken for one that was dropped, the end has its life.
func TestOtherLivesInWhatIsLeft(t *testing.T) {
	is := is.New(t)
	client, m := serve(t, streamhttp.Config{})
	secondLife(t, m)
	is.NoErr(m.Stream("s").Trim(t.Context(), 2))
	got := ask(t, client, "GET /streams/s", nil, "Last-Event-ID: 0000000000000000")
	is.Equal(got.status, http.StatusGone)
	is.Equal(got.body, `{"error":"resume \"s\" after 0: tail is 3, the stream was deleted since","tail":"0000000000000003"}`+"\n")
	got = ask(t, client, "POST /streams/s", nil, closing)
	is.Equal(got.header.Get("Etag"), `"0000000000000003-1"`)
	got = ask(t, client, "POST /streams/s", strings.NewReader(`{"data":1}`))
	is.Equal(got.status, http.StatusConflict)
	is.Equal(got.header.Get("Etag"), `"0000000000000003-1"`)
	got = ask(t, client, "GET /streams/s", nil, "Last-Event-ID: 0000000000000002-1")
	is.Equal(got.status, http.StatusNoContent)
	is.Equal(got.header.Get("Etag"), `"0000000000000003-1"`)
	for _, request := range []string{"POST /streams/none", "HEAD /streams/none"} { // it is there from then on
		is.Equal(ask(t, client, request, nil, closing).header.Get("Etag"), `"0000000000000000-1"`)
	}
}

// TestEventsAreOfTheLifeThatTheStreamIsMadeIn, which is known when that is followed before.
func TestEventsAreOfTheLifeThatTheStreamIsMadeIn(t *testing.T) {
	is := is.New(t)
	storage := &meddling{Storage: memory.New()}
	m := streamlib.NewManager(storage, streamlib.Plain, streamlib.Options{})
	client := serveHandler(t, streamhttp.NewHandler(m, streamhttp.Config{}))
	add(t, m.Stream("other"), "0")
	storage.then = func() { // behind the first look at the stream
		storage.then = nil
		is.NoErr(m.Stream("other").Delete(t.Context()))
	}
	s := subscribe(t, client, "/streams/s?offset=-1")
	is.Equal(s.block(), opening+position("-1", "0000000000000000"))
	is.Equal(s.line(), caughtUp(0))
	add(t, m.Stream("other"), "0")
	is.NoErr(m.Stream("other").Delete(t.Context()))
	add(t, m.Stream("s"), "0", "1")
	is.Equal(s.block(), lived(frame(0, "0")))
	is.Equal(ask(t, client, "HEAD /streams/s", nil).header.Get("Etag"), `"0000000000000002-1"`)
	again := subscribe(t, client, "/streams/s", "Last-Event-ID: 0000000000000000-1")
	is.Equal(again.block(), opening+lived(frame(1, "1")))
}

const opening = "retry: 1000\n"

func TestRemoteKnowsLives(t *testing.T) {
	is := is.New(t)
	client, m := serve(t, streamhttp.Config{})
	secondLife(t, m)
	s := client.Stream("s")
	want, err := m.Stream("s").Stat(t.Context())
	is.NoErr(err)
	is.Equal(want.Life, int64(1))
	info, err := s.Stat(t.Context())
	is.NoErr(err)
	is.Equal(info, want)
	page, err := client.List(t.Context(), streamhttp.ListOptions{Details: true})
	is.NoErr(err)
	is.Equal(page.Streams[0], want)
	tail := streamlib.Offset(3)
	for life, holds := range map[int64]bool{0: false, 1: true, 2: false} {
		for _, ifTail := range []*streamlib.Offset{nil, &tail} {
			batch := streamlib.Batch{Data: streamlib.JSON("3"), IfTail: ifTail, IfLife: &life}
			receipt, err := s.Append(t.Context(), batch)
			if holds {
				is.NoErr(err)
				is.Equal(receipt.Life, int64(1))
				tail = receipt.Tail
				continue
			}
			conflict, ok := errors.AsType[*streamlib.ConflictError](err)
			is.True(ok)
			is.Equal(*conflict, streamlib.ConflictError{Stream: "s", Tail: tail, Want: tail, Life: true})
		}
	}
	_, err = s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("3"), IfTail: &tail}) // of whichever life
	is.NoErr(err)
	_, err = client.Stream("none").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("3"), IfTail: new(streamlib.Offset)})
	is.NoErr(err)
}

// TestFollowSendsTheIdThatItWasSent, whatever that is made of.
func TestFollowSendsTheIdThatItWasSent(t *testing.T) {
	is := is.New(t)
	var asked []string
	note := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.URL.RawQuery+" "+r.Header.Get("Last-Event-ID"))
			next(w, r)
		}
	}
	text := func(s string) http.HandlerFunc { return note(frames("retry: 1\n" + s)) }
	client, _ := script(t, text(""), text(position("0000000000000004-7", "5")+"\n"), text(strings.Replace(wire(5), "\n", "-7\n", 1)),
		text(strings.Replace(wire(6), "\n", "-7\n", 1)+position("0000000000000009-7", "10")+"\n"), note(refuse(410)))
	for _, err := range client.Stream("s").Follow(t.Context(), streamhttp.Follow{From: 5, Types: []string{"x"}}) {
		if err != nil {
			is.Equal(err.Error(), "so it is")
		}
	}
	is.Equal(asked, []string{"offset=0000000000000005&type=x ", "offset=0000000000000005&type=x ",
		"offset=0000000000000005&type=x 0000000000000004-7", "offset=0000000000000005&type=x 0000000000000005-7",
		"offset=0000000000000005&type=x 0000000000000009-7"})
}

// TestFollowResumesInTheLifeThatItWasIn, which it tells.
func TestFollowResumesInTheLifeThatItWasIn(t *testing.T) {
	client, m := serve(t, streamhttp.Config{})
	secondLife(t, m)
	for _, test := range []struct {
		name string
		f    streamhttp.Follow
		want int // events
		gone bool
		// that it has caught up; the answer where there is nothing behind an id tells nothing
		tells bool
	}{
		{"of the former life", streamhttp.Follow{From: 1, Resume: true, Life: new(int64)}, 0, true, false},
		{"of a life to come", streamhttp.Follow{From: 1, Resume: true, Life: new(int64(2))}, 0, true, false},
		{"of this life", streamhttp.Follow{From: 1, Resume: true, Life: new(int64(1))}, 2, false, true},
		{"at the tail", streamhttp.Follow{From: 3, Resume: true, Life: new(int64(1))}, 0, false, false},
		{"of whichever life", streamhttp.Follow{From: 1, Resume: true}, 2, false, true},
		{"without an event", streamhttp.Follow{Resume: true, Life: new(int64)}, 3, false, true},
		{"not resumed", streamhttp.Follow{From: 1, Life: new(int64)}, 2, false, true},
		{"of now", streamhttp.Follow{From: streamlib.Now, Life: new(int64)}, 0, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			is := is.New(t)
			test.f.UntilTail = true
			lives := func(life int64) bool { return test.f.Life == nil || *test.f.Life == life }
			n, caughtUp, last := 0, false, error(nil)
			test.f.CaughtUp = func(streamlib.Offset) { caughtUp = lives(1) }
			for events, err := range client.Stream("s").Follow(t.Context(), test.f) {
				n, last = n+len(events), err
				is.True(err != nil || lives(1))
			}
			is.Equal(n, test.want)
			_, gone := errors.AsType[*streamlib.GoneError](last)
			is.Equal(gone, test.gone)
			is.Equal(last == nil, !gone)
			is.Equal(lives(1), !gone)
			is.Equal(caughtUp, test.tells)
		})
	}
}
