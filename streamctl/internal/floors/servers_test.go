//go:build linux

package main

import (
	"bufio"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamctl/internal/bench"
	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// TestBareSendsWhatStreamdSends: else it would be no floor. Times, and the headers in which they stand, are of one length.
func TestBareSendsWhatStreamdSends(t *testing.T) {
	streamd := streamhttp.NewHandler(streamlib.NewManager(streamlib.NewMemory(), streamlib.Plain, streamlib.Options{}), streamhttp.Config{})
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

func TestPeersTakeALoad(t *testing.T) {
	for _, p := range peers {
		t.Run(p.name, func(t *testing.T) {
			is := is.New(t)
			dir := filepath.Join(t.TempDir(), "data")
			is.NoErr(os.Mkdir(dir, 0o700))
			var s *server
			err := attempt(func() { s = p.start(t.Context(), dir) })
			if errors.Is(err, exec.ErrNotFound) {
				t.Skip("not installed:", err)
			}
			is.NoErr(err)
			defer s.stop()
			r, err := bench.Run(t.Context(), bench.Load{URL: s.url, Hello: s.hello, Conns: 2, Streams: 3, Size: size, Events: 20, Keep: true})
			is.NoErr(err)
			is.NoErr(r.Err)
			is.Equal(r.Appended, int64(20))
		})
	}
}

// TestWiresReadOneAnswer: each answer is followed by the first byte of another, which is not to be read.
func TestWiresReadOneAnswer(t *testing.T) {
	ready, pgError := "Z\x00\x00\x00\x05I", "E\x00\x00\x00\x18SERROR\x00C22P02\x00Mbad\x00\x00"
	for _, test := range []struct {
		wire            bench.Wire
		answer, refused string
	}{
		{redis{}, "$3\r\n1-1\r\n", ""},
		{redis{}, "-ERR bad\r\n", "-ERR bad"},
		{postgres{}, "2\x00\x00\x00\x04D\x00\x00\x00\x06\x00\x00" + ready, ""},
		{postgres{}, pgError + ready, "bad"},
		{nats{}, "INFO {}\r\nPING\r\nMSG _INBOX.A 1 10\r\n{\"seq\":1}\n\r\n", ""},
		{nats{}, "MSG _INBOX.A 1 12\r\n{\"error\":{}}\r\n", `{"error":{}}`},
	} {
		is := is.New(t)
		r := bufio.NewReader(strings.NewReader(test.answer + "X"))
		_, err := test.wire.Answer(r)
		if refused, ok := errors.AsType[*bench.RefusedError](err); ok {
			is.Equal(refused.Text, test.refused)
		} else {
			is.NoErr(err)
			is.Equal(test.refused, "")
		}
		rest, err := io.ReadAll(r)
		is.NoErr(err)
		is.Equal(string(rest), "X")
	}
	_, err := postgres{}.Answer(bufio.NewReader(strings.NewReader(pgError))) // then the server hangs up
	_, refused := errors.AsType[*bench.RefusedError](err)
	is := is.New(t)
	is.True(!refused)
	is.True(strings.HasSuffix(err.Error(), "bad"))
}

func TestTableWritesThreeDigitsOrMore(t *testing.T) {
	is := is.New(t)
	for v, want := range map[float64]string{0: "0", 0.1634: "0.163", 0.8: "0.8", 1.6: "1.6", 23.456: "23.5", 104: "104", 1234.5: "1,234", 2e6: "2,000,000"} {
		is.Equal(short(v), want)
	}
}
