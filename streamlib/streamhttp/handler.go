package streamhttp

import (
	"bytes"
	"encoding/json"
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
	"time"

	"github.com/iterate/durable-streams/streamlib"
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

	// Access says who may do what; nil trusts whoever reaches the handler.
	Access Access
	// AllowOrigins are the origins whose pages may read and write as the server's own may; "*", only with Access, is all
	// of them for whoever sends a token. NewHandler panics where one is no Origin.
	AllowOrigins []string
	// Local tells whether the sender of a request may know Health's PID, Dir and Args. Nil is anyone on the same
	// machine, or with Access nobody: what a proxy passes on comes from the same machine, too.
	Local func(r *http.Request) bool
}

// Health is what a server tells of itself at /healthz.
type Health struct {
	Status    string    `json:"status"`        // empty in a Config is "ok"
	PID       int       `json:"pid,omitempty"` // this, Dir and Args are told to whom Config.Local says
	Dir       string    `json:"dir,omitempty"`
	Version   string    `json:"version"`
	Storage   string    `json:"storage"`
	StartedAt time.Time `json:"startedAt"` // told in UTC, and as the nearest time of the years 0 to 9999
	Args      []string  `json:"args,omitzero"`
	Damaged   []string  `json:"damaged,omitempty"` // streams that are known to be; told like PID, and not to be set
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
	h.handle("/streams/{name}", methods{"GET": h.follow, "HEAD": h.stat, "POST": h.append, "DELETE": h.remove})
	h.handle("/streams/{name}/events", methods{"GET": h.read, "HEAD": h.read})
	h.handle("/healthz", methods{"GET": h.health, "HEAD": h.health})
	h.handle("/readyz", methods{"GET": h.ready, "HEAD": h.ready})
	if h.Access != nil {
		h.handle("/session", methods{"POST": h.session, "DELETE": h.session})
	}
	h.mux.Handle("/", h.route(h.unknown))
	return h
}

type handler struct {
	Config
	streams *streamlib.Manager
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
	r = lasting(r)
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
	case r.Method == http.MethodPost: // the deadline is for who reads the body
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
		(rest == "" || rest == "/events") {
		again := r.Clone(r.Context())
		again.URL.Path, again.URL.RawPath = "/streams/slash"+rest, ""
		handler, _ := h.mux.Handler(again)
		again.URL = r.URL
		again.SetPathValue("name", "/")
		handler.ServeHTTP(w, again)
		return nil
	}
	return &Error{http.StatusNotFound, fmt.Sprintf("no such path: %q; there are /streams, /streams/NAME, "+
		"/streams/NAME/events, /healthz and /readyz, "+
		"where / in a NAME is sent as %%2F", escaped)}
}

var (
	noCache  = []string{"no-cache"}
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
		h.Log.Error("request failed", "method", r.Method, "path", r.URL.EscapedPath(), "error", err)
	}
	if p.Tail != "" {
		setTail(w.Header(), p.Tail)
	}
	if r.Method == http.MethodHead {
		setProblem(w.Header(), p)
	}
	if code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", challenge(r))
	}
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	if r.ContentLength != 0 && code != http.StatusRequestTimeout { // net/http may read some of the rest before it answers
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(restTime))
	}
	answerJSON(w, code, p)
	takeRest(w, r)
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

func setTail(h http.Header, tail string) {
	h["Etag"] = []string{`"` + tail + `"`}
	h["Stream-Next-Offset"] = []string{tail}
}

