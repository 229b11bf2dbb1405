package streamhttp_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

const closing = "Stream-Closed: true"

// TestClosing sends requests one after the other, about one stream.
func TestClosing(t *testing.T) {
	const ndjson = "Content-Type: application/x-ndjson"
	const late = `{"error":"append \"s\": the stream was closed at 3","tail":"0000000000000003"}` + "\n"
	is := is.New(t)
	client, _ := serve(t, streamhttp.Config{})
	for _, test := range []struct {
		request string
		headers string // separated by |
		body    string
		status  int
		answer  string // the body; where it begins with ~, a part of it
		tail    string // of the headers, by its last digit
		closed  bool
	}{
		{"POST /streams/s", "", `{"data":0}`, 201, "", "1", false},
		{"POST /streams/s", "Stream-Closed: false", `{"data":1}`, 400, `~Stream-Closed`, "", false},
		{"POST /streams/s", "Stream-Closed: 1", `{"data":1}`, 400, `~it is true, or not there`, "", false},
		{"POST /streams/s", "Stream-Closed: ", `{"data":1}`, 400, `~Stream-Closed`, "", false},
		{"POST /streams/s", closing + "|" + closing, `{"data":1}`, 400, `~Stream-Closed`, "", false},
		{"POST /streams/s", closing, `{"data":`, 400, `~body`, "", false},
		{"POST /streams/s", closing + `|If-Match: "7"`, `{"data":1}`, 412, `~tail is 1, not 7`, "1", false},
		{"POST /streams/s", closing + `|If-Match: "7"`, ``, 412, `~tail is 1, not 7`, "1", false},
		{"POST /streams/s", `If-Match: "1"`, ``, 400, `~it is empty`, "", false},
		{"HEAD /streams/s", "", "", 200, "", "1", false}, // nothing of it did anything
		{"POST /streams/s", closing + "|" + ndjson + "|Idempotency-Key: k", "1\n2\n", 201,
			events(event(1, "1"), event(2, "2")), "3", true},
		{"POST /streams/s", closing + "|" + ndjson + "|Idempotency-Key: k", "1\n2\n", 200,
			events(event(1, "1"), event(2, "2")), "3", true},
		{"POST /streams/s", ndjson + "|Idempotency-Key: k", "1\n2\n", 200, events(event(1, "1"), event(2, "2")), "3", true},
		{"HEAD /streams/s", "", "", 200, "", "3", true},
		{"POST /streams/s", closing, "", 204, "", "3", true},
		{"POST /streams/s", "Stream-Closed: True|" + ndjson, "\n\n", 204, "", "3", true}, // no event is none
		{"POST /streams/s", closing + `|If-Match: "3"`, "", 204, "", "3", true},
		{"POST /streams/s", closing + `|If-Match: "2"`, "", 412, "~tail is 3, not 2", "3", false},
		{"POST /streams/s", "", `{"data":3}`, 409, late, "3", true},
		{"POST /streams/s", closing, `{"data":3}`, 409, late, "3", true},
		{"POST /streams/s", ndjson, "3\n4\n", 409, late, "3", true},
		{"POST /streams/s", "Idempotency-Key: other", `{"data":3}`, 409, late, "3", true},
		{"POST /streams/s", `If-Match: "2"`, `{"data":3}`, 409, late, "3", true}, // which is for good
		{"POST /streams/s", "", `{"data":`, 400, "~body", "", false},
		{"POST /streams/none", closing, "", 204, "", "0", true},
		{"HEAD /streams/none", "", "", 200, "", "0", true},
		{"POST /streams/none", closing, "", 204, "", "0", true},
		{"GET /streams", "", "", 200, `{"streams":["none","s"]}` + "\n", "", false},
		{"GET /streams?details=true", "", "", 200, `{"streams":[` +
			`{"name":"none","nextOffset":"0000000000000000","updatedAt":"TIME","closed":true},` +
			`{"name":"s","nextOffset":"0000000000000003","size":308,"createdAt":"TIME","updatedAt":"TIME","closed":true}]}` + "\n",
			"", false},
		{"DELETE /streams/s", "", "", 204, "", "", false},
		{"HEAD /streams/s", "", "", 404, "", "0", false},
	} {
		t.Run(test.request+" "+test.headers+" "+test.body, func(t *testing.T) {
			is := is.New(t)
			var headers []string
			if test.headers != "" {
				headers = strings.Split(test.headers, "|")
			}
			got := ask(t, client, test.request, strings.NewReader(test.body), headers...)
			is.Equal(got.status, test.status)
			if part, ok := strings.CutPrefix(test.answer, "~"); ok {
				is.True(strings.Contains(got.body, part))
			} else if test.answer != "" {
				is.Equal(got.body, test.answer)
			}
			is.Equal(got.header.Get("Stream-Closed"), map[bool]string{true: "true"}[test.closed])
			tail := got.header.Get("Stream-Next-Offset")
			is.Equal(strings.TrimPrefix(tail, "000000000000000"), test.tail)
		})
	}
	got := ask(t, client, "HEAD /streams/none", nil)
	is.Equal(got.header.Get("Stream-Created-At"), "")  // of no event
	is.True(got.header.Get("Stream-Updated-At") != "") // by the closing
}

