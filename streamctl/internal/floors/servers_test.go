//go:build linux

package main

import (
	"bufio"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// TestBareSendsWhatStreamdSends: else it would be no floor. Times, and the headers in which they stand, are of one
// length.
func TestBareSendsWhatStreamdSends(t *testing.T) {
	streamd := streamhttp.NewHandler(streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{}),
		streamhttp.Config{})
	type sent struct {
		status, frame, answer string
		headers               []string
	}
	var all []sent
	for _, h := range []http.Handler{streamd, (&bare{streams: map[string]*bareStream{}}).handler()} {
		is := is.New(t)
		server := httptest.NewServer(h)
		defer server.Close()
		subscription, err := http.Get(server.URL + "/streams/s?offset=-1")
		is.NoErr(err)
		defer subscription.Body.Close()
		response, err := http.Post(server.URL+"/streams/s", "application/json", strings.NewReader(`{"data":{"n":1}}`))
		is.NoErr(err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		is.NoErr(err)
		var frames strings.Builder
		for lines := bufio.NewReader(subscription.Body); strings.Count(frames.String(), "\n\n") < 2; {
			line, err := lines.ReadString('\n')
			is.NoErr(err)
			frames.WriteString(line)
		}
		when := regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]{12}Z`)
		all = append(all, sent{
			response.Status, when.ReplaceAllString(frames.String(), "T"), when.ReplaceAllString(string(body), "T"),
			slices.Sorted(maps.Keys(response.Header)),
		})
	}
	is.New(t).Equal(all[1], all[0])
}

func TestTableWritesThreeDigitsOrMore(t *testing.T) {
	is := is.New(t)
	for v, want := range map[float64]string{0: "0", 0.1634: "0.163", 0.8: "0.8", 1.6: "1.6", 23.456: "23.5",
		104: "104", 1234.5: "1,234", 2e6: "2,000,000"} {
		is.Equal(short(v), want)
	}
}
