package tokens_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/iterate/durable-streams/streamlib/streamhttp/tokens"
	"github.com/iterate/durable-streams/streamlib/transfer"
	"github.com/matryer/is"
)

// lookEvery is how often a file is looked at.
const lookEvery = 500 * time.Millisecond

// line is a token's whose secret is "secret-" and its name.
func line(name, rest string) string { return name + " " + digest("secret-"+name) + " " + rest + "\n" }

// logged is a log that many write to.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// A server has the streams jobs/1, jobs/2, other and "/", an event each, behind a file of tokens.
type server struct {
	t    testing.TB
	url  string
	h    http.Handler
	m    *streamlib.Manager
	path string
	file *tokens.File
	log  logged
}

func newServer(t testing.TB, text string, c streamhttp.Config) *server {
	t.Helper()
	s := &server{t: t, path: filepath.Join(t.TempDir(), "tokens")}
	writeFile(t, s.path, text)
	var err error
	if s.file, err = tokens.Open(s.path, tokens.Options{Log: slog.New(slog.NewTextHandler(&s.log, nil))}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.file.Close() })
	s.m = streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	for _, name := range []string{"jobs/1", "jobs/2", "other", "/"} {
		if _, err := s.m.Stream(name).Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("0")}); err != nil {
			t.Fatal(err)
		}
	}
	c.Access, c.Log = s.file, slog.New(slog.NewTextHandler(&s.log, nil))
	s.h = streamhttp.NewHandler(s.m, c)
	return s
}

// listen serves on a real socket.
func (s *server) listen() *server {
	listener := httptest.NewUnstartedServer(s.h)
	listener.Config = streamhttp.NewServer(s.t.Context(), s.h, slog.New(slog.NewTextHandler(&s.log, nil)))
	listener.Start()
	s.t.Cleanup(listener.Close)
	s.url = listener.URL
	return s
}

// send sends a request such as "GET /streams" with headers such as "Accept: text/html".
func (s *server) send(request string, headers ...string) *http.Response {
	s.t.Helper()
	method, path, _ := strings.Cut(request, " ")
	var body io.Reader
	if method == "POST" {
		body = strings.NewReader(`{"data":1}`)
	}
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp
}

