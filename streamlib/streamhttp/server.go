package streamhttp

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// NewServer returns a server for a handler of this package, with the limits that a server on an open port needs. When
// ctx is done its subscriptions and whatever else waits for events end, for http.Server.Shutdown would wait for them
// for ever; other requests that have begun go on. Log takes what net/http has to say; nil discards.
func NewServer(ctx context.Context, h http.Handler, log *slog.Logger) *http.Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	base := context.WithValue(context.WithoutCancel(ctx), endKey{}, ctx)
	return &http.Server{
		Handler:     h,
		BaseContext: func(net.Listener) context.Context { return base },
		ConnContext: func(ctx context.Context,
			c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ReadHeaderTimeout: 10 * time.Second, // the handler bounds the time for a body
		WriteTimeout:      serverWriteTime,  // and for what it writes at length
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		// The deadlines of an answer over HTTP/2 end its stream, and these the connection that nobody is at any more.
		HTTP2: &http.HTTP2Config{WriteByteTimeout: writeTime, SendPingTimeout: pingAfter, PingTimeout: pingAfter},
	}
}

// connKey is for the connection of a request.
type connKey struct{}

// connection returns the TCP connection that r came on, nil where it is not known, or not r's alone, as over HTTP/2:
// there each answer has an end of its own.
func connection(r *http.Request) *net.TCPConn {
	if r.ProtoMajor > 1 {
		return nil
	}
	conn := r.Context().Value(connKey{})
	for outer, ok := conn.(interface{ NetConn() net.Conn }); ok; outer, ok = conn.(interface{ NetConn() net.Conn }) {
		conn = outer.NetConn()
	}
	tcp, _ := conn.(*net.TCPConn)
	return tcp
}

// resetOnClose says whether whatever closes the connection resets it, the death of this process too. Over HTTP/1.0,
// which is what some proxies speak, an answer without a length ends with the connection, and only a reset tells that
// it is not whole.
func resetOnClose(conn *net.TCPConn, reset bool) {
	if conn == nil {
		return
	}
	after := -1
	if reset {
		after = 0
	}
	_ = conn.SetLinger(after) // where it is closed already there is nobody to tell
}

// breakOff ends a response that has begun and cannot be finished, so that the client sees that it is not whole.
func breakOff(conn *net.TCPConn) {
	if conn != nil {
		resetOnClose(conn, true)
		awaitTaken(conn, writeTime) // for a reset takes back what was not
	}
	panic(http.ErrAbortHandler)
}

// endKey is for the context that is done when the end of a request's server begins, and clientKey for the one that is
// done when its client is gone.
type endKey struct{}
type clientKey struct{}

// lasting returns r with a context that does not end when the client has sent its last byte, which net/http takes for
// its leaving: who closes that half of the connection still waits for an answer, and who is gone is found out by
// writing to him.
func lasting(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(context.WithoutCancel(r.Context()), clientKey{}, r.Context()))
}

// UntilEnd returns r with a context that is done when the client seems to be gone, or the end of the server begins,
// too: for what waits. Cancel is to be called.
func UntilEnd(r *http.Request) (*http.Request, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	var stops []func() bool
	for _, key := range []any{endKey{}, clientKey{}} {
		if end, ok := ctx.Value(key).(context.Context); ok {
			stops = append(stops, context.AfterFunc(end, cancel))
		}
	}
	return r.WithContext(ctx), func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}
