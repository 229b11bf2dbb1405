package protocol_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/disk"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/iterate/durable-streams/streamlib/streamhttp/protocol"
	"github.com/matryer/is"
)

// served is a handler and the storage below it.
type served struct {
	http.Handler
	storage streamlib.Storage
}

func handler(s streamlib.Storage, f streamlib.Factory) http.Handler {
	m := streamlib.NewManager(s, f, streamlib.Options{})
	return streamhttp.NewHandler(m, streamhttp.Config{Protocol: protocol.NewHandler(m, protocol.Config{}).Serve})
}

// do sends a request, whose headers stand in lines, and returns the answer and its body.
func do(h http.Handler, request, headers, body string) (*http.Response, string) {
	method, url, _ := strings.Cut(request, " ")
	r := httptest.NewRequest(method, "http://localhost"+url, strings.NewReader(body))
	for line := range strings.SplitSeq(headers, "\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			r.Header.Add(name, value)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	b, _ := io.ReadAll(w.Result().Body)
	return w.Result(), string(b)
}

const js = "Content-Type: application/json\n"

func by(id string, epoch, seq int) string {
	return fmt.Sprintf("%sProducer-Id: %s\nProducer-Epoch: %d\nProducer-Seq: %d\n", js, id, epoch, seq)
}

func TestAMalformedRequestIsRefused(t *testing.T) {
	h := handler(memory.New(), streamlib.Plain)
	do(h, "PUT /v1/stream/s", js, "[1,2]")
	do(h, "PUT /v1/stream/closed", js+"Stream-Closed: true", "[1]")
	do(h, "PUT /v1/stream/text", "Content-Type: text/plain", "four")
	do(h, "PUT /v1/stream/empty", js, "")
	const fork = "Stream-Forked-From: /v1/stream/"
	long := strings.Repeat("x", 1025)
	producer := func(id, epoch, seq string) string {
		return js + "Producer-Id: " + id + "\nProducer-Epoch: " + epoch + "\nProducer-Seq: " + seq
	}
	for _, test := range []struct {
		request, headers, body string
		status                 int
	}{
		{"PUT /v1/stream/t", "Stream-TTL: ", "", 400},
		{"PUT /v1/stream/t", "Stream-TTL: 01", "", 400},
		{"PUT /v1/stream/t", "Stream-TTL: +1", "", 400},
		{"PUT /v1/stream/t", "Stream-TTL: 1.0", "", 400},
		{"PUT /v1/stream/t", "Stream-TTL: 1e3", "", 400},
		{"PUT /v1/stream/t", "Stream-TTL: 0x1", "", 400},
		{"PUT /v1/stream/t", "Stream-TTL: -1", "", 400},
		{"PUT /v1/stream/t", "Stream-TTL: 9223372036854775808", "", 400},
		{"PUT /v1/stream/t", "Stream-TTL: 1\nStream-TTL: 1", "", 400},
		{"PUT /v1/stream/t", "Stream-Expires-At: ", "", 400},
		{"PUT /v1/stream/t", "Stream-Expires-At: tomorrow", "", 400},
		{"PUT /v1/stream/t", "Stream-Expires-At: 2030-01-01", "", 400},
		{"PUT /v1/stream/t", "Stream-Expires-At: 2030-01-01T00:00:00", "", 400}, // without a zone
		{"PUT /v1/stream/t", "Stream-Expires-At: 2030-13-01T00:00:00Z", "", 400},
		{"PUT /v1/stream/t", "Stream-TTL: 1\nStream-Expires-At: 2030-01-01T00:00:00Z", "", 400},
		{"PUT /v1/stream/t", "Content-Type: text/" + long, "", 400},
		{"PUT /v1/stream/t", "Content-Type: text/\xff", "", 400},
		{"PUT /v1/stream/t", js, "{", 400},
		{"PUT /v1/stream/t", js + "Content-Encoding: gzip", "1", 415},
		{"PUT /v1/stream/__ds/subscriptions/a", js, "", 501},
		{"PUT /v1/stream/s", "Content-Type: text/plain", "", 409},
		{"PUT /v1/stream/s", js + "Stream-TTL: 1", "", 409},
		{"PUT /v1/stream/s", js + "Stream-Closed: true", "", 409},
		{"PUT /v1/stream/closed", js, "", 409},

		{"PUT /v1/stream/t", "Stream-Fork-Sub-Offset: 1", "", 400},
		{"PUT /v1/stream/t", "Stream-Fork-Sub-Offset: 0", "", 400},
		{"PUT /v1/stream/t", "Stream-Fork-Offset: -1", "", 400},
		{"PUT /v1/stream/t", "Stream-Forked-From: ", "", 400},
		{"PUT /v1/stream/t", fork + "none", "", 404},
		{"PUT /v1/stream/t", fork + "s\nContent-Type: text/plain", "", 409},
		{"PUT /v1/stream/t", fork + "s\nStream-Fork-Offset: ", "", 400},
		{"PUT /v1/stream/t", fork + "s\nStream-Fork-Offset: 1", "", 400},
		{"PUT /v1/stream/t", fork + "s\nStream-Fork-Offset: now", "", 400},
		{"PUT /v1/stream/t", fork + "s\nStream-Fork-Offset: 0000000000000003", "", 400},
		{"PUT /v1/stream/t", fork + "s\nStream-Fork-Offset: 9999999999999999_9999999999999999", "", 400},
		{"PUT /v1/stream/t", fork + "s\nStream-Fork-Offset: -1\nStream-Fork-Sub-Offset: ", "", 400},
		{"PUT /v1/stream/t", fork + "s\nStream-Fork-Offset: -1\nStream-Fork-Sub-Offset: 01", "", 400},
		{"PUT /v1/stream/t", fork + "s\nStream-Fork-Offset: -1\nStream-Fork-Sub-Offset: -1", "", 400},
		{"PUT /v1/stream/t", fork + "s\nStream-Fork-Offset: -1\nStream-Fork-Sub-Offset: 1.5", "", 400},
		{"PUT /v1/stream/t", fork + "s\nStream-Fork-Offset: -1\nStream-Fork-Sub-Offset: 3", "", 400},
		{"PUT /v1/stream/t", fork + "s\nStream-Fork-Sub-Offset: 1", "", 400}, // at the tail
		{"PUT /v1/stream/t", fork + "empty\nStream-Fork-Offset: -1\nStream-Fork-Sub-Offset: 1", "", 400},
		{"PUT /v1/stream/t", fork + "text\nStream-Fork-Offset: -1\nStream-Fork-Sub-Offset: 5", "", 400},

		{"POST /v1/stream/none", js, "1", 404},
		{"POST /v1/stream/s", js, "", 400},
		{"POST /v1/stream/s", js, " \n", 400},
		{"POST /v1/stream/s", js, "[]", 400},
		{"POST /v1/stream/s", js, " [ ] ", 400},
		{"POST /v1/stream/s", js, "{", 400},
		{"POST /v1/stream/s", js, "[1,]", 400},
		{"POST /v1/stream/s", js, "[1][2]", 400},
		{"POST /v1/stream/s", js, "1 2", 400},
		{"POST /v1/stream/s", js, "NaN", 400},
		{"POST /v1/stream/s", js, "\"\xff\"", 400},
		{"POST /v1/stream/s", js, strings.Repeat("[", 2000) + strings.Repeat("]", 2000), 400},
		{"POST /v1/stream/s", js, `"` + strings.Repeat("x", streamlib.MaxEvent) + `"`, 413},
		{"POST /v1/stream/text", "Content-Type: text/plain", strings.Repeat("x", streamlib.MaxEvent), 413},
		{"POST /v1/stream/text", "Content-Type: text/plain", strings.Repeat("x", streamlib.MaxBatch+1<<20), 413},
		{"POST /v1/stream/s", "", "1", 400},
		{"POST /v1/stream/s", "Content-Type: text/plain", "1", 409},
		{"POST /v1/stream/s", js + "Content-Encoding: gzip", "1", 415},
		{"POST /v1/stream/s", "Stream-Closed: yes", "", 400}, // it is as if it were not there
		{"POST /v1/stream/closed", js, "1", 409},
		{"POST /v1/stream/closed", "Content-Type: text/plain", "1", 409},
		{"POST /v1/stream/s", js + "Stream-Seq: " + long, "1", 400},
		{"POST /v1/stream/s", js + "Stream-Seq: a\nStream-Seq: b", "1", 400},
		{"POST /v1/stream/s", js + "Producer-Id: p", "1", 400},
		{"POST /v1/stream/s", js + "Producer-Epoch: 0", "1", 400},
		{"POST /v1/stream/s", js + "Producer-Seq: 0", "1", 400},
		{"POST /v1/stream/s", js + "Producer-Id: p\nProducer-Seq: 0", "1", 400},
		{"POST /v1/stream/s", producer("", "0", "0"), "1", 400},
		{"POST /v1/stream/s", producer(long, "0", "0"), "1", 400},
		{"POST /v1/stream/s", producer("\xff", "0", "0"), "1", 400},
		{"POST /v1/stream/s", producer("p", "-1", "0"), "1", 400},
		{"POST /v1/stream/s", producer("p", "+1", "0"), "1", 400},
		{"POST /v1/stream/s", producer("p", "1.0", "0"), "1", 400},
		{"POST /v1/stream/s", producer("p", "1e3", "0"), "1", 400},
		{"POST /v1/stream/s", producer("p", "", "0"), "1", 400},
		{"POST /v1/stream/s", producer("p", "9007199254740992", "0"), "1", 400},
		{"POST /v1/stream/s", producer("p", "0", "9007199254740992"), "1", 400},
		{"POST /v1/stream/s", producer("p", "0", "x"), "1", 400},
		{"POST /v1/stream/s", producer("p", "0", "1"), "1", 409},

		{"GET /v1/stream/s?offset=", "", "", 400},
		{"GET /v1/stream/s?offset=-1&offset=-1", "", "", 400},
		{"GET /v1/stream/s?offset=1", "", "", 400},
		{"GET /v1/stream/s?offset=-2", "", "", 400},
		{"GET /v1/stream/s?offset=NOW", "", "", 400},
		{"GET /v1/stream/s?offset=00000000000000000", "", "", 400},
		{"GET /v1/stream/s?offset=0000000000000000,1", "", "", 400},
		{"GET /v1/stream/s?offset=0000000000000000%201", "", "", 400},
		{"GET /v1/stream/s?offset=..", "", "", 400},
		{"GET /v1/stream/s?offset=a/b", "", "", 400},
		{"GET /v1/stream/s?offset=%00", "", "", 400},
		{"GET /v1/stream/s?offset=-1%0D%0Ax:%20y", "", "", 400},
		{"GET /v1/stream/s?offset=9999999999999999_9999999999999999", "", "", 400},
		{"GET /v1/stream/s?offset=0000000000000009", "", "", 410},
		{"GET /v1/stream/s?offset=%zz", "", "", 400},
		{"GET /v1/stream/s?live=sse", "", "", 400},
		{"GET /v1/stream/s?live=long-poll", "", "", 400},
		{"GET /v1/stream/s?live=ever&offset=-1", "", "", 400},
		{"GET /v1/stream/none", "", "", 404},
		{"GET /v1/stream/none?offset=-1&live=sse", "", "", 404},
		{"GET /v1/stream/none?offset=-1&live=long-poll", "", "", 404},
		{"DELETE /v1/stream/none", "", "", 404},
		{"PATCH /v1/stream/s", "", "", 405},
		{"GET /v1/stream/" + strings.Repeat("x", 256), "", "", 400},
	} {
		if resp, body := do(h, test.request, test.headers, test.body); resp.StatusCode != test.status ||
			!strings.HasPrefix(body, `{"error":"`) || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %.100q %.20q: %d %s, want %d", test.request, test.headers, test.body, resp.StatusCode, body,
				test.status)
		}
	}
	if _, body := do(h, "GET /v1/stream/s", "", ""); body != "[1,2]" {
		t.Errorf("something was stored: %s", body)
	}
	if resp, _ := do(h, "HEAD /v1/stream/t", "", ""); resp.StatusCode != 404 {
		t.Error("something was made")
	}
}