func (s *server) ask(request string, headers ...string) (status int, body string) {
	s.t.Helper()
	resp := s.send(request, headers...)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func bearer(name string) string { return "Authorization: Bearer secret-" + name }

// rewrite puts another file in the place of the one there, and waits until it is in force.
func (s *server) rewrite(text string) {
	s.t.Helper()
	writeFile(s.t, s.path, text)
	if err := s.file.Reload(); err != nil {
		s.t.Fatal(err)
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	is := is.New(t)
	past, future := time.Now().Add(-time.Second).Format(time.RFC3339), time.Now().Add(time.Hour).Format(time.RFC3339)
	s := newServer(t, line("reader", "read")+line("writer", "write expires="+future)+line("admin",
		"admin")+line("jobs", "admin prefix=jobs/")+
		line("slash", "read prefix=/")+line("two", "read prefix=other prefix=jobs/2")+line("old",
		"admin expires="+past), streamhttp.Config{}).listen()
	for _, test := range []struct {
		who, request string
		status       int
		says         string // a part of the error
	}{
		{"", "GET /healthz", 200, ""},
		{"nobody", "GET /healthz", 200, ""},
		{"", "GET /nowhere", 404, ""},
		{"", "GET /streams", 401, "a token is needed"},
		{"", "GET /streams/other/events", 401, ""},
		{"", "GET /streams/other", 401, ""},
		{"", "GET /streams/%00/events", 401, ""},
		{"", "GET /streams/%2F/events", 401, ""},
		{"", "HEAD /streams/other", 401, ""},
		{"", "POST /streams/other", 401, ""},
		{"", "DELETE /streams/other", 401, ""},
		{"", "POST /session", 401, "a token is needed"},
		{"", "PUT /streams/other", 405, ""},
		{"nobody", "GET /streams/other/events", 401, "is not known here"},
		{"old", "GET /streams/other/events", 401, `the token "old" has expired`},
		{"", "GET /streams/other/events?token=secret-admin", 401, ""},
		{"reader", "GET /streams/other/events?access_token=secret-admin", 400, ""},
		{"reader", "GET /streams/other/events", 200, ""},
		{"reader", "GET /streams/none/events", 200, ""},
		{"reader", "HEAD /streams/other", 200, ""},
		{"reader", "GET /streams/%00/events", 400, ""},
		{"reader", "POST /streams/other", 403, `this needs the right to write on stream "other", and "reader" has read on all streams`},
		{"reader", "close /streams/other", 403, `this needs the right to write on stream "other"`},
		{"reader", "DELETE /streams/other", 403, "the right to admin"},
		{"writer", "POST /streams/w", 201, ""},
		{"writer", "GET /streams/w/events", 200, ""},
		{"writer", "close /streams/w", 201, ""},
		{"writer", "DELETE /streams/w", 403, `the right to admin on stream "w"`},
		{"writer", "DELETE /streams/w/events?before=1", 403, `the right to admin on stream "w"`},
		{"admin", "DELETE /streams/w/events?before=1", 204, ""},
		{"admin", "DELETE /streams/w", 204, ""},
		{"jobs", "GET /streams/jobs%2F1/events", 200, ""},
		{"jobs", "POST /streams/jobs%2f3", 201, ""},
		{"jobs", "DELETE /streams/jobs%2F3", 204, ""},
		{"jobs", "GET /streams/jobs/events", 403, `on stream "jobs", and "jobs" has admin on streams that begin with ["jobs/"]`},
		{"jobs", "GET /streams/other/events", 403, ""},
		{"jobs", "GET /streams/none/events", 403, ""}, // as one that exists
		{"jobs", "GET /stream/events?name=jobs/1", 200, ""},
		{"jobs", "GET /stream/events?name=other", 403, `on stream "other"`},
		{"jobs", "POST /stream?name=jobs/../other", 201, ""}, // which is a name
		{"jobs", "POST /stream?name=%2F", 403, `on stream "/"`},
		{"", "GET /stream/events?name=other", 401, ""},
		{"jobs", "POST /streams/%2F", 403, ""},
		{"jobs", "GET /streams/jobs%252F1/events", 403, ""},
		{"slash", "GET /streams/%2F/events", 200, ""},
		{"slash", "POST /streams/%2F", 403, ""},
		{"slash", "GET /streams/other/events", 403, ""},
		{"two", "HEAD /streams/jobs%2F2", 200, ""},
		{"two", "HEAD /streams/other", 200, ""},
		{"two", "HEAD /streams/jobs%2F1", 403, ""},
		{"", "GET /export", 401, ""},
		{"", "POST /import", 401, ""},
		{"reader", "GET /export", 403, "the right to admin on all streams"},
		{"writer", "POST /import", 403, "the right to admin on all streams"},
		{"admin", "GET /export", 200, ""},
		{"admin", "POST /import", 400, ""}, // it is none
		{"jobs", "GET /export", 200, ""},
		{"jobs", "GET /export?name=jobs%2F1", 200, ""},
		{"jobs", "GET /export?name=other", 403, `on stream "other"`},
		{"jobs", "POST /import", 400, ""},
	} {
		t.Run(test.who+" "+test.request, func(t *testing.T) {
			is := is.New(t)
			var headers []string
			if test.who != "" {
				headers = []string{bearer(test.who)}
			}
			request := test.request
			if path, closes := strings.CutPrefix(request, "close"); closes {
				request, headers = "POST"+path, append(headers, "Stream-Closed: true")
			}
			resp := s.send(request, headers...)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			is.NoErr(err)
			is.Equal(resp.StatusCode, test.status)
			is.True(strings.Contains(strings.ReplaceAll(string(body), `\"`, `"`), test.says))
			want := ""
			if test.status == 401 {
				if want = `Bearer realm="streams"`; test.who != "" {
					want += `, error="invalid_token"`
				}
			}
			is.Equal(resp.Header.Get("WWW-Authenticate"), want)
			is.True(test.status < 400 || !strings.Contains(string(body), "secret-"))
		})
	}
	is.True(!strings.Contains(s.log.String(), "secret-"))
}

func TestHeadersThatAreNoToken(t *testing.T) {
	s := newServer(t, line("a", "read"), streamhttp.Config{}).listen()
	for _, test := range []struct {
		status  int
		headers []string
	}{
		{200, []string{"Authorization: bearer   secret-a"}},
		{401, []string{"Authorization: Bearer"}},
		{401, []string{"Authorization: Bearer "}},
		{401, []string{"Authorization: secret-a"}},
		{401, []string{"Authorization: Basic secret-a"}},
		{401, []string{"Authorization: Bearer secret-a secret-a"}},
		{401, []string{bearer("a"), bearer("a")}},
		{401, []string{"Authorization: Bearer " + digest("secret-a")}},
		{401, []string{"Authorization: Bearer SECRET-A"}},
		{401, []string{"Cookie: token=secret-a"}},
		{401, []string{"X-Token: secret-a"}},
	} {
		status, body := s.ask("GET /streams", test.headers...)
		if status != test.status {
			t.Errorf("%q is answered %d %s", test.headers, status, body)
		}
	}
}

// TestListsShowWhatMayBeRead, page by page.
func TestListsShowWhatMayBeRead(t *testing.T) {
	is := is.New(t)
	s := newServer(t, line("all", "read")+line("jobs", "read prefix=jobs/")+line("two",
		"read prefix=other prefix=j prefix=jobs/2")+
		line("none", "read prefix=none"), streamhttp.Config{}).listen()
	for _, test := range []struct{ who, query, want string }{
		{"all", "", `{"streams":["/","jobs/1","jobs/2","other"]}`},
		{"jobs", "", `{"streams":["jobs/1","jobs/2"]}`},
		{"jobs", "?prefix=j", `{"streams":["jobs/1","jobs/2"]}`},
		{"jobs", "?prefix=jobs/2", `{"streams":["jobs/2"]}`},
		{"jobs", "?prefix=other", `{"streams":[]}`},
		{"jobs", "?limit=1", `{"streams":["jobs/1"],"next":"jobs/1"}`},
		{"jobs", "?limit=1&after=jobs/1", `{"streams":["jobs/2"]}`},
		{"jobs", "?limit=2", `{"streams":["jobs/1","jobs/2"]}`},
		{"two", "", `{"streams":["jobs/1","jobs/2","other"]}`},
		{"two", "?limit=2", `{"streams":["jobs/1","jobs/2"],"next":"jobs/2"}`},
		{"two", "?limit=2&after=jobs/2", `{"streams":["other"]}`},
		{"two", "?limit=3", `{"streams":["jobs/1","jobs/2","other"]}`},
		{"none", "", `{"streams":[]}`},
	} {
		status, body := s.ask("GET /streams"+test.query, bearer(test.who))
		is.Equal(status, 200)
		is.Equal(strings.TrimSpace(body), test.want)
	}
	_, body := s.ask("GET /streams?details=true", bearer("jobs"))
	is.Equal(strings.Count(body, `"name"`), 2)
}

// TestChangesAreThoseThatMayBeRead: others are not even named.
func TestChangesAreThoseThatMayBeRead(t *testing.T) {
	is := is.New(t)
	s := newServer(t, line("a", "read prefix=jobs/"), streamhttp.Config{}).listen()
	l := s.live("GET /streams?details=true", bearer("a"))
	for _, name := range []string{"other", "/", "new", "jobs", "jobs/1"} {
		s.append(name)
	}
	for seen := ""; !strings.Contains(seen, `"jobs/1"`); {
		is.True(l.Scan())
		seen += l.Text()
		is.Equal(strings.Count(seen, `"name"`), strings.Count(seen, `"name":"jobs/`))
	}
}

// A live answer of server-sent events or of one event.
type live struct {
	*bufio.Scanner
	resp *http.Response
}

func (s *server) live(request string, headers ...string) live {
	s.t.Helper()
	resp := s.send(request, append(headers, "Accept: text/event-stream")...)
	s.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 {
		s.t.Fatalf("%s: %s", request, resp.Status)
	}
	l := live{bufio.NewScanner(resp.Body), resp}
	l.Scan() // it has begun
	return l
}

// next returns the stream of the next event, "" at the end of the answer.
func (l live) next() string {
	for l.Scan() {
		var e struct{ EventStreamID string }
		if data, ok := strings.CutPrefix(l.Text(), "data: "); ok && json.Unmarshal([]byte(data), &e) == nil &&
			e.EventStreamID != "" {
			return e.EventStreamID
		}
	}
	return ""
}

func (s *server) append(name string) {
	s.t.Helper()
	if _, err := s.m.Stream(name).Append(s.t.Context(), streamlib.Batch{Data: streamlib.JSON("1")}); err != nil {
		s.t.Fatal(err)
	}
}

// TestAllStreamsAreThoseThatMayBeRead when an event comes: after a reload the others.
func TestAllStreamsAreThoseThatMayBeRead(t *testing.T) {
	is := is.New(t)
	s := newServer(t, line("a", "read prefix=jobs/"), streamhttp.Config{}).listen()
	l := s.live("GET /streams", bearer("a"))
	for _, name := range []string{"other", "jobs/1", "/", "new", "jobs/2", "jobs"} {
		s.append(name)
	}
	is.Equal(l.next(), "jobs/1")
	is.Equal(l.next(), "jobs/2")
	s.rewrite(line("a", "admin prefix=other"))
	for deadline := time.Now().Add(time.Minute); ; { // the file is in force; the request hears of it
		is.True(time.Now().Before(deadline))
		s.append("jobs/1")
		s.append("other")
		if l.next() == "other" {
			break
		}
	}
	s.append("jobs/1")
	s.append("other")
	is.Equal(l.next(), "other")
	s.rewrite(line("b", "admin"))
	for l.next() != "" {
	}
	is.NoErr(l.Err()) // ended, and not broken off
}

// TestReadsEndWithTheRight at a reload, and no others.
func TestReadsEndWithTheRight(t *testing.T) {
	is := is.New(t)
	s := newServer(t, line("goes", "read")+line("stays", "read")+line("less", "admin")+line("moves",
		"read prefix=jobs/"), streamhttp.Config{}).listen()
	goes, stays, less, moves := s.live("GET /streams/other", bearer("goes")), s.live("GET /streams/other",
		bearer("stays")),
		s.live("GET /streams/other", bearer("less")), s.live("GET /streams/jobs%2F1", bearer("moves"))
	type answer struct {
		status int
		body   string
	}
	waiting := make(chan answer, 2)
	for _, who := range []string{"goes", "stays"} {
		go func() {
			status, body := s.ask("GET /streams/other/events?offset=1&wait=1m", bearer(who))
			waiting <- answer{status, body}
		}()
	}
	s.rewrite("# another\n" + line("new", "read") + line("stays", "write") + line("less",
		"read prefix=oth") + line("moves", "read prefix=other"))
	is.Equal(goes.next(), "")
	is.NoErr(goes.Err())
	is.Equal(moves.next(), "")
	first := <-waiting
	is.Equal(first.status, 401)
	is.True(strings.Contains(first.body, "not known here"))
	s.append("other")
	is.Equal(stays.next(), "other")
	is.Equal(less.next(), "other")
	is.Equal((<-waiting).status, 200)
	status, _ := s.ask("POST /streams/other", bearer("less"))
	is.Equal(status, 403)
}

// TestReadsEndWhenTheTokenExpires: by the clock of the machine, also where that was set.
func TestReadsEndWhenTheTokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		const lasts = 50 * time.Minute
		s := newServer(t, line("a", "read expires="+time.Now().Add(lasts).Format(time.RFC3339)), streamhttp.Config{})
		for _, path := range []string{"/streams/other", "/streams", "/streams/other/events?offset=1&wait=1h"} {
			begun := time.Now()
			r := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
			r.Host, r.Header = "localhost", http.Header{"Authorization": {"Bearer secret-a"}, "Accept": {"text/event-stream"}}
			done := make(chan *httptest.ResponseRecorder)
			go func() {
				w := httptest.NewRecorder()
				s.h.ServeHTTP(w, r)
				done <- w
			}()
			time.Sleep(lasts - time.Second)
			synctest.Wait()
			select {
			case <-done:
				t.Fatal("it ended before")
			default:
			}
			w := <-done
			is.Equal(time.Since(begun), lasts)
			is.Equal(w.Code, map[bool]int{true: 401, false: 200}[strings.Contains(path, "wait")])

			s.rewrite(line("a", "read expires="+time.Now().Add(lasts).Format(time.RFC3339)))
		}
		// An end that is put off while somebody reads.
		begun := time.Now()
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/streams", nil)
		r.Host, r.Header = "localhost", http.Header{"Authorization": {"Bearer secret-a"}, "Accept": {"text/event-stream"}}
		time.AfterFunc(time.Minute, func() {
			s.rewrite(line("a", "read expires="+begun.Add(5*time.Hour).Format(time.RFC3339)))
		})
		s.h.ServeHTTP(httptest.NewRecorder(), r)
		is.Equal(time.Since(begun), 5*time.Hour)
		is.NoErr(s.file.Close())
	})
}

