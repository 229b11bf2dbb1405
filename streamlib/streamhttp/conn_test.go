package streamhttp_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// dial connects to the server without a client's help.
func dial(t testing.TB, c *streamhttp.Client) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(c.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

// TestClientsThatSendNoMoreAreAnswered: nc and others close their half of the connection behind the request, which
// net/http takes for their leaving.
func TestClientsThatSendNoMoreAreAnswered(t *testing.T) {
	var left context.Context // is done when net/http has seen it
	hooks := streamlib.Hooks{Before: []streamlib.BeforeHook{{ID: "wait",
		Run: func(context.Context, string, json.RawMessage) error {
			<-left.Done()
			return nil
		}}}}
	storage := memory.New()
	add(t, streamlib.NewManager(storage, streamlib.Plain, streamlib.Options{}).Stream("s"), abc...)
	m := streamlib.NewManager(storage, streamlib.Factory(streamlib.Plain).WithHooks(hooks), streamlib.Options{})
	h := streamhttp.NewHandler(m, streamhttp.Config{})
	client := serveHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if left = r.Context(); r.Body == http.NoBody {
			<-left.Done()
		}
		h.ServeHTTP(w, r)
	}))
	for _, test := range []struct {
		request string
		status  int
		body    string // a part of it
	}{
		{"GET /streams/s/events", 200, `"offset":"0000000000000002"`},
		{"GET /streams/s/events?offset=now", 200, `{"events":[]}`},
		{"GET /streams/s/events?last=1&type=b", 200, `"_type":"b"`},
		{"GET /streams/s/events?offset=3&wait=1h", 200, `{"events":[]}`}, // nobody may be there: it does not wait
		{"HEAD /streams/s", 200, ""},
		{"HEAD /streams/none", 404, ""},
		{"GET /streams", 200, `{"streams":["s"]}`},
		{"GET /streams?details=true", 200, `"nextOffset":"0000000000000003"`},
		{"GET /healthz", 200, `"ok"`},
		{"GET /streams/s", 200, ""},
		{"POST /streams/s", 201, `"data":1`},
		{"DELETE /streams/s", 204, ""},
	} {
		t.Run(test.request, func(t *testing.T) {
			is := is.New(t)
			conn := dial(t, client)
			fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: localhost\r\n", test.request)
			if strings.HasPrefix(test.request, "POST") {
				fmt.Fprint(conn, "Content-Length: 10\r\n\r\n{\"data\":1}")
			} else {
				fmt.Fprint(conn, "\r\n")
			}
			is.NoErr(conn.CloseWrite())
			method, _, _ := strings.Cut(test.request, " ")
			resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
			is.NoErr(err)
			body, err := io.ReadAll(resp.Body)
			is.NoErr(err)
			is.Equal(resp.StatusCode, test.status)
			is.True(strings.Contains(string(body), test.body))
		})
	}
}

func TestRequestsWithoutHost(t *testing.T) {
	client, _ := serve(t, streamhttp.Config{})
	for _, test := range []struct {
		request string
		status  int
	}{
		{"GET /healthz HTTP/1.0\r\n\r\n", 200}, // a health check's
		{"GET /streams HTTP/1.0\r\n\r\n", 200},
		{"POST /streams/s HTTP/1.0\r\nContent-Length: 10\r\n\r\n{\"data\":1}", 201},
		{"POST /streams/s HTTP/1.0\r\nOrigin: http://evil.example\r\nContent-Length: 10\r\n\r\n{\"data\":1}", 403},
		{"GET /healthz HTTP/1.0\r\nHost: evil.example\r\n\r\n", 403},
		{"GET http://evil.example/healthz HTTP/1.0\r\n\r\n", 403},
		{"GET /healthz HTTP/1.1\r\n\r\n", 400},
		{"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", 403},
	} {
		t.Run(test.request, func(t *testing.T) {
			is := is.New(t)
			conn := dial(t, client)
			fmt.Fprint(conn, test.request)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			is.NoErr(err)
			is.Equal(resp.StatusCode, test.status)
		})
	}
}

// long is a stream whose whole answer is longer than a chunk and what the kernel takes at once.
func long(t testing.TB, m *streamlib.Manager) {
	t.Helper()
	for range 20 {
		add(t, m.Stream("s"), slices.Repeat([]string{`"` + strings.Repeat("x", 1000) + `"`}, 1000)...)
	}
}

// get asks for path over HTTP/1.0, where an answer without a length ends with the connection.
func get(t testing.TB, c *streamhttp.Client, path string) (http.Header, *bufio.Reader) {
	t.Helper()
	conn := dial(t, c)
	fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nAccept: application/x-ndjson\r\n\r\n", path)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.ContentLength != -1 {
		t.Fatalf("%s: %s with length %d", path, resp.Status, resp.ContentLength)
	}
	return resp.Header, bufio.NewReader(resp.Body)
}

func TestWholeAnswersEndWithTheConnection(t *testing.T) {
	is := is.New(t)
	client, m := serve(t, streamhttp.Config{})
	long(t, m)
	header, body := get(t, client, "/streams/s/events")
	got, err := io.ReadAll(body)
	is.NoErr(err)
	is.Equal(bytes.Count(got, []byte("\n")), 20_000)
	is.Equal(header.Get("Stream-Next-Offset"), "0000000000020000")
}

