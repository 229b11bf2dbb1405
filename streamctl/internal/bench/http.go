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
	batch               bool        // append several events a request
	protocol            bool        // append as the Durable Streams protocol has it
	dialed              Dial        // nil goes to the address
}

func newTarget(server, token string, batch, protocol bool) (*target, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "unix" {
		u = &url.URL{Host: "localhost"}
	}
	t := &target{address: u.Host, host: u.Host, batch: batch, protocol: protocol}
	t.path = strings.TrimSuffix(u.EscapedPath(), "/") + "/streams/"
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
	return t.headAt(b, method, t.path, stream)
}

func (t *target) headAt(b []byte, method, path, stream string) []byte {
	b = append(append(append(b, method...), ' '), path...)
	b = append(append(b, stream...), " HTTP/1.1\r\nHost: "...)
	return append(append(append(b, t.host...), "\r\n"...), t.auth...)
}

// protocolPath is where the protocol has the native path: an application/json stream there is the one here.
func (t *target) protocolPath() string {
	return strings.TrimSuffix(t.path, "/streams/") + "/v1/stream/"
}

// create makes the stream as the protocol has it.
func (t *target) create(c *conn, stream string) error {
	head := t.headAt(nil, "PUT", t.protocolPath(), stream)
	if _, err := c.Write(append(head, "Content-Type: application/json\r\nContent-Length: 0\r\n\r\n"...)); err != nil {
		return err
	}
	_, _, err := answer(c.r, 201, nil)
	return err
}

// request appends to b the bytes that append events, JSON values of one line each, to a stream. The protocol's have a
// producer with a number of its own for each.
func (t *target) request(b []byte, stream string, events []byte, producer, number int) []byte {
	if t.protocol {
		b = t.headAt(b, "POST", t.protocolPath(), stream)
		b = append(b, "Content-Type: application/json\r\nProducer-Epoch: 0\r\nProducer-Id: bench-"...)
		b = append(strconv.AppendInt(b, int64(producer), 10), "\r\nProducer-Seq: "...)
		b = append(strconv.AppendInt(b, int64(number), 10), "\r\nContent-Length: "...)
		b = append(strconv.AppendInt(b, int64(len(events)+1), 10), "\r\n\r\n["...)
		at := len(b)
		b = append(b, events...)
		for i := at; i < len(b); i++ {
			if b[i] == '\n' {
				b[i] = ','
			}
		}
		b[len(b)-1] = ']'
		return b
	}
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

// appended reads the answer to an append of so many events and nothing behind it. It returns the offset that the first
// of them got.
func (t *target) appended(r *bufio.Reader, events int) (first int64, err error) {
	if t.protocol {
		_, next, err := answer(r, 200, nil)
		return next - int64(events), err
	}
	const mark = `"offset":"`
	var start [64]byte
	n, _, err := answer(r, 201, start[:])
	if err != nil {
		return 0, err
	}
	at := bytes.Index(start[:n], []byte(mark))
	if at < 0 {
		return 0, fmt.Errorf("an answer without an offset: %s", start[:n])
	}
	return number(start[at+len(mark) : n]), nil
}

// answer reads an answer of the status. It keeps as much of the body as fits into start, and tells how much that is,
// and the stream's tail where the head has it.
func answer(r *bufio.Reader, want int, start []byte) (n int, next int64, err error) {
	status, length, next, err := head(r)
	if err != nil {
		return 0, 0, err
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
	return n, next, err
}

// head reads an answer's head. Length is -1 for a body in chunks.
func head(r *bufio.Reader) (status, length int, next int64, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, 0, 0, err
	}
	if len(line) < 12 || string(line[:7]) != "HTTP/1." {
		return 0, 0, 0, fmt.Errorf("no HTTP answer: %q", line)
	}
	status = int(number(line[9:12]))
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, 0, 0, err
		}
		name, value, found := bytes.Cut(line, []byte(":"))
		switch {
		case !found:
			return status, length, next, nil
		case len(name) == len("Content-Length") && bytes.EqualFold(name, []byte("Content-Length")):
			length = int(number(bytes.TrimSpace(value)))
		case len(name) == len("Transfer-Encoding") && bytes.EqualFold(name, []byte("Transfer-Encoding")):
			length = -1
		case len(name) == len(nextOffset) && bytes.EqualFold(name, []byte(nextOffset)):
			next = number(bytes.TrimSpace(value))
		}
	}
}

const nextOffset = "Stream-Next-Offset"

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
	dial := t.dialed
	if dial == nil {
		dial = func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "tcp", t.address) }
	}
	c, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	if t.tls != nil && t.dialed == nil {
		c = tls.Client(c, t.tls)
	}
	context.AfterFunc(ctx, func() { c.Close() })
	return &conn{c, bufio.NewReader(c)}, nil
}

// exchange sends a request and reads its answer. Alive tells whether the connection can be used on.
func (c *conn) exchange(t *target, request []byte, events int) (first int64, alive bool, err error) {
	if _, err := c.Write(request); err != nil {
		return 0, false, err
	}
	first, err = t.appended(c.r, events)
	_, refused := errors.AsType[*refusedError](err)
	return first, err == nil || refused, err
}
