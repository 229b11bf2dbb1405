package streamhttp

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/follower"
	"github.com/iterate/durable-streams/streamlib/metrics"
)

const (
	bodyTime  = time.Minute      // for a request's whole body to arrive
	restTime  = 5 * time.Second  // for what is left of it once the answer is known
	maxRest   = 64 << 20         // of what is left is taken
	writeTime = 30 * time.Second // for a client to take what is written to it at once: 4.4 kB/s of a chunk
	pingAfter = 15 * time.Second // of silence
	chunk     = 128 << 10        // what is written at once, about
)

// Config is what a handler needs to know; the zero value is ready to use.
type Config struct {
	MaxEvent   int          // limit for one event's data in bytes, at most the manager's; 0 is streamlib.MaxEvent
	Log        *slog.Logger // for the causes of answers 500; nil discards
	Health     Health       // what /healthz tells
	Ready      func() error // why appends cannot be made, which /readyz asks; nil is always ready
	AllowHosts []string     // names that requests may be for, beside localhost and loopback addresses; ports are ignored

	// Protocol serves /v1/stream/NAME and /v1/streams/NAME to whom the native routes serve their like: see package
	// protocol. It returns what it has appended, or an error where it has answered nothing yet. Nil is nobody.
	Protocol func(w http.ResponseWriter, r *http.Request) (streamlib.Receipt, error)
	// Access says who may do what; nil trusts whoever reaches the handler.
	Access Access
	// AllowOrigins are the origins whose pages may read and write as the server's own may; "*", only with Access, is all
	// of them for whoever sends a token. NewHandler panics where one is no Origin.
	AllowOrigins []string
	// MaxSubscribers is how many subscriptions there may be at once; more are answered 429. 0 is any number.
	MaxSubscribers int
	// AccessLog has Log told of each request when it was answered.
	AccessLog bool
	// Metrics adds to what /metrics tells, in the text format of Prometheus, beside the handler's own figures. Where it is
	// nil there is no such path, and nothing is counted.
	Metrics func(*metrics.Page)
	// Local tells whether the sender of a request may use the server's folder, and so know all of Health and export all
	// streams. Nil is that nobody may: behind a proxy on the same machine everybody comes from there.
	Local func(r *http.Request) bool
	// Followers tells how far those are who hand events on, as webhooks; nil is that there are none.
	Followers func() []follower.Report
	// Synced tells when the storage was last made durable by a sync, zero where that was not yet; nil is not known.
	Synced func() time.Time
	// Debug answers GET /debug/pprof and what is below it to whom has the right to admin, or without Access to everybody;
	// nil is nothing there. It is not for the network: who serves the handler on several listeners keeps it to one.
	Debug http.Handler
	// Page answers GET / and what is below /page/, to everybody; nil is nothing there. Package page has one.
	Page http.Handler
}

// Health is what a server tells of itself at /healthz.
type Health struct {
	Status    string    `json:"status"`        // empty in a Config is "ok"
	PID       int       `json:"pid,omitempty"` // this, Dir, URL and Args are told to whom Config.Local says
	Dir       string    `json:"dir,omitempty"`
	URL       string    `json:"url,omitempty"` // where others reach it
	Version   string    `json:"version"`
	Storage   string    `json:"storage"`
	StartedAt time.Time `json:"startedAt"` // told in UTC, and as the nearest time of the years 0 to 9999
	Args      []string  `json:"args,omitzero"`
	Unit      string    `json:"unit,omitempty"`    // what systemctl calls it, "--user NAME" a user's; told like PID
	Damaged   []string  `json:"damaged,omitempty"` // streams that are known to be; told like PID, and not to be set

	// Synced is when the storage was last made durable by a sync, which appends wait for. It is zero where that was not
	// yet or is not known; told like PID, and not to be set.
	Synced time.Time `json:"synced,omitzero"`

	// Followers are those who hand events on; told like PID, and not to be set.
	Followers []follower.Report `json:"followers,omitempty"`
}