// closed are the events abc in stream s of m, and its end.
func closed(t testing.TB, m *streamlib.Manager) {
	t.Helper()
	batch := streamlib.Batch{Data: streamlib.JSON(abc...), Close: true}
	if _, err := m.Stream("s").Append(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
}

func TestReadsTellTheEndWhereTheyReachIt(t *testing.T) {
	for query, reaches := range map[string]bool{
		"": true, "?offset=1": true, "?offset=3": true, "?offset=7": true, "?offset=now": true, "?limit=3": true,
		"?limit=9": true,
		"?last=1":  true, "?since=1h": true, "?offset=1&limit=1": false, "?limit=2": false, "?offset=1&limit=2": true,
		"?type=b": true, "?type=x": true, "?type=b&last=1": false, "?type=a&limit=1": false, "?type=b&limit=1": false,
		"?type=b&limit=2": true, "?type=a&limit=2": true, "?type=a&last=1": true,
		"?offset=3&wait=1h": true, "?offset=7&wait=1h": true, "?type=x&wait=1h": true, "?type=x&limit=1&wait=1h": true,
		"?wait=1h": true, "?limit=1&wait=1h": false,
	} {
		for _, accept := range []string{"application/json", "application/x-ndjson"} {
			t.Run(query+" "+accept, func(t *testing.T) {
				is := is.New(t)
				client, m := serve(t, streamhttp.Config{})
				add(t, m.Stream("s"), abc...)
				if !strings.Contains(query, "wait") {
					got := ask(t, client, "GET /streams/s/events"+query, nil, "Accept: "+accept)
					is.Equal(got.header["Stream-Closed"], nil)
				}
				_, err := m.Stream("s").Append(t.Context(), streamlib.Batch{Close: true})
				is.NoErr(err)
				got := ask(t, client, "GET /streams/s/events"+query, nil, "Accept: "+accept)
				is.Equal(got.status, 200)
				is.Equal(got.header.Get("Stream-Closed"), map[bool]string{true: "true"}[reaches])
			})
		}
	}
	t.Run("a long answer", func(t *testing.T) {
		is := is.New(t)
		client, m := serve(t, streamhttp.Config{})
		long := slices.Repeat(streamlib.JSON(`"`+strings.Repeat("x", 1000)+`"`), 1000)
		_, err := m.Stream("s").Append(t.Context(), streamlib.Batch{Data: long, Close: true})
		is.NoErr(err)
		got := ask(t, client, "GET /streams/s/events", nil)
		is.Equal(got.header.Get("Content-Length"), "")
		is.Equal(got.header.Get("Stream-Closed"), "true")
	})
}

// TestWaitingEndsWithTheStream: a long poll answers at once when the stream that it waits at is closed.
func TestWaitingEndsWithTheStream(t *testing.T) {
	for _, test := range []struct {
		query, data string
		next        string
		body        string
	}{
		{"wait=1h", "", "0000000000000000", events()},
		{"wait=1h", "0", "0000000000000001", events(event(0, "0"))},
		{"wait=1h&limit=1", "0", "0000000000000001", events(event(0, "0"))},
		{"wait=1h&type=x", "0", "0000000000000001", events()},
		{"wait=1h&limit=1&type=x", `{"type":"x"}`, "", events(event(0, `{"type":"x"}`))},
		{"wait=1h&offset=7", "0", "0000000000000001", events()},
		{"wait=1h", `"` + strings.Repeat("x", 200_000) + `"`, "0000000000000001",
			events(event(0, `"`+strings.Repeat("x", 200_000)+`"`))}, // more than is sent at once
	} {
		bubble(t, func(t *testing.T, client *streamhttp.Client, m *streamlib.Manager, _ func() net.Conn) {
			is := is.New(t)
			start, got := time.Now(), make(chan reply)
			go func() {
				resp, err := client.HTTP.Get(client.URL + "/streams/s/events?" + test.query)
				if err != nil {
					panic(err)
				}
				defer resp.Body.Close()
				body, _ := io.ReadAll(resp.Body)
				got <- reply{resp.StatusCode, resp.Header, times.ReplaceAllString(string(body), "TIME")}
			}()
			synctest.Wait()
			batch := streamlib.Batch{Close: true}
			if test.data != "" {
				batch.Data = streamlib.JSON(test.data)
			}
			_, err := m.Stream("s").Append(t.Context(), batch)
			is.NoErr(err)
			r := <-got
			is.Equal(time.Since(start), time.Duration(0))
			is.Equal(r.status, 200)
			is.Equal(r.body, test.body)
			is.Equal(r.header.Get("Stream-Closed"), "true")
			is.Equal(r.header.Get("Stream-Next-Offset"), test.next)
		})
	}
}

// remade is a stream that is deleted and made again, longer and open, behind the n-th Stat.
type remade struct {
	streamlib.Stream
	n *int
}

func (r remade) Stat(ctx context.Context) (streamlib.Info, error) {
	info, err := r.Stream.Stat(ctx)
	if *r.n--; *r.n == 0 {
		_ = r.Delete(ctx)
		_, _ = r.Append(ctx, streamlib.Batch{Data: streamlib.JSON("5", "6", "7", "8")})
	}
	return info, err
}

func serveRemade(t *testing.T, n *int) (*streamhttp.Client, *streamlib.Manager) {
	m := streamlib.NewManager(memory.New(), func(name string, s streamlib.Storage, o streamlib.Options) streamlib.Stream {
		return remade{streamlib.Plain(name, s, o), n}
	}, streamlib.Options{})
	return serveHandler(t, streamhttp.NewHandler(m, streamhttp.Config{})), m
}

// TestNoEndIsToldOfAnotherLife: the events are those of a stream that goes on, what is known is of one that was closed.
func TestNoEndIsToldOfAnotherLife(t *testing.T) {
	for n := range 3 {
		is := is.New(t)
		count := 0
		client, m := serveRemade(t, &count)
		closed(t, m)
		count = n
		got := ask(t, client, "GET /streams/s/events", nil)
		is.Equal(got.status, 200)
		is.Equal(got.header.Get("Stream-Closed") == "true", strings.Contains(got.body, `"data":{"type":"a"}`))
	}
}

// TestSubscriptionFindsItsPlaceInOneLife: a place that was found in a stream that is deleted then is looked for again.
func TestSubscriptionFindsItsPlaceInOneLife(t *testing.T) {
	for query, want := range map[string]string{
		"?offset=now": position("0000000000000003-1", "0000000000000004"),
		"?last=1":     position("0000000000000002-1", "0000000000000004"),
	} {
		is := is.New(t)
		count := 0
		client, m := serveRemade(t, &count)
		closed(t, m)
		count = 1
		is.Equal(subscribe(t, client, "/streams/s"+query).block(), "retry: 1000\n"+want)
	}
}

const endFrame = "event: end\ndata: {\"tail\":\"0000000000000003\"}\n"

func TestSubscriptionsEndBehindTheLastEvent(t *testing.T) {
	for _, test := range []struct {
		query, lastEventID string
		frames             []string // none is a 204
	}{
		{"?offset=0", "", []string{"retry: 1000\n" + frame(0, abc[0]), frame(1, abc[1]), frame(2, abc[2])}},
		{"?last=1", "", []string{"retry: 1000\n" + position("0000000000000001", "0000000000000003"), frame(2, abc[2])}},
		{"?offset=0&type=b", "", []string{"retry: 1000\n" + frame(1, abc[1]),
			position("0000000000000002", "0000000000000003")}},
		{"", "1", []string{"retry: 1000\n" + frame(2, abc[2])}},
		{"", "0000000000000002", nil},
		{"?lastEventId=0000000000000002", "", nil},
		{"?offset=0&type=b", "0000000000000002", nil},
		{"?offset=3", "", nil},
		{"?offset=7", "", nil},
		{"?offset=now", "", nil},
		{"?offset=3&until=tail", "", nil},
		{"", "", nil},
	} {
		t.Run(test.query+" "+test.lastEventID, func(t *testing.T) {
			is := is.New(t)
			client, m := serve(t, streamhttp.Config{})
			closed(t, m)
			var headers []string
			if test.lastEventID != "" {
				headers = []string{"Last-Event-ID: " + test.lastEventID}
			}
			got := ask(t, client, "GET /streams/s"+test.query, nil, headers...) // to the end of the answer
			if len(test.frames) == 0 {
				is.Equal(got.status, http.StatusNoContent)
				is.Equal(got.body, "")
				is.Equal(got.header.Get("Stream-Closed"), "true")
				is.Equal(got.header.Get("Stream-Next-Offset"), "0000000000000003")
				return
			}
			is.Equal(got.status, http.StatusOK)
			is.Equal(got.header["Stream-Closed"], nil) // there is more to come
			is.Equal(got.body, strings.Join(append(test.frames, caughtUp(3)+endFrame, ""), "\n"))
		})
	}
	t.Run("beyond the tail of the last event", func(t *testing.T) {
		is := is.New(t)
		client, m := serve(t, streamhttp.Config{})
		closed(t, m)
		is.Equal(ask(t, client, "GET /streams/s", nil, "Last-Event-ID: 0000000000000003").status, http.StatusGone)
	})
	t.Run("without events", func(t *testing.T) {
		is := is.New(t)
		client, m := serve(t, streamhttp.Config{})
		s := subscribe(t, client, "/streams/s?offset=-1")
		is.Equal(s.block(), "retry: 1000\n"+position("-1", "0000000000000000"))
		_, err := m.Stream("s").Append(t.Context(), streamlib.Batch{Close: true})
		is.NoErr(err)
		rest, err := io.ReadAll(s.r)
		is.NoErr(err)
		is.Equal(string(rest), caughtUp(0)+"event: end\ndata: {\"tail\":\"0000000000000000\"}\n\n")
		is.Equal(ask(t, client, "GET /streams/s?offset=-1", nil, "Last-Event-ID: -1").status, http.StatusNoContent)
	})
}

func TestClosingEndsSubscriptions(t *testing.T) {
	for query, rest := range map[string]string{
		"?offset=0":        frame(0, abc[0]) + "\n" + frame(1, abc[1]) + "\n" + frame(2, abc[2]) + "\n" + endFrame + "\n",
		"?offset=7":        endFrame + "\n", // it will never be there
		"?offset=0&type=x": position("0000000000000002", "0000000000000003") + "\n" + endFrame + "\n",
	} {
		is := is.New(t)
		client, m := serve(t, streamhttp.Config{})
		s, all := subscribe(t, client, "/streams/s"+query), subscribe(t, client, "/streams", "Accept: text/event-stream")
		s.block()
		closed(t, m)
		got, err := io.ReadAll(s.r)
		is.NoErr(err)
		is.Equal(times.ReplaceAllString(string(got), "TIME"), caughtUp(0)+rest)
		for range abc {
			all.block()
		}
		add(t, m.Stream("t"), "0") // of all streams there is more
		is.True(strings.Contains(all.block(), `"eventStreamId":"t"`))
	}
}

func TestFollowEndsBehindTheLastEvent(t *testing.T) {
	const opening, end = "retry: 1\nevent: position\nid: -1\ndata: {\"tail\":\"0000000000000000\"}\n\n",
		"event: end\ndata: {\"tail\":\"0000000000000001\"}\n\n"
	over := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Stream-Closed", "true")
		w.WriteHeader(http.StatusNoContent)
	}
	nothing := func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) }
	for _, test := range []struct {
		name    string
		answers []http.HandlerFunc
		events  int
		err     string
		asked   int64
	}{
		{"while it is read", []http.HandlerFunc{frames(opening + wire(0) + end)}, 1, "", 1},
		{"at once", []http.HandlerFunc{over}, 0, "", 1},
		{"while nobody reads", []http.HandlerFunc{frames(opening + wire(0)), over}, 1, "", 2},
		{"cut", []http.HandlerFunc{frames(opening + wire(0) + "event: end\n"), over}, 1, "", 2},
		{"too early", []http.HandlerFunc{frames(opening + end)}, 0,
			`subscribe "s": the server left out or repeated events`, 1},
		{"of another server", []http.HandlerFunc{nothing}, 0,
			`subscribe "s": the answer is not that of a durable-streams server`, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			is := is.New(t)
			client, asked := script(t, test.answers...)
			n, last := 0, error(nil)
			for events, err := range client.Stream("s").Subscribe(t.Context(), 0) {
				n, last = n+len(events), err
			}
			is.Equal(n, test.events)
			is.Equal(asked.Load(), test.asked)
			if test.err == "" {
				is.NoErr(last)
			} else {
				is.Equal(last.Error(), test.err)
			}
		})
	}
}

// TestCloseOfAnotherServer: one that takes the events and does not know of the end is not taken for one that does.
func TestCloseOfAnotherServer(t *testing.T) {
	is := is.New(t)
	older := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Stream-Closed")
			h.ServeHTTP(w, r)
		})
	}
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	s := serveHandler(t, older(streamhttp.NewHandler(m, streamhttp.Config{}))).Stream("s")
	_, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("0"), Close: true})
	is.True(strings.Contains(err.Error(), "closing the stream"))
	_, err = s.Append(t.Context(), streamlib.Batch{Close: true})
	is.True(errors.Is(err, streamlib.ErrInvalid))
	other, _ := script(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"error":"so it is","tail":"7"}`)
	})
	_, err = other.Stream("s").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("0")})
	_, closed := errors.AsType[*streamlib.ClosedError](err)
	is.True(!closed) // not every conflict is an end
}