// TestChangesOfTheFile are in force soon after the last of them; a bad file is told once and changes nothing.
func TestChangesOfTheFile(t *testing.T) {
	const soon = 3 * lookEvery
	for _, test := range []struct {
		name   string
		change func(path string) error
		want   []string // who gets in then
		says   string   // what is logged
	}{
		{"written", func(path string) error { return os.WriteFile(path, []byte(line("b", "admin")), 0o600) },
			[]string{"b"}, "tokens=1"},
		{"written at the same size", func(path string) error {
			return os.WriteFile(path, []byte(line("b", "read")),
				0o600)
		}, []string{"b"}, "tokens=1"},
		{"replaced", func(path string) error {
			return errors.Join(os.WriteFile(path+".new", []byte(line("b", "read")+line("c", "read")), 0o600),
				os.Rename(path+".new", path))
		}, []string{"b", "c"}, "tokens=2"},
		{"removed", os.Remove, []string{"a"}, "no such file"},
		{"emptied", func(path string) error { return os.Truncate(path, 0) }, []string{"a"}, "it has no token"},
		{"bad", func(path string) error { return os.WriteFile(path, []byte(line("b", "read")+"c secret read"), 0o600) },
			[]string{"a"}, "line 2: the second word"},
		{"a folder instead", func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
			[]string{"a"}, "no regular file"},
		{"others may read it", func(path string) error { return os.Chmod(path, 0o644) }, []string{"a"}, "chmod 600"},
		{"touched", func(path string) error { return os.Chtimes(path, time.Now(), time.Now()) }, []string{"a"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				s := newServer(t, line("a", "read"), streamhttp.Config{})
				time.Sleep(10*time.Second + lookEvery/5) // between two looks
				is.Equal(s.log.String(), "")
				is.NoErr(test.change(s.path))
				time.Sleep(soon)
				is.Equal(s.who(), test.want)
				time.Sleep(time.Minute)
				is.True(strings.Contains(s.log.String(), test.says))
				is.True(strings.Count(s.log.String(), "\n") <= 1) // once
				is.True(!strings.Contains(s.log.String(), "secret"))

				if info, err := os.Stat(s.path); err == nil && info.IsDir() {
					is.NoErr(os.Remove(s.path))
				}
				if strings.Contains(s.log.String(), "ERROR") { // it is as it was before
					writeFile(t, s.path, line("a", "read"))
					is.NoErr(os.Chmod(s.path, 0o600))
					time.Sleep(soon)
					is.True(strings.Contains(s.log.String(), "tokens read again"))
				}
				writeFile(t, s.path, line("z", "read")) // and when it is good again
				is.NoErr(os.Chmod(s.path, 0o600))
				time.Sleep(soon)
				is.Equal(s.who(), []string{"z"})
				is.NoErr(s.file.Close())
			})
		})
	}
}