// TestWhatIsLegal is what the table above comes near to.
func TestWhatIsLegal(t *testing.T) {
	h := handler(memory.New(), streamlib.Plain)
	do(h, "PUT /v1/stream/text", "Content-Type: text/plain", "four")
	for i, test := range []struct {
		request, headers, body string
		status                 int
	}{
		{"PUT /v1/stream/a", js + "Stream-TTL: 0", "", 201},
		{"PUT /v1/stream/b", js + "Stream-Expires-At: 2100-01-01T00:00:00+02:00", "[]", 201},
		{"PUT /v1/stream/b", "Content-Type: APPLICATION/json\nStream-Expires-At: 2100-01-01T00:00:00+02:00", "ignored", 200},
		{"PUT /v1/stream/c/d/e", js + "Stream-Closed: TRUE", "[1]", 201},
		{"PUT /v1/stream/c%2Fd%2Fe", js + "Stream-Closed: true", "", 200}, // it is the same name
		{"PUT /v1/stream/f", js, "", 201},
		{"POST /v1/stream/f", "Content-Type: application/json; charset=utf-8", "[[1,2],[3]]", 204},
		{"POST /v1/stream/f", js + "Producer-Id: p\nProducer-Epoch: 9007199254740991\nProducer-Seq: 0", "null", 200},
		{"POST /v1/stream/f", js + "Stream-Seq: 09", "1", 204},
		{"POST /v1/stream/f", js + "Stream-Seq: 10", "1", 204},
		{"POST /v1/stream/f", js + "Stream-Seq: 1", "1", 409},
		{"POST /v1/stream/f", "Stream-Closed: true", "", 204},
		{"POST /v1/stream/f", "Stream-Closed: true", "", 204},
		{"PUT /v1/stream/g", "Stream-Forked-From: /v1/stream/text\nStream-Fork-Offset: " +
			"0000000000000000_0000000000000000\nStream-Fork-Sub-Offset: 3", "", 201},
		{"GET /v1/stream/g?offset=0000000000000000_0000000000000000&more=1", "", "", 200},
		{"OPTIONS /v1/stream/f", "", "", 204},
	} {
		if resp, body := do(h, test.request, test.headers, test.body); resp.StatusCode != test.status {
			t.Errorf("%d %s %q: %d %s, want %d", i, test.request, test.headers, resp.StatusCode, body, test.status)
		}
	}
	if _, body := do(h, "GET /v1/stream/f", "", ""); body != "[[1,2],[3],null,1,1]" {
		t.Error(body)
	}
	if _, body := do(h, "GET /v1/stream/g", "", ""); body != "fou" {
		t.Error(body)
	}
}

