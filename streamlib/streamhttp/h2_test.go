package streamhttp_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// bubbleH2 is bubble over HTTP/2.
func bubbleH2(t *testing.T, test func(t *testing.T, client *streamhttp.Client, m *streamlib.Manager)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
		l := pipes{make(chan net.Conn), make(chan struct{})}
		server := streamhttp.NewServer(ctx, streamhttp.NewHandler(m, streamhttp.Config{}), nil)
		server.Protocols = new(http.Protocols)
		server.Protocols.SetUnencryptedHTTP2(true)
		var served sync.WaitGroup
		served.Go(func() { _ = server.Serve(l) })
		transport := &http.Transport{Protocols: server.Protocols,
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				near, far := net.Pipe()
				l.conns <- far
				return near, nil
			}}
		test(t, &streamhttp.Client{URL: "http://localhost", HTTP: &http.Client{Transport: transport}}, m)
		cancel()
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		transport.CloseIdleConnections()
		served.Wait()
	})
}

// bodyOf returns the body of an answer.
func bodyOf(t *testing.T, client *streamhttp.Client, path string) string {
	t.Helper()
	s := subscribe(t, client, path)
	defer s.resp.Body.Close()
	b, err := io.ReadAll(s.r)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// TestSilenceOverHTTP2 ends nothing: net/http resets a stream as soon as its write deadline has come, written or not.
func TestSilenceOverHTTP2(t *testing.T) {
	bubbleH2(t, func(t *testing.T, client *streamhttp.Client, m *streamlib.Manager) {
		is := is.New(t)
		s := subscribe(t, client, "/streams/s")
		defer s.resp.Body.Close()
		is.Equal(s.resp.ProtoMajor, 2)
		s.block()
		start := time.Now()
		for time.Since(start) < time.Hour {
			is.Equal(s.line(), caughtUp(0))
		}
		add(t, m.Stream("s"), "0")
		is.Equal(s.block(), frame(0, "0"))

		var polling sync.WaitGroup
		var polled string
		polling.Go(func() { polled = bodyOf(t, client, "/streams/late/events?wait=50m") })
		time.Sleep(45 * time.Minute)
		add(t, m.Stream("late"), "1")
		polling.Wait()
		is.True(strings.Contains(polled, `"data":1`))
		is.Equal(bodyOf(t, client, "/streams/never/events?wait=50m"), "{\"events\":[]}\n")
	})
}

// TestStuckReaderOverHTTP2 is cut off, and others on the same connection feel nothing.
func TestStuckReaderOverHTTP2(t *testing.T) {
	bubbleH2(t, func(t *testing.T, client *streamhttp.Client, m *streamlib.Manager) {
		is := is.New(t)
		const size = 900_000
		for range 10 { // more than the window of a stream
			add(t, m.Stream("big"), `"`+strings.Repeat("x", size)+`"`)
		}
		stuck := subscribe(t, client, "/streams/big?offset=-1")
		whole := subscribe(t, client, "/streams/big/events", "Accept: application/x-ndjson")
		follows := subscribe(t, client, "/streams/s")
		follows.block()
		is.Equal(follows.line(), caughtUp(0))
		start := time.Now()
		for time.Since(start) < time.Minute { // in which they read nothing
			is.Equal(follows.line(), caughtUp(0))
		}
		for _, s := range []*sse{stuck, whole} {
			n, err := io.Copy(io.Discard, s.resp.Body)
			is.True(err != nil)
			is.True(n < 10*size)
			s.resp.Body.Close()
		}
		add(t, m.Stream("s"), "0")
		is.Equal(follows.block(), frame(0, "0"))
		follows.resp.Body.Close()
		is.Equal(bodyOf(t, client, "/streams"), `{"streams":["big","s"]}`+"\n")
	})
}

// TestEndOverHTTP2 of a server: subscriptions end, and not by a reset.
func TestEndOverHTTP2(t *testing.T) {
	var read string
	var err error
	bubbleH2(t, func(t *testing.T, client *streamhttp.Client, _ *streamlib.Manager) { // which waits for all that it began
		s := subscribe(t, client, "/streams/s")
		go func() {
			defer s.resp.Body.Close()
			var b []byte
			b, err = io.ReadAll(s.resp.Body)
			read = string(b)
		}()
		synctest.Wait()
	})
	is := is.New(t)
	is.NoErr(err)
	is.Equal(strings.Count(read, "retry: "), 2) // the last is when to come back
}
