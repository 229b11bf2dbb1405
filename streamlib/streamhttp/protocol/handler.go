package protocol

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

// Config is what a handler needs to know; the zero value is ready to use.
type Config struct {
	Access streamhttp.Access // who may read what is forked; nil is anybody
	Shared bool              // others write to the storage, too
	Log    *slog.Logger      // nil discards

	// Names returns in byte order up to limit names behind after, of streams that have a streamlib.State, and maybe of
	// others; nil is of all streams.
	Names func(ctx context.Context, after string, limit int) ([]string, error)
}

// A Handler serves the protocol over a manager's streams. Its methods may be called at once.
type Handler struct {
	config  Config
	streams *streamlib.Manager
	begun   time.Time
	seed    maphash.Seed
	recents [256]atomic.Pointer[recent] // what was looked at last, by the streams' names

	mu      sync.Mutex           // guards what follows
	used    map[string]time.Time // when streams with a TTL were read last
	live    map[string]int       // how many are waiting for more of such streams
	making  map[string]bool      // the IDs of forks that are being made
	changed map[string]bool      // the names of streams whose end may be another one: see Changed
}

// NewHandler returns the protocol over m.
func NewHandler(m *streamlib.Manager, c Config) *Handler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Names == nil {
		c.Names = func(ctx context.Context, after string, limit int) ([]string, error) {
			return m.List(ctx, "", after, limit)
		}
	}
	return &Handler{config: c, streams: m, begun: time.Now(), seed: maphash.MakeSeed(),
		used: map[string]time.Time{}, live: map[string]int{},
		making: map[string]bool{}, changed: map[string]bool{}}
}

func refuse(status int, format string, args ...any) *streamhttp.Error {
	return &streamhttp.Error{Status: status, Message: fmt.Sprintf(format, args...)}
}

var (
	noSniff       = []string{"nosniff"}
	sameOrigin    = []string{"same-origin"} // what pages fetch in the mode of CORS it is not for
	sharedMethods = []string{"DELETE, GET, HEAD, OPTIONS, POST, PUT"}
	sharedHeaders = []string{"Authorization, Content-Type, If-None-Match, Producer-Epoch, Producer-Id, Producer-Seq, " +
		"Stream-Closed, Stream-Expires-At, Stream-Fork-Offset, Stream-Fork-Sub-Offset, Stream-Forked-From, Stream-Seq, " +
		"Stream-TTL"}
	toldHeaders = []string{"Allow, ETag, Location, Producer-Epoch, Producer-Expected-Seq, Producer-Received-Seq, " +
		"Producer-Seq, Retry-After, Stream-Closed, Stream-Cursor, Stream-Expires-At, Stream-Next-Offset, " +
		"Stream-SSE-Data-Encoding, Stream-TTL, Stream-Up-To-Date, WWW-Authenticate"}
)

// Serve is for streamhttp.Config.Protocol: the path value "name" is the stream's name.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request) (receipt streamlib.Receipt, err error) {
	name := r.PathValue("name")
	head := w.Header()
	head["X-Content-Type-Options"] = noSniff
	head["Cross-Origin-Resource-Policy"] = sameOrigin
	if r.Header["Origin"] != nil {
		head["Access-Control-Expose-Headers"] = toldHeaders
	}
	switch {
	case r.Method == http.MethodOptions:
		head["Access-Control-Allow-Methods"] = sharedMethods
		head["Access-Control-Allow-Headers"] = sharedHeaders
		w.WriteHeader(http.StatusNoContent)
		return receipt, nil
	case name == reserved || strings.HasPrefix(name, reserved+"/"):
		return receipt, refuse(http.StatusNotImplemented, "there are no subscriptions here, for which the protocol has %q",
			reserved)
	}
	switch r.Method {
	case http.MethodPut:
		receipt, err = h.create(w, r, name)
	case http.MethodPost:
		receipt, err = h.append(w, r, name)
	case http.MethodDelete:
		err = h.remove(w, r, name)
	case http.MethodHead:
		err = h.head(w, r, name)
	default:
		err = h.read(w, r, name)
	}
	if a, ok := errors.AsType[*answer](err); ok {
		for name, value := range a.header {
			head.Set(name, value)
		}
	}
	if _, told := errors.AsType[*streamhttp.Error](err); !told && errors.Is(err, streamlib.ErrDeleted) {
		err = errNone
	}
	return receipt, err
}

// reserved is where the protocol has its subscriptions.
const reserved = "__ds"

var (
	errNone    = refuse(http.StatusNotFound, "there is no such stream")
	errDeleted = refuse(http.StatusGone, "the stream was deleted, and forks keep its data")
)

// look returns what there is under the name: errNone and errDeleted where it cannot be used.
func (h *Handler) look(ctx context.Context, name string) (streamlib.Info, note, error) {
	info, err := h.streams.Stream(name).Stat(ctx)
	n := h.noted(info)
	switch {
	case err != nil:
		return info, n, err
	case !info.Exists():
		return info, n, errNone
	case n.Deleted:
		return info, n, errDeleted
	case h.over(info, &n):
		if err := h.expire(ctx, info, n); err != nil && err != errAgain {
			h.config.Log.Warn("a stream that is over stays for now", "stream", name, "error", err)
		}
		return info, n, errNone
	}
	return info, n, nil
}

