package streamhttp_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib/metrics"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// measured is a client of a server with figures.
func measured(t *testing.T) *streamhttp.Client {
	client, _ := serve(t, streamhttp.Config{Metrics: func(p *metrics.Page) {
		p.Gauge("streamd_own", "What the server adds.", 7)
	}})
	return client
}

func TestMetrics(t *testing.T) {
	is := is.New(t)
	c := measured(t)
	for _, request := range []struct{ request, body, header string }{
		{"POST /streams/a", `{"data":1}`, "Idempotency-Key: k"},
		{"POST /streams/a", `{"data":1}`, "Idempotency-Key: k"},
		{"POST /streams/%2F", "1\n2\n", "Content-Type: application/x-ndjson"},
		{"POST /streams/a", "nonsense", "X: y"},
		{"POST /streams/a", `{}`, "Host: evil.example"},
		{"GET /streams/a/events", "", "X: y"},
		{"HEAD /streams/none", "", "X: y"},
		{"PUT /streams/a", "", "X: y"},
		{"GET /nothing/" + strings.Repeat("x", 100), "", "X: y"},
	} {
		ask(t, c, request.request, strings.NewReader(request.body), request.header)
	}
	got := ask(t, c, "GET /metrics", nil)
	is.Equal(got.status, 200)
	is.Equal(got.header.Get("Content-Type"), "text/plain; version=0.0.4; charset=utf-8")
	for _, line := range []string{
		`streamd_appends_total 2`,
		`streamd_repeated_appends_total 1`,
		`streamd_appended_events_total 3`,
		`streamd_http_requests_total{route="/streams/{name}",method="POST",code="200"} 1`,
		`streamd_http_requests_total{route="/streams/{name}",method="POST",code="201"} 2`,
		`streamd_http_requests_total{route="/streams/{name}",method="POST",code="400"} 1`,
		`streamd_http_requests_total{route="/streams/{name}",method="HEAD",code="404"} 1`,
		`streamd_http_requests_total{route="/streams/{name}/events",method="GET",code="200"} 1`,
		`streamd_http_requests_total{route="/streams/{name}",method="other",code="405"} 1`,
		`streamd_http_requests_total{route="other",method="other",code="403"} 1`,
		`streamd_http_requests_total{route="other",method="other",code="404"} 1`,
		`streamd_http_request_duration_seconds_count{route="/streams/{name}",method="POST"} 4`,
		`streamd_http_request_duration_seconds_count{route="other",method="other"} 2`,
		`streamd_rejected_requests_total 1`,
		`streamd_subscribers 0`,
		`streamd_own 7`,
	} {
		if !strings.Contains("\n"+got.body, "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	is.True(!strings.Contains(got.body, "xxx"))
	if _, err := exec.LookPath("promtool"); err != nil {
		t.Skip("there is no promtool")
	}
	check := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	check.Stdin = strings.NewReader(got.body)
	out, err := check.CombinedOutput()
	is.NoErr(err)
	is.Equal(string(out), "")
}

// TestLag: a subscriber that takes nothing is seen to be behind, and one that has left is not counted.
func TestLag(t *testing.T) {
	is := is.New(t)
	c := measured(t)
	figure := func(name string) (n int) {
		for line := range strings.Lines(ask(t, c, "GET /metrics", nil).body) {
			if rest, ok := strings.CutPrefix(line, name+" "); ok {
				n, err := strconv.Atoi(strings.TrimSpace(rest))
				is.NoErr(err)
				return n
			}
		}
		t.Fatalf("no %s", name)
		return 0
	}
	conn := dial(t, c)
	is.NoErr(conn.SetReadBuffer(4 << 10))
	_, err := conn.Write([]byte("GET /streams/s HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"))
	is.NoErr(err)
	fast := subscribe(t, c, "/streams?prefix=s", "Accept: text/event-stream")
	fast.line()
	for figure("streamd_subscribers") < 2 {
	}
	data := fmt.Appendf(nil, `{"data":"%s"}`, strings.Repeat("x", 900<<10))
	for figure("streamd_subscriber_lag_events") < 3 {
		is.Equal(ask(t, c, "POST /streams/s", bytes.NewReader(data)).status, 201)
	}
	is.NoErr(conn.Close())
	for figure("streamd_subscribers") > 1 {
	}
	is.Equal(figure("streamd_subscriber_lag_events"), 0)
}
