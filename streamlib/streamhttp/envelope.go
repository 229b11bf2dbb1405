package streamhttp

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/internal/compact"
)

// bodyValue returns the V of {"data": V}, which nobody has looked into yet where the body begins and ends as most do,
// and which is compact else.
func bodyValue(body []byte, maxEvent int) (json.RawMessage, error) {
	if v, ok := bytes.CutPrefix(body, []byte(`{"data":`)); ok {
		if v, ok = bytes.CutSuffix(bytes.TrimRight(v, " \t\r\n"), []byte("}")); ok && len(v) <= maxEvent {
			return v, nil
		}
	}
	v, err := envelope(bytes.Clone(body))
	if len(v) > maxEvent {
		err = fmt.Errorf("%w: an event of %d bytes, the limit is %d", streamlib.ErrTooLarge, len(v), maxEvent)
	}
	return v, err
}

// badBody returns the error that envelope has, if any.
func badBody(body []byte, _ int) error {
	_, err := envelope(body)
	return err
}

// envelope returns the value of the one member of {"data": V}, compact. It works within body.
func envelope(body []byte) (json.RawMessage, error) {
	rest := compact.Space(body)
	switch {
	case len(rest) == 0:
		return nil, invalidBody(`it is empty`)
	case rest[0] != '{':
		return nil, invalidBody(`it is no object`)
	}
	var data []byte
	for rest = compact.Space(rest[1:]); ; rest = compact.Space(rest[1:]) {
		if data == nil && len(rest) > 0 && rest[0] == '}' {
			return nil, invalidBody(`it has no "data" member`)
		}
		name, after, err := compact.String(rest[:0], rest)
		if err != nil {
			return nil, invalidBody(err.Error())
		}
		if rest = compact.Space(after); len(rest) == 0 || rest[0] != ':' {
			return nil, invalidBody(`a member has no value`)
		}
		switch {
		case !isData(name):
			return nil, invalidBody(fmt.Sprintf(`unknown member %.100s`, name))
		case data != nil:
			return nil, invalidBody(`it has two "data" members`)
		}
		if data, rest, err = compact.Value(rest[1:1], rest[1:]); err != nil {
			return nil, invalidBody(err.Error())
		}
		if rest = compact.Space(rest); len(rest) == 0 {
			return nil, invalidBody(`it ends too early`)
		}
		switch rest[0] {
		case ',':
		case '}':
			if len(compact.Space(rest[1:])) > 0 {
				return nil, invalidBody(`there is text behind the object`)
			}
			return data, nil
		default:
			return nil, invalidBody(fmt.Sprintf(`unexpected %q behind a member`, rest[0]))
		}
	}
}

func invalidBody(why string) error {
	return fmt.Errorf(`%w body: %s; send {"data": VALUE}`, streamlib.ErrInvalid, why)
}

// isData tells whether the JSON string is "data", however it is escaped.
func isData(quoted []byte) bool {
	if string(quoted) == `"data"` {
		return true
	}
	var name string
	return bytes.IndexByte(quoted, '\\') > 0 && json.Unmarshal(quoted, &name) == nil && name == "data"
}

// lineValues returns the lines of NDJSON, a value each, which nobody has looked into yet. Blank lines are none.
func lineValues(body []byte, maxEvent int) ([]json.RawMessage, error) {
	long := false
	values := make([]json.RawMessage, 0, countLines(body))
	for line := range bytes.SplitSeq(body, newline) {
		if line = compact.Space(line); len(line) > 0 {
			values, long = append(values, line), long || len(line) > maxEvent
		}
	}
	if long { // unless it is for white space
		if err := badLine(body, maxEvent); err != nil {
			return nil, err
		}
	}
	if len(values) == 0 {
		return nil, fmt.Errorf("%w body: it is empty; send one JSON value a line", streamlib.ErrInvalid)
	}
	return values, nil
}

// countLines counts the lines that are not blank.
func countLines(body []byte) (n int) {
	for line := range bytes.SplitSeq(body, newline) {
		if len(compact.Space(line)) > 0 {
			n++
		}
	}
	return n
}

var newline = []byte("\n")

// badLine names the line of NDJSON for which a stream refuses the body, nil where it is none of them.
func badLine(body []byte, maxEvent int) error {
	number := 0
	for line := range bytes.SplitSeq(body, newline) {
		number++
		if len(compact.Space(line)) == 0 {
			continue
		}
		value, err := compact.All(nil, line)
		if err != nil {
			return fmt.Errorf("%w line %d: %w", streamlib.ErrInvalid, number, err)
		}
		if len(value) > maxEvent {
			return fmt.Errorf("%w: line %d has %d bytes, the limit is %d", streamlib.ErrTooLarge, number, len(value), maxEvent)
		}
	}
	return nil
}
