package streamhttp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/disk"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// sse is a raw subscription.
type sse struct {
	t    testing.TB
	resp *http.Response
	r    *bufio.Reader
}

func subscribe(t testing.TB, c *streamhttp.Client, path string, headers ...string) *sse {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", c.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := httpClient(c).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 {
		t.Fatalf("%s: %s", path, resp.Status)
	}
	return &sse{t, resp, bufio.NewReader(resp.Body)}
}

func httpClient(c *streamhttp.Client) *http.Client {
	if c.HTTP != nil {
		return c.HTTP
	}
	return http.DefaultClient
}

// line reads a line.
func (s *sse) line() string {
	s.t.Helper()
	line, err := s.r.ReadString('\n')
	if err != nil {
		s.t.Fatalf("after %q: %v", line, err)
	}
	return line
}

// block reads up to the next blank line; times are cut out.
func (s *sse) block() string {
	s.t.Helper()
	var block strings.Builder
	for {
		line := s.line()
		if line == "\n" {
			return times.ReplaceAllString(block.String(), "TIME")
		}
		block.WriteString(line)
	}
}

// position is the event that tells where a subscription is.
func position(id, tail string) string {
	return "event: position\nid: " + id + "\ndata: {\"tail\":\"" + tail + "\"}\n"
}

// caughtUp is the comment that tells that everything before the tail was sent.
func caughtUp(tail int) string { return fmt.Sprintf(": tail %016d\n", tail) }

func frame(o int, data string) string { return fmt.Sprintf("id: %016d\ndata: %s\n", o, event(o, data)) }

func add(t testing.TB, s streamlib.Stream, data ...string) []streamlib.Event {
	t.Helper()
	receipt, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(data...)})
	if err != nil {
		t.Fatal(err)
	}
	return receipt.Events
}

func TestSubscription(t *testing.T) {
	for _, test := range []struct {
		query, lastEventID string
		opening            string // id; none where events are there at once
		frames             []string
	}{
		{"", "", "0000000000000002", nil},
		{"?offset=now", "", "0000000000000002", nil},
		{"?offset=-1", "", "", []string{frame(0, abc[0]), frame(1, abc[1]), frame(2, abc[2])}},
		{"?offset=0", "", "", []string{frame(0, abc[0]), frame(1, abc[1]), frame(2, abc[2])}},
		{"?offset=2", "", "", []string{frame(2, abc[2])}},
		{"?offset=3", "", "0000000000000002", nil},
		{"?last=1", "", "0000000000000001", []string{frame(2, abc[2])}},
		{"?last=7", "", "-1", []string{frame(0, abc[0]), frame(1, abc[1]), frame(2, abc[2])}},
		{"?since=1h", "", "-1", []string{frame(0, abc[0]), frame(1, abc[1]), frame(2, abc[2])}},
		{"?since=1h&type=b", "", "-1", []string{frame(1, abc[1]), position("0000000000000002", "0000000000000003")}},
		{"?since=9999-01-01T00:00:00Z", "", "0000000000000002", nil},
		{"", "1", "", []string{frame(2, abc[2])}},
		{"", "0000000000000002", "0000000000000002", nil},
		{"", "-1", "", []string{frame(0, abc[0]), frame(1, abc[1]), frame(2, abc[2])}},
		{"?offset=0", "1", "", []string{frame(2, abc[2])}},
		{"?last=3", "1", "", []string{frame(2, abc[2])}},
		{"?since=1h", "1", "", []string{frame(2, abc[2])}},
		{"?since=1h&lastEventId=1", "", "", []string{frame(2, abc[2])}},
		{"?last-event-id=1&offset=0", "", "", []string{frame(2, abc[2])}},
		{"?lastEventId=1&offset=0", "", "", []string{frame(2, abc[2])}},
		{"?last-event-id=0&lastEventId=1", "", "", []string{frame(2, abc[2])}},
		{"?lastEventId=0", "1", "", []string{frame(2, abc[2])}},
		{"?last-event-id=0", "1", "", []string{frame(2, abc[2])}},
		{"?offset=0&type=a", "", "", []string{frame(0, abc[0]), frame(2, abc[2])}},
		{"?offset=0&type=b", "", "", []string{frame(1, abc[1]), position("0000000000000002", "0000000000000003")}},
		{"?offset=0&type=b&type=a", "", "", []string{frame(0, abc[0]), frame(1, abc[1]), frame(2, abc[2])}},
		{"?last=1&type=b", "", "0000000000000000", []string{frame(1, abc[1]),
			position("0000000000000002", "0000000000000003")}},
	} {
		t.Run(test.query+" "+test.lastEventID, func(t *testing.T) {
			is := is.New(t)
			client, m := serve(t, streamhttp.Config{})
			add(t, m.Stream("s"), abc...)
			var headers []string
			if test.lastEventID != "" {
				headers = []string{"Last-Event-ID: " + test.lastEventID}
			}
			s := subscribe(t, client, "/streams/s"+test.query, headers...)
			is.Equal(s.resp.Header.Get("Content-Type"), "text/event-stream; charset=utf-8")
			is.Equal(s.resp.Header.Get("Cache-Control"), "no-cache")
			is.Equal(s.resp.Header.Get("X-Accel-Buffering"), "no")
			is.Equal(s.line(), "retry: 1000\n")
			if test.opening != "" {
				is.Equal(s.block(), position(test.opening, "0000000000000003"))
			}
			for _, want := range test.frames {
				is.Equal(s.block(), want)
			}
			is.Equal(s.line(), caughtUp(3))
			add(t, m.Stream("s"), `{"type":"b","text":"\r\n\ndata: x"}`)
			live := frame(3, `{"type":"b","text":"\r\n\ndata: x"}`)
			if strings.HasSuffix(test.query, "offset=0&type=a") {
				live = position("0000000000000003", "0000000000000004")
			}
			is.Equal(s.block(), live)
		})
	}
}

