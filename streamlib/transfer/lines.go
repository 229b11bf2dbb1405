package transfer

import (
	"bytes"
	"fmt"
	"io"

	"github.com/iterate/durable-streams/streamlib"
)

// What is read at once is twice as much each time.
const (
	smallRead = 4 << 10
	largeRead = 1 << 20
)

// lines cuts an input into lines. Each stays as it is for who keeps it: what is read is never written over.
type lines struct {
	r      io.Reader
	buf    []byte // that was read and not returned; behind it, up to its capacity, is room
	size   int    // of what was read at once
	number int    // of the line that was returned last
	err    error  // of reading
}

// next returns the next line with its end. The error is io.EOF behind the last one, and io.ErrUnexpectedEOF where that
// has no end.
func (l *lines) next() ([]byte, error) {
	for looked := 0; ; {
		if i := bytes.IndexByte(l.buf[looked:], '\n'); i >= 0 {
			line := l.buf[:looked+i+1]
			l.buf = l.buf[len(line):]
			l.number++
			return line, nil
		}
		if looked = len(l.buf); looked > maxLine {
			return nil, fmt.Errorf("line %d: %w: it is over %d bytes", l.number+1, streamlib.ErrTooLarge, maxLine)
		}
		if l.err == io.EOF && looked > 0 {
			return nil, io.ErrUnexpectedEOF
		}
		if l.err != nil {
			return nil, l.err
		}
		l.fill()
	}
}

// fill reads more, at least a byte or why there is none.
func (l *lines) fill() {
	if len(l.buf) == cap(l.buf) {
		l.size = min(max(2*l.size, smallRead), largeRead)
		grown := make([]byte, len(l.buf), max(l.size, 2*len(l.buf)))
		copy(grown, l.buf)
		l.buf = grown
	}
	n, err := io.ReadAtLeast(l.r, l.buf[len(l.buf):cap(l.buf)], 1)
	l.buf, l.err = l.buf[:len(l.buf)+n], err
}