// TestAFileThatIsBeingWritten is not read: half of it would end what the other half allows.
func TestAFileThatIsBeingWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		s := newServer(t, line("a", "read")+line("b", "read"), streamhttp.Config{})
		time.Sleep(10*time.Second + lookEvery/5) // between two looks
		for _, half := range []string{"", line("a", "read"), line("a", "read") + "b 12",
			line("a", "read") + line("b", "read") + "#"} {
			writeFile(t, s.path, half)
			time.Sleep(lookEvery - time.Millisecond)
			is.Equal(s.who(), []string{"a", "b"})
		}
		time.Sleep(time.Minute)
		is.Equal(s.who(), []string{"a", "b"})
		is.True(!strings.Contains(s.log.String(), "ERROR"))
		is.NoErr(s.file.Close())
	})
}

// who returns which of a to z get in.
func (s *server) who() (names []string) {
	for name := 'a'; name <= 'z'; name++ {
		r := httptest.NewRequest("GET", "/streams", nil)
		r.Header.Set("Authorization", "Bearer secret-"+string(name))
		if _, err := s.file.Grant(r); err == nil {
			names = append(names, string(name))
		}
	}
	return names
}

// TestSessions: a cookie that scripts cannot read, for those who can send no header.
func TestSessions(t *testing.T) {
	is := is.New(t)
	s := newServer(t, line("jobs", "write prefix=jobs/")+line("b", "read"), streamhttp.Config{}).listen()
	resp := s.send("POST /session", bearer("jobs"))
	resp.Body.Close()
	is.Equal(resp.StatusCode, 204)
	is.Equal(resp.Header.Get("Cache-Control"), "no-store")
	cookies := resp.Cookies()
	is.Equal(len(cookies), 1)
	c := cookies[0]
	is.True(c.HttpOnly && c.SameSite == http.SameSiteStrictMode && c.Path == "/" && !c.Secure)
	is.True(c.MaxAge > 12*60*60-60 && c.MaxAge <= 12*60*60)
	is.True(!strings.Contains(c.String(), "secret"))
	cookie := "Cookie: other=1; " + c.Name + "=" + c.Value

	status, _ := s.ask("GET /streams/jobs%2F1/events", cookie)
	is.Equal(status, 200)
	status, _ = s.ask("POST /streams/jobs%2F1", cookie)
	is.Equal(status, 201)
	status, _ = s.ask("GET /streams/other/events", cookie)
	is.Equal(status, 403)
	status, _ = s.ask("POST /session", cookie) // no session lasts longer by itself
	is.Equal(status, 401)
	status, _ = s.ask("GET /streams/jobs%2F1/events", cookie, "Authorization: Bearer wrong") // a header is meant
	is.Equal(status, 401)
	status, _ = s.ask("POST /streams/jobs%2F1", cookie, "Origin: http://evil.example")
	is.Equal(status, 403)
	parts := strings.Split(c.Value, ".")
	for _, forged := range []string{
		"", ".", "..", c.Value + "A", c.Value[:len(c.Value)-2], parts[0] + "." + parts[1], parts[0] + "." + parts[1] + ".",
		parts[0] + ".99999999999." + parts[2], "Yg." + parts[1] + "." + parts[2], "bm9uZQ." + parts[1] + "." + parts[2],
	} {
		status, body := s.ask("GET /streams/jobs%2F1/events", "Cookie: "+c.Name+"="+forged)
		is.Equal(status, 401)
		is.True(strings.Contains(body, "the session has ended"))
	}
	resp = s.send("POST /session", bearer("jobs"), "X-Forwarded-Proto: https")
	resp.Body.Close()
	is.True(resp.Cookies()[0].Secure)
	resp = s.send("DELETE /session")
	resp.Body.Close()
	is.Equal(resp.StatusCode, 204)
	is.True(resp.Cookies()[0].Name == c.Name && resp.Cookies()[0].MaxAge < 0)

	s.rewrite(line("jobs", "write expires="+time.Now().Add(-time.Second).Format(time.RFC3339)))
	status, _ = s.ask("GET /streams/jobs%2F1/events", cookie)
	is.Equal(status, 401) // it ends with the token, also where that got an end later
	s.rewrite(line("jobs", "write"))
	l := s.live("GET /streams/jobs%2F1", cookie)
	s.rewrite(line("b", "read") + line("jobs", "read prefix=jobs/") + line("c", "read"))
	s.append("jobs/1")
	is.Equal(l.next(), "jobs/1")
	status, _ = s.ask("POST /streams/jobs%2F1", cookie)
	is.Equal(status, 403)
	s.rewrite(line("b", "read") + "jobs " + digest("another") + " read\n") // the name is the same, the secret another
	is.Equal(l.next(), "")
	status, _ = s.ask("GET /streams/jobs%2F1/events", cookie)
	is.Equal(status, 401)
}

