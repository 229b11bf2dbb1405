package streamhttp_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// reply is an answer as the tables below compare it: times are cut out.
type reply struct {
	status int
	header http.Header
	body   string
}

var times = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`)

// ask sends a request such as "GET /streams", with headers such as "Accept: text/html".
func ask(t testing.TB, c *streamhttp.Client, request string, body io.Reader, headers ...string) reply {
	t.Helper()
	method, path, _ := strings.Cut(request, " ")
	req, err := http.NewRequestWithContext(t.Context(), method, c.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Add(name, value)
	}
	own := *http.DefaultClient
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := own.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, times.ReplaceAllString(string(got), "TIME")}
}

func event(o int, data string) string {
	return fmt.Sprintf(`{"offset":"%016d","eventStreamId":"s","data":%s,"createdAt":"TIME"}`, o, data)
}

func events(list ...string) string { return `{"events":[` + strings.Join(list, ",") + "]}\n" }

// abc are the events that stream s has in the tables.
var abc = []string{`{"type":"a"}`, `{"_type":"b","type":7}`, `{"type":"a","n":2}`}

func TestRoutes(t *testing.T) {
	deep := strings.Repeat("[", 1000) + strings.Repeat("]", 1000)
	e0, e1, e2 := event(0, abc[0]), event(1, abc[1]), event(2, abc[2])
	const ndjson = "Content-Type: application/x-ndjson"
	const tail3, tail4 = `Etag: "0000000000000003" Stream-Next-Offset: 0000000000000003`, `Etag: "0000000000000004" Stream-Next-Offset: 0000000000000004`
	for _, test := range []struct {
		request string
		headers string // separated by |
		body    string
		status  int
		answer  string // the body; where it begins with ~, a part of its error
		want    string // headers of the answer, separated by a space
	}{
		// Appends.
		{"POST /streams/s", "", `{"data":1}`, 201, event(3, "1") + "\n", tail4 + " Content-Type: application/json"},
		{"POST /streams/s", "Content-Type: application/json; charset=utf-8", " {\n \"data\" : [ 1, 1.0 ] }\r\n", 201,
			event(3, "[1,1.0]") + "\n", ""},
		{"POST /streams/s", "Content-Type: application/vnd.x+json", `{"data":null}`, 201, event(3, "null") + "\n", ""},
		{"POST /streams/s", "Content-Type: application/x-www-form-urlencoded", `{"data":"a=b&c"}`, 201,
			event(3, `"a=b&c"`) + "\n", ""},
		{"POST /streams/s", "", `{"\u0064ata":1}`, 201, event(3, "1") + "\n", ""},
		{"POST /streams/s", "", `{"data":"\n\nid: 7\ndata: x  "}`, 201, event(3, `"\n\nid: 7\ndata: x  "`) + "\n", ""},
		{"POST /streams/s", "", `{"data":` + deep + `}`, 201, event(3, deep) + "\n", ""},
		{"POST /streams/s", "", `{"data":[` + deep + `]}`, 400, "~nests deeper than 1000", ""},
		{"POST /streams/s", "", ``, 400, "~it is empty", "Content-Type: application/json"},
		{"POST /streams/s", "", " \n", 400, "~it is empty", ""},
		{"POST /streams/s", "", `[]`, 400, "~it is no object", ""},
		{"POST /streams/s", "", `{}`, 400, `~no "data" member`, ""},
		{"POST /streams/s", "", `{"Data":1}`, 400, `~unknown member "Data"`, ""},
		{"POST /streams/s", "", `{"data":1,"other":2}`, 400, `~unknown member "other"`, ""},
		{"POST /streams/s", "", `{"data":1,"data":1}`, 400, `~two "data" members`, ""},
		{"POST /streams/s", "", `{"data":1,}`, 400, `~unexpected '}'`, ""},
		{"POST /streams/s", "", `{"data":1`, 400, `~ends too early`, ""},
		{"POST /streams/s", "", `{"data"}`, 400, `~no value`, ""},
		{"POST /streams/s", "", `{"data":1}{"data":2}`, 400, `~text behind the object`, ""},
		{"POST /streams/s", "", `{"data":01}`, 400, `~unexpected '1'`, ""},
		{"POST /streams/s", "", "{\"data\":\"\xff\"}", 400, `~invalid UTF-8`, ""},
		{"POST /streams/s", "", "{\"data\":\"\n\"}", 400, `~control character`, ""},
		{"POST /streams/s", "Content-Type: text/plain;charset=UTF-8", `{"data":1}`, 201, event(3, "1") + "\n", ""},
		{"POST /streams/s", "Content-Type: text/html", `{"data":1}`, 415, `~text/html`, ""},
		{"POST /streams/s", "Content-Type: ;", `{"data":1}`, 415, `~content type`, ""},
		{"POST /streams/s", "Content-Encoding: gzip", `{"data":1}`, 415, `~gzip`, ""},
		{"POST /streams/s?offset=1", "", `{"data":1}`, 400, `~parameter "offset": none is taken here`, ""},
		{"POST /streams/s", "", `{"data":"` + strings.Repeat("x", 99) + `"}`, 413, "~101 bytes, the limit is 100", ""},
		{"POST /streams/s", "", `{"data":"` + strings.Repeat("x", 98) + `"}`, 201,
			event(3, `"`+strings.Repeat("x", 98)+`"`) + "\n", ""},
		{"POST /streams/s", "", `{"data":[` + strings.Repeat(" ", 65_000) + `]}`, 201, event(3, "[]") + "\n", ""},
		{"POST /streams/s", "", `{"data":[` + strings.Repeat(" ", 70_000) + `]}`, 413, "~the limit is 100 bytes of data", ""},
		// Batches.
		{"POST /streams/s", ndjson, "1\n {\"a\": 2}\r\n\n3", 201,
			events(event(3, "1"), event(4, `{"a":2}`), event(5, "3")), `Etag: "0000000000000006"`},
		{"POST /streams/s", ndjson + "|Accept: application/x-ndjson", "1\n2\n", 201,
			event(3, "1") + "\n" + event(4, "2") + "\n", "Content-Type: application/x-ndjson"},
		{"POST /streams/s", ndjson, "1\n\n{\"a\":}\n", 400, "~line 3: unexpected '}'", ""},
		{"POST /streams/s", ndjson, "1\n2 3\n", 400, "~line 2: unexpected text", ""},
		{"POST /streams/s", ndjson, "1\n\"" + strings.Repeat("x", 99) + "\"\n", 413, "~line 2 has 101 bytes", ""},
		{"POST /streams/s", ndjson, "\n \n", 400, "~it is empty", ""},
		{"POST /streams/s", ndjson, "", 400, "~it is empty", ""},
		// Conditions and keys.
		{"POST /streams/s", `If-Match: "0000000000000003"`, `{"data":1}`, 201, event(3, "1") + "\n", tail4},
		{"POST /streams/s", `If-Match: "3"`, `{"data":1}`, 201, event(3, "1") + "\n", ""},
		{"POST /streams/s", `If-Match: "2"`, `{"data":1}`, 412,
			`{"error":"append \"s\": tail is 3, not 2","tail":"0000000000000003"}` + "\n", tail3},
		{"POST /streams/s", `If-None-Match: *`, `{"data":1}`, 412, "~tail is 3, not 0", tail3},
		{"POST /streams/s", `If-Match: 3`, `{"data":1}`, 400, "~If-Match", ""},
		{"POST /streams/s", `If-Match: W/"3"`, `{"data":1}`, 400, "~If-Match", ""},
		{"POST /streams/s", `If-Match: "now"`, `{"data":1}`, 400, "~If-Match", ""},
		{"POST /streams/s", `If-Match: "3"|If-Match: "3"`, `{"data":1}`, 400, "~If-Match", ""},
		{"POST /streams/s", `If-Match: *`, `{"data":1}`, 400, "~If-Match", ""},
		{"POST /streams/s", `If-None-Match: "3"`, `{"data":1}`, 400, "~If-None-Match", ""},
		{"POST /streams/s", `If-Match: "3"|If-None-Match: *`, `{"data":1}`, 400, "~If-Match and If-None-Match", ""},
		{"POST /streams/s", `Idempotency-Key: k`, `{"data": {"type":"a","n":2} }`, 200, e2 + "\n", tail3},
		{"POST /streams/s", `Idempotency-Key: k|If-Match: "0"`, `{"data":{"type":"a","n":2}}`, 200, e2 + "\n", tail3},
		{"POST /streams/s", `Idempotency-Key: k`, `{"data":1}`, 422, "~key was used with other data", ""},
		{"POST /streams/s", `Idempotency-Key: `, `{"data":1}`, 400, "~Idempotency-Key", ""},
		{"POST /streams/s", `Idempotency-Key: a|Idempotency-Key: b`, `{"data":1}`, 400, "~Idempotency-Key", ""},
		{"POST /streams/s", `Idempotency-Key: ` + strings.Repeat("x", 256), `{"data":1}`, 400, "~idempotency key", ""},
		// Reads.
		{"GET /streams/s/events", "", "", 200, events(e0, e1, e2),
			"Content-Type: application/json Cache-Control: no-cache Content-Length: 356"},
		{"GET /streams/none/events", "", "", 200, events(), ""},
		{"GET /streams/s/events?offset=-1&limit=2", "", "", 200, events(e0, e1), ""},
		{"GET /streams/s/events?offset=1&limit=1", "", "", 200, events(e1), ""},
		{"GET /streams/s/events?offset=0000000000000002", "", "", 200, events(e2), ""},
		{"GET /streams/s/events?offset=3", "", "", 200, events(), ""},
		{"GET /streams/s/events?offset=now", "", "", 200, events(), ""},
		{"GET /streams/s/events?offset=9007199254740991&limit=9007199254740991", "", "", 200, events(), ""},
		{"GET /streams/s/events?offset=9007199254740992", "", "", 400, "~offset", ""},
		{"GET /streams/s/events?offset=", "", "", 400, "~offset", ""},
		{"GET /streams/s/events?offset=-2", "", "", 400, "~offset", ""},
		{"GET /streams/s/events?limit=0", "", "", 400, "~limit", ""},
		{"GET /streams/s/events?limit=-1", "", "", 400, "~limit", ""},
		{"GET /streams/s/events?limit=x", "", "", 400, "~limit", ""},
		{"GET /streams/s/events?before=2", "", "", 200, events(e0, e1), "Stream-Next-Offset: 0000000000000002"},
		{"GET /streams/s/events?before=now", "", "", 200, events(e0, e1, e2), "Stream-Next-Offset: 0000000000000003"},
		{"GET /streams/s/events?before=9", "", "", 200, events(e0, e1, e2), "Stream-Next-Offset: 0000000000000003"},
		{"GET /streams/s/events?before=0", "", "", 200, events(), "Stream-Next-Offset: 0000000000000000"},
		{"GET /streams/s/events?before=2&last=1", "", "", 200, events(e1), "Stream-Next-Offset: 0000000000000002"},
		{"GET /streams/s/events?before=2&last=1&type=a", "", "", 200, events(e0), ""},
		{"GET /streams/s/events?before=2&last=9&type=b", "", "", 200, events(e1), ""},
		{"GET /streams/s/events?before=2&offset=1", "", "", 200, events(e1), "Stream-Next-Offset: 0000000000000002"},
		{"GET /streams/s/events?before=1&offset=2", "", "", 200, events(), "Stream-Next-Offset: 0000000000000002"},
		{"GET /streams/s/events?before=2&since=1h&limit=1", "", "", 200, events(e0), "Stream-Next-Offset: 0000000000000001"},
		{"GET /streams/s/events?before=-1", "", "", 400, `~before "-1": it is the offset behind the last event`, ""},
		{"GET /streams/s/events?before=x", "", "", 400, "~offset", ""},
		{"GET /streams/s/events?before=1&wait=1s", "", "", 400, "~before and wait contradict", ""},
		{"GET /streams/s/times?bucket=1", "", "", 400, `~parameter "bucket": taken here: since, buckets`, ""},
		{"GET /streams/s/times?buckets=0", "", "", 400, `~buckets "0"`, ""},
		{"GET /streams/s/times?buckets=x", "", "", 400, `~buckets "x"`, ""},
		{"GET /streams/s/times?since=x", "", "", 400, `~since "x"`, ""},
		{"GET /streams/s/times?buckets=1", "", "", 200, `{"first":"0000000000000000","next":"0000000000000003",` +
			`"from":"TIME","to":"TIME","counts":[3]}` + "\n", ""},
		{"GET /streams/s/times?buckets=2&since=9999-01-01T00:00:00Z", "", "", 200, `{"first":"0000000000000003",` +
			`"next":"0000000000000003","from":"TIME","to":"TIME","counts":[0,0]}` + "\n", ""},
		{"GET /streams/none/times", "", "", 200,
			`{"first":"0000000000000000","next":"0000000000000000","counts":[]}` + "\n", ""},
		{"POST /streams/s/times", "", "", 405, "~method", ""},
		{"GET /streams/s/events?offest=1", "", "", 400, `~parameter "offest": taken here: offset, since, limit`, ""},
		{"GET /streams/s/events?offset=1&offset=2", "", "", 400, "~offset: it is there twice", ""},
		{"GET /streams/s/events?a;b", "", "", 400, "~query", ""},
		{"GET /streams/s/events?last=2", "", "", 200, events(e1, e2), ""},
		{"GET /streams/s/events?last=9", "", "", 200, events(e0, e1, e2), ""},
		{"GET /streams/s/events?last=0", "", "", 400, "~last", ""},
		{"GET /streams/s/events?since=1h", "", "", 200, events(e0, e1, e2), "Stream-Next-Offset: 0000000000000003"},
		{"GET /streams/s/events?since=7d&limit=1", "", "", 200, events(e0), "Stream-Next-Offset: 0000000000000001"},
		{"GET /streams/s/events?since=1d12h&type=b", "", "", 200, events(e1), ""},
		{"GET /streams/s/events?since=1h&wait=1h", "", "", 200, events(e0, e1, e2), ""},
		{"GET /streams/s/events?since=2024-01-08T00:00:00Z", "", "", 200, events(e0, e1, e2), ""},
		{"GET /streams/s/events?since=0001-01-01T00:00:00Z", "", "", 200, events(e0, e1, e2), ""},
		{"GET /streams/s/events?since=2024-01-08T00:00:00+02:00", "", "", 200, events(e0, e1, e2), ""},
		{"GET /streams/s/events?since=9999-01-08T00:00:00Z", "", "", 200, events(), "Stream-Next-Offset: 0000000000000003"},
		{"GET /streams/s/events?since=9999-01-08T00:00:00Z&wait=1ms", "", "", 200, events(), ""},
		{"GET /streams/none/events?since=1h", "", "", 200, events(), "Stream-Next-Offset: 0000000000000000"},
		{"GET /streams/s/events?since=2024-01-08T09:00", "", "", 400, "~no zone, such as the Z of 2024-01-08T09:00:00Z", ""},
		{"GET /streams/s/events?since=2024-01-08+09:00:00", "", "", 400, `~"2024-01-08 09:00:00": it has no zone`, ""},
		{"GET /streams/s/events?since=2024-01-08", "", "", 400, "~no zone", ""},
		{"GET /streams/s/events?since=yesterday", "", "", 400, `~since "yesterday": it is a time such as`, ""},
		{"GET /streams/s/events?since=", "", "", 400, "~since", ""},
		{"GET /streams/s/events?since=-1h", "", "", 400, "~since", ""},
		{"GET /streams/s/events?since=1d-1h", "", "", 400, "~since", ""},
		{"GET /streams/s/events?since=-1d", "", "", 400, "~since", ""},
		{"GET /streams/s/events?since=70000d", "", "", 400, "~since", ""},
		{"GET /streams/s/events?since=60", "", "", 400, "~since", ""},
		{"GET /streams/s/events?since=1h&offset=1", "", "", 400, "~since and offset", ""},
		{"GET /streams/s/events?since=1h&last=1", "", "", 400, "~since and last", ""},
		{"GET /streams/s/events?last=1&offset=1", "", "", 400, "~last and offset", ""},
		{"GET /streams/s/events?last=1&limit=1", "", "", 400, "~last and limit", ""},
		{"GET /streams/s/events?last=1&wait=1s", "", "", 400, "~last and wait", ""},
		{"GET /streams/s/events?wait=1", "", "", 400, "~wait", ""},
		{"GET /streams/s/events?wait=2h", "", "", 400, "~wait", ""},
		{"GET /streams/s/events?wait=-1s", "", "", 400, "~wait", ""},
		{"GET /streams/s/events?offset=2&wait=1h", "", "", 200, events(e2), ""},
		{"GET /streams/s/events?offset=3&wait=1ms", "", "", 200, events(), ""},
		{"GET /streams/s/events?type=a", "", "", 200, events(e0, e2), ""},
		{"GET /streams/s/events?type=a&type=b&limit=2", "", "", 200, events(e0, e1), ""},
		{"GET /streams/s/events?type=b", "", "", 200, events(e1), ""},
		{"GET /streams/s/events?type=a&last=1", "", "", 200, events(e2), ""},
		{"GET /streams/s/events?type=b&last=1", "", "", 200, events(e1), ""},
		{"GET /streams/s/events?type=b&last=2", "", "", 200, events(e1), ""},
		{"GET /streams/s/events", "Accept: application/x-ndjson, */*;q=0.1", "", 200, e0 + "\n" + e1 + "\n" + e2 + "\n",
			"Content-Type: application/x-ndjson"},
		{"GET /streams/none/events", "Accept: application/x-ndjson", "", 200, "", "Content-Type: application/x-ndjson"},
		{"HEAD /streams/s/events", "", "", 200, "", "Content-Type: application/json"},
		// The tail.
		{"HEAD /streams/s", "", "", 200, "", tail3},
		{"HEAD /streams/none", "", "", 404, "", `Etag: "0000000000000000" Stream-Next-Offset: 0000000000000000`},
		{"HEAD /streams/s?offset=-1&type=a&lastEventId=1", "", "", 200, "", tail3},
		{"HEAD /streams/s?foo=1", "", "", 400, "", ""},
		{"HEAD /streams/s?offset=x", "", "", 400, "", ""},
		{"HEAD /streams/s/events?foo=1", "", "", 400, "", ""},
		{"HEAD /streams?foo=1", "", "", 400, "", ""},
		{"HEAD /streams?foo=1", "Accept: text/event-stream", "", 400, "", ""},
		{"HEAD /healthz?foo=1", "", "", 400, "", ""},
		// Lists.
		{"GET /streams", "", "", 200, `{"streams":["a/b","s"]}` + "\n", ""},
		{"GET /streams?prefix=a", "", "", 200, `{"streams":["a/b"]}` + "\n", ""},
		{"GET /streams?prefix=x", "", "", 200, `{"streams":[]}` + "\n", ""},
		{"GET /streams?limit=1", "", "", 200, `{"streams":["a/b"],"next":"a/b"}` + "\n", ""},
		{"GET /streams?limit=1&after=a/b", "", "", 200, `{"streams":["s"]}` + "\n", ""},
		{"GET /streams?limit=2&details=false", "", "", 200, `{"streams":["a/b","s"]}` + "\n", ""},
		{"GET /streams?details=true&prefix=s", "", "", 200,
			`{"streams":[{"name":"s","nextOffset":"0000000000000003","size":347,"createdAt":"TIME","updatedAt":"TIME"}]}` + "\n", ""},
		{"GET /streams?details=1", "", "", 400, "~details", ""},
		{"GET /streams?limit=0", "", "", 400, "~limit", ""},
		{"GET /streams?offset=1", "", "", 400, "~offset", ""},
		{"HEAD /streams", "Accept: text/event-stream", "", 200, "", "Content-Type: text/event-stream;charset=utf-8"},
		// Subscriptions that are refused.
		{"GET /streams/s?limit=1", "", "", 400, "~limit", ""},
		{"GET /streams/s?wait=1s", "", "", 400, "~wait", ""},
		{"GET /streams/s?last=1&offset=1", "", "", 400, "~last and offset", ""},
		{"GET /streams/s?offset=x", "", "", 400, "~offset", ""},
		{"GET /streams/s?since=1h&offset=1", "", "", 400, "~since and offset", ""},
		{"GET /streams/s?since=1h&last=1", "", "", 400, "~since and last", ""},
		{"GET /streams/s?since=x", "", "", 400, "~since", ""},
		{"GET /streams/s?since=1h", "Last-Event-ID: 3", "", 410, "~tail is 3", ""},
		{"GET /streams/s?last-event-id=", "", "", 400, "~last-event-id", ""},
		{"GET /streams/s?lastEventId=", "", "", 400, "~lastEventId", ""},
		{"GET /streams/s?lastEventId=x", "", "", 400, "~Last-Event-ID", ""},
		{"GET /streams/s?lastEventId=4", "", "", 410, "~tail is 3", ""},
		{"GET /streams/s?last-event-id=now", "", "", 400, "~Last-Event-ID", ""},
		{"GET /streams/s", "Last-Event-ID: x", "", 400, "~Last-Event-ID", ""},
		{"GET /streams/s", "Last-Event-ID: 3", "", 410,
			`{"error":"resume \"s\" after 3: tail is 3, the stream was deleted since","tail":"0000000000000003"}` + "\n", tail3},
		{"GET /streams/s?last-event-id=4", "", "", 410, "~tail is 3", ""},
		{"GET /streams/s?offset=1", "Last-Event-ID: 7", "", 410, "~tail is 3", ""},
		{"GET /streams/none", "Last-Event-ID: 0", "", 410, "~tail is 0", ""},
		{"GET /streams?limit=1", "Accept: text/event-stream", "", 400, "~limit", ""},
		// Deletions.
		{"DELETE /streams/s", "", "", 204, "", ""},
		{"DELETE /streams/none", "", "", 204, "", ""},
		{"DELETE /streams/s?all=true", "", "", 400, "~all", ""},
		// Paths and methods.
		{"GET /", "", "", 404, "~no such path", "Content-Type: application/json"},
		{"POST /streams/", "", `{"data":1}`, 404, "~no such path", ""},
		{"POST /streams/a/b", "", `{"data":1}`, 404, "~%2F", ""},
		{"POST /streams/a//b", "", `{"data":1}`, 404, "~no such path", ""},
		{"POST /streams//s", "", `{"data":1}`, 404, "~no such path", ""},
		{"POST /streams/s/", "", `{"data":1}`, 404, "~no such path", ""},
		{"GET /streams/s/events/", "", ``, 404, "~no such path", ""},
		{"GET /streams/../healthz", "", ``, 404, "~no such path", ""},
		{"POST /streams/a%2Fb", "", `{"data":1}`, 201, strings.ReplaceAll(event(1, "1"), `"s"`, `"a/b"`) + "\n", ""},
		{"POST /streams/%2E%2E", "", `{"data":1}`, 201, strings.ReplaceAll(event(0, "1"), `"s"`, `".."`) + "\n", ""},
		{"POST /stream?name=..", "", `{"data":2}`, 201, strings.ReplaceAll(event(0, "2"), `"s"`, `".."`) + "\n", ""},
		{"POST /stream?name=.", "", `{"data":2}`, 201, strings.ReplaceAll(event(0, "2"), `"s"`, `"."`) + "\n", ""},
		{"POST /stream?name=a/b", "", `{"data":2}`, 201, strings.ReplaceAll(event(1, "2"), `"s"`, `"a/b"`) + "\n", ""},
		{"GET /stream/events?last=1&name=a%2Fb", "", "", 200,
			`{"events":[` + strings.ReplaceAll(event(0, "0"), `"s"`, `"a/b"`) + "]}\n", ""},
		{"GET /stream/times?name=a/b&buckets=x", "", "", 400, "~buckets", ""},
		{"HEAD /stream?name=a/b", "", "", 200, "", "Stream-Next-Offset: 0000000000000001"},
		{"POST /stream?name=%2F", "", `{"data":0}`, 201, strings.ReplaceAll(event(0, "0"), `"s"`, `"/"`) + "\n", ""},
		{"DELETE /stream?name=%2F", "", ``, 204, "", ""},
		{"DELETE /stream?name=..&all=true", "", "", 400, "~all", ""},
		{"PUT /stream?name=..", "", ``, 405, "~DELETE, GET, HEAD, POST", "Allow: DELETE,GET,HEAD,POST"},
		{"POST /stream?name=%00", "", `{"data":1}`, 400, `~\x00`, ""},
		{"POST /stream?name=a&name=b", "", `{"data":1}`, 404, "~/stream?name=NAME", ""},
		{"POST /stream?name=", "", `{"data":1}`, 404, "~no such path", ""},
		{"POST /stream", "", `{"data":1}`, 404, "~/stream?name=NAME", ""},
		{"POST /stream/x?name=a", "", `{"data":1}`, 404, "~no such path", ""},
		{"POST /streams/%2F", "", `{"data":1}`, 201, strings.ReplaceAll(event(0, "1"), `"s"`, `"/"`) + "\n", ""},
		{"POST /streams/a+b%20%25", "", `{"data":1}`, 201, strings.ReplaceAll(event(0, "1"), `"s"`, `"a+b %"`) + "\n", ""},
		{"POST /streams/%00", "", `{"data":1}`, 400, `~\x00`, ""},
		{"POST /streams/%FF", "", `{"data":1}`, 400, `~UTF-8`, ""},
		{"HEAD /streams/%0A", "", ``, 400, "", ""},
		{"GET /streams/" + strings.Repeat("x", 256) + "/events", "", ``, 400, "~256 bytes", ""},
		{"PUT /streams/s", "", ``, 405, "~DELETE, GET, HEAD, POST", "Allow: DELETE,GET,HEAD,POST"},
		{"POST /streams", "", ``, 405, "~GET, HEAD", "Allow: GET,HEAD"},
		{"POST /streams/s/events", "", ``, 405, "~DELETE, GET, HEAD", "Allow: DELETE,GET,HEAD"},
		{"OPTIONS /healthz", "", ``, 405, "~GET, HEAD", "Allow: GET,HEAD"},
		{"GET /healthz?x=1", "", ``, 400, "~x", ""},
		{"GET /readyz", "", ``, 200, "{\"status\":\"ok\"}\n", ""},
		{"GET /readyz?x=1", "", ``, 400, "~x", ""},
		// Web pages of others.
		{"GET /streams", "Host: evil.example", ``, 403, "~--allow-host", ""},
		{"GET /healthz", "Host: localhost.evil.example:80", ``, 403, `~"localhost.evil.example"`, ""},
		{"GET /streams", "Host: 10.0.0.1", ``, 403, "~--allow-host", ""},
		{"GET /healthz", "Host: [::1]:3000", ``, 200, "", ""},
		{"GET /healthz", "Host: ::1", ``, 200, "", ""},
		{"GET /healthz", "Host: LOCALHOST.:3000", ``, 200, "", ""},
		{"GET /healthz", "Host: Good.example:1", ``, 200, "", ""},
		{"POST /streams/s", "Origin: http://evil.example", `{"data":1}`, 403, "~another origin", ""},
		{"POST /streams/s", "Sec-Fetch-Site: cross-site", `{"data":1}`, 403, "~another origin", ""},
		{"DELETE /streams/s", "Sec-Fetch-Site: same-site", ``, 403, "~another origin", ""},
		{"POST /streams/s", "Sec-Fetch-Site: same-origin", `{"data":1}`, 201, event(3, "1") + "\n", ""},
	} {
		title := test.request
		if test.headers != "" {
			title += " " + test.headers
		}
		t.Run(fmt.Sprintf("%.60s %.40s", title, test.body), func(t *testing.T) {
			is := is.New(t)
			client, m := serve(t, streamhttp.Config{MaxEvent: max(100, len(deep)*strings.Count(test.body, deep)),
				AllowHosts: []string{"good.EXAMPLE:3000"}})
			_, err := m.Stream("a/b").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("0")})
			is.NoErr(err)
			_, err = m.Stream("s").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(abc[:2]...)})
			is.NoErr(err)
			_, err = m.Stream("s").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(abc[2]), Key: "k"})
			is.NoErr(err)
			var headers []string
			if test.headers != "" {
				headers = strings.Split(test.headers, "|")
			}
			got := ask(t, client, test.request, strings.NewReader(test.body), headers...)
			is.Equal(got.status, test.status)
			if part, ok := strings.CutPrefix(test.answer, "~"); ok {
				var problem struct{ Error string }
				is.NoErr(json.Unmarshal([]byte(got.body), &problem))
				if !strings.Contains(problem.Error, part) {
					t.Errorf("the error %q does not name %q", problem.Error, part)
				}
			} else if test.answer != "" {
				is.Equal(got.body, test.answer)
			}
			for want := range strings.FieldsSeq(strings.ReplaceAll(test.want, ": ", ":")) {
				name, value, _ := strings.Cut(want, ":")
				is.Equal(strings.NewReplacer(", ", ",", "; ", ";").Replace(got.header.Get(name)), value)
			}
			if test.status >= 400 { // has changed nothing
				info, err := m.Stream("s").Stat(t.Context())
				is.NoErr(err)
				is.Equal(info.Tail, streamlib.Offset(3))
			}
		})
	}
}

// A handler may take less than the manager would.
func TestOwnLimit(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{MaxEvent: 1000})
	client := serveHandler(t, streamhttp.NewHandler(m, streamhttp.Config{MaxEvent: 10}))
	for _, test := range []struct {
		contentType, body string
		status            int
	}{
		{"application/x-ndjson", "1\n\n\"345678901\"\n", 413},
		{"application/x-ndjson", "1\n\"34567890\"\n[1,   2,   3]", 201},
		{"application/json", `{"data":"345678901"}`, 413},
		{"application/json", `{"data":"34567890"}`, 201},
	} {
		got := ask(t, client, "POST /streams/s", strings.NewReader(test.body), "Content-Type: "+test.contentType)
		is.Equal(got.status, test.status)
		is.Equal(strings.Contains(got.body, "11 bytes, the limit is 10"), test.status == 413)
	}
	info, err := m.Stream("s").Stat(t.Context())
	is.NoErr(err)
	is.Equal(info.Tail, streamlib.Offset(4))
}

// TestHealthTellsWhoUsesTheFolderMore, and nobody else: behind a proxy all come from the same machine.
func TestHealthTellsWhoUsesTheFolderMore(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	c := streamhttp.Config{AllowHosts: []string{"box"}, Health: streamhttp.Health{PID: 7, Dir: "/d", URL: "http://u",
		Version: "v1", Storage: "fs", StartedAt: time.Date(2024, 1, 8, 0, 0, 0, 0, time.UTC), Args: []string{}, Unit: "x.service"}}
	const public = `{"status":"ok","version":"v1","storage":"fs","startedAt":"2024-01-08T00:00:00Z"}` + "\n"
	const private = `{"status":"ok","pid":7,"dir":"/d","url":"http://u","version":"v1","storage":"fs",` +
		`"startedAt":"2024-01-08T00:00:00Z","args":[],"unit":"x.service"}` + "\n"
	tells := func(from string) string {
		r := httptest.NewRequest("GET", "http://box/healthz", nil)
		r.RemoteAddr = from
		w := httptest.NewRecorder()
		streamhttp.NewHandler(m, c).ServeHTTP(w, r)
		return w.Body.String()
	}
	for _, from := range []string{"127.0.0.1:5", "[::1]:5", "10.0.0.1:5", "@"} {
		is.Equal(tells(from), public)
	}
	c.Local = func(r *http.Request) bool { return r.RemoteAddr == "@" }
	is.Equal(tells("@"), private)
	is.Equal(tells("127.0.0.1:5"), public)
}

// TestHealthWhateverTheClockSays: JSON has no form for some times (RFC 3339 has years of four digits), and a server on
// a machine whose clock is there answers all the same.
func TestHealthWhateverTheClockSays(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	for _, test := range []struct {
		started time.Time
		want    string
	}{
		{time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), "9999-12-31T23:59:59Z"},
		{time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC), "9999-12-31T23:59:59Z"},
		{time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("west", -3600)), "9999-12-31T23:59:59Z"},
		{time.Date(292_000_000_000, 1, 1, 0, 0, 0, 0, time.UTC), "9999-12-31T23:59:59Z"},
		{time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC), "0000-01-01T00:00:00Z"},
		{time.Date(0, 1, 1, 0, 0, 0, 0, time.FixedZone("east", 3600)), "0000-01-01T00:00:00Z"},
		{time.Date(2024, 1, 8, 0, 0, 0, 0, time.FixedZone("seconds", 30*3600)), "2024-01-06T18:00:00Z"},
	} {
		h := streamhttp.NewHandler(m, streamhttp.Config{Health: streamhttp.Health{StartedAt: test.started}})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/healthz", nil))
		is.Equal(w.Code, http.StatusOK)
		is.True(strings.Contains(w.Body.String(), `"startedAt":"`+test.want+`"`))
	}
}

// failing is a storage that fails as it is told.
type failing struct {
	streamlib.Storage
	append, read, stat error
	early              bool // read fails before its events, else behind them
}

func (f *failing) Commit(ctx context.Context, name string, c streamlib.Change) error {
	return cmp.Or(f.append, f.Storage.Commit(ctx, name, c))
}

func (f *failing) Stat(ctx context.Context, name string) (streamlib.Info, error) {
	info, err := f.Storage.Stat(ctx, name)
	return info, cmp.Or(f.stat, err)
}

func (f *failing) Read(
	ctx context.Context, name string, from, to streamlib.Offset,
) iter.Seq2[[]streamlib.Event, error] {
	return func(yield func([]streamlib.Event, error) bool) {
		for events, err := range f.Storage.Read(ctx, name, from, to) {
			if f.early {
				break
			}
			if !yield(events, err) {
				return
			}
		}
		if f.read != nil {
			yield(nil, f.read)
		}
	}
}

func TestErrorsHaveTheirStatus(t *testing.T) {
	corrupt := &streamlib.CorruptError{File: "s.json", Offset: 7, Reason: "checksum"}
	for _, test := range []struct {
		name    string
		storage failing
		hook    error
		request string
		status  int
		answer  string
		logged  string
	}{
		{"full", failing{append: fmt.Errorf("write: %w", streamlib.ErrFull)}, nil, "POST /streams/s", 507,
			`{"error":"append \"s\": write: storage is full"}`, ""},
		{"unavailable", failing{append: streamlib.ErrUnavailable}, nil, "POST /streams/s", 503,
			`{"error":"append \"s\": cannot be done now"}`, ""},
		{"open outcome", failing{append: os.ErrPermission}, nil, "POST /streams/s", 500,
			`{"error":"internal error, its cause is in the server's log"}`, "permission"},
		{"corrupt for appends", failing{stat: corrupt}, nil, "POST /streams/s", 503,
			`{"error":"append \"s\": cannot be done now: s.json is corrupt at byte 7: checksum","damage":{"file":"s.json","offset":7,"reason":"checksum"}}`, ""},
		{"corrupt for reads", failing{read: corrupt, early: true}, nil, "GET /streams/s/events", 500,
			`{"error":"read \"s\": s.json is corrupt at byte 7: checksum","damage":{"file":"s.json","offset":7,"reason":"checksum"}}`, "byte 7"},
		{"corrupt for subscriptions from now", failing{stat: corrupt}, nil, "GET /streams/s", 500,
			`{"error":"stat \"s\": s.json is corrupt at byte 7: checksum","damage":{"file":"s.json","offset":7,"reason":"checksum"}}`, "byte 7"},
		{"corrupt in a list", failing{stat: corrupt}, nil, "GET /streams?details=true", 200,
			`{"streams":[{"name":"s","error":"stat \"s\": s.json is corrupt at byte 7: checksum","damage":{"file":"s.json","offset":7,"reason":"checksum"}}]}`, "byte 7"},
		{"veto", failing{}, errors.New("no \"x\"\n"), "POST /streams/s", 400, `{"error":"no \"x\"\n","hookId":"guard"}`, ""},
		{"veto for a batch", failing{}, errors.New("no"), "POST /streams/s", 400, `{"error":"no","hookId":"guard"}`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			is := is.New(t)
			test.storage.Storage = memory.New()
			record, err := streamlib.NewRecord(0, "s", json.RawMessage("0"), time.Now())
			is.NoErr(err)
			e, err := streamlib.ParseRecord(record)
			is.NoErr(err)
			is.NoErr(test.storage.Storage.Commit(t.Context(), "s", streamlib.Change{Events: []streamlib.Event{e}}))
			var log bytes.Buffer
			factory := streamlib.Factory(streamlib.Plain).WithHooks(streamlib.Hooks{Before: []streamlib.BeforeHook{{ID: "guard",
				Run: func(context.Context, string, json.RawMessage) error { return test.hook }}}})
			m := streamlib.NewManager(&test.storage, factory, streamlib.Options{})
			client := serveHandler(t, streamhttp.NewHandler(m, streamhttp.Config{Log: slog.New(slog.NewTextHandler(&log, nil))}))
			got := ask(t, client, test.request, strings.NewReader(`{"data":1}`))
			is.Equal(got.status, test.status)
			is.Equal(got.body, test.answer+"\n")
			is.Equal(got.header.Get("Retry-After") != "", test.status == 503)
			is.Equal(strings.Contains(log.String(), test.logged), true)
			is.Equal(log.Len() > 0, test.logged != "")
		})
	}
}

func TestCorruptionFoundLateBreaksTheAnswerOff(t *testing.T) {
	for _, path := range []string{"/streams/s/events", "/streams/s?offset=0", "/streams/s?offset=0&until=tail"} {
		t.Run(path, func(t *testing.T) {
			is := is.New(t)
			storage := &failing{Storage: memory.New()}
			m := streamlib.NewManager(storage, streamlib.Plain, streamlib.Options{})
			_, err := m.Stream("s").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("0")})
			is.NoErr(err)
			storage.read = &streamlib.CorruptError{File: "s.json", Offset: 7}
			if strings.HasSuffix(path, "until=tail") {
				storage.stat = storage.read // which hides the tail
			}
			client := serveHandler(t, streamhttp.NewHandler(m, streamhttp.Config{}))
			resp, err := http.Get(client.URL + path)
			is.NoErr(err)
			defer resp.Body.Close()
			is.Equal(resp.StatusCode, 200)
			body, err := io.ReadAll(resp.Body)
			is.True(strings.Contains(string(body), `"data":0`)) // what stands before the damage
			is.True(err != nil)
		})
	}
}

func TestLongAnswersAreSentInChunks(t *testing.T) {
	for _, lines := range []bool{false, true} {
		t.Run(fmt.Sprint("lines ", lines), func(t *testing.T) {
			is := is.New(t)
			client, m := serve(t, streamhttp.Config{})
			want := add(t, m.Stream("s"), slices.Repeat([]string{`"` + strings.Repeat("x", 1000) + `"`}, 1000)...)
			req, err := http.NewRequestWithContext(t.Context(), "GET", client.URL+"/streams/s/events", nil)
			is.NoErr(err)
			if lines {
				req.Header.Set("Accept", "application/x-ndjson")
			}
			resp, err := http.DefaultClient.Do(req)
			is.NoErr(err)
			defer resp.Body.Close()
			is.Equal(resp.ContentLength, int64(-1)) // it was not all in memory at once
			body, err := io.ReadAll(resp.Body)
			is.NoErr(err)
			var got []streamlib.Event
			if lines {
				body = bytes.ReplaceAll(bytes.TrimSuffix(body, []byte("\n")), []byte("\n"), []byte(","))
				body = fmt.Appendf(nil, `{"events":[%s]}`, body)
			}
			is.NoErr(json.Unmarshal(body, &struct{ Events *[]streamlib.Event }{&got}))
			is.Equal(len(got), len(want))
			for i := range want {
				is.Equal(got[i].String(), want[i].String())
			}
		})
	}
}

func TestLastOfATypeIsFoundFarBack(t *testing.T) {
	is := is.New(t)
	client, m := serve(t, streamhttp.Config{})
	data := slices.Repeat([]string{"0"}, 10_000)
	for _, i := range []int{10, 5_000, 9_000, 9_001} {
		data[i] = `{"type":"x"}`
	}
	add(t, m.Stream("s"), data...)
	for n, want := range map[int][]streamlib.Offset{1: {9_001}, 2: {9_000, 9_001}, 3: {5_000, 9_000, 9_001},
		4: {10, 5_000, 9_000, 9_001}, 5: {10, 5_000, 9_000, 9_001}} {
		var got []streamlib.Offset
		for events, err := range client.Stream("s").Query(t.Context(), streamhttp.Query{Last: n, Types: []string{"x"}}) {
			is.NoErr(err)
			for _, e := range events {
				got = append(got, e.Offset)
			}
		}
		is.Equal(got, want)
	}
}

// meddling is a storage that calls then behind each Stat.
type meddling struct {
	streamlib.Storage
	then func()
}

func (m *meddling) Stat(ctx context.Context, name string) (streamlib.Info, error) {
	info, err := m.Storage.Stat(ctx, name)
	if m.then != nil {
		m.then()
	}
	return info, err
}

func TestLastIsSoManyWhileOthersAppend(t *testing.T) {
	is := is.New(t)
	storage := &meddling{Storage: memory.New()}
	m := streamlib.NewManager(storage, streamlib.Plain, streamlib.Options{})
	client := serveHandler(t, streamhttp.NewHandler(m, streamhttp.Config{}))
	add(t, m.Stream("s"), abc...)
	storage.then = func() { add(t, m.Stream("s"), abc[0]) }
	is.Equal(ask(t, client, "GET /streams/s/events?last=1", nil).body, events(event(2, abc[2])))
	is.Equal(ask(t, client, "GET /streams/s/events?last=1&type=a", nil).body, events(event(3, abc[0])))
}

// endless is a body that never ends, and counts what was taken of it.
type endless struct{ taken atomic.Int64 }

func (e *endless) Read(b []byte) (int, error) {
	e.taken.Add(int64(len(b)))
	return len(b), nil
}

func TestTooLargeBodiesAreRefusedEarly(t *testing.T) {
	for _, test := range []struct {
		name, contentType string
		length            int64
	}{
		{"10 GiB in chunks", "application/json", -1},
		{"10 GiB of lines in chunks", "application/x-ndjson", -1},
		{"10 GiB announced", "application/json", 10 << 30},
	} {
		t.Run(test.name, func(t *testing.T) {
			is := is.New(t)
			client, _ := serve(t, streamhttp.Config{})
			body := &endless{}
			req, err := http.NewRequestWithContext(t.Context(), "POST", client.URL+"/streams/s", io.LimitReader(body, 10<<30))
			is.NoErr(err)
			req.Header.Set("Content-Type", test.contentType)
			req.ContentLength = test.length
			resp, err := http.DefaultClient.Do(req)
			is.NoErr(err)
			resp.Body.Close()
			is.Equal(resp.StatusCode, 413)
			is.True(body.taken.Load() < 64<<20) // what buffers took, and not gigabytes
		})
	}
}

func TestAnnouncedLengthCostsNoMemory(t *testing.T) {
	is := is.New(t)
	client, _ := serve(t, streamhttp.Config{})
	conn, err := net.Dial("tcp", strings.TrimPrefix(client.URL, "http://"))
	is.NoErr(err)
	defer conn.Close()
	fmt.Fprintf(conn, "POST /streams/s HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: "+
		"%d\r\n\r\n", 2<<20)
	answer := make([]byte, 12)
	_, err = io.ReadFull(conn, answer)
	is.NoErr(err)
	is.Equal(string(answer), "HTTP/1.1 413") // and never 100 Continue
}

// nobody is an Access that lets nobody in.
type nobody struct{}

func (nobody) Grant(*http.Request) (streamhttp.Grant, error) {
	return streamhttp.Grant{}, errors.New("no")
}
func (nobody) Session(*http.Request) (*http.Cookie, error) { return nil, errors.New("no") }

// Why a server is not ready is told to everybody, what it names to those alone who may know the folder.
func TestNotReady(t *testing.T) {
	for _, access := range []streamhttp.Access{nil, nobody{}} {
		is := is.New(t)
		h := streamhttp.NewHandler(streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{}),
			streamhttp.Config{
				Ready:  func() error { return fmt.Errorf("%w: /var/secret is gone", streamlib.ErrUnavailable) },
				Access: access,
			})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/readyz", nil))
		is.Equal(w.Code, 503)
		is.Equal(w.Header().Get("Retry-After"), "1")
		want := "{\"error\":\"cannot be done now: /var/secret is gone\"}\n"
		if access != nil {
			want = "{\"error\":\"cannot be done now\"}\n"
		}
		is.Equal(w.Body.String(), want)
	}
}