func TestSubscriptionBeyondTheTailResumesByItsOpening(t *testing.T) {
	is := is.New(t)
	client, m := serve(t, streamhttp.Config{})
	s := subscribe(t, client, "/streams/s?offset=2")
	is.Equal(s.block(), "retry: 1000\n"+position("0000000000000001", "0000000000000000"))
	is.Equal(s.line(), caughtUp(0))
	s.resp.Body.Close()
	s = subscribe(t, client, "/streams/s?offset=2", "Last-Event-ID: 0000000000000001") // what a browser does
	s.block()
	is.Equal(s.line(), caughtUp(0))
	add(t, m.Stream("s"), "0", "1", "2")
	is.Equal(s.block(), frame(2, "2"))
}

func TestSubscribingMakesNothing(t *testing.T) {
	is := is.New(t)
	client, _ := serve(t, streamhttp.Config{})
	is.Equal(subscribe(t, client, "/streams/none").block(), "retry: 1000\n"+position("-1", "0000000000000000"))
	is.Equal(ask(t, client, "GET /streams", nil).body, `{"streams":[]}`+"\n")
}

func TestDeletionEndsSubscriptions(t *testing.T) {
	is := is.New(t)
	client, m := serve(t, streamhttp.Config{})
	add(t, m.Stream("s"), "0")
	s := subscribe(t, client, "/streams/s")
	s.block()
	is.Equal(ask(t, client, "DELETE /streams/s", nil).status, 204)
	rest, err := io.ReadAll(s.r)
	is.NoErr(err)
	is.Equal(string(rest), caughtUp(1)+": deleted\n")
}