// local tells whether r's sender may know all of Health. A request that a proxy on this machine passed on is not from
// this machine.
func (h *handler) local(r *http.Request) bool {
	if h.Local != nil || h.Access != nil {
		return h.Local != nil && h.Local(r)
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && from.Addr().Unmap().IsLoopback() && r.Header["Forwarded"] == nil &&
		r.Header["X-Forwarded-For"] == nil
}

// health tells who this is.
func (h *handler) health(w http.ResponseWriter, r *http.Request, _ string) error {
	if _, err := parameters(r); err != nil {
		return err
	}
	health := h.Health
	if !h.local(r) {
		health.PID, health.Dir, health.Args = 0, "", nil
	} else {
		for _, info := range h.streams.Damaged() {
			health.Damaged = append(health.Damaged, info.Name)
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

// remove deletes a stream.
func (h *handler) remove(w http.ResponseWriter, r *http.Request, name string) error {
	if _, err := parameters(r); err != nil {
		return err
	}
	if err := h.streams.Stream(name).Delete(r.Context()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
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
	setTail(w.Header(), info.Tail.String())
	if info.Damage != nil {
		setProblem(w.Header(), problemOf(info.Damage))
	}
	if info.Tail == 0 {
		w.WriteHeader(http.StatusNotFound)
		return nil
	}
	w.Header().Set("Stream-Size", fmt.Sprint(info.Size))
	w.Header().Set("Stream-Created-At", info.CreatedAt.UTC().Format(timeLayout))
	w.Header().Set("Stream-Updated-At", info.UpdatedAt.UTC().Format(timeLayout))
	return nil
}

const timeLayout = "2006-01-02T15:04:05.000Z"

// detail is a stream in a list with details.
type detail struct {
	Name       string `json:"name"`
	NextOffset string `json:"nextOffset,omitempty"`
	Size       int64  `json:"size,omitempty"`
	CreatedAt  string `json:"createdAt,omitempty"`
	UpdatedAt  string `json:"updatedAt,omitempty"`
	problem           // what is wrong with it, where that cannot be told otherwise instead of all but the name
}

// list answers with a page of streams, or with the live events of many.
func (h *handler) list(w http.ResponseWriter, r *http.Request, _ string) error {
	if accepts(r, sseType[0]) {
		return h.followAll(w, r)
	}
	q, err := parameters(r, "prefix", "after", "limit", "details")
	if err != nil {
		return err
	}
	limit, err := q.count("limit")
	if err != nil {
		return err
	}
	details, err := q.bool("details")
	if err != nil {
		return err
	}
	ask := limit
	if limit > 0 {
		ask++ // one more tells whether there is a next page
	}
	names, err := h.names(r, q.get("prefix"), q.get("after"), ask)
	if err != nil {
		return err
	}
	var page struct {
		Streams any    `json:"streams"`
		Next    string `json:"next,omitempty"`

		Damaged []detail `json:"damaged,omitempty"` // of Streams, where these are names
	}
	if limit > 0 && len(names) > limit {
		names = names[:limit]
		page.Next = names[limit-1]
	}
	if page.Streams = names; names == nil {
		page.Streams = []string{}
	}
	if details {
		if page.Streams, err = h.details(r, names); err != nil {
			return err
		}
	} else {
		for _, info := range h.streams.Damaged() {
			if _, ok := slices.BinarySearch(names, info.Name); ok {
				page.Damaged = append(page.Damaged, detail{Name: info.Name, problem: problemOf(info.Damage)})
			}
		}
	}
	answerJSON(w, http.StatusOK, page)
	return nil
}

// details are those of names; one that cannot be read does not hide the others.
func (h *handler) details(r *http.Request, names []string) ([]detail, error) {
	details := make([]detail, 0, len(names))
	for _, name := range names {
		info, err := h.streams.Stream(name).Stat(r.Context())
		d := detail{Name: name}
		switch {
		case r.Context().Err() != nil:
			return nil, r.Context().Err()
		case err != nil:
			h.Log.Error("stream in a list", "stream", name, "error", err)
			_, d.problem = status(err)
		case info.Tail == 0 && info.Damage == nil: // it was deleted meanwhile
			continue
		default:
			d = detail{name, info.Tail.String(), info.Size, timeText(info.CreatedAt), timeText(info.UpdatedAt), problem{}}
			if info.Damage != nil {
				d.problem = problemOf(info.Damage)
			}
		}
		details = append(details, d)
	}
	return details, nil
}

// timeText is "" for a time that is not known.
func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(timeLayout)
}
