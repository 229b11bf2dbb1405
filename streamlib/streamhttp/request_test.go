package streamhttp_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// TestRequestIDs: who sends one gets it back and finds it in the log, and what is none gets there in no form.
func TestRequestIDs(t *testing.T) {
	for _, logs := range []bool{false, true} {
		is := is.New(t)
		var log bytes.Buffer
		broken := &failing{Storage: memory.New(), stat: errors.New("the disk is on fire")}
		m := streamlib.NewManager(broken, streamlib.Plain, streamlib.Options{})
		c := serveHandler(t, streamhttp.NewHandler(m, streamhttp.Config{AccessLog: logs,
			Log: slog.New(slog.NewTextHandler(&log, nil))}))
		id := func(request string, headers ...string) string {
			return ask(t, c, request, nil, headers...).header.Get("X-Request-Id")
		}
		is.Equal(id("GET /healthz", "X-Request-Id: a-b_c.1:2=3+/@"), "a-b_c.1:2=3+/@")
		is.Equal(id("GET /healthz") != "", logs)
		for _, none := range []string{"a b", `a"b`, strings.Repeat("x", 129), "ä", ""} {
			got := id("GET /healthz", "X-Request-Id: "+none)
			is.Equal(got != "", logs)
			is.True(got != none || none == "")
		}
		two := ask(t, c, "GET /healthz", nil, "X-Request-Id: one", "X-Request-Id: two").header["X-Request-Id"]
		is.True(len(two) < 2)
		is.Equal(id("GET /streams/forged%0Alevel=ERROR%20msg=x/events", "X-Request-Id: seven"), "seven")
		failed := id("GET /streams/s/events")
		is.True(failed != "") // so that it can be asked for
		text := log.String()
		is.True(strings.Contains(text, "request="+failed))
		is.Equal(strings.Contains(text, "request=seven"), logs)
		is.Equal(strings.Count(text, "\n"), strings.Count(text, "time=")) // nothing forged a line
		is.Equal(strings.Contains(text, "msg=request method=GET path=/healthz status=200 bytes="), logs)
		is.True(!strings.Contains(text, "one") && !strings.Contains(text, "xxx"))
	}
}