func TestAllStreamsOnOneConnection(t *testing.T) {
	is := is.New(t)
	client, m := serve(t, streamhttp.Config{})
	add(t, m.Stream("a"), "0")
	all := subscribe(t, client, "/streams", "Accept: text/event-stream")
	some := subscribe(t, client, "/streams?prefix=b&type=x", "Accept: text/event-stream")
	is.Equal(all.line(), "retry: 1000\n")
	is.Equal(some.line(), "retry: 1000\n")
	add(t, m.Stream("a"), "1")
	add(t, m.Stream("b"), "0")
	add(t, m.Stream("b/c"), `{"type":"x"}`)
	named := func(name string, o int, data string) string {
		return "data: " + strings.Replace(event(o, data), `"s"`, `"`+name+`"`, 1) + "\n"
	}
	is.Equal(all.block(), named("a", 1, "1"))
	is.Equal(all.block(), named("b", 0, "0"))
	is.Equal(all.block(), named("b/c", 0, `{"type":"x"}`))
	is.Equal(some.block(), named("b/c", 0, `{"type":"x"}`))
}

// during calls f while the first bytes are written.
type during struct {
	http.ResponseWriter
	f *func()
}

func (d during) Unwrap() http.ResponseWriter { return d.ResponseWriter }

func (d during) Write(b []byte) (int, error) {
	if f := *d.f; f != nil {
		*d.f = nil
		f()
	}
	return d.ResponseWriter.Write(b)
}

func TestWhatIsAppendedDuringTheOpeningIsNotMissed(t *testing.T) {
	for _, test := range []struct{ path, accept string }{{"/streams/s", ""}, {"/streams", "text/event-stream"}} {
		t.Run(test.path, func(t *testing.T) {
			is := is.New(t)
			m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
			h := streamhttp.NewHandler(m, streamhttp.Config{})
			meanwhile := func() { add(t, m.Stream("s"), "0") }
			client := serveHandler(t, http.HandlerFunc(func(w http.ResponseWriter,
				r *http.Request) {
				h.ServeHTTP(during{w, &meanwhile}, r)
			}))
			s := subscribe(t, client, test.path, "Accept: "+test.accept)
			s.line()
			if test.accept == "" {
				s.block()
			}
			add(t, m.Stream("s"), "1")
			is.True(strings.HasSuffix(s.block(), "data: "+event(0, "0")+"\n"))
		})
	}
}

func TestAppendMayTakeLongerThanItsBody(t *testing.T) {
	slow := streamlib.Hooks{Timeout: time.Hour, Before: []streamlib.BeforeHook{{ID: "slow",
		Run: func(ctx context.Context, _ string, _ json.RawMessage) error {
			select {
			case <-time.After(3 * time.Minute):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}}}
	m := streamlib.NewManager(memory.New(), streamlib.Factory(streamlib.Plain).WithHooks(slow), streamlib.Options{})
	around := func(http.Handler) http.Handler { return streamhttp.NewHandler(m, streamhttp.Config{}) }
	bubbleAround(t, around, func(t *testing.T, client *streamhttp.Client, _ *streamlib.Manager, _ func() net.Conn) {
		add(t, client.Stream("s"), "0")
	})
}

func TestLongPollAnswersAtTheFirstEvent(t *testing.T) {
	is := is.New(t)
	client, m := serve(t, streamhttp.Config{})
	add(t, m.Stream("s"), abc...)
	got := make(chan reply)
	go func() { got <- ask(t, client, "GET /streams/s/events?offset=now&wait=1m&type=b", nil) }()
	for {
		add(t, m.Stream("s"), `{"type":"a"}`)
		add(t, m.Stream("s"), `{"type":"b"}`)
		select {
		case r := <-got:
			is.Equal(r.status, 200)
			is.True(strings.Contains(r.body, `"data":{"type":"b"}`))
			is.True(!strings.Contains(r.body, `"data":{"type":"a"}`))
			return
		default:
		}
	}
}

// bubble runs a test in a synctest bubble: a handler of a fresh memory behind in-memory connections.
func bubble(t *testing.T, test func(t *testing.T, client *streamhttp.Client, m *streamlib.Manager,
	connect func() net.Conn)) {
	bubbleAround(t, func(h http.Handler) http.Handler { return h }, test)
}

// bubbleAround is bubble with something around the handler.
func bubbleAround(t *testing.T, wrap func(http.Handler) http.Handler,
	test func(*testing.T, *streamhttp.Client, *streamlib.Manager, func() net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
		l := pipes{make(chan net.Conn), make(chan struct{})}
		server := streamhttp.NewServer(ctx, wrap(streamhttp.NewHandler(m, streamhttp.Config{})), nil)
		var served sync.WaitGroup
		served.Go(func() { _ = server.Serve(l) })
		connect := func() net.Conn {
			near, far := net.Pipe()
			l.conns <- far
			return near
		}
		transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn,
			error) {
			return connect(), nil
		}}
		test(t, &streamhttp.Client{URL: "http://localhost", HTTP: &http.Client{Transport: transport}}, m, connect)
		cancel()
		transport.CloseIdleConnections()
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		served.Wait()
	})
}