// TestSessionsLast over a restart with the same key, for 12 hours, and no longer than the token.
func TestSessionsLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		path := filepath.Join(t.TempDir(), "tokens")
		writeFile(t, path, line("long", "read")+line("short", "read expires="+time.Now().Add(time.Hour).Format(time.RFC3339)))
		open := func(key string) *tokens.File {
			f, err := tokens.Open(path, tokens.Options{Key: []byte(key)})
			is.NoErr(err)
			is.NoErr(f.Close())
			return f
		}
		first, second, other := open("key"), open("key"), open("another")
		for i, name := range []string{"short", "long"} { // in which order they end
			lasts := []time.Duration{time.Hour, 12 * time.Hour}[i]
			r := httptest.NewRequest("POST", "/session", nil)
			r.Header.Set("Authorization", "Bearer secret-"+name)
			cookie, err := first.Session(r)
			is.NoErr(err)
			is.Equal(cookie.MaxAge, int(lasts.Seconds()))
			r = httptest.NewRequest("GET", "/streams", nil)
			r.AddCookie(cookie)
			g, err := second.Grant(r)
			is.NoErr(err)
			is.Equal(g.Name, name)
			is.Equal(time.Until(g.Until), lasts)
			_, err = other.Grant(r)
			is.True(err != nil)
			time.Sleep(lasts - time.Second)
			_, err = second.Grant(r)
			is.NoErr(err)
			time.Sleep(time.Second)
			_, err = second.Grant(r)
			is.True(err != nil)
		}
	})
}

