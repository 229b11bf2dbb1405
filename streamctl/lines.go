package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"unicode/utf8"

	"github.com/iterate/durable-streams/streamlib"
)

// A line is an event on stdin.
type line struct {
	number   int
	data     json.RawMessage
	replaced int // bytes that were not UTF-8
	lost     int // lines in whose place it stands
}

// A lineFormat makes an event of a line, which is given with its end: no data where it is none.
type lineFormat func(data []byte, number int) (line, error)

// A lineError is what stands against a line of stdin.
type lineError struct {
	number int
	error
}

func (e lineError) Error() string { return fmt.Sprintf("line %d: %v", e.number, e.error) }

func (e lineError) Unwrap() error { return e.error }

// readBatches yields the lines of stdin, those that are there together in one batch, and with the last of them why no
// more can be read. A whole input is one batch.
func readBatches(stdin io.Reader, format lineFormat, whole bool) iter.Seq2[[]line, error] {
	return func(yield func([]line, error) bool) {
		in := bufio.NewReaderSize(stdin, batchBytes)
		var batch []line
		size := 0
		for number := 1; ; number++ {
			data, err := readLine(in)
			end := err == io.EOF
			var l line
			switch {
			case end && len(data) == 0: // what ends with its last line
				err = nil
			case end || err == nil:
				if l, err = format(data, number); err != nil {
					err = lineError{number, err}
				}
			}
			if err == nil && len(l.data) > 0 {
				batch = append(batch, l)
				size += len(l.data)
			}
			if whole && size > streamlib.MaxBatch {
				err = lineError{number, fmt.Errorf("with --key or --if-tail all lines are one append, of at most %d bytes",
					streamlib.MaxBatch)}
			}
			switch {
			case err != nil:
				yield(batch, err)
				return
			case end:
				yield(batch, nil)
				return
			case !whole && (len(batch) == batchLines || size >= batchBytes || !lineReady(in)):
				if !yield(batch, nil) {
					return
				}
				batch, size = nil, 0
			}
		}
	}
}

// jsonLine is the lineFormat of JSON values. Blank lines are none, and the first line may begin with a byte order mark.
func jsonLine(data []byte, number int) (line, error) {
	if number == 1 {
		halves := len(data) > 1 && (data[0] == 0) != (data[1] == 0)
		// As PowerShell writes.
		if halves || bytes.HasPrefix(data, []byte("\xFF\xFE")) || bytes.HasPrefix(data, []byte("\xFE\xFF")) {
			return line{}, hintError{errors.New("the input looks like UTF-16 and must be UTF-8"),
				"iconv -f UTF-16 -t UTF-8 FILE, and append what that prints"}
		}
		data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	}
	data = bytes.TrimSpace(data)
	switch {
	case len(data) == 0:
		return line{}, nil
	case len(data) > maxLine:
		return line{}, errLongLine
	}
	return line{number: number, data: data}, valid(data)
}

// textLine is the lineFormat of text: a line is a message, a blank one too. The first line may begin with a byte order
// mark.
func textLine(data []byte, number int) (line, error) {
	if number == 1 {
		data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	}
	return messageLine(data, number, "")
}

// messageLine returns the message of a line of text.
func messageLine(data []byte, number int, from string) (line, error) {
	if len(data) > maxLine {
		return line{}, errLongLine
	}
	if text, ended := bytes.CutSuffix(data, []byte("\n")); ended {
		data = bytes.TrimSuffix(text, []byte("\r"))
	}
	text, replaced := toUTF8(data)
	l := line{number: number, data: asEvent(aMessage{"message", text, from}), replaced: replaced}
	if len(l.data) > maxLine {
		return line{}, fmt.Errorf("%w: as an event it is over %d bytes", streamlib.ErrTooLarge, maxLine)
	}
	return l, nil
}

var errLongLine = fmt.Errorf("%w: it is over %d bytes", streamlib.ErrTooLarge, maxLine)

// toUTF8 returns text with U+FFFD for every byte that is not UTF-8, and how many these are.
func toUTF8(text []byte) (string, int) {
	if utf8.Valid(text) {
		return string(text), 0
	}
	var b strings.Builder
	replaced := 0
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size == 1 {
			replaced++
		}
		b.WriteRune(r)
		text = text[size:]
	}
	return b.String(), replaced
}

// readLine returns the next line, which is the caller's. The last one may lack its end and comes with io.EOF. One
// that is longer than any server takes is cut.
func readLine(in *bufio.Reader) (data []byte, err error) {
	for {
		part, err := in.ReadSlice('\n')
		data = append(data, part...)
		if err != bufio.ErrBufferFull {
			return data, err
		}
		if len(data) > maxLine {
			return data, nil
		}
	}
}

// lineReady tells whether a whole line can be had without waiting.
func lineReady(in *bufio.Reader) bool {
	b, _ := in.Peek(in.Buffered())
	return bytes.IndexByte(b, '\n') >= 0
}