// pipes is a listener of in-memory connections.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return pipe{c}, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error   { close(p.closed); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

type pipe struct{ net.Conn }

func (pipe) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func TestSilenceIsBrokenByPings(t *testing.T) {
	bubble(t, func(t *testing.T, client *streamhttp.Client, m *streamlib.Manager, _ func() net.Conn) {
		is := is.New(t)
		start := time.Now()
		s := subscribe(t, client, "/streams/s")
		defer s.resp.Body.Close()
		s.block()
		is.Equal(s.line(), caughtUp(0))
		is.Equal(time.Since(start), time.Duration(0))
		is.Equal(s.line(), caughtUp(0))
		is.Equal(time.Since(start), 15*time.Second)
		time.Sleep(10 * time.Second)
		add(t, m.Stream("s"), "0")
		is.Equal(s.block(), frame(0, "0")) // no blank line stands between
		is.Equal(s.line(), caughtUp(1))    // 15 s after the event, and not after the ping
		is.Equal(time.Since(start), 40*time.Second)
		is.Equal(s.line(), caughtUp(1))
		is.Equal(time.Since(start), 55*time.Second)
	})
}

// TestPingsWhereTheTailIsNotKnown: of many streams, and from beyond the tail until the stream is there.
func TestPingsWhereTheTailIsNotKnown(t *testing.T) {
	bubble(t, func(t *testing.T, client *streamhttp.Client, m *streamlib.Manager, _ func() net.Conn) {
		is := is.New(t)
		all := subscribe(t, client, "/streams", "Accept: text/event-stream")
		defer all.resp.Body.Close()
		is.Equal(all.line(), "retry: 1000\n")
		is.Equal(all.line(), ": ping\n")
		beyond := subscribe(t, client, "/streams/s?offset=2")
		defer beyond.resp.Body.Close()
		beyond.block()
		is.Equal(beyond.line(), caughtUp(0))
		add(t, m.Stream("s"), "0")
		is.Equal(beyond.line(), ": ping\n")
		add(t, m.Stream("s"), "1", "2")
		is.Equal(beyond.block(), frame(2, "2"))
		is.Equal(beyond.line(), caughtUp(3))
	})
}