// TestBothWaysSeeTheSameStream: both append to one stream at once, and both of them read all of it in one order,
// nothing lost, doubled or out of its writer's order. Neither way makes the other wait.
func TestBothWaysSeeTheSameStream(t *testing.T) {
	is := is.New(t)
	s, err := disk.Open(t.TempDir(), disk.Options{NoSync: true})
	is.NoErr(err)
	defer s.Close()
	h := handler(s, streamlib.Plain)
	do(h, "PUT /v1/stream/s", js, "")
	const writers, each = 8, 60
	var all, live sync.WaitGroup
	var natives, acknowledged atomic.Int64
	counts := [writers]int{} // of the protocol's
	for _, at := range []string{"/streams/s?offset=-1", "/v1/stream/s?offset=-1&live=sse"} {
		live.Go(func() {
			resp, body := do(h, "GET "+at, "", "")
			if resp.StatusCode != 200 || strings.Count(body, `"last"`) != 1 {
				t.Errorf("%s ended with %d %.100s", at, resp.StatusCode, body)
			}
		})
	}
	for writer := range writers {
		all.Go(func() {
			defer func() {
				if natives.Add(1) == writers && acknowledged.Load() < writers*each/10 {
					t.Error("the protocol's writers starve")
				}
			}()
			for i := range each {
				body := fmt.Sprintf("[\"n\",%d,%d,0]\n[\"n\",%[1]d,%[2]d,1]", writer, i)
				if resp, body := do(h, "POST /streams/s", "Content-Type: application/x-ndjson", body); resp.StatusCode != 201 {
					t.Error(resp.StatusCode, body)
				}
			}
		})
		all.Go(func() {
			for i := 0; i < each || natives.Load() < writers; i++ {
				body := fmt.Sprintf(`[["p",%d,%d,0],["p",%[1]d,%[2]d,1]]`, writer, i)
				resp, answer := do(h, "POST /v1/stream/s", by(fmt.Sprint(writer), 0, i), body)
				again, _ := do(h, "POST /v1/stream/s", by(fmt.Sprint(writer), 0, i), body)
				if resp.StatusCode != 200 || again.StatusCode != 204 {
					t.Error(resp.StatusCode, again.StatusCode, answer)
					return
				}
				acknowledged.Add(1)
				if counts[writer]++; natives.Load() < writers && i > 50*each {
					t.Error("a native writer starves")
					return
				}
			}
		})
	}
	all.Wait()
	do(h, "POST /v1/stream/s", js+"Stream-Closed: true", `"last"`)
	live.Wait()
	_, body := do(h, "GET /v1/streams/s", "", "")
	_, native := do(h, "GET /streams/s/events", "Accept: application/x-ndjson", "")
	var values []json.RawMessage
	is.NoErr(json.Unmarshal([]byte(body), &values))
	next := map[string]int{}
	events := strings.Split(strings.TrimSpace(native), "\n")
	is.Equal(len(events), len(values))
	for i, value := range values {
		is.True(strings.Contains(events[i], fmt.Sprintf(`{"offset":"%016d","eventStreamId":"s","data":%s,`, i, value)))
		part := strings.Split(strings.Trim(string(value), "[]"), ",")
		if i == len(values)-1 {
			is.Equal(part[0], `"last"`)
			break
		}
		by := part[0] + part[1]
		is.Equal(part[2]+","+part[3], fmt.Sprintf("%d,%d", next[by]/2, i%2)) // each batch is whole
		next[by]++
	}
	for writer := range writers {
		is.Equal(next[fmt.Sprintf(`"n"%d`, writer)], 2*each)
		is.Equal(next[fmt.Sprintf(`"p"%d`, writer)], 2*counts[writer])
	}
}

