package streamhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// A NoAnswerError says why a server did not answer, or not to the end. The outcome of an append is open, unless Err
// is a *net.OpError of dialling, or a *tls.CertificateVerificationError: nothing was sent then.
type NoAnswerError struct {
	URL string // of the server
	Err error
}

func (e *NoAnswerError) Error() string {
	if s, ok := e.Err.(silence); ok {
		return fmt.Sprintf("no answer from %s %v", e.URL, s)
	}
	return fmt.Sprintf("no answer from %s: %s", e.URL, plain(e.Err))
}

func (e *NoAnswerError) Unwrap() error { return e.Err }

// plain is err without the calls that it was met in.
func plain(err error) string {
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e.Error()
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e.Err.Error()
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "it closed the connection"
	}
	return err.Error()
}

// silence is how long nothing came.
type silence time.Duration

func (s silence) Error() string { return fmt.Sprintf("for %v s", time.Duration(s).Seconds()) }

// A watch ends an exchange whose server does nothing for too long. It does not run while the client does something
// else, as where the reader of its output has paused.
type watch struct {
	context.Context // the exchange's
	server          string
	limit           time.Duration // 0 is none
	timer           *time.Timer
	end             context.CancelCauseFunc
}

func newWatch(ctx context.Context, server string, limit time.Duration) *watch {
	w := &watch{server: server, limit: limit}
	w.Context, w.end = context.WithCancelCause(ctx)
	w.timer = time.AfterFunc(time.Hour, func() { w.end(noAnswer(server, silence(limit))) })
	w.run()
	return w
}

func noAnswer(server string, err error) *NoAnswerError {
	if u, err := url.Parse(server); err == nil {
		server = u.Redacted()
	}
	return &NoAnswerError{strings.TrimSuffix(server, "/"), err}
}

func (w *watch) run() {
	if w.timer.Stop(); w.limit > 0 {
		w.timer.Reset(w.limit)
	}
}

func (w *watch) close() {
	w.timer.Stop()
	w.end(nil)
}

// failed is why the exchange failed, with err.
func (w *watch) failed(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	_, told := errors.AsType[*Error](err)
	switch silent, ok := errors.AsType[*NoAnswerError](context.Cause(w)); {
	case ok:
		return silent
	case told, w.Err() != nil:
		return err
	}
	return noAnswer(w.server, err)
}

// sent is a request's body.
type sent struct {
	io.Reader
	*watch
}

func (s sent) Read(b []byte) (int, error) {
	s.timer.Stop() // what is sent may be still to come, and not from the server
	defer s.run()
	return s.Reader.Read(b)
}

func (sent) Close() error { return nil }

// received is an answer's body.
type received struct {
	io.ReadCloser
	*watch
}

func (r received) Read(b []byte) (int, error) {
	r.run()
	n, err := r.ReadCloser.Read(b)
	r.timer.Stop()
	if silent, ok := errors.AsType[*NoAnswerError](context.Cause(r)); ok && err != nil && err != io.EOF {
		err = silent
	}
	return n, err
}

func (r received) Close() error {
	defer r.watch.close()
	return r.ReadCloser.Close()
}

// isSilent tells whether err is that of a server that sent nothing.
func isSilent(err error) bool {
	_, silent := errors.AsType[silence](err)
	return silent
}

// watched is client.Do, of a request to the server.
func watched(client *http.Client, req *http.Request, server string, limit time.Duration) (*http.Response, error) {
	w := newWatch(req.Context(), server, limit)
	req = req.WithContext(w)
	if body := req.GetBody; body != nil {
		req.GetBody = func() (io.ReadCloser, error) {
			b, err := body()
			return sent{b, w}, err
		}
		req.Body, _ = req.GetBody()
	} else if req.Body != nil {
		req.Body = sent{req.Body, w}
	}
	resp, err := client.Do(req)
	if err != nil {
		defer w.close()
		return nil, w.failed(err)
	}
	w.timer.Stop()
	resp.Body = received{resp.Body, w}
	return resp, nil
}
