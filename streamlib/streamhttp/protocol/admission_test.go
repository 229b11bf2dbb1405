package protocol_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/metrics"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/iterate/durable-streams/streamlib/streamhttp/protocol"
	"github.com/iterate/durable-streams/streamlib/streamhttp/tokens"
	"github.com/matryer/is"
)

// TestAdmissionIsThatOfTheNativeRoutes: hosts, pages of other origins, and what those may read.
func TestAdmissionIsThatOfTheNativeRoutes(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	h := streamhttp.NewHandler(m, streamhttp.Config{Protocol: protocol.NewHandler(m, protocol.Config{}).Serve,
		AllowOrigins: []string{"https://app.example.com"}})
	do(h, "PUT /v1/stream/s", js, "[1]")
	for _, method := range []string{"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"} {
		r := httptest.NewRequest(method, "http://rebound.example.com/v1/stream/s", nil)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		is.Equal(w.Code, 403)
		resp, _ := do(h, method+" /v1/stream/s", js+"Origin: https://evil.example.com\nSec-Fetch-Site: cross-site", "1")
		is.Equal(resp.StatusCode == 403, method == "PUT" || method == "POST" || method == "DELETE")
		is.Equal(resp.Header.Get("Access-Control-Allow-Origin"), "")
		resp, _ = do(h, method+" /v1/stream/s", "", "")
		is.Equal(resp.Header.Get("Access-Control-Allow-Origin"), "")
		is.Equal(resp.Header.Get("X-Content-Type-Options"), "nosniff")
		is.Equal(resp.Header.Get("Cross-Origin-Resource-Policy"), "same-origin")
		do(h, "PUT /v1/stream/s", js, "[1]")
	}
	const from = "Origin: https://app.example.com\nSec-Fetch-Site: cross-site\n"
	resp, _ := do(h, "OPTIONS /v1/stream/s", from+"Access-Control-Request-Method: PUT\n"+
		"Access-Control-Request-Headers: content-type, stream-ttl", "")
	is.Equal(resp.StatusCode, 204)
	is.Equal(resp.Header.Get("Access-Control-Allow-Origin"), "https://app.example.com")
	is.True(strings.Contains(resp.Header.Get("Access-Control-Allow-Methods"), "PUT"))
	is.True(strings.Contains(resp.Header.Get("Access-Control-Allow-Headers"), "stream-ttl"))
	resp, _ = do(h, "PUT /v1/stream/page", from+js, "[1]")
	is.Equal(resp.StatusCode, 201)
	is.True(strings.Contains(resp.Header.Get("Access-Control-Expose-Headers"), "Stream-Next-Offset"))
	resp, _ = do(h, "OPTIONS /streams/s", from+"Access-Control-Request-Method: PUT", "")
	is.True(!strings.Contains(resp.Header.Get("Access-Control-Allow-Methods"), "PUT")) // which is no native one
}