// NewHandler returns the routes over m: Layer 5. Requests for a host that is not allowed, and writes from web pages of
// another origin, are answered 403; with Access, requests without a right 401 or 403.
func NewHandler(m *streamlib.Manager, c Config) http.Handler {
	if c.MaxEvent == 0 {
		c.MaxEvent = streamlib.MaxEvent
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Health.Status == "" {
		c.Health.Status = "ok"
	}
	c.Health.StartedAt = inJSON(c.Health.StartedAt)
	c.AllowOrigins = slices.Clone(c.AllowOrigins)
	h := &handler{Config: c, streams: m, hosts: map[string]bool{"localhost": true}}
	h.trust()
	for _, host := range c.AllowHosts {
		h.hosts[hostname(host)] = true
	}
	h.handle("/streams", methods{"GET": h.list, "HEAD": h.list})
	h.handle("/streams/{name}", methods{"GET": h.seated(h.follow), "HEAD": h.stat, "POST": h.append, "DELETE": h.remove})
	h.handle("/streams/{name}/events", methods{"GET": h.read, "HEAD": h.read, "DELETE": h.trim})
	h.handle("/streams/{name}/times", methods{"GET": h.times, "HEAD": h.times})
	h.handle("/export", methods{"GET": h.export, "HEAD": h.export})
	h.handle("/import", methods{"POST": h.importAll})
	h.handle("/healthz", methods{"GET": h.health, "HEAD": h.health})
	h.handle("/readyz", methods{"GET": h.ready, "HEAD": h.ready})
	if h.Metrics != nil {
		h.handle("/metrics", methods{"GET": h.metrics, "HEAD": h.metrics})
	}
	if h.Access != nil {
		h.handle("/session", methods{"POST": h.session, "DELETE": h.session})
	}
	if h.Debug != nil {
		debug := func(w http.ResponseWriter, r *http.Request, _ string) error {
			h.Debug.ServeHTTP(w, r)
			return nil
		}
		for path := range debugPaths {
			h.handle(path, methods{"GET": debug})
		}
	}
	if h.Page != nil {
		page := func(w http.ResponseWriter, r *http.Request, _ string) error {
			h.Page.ServeHTTP(w, r)
			return nil
		}
		h.handle("/{$}", methods{"GET": page, "HEAD": page})
		h.handle("/page/{file}", methods{"GET": page, "HEAD": page})
	}
	if c.Protocol != nil {
		for _, path := range [...]string{"/v1/stream/{name...}", "/v1/streams/{name}"} {
			h.handle(path, methods{"GET": h.protocolRead, "HEAD": h.protocol, "POST": h.protocol, "PUT": h.protocol,
				"DELETE": h.protocol, "OPTIONS": h.protocol})
		}
	}
	h.mux.Handle("/", h.route(h.unknown))
	return h
}

// debugPaths are those of Config.Debug.
var debugPaths = map[string]bool{"/debug/pprof": true, "/debug/pprof/{profile}": true}

// protocol is the route of Config.Protocol.
func (h *handler) protocol(w http.ResponseWriter, r *http.Request, _ string) error {
	receipt, err := h.Protocol(w, r)
	switch {
	case err != nil:
		return err
	case receipt.Repeated:
		h.counted.repeated.Add(1)
	case len(receipt.Events) > 0 || receipt.Closed:
		h.counted.appends.Add(1)
		h.counted.events.Add(len(receipt.Events))
	}
	return nil
}

// protocolRead is protocol for GET, some of which are subscribers.
func (h *handler) protocolRead(w http.ResponseWriter, r *http.Request, name string) error {
	if r.URL.Query().Get("live") != "sse" {
		return h.protocol(w, r, name)
	}
	return h.seated(func(w http.ResponseWriter, r *http.Request, name string) error {
		follower := &frames{} // how far it is behind is not known
		follower.at.Store(int64(streamlib.MaxOffset))
		defer h.counted.subscribed(follower, name)()
		return h.protocol(w, r, name)
	})(w, r, name)
}

type handler struct {
	Config
	streams *streamlib.Manager
	counted figures
	seats   atomic.Int64 // that subscribers have, where these are limited
	hosts   map[string]bool
	origins http.CrossOriginProtection
	mux     http.ServeMux
}

// A route answers a request about the stream called name, where there is one. Where it returns an error it has
// answered nothing yet.
type route func(w http.ResponseWriter, r *http.Request, name string) error

type methods map[string]route

// handle serves a path's methods, and answers all others 405.
func (h *handler) handle(path string, m methods) {
	named := strings.Contains(path, "{name}")
	for method, route := range m {
		h.mux.Handle(method+" "+path, h.route(h.guard(path, method,
			func(w http.ResponseWriter, r *http.Request, name string) error {
				if err := streamlib.CheckName(name); named && err != nil {
					return err
				}
				if method == http.MethodGet {
					w.Header()["Cache-Control"] = noCache
					w.Header()["X-Content-Type-Options"] = noSniff // what is in events is never a script of the page's
				}
				return route(w, r, name)
			})))
	}
	allow := strings.Join(slices.Sorted(maps.Keys(m)), ", ")
	h.mux.Handle(path, h.route(func(w http.ResponseWriter, r *http.Request, _ string) error {
		w.Header().Set("Allow", allow)
		return &Error{http.StatusMethodNotAllowed, fmt.Sprintf("method %q is not for this path, but %s are", r.Method, allow)}
	}))
}

// route is a route's http.Handler: it answers with the error.
func (h *handler) route(route route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := route(w, r, r.PathValue("name")); err != nil {
			h.fail(w, r, err)
		} else if r.Method != http.MethodPost {
			takeRest(w, r)
		}
	}
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.share(w, r) {
		return
	}
	r = lasting(inPath(r))
	if r.ProtoMajor > 1 {
		limited := newH2(w)
		defer limited.leave()
		w = limited
	}
	h.identify(w, r)
	if h.Metrics != nil || h.AccessLog {
		a, begun := &answering{ResponseWriter: w}, time.Now()
		w = a
		defer func() { h.answered(r, a, time.Since(begun)) }()
	}
	if err := h.admit(w, r); err != nil {
		h.fail(w, r, err)
	} else if p := r.URL.EscapedPath(); path.Clean(p) != p {
		h.route(h.unknown)(w, r) // ServeMux would redirect "a//b" to another stream
	} else {
		h.mux.ServeHTTP(w, r)
	}
}

