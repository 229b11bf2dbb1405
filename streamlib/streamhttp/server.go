package streamhttp

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// NewServer returns a server for a handler of this package, with the limits that a server on an open port needs. When
// ctx is done its subscriptions and whatever else waits for events end, for http.Server.Shutdown would wait for them for ever; other
// requests that have begun go on. Log takes what net/http has to say; nil discards.
func NewServer(ctx context.Context, h http.Handler, log *slog.Logger) *http.Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	base := context.WithValue(context.WithoutCancel(ctx), endKey{}, ctx)
	return &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: 10 * time.Second, // the handler bounds the time for a body
		WriteTimeout:      5 * time.Minute,  // and for what it writes at length
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

// endKey is for the context that is done when the end of a request's server begins.
type endKey struct{}

// untilEnd returns r with a context that is done when the end of its server begins, too: for what waits. Cancel is to be called.
func untilEnd(r *http.Request) (*http.Request, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	end, ok := ctx.Value(endKey{}).(context.Context)
	if !ok {
		return r.WithContext(ctx), cancel
	}
	stop := context.AfterFunc(end, cancel)
	return r.WithContext(ctx), func() { stop(); cancel() }
}
