package tokens_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// TestAllowedOrigins: what a browser asks before and finds in the answers, with tokens and without.
func TestAllowedOrigins(t *testing.T) {
	is := is.New(t)
	allowed := []string{"https://App.example.com:443", "http://localhost:8080"}
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	free := &server{t: t, h: streamhttp.NewHandler(m, streamhttp.Config{AllowOrigins: allowed}), m: m}
	closed := &server{t: t, h: streamhttp.NewHandler(m, streamhttp.Config{}), m: m}
	guarded := newServer(t, line("a", "admin"), streamhttp.Config{AllowOrigins: allowed})
	every := newServer(t, line("a", "admin"), streamhttp.Config{AllowOrigins: []string{"*"}})
	cookie := guarded.listen().send("POST /session", bearer("a")).Cookies()[0]
	session := "Cookie: " + cookie.Name + "=" + cookie.Value
	cookie = every.listen().send("POST /session", bearer("a")).Cookies()[0]
	everySession := "Cookie: " + cookie.Name + "=" + cookie.Value
	const (
		app     = "Origin: https://app.example.com"
		evil    = "Origin: https://evil.example"
		asks    = "Access-Control-Request-Method: POST"
		headers = "Access-Control-Request-Headers: authorization,traceparent"
		cross   = "Sec-Fetch-Site: cross-site"
	)
	for _, test := range []struct {
		name    string
		server  *server
		request string
		headers string // separated by |
		status  int
		origin  string // that is allowed to read
		methods string
		asked   string // headers that may be sent
		vary    string
	}{
		{"off", closed, "OPTIONS /streams/s", app + "|" + asks, 405, "", "", "", ""},
		{"off", closed, "GET /streams", app, 200, "", "", "", ""},
		{"off", closed, "POST /streams/s", app, 403, "", "", "", ""},
		{"preflight", free, "OPTIONS /streams/s", app + "|" + asks + "|" + headers, 204, "https://app.example.com",
			"DELETE, GET, HEAD, POST",
			"authorization,traceparent", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"},
		{"preflight", free, "OPTIONS /streams/s/events", app + "|" + asks, 204, "https://app.example.com",
			"DELETE, GET, HEAD, POST",
			"Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Stream-Closed",
			"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"},
		{"preflight of another", free, "OPTIONS /streams/s", evil + "|" + asks, 405, "", "", "", "Origin"},
		{"preflight of a part", free, "OPTIONS /streams/s", "Origin: https://app.example.com.evil.example|" + asks, 405,
			"", "", "", "Origin"},
		{"preflight of null", free, "OPTIONS /streams/s", "Origin: null|" + asks, 405, "", "", "", "Origin"},
		{"no preflight", free, "OPTIONS /streams/s", app, 405, "https://app.example.com", "", "", "Origin"},
		{"read", free, "GET /streams", "Origin: http://localhost:8080|Sec-Fetch-Site: same-site", 200,
			"http://localhost:8080", "", "", "Origin"},
		{"read by another", free, "GET /streams", evil, 200, "", "", "", "Origin"},
		{"read by nobody's page", free, "GET /streams", "", 200, "", "", "", "Origin"},
		{"an error", free, "GET /nowhere", app, 404, "https://app.example.com", "", "", "Origin"},
		{"append", free, "POST /streams/s", app + "|" + cross, 201, "https://app.example.com", "", "", "Origin"},
		{"append by another", free, "POST /streams/s", evil + "|" + cross, 403, "", "", "", "Origin"},
		{"append by another port", free, "POST /streams/s", "Origin: http://localhost:8081|Sec-Fetch-Site: same-site",
			403, "", "", "", "Origin"},
		{"delete", free, "DELETE /streams/s", app + "|" + cross, 204, "https://app.example.com", "", "", "Origin"},
		// A preflight has no token, and what follows needs one.
		{"preflight with tokens", guarded, "OPTIONS /streams/s", app + "|" + asks, 204, "https://app.example.com",
			"DELETE, GET, HEAD, POST",
			"Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Stream-Closed",
			"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"},
		{"without a token", guarded, "GET /streams", app, 401, "https://app.example.com", "", "", "Origin"},
		{"with a token", guarded, "POST /streams/s", app + "|" + cross + "|" + bearer("a"), 201,
			"https://app.example.com", "", "", "Origin"},
		{"with a session", guarded, "POST /streams/s", app + "|" + cross + "|" + session, 201,
			"https://app.example.com", "", "", "Origin"},
		{"another with a session", guarded, "POST /streams/s", evil + "|" + cross + "|" + session, 403, "", "", "", "Origin"},
		// All origins: whoever has the token, but not whose browser has a cookie.
		{"all, preflight", every, "OPTIONS /streams/s", evil + "|" + asks, 204, "*", "DELETE, GET, HEAD, POST",
			"Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Stream-Closed",
			"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"},
		{"all, with a token", every, "POST /streams/s", evil + "|" + cross + "|" + bearer("a"), 201, "*", "", "", "Origin"},
		{"all, without a token", every, "POST /streams/s", evil + "|" + cross, 403, "*", "", "", "Origin"},
		{"all, with a session", every, "POST /streams/s", evil + "|" + cross + "|" + everySession, 403, "*", "", "",
			"Origin"},
		{"all, with a session and a wrong token", every, "POST /streams/s",
			evil + "|" + cross + "|" + everySession + "|Authorization: Bearer x", 401, "*", "", "", "Origin"},
		{"a host that is not allowed", free, "GET /streams", app + "|Host: evil.example", 403,
			"https://app.example.com", "", "", "Origin"},
	} {
		t.Run(test.name+" "+test.request, func(t *testing.T) {
			is := is.New(t)
			method, path, _ := strings.Cut(test.request, " ")
			r := httptest.NewRequest(method, path, strings.NewReader(`{"data":1}`))
			r.Host = "localhost"
			for h := range strings.SplitSeq(test.headers, "|") {
				if name, value, ok := strings.Cut(h, ": "); ok && name == "Host" {
					r.Host = value
				} else if ok {
					r.Header.Add(name, value)
				}
			}
			w := httptest.NewRecorder()
			test.server.h.ServeHTTP(w, r)
			header := w.Result().Header
			is.Equal(w.Code, test.status)
			is.Equal(header.Get("Access-Control-Allow-Origin"), test.origin)
			is.Equal(header.Get("Access-Control-Allow-Methods"), test.methods)
			is.Equal(header.Get("Access-Control-Allow-Headers"), test.asked)
			is.Equal(strings.Join(header.Values("Vary"), ", "), test.vary)
			credentials := ""
			if test.origin != "" && test.origin != "*" {
				credentials = "true"
			}
			is.Equal(header.Get("Access-Control-Allow-Credentials"), credentials)
			for _, told := range []string{"Stream-Next-Offset", "Stream-Closed", "Stream-First-Offset"} {
				is.Equal(strings.Contains(header.Get("Access-Control-Expose-Headers"), told),
					test.origin != "" && test.status != 204 || method == "DELETE")
			}
		})
	}
	is.Equal(allowed[0], "https://App.example.com:443") // the caller's
}

func TestOrigins(t *testing.T) {
	for _, test := range []struct{ origin, want string }{
		{"http://localhost:8080", "http://localhost:8080"},
		{"HTTPS://App.Example.com", "https://app.example.com"},
		{"https://app.example.com:443", "https://app.example.com"},
		{"http://app.example.com:443", "http://app.example.com:443"},
		{"http://[::1]:80", "http://[::1]"},
		{"tauri://localhost", "tauri://localhost"},
		{"", ""}, {"*", ""}, {"null", ""}, {"localhost", ""}, {"localhost:8080", ""}, {"http://", ""},
		{"http://a/", ""}, {"http://a?", ""}, {"http://a#", ""}, {"http://u@a", ""}, {"https://*.example.com",
			""}, {"http://a b", ""},
	} {
		is := is.New(t)
		got, err := streamhttp.Origin(test.origin)
		is.Equal(got, test.want)
		is.Equal(err == nil, test.want != "")
	}
}

// TestOriginsThatAreNone: a handler that would allow nothing, or all without tokens, is not made.
func TestOriginsThatAreNone(t *testing.T) {
	for _, origin := range []string{"*", "app.example.com", "https://app.example.com/"} {
		func() {
			is := is.New(t)
			defer func() { is.True(recover() != nil) }()
			streamhttp.NewHandler(nil, streamhttp.Config{AllowOrigins: []string{origin}})
		}()
	}
}