func TestAnswersThatBreakOffEndWithAReset(t *testing.T) {
	t.Run("at damage, behind what stands before it", func(t *testing.T) {
		is := is.New(t)
		storage := &failing{Storage: memory.New()}
		m := streamlib.NewManager(storage, streamlib.Plain, streamlib.Options{})
		long(t, m)
		storage.read = &streamlib.CorruptError{File: "s.json", Offset: 7}
		client := serveHandler(t, streamhttp.NewHandler(m, streamhttp.Config{}))
		for _, path := range []string{"/streams/s/events", "/streams/s?offset=0"} {
			_, body := get(t, client, path)
			got, err := io.ReadAll(body)
			is.True(errors.Is(err, syscall.ECONNRESET))
			is.True(bytes.Contains(got, []byte(`"offset":"0000000000019999"`)))
		}
	})
	t.Run("at the end of the server", func(t *testing.T) {
		is := is.New(t)
		m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
		server := &restartable{t: t, h: streamhttp.NewHandler(m, streamhttp.Config{}), addr: "127.0.0.1:0"}
		server.start()
		long(t, m)
		_, body := get(t, &streamhttp.Client{URL: "http://" + server.addr}, "/streams/s/events")
		server.stop()
		_, err := io.Copy(io.Discard, body)
		is.True(errors.Is(err, syscall.ECONNRESET))
	})
}

func TestReadsPromiseHowFarTheyGo(t *testing.T) {
	client, m := serve(t, streamhttp.Config{})
	add(t, m.Stream("s"), abc...)
	for query, want := range map[string]string{
		"": "3", "?offset=1": "3", "?offset=1&limit=1": "2", "?limit=9": "3", "?offset=7": "3", "?offset=now": "3",
		"?last=1": "3",
		"?type=b": "3", "?type=b&last=1": "", "?type=a&limit=1": "", "?offset=3&wait=1ms": "3",
		"?since=1h": "3", "?since=9999-01-08T00:00:00Z": "3", "?since=9999-01-08T00:00:00Z&wait=1ms": "3",
	} {
		is := is.New(t)
		if want != "" {
			want = "000000000000000" + want
		}
		for _, accept := range []string{"application/json", "application/x-ndjson"} {
			got := ask(t, client, "GET /streams/s/events"+query, nil, "Accept: "+accept)
			is.Equal(got.header.Get("Stream-Next-Offset"), want) // of query
		}
	}
}

// pythons are two clients of Python's standard library, which read no answer before they have sent the whole body.
// For each request they print the status.
var pythons = map[string]string{
	"http.client": `
import sys, json, http.client
host, requests = sys.argv[1:]
for method, path, size, name, value in json.loads(requests):
    c = http.client.HTTPConnection(host)
    try:
        c.request(method, path, b"x" * size, {name: value})
        print(c.getresponse().status)
    except OSError as e:
        print(e)`,
	"urllib": `
import sys, json, urllib.request, urllib.error
host, requests = sys.argv[1:]
for method, path, size, name, value in json.loads(requests):
    try:
        print(urllib.request.urlopen(urllib.request.Request("http://" + host + path, b"x" * size, {name: value}, method=method)).status)
    except urllib.error.HTTPError as e:
        print(e.status)
    except OSError as e:
        print(e)`,
}

func TestEarlyAnswersReachWhoSendsFirst(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3 whose clients could be tried")
	}
	client, _ := serve(t, streamhttp.Config{})
	var requests [][]any
	var want []string
	for _, test := range []struct {
		request      string
		size         int
		header, text string
		status       int
	}{
		{"POST /streams/s", 9 << 20, "Content-Type", "application/json", 413},
		{"POST /streams/s", 60 << 20, "Content-Type", "application/json", 413},
		{"POST /streams/s", 9 << 20, "Content-Type", "application/x-ndjson", 413},
		{"POST /streams/s", 1 << 20, "Content-Type", "application/json", 400}, // read to its end
		{"POST /streams/s", 1 << 20, "Content-Type", "text/html", 415},
		{"POST /streams/s", 8 << 20, "Content-Type", "text/html", 415},
		{"POST /streams/s", 8 << 20, "Idempotency-Key", "", 400},
		{"POST /streams/s?x=1", 8 << 20, "Accept", "*/*", 400},
		{"POST /streams/%0A", 8 << 20, "Accept", "*/*", 400},
		{"POST /streams/s", 8 << 20, "Origin", "http://evil.example", 403},
		{"POST /streams/s", 8 << 20, "Host", "evil.example", 403},
		{"POST /nowhere", 8 << 20, "Accept", "*/*", 404},
		{"PUT /streams/s", 8 << 20, "Accept", "*/*", 405},
		{"DELETE /streams/s", 8 << 20, "Accept", "*/*", 204},
		{"GET /streams", 8 << 20, "Accept", "*/*", 200},
	} {
		method, path, _ := strings.Cut(test.request, " ")
		requests = append(requests, []any{method, path, test.size, test.header, test.text})
		want = append(want, fmt.Sprint(test.status))
	}
	args, err := json.Marshal(requests)
	if err != nil {
		t.Fatal(err)
	}
	for name, script := range pythons {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			command := exec.CommandContext(t.Context(), python, "-c", script, strings.TrimPrefix(client.URL, "http://"),
				string(args))
			out, err := command.CombinedOutput()
			is.NoErr(err)
			is.Equal(strings.Split(strings.TrimSpace(string(out)), "\n"), want)
		})
	}
}
