//go:build unix

package main

import (
	"encoding/json"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/matryer/is"
)

func post(t *testing.T, url, body string) (status int, answer string) {
	t.Helper()
	r, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(b)
}

// TestHooksFolder: what before-append says is the answer, and imports go by it.
func TestHooksFolder(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	program := filepath.Join(dir, "before-append")
	is.NoErr(os.Chmod(dir, 0o755))
	is.NoErr(os.WriteFile(program, []byte("#!/bin/sh\necho \"not to $STREAM\" >&2; exit 1\n"), 0o700))
	url, end := inProcess(t, filepath.Join(t.TempDir(), "data"), "--hooks", dir)
	status, answer := post(t, url+"/streams/a", `{"data":1}`)
	is.Equal(status, 400)
	is.Equal(answer, `{"error":"not to a","hookId":"before-append"}`+"\n")
	_, err := end()
	is.NoErr(err)
	err = run(t.Context(), []string{"--check", "--dir", filepath.Dir(dir), "--hooks", dir}, noEnv, nil, io.Discard, io.Discard)
	is.True(err != nil && strings.Contains(err.Error(), "must be outside"))
}

// TestWebhooks: what is appended is posted, and /healthz tells of it.
func TestWebhooks(t *testing.T) {
	is := is.New(t)
	got := make(chan string, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- string(b)
	}))
	defer receiver.Close()
	dir := t.TempDir()
	url, end := inProcess(t, dir, "--webhook", "a*="+receiver.URL, "--webhook-allow-private")
	_, answer := post(t, url+"/streams/b", `{"data":1}`)
	_, answer = post(t, url+"/streams/a", `{"data":1}`)
	is.Equal(<-got, answer)
	_, health, err := ask(t.Context(), dir)
	is.NoErr(err)
	is.Equal(len(health.Followers), 1)
	is.Equal(health.Followers[0].To, receiver.URL)
	is.True(strings.HasPrefix(health.Followers[0].Secret, filepath.Join(dir, "webhooks")))
	figures, err := http.Get(url + "/metrics")
	is.NoErr(err)
	defer figures.Body.Close()
	page, err := io.ReadAll(figures.Body)
	is.NoErr(err)
	is.True(strings.Contains(string(page), `streamd_follower_waiting_streams{streams="a*",to="`+receiver.URL+`",id="`))
	log, err := end()
	is.NoErr(err)
	is.True(strings.Contains(log, health.Followers[0].Secret))
}

// TestAReceiverThatIsAway gets all that is kept, in order, when it is there again, whatever the server went through.
func TestAReceiverThatIsAway(t *testing.T) {
	is := is.New(t)
	type event struct {
		Stream string `json:"eventStreamId"`
		Offset string
	}
	got := make(chan event, 10_000)
	var away atomic.Bool
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			panic(http.ErrAbortHandler) // the connection breaks off
		}
		for d := json.NewDecoder(r.Body); ; {
			var e event
			if d.Decode(&e) != nil {
				return
			}
			got <- e
		}
	}))
	defer receiver.Close()
	receiver.Config.ErrorLog = log.New(io.Discard, "", 0)
	dir := t.TempDir()
	begin := func() *server {
		return start(t, dir, "sh", "-c", `exec "$@" --webhook-allow-private --webhook "*=`+receiver.URL+`"`, "sh")
	}
	s := begin()
	add := func(stream string, n int) {
		t.Helper()
		for range n {
			status, _ := s.append(stream, "", "1\n2\n")
			is.Equal(status, 201)
		}
	}
	next := map[string]int{} // by stream: the offset that comes next
	take := func(want map[string]int) {
		t.Helper()
		for !maps.Equal(next, want) {
			select {
			case e := <-got:
				offset, err := strconv.Atoi(e.Offset)
				is.NoErr(err)
				if was, known := next[e.Stream]; known && offset > was || !known && e.Stream == "trimmed" && offset != 6 {
					t.Fatalf("of %s came %d, and not %d", e.Stream, offset, was)
				} // one that comes again is fine
				next[e.Stream] = max(next[e.Stream], offset+1)
			case <-time.After(time.Minute):
				t.Fatalf("up to %v came, want %v", next, want)
			}
		}
	}
	add("a", 1)
	take(map[string]int{"a": 2})
	away.Store(true)
	for range 2 {
		add("a", 20)
		add("b", 20)
		add("trimmed", 5)
		is.True(s.end(syscall.SIGKILL) != nil)
		s = begin()
	}
	trim, err := http.NewRequest("DELETE", s.url+"/streams/trimmed/events?before=6", nil)
	is.NoErr(err)
	status, _ := s.do(trim)
	is.Equal(status, 204)
	is.NoErr(s.end(syscall.SIGTERM))
	away.Store(false)
	s = begin()
	add("a", 1)
	take(map[string]int{"a": 84, "b": 80, "trimmed": 20})
	is.NoErr(s.end(syscall.SIGTERM))
}