// admit refuses what no route may see, and begins the time that a body has to arrive.
func (h *handler) admit(w http.ResponseWriter, r *http.Request) error {
	switch {
	case r.ContentLength == 0:
	case r.Method == http.MethodPost, r.Method == http.MethodPut: // the deadline is for who reads the body
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
	default: // which nobody is
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(restTime))
	}
	if !h.allowed(r) {
		return &Error{http.StatusForbidden, fmt.Sprintf("host %q is not allowed; if it is this server's, start it "+
			"with --allow-host", hostname(r.Host))}
	}
	return h.sameOrigin(r)
}

// unknown answers what no pattern matches. The stream called "/" is among it: ServeMux takes a segment that is %2F
// alone for the end of the path.
func (h *handler) unknown(w http.ResponseWriter, r *http.Request, _ string) error {
	escaped := r.URL.EscapedPath()
	if rest, ok := strings.CutPrefix(strings.Replace(escaped, "%2f", "%2F", 1), "/streams/%2F"); ok &&
		(rest == "" || rest == "/events" || rest == "/times") {
		again := r.Clone(r.Context())
		again.URL.Path, again.URL.RawPath = "/streams/slash"+rest, ""
		handler, pattern := h.mux.Handler(again)
		again.URL = r.URL
		again.SetPathValue("name", "/")
		handler.ServeHTTP(w, again)
		r.Pattern = pattern
		return nil
	}
	return &Error{http.StatusNotFound, fmt.Sprintf("no such path: %q; there are /streams, /streams/NAME, "+
		"/streams/NAME/events, /export, /import, /metrics, /healthz and /readyz, "+
		"where / in a NAME is sent as %%2F, and /stream?name=NAME", escaped)}
}

var (
	noCache  = []string{"no-cache"}
	noSniff  = []string{"nosniff"}
	jsonType = []string{"application/json"}
	lineType = []string{"application/x-ndjson"}
	sseType  = []string{"text/event-stream"}
	sseUTF8  = []string{sseType[0] + "; charset=utf-8"} // without it some clients read ISO-8859-1
)

// allowed tells whether the request's host may be asked for. A web page can let any name of its own point to this
// machine, so other names than those of this machine are taken only where its owner said so. No browser leaves the
// name out, as HTTP/1.0 may.
func (h *handler) allowed(r *http.Request) bool {
	if r.Host == "" && !r.ProtoAtLeast(1, 1) {
		return true
	}
	name := hostname(r.Host)
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Unmap().IsLoopback() || h.hosts[name]
}