// TestTheEndOfCatchingUpIsToldOnce, behind the last event that there was, also where a filter leaves that out.
func TestTheEndOfCatchingUpIsToldOnce(t *testing.T) {
	is := is.New(t)
	storage, err := disk.Open(t.TempDir(), disk.Options{NoSync: true})
	is.NoErr(err)
	t.Cleanup(func() { is.NoErr(storage.Close()) })
	m := streamlib.NewManager(storage, streamlib.Plain, streamlib.Options{})
	client := serveHandler(t, streamhttp.NewHandler(m, streamhttp.Config{}))
	for range 50 { // far more than is read or written at once
		add(t, m.Stream("s"), `{"type":"b","text":"`+strings.Repeat("x", 30_000)+`"}`, `{"type":"a"}`)
	}
	s := subscribe(t, client, "/streams/s?offset=-1&type=b")
	var got strings.Builder
	for !strings.HasSuffix(got.String(), caughtUp(100)) {
		got.WriteString(s.line())
	}
	end := position("0000000000000099", "0000000000000100") + "\n" + caughtUp(100)
	is.True(strings.HasSuffix(got.String(), end))
	is.Equal(strings.Count(got.String(), ": tail "), 1)
	is.Equal(ask(t, client, "GET /streams/s?offset=-1&type=b&until=tail", nil).body,
		times.ReplaceAllString(got.String(), "TIME"))
	add(t, m.Stream("s"), `{"type":"b"}`, `{"type":"b"}`)
	is.Equal(s.block(), frame(100, `{"type":"b"}`))
	is.Equal(s.block(), frame(101, `{"type":"b"}`)) // it is told once
}

func TestUntilTailEndsThere(t *testing.T) {
	for _, test := range []struct {
		query, lastEventID string
		status             int
		body               string
	}{
		{"?until=tail", "", 200, "retry: 1000\n" + position("0000000000000002", "0000000000000003") + "\n" + caughtUp(3)},
		{"?until=tail&offset=-1", "", 200, "retry: 1000\n" + frame(0, abc[0]) + "\n" + frame(1, abc[1]) + "\n" +
			frame(2, abc[2]) + "\n" + caughtUp(3)},
		{"?until=tail&offset=0&type=b", "", 200, "retry: 1000\n" + frame(1, abc[1]) + "\n" +
			position("0000000000000002", "0000000000000003") + "\n" + caughtUp(3)},
		{"?until=tail&since=1h&type=none", "", 200, "retry: 1000\n" + position("-1", "0000000000000003") + "\n" +
			position("0000000000000002", "0000000000000003") + "\n" + caughtUp(3)},
		{"?until=tail&last=1", "", 200, "retry: 1000\n" + position("0000000000000001", "0000000000000003") + "\n" +
			frame(2, abc[2]) + "\n" + caughtUp(3)},
		{"?until=tail&offset=7", "", 200, "retry: 1000\n" + position("0000000000000006", "0000000000000003") + "\n" +
			caughtUp(3)},
		{"?until=tail&offset=0", "1", 200, "retry: 1000\n" + frame(2, abc[2]) + "\n" + caughtUp(3)},
		// An EventSource that comes again.
		{"?until=tail&offset=0", "2", 204, ""},
		{"?until=tail&offset=7", "6", 204, ""},
		{"?until=tail&lastEventId=2", "", 204, ""},
		{"?until=tail&offset=0", "3", 410, `{"error":"resume \"s\" after 3: tail is 3, the stream was deleted since",` +
			`"tail":"0000000000000003"}` + "\n"},
		{"?until=now", "", 400, `{"error":"invalid until \"now\": it is tail"}` + "\n"},
	} {
		t.Run(test.query+" "+test.lastEventID, func(t *testing.T) {
			is := is.New(t)
			client, m := serve(t, streamhttp.Config{})
			add(t, m.Stream("s"), abc...)
			var headers []string
			if test.lastEventID != "" {
				headers = []string{"Last-Event-ID: " + test.lastEventID}
			}
			got := ask(t, client, "GET /streams/s"+test.query, nil, headers...) // reads to a clean end
			is.Equal(got.status, test.status)
			is.Equal(got.body, test.body)
		})
	}
	is := is.New(t)
	client, _ := serve(t, streamhttp.Config{})
	got := ask(t, client, "GET /streams/none?until=tail&offset=-1", nil)
	is.Equal(got.body, "retry: 1000\n"+position("-1", "0000000000000000")+"\n"+caughtUp(0))
	is.Equal(ask(t, client, "GET /streams/none?until=tail&offset=-1", nil, "Last-Event-ID: -1").status, 204)
	is.Equal(ask(t, client, "GET /streams?until=tail", nil, "Accept: text/event-stream").status, 400) // has no tail
}

