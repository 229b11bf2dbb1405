package streamhttp

import (
	"crypto/rand"
	"net/http"
	"strings"
)

// requestID is the header that names a request in logs: a proxy's, or a client's, or where they send none our own.
const requestID = "X-Request-Id"

// identify tells the sender of r the name that r has in the log. One that is no word of 1 to 128 letters, digits and
// signs is taken for none. Where requests are not logged one is made only when it is needed: see named.
func (h *handler) identify(w http.ResponseWriter, r *http.Request) {
	switch id := r.Header[requestID]; {
	case len(id) == 1 && isWord(id[0]):
		w.Header()[requestID] = id
		return
	case id != nil:
		delete(r.Header, requestID)
	}
	if h.AccessLog {
		named(w, r)
	}
}

// named returns the name of r, which its sender is told.
func named(w http.ResponseWriter, r *http.Request) string {
	if r.Header[requestID] == nil {
		id := []string{rand.Text()}
		r.Header[requestID], w.Header()[requestID] = id, id
	}
	return r.Header[requestID][0]
}

func isWord(s string) bool {
	return s != "" && len(s) <= 128 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.:=+/@", r)
	})
}