// TestHooksSeeDataAlone: a stream is made without one, and a veto tells its hook.
func TestHooksSeeDataAlone(t *testing.T) {
	is := is.New(t)
	h := handler(memory.New(), streamlib.Validated)
	resp, _ := do(h, "PUT /v1/stream/s", js, "")
	is.Equal(resp.StatusCode, 201)
	resp, body := do(h, "POST /v1/stream/s", by("p", 0, 0), `{"a":1}`)
	is.Equal(resp.StatusCode, 400)
	is.True(strings.Contains(body, `"hookId":"validate-type"`))
	resp, _ = do(h, "POST /v1/stream/s", by("p", 0, 0), `{"_type":"a"}`) // which the veto did not count
	is.Equal(resp.StatusCode, 200)
}

// TestADuplicateIsOneWhateverHooksSay by now.
func TestADuplicateIsOneWhateverHooksSay(t *testing.T) {
	is := is.New(t)
	vetoes := false
	hook := streamlib.BeforeHook{ID: "veto", Run: func(context.Context, string, json.RawMessage) error {
		if vetoes {
			return errors.New("no more")
		}
		return nil
	}}
	h := handler(memory.New(), func(name string, s streamlib.Storage, o streamlib.Options) streamlib.Stream {
		return streamlib.WithHooks(streamlib.Plain(name, s, o), streamlib.Hooks{Before: []streamlib.BeforeHook{hook}})
	})
	do(h, "PUT /v1/stream/s", js, "")
	do(h, "POST /v1/stream/s", by("p", 0, 0), `1`)
	do(h, "POST /v1/stream/s", by("p", 0, 1)+"Stream-Closed: true", `2`)
	vetoes = true
	resp, _ := do(h, "POST /v1/stream/s", by("p", 0, 1)+"Stream-Closed: true", `2`)
	is.Equal(resp.StatusCode, 204)
	is.Equal(resp.Header.Get("Stream-Closed"), "true")
	do(h, "DELETE /v1/stream/s", "", "")
	vetoes = false
	do(h, "PUT /v1/stream/s", js, "")
	do(h, "POST /v1/stream/s", by("p", 0, 0), `1`)
	vetoes = true
	resp, _ = do(h, "POST /v1/stream/s", by("p", 0, 0), `1`)
	is.Equal(resp.StatusCode, 204)
	is.Equal(resp.Header.Get("Producer-Seq"), "0")
	resp, _ = do(h, "POST /v1/stream/s", by("p", 0, 1), `1`)
	is.Equal(resp.StatusCode, 400)
}