// TestManyTokens: ten thousand cost a request nothing.
func TestManyTokens(t *testing.T) {
	is := is.New(t)
	var b strings.Builder
	for i := range 10_000 {
		b.WriteString(line(fmt.Sprint("t", i), fmt.Sprintf("write prefix=%d/", i)))
	}
	s := newServer(t, b.String(), streamhttp.Config{}).listen()
	for _, i := range []int{0, 4711, 9999} {
		status, _ := s.ask(fmt.Sprintf("POST /streams/%d%%2Fx", i), bearer(fmt.Sprint("t", i)))
		is.Equal(status, 201)
		status, _ = s.ask(fmt.Sprintf("POST /streams/%d%%2Fx", i+1), bearer(fmt.Sprint("t", i)))
		is.Equal(status, 403)
	}
	r := httptest.NewRequest("POST", "/streams/s", nil)
	r.Header.Set("Authorization", "Bearer secret-t9999")
	is.True(testing.AllocsPerRun(100, func() { _, _ = s.file.Grant(r) }) <= 2)
}

// TestHealthIsForEverybody but for what Local lets pass.
func TestHealthIsForEverybody(t *testing.T) {
	is := is.New(t)
	health := streamhttp.Health{PID: 7, Dir: "/d", Args: []string{"--tokens=/t"}}
	s := newServer(t, line("a", "admin"), streamhttp.Config{Health: health}).listen()
	// Behind a proxy all come from here.
	for _, header := range []string{bearer("a"), bearer("nobody"), "Host: localhost"} {
		status, body := s.ask("GET /healthz", header)
		is.Equal(status, 200)
		is.True(!strings.Contains(body, "pid") && !strings.Contains(body, "/d") && !strings.Contains(body, "/t"))
	}
	local := func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer local" }
	s = newServer(t, line("a", "admin"), streamhttp.Config{Health: health, Local: local}).listen()
	_, body := s.ask("GET /healthz", "Authorization: Bearer local")
	is.True(strings.Contains(body, `"pid":7,"dir":"/d"`) && strings.Contains(body, "--tokens=/t"))
	_, body = s.ask("GET /healthz", bearer("a"))
	is.True(!strings.Contains(body, "pid"))
}