// A recent is a stream as it was a while ago.
type recent struct {
	name string
	life int64
	note
}

func (h *Handler) recentOf(name string) *atomic.Pointer[recent] {
	return &h.recents[maphash.String(h.seed, name)%uint64(len(h.recents))]
}

// recent is what look returned a while ago, less the tail, of a stream that never ends by itself: for who finds out
// whether it is still so.
func (h *Handler) recent(name string) (info streamlib.Info, n note, known bool) {
	was := h.recentOf(name).Load()
	if was == nil || was.name != name || was.TTL != nil || was.Expires != "" || was.Deleted {
		return info, n, false
	}
	info.Name, info.Life = name, was.life
	return info, was.note, true
}

// noted is parseNote of a stream's note, which may be known but for the producers.
func (h *Handler) noted(info streamlib.Info) note {
	slot := h.recentOf(info.Name)
	was := slot.Load()
	same := was != nil && was.name == info.Name && was.life == info.Life
	if same {
		if n := was.reread(info.Note); n.head == was.head && n.head > 0 {
			return n
		}
	}
	n := parseNote(info.Note)
	if info.Exists() {
		slot.Store(&recent{info.Name, info.Life, n})
	}
	return n
}

// ends is when the stream is over, unless it is used before: zero is never. What was read before a start is not known
// after it, so that begins a window of its own.
func (h *Handler) ends(info streamlib.Info, n *note) time.Time {
	if n.TTL == nil {
		return n.expiry(time.Time{})
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	used := info.UpdatedAt
	for _, t := range [...]time.Time{h.begun, h.used[info.Name]} {
		if t.After(used) {
			used = t
		}
	}
	if h.live[info.Name] > 0 { // who waits for more uses it
		used = time.Now()
		if *n.TTL == 0 {
			used = used.Add(time.Second)
		}
	}
	return n.expiry(used)
}

func (h *Handler) over(info streamlib.Info, n *note) bool {
	end := h.ends(info, n)
	return !end.IsZero() && !time.Now().Before(end)
}

// use begins the window of a TTL anew.
func (h *Handler) use(name string, n *note) {
	if n.TTL != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.used[name] = time.Now()
	}
}

// stay keeps a stream with a TTL until the returned function is called.
func (h *Handler) stay(name string, n *note) (leave func()) {
	if n.TTL == nil {
		return func() {}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.live[name]++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.live[name]--; h.live[name] == 0 {
			delete(h.live, name)
		}
		h.used[name] = time.Now()
	}
}

func (h *Handler) head(w http.ResponseWriter, r *http.Request, name string) error {
	info, n, err := h.look(r.Context(), name)
	if err != nil {
		return err
	}
	head := w.Header()
	head.Set("Content-Type", n.Type)
	head.Set("Cache-Control", "no-store")
	setTail(head, info)
	if n.TTL != nil {
		head.Set("Stream-TTL", strconv.FormatInt(*n.TTL, 10))
	}
	if n.Expires != "" {
		head.Set("Stream-Expires-At", n.Expires)
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func setTail(head http.Header, info streamlib.Info) {
	head.Set("Stream-Next-Offset", info.Tail.String())
	if info.Closed {
		head.Set("Stream-Closed", "true")
	}
}

const origin = "0000000000000000_0000000000000000" // the beginning, as some clients know it

// parseOffset reads an offset that a client was given, or -1, or origin.
func parseOffset(s string) (streamlib.Offset, error) {
	if s == "-1" {
		return streamlib.Beginning, nil
	}
	if s == origin {
		return 0, nil
	}
	if len(s) != len("0000000000000000") || strings.Trim(s, "0123456789") != "" {
		return 0, fmt.Errorf("%w offset %q", streamlib.ErrInvalid, s)
	}
	return streamlib.ParseOffset(s)
}

func closes(r *http.Request) bool { return strings.EqualFold(r.Header.Get("Stream-Closed"), "true") }

// etag tells the bytes apart that a read may have: those of one incarnation in [from, to), and whether they are all.
func etag(n *note, info streamlib.Info, from, to streamlib.Offset, ends bool) string {
	tag := fmt.Sprintf("%s:%d:%d", cmp.Or(n.ID, "life-"+strconv.FormatInt(info.Life, 10)), from, to)
	if ends {
		tag += ":c"
	}
	return `"` + tag + `"`
}

// matches tells whether an If-None-Match names the tag (RFC 9110, section 13.1.2).
func matches(header []string, tag string) bool {
	for _, value := range header {
		for part := range strings.SplitSeq(value, ",") {
			part = strings.TrimSpace(part)
			if part == "*" || strings.TrimPrefix(part, "W/") == tag {
				return true
			}
		}
	}
	return false
}