// TestHooksAreToldOfDataAlone: so it is with what hooks that come after an append are told.
func TestHooksAreToldOfDataAlone(t *testing.T) {
	is := is.New(t)
	var told []string
	var mu sync.Mutex
	tell := func(_ string, events []streamlib.Event) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range events {
			told = append(told, string(e.Data()))
		}
	}
	after := streamlib.AfterHook{ID: "tell", Run: func(_ context.Context, name string, e streamlib.Event) error {
		tell(name, []streamlib.Event{e})
		return nil
	}}
	h := handler(memory.New(), func(name string, s streamlib.Storage, o streamlib.Options) streamlib.Stream {
		hooks := streamlib.Hooks{After: []streamlib.AfterHook{after}, Tell: tell}
		return streamlib.WithHooks(streamlib.Plain(name, s, o), hooks)
	})
	do(h, "PUT /v1/stream/s", js, "")
	do(h, "POST /v1/stream/s", by("p", 0, 0), `1`)
	do(h, "POST /v1/stream/s", by("p", 0, 0), `1`)
	do(h, "PUT /v1/stream/f", "Stream-Forked-From: /v1/stream/s", "")
	do(h, "POST /v1/stream/s", by("p", 0, 1)+"Stream-Closed: true", "")
	do(h, "DELETE /v1/stream/s", "", "")
	is.Equal(told, []string{"1", "1"}) // once each
}

