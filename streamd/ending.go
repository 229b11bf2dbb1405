package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// newTime is how long the end waits for the first request of a connection that was taken.
var newTime = time.Second

// An ending is the first part of a server's end: it says that it is not ready, takes no more connections, and waits for
// the requests of those that it has taken. Net/http would close those whose first request it has not read yet, which
// is no answer at all.
type ending struct {
	begun atomic.Bool

	mu      sync.Mutex
	unheard map[net.Conn]bool // of which no request has come yet
	some    atomic.Bool       // there are such
}

// unless returns ready, but for a server that ends.
func (e *ending) unless(ready func() error) func() error {
	return func() error {
		switch {
		case e.begun.Load():
			return errors.New("the server is ending")
		case ready == nil:
			return nil
		}
		return ready()
	}
}

// watch has the server tell of its connections. It is called before the server serves.
func (e *ending) watch(s *http.Server) {
	e.unheard = map[net.Conn]bool{}
	had := s.ConnState
	s.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateNew || e.some.Load() { // of each request it is told twice
			e.mu.Lock()
			if state == http.StateNew {
				e.unheard[c] = true
			} else {
				delete(e.unheard, c)
			}
			e.some.Store(len(e.unheard) > 0)
			e.mu.Unlock()
		}
		if had != nil {
			had(c, state)
		}
	}
}

// begin is the moment from which on /readyz is 503 and nobody is let in. A socket that another process has, too, keeps
// who comes for the next server.
func (e *ending) begin(d *doors) {
	e.begun.Store(true)
	d.close()
}

// await returns when every connection has had its first request, or soon.
func (e *ending) await(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, newTime)
	defer cancel()
	for {
		e.mu.Lock()
		n := len(e.unheard)
		e.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}