// TestClient: a Client sends its token, and is told what is wrong with it.
func TestClient(t *testing.T) {
	is := is.New(t)
	s := newServer(t, line("a", "write prefix=jobs/"), streamhttp.Config{}).listen()
	client := &streamhttp.Client{URL: s.url, Token: "secret-a"}
	_, err := client.Stream("jobs/1").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})
	is.NoErr(err)
	page, err := client.List(t.Context(), streamhttp.ListOptions{})
	is.NoErr(err)
	is.Equal(slices.Collect(func(yield func(string) bool) {
		for _, s := range page.Streams {
			_ = yield(s.Name)
		}
	}), []string{"jobs/1", "jobs/2"})
	_, err = client.Stream("other").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})
	refusal, ok := errors.AsType[*streamhttp.Error](err)
	is.True(ok && refusal.Status == 403)

	// A follower reads until its token goes, and then does not try for ever.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for events, e := range client.Stream("jobs/1").Subscribe(ctx, streamlib.Beginning) {
		if err = e; len(events) > 0 {
			s.rewrite(line("b", "read"))
		}
	}
	refusal, ok = errors.AsType[*streamhttp.Error](err)
	is.True(ok && refusal.Status == 401)
	is.True(!strings.Contains(err.Error(), "secret-a"))
}

