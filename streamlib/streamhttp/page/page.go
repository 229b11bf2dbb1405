// Package page has the web page of a server: its streams, and what is in them, live.
//
// It is a folder of plain files, embedded, that a browser gets at "/" when it asks for text/html; others, as curl, get
// a few lines of text that say what this is and what to type. Nothing comes from elsewhere, and the page's
// Content-Security-Policy lets nothing else run: no script that is not one of these files, no style and no markup that
// is made of text (require-trusted-types-for). What names and events contain is put into the page as text alone,
// control and bidirectional characters as escapes.
//
// # Tokens
//
// The page and its files are for everybody, for they tell nothing; what it asks for is what needs a token. The page
// asks for one when the server answers 401, and sends it as Authorization with each request, the live one too, which
// it reads with fetch. So the token is known to the tab alone (sessionStorage), and gone with it. The cookie of POST
// /session, which an EventSource would need, would be every tab's, and would stay for hours.
//
// # Connections
//
// A browser has six connections to a server. A page keeps one, whatever it shows, and none while nobody sees it: the
// list follows GET /streams?details=true, a stream GET /streams/NAME, and each goes on where it was. What is asked
// beside it, as a page of events, is one request after the other.
//
// # Files
//
//	index.html, style.css, icon.svg
//	app.js      which view is shown, the token, what is common to all
//	list.js     the list of streams
//	stream.js   a stream: its frame, what can be done with it
//	log.js      the events of a stream that are in view
//	event.js    one of them
//	forms.js    appending, and what asks before it is done
//	server.js   requests, and subscriptions that go on
//	json.js     values as they were sent, with folding
//	text.js     text, numbers and times as a person reads them; plots
package page

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

//go:embed files
var files embed.FS

// policy is what a browser lets the page do: its own files, and requests to its own server.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Handler returns what answers GET and HEAD of / and of /page/FILE. It is to be served under the rules of
// streamhttp.Config.Page, which say who may ask.
func Handler() http.Handler {
	assets := map[string]asset{}
	entries, err := fs.ReadDir(files, "files")
	for _, entry := range entries {
		var body []byte
		if body, err = files.ReadFile("files/" + entry.Name()); err != nil {
			break
		}
		sum := sha256.Sum256(body)
		assets[entry.Name()] = asset{body, mediaTypes[path.Ext(entry.Name())], `"` + hex.EncodeToString(sum[:8]) + `"`}
	}
	if err != nil {
		panic(err) // they are in the program
	}
	return handler{assets}
}

type handler struct{ assets map[string]asset }

type asset struct {
	body      []byte
	mediaType string
	tag       string
}

// mediaTypes are told here, for those that package mime knows may be the system's.
var mediaTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/page/")
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-cache") // it is asked for again, and answered 304
	if r.URL.Path == "/" {
		header.Add("Vary", "Accept")
		if name = "index.html"; !wantsPage(r) {
			header.Set("Content-Type", "text/plain; charset=utf-8")
			fmt.Fprintf(w, words, origin(r))
			return
		}
	}
	a, ok := h.assets[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	header.Set("Content-Type", a.mediaType)
	header.Set("Content-Security-Policy", policy)
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("X-Frame-Options", "DENY")
	header.Set("ETag", a.tag)
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(a.body))
}

// wantsPage tells whether the client asked for HTML by its name, as browsers do.
func wantsPage(r *http.Request) bool {
	for part := range strings.SplitSeq(strings.Join(r.Header["Accept"], ","), ",") {
		if mediaType, params, err := mime.ParseMediaType(part); err == nil && mediaType == "text/html" {
			q, err := strconv.ParseFloat(params["q"], 64)
			return err != nil || q > 0
		}
	}
	return false
}

// origin is how the client calls this server, by a name that was allowed.
func origin(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		scheme = "https"
	}
	host := cmp.Or(r.Host, "127.0.0.1:3000") // over HTTP/1.0 there may be none
	return scheme + "://" + host
}

const words = `This is streamd: named, ordered, durable event streams over HTTP. In a browser this address is a page.

Append    curl -d '{"data":{"type":"message","text":"hello"}}' %[1]s/streams/greetings
Read      curl '%[1]s/streams/greetings/events?offset=-1'
Follow    curl -N '%[1]s/streams/greetings?offset=-1'
List      curl '%[1]s/streams?details=true'

Where the server wants a token, each of these takes -H "Authorization: Bearer $DURABLE_STREAMS_TOKEN".
The command line is streamctl: streamctl --help
`
