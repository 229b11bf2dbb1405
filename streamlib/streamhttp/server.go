package streamhttp

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// NewServer returns a server for a handler of this package, with the limits that a server on an open port needs. When
// ctx is done its subscriptions end; without that, http.Server.Shutdown would wait for them for ever. Log takes what net/http
// has to say; nil discards.
func NewServer(ctx context.Context, h http.Handler, log *slog.Logger) *http.Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second, // the handler bounds the time for a body
		WriteTimeout:      5 * time.Minute,  // and for what it writes at length
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}