// hostname returns host in lower case without port, brackets and the final dot.
func hostname(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.String()
	}
	return strings.ToLower(strings.TrimSuffix((&url.URL{Host: host}).Hostname(), "."))
}

// fail answers with an error. The cause of a 500 goes to the log, every other error to the client.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	code, p := status(err)
	if code == http.StatusInternalServerError {
		h.Log.Error("request failed", "method", r.Method, "path", r.URL.EscapedPath(), "request", named(w, r), "error", err)
	}
	if p.Tail != "" {
		w.Header()["Stream-Next-Offset"] = []string{p.Tail}
		info, err := h.streams.Stream(r.PathValue("name")).Stat(r.Context()) // which knows the life
		if err == nil && info.Tail.String() == p.Tail {
			setTail(w.Header(), info)
		}
	}
	if p.First != "" {
		w.Header()[firstHeader] = []string{p.First}
	}
	if code == http.StatusConflict && p.Tail != "" {
		setClosed(w.Header())
	}
	if r.Method == http.MethodHead {
		setProblem(w.Header(), p)
	}
	if code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", challenge(r))
	}
	if code == http.StatusServiceUnavailable || code == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	if r.ContentLength != 0 && code != http.StatusRequestTimeout { // net/http may read some of the rest before it answers
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(restTime))
	}
	answerJSON(w, code, p)
	takeRest(w, r)
}

// logBreak logs why a response broke off.
func (h *handler) logBreak(r *http.Request, what string, err error) {
	level := slog.LevelError
	if _, gone := errors.AsType[*streamlib.GoneError](err); gone { // its reader was slower than what trims the stream
		level = slog.LevelInfo
	}
	h.Log.Log(r.Context(), level, what, "path", r.URL.EscapedPath(), "error", err)
}

// takeRest reads on, within the deadline that is set, when the request has been answered before all of its body has
// come: many clients read no answer before they have sent all, and a connection that is closed before that is reset,
// and takes the answer with it. Who has been told by the answer not to send the body, as it asked for that, is not
// waited for.
func takeRest(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 || r.Header["Expect"] != nil {
		return
	}
	_ = http.NewResponseController(w).Flush() // to those who read at the same time
	_, _ = io.CopyN(io.Discard, r.Body, maxRest)
}

func answerJSON(w http.ResponseWriter, code int, v any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // our own types
	}
	w.Header()["Content-Type"] = jsonType
	w.Header()["Content-Length"] = []string{strconv.Itoa(b.Len())} // so that it is seen to be whole
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes()) // the client may have gone
}

// setTail tells the tail, and in the ETag the life too: that of a stream that is not there may be another when it is.
// Each append is answered with both, so they are one string, in one array.
func setTail(h http.Header, info streamlib.Info) {
	tail, end := info.Tail.String(), ""
	if there(info) {
		end = suffixOf(info.Life)
	}
	tag := `"` + tail + end + `"`
	both := [...]string{tag, tag[1 : 1+len(tail)]}
	h["Etag"], h["Stream-Next-Offset"] = both[0:1:1], both[1:2:2]
}

// local tells whether r's sender may know all of Health.
func (h *handler) local(r *http.Request) bool { return h.Local != nil && h.Local(r) }

// health tells who this is.
func (h *handler) health(w http.ResponseWriter, r *http.Request, _ string) error {
	if _, err := parameters(r); err != nil {
		return err
	}
	health := h.Health
	if !h.local(r) {
		health.PID, health.Dir, health.URL, health.Args, health.Unit = 0, "", "", nil, ""
	} else {
		for _, info := range h.streams.Damaged() {
			health.Damaged = append(health.Damaged, info.Name)
		}
		if h.Followers != nil {
			health.Followers = h.Followers()
		}
		if h.Synced != nil {
			health.Synced = h.Synced()
		}
	}
	answerJSON(w, http.StatusOK, health)
	return nil
}

// inJSON is the nearest time to t that encoding/json writes, in UTC: its years have four digits.
func inJSON(t time.Time) time.Time {
	first, end := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)
	switch t = t.UTC(); {
	case t.Before(first):
		return first
	case !t.Before(end):
		return end.Add(-time.Second)
	}
	return t
}