// TestFirstUseReadsNoEvents: it reads what is noted, however long the stream is.
func TestFirstUseReadsNoEvents(t *testing.T) {
	is := is.New(t)
	s := memory.New()
	h := handler(s, streamlib.Plain)
	do(h, "PUT /v1/stream/s", js, "")
	for i := range 300 {
		do(h, "POST /v1/stream/s", by("p", 0, i), "["+strings.Repeat("1,", 99)+"1]")
	}
	counted := &counting{Storage: s}
	h = handler(counted, streamlib.Plain)
	resp, _ := do(h, "POST /v1/stream/s", by("p", 0, 299), "1")
	is.Equal(resp.StatusCode, 204)
	resp, _ = do(h, "POST /v1/stream/s", by("p", 0, 301), "1")
	is.Equal(resp.Header.Get("Producer-Expected-Seq"), "300")
	resp, _ = do(h, "POST /v1/stream/s", by("p", 0, 300), "1")
	is.Equal(resp.StatusCode, 200)
	resp, _ = do(h, "HEAD /v1/stream/s", "", "")
	is.Equal(resp.Header.Get("Stream-Next-Offset"), "0000000000030001")
	resp, _ = do(h, "PUT /v1/stream/f", "Stream-Forked-From: /v1/stream/s", "")
	is.Equal(resp.StatusCode, 201)
	is.Equal(counted.read.Load(), int64(0))
	_, body := do(h, "GET /v1/stream/s?offset=0000000000030000", "", "")
	is.Equal(body, "[1]")
	is.Equal(counted.read.Load(), int64(1))
}

