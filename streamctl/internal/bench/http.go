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

// A refusedError is an answer that says no. The connection can be used on after it.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }

// target is a durable-streams server. It is written to and read from in HTTP/1.1 by hand: the driver shares the
// machine with the server it measures, and net/http's client would take as much of it as the server does.
type target struct {
	address, host, path string
	tls                 *tls.Config // nil is none
	auth                string      // a header line, or nothing
	batch               bool        // append by NDJSON
}

func newTarget(server, token string, batch bool) (*target, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	t := &target{address: u.Host, host: u.Host, path: strings.TrimSuffix(u.EscapedPath(), "/") + "/streams/", batch: batch}
	port := "80"
	if u.Scheme == "https" {
		port, t.tls = "443", &tls.Config{ServerName: u.Hostname()}
	}
	if u.Port() == "" {
		t.address = net.JoinHostPort(u.Hostname(), port)
	}
	if token != "" {
		t.auth = "Authorization: Bearer " + token + "\r\n"
	}
	return t, nil
}

// head appends the first lines of a request for the stream, or for what follows its name.
func (t *target) head(b []byte, method, stream string) []byte {
	b = append(append(append(b, method...), ' '), t.path...)
	b = append(append(b, stream...), " HTTP/1.1\r\nHost: "...)
	return append(append(append(b, t.host...), "\r\n"...), t.auth...)
}

// request appends to b the bytes that append events, JSON values of one line each, to a stream.
func (t *target) request(b []byte, stream string, events []byte) []byte {
	b = t.head(b, "POST", stream)
	if t.batch {
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

// appended reads the answer to an append and nothing behind it. It returns the offset that the first event got.
func appended(r *bufio.Reader) (first int64, err error) {
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
		err = &refusedError{fmt.Sprintf("status %d: %s", status, bytes.TrimSpace(start[:n]))}
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
	r *bufio.Reader
}

func (t *target) dial(ctx context.Context) (*conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", t.address)
	if err != nil {
		return nil, err
	}
	if t.tls != nil {
		c = tls.Client(c, t.tls)
	}
	context.AfterFunc(ctx, func() { c.Close() })
	return &conn{c, bufio.NewReader(c)}, nil
}

// exchange sends a request and reads its answer. Alive tells whether the connection can be used on.
func (c *conn) exchange(request []byte) (first int64, alive bool, err error) {
	if _, err := c.Write(request); err != nil {
		return 0, false, err
	}
	first, err = appended(c.r)
	_, refused := errors.AsType[*refusedError](err)
	return first, err == nil || refused, err
}