// ready tells whether appends can be made. The reason may name files, so with Access only those who may know the
// folder get all of it.
func (h *handler) ready(w http.ResponseWriter, r *http.Request, _ string) error {
	if _, err := parameters(r); err != nil {
		return err
	}
	if h.Ready != nil {
		if err := h.Ready(); err != nil {
			if h.Access != nil && !h.local(r) {
				err = streamlib.ErrUnavailable
			}
			return &Error{http.StatusServiceUnavailable, err.Error()}
		}
	}
	answerJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	return nil
}

// trim drops a stream's first events.
func (h *handler) trim(w http.ResponseWriter, r *http.Request, name string) error {
	q, err := parameters(r, "before")
	if err != nil {
		return err
	}
	before, err := streamlib.ParseOffset(q.get("before"))
	if err != nil || before == streamlib.Beginning {
		return fmt.Errorf("%w before %q: it is the offset of the first event to keep, or now", streamlib.ErrInvalid,
			q.get("before"))
	}
	ifTail, ifLife, err := conditions(r.Header)
	stream := h.streams.Stream(name)
	switch {
	case err != nil:
	case ifTail != nil:
		err = fmt.Errorf("%w condition: of what is dropped it is on the life alone, such as If-Match: \"*-2\"",
			streamlib.ErrInvalid)
	case ifLife != nil:
		err = stream.TrimIf(r.Context(), before, *ifLife)
	default:
		err = stream.Trim(r.Context(), before)
	}
	if err != nil {
		return err
	}
	if info, err := stream.Stat(r.Context()); err == nil {
		setFirst(w.Header(), info.First)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// setFirst tells where the events begin that are kept, where some are not.
func setFirst(h http.Header, first streamlib.Offset) {
	if text := firstText(first); text != "" {
		h[firstHeader] = []string{text}
	}
}

const firstHeader = "Stream-First-Offset"

// firstText is "" where all events are kept.
func firstText(first streamlib.Offset) string {
	if first <= 0 {
		return ""
	}
	return first.String()
}

// remove deletes a stream.
func (h *handler) remove(w http.ResponseWriter, r *http.Request, name string) error {
	if _, err := parameters(r); err != nil {
		return err
	}
	ifTail, ifLife, err := conditions(r.Header)
	if err != nil {
		return err
	}
	stream := h.streams.Stream(name)
	if ifTail == nil && ifLife == nil {
		err = stream.Delete(r.Context())
	} else {
		err = deleteIf(r.Context(), stream, ifTail, ifLife)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// deleteIf deletes s on conditions, of which one that is nil is what it is at present.
func deleteIf(ctx context.Context, s streamlib.Stream, ifTail *streamlib.Offset, ifLife *int64) error {
	info, err := s.Stat(ctx)
	if err != nil {
		return err
	}
	return s.DeleteIf(ctx, *cmp.Or(ifTail, &info.Tail), *cmp.Or(ifLife, &info.Life))
}

// stat answers HEAD: the tail, and what else is known of the stream.
func (h *handler) stat(w http.ResponseWriter, r *http.Request, name string) error {
	if _, err := placeOf(r); err != nil { // GET's parameters
		return err
	}
	info, err := h.streams.Stream(name).Stat(r.Context())
	if err != nil {
		return err
	}
	setTail(w.Header(), info)
	if info.Damage != nil {
		setProblem(w.Header(), problemOf(info.Damage))
	}
	if !there(info) {
		w.WriteHeader(http.StatusNotFound)
		return nil
	}
	if info.Closed {
		setClosed(w.Header())
	}
	setFirst(w.Header(), info.First)
	w.Header().Set("Stream-Size", fmt.Sprint(info.Size))
	setTime(w.Header(), "Stream-Created-At", info.CreatedAt)
	setTime(w.Header(), "Stream-Updated-At", info.UpdatedAt)
	return nil
}

// there tells whether there is such a stream: one that was closed is there without events, too.
func there(info streamlib.Info) bool { return info.Exists() }

// setTime tells a time, unless it is that of an event that there is not.
func setTime(h http.Header, name string, t time.Time) {
	if text := timeText(t); text != "" {
		h.Set(name, text)
	}
}

const timeLayout = "2006-01-02T15:04:05.000Z"

// timeText is "" for a time that is not known.
func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(timeLayout)
}
