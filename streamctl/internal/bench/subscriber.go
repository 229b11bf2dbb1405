package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http/httputil"
	"slices"
	"sync/atomic"
	"time"
)

// A checker follows the offsets of the events that one subscriber gets. One goroutine calls saw and missing, any seen.
type checker struct {
	next      atomic.Int64 // behind the highest offset so far
	gaps      [][2]int64   // [from, to) below next that did not come, in order
	duplicate int64
	late      int64 // came after a higher one
}

func (c *checker) saw(offset int64) {
	next := c.next.Load()
	if offset >= next {
		if offset > next {
			c.gaps = append(c.gaps, [2]int64{next, offset})
		}
		c.next.Store(offset + 1)
		return
	}
	for i, g := range c.gaps {
		if g[0] <= offset && offset < g[1] {
			c.late++
			parts := slices.DeleteFunc([][2]int64{{g[0], offset}, {offset + 1, g[1]}},
				func(g [2]int64) bool { return g[0] == g[1] })
			c.gaps = slices.Replace(c.gaps, i, i+1, parts...)
			return
		}
	}
	c.duplicate++
}

// missing is how many of the first tail events did not come.
func (c *checker) missing(tail int64) int64 {
	n := max(tail-c.next.Load(), 0)
	for _, g := range c.gaps {
		n += g[1] - g[0]
	}
	return n
}

// A subscription reads one stream's events over SSE.
type subscription struct {
	checker
	conn  *conn
	lines *bufio.Reader
	event func(line []byte) // where not nil, gets each event's line, or as much of it as fits into the buffer
}

// subscribe returns a subscription to a stream from its beginning, once the server has begun to answer; it
// ends with ctx.
func (t *target) subscribe(ctx context.Context, stream string, buffer int) (*subscription, error) {
	c, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	c.r = bufio.NewReaderSize(c.Conn, buffer)
	request := append(t.head(nil, "GET", stream+"?offset=-1"), "Accept: text/event-stream\r\n\r\n"...)
	status, length := 0, 0
	if _, err = c.Write(request); err == nil {
		status, length, _, err = head(c.r)
	}
	if err == nil && status != 200 {
		err = fmt.Errorf("status %d", status)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	var body io.Reader = c.r
	if length < 0 {
		body = httputil.NewChunkedReader(c.r)
	}
	return &subscription{conn: c, lines: bufio.NewReaderSize(body, buffer)}, nil
}

// read reads until there have been as many events as the stream has offsets below tail, or to the end of the answer.
func (s *subscription) read(tail int64) error {
	id, note := int64(-1), false // a note is an event of the server's own
	for s.next.Load() < tail {
		line, err := s.lines.ReadSlice('\n')
		switch {
		case bytes.HasPrefix(line, []byte("id: ")):
			id = number(line[len("id: "):])
		case bytes.HasPrefix(line, []byte("event: ")):
			note = true
		case bytes.HasPrefix(line, []byte("data: ")) && note:
			note = false
		case bytes.HasPrefix(line, []byte("data: ")):
			if s.event != nil {
				s.event(line)
			}
			s.saw(id)
		}
		for err == bufio.ErrBufferFull {
			_, err = s.lines.ReadSlice('\n')
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Catchup reads the first n events of a stream over SSE and returns how long it took, connecting included. Events
// that are missing, doubled or out of order are an error.
func Catchup(ctx context.Context, server, stream string, n int64) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t, err := newTarget(server, "", false, false)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	s, err := t.subscribe(ctx, stream, 64<<10)
	if err != nil {
		return 0, err
	}
	err = s.read(n)
	took := time.Since(begin)
	if err == nil && (s.missing(n) > 0 || s.duplicate > 0 || s.late > 0) {
		err = fmt.Errorf("%d events are missing, %d came twice, %d out of order", s.missing(n), s.duplicate, s.late)
	}
	return took, err
}
