package streamhttp

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/metrics"
)

// figures are what a handler counts of its requests. The zero value is ready to use.
type figures struct {
	appends, repeated, events metrics.Counter // by requests

	mu          sync.Mutex // held by who adds to what follows; what is known is read without it
	requests    atomic.Pointer[map[asked]*metrics.Counter]
	took        atomic.Pointer[map[asked]*metrics.Histogram]
	subscribers map[*frames]string // to the stream's name, "" for those of many streams
}

// asked is what a request was for, and how it was answered: 0 for all answers.
type asked struct {
	pattern string // the path that it matched
	method  string
	code    int
}

// An answering notes the status of an answer.
type answering struct {
	http.ResponseWriter
	code  int
	bytes int64
}

func (a *answering) WriteHeader(code int) {
	if a.code == 0 && code >= 200 {
		a.code = code
	}
	a.ResponseWriter.WriteHeader(code)
}

func (a *answering) Write(b []byte) (int, error) {
	if a.code == 0 {
		a.code = http.StatusOK
	}
	n, err := a.ResponseWriter.Write(b)
	a.bytes += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (a *answering) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// answered counts and logs a request that was answered.
func (h *handler) answered(r *http.Request, a *answering, took time.Duration) {
	if a.code == 0 {
		a.code = http.StatusOK // as net/http says where a handler says nothing
	}
	if h.Metrics != nil {
		h.counted.count(r, a.code, took)
	}
	if h.AccessLog {
		h.Log.Info("request", "method", r.Method, "path", r.URL.EscapedPath(), "status", a.code, "bytes", a.bytes,
			"took", took, "from", r.RemoteAddr, "request", r.Header.Get(requestID))
	}
}

// count counts a request that was answered.
func (f *figures) count(r *http.Request, code int, took time.Duration) {
	of := asked{pattern: r.Pattern, method: r.Method}
	if _, path, ok := strings.Cut(of.pattern, " "); ok {
		of.pattern = path
	} else { // its method may be anything
		of.method = "other"
	}
	if of.pattern == "" || of.pattern == "/" { // so may its path
		of.pattern = "other"
	}
	find(f, &f.took, of, func() *metrics.Histogram {
		return metrics.NewHistogram(metrics.Seconds())
	}).Observe(took.Seconds())
	of.code = code
	find(f, &f.requests, of, func() *metrics.Counter { return &metrics.Counter{} }).Add(1)
}

// find returns what is counted of a kind of request, which make makes at the first. There are few kinds.
func find[F any](f *figures, known *atomic.Pointer[map[asked]*F], of asked, make func() *F) *F {
	if m := known.Load(); m != nil && (*m)[of] != nil {
		return (*m)[of]
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[asked]*F{}
	if m := known.Load(); m != nil {
		maps.Copy(all, *m)
	}
	if all[of] == nil {
		all[of] = make()
		known.Store(&all)
	}
	return all[of]
}

// subscribed counts a subscriber until what it returns is called.
func (f *figures) subscribed(to *frames, name string) (left func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.subscribers == nil {
		f.subscribers = map[*frames]string{}
	}
	f.subscribers[to] = name
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.subscribers, to)
	}
}

// metrics answers with the figures.
func (h *handler) metrics(w http.ResponseWriter, r *http.Request, _ string) error {
	if _, err := parameters(r); err != nil {
		return err
	}
	var p metrics.Page
	h.counted.write(r.Context(), &p, h.streams)
	p.Gauge("streamd_damaged_streams", "Streams that are known to be damaged.", float64(len(h.streams.Damaged())))
	h.Metrics(&p)
	w.Header()["Content-Type"] = []string{metrics.ContentType}
	w.Header()["Content-Length"] = []string{strconv.Itoa(len(p.Bytes()))}
	_, _ = w.Write(p.Bytes()) // the client may have gone
	return nil
}

func (f *figures) write(ctx context.Context, p *metrics.Page, m *streamlib.Manager) {
	p.Counter("streamd_appends_total", "Appends by requests that stored events, or closed a stream.", f.appends.Value())
	p.Counter("streamd_repeated_appends_total", "Appends whose idempotency key had been seen.", f.repeated.Value())
	p.Counter("streamd_appended_events_total", "Events stored by these appends.", f.events.Value())
	if known := f.requests.Load(); known != nil {
		for _, of := range sorted(*known) {
			p.Counter("streamd_http_requests_total", "Requests that were answered, by route and status.",
				(*known)[of].Value(), "route", of.pattern, "method", of.method, "code", strconv.Itoa(of.code))
		}
		rejected := 0.0
		for of, n := range *known {
			if of.code == http.StatusUnauthorized || of.code == http.StatusForbidden {
				rejected += n.Value()
			}
		}
		p.Counter("streamd_rejected_requests_total", "Requests without a right: answers 401 and 403.", rejected)
		for _, code := range [...]int{http.StatusTooManyRequests, http.StatusInsufficientStorage,
			http.StatusServiceUnavailable} {
			shed := 0.0
			for of, n := range *known {
				if of.code == code && of.pattern != "/readyz" {
					shed += n.Value()
				}
			}
			p.Counter("streamd_shed_requests_total", "Requests that were refused for want of room or of a limit, by status.",
				shed, "code", strconv.Itoa(code))
		}
	}
	if known := f.took.Load(); known != nil {
		for _, of := range sorted(*known) {
			p.Histogram("streamd_http_request_duration_seconds",
				"From a request's header to the end of its answer; a subscription's lasts as long as that.",
				(*known)[of], "route", of.pattern, "method", of.method)
		}
	}
	subscribers, lag := f.lag(ctx, m)
	p.Gauge("streamd_subscribers", "Subscriptions that are open.", float64(subscribers))
	p.Gauge("streamd_subscriber_lag_events",
		"How many events of its stream the subscriber was not sent yet that is furthest behind.", float64(lag))
}

// lag returns how many subscribers there are, and how far the one is behind that is the furthest.
func (f *figures) lag(ctx context.Context, m *streamlib.Manager) (subscribers int, most streamlib.Offset) {
	f.mu.Lock()
	subscribers = len(f.subscribers)
	least := map[string]streamlib.Offset{}
	for s, name := range f.subscribers {
		at := streamlib.Offset(s.at.Load())
		if was, ok := least[name]; name != "" && (!ok || at < was) {
			least[name] = at
		}
	}
	f.mu.Unlock()
	for name, at := range least {
		if info, err := m.Stream(name).Stat(ctx); err == nil {
			most = max(most, info.Tail-at)
		}
	}
	return subscribers, most
}

func sorted[F any](known map[asked]*F) []asked {
	return slices.SortedFunc(maps.Keys(known), func(a, b asked) int {
		return strings.Compare(a.key(), b.key())
	})
}

func (a asked) key() string { return a.pattern + " " + a.method + " " + strconv.Itoa(a.code) }