func TestSinceIsByTheServersClock(t *testing.T) {
	bubble(t, func(t *testing.T, client *streamhttp.Client, m *streamlib.Manager, _ func() net.Conn) {
		start := time.Now().UTC()
		for n := range 5 { // at 0 h, 1 h, … 4 h
			add(t, m.Stream("s"), fmt.Sprint(n))
			time.Sleep(time.Hour)
		}
		for since, want := range map[string]streamlib.Offset{
			"0s": 5, "59m59.999s": 5, "1h": 4, "90m": 4, "2h0m0.001s": 3, "4h": 1, "0d5h": 0, "1d": 0, "365d": 0,
			start.Add(2 * time.Hour).Format(time.RFC3339):                                                   2,
			start.Add(2*time.Hour + time.Millisecond).Format(time.RFC3339Nano):                              3,
			start.Add(2 * time.Hour).In(time.FixedZone("", -9000)).Format(time.RFC3339):                     2,
			start.Add(2*time.Hour + time.Millisecond).In(time.FixedZone("", 9000)).Format(time.RFC3339Nano): 3,
		} {
			is := is.New(t)
			next := streamlib.Offset(5)
			for events, err := range client.Stream("s").Query(t.Context(), streamhttp.Query{Since: since}) {
				is.NoErr(err)
				next = min(next, events[0].Offset)
			}
			is.Equal(next, want) // read since
			s := subscribe(t, client, "/streams/s?since="+url.QueryEscape(since))
			is.Equal(s.block(), "retry: 1000\n"+position((want-1).String(), "0000000000000005"))
			s.resp.Body.Close()
			if want == 5 { // nothing would come
				continue
			}
			for events, err := range client.Stream("s").Follow(t.Context(), streamhttp.Follow{Since: since}) {
				is.NoErr(err)
				is.Equal(events[0].Offset, want) // followed since
				break
			}
		}
		client.HTTP.CloseIdleConnections()
	})
}

// growing is a stream that has one event more after each Stat.
type growing struct{ streamlib.Stream }

func (g growing) Stat(ctx context.Context) (streamlib.Info, error) {
	info, err := g.Stream.Stat(ctx)
	if err == nil {
		_, err = g.Append(ctx, streamlib.Batch{Data: streamlib.JSON("0")})
	}
	return info, err
}

// TestSinceATimeToComeIsNow: what is appended while it is looked for is not passed over.
func TestSinceATimeToComeIsNow(t *testing.T) {
	is := is.New(t)
	grow := func(name string, storage streamlib.Storage, o streamlib.Options) streamlib.Stream {
		return growing{streamlib.Plain(name, storage, o)}
	}
	start := func() *streamhttp.Client {
		m := streamlib.NewManager(memory.New(), grow, streamlib.Options{})
		return serveHandler(t, streamhttp.NewHandler(m, streamhttp.Config{}))
	}
	got := ask(t, start(), "GET /streams/s/events?since=9999-01-01T00:00:00Z&wait=1h", nil)
	is.Equal(got.header.Get("Stream-Next-Offset"), "0000000000000002")
	is.Equal(got.body, events(event(0, "0"), event(1, "0")))
	s := subscribe(t, start(), "/streams/s?since=9999-01-01T00:00:00Z")
	is.Equal(s.block(), "retry: 1000\n"+position("-1", "0000000000000002"))
	is.Equal(s.block(), frame(0, "0"))
}

