package streamhttp

import (
	"net/http"
	"sync"
	"time"
)

// serverWriteTime is how long an answer may take that bounds its writes by nothing shorter.
const serverWriteTime = 5 * time.Minute

// An h2 is the writer of an answer over HTTP/2, whose write deadline holds while something is written, as it does over
// HTTP/1.1. By itself net/http resets the stream as soon as the time has come, and so an answer that only waits for
// what it is to tell.
type h2 struct {
	http.ResponseWriter
	c *http.ResponseController // of that

	mu      sync.Mutex // guards what follows; the deadline may be set while a write hangs
	due     time.Time
	writing bool
}

func newH2(w http.ResponseWriter) *h2 {
	h := &h2{ResponseWriter: w, c: http.NewResponseController(w), due: time.Now().Add(serverWriteTime)}
	_ = h.c.SetWriteDeadline(time.Time{})
	return h
}

// SetWriteDeadline is for http.ResponseController, as are FlushError and Unwrap.
func (h *h2) SetWriteDeadline(t time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.due = t; !h.writing {
		return nil
	}
	return h.c.SetWriteDeadline(t)
}

func (h *h2) Write(b []byte) (int, error) {
	h.begin()
	defer h.end()
	return h.ResponseWriter.Write(b)
}

func (h *h2) FlushError() error {
	h.begin()
	defer h.end()
	return h.c.Flush()
}

func (h *h2) Unwrap() http.ResponseWriter { return h.ResponseWriter }

func (h *h2) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writing = true
	_ = h.c.SetWriteDeadline(h.due)
}

func (h *h2) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writing = false
	_ = h.c.SetWriteDeadline(time.Time{})
}

// leave bounds what net/http writes when the handler has returned.
func (h *h2) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if latest := now.Add(writeTime); h.due.Before(now) || h.due.After(latest) {
		h.due = latest
	}
	_ = h.c.SetWriteDeadline(h.due)
}
