package streamhttp_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/iterate/durable-streams/streamlib/streamtest"
)

func TestRemoteIsAStream(t *testing.T) {
	streamtest.Stream(t, func(t *testing.T) func(string) streamlib.Stream {
		client, _ := serve(t, streamhttp.Config{})
		return func(name string) streamlib.Stream { return client.Stream(name) }
	})
}

// serve starts a server of an empty memory.
func serve(t testing.TB, c streamhttp.Config) (*streamhttp.Client, *streamlib.Manager) {
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{MaxEvent: c.MaxEvent})
	return serveHandler(t, streamhttp.NewHandler(m, c)), m
}

func serveHandler(t testing.TB, h http.Handler) *streamhttp.Client {
	server := httptest.NewUnstartedServer(h)
	server.Config = streamhttp.NewServer(t.Context(), h, nil)
	server.Start()
	t.Cleanup(server.Close)
	return &streamhttp.Client{URL: server.URL}
}