func TestClientThatTakesNothingIsCutOff(t *testing.T) {
	bubble(t, func(t *testing.T, _ *streamhttp.Client, m *streamlib.Manager, connect func() net.Conn) {
		is := is.New(t)
		conn := connect()
		fmt.Fprintf(conn, "GET /streams/s HTTP/1.1\r\nHost: localhost\r\n\r\n")
		r := bufio.NewReader(conn)
		for line := ""; line != "\n"; {
			var err error
			line, err = r.ReadString('\n')
			is.NoErr(err)
		}
		_, err := io.ReadFull(r, make([]byte, len(caughtUp(0)+"\r\n"))) // up to the end of the chunk
		is.NoErr(err)
		start := time.Now()
		add(t, m.Stream("s"), "0")
		time.Sleep(writeTime + time.Second)
		synctest.Wait()
		rest, err := io.ReadAll(r)
		is.NoErr(err)
		is.Equal(string(rest), "") // nothing was taken, so nothing of it came
		is.Equal(time.Since(start), writeTime+time.Second)
	})
}

const writeTime = 30 * time.Second

func TestSlowBodiesEnd(t *testing.T) {
	for _, test := range []struct {
		request string
		status  int
		after   time.Duration
	}{
		{"POST /streams/s HTTP/1.1\r\nContent-Length: 1000", http.StatusRequestTimeout, time.Minute},
		{"POST /streams/s HTTP/1.1\r\nTransfer-Encoding: chunked", http.StatusRequestTimeout, time.Minute},
		{"POST /streams/s HTTP/1.1\r\nContent-Length: 1000\r\nContent-Type: text/html", http.StatusUnsupportedMediaType,
			5 * time.Second}, // for the rest
		{"POST /streams/s HTTP/1.1\r\nContent-Length: 10000000", http.StatusRequestEntityTooLarge, 0},
		{"POST /streams/s HTTP/1.1\r\nContent-Length: 10000000\r\nExpect: 100-continue", http.StatusRequestEntityTooLarge, 0},
		{"DELETE /streams/s HTTP/1.1\r\nContent-Length: 1000", http.StatusNoContent, 5 * time.Second},
		{"GET /streams HTTP/1.1\r\nContent-Length: 10000000", http.StatusOK, 0},
	} {
		bubble(t, func(t *testing.T, _ *streamhttp.Client, m *streamlib.Manager, connect func() net.Conn) {
			is := is.New(t)
			conn := connect()
			start := time.Now()
			fmt.Fprintf(conn, "%s\r\nHost: localhost\r\n\r\n", test.request)
			var wait sync.WaitGroup
			defer wait.Wait()
			defer conn.Close()
			wait.Go(func() {
				bite := "{" // a byte a second
				if strings.Contains(test.request, "chunked") {
					bite = "1\r\n{\r\n"
				}
				for err := error(nil); err == nil; time.Sleep(time.Second) {
					_, err = io.WriteString(conn, bite)
				}
			})
			r := bufio.NewReader(conn)
			resp, err := http.ReadResponse(r, nil)
			is.NoErr(err)
			is.Equal(resp.StatusCode, test.status)
			is.Equal(time.Since(start), test.after)
			_, err = io.Copy(io.Discard, r) // to the end of the connection
			is.NoErr(err)
			is.True(time.Since(start) <= max(test.after, 6*time.Second))
		})
	}
}

func TestAnswerThatNobodyTakesEnds(t *testing.T) {
	bubble(t, func(t *testing.T, _ *streamhttp.Client, m *streamlib.Manager, connect func() net.Conn) {
		is := is.New(t)
		conn := connect()
		fmt.Fprintf(conn, "POST /streams/s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{\"data\":0}")
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		rest, err := io.ReadAll(conn)
		is.NoErr(err)
		is.Equal(len(rest), 0)
	})
}

func TestLongPollEndsEmpty(t *testing.T) {
	bubble(t, func(t *testing.T, client *streamhttp.Client, m *streamlib.Manager, _ func() net.Conn) {
		is := is.New(t)
		start := time.Now()
		for events, err := range client.Stream("s").Query(t.Context(), streamhttp.Query{Wait: 20 * time.Second}) {
			t.Error(events, err)
		}
		is.Equal(time.Since(start), 20*time.Second)
		client.HTTP.CloseIdleConnections()
	})
}

