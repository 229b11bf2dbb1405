//go:build unix

package main

import (
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matryer/is"
)

// freePort is one that nobody has at the moment.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// TestAdmin: its listener has health, figures and profiles and nothing else, and no other listener has profiles. It
// wants the same tokens, and has no answer for pages of other sites.
func TestAdmin(t *testing.T) {
	is := is.New(t)
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "tokens")
	tokensFile(t, path, "reads read", "rules admin", "some admin prefix=a")
	port := freePort(t)
	url, _ := inProcess(t, dir, "--tokens", path, "--admin", port)
	at := "http://127.0.0.1:" + port
	const none = "X: y"
	rules, reads, some := "Authorization: Bearer secret-rules", "Authorization: Bearer secret-reads",
		"Authorization: Bearer secret-some"
	for _, test := range []struct {
		url, header string
		status      int
	}{
		{at + "/healthz", none, 200},
		{at + "/readyz", none, 200},
		{at + "/metrics", none, 401},
		{at + "/metrics", reads, 200},
		{at + "/debug/pprof", none, 401},
		{at + "/debug/pprof", reads, 403},
		{at + "/debug/pprof", some, 403},
		{at + "/debug/pprof", rules, 200},
		{at + "/debug/pprof/goroutine?debug=1", rules, 200},
		{at + "/debug/pprof/heap", rules, 200},
		{at + "/debug/pprof/trace?seconds=1", rules, 200},
		{at + "/debug/pprof/profile?seconds=0", rules, 400},
		{at + "/debug/pprof/none", rules, 404},
		{at + "/streams", rules, 404},
		{at + "/", rules, 404},
		{at + "/v1/stream/s", rules, 404},
		{url + "/debug/pprof", rules, 404},
		{url + "/debug/pprof/heap", rules, 404},
		{url + "/%64ebug/pprof/heap", rules, 404},
		{url + "/debug%2Fpprof/heap", rules, 404},
		{url + "/debug", rules, 404},
		{url + "/metrics", reads, 200},
	} {
		status, body, _ := request(t, "GET", test.url, test.header)
		if status != test.status || strings.Contains(body, "goroutine") && test.status != 200 {
			t.Errorf("%s with %s: %d %.200s", test.url, test.header, status, body)
		}
	}
	status, _ := throughFolder(t, dir, "GET", "/debug/pprof/heap")
	is.Equal(status, 404)
	status, _, _ = request(t, "GET", at+"/debug/pprof/heap", rules, "Sec-Fetch-Site: cross-site")
	is.Equal(status, 404)
	status, _, _ = request(t, "POST", at+"/debug/pprof/heap", rules)
	is.Equal(status, 405)
}

// TestFlagsOfAdmin: its listener is under the rule of every other.
func TestFlagsOfAdmin(t *testing.T) {
	pair, _ := newPair(t)
	tokens := filepath.Join(t.TempDir(), "tokens")
	tokensFile(t, tokens, "a read")
	for _, test := range []struct {
		args string
		code int
		says string
	}{
		{"--admin 3001", 0, ""},
		{"--admin 127.0.0.1:3001", 0, ""},
		{"--admin [::1]:3001", 0, ""},
		{"--admin :3001", 2, "--admin :3001 can be reached by other machines"},
		{"--admin 0.0.0.0:3001 --tokens " + tokens, 2, "give it --tls-cert and --tls-key"},
		{"--admin 0.0.0.0:3001 --tokens " + tokens + " " + strings.Join(pair.flags(), " "), 0, ""},
		{"--admin 0.0.0.0:3001 --insecure-no-auth", 0, ""},
		{"--admin here", 2, "it is a port, or an address and a port"},
		{"--admin 127.0.0.1:http", 2, "it is a port, or an address and a port"},
		{"--port 3001 --admin 3001", 2, "it has the port of --port"},
	} {
		t.Run(test.args, func(t *testing.T) {
			is := is.New(t)
			err := run(t.Context(), append(strings.Fields(test.args), "--check", "--dir", t.TempDir()), noEnv, nil, io.Discard,
				io.Discard)
			is.Equal(exitCode(err), test.code)
			is.True(err == nil || strings.Contains(err.Error(), test.says))
		})
	}
}

// TestAdminStaysOpen: where --max-conns is reached, operators get in.
func TestAdminStaysOpen(t *testing.T) {
	is := is.New(t)
	port := freePort(t)
	url, _ := inProcess(t, t.TempDir(), "--max-conns", "1", "--admin", port)
	first, err := http.Get(url + "/streams/s") // which goes on
	is.NoErr(err)
	defer first.Body.Close()
	second := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	refused, err := second.Get(url + "/readyz")
	is.NoErr(err)
	refused.Body.Close()
	is.Equal(refused.StatusCode, http.StatusServiceUnavailable)
	for range 3 {
		well, err := second.Get("http://127.0.0.1:" + port + "/readyz")
		is.NoErr(err)
		well.Body.Close()
		is.Equal(well.StatusCode, http.StatusOK)
	}
}
