package streamhttp

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const anyOrigin = "*"

// Origin returns an origin as browsers write it, of one as a person does: http://app.example.com, with a port where
// that is not the scheme's own.
func Origin(s string) (string, error) {
	u, err := url.Parse(strings.ToLower(s))
	if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" ||
		u.Fragment != "" ||
		strings.ContainsAny(s, "?#*") {
		return "", fmt.Errorf("%q is no origin: it is a scheme, a host and perhaps a port, such as "+
			"https://app.example.com", s)
	}
	if u.Scheme == "http" && u.Port() == "80" || u.Scheme == "https" && u.Port() == "443" {
		u.Host = strings.TrimSuffix(u.Host, ":"+u.Port())
	}
	return u.Scheme + "://" + u.Host, nil
}

// trust makes h answer the pages of AllowOrigins.
func (h *handler) trust() {
	for i, s := range h.AllowOrigins {
		if s == anyOrigin && h.Access != nil {
			continue
		}
		origin, err := Origin(s)
		if err == nil {
			err = h.origins.AddTrustedOrigin(origin)
		}
		if err != nil {
			panic(fmt.Sprintf("streamhttp: Config.AllowOrigins: %v", err)) // as ServeMux does of a pattern
		}
		h.AllowOrigins[i] = origin
	}
}

var (
	sharedMethods = "DELETE, GET, HEAD, POST"
	sharedHeaders = "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, " +
		"Stream-Closed"
	toldHeaders = "Allow, ETag, Retry-After, Stream-Closed, Stream-Created-At, Stream-First-Offset, Stream-Next-Offset, " +
		"Stream-Size, Stream-Updated-At, WWW-Authenticate"
)

// share says in the answer to an allowed origin's page that it may read it (the CORS protocol of
// fetch.spec.whatwg.org), and answers where the browser only asks for that.
func (h *handler) share(w http.ResponseWriter, r *http.Request) (answered bool) {
	if len(h.AllowOrigins) == 0 {
		return false
	}
	header := w.Header()
	header.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	switch {
	case origin == "":
		return false
	case slices.Contains(h.AllowOrigins, origin):
		header.Set("Access-Control-Allow-Origin", origin)
		header.Set("Access-Control-Allow-Credentials", "true")
	case h.anyOrigin():
		header.Set("Access-Control-Allow-Origin", anyOrigin)
	default:
		return false
	}
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		header.Set("Access-Control-Expose-Headers", toldHeaders)
		return false
	}
	header.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
	header.Set("Access-Control-Allow-Methods", sharedMethods)
	if strings.HasPrefix(r.URL.Path, "/v1/") {
		header.Set("Access-Control-Allow-Methods", sharedMethods+", PUT")
	}
	header.Set("Access-Control-Allow-Headers", sharedHeaders)
	if asked := r.Header.Values("Access-Control-Request-Headers"); len(asked) > 0 { // tracing adds some of its own
		header.Set("Access-Control-Allow-Headers", strings.Join(asked, ", "))
	}
	header.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

func (h *handler) anyOrigin() bool { return slices.Contains(h.AllowOrigins, anyOrigin) }

// sameOrigin refuses what the page of an origin that is not allowed would write. Where all are, one that sends a
// token in a header has shown that it has one; with a cookie it may be the browser alone that has.
func (h *handler) sameOrigin(r *http.Request) error {
	if r.Header["Authorization"] != nil && h.anyOrigin() {
		return nil
	}
	if err := h.origins.Check(r); err != nil {
		return &Error{http.StatusForbidden, "a web page of another origin may not do this: " + err.Error()}
	}
	return nil
}