// TestWhoMayDoWhat: tokens allow here what they allow there, and a fork is a way to read.
func TestWhoMayDoWhat(t *testing.T) {
	is := is.New(t)
	path := filepath.Join(t.TempDir(), "tokens")
	var file strings.Builder
	for _, line := range []string{"reader read", "writer write", "admin admin", "jobs admin prefix=jobs/"} {
		name, rest, _ := strings.Cut(line, " ")
		sum := sha256.Sum256([]byte("secret-" + name))
		fmt.Fprintf(&file, "%s %s %s\n", name, hex.EncodeToString(sum[:]), rest)
	}
	is.NoErr(os.WriteFile(path, []byte(file.String()), 0o600))
	access, err := tokens.Open(path, tokens.Options{})
	is.NoErr(err)
	defer access.Close()
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	h := streamhttp.NewHandler(m, streamhttp.Config{Access: access,
		Protocol: protocol.NewHandler(m, protocol.Config{Access: access}).Serve})
	for _, test := range []struct {
		who, request, headers string
		status                int
	}{
		{"admin", "PUT /v1/stream/other", "", 201},
		{"jobs", "PUT /v1/stream/jobs/1", "", 201},
		{"jobs", "PUT /v1/streams/jobs%2F2", "", 201},
		{"", "GET /v1/stream/other", "", 401},
		{"nobody", "GET /v1/stream/other", "", 401},
		{"", "PUT /v1/stream/other", "", 401},
		{"", "GET /v1/stream/__ds/x", "", 401},
		{"reader", "GET /v1/stream/other", "", 200},
		{"reader", "HEAD /v1/streams/other", "", 200},
		{"reader", "PUT /v1/stream/new", "", 403},
		{"reader", "POST /v1/stream/other", "", 403},
		{"reader", "DELETE /v1/stream/other", "", 403},
		{"writer", "PUT /v1/stream/new", "", 201},
		{"writer", "POST /v1/stream/new", "", 204},
		{"writer", "DELETE /v1/stream/new", "", 403},
		{"jobs", "GET /v1/stream/other", "", 403},
		{"jobs", "PUT /v1/stream/jobs/f", "Stream-Forked-From: /v1/stream/other\n", 403},
		{"jobs", "PUT /v1/stream/jobs/f", "Stream-Forked-From: /v1/streams/other\n", 403},
		{"jobs", "PUT /v1/stream/jobs/f", "Stream-Forked-From: other\n", 403},
		{"jobs", "PUT /v1/stream/jobs/f", "Stream-Forked-From: /v1/stream/jobs/1\n", 201},
		{"jobs", "GET /v1/stream/jobs/f", "", 200},
		{"jobs", "DELETE /v1/stream/jobs/f", "", 204},
		{"admin", "DELETE /v1/stream/other", "", 204},
	} {
		headers := js + test.headers
		if test.who != "" {
			headers += "Authorization: Bearer secret-" + test.who
		}
		body := "1"
		if test.headers != "" {
			body = ""
		}
		if resp, answer := do(h, test.request, headers, body); resp.StatusCode != test.status {
			t.Errorf("%s %s: %d %s, want %d", test.who, test.request, resp.StatusCode, answer, test.status)
		}
	}
}

// TestLiveReadersHaveSeats, and are counted with those of the native routes, as are appends.
func TestLiveReadersHaveSeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
		h := streamhttp.NewHandler(m, streamhttp.Config{Protocol: protocol.NewHandler(m, protocol.Config{}).Serve,
			MaxSubscribers: 2, Metrics: func(*metrics.Page) {}})
		do(h, "PUT /v1/stream/s", js, "[1,2]")
		do(h, "POST /v1/stream/s", by("p", 0, 0), "3")
		do(h, "POST /v1/stream/s", by("p", 0, 0), "3")
		ctx, end := context.WithCancel(context.Background())
		var readers sync.WaitGroup
		for range 2 {
			readers.Go(func() {
				r := httptest.NewRequest("GET", "http://localhost/v1/stream/s?offset=-1&live=sse", nil).WithContext(ctx)
				h.ServeHTTP(httptest.NewRecorder(), r)
			})
		}
		synctest.Wait()
		resp, _ := do(h, "GET /v1/stream/s?offset=-1&live=sse", "", "")
		is.Equal(resp.StatusCode, 429)
		resp, _ = do(h, "GET /streams/s", "", "")
		is.Equal(resp.StatusCode, 429)
		resp, _ = do(h, "GET /v1/stream/s", "", "")
		is.Equal(resp.StatusCode, 200)
		_, page := do(h, "GET /metrics", "", "")
		for _, line := range []string{"streamd_subscribers 2", "streamd_appended_events_total 3", "streamd_appends_total 2",
			"streamd_repeated_appends_total 1", "streamd_subscriber_lag_events 0"} {
			if !strings.Contains(page, "\n"+line+"\n") {
				t.Errorf("the figures lack %q", line)
			}
		}
		end()
		readers.Wait()
		time.Sleep(time.Second)
		_, page = do(h, "GET /metrics", "", "")
		is.True(strings.Contains(page, "\nstreamd_subscribers 0\n"))
	})
}