func TestSubscriptionsOutliveTheTimesForAnswers(t *testing.T) {
	var asked atomic.Int64
	count := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1); h.ServeHTTP(w, r) })
	}
	bubbleAround(t, count, func(t *testing.T, client *streamhttp.Client, m *streamlib.Manager, _ func() net.Conn) {
		is := is.New(t)
		ctx, cancel := context.WithCancel(t.Context())
		var got []streamlib.Event
		var end error
		var wait sync.WaitGroup
		wait.Go(func() {
			for events, err := range client.Stream("s").Subscribe(ctx, 0) {
				got, end = append(got, events...), err
			}
		})
		time.Sleep(24 * time.Hour)
		add(t, m.Stream("s"), "0")
		synctest.Wait()
		is.Equal(len(got), 1)
		is.Equal(asked.Load(), int64(1))
		cancel()
		wait.Wait()
		is.True(errors.Is(end, context.Canceled))
	})
}

func TestShutdownEndsSubscriptionsAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, _ *streamhttp.Client, m *streamlib.Manager, connect func() net.Conn) {
		is := is.New(t)
		ctx, cancel := context.WithCancel(t.Context())
		l := pipes{make(chan net.Conn), make(chan struct{})}
		server := streamhttp.NewServer(ctx, streamhttp.NewHandler(m, streamhttp.Config{}), nil)
		var served sync.WaitGroup
		served.Go(func() { _ = server.Serve(l) })
		var conns []net.Conn
		for _, path := range []string{"/streams/s", "/streams/s", "/streams"} {
			near, far := net.Pipe()
			l.conns <- far
			fmt.Fprintf(near, "GET %s HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n", path)
			resp, err := http.ReadResponse(bufio.NewReader(near), nil)
			is.NoErr(err)
			is.Equal(resp.StatusCode, 200)
			conns = append(conns, near)
		}
		start := time.Now()
		add(t, m.Stream("s"), "0") // which nobody takes: the writes hang
		synctest.Wait()
		cancel()
		is.NoErr(server.Shutdown(context.Background()))
		is.True(time.Since(start) <= 2*time.Second)
		served.Wait()
		for _, c := range conns {
			c.Close()
		}
	})
}

// TestEndOfAServer: what waits for events ends, a long poll with the answer that there are none; what has begun is
// finished.
func TestEndOfAServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx, cancel := context.WithCancel(t.Context())
		m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
		l := pipes{make(chan net.Conn), make(chan struct{})}
		server := streamhttp.NewServer(ctx, streamhttp.NewHandler(m, streamhttp.Config{}), nil)
		var served sync.WaitGroup
		served.Go(func() { _ = server.Serve(l) })
		ask := func(request string) (net.Conn, *bufio.Reader) {
			near, far := net.Pipe()
			l.conns <- far
			fmt.Fprint(near, request)
			return near, bufio.NewReader(near)
		}
		poll, polled := ask("GET /streams/s/events?wait=1h HTTP/1.1\r\nHost: localhost\r\n\r\n")
		appends, appended := ask("POST /streams/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{\"da")
		defer poll.Close()
		defer appends.Close()
		synctest.Wait()
		cancel()
		resp, err := http.ReadResponse(polled, nil)
		is.NoErr(err)
		body, err := io.ReadAll(resp.Body)
		is.NoErr(err)
		is.Equal(string(body), "{\"events\":[]}\n")
		fmt.Fprint(appends, `ta":1}`)
		resp, err = http.ReadResponse(appended, nil)
		is.NoErr(err)
		is.Equal(resp.StatusCode, http.StatusCreated)
		is.NoErr(server.Shutdown(context.Background()))
		served.Wait()
	})
}