func ExampleOpen() {
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	secret, digest := tokens.New()
	path := filepath.Join(dir, "tokens")
	_ = tokens.Append(path, tokens.Token{Name: "ci", Digest: digest, Right: streamhttp.Write, Prefixes: []string{"jobs/"}})

	access, err := tokens.Open(path, tokens.Options{})
	if err != nil {
		panic(err)
	}
	defer access.Close()
	m := streamlib.NewManager(memory.New(), streamlib.Active, streamlib.Options{})
	server := httptest.NewServer(streamhttp.NewHandler(m, streamhttp.Config{Access: access}))
	defer server.Close()

	client := &streamhttp.Client{URL: server.URL, Token: secret}
	for _, name := range []string{"jobs/1", "orders"} {
		_, err := client.Stream(name).Append(context.Background(), streamlib.Batch{Data: streamlib.JSON("1")})
		fmt.Println(err)
	}
	// Output:
	// <nil>
	// this needs the right to write on stream "orders", and "ci" has write on streams that begin with ["jobs/"]
}

// TestWhoMayCopyWhat: who has the right on some streams exports and imports those, and who may know the folder exports
// all.
func TestWhoMayCopyWhat(t *testing.T) {
	is := is.New(t)
	lines := line("admin", "admin") + line("jobs", "admin prefix=jobs/")
	local := func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer folder" }
	s := newServer(t, lines, streamhttp.Config{Local: local}).listen()
	exported := func(token string, q transfer.Query) string {
		t.Helper()
		body, err := (&streamhttp.Client{URL: s.url, Token: token}).Export(t.Context(), q)
		is.NoErr(err)
		defer body.Close()
		b, err := io.ReadAll(body)
		is.NoErr(err)
		return string(b)
	}
	all, some := exported("secret-admin", transfer.Query{}), exported("secret-admin", transfer.Query{Prefix: "jobs/"})
	is.Equal(exported("secret-jobs", transfer.Query{}), some)
	is.True(all != some)
	is.Equal(exported("folder", transfer.Query{}), all)

	to := newServer(t, lines, streamhttp.Config{Local: local}).listen()
	for _, name := range []string{"jobs/1", "jobs/2", "other", "/"} {
		is.NoErr(to.m.Stream(name).Delete(t.Context()))
	}
	_, err := (&streamhttp.Client{URL: to.url, Token: "secret-jobs"}).Import(t.Context(), strings.NewReader(all))
	refused, ok := errors.AsType[*streamhttp.Error](err)
	is.True(ok)
	is.Equal(refused.Status, http.StatusForbidden)
	_, err = (&streamhttp.Client{URL: to.url, Token: "folder"}).Import(t.Context(), strings.NewReader(all))
	refused, ok = errors.AsType[*streamhttp.Error](err)
	is.True(ok)
	is.Equal(refused.Status, http.StatusUnauthorized)
	sum, err := (&streamhttp.Client{URL: to.url, Token: "secret-jobs"}).Import(t.Context(), strings.NewReader(some))
	is.NoErr(err)
	is.Equal(sum.Streams, 2)
	there, err := to.m.List(t.Context(), "", "", 0)
	is.NoErr(err)
	is.Equal(there, []string{"jobs/1", "jobs/2"})
}
