package page_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/iterate/durable-streams/streamlib/streamhttp/page"
	"github.com/matryer/is"
)

// TestPageIsForBrowsers: others are told in words what this is. All of it is under the rules of the other routes.
func TestPageIsForBrowsers(t *testing.T) {
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	server := httptest.NewServer(streamhttp.NewHandler(m, streamhttp.Config{Page: page.Handler()}))
	defer server.Close()
	const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	for _, test := range []struct {
		request, accept, host string
		status                int
		mediaType, want       string
	}{
		{"GET /", browser, "", 200, "text/html; charset=utf-8", `<script type="module" src="page/app.js">`},
		{"GET /?x=1", browser, "", 200, "text/html; charset=utf-8", "<main"},
		{"HEAD /", browser, "", 200, "text/html; charset=utf-8", ""},
		{"GET /", "*/*", "", 200, "text/plain; charset=utf-8", "curl -N '" + server.URL + "/streams/greetings?offset=-1'"},
		{"GET /", "", "", 200, "text/plain; charset=utf-8", "This is streamd"},
		{"GET /", "text/html;q=0, */*", "", 200, "text/plain; charset=utf-8", "This is streamd"},
		{"GET /", "*/*", "localhost:1;id", 403, "application/json", "--allow-host"},
		{"GET /page/app.js", "*/*", "", 200, "text/javascript; charset=utf-8", "import"},
		{"GET /page/style.css", "text/css", "", 200, "text/css; charset=utf-8", "body"},
		{"GET /page/icon.svg", "image/*", "", 200, "image/svg+xml", "<svg"},
		{"GET /page/none.js", "*/*", "", 404, "text/plain; charset=utf-8", "not found"},
		{"GET /page/", browser, "", 404, "application/json", "no such path"},
		{"GET /page/../page/app.js", browser, "", 404, "application/json", "no such path"},
		{"POST /", browser, "", 405, "application/json", "method"},
		{"GET /", browser, "evil.example.com", 403, "application/json", "--allow-host"},
		{"GET /page/app.js", browser, "evil.example.com", 403, "application/json", "--allow-host"},
	} {
		t.Run(test.request+" "+test.host, func(t *testing.T) {
			is := is.New(t)
			method, path, _ := strings.Cut(test.request, " ")
			r := httptest.NewRequest(method, "http://localhost"+path, nil)
			r.URL.Path, _, _ = strings.Cut(path, "?")
			r.Header.Set("Accept", test.accept)
			if r.Host = strings.TrimPrefix(server.URL, "http://"); test.host != "" {
				r.Host = test.host
			}
			w := httptest.NewRecorder()
			server.Config.Handler.ServeHTTP(w, r)
			is.Equal(w.Code, test.status)
			is.Equal(w.Header().Get("Content-Type"), test.mediaType)
			is.True(strings.Contains(w.Body.String(), test.want) || method == "HEAD" && w.Body.Len() > 0)
			if w.Code == 200 {
				is.Equal(w.Header().Get("X-Content-Type-Options"), "nosniff")
			}
			if strings.Contains(test.mediaType, "html") {
				is.Equal(w.Header().Get("Content-Security-Policy"), "default-src 'none'; script-src 'self'; "+
					"style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "+
					"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
				is.Equal(w.Header().Get("Vary"), "Accept")
			}
		})
	}
	t.Run("what is known is not sent again", func(t *testing.T) {
		is := is.New(t)
		resp, err := http.Get(server.URL + "/page/app.js")
		is.NoErr(err)
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/page/app.js", nil)
		is.NoErr(err)
		r.Header.Set("If-None-Match", resp.Header.Get("ETag"))
		resp, err = http.DefaultClient.Do(r)
		is.NoErr(err)
		resp.Body.Close()
		is.Equal(resp.StatusCode, http.StatusNotModified)
	})
}

// TestPageKeepsItsPolicy: in its files there is nothing that the policy would have to allow, and nothing from elsewhere.
func TestPageKeepsItsPolicy(t *testing.T) {
	is := is.New(t)
	entries, err := os.ReadDir("files")
	is.NoErr(err)
	is.True(len(entries) > 5)
	for _, entry := range entries {
		text, err := os.ReadFile("files/" + entry.Name())
		is.NoErr(err)
		for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "srcdoc",
			"<style", " style=", " onclick=", "javascript:", "@import", " url(", "//cdn", `src="http`, `href="http`} {
			if strings.Contains(string(text), bad) {
				t.Errorf("%s has %s", entry.Name(), bad)
			}
		}
		for n, line := range strings.Split(string(text), "\n") {
			if len([]rune(line)) > 120 {
				t.Errorf("%s:%d: %d columns", entry.Name(), n+1, len(line))
			}
		}
	}
}
