package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
)

// A Hello is said on a new connection, where a protocol wants one, and returns the wire for it.
type Hello func(w io.Writer, r *bufio.Reader) (Wire, error)

// A Wire is a protocol to append events by, one request after the other on a connection.
type Wire interface {
	// Request appends to b the bytes that append events, JSON values of one line each, to a stream.
	Request(b []byte, stream string, events []byte) []byte

	// Answer reads one answer and nothing behind it. It returns the offset that the first event got, 0 where the
	// protocol has none. The connection can be used on after a RefusedError and after no other.
	Answer(r *bufio.Reader) (first int64, err error)
}

// A RefusedError is an answer that says no.
type RefusedError struct{ Text string }

func (e *RefusedError) Error() string { return e.Text }

// HTTP is the wire of a durable-streams server. It writes and reads HTTP/1.1 by itself: the driver shares the machine with the
// server it measures, and net/http's client would take as much of it as the server does.
type HTTP struct {
	address, host, path string
	tls                 *tls.Config // nil is none
	auth                string      // a header line, or nothing
	batch               bool        // append by NDJSON
}

func newHTTP(server, token string, batch bool) (*HTTP, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	h := &HTTP{address: u.Host, host: u.Host, path: strings.TrimSuffix(u.EscapedPath(), "/") + "/streams/", batch: batch}
	port := "80"
	if u.Scheme == "https" {
		port, h.tls = "443", &tls.Config{ServerName: u.Hostname()}
	}
	if u.Port() == "" {
		h.address = net.JoinHostPort(u.Hostname(), port)
	}
	if token != "" {
		h.auth = "Authorization: Bearer " + token + "\r\n"
	}
	return h, nil
}

// head appends the first lines of a request for the stream, or for what follows its name.
func (h *HTTP) head(b []byte, method, stream string) []byte {
	b = append(append(append(b, method...), ' '), h.path...)
	b = append(append(b, stream...), " HTTP/1.1\r\nHost: "...)
	return append(append(append(b, h.host...), "\r\n"...), h.auth...)
}

// Request is Wire's.
func (h *HTTP) Request(b []byte, stream string, events []byte) []byte {
	b = h.head(b, "POST", stream)
	if h.batch {
		b = append(b, "Content-Type: application/x-ndjson\r\nContent-Length: "...)
		b = append(strconv.AppendInt(b, int64(len(events)), 10), "\r\n\r\n"...)
		return append(b, events...)
	}
	const open, end = `{"data":`, `}`
	value := bytes.TrimSuffix(events, []byte("\n"))
	b = append(b, "Content-Type: application/json\r\nContent-Length: "...)
	b = append(strconv.AppendInt(b, int64(len(open)+len(value)+len(end)), 10), "\r\n\r\n"...)
	return append(append(append(b, open...), value...), end...)
}

// Answer is Wire's.
func (h *HTTP) Answer(r *bufio.Reader) (first int64, err error) {
	const mark = `"offset":"`
	var start [64]byte
	n, err := answer(r, 201, start[:])
	if err != nil {
		return 0, err
	}
	at := bytes.Index(start[:n], []byte(mark))
	if at < 0 {
		return 0, fmt.Errorf("an answer without an offset: %s", start[:n])
	}
	return number(start[at+len(mark) : n]), nil
}

// answer reads an answer of the status. It keeps as much of the body as fits into start, and tells how much that is.
func answer(r *bufio.Reader, want int, start []byte) (n int, err error) {
	status, length, err := head(r)
	if err != nil {
		return 0, err
	}
	if status != want && len(start) < 512 {
		start = make([]byte, 512)
	}
	if length < 0 {
		body, buffer := httputil.NewChunkedReader(r), make([]byte, 4096)
		for err == nil {
			var m int
			m, err = body.Read(buffer)
			n += copy(start[n:], buffer[:m])
		}
		if err == io.EOF {
			_, err = r.ReadSlice('\n') // the end of the last chunk, which that reader leaves
		}
	} else {
		n = min(length, len(start))
		if _, err = io.ReadFull(r, start[:n]); err == nil {
			_, err = r.Discard(length - n)
		}
	}
	if err == nil && status != want {
		err = &RefusedError{fmt.Sprintf("status %d: %s", status, bytes.TrimSpace(start[:n]))}
	}
	return n, err
}

// head reads an answer's head. Length is -1 for a body in chunks.
func head(r *bufio.Reader) (status, length int, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, 0, err
	}
	if len(line) < 12 || string(line[:7]) != "HTTP/1." {
		return 0, 0, fmt.Errorf("no HTTP answer: %q", line)
	}
	status = int(number(line[9:12]))
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, 0, err
		}
		name, value, found := bytes.Cut(line, []byte(":"))
		switch {
		case !found:
			return status, length, nil
		case len(name) == len("Content-Length") && bytes.EqualFold(name, []byte("Content-Length")):
			length = int(number(bytes.TrimSpace(value)))
		case len(name) == len("Transfer-Encoding") && bytes.EqualFold(name, []byte("Transfer-Encoding")):
			length = -1
		}
	}
}

// number reads the digits that b begins with.
func number(b []byte) (n int64) {
	for _, c := range b {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int64(c-'0')
	}
	return n
}

// A conn is a connection that is closed when its context is done.
type conn struct {
	net.Conn
	r    *bufio.Reader
	wire Wire
}

func (h *HTTP) dial(ctx context.Context) (*conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", h.address)
	if err != nil {
		return nil, err
	}
	if h.tls != nil {
		c = tls.Client(c, h.tls)
	}
	context.AfterFunc(ctx, func() { c.Close() })
	return &conn{c, bufio.NewReader(c), h}, nil
}

// exchange sends a request and reads its answer. Alive tells whether the connection can be used on.
func (c *conn) exchange(request []byte) (first int64, alive bool, err error) {
	if _, err := c.Write(request); err != nil {
		return 0, false, err
	}
	first, err = c.wire.Answer(c.r)
	_, refused := errors.AsType[*RefusedError](err)
	return first, err == nil || refused, err
}