// counting counts the events that are read.
type counting struct {
	streamlib.Storage
	read atomic.Int64
}

func (s *counting) Read(ctx context.Context, name string, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event,
	error] {
	return func(yield func([]streamlib.Event, error) bool) {
		for events, err := range s.Storage.Read(ctx, name, from, to) {
			if s.read.Add(int64(len(events))); !yield(events, err) {
				return
			}
		}
	}
}

// TestNobodyForgesBookkeeping: what looks like it on the native routes is data.
func TestNobodyForgesBookkeeping(t *testing.T) {
	is := is.New(t)
	s := memory.New()
	h := handler(s, streamlib.Plain)
	do(h, "PUT /v1/stream/s", js, "")
	do(h, "POST /v1/stream/s", by("p", 0, 0), "1")
	before, err := s.Stat(t.Context(), "s")
	is.NoErr(err)
	for _, data := range []string{`{"$stream":{"deleted":true}}`, `{"note":{"deleted":true}}`, before.Note} {
		resp, _ := do(h, "POST /streams/s", js+"Stream-Seq: a\nProducer-Id: p\nProducer-Epoch: 9\nProducer-Seq: 0\n"+
			"Stream-TTL: 0", `{"data":`+data+`}`)
		is.Equal(resp.StatusCode, 201)
	}
	after, err := s.Stat(t.Context(), "s")
	is.NoErr(err)
	is.Equal(after.Note, before.Note)
	resp, _ := do(h, "POST /streams/s", js, `{"data":1,"note":{}}`)
	is.Equal(resp.StatusCode, 400)
}

// TestAfterARestart: a duplicate is one, a closed stream is closed, and a fork reads as before.
func TestAfterARestart(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	s, err := disk.Open(dir, disk.Options{})
	is.NoErr(err)
	h := handler(s, streamlib.Plain)
	do(h, "PUT /v1/stream/s", js, "[1,2]")
	do(h, "POST /v1/stream/s", by("p", 3, 0), "3")
	resp, _ := do(h, "PUT /v1/stream/f", "Stream-Forked-From: /v1/stream/s\nStream-Fork-Offset: 0000000000000002", "")
	is.Equal(resp.StatusCode, 201)
	do(h, "POST /v1/stream/f", js, "7")
	resp, _ = do(h, "POST /v1/stream/s", by("p", 3, 1)+"Stream-Closed: true", "4")
	is.Equal(resp.StatusCode, 200)
	is.NoErr(s.Close())

	s, err = disk.Open(dir, disk.Options{})
	is.NoErr(err)
	defer s.Close()
	h = handler(s, streamlib.Plain)
	resp, _ = do(h, "POST /v1/stream/s", by("p", 3, 1)+"Stream-Closed: true", "4")
	is.Equal(resp.StatusCode, 204)
	resp, _ = do(h, "POST /v1/stream/s", by("p", 3, 2), "5")
	is.Equal(resp.StatusCode, 409)
	is.Equal(resp.Header.Get("Stream-Closed"), "true")
	resp, _ = do(h, "DELETE /streams/s", "", "")
	is.Equal(resp.StatusCode, 409) // the fork needs it
	resp, _ = do(h, "DELETE /v1/stream/s", "", "")
	is.Equal(resp.StatusCode, 204)
	_, body := do(h, "GET /v1/stream/f", "", "")
	is.Equal(body, "[1,2,7]")
	resp, _ = do(h, "DELETE /v1/stream/f", "", "")
	is.Equal(resp.StatusCode, 204)
	_, body = do(h, "GET /streams", "", "")
	is.Equal(strings.TrimSpace(body), `{"streams":[]}`)
}
