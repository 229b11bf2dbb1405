package streamhttp

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// A Right is what somebody may do with streams. Each of them includes those before it.
type Right int

const (
	Read  Right = 1 + iota // read, follow and list
	Write                  // append and close
	Admin                  // trim, delete, export and import
)

func (r Right) String() string {
	return [...]string{"nothing", "read", "write", "admin"}[r]
}

// Access says who may do what. It is asked by many goroutines at once, and for a request that lives long more than
// once. Package tokens has one that reads a file of tokens.
type Access interface {
	// Grant returns what the sender of r may do now. An error is answered 401 with its text.
	Grant(r *http.Request) (Grant, error)
	// Session returns the cookie that POST /session gives to the sender of r, for pages that can send no header, and the
	// one with which DELETE /session takes it away. An error is answered 401 with its text.
	Session(r *http.Request) (*http.Cookie, error)
}

// A Grant is what somebody may do.
type Grant struct {
	Name     string          // who it is, for messages
	Right    Right           // on the streams whose names begin with one of Prefixes
	Prefixes []string        // none is all streams
	Until    time.Time       // when it ends; zero is never
	Changed  <-chan struct{} // closed when another grant may have taken its place; nil is never
}

// whole are the paths that are about many streams: who has the right on some of them has to do with those.
var whole = map[string]bool{"/streams": true, "/export": true, "/import": true}

// open are the paths that want no grant.
var open = map[string]bool{"/healthz": true, "/readyz": true, "/session": true, "/{$}": true, "/page/{file}": true}

// guard is route for those alone who have the right that the method needs: on the stream, or where the path has none
// on all streams. A list shows what its reader may read. What is read ends when the right does.
func (h *handler) guard(path, method string, route route) route {
	if h.Access == nil || open[path] {
		return route
	}
	need := Read
	switch {
	case path == "/export", path == "/import", debugPaths[path], method == http.MethodDelete:
		need = Admin
	case method != http.MethodGet && method != http.MethodHead:
		need = Write
	}
	return func(w http.ResponseWriter, r *http.Request, name string) error {
		check := func() (Grant, error) {
			g, err := h.Access.Grant(r)
			if err != nil {
				return g, &Error{http.StatusUnauthorized, err.Error()}
			}
			if whole[path] && g.Right >= need {
				return g, nil
			}
			return g, g.allows(need, name)
		}
		if path == "/export" && h.Local != nil && h.Local(r) { // who reads the files
			return route(w, r, name)
		}
		g, err := check()
		if err != nil {
			return err
		}
		if need != Read && !whole[path] {
			return route(w, r, name)
		}
		ctx, cancel := context.WithCancelCause(r.Context())
		l := &lease{}
		l.grant.Store(&g)
		var wait sync.WaitGroup
		defer func() { cancel(nil); wait.Wait() }()
		wait.Go(func() { cancel(l.hold(ctx, check)) })
		return route(w, r.WithContext(context.WithValue(ctx, leaseKey{}, l)), name)
	}
}

// allows returns why somebody may not do what needs a right on the stream called name, or where that is empty on all
// streams.
func (g *Grant) allows(need Right, name string) error {
	if g.Right >= need && g.covers(name) {
		return nil
	}
	where, has := "all streams", "all streams"
	if name != "" {
		where = fmt.Sprintf("stream %q", name)
	}
	if len(g.Prefixes) > 0 {
		has = fmt.Sprintf("streams that begin with %q", g.Prefixes)
	}
	return &Error{http.StatusForbidden, fmt.Sprintf("this needs the right to %v on %s, and %q has %v on %s", need,
		where, g.Name, g.Right, has)}
}

func (g *Grant) covers(name string) bool {
	return len(g.Prefixes) == 0 || slices.ContainsFunc(g.Prefixes,
		func(p string) bool { return strings.HasPrefix(name, p) })
}

// within returns the prefixes of the streams that g covers among those that begin with prefix: in order, and apart.
func (g *Grant) within(prefix string) []string {
	if g.covers(prefix) {
		return []string{prefix}
	}
	var longer []string
	for _, p := range slices.Sorted(slices.Values(g.Prefixes)) {
		if n := len(longer); strings.HasPrefix(p, prefix) && (n == 0 || !strings.HasPrefix(p, longer[n-1])) {
			longer = append(longer, p)
		}
	}
	return longer
}

// A lease is the grant of a request for as long as that lasts.
type lease struct{ grant atomic.Pointer[Grant] }

type leaseKey struct{}

// leased returns the grant that r has now, nil where it needs none.
func leased(r *http.Request) *Grant {
	if l, ok := r.Context().Value(leaseKey{}).(*lease); ok {
		return l.grant.Load()
	}
	return nil
}

// lookAgain is how long the clock of the machine is trusted to go as it did.
const lookAgain = time.Minute

// hold asks again whenever the grant may have ended, and returns why it has.
func (l *lease) hold(ctx context.Context, check func() (Grant, error)) error {
	for {
		g := l.grant.Load()
		var late <-chan time.Time
		if !g.Until.IsZero() {
			late = time.After(min(time.Until(g.Until), lookAgain))
		}
		select {
		case <-g.Changed:
		case <-late:
		case <-ctx.Done():
			return nil
		}
		next, err := check()
		if err != nil {
			return err
		}
		l.grant.Store(&next)
	}
}

// names are the names of the streams that the sender of r may read: see Manager.List.
func (h *handler) names(r *http.Request, prefix, after string, limit int) (names []string, err error) {
	g := leased(r)
	if g == nil {
		return h.streams.List(r.Context(), prefix, after, limit)
	}
	for _, p := range g.within(prefix) {
		more, err := h.streams.List(r.Context(), p, after, limit)
		if err != nil {
			return nil, err
		}
		if names = append(names, more...); limit > 0 && len(names) >= limit {
			return names[:limit], nil
		}
	}
	return names, nil
}

// readable leaves of events those of streams that the sender of r may read when they come.
func readable(r *http.Request, events iter.Seq2[[]streamlib.Event, error]) iter.Seq2[[]streamlib.Event, error] {
	if leased(r) == nil {
		return events
	}
	return func(yield func([]streamlib.Event, error) bool) {
		for batch, err := range events {
			g := leased(r)
			if err == nil && len(g.Prefixes) > 0 {
				var seen []streamlib.Event // the batch belongs to others too
				for _, e := range batch {
					if g.covers(e.Stream()) {
						seen = append(seen, e)
					}
				}
				batch = seen
			}
			if (len(batch) > 0 || err != nil) && !yield(batch, err) {
				return
			}
		}
	}
}

// challenge is what a 401 says that is wanted (RFC 6750).
func challenge(r *http.Request) string {
	if r.Header["Authorization"] == nil {
		return `Bearer realm="streams"`
	}
	return `Bearer realm="streams", error="invalid_token"`
}

// session begins or ends a session.
func (h *handler) session(w http.ResponseWriter, r *http.Request, _ string) error {
	if _, err := parameters(r); err != nil {
		return err
	}
	cookie, err := h.Access.Session(r)
	if err != nil {
		return &Error{http.StatusUnauthorized, err.Error()}
	}
	http.SetCookie(w, cookie)
	w.Header()["Cache-Control"] = []string{"no-store"}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
