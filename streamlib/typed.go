package streamlib

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/iterate/durable-streams/streamlib/internal/compact"
)

// HasType tells whether the data is an object whose "type" or "_type", by these very names, is one of types. No types
// are every type. Of members of one name the last counts, as it does for encoding/json.
func (e Event) HasType(types ...string) bool {
	if len(types) == 0 {
		return true
	}
	data := e.Data()
	if data[0] != '{' {
		return false
	}
	if bytes.IndexByte(data, '\\') < 0 { // then a type stands there as it is, or nowhere
		in := func(t string) bool { return bytes.Contains(data, []byte(t)) }
		if !slices.ContainsFunc(types, in) {
			return false
		}
	}
	public, own := typesOf(data)
	for _, value := range [...][]byte{public, own} {
		if t, ok := text(value); ok && slices.Contains(types, t) {
			return true
		}
	}
	return false
}

// typesOf returns the values of the members "type" and "_type" of an object, nil where it has none. It goes along the
// object once and decodes nothing but names with escapes: a scan for a type is as fast as what it passes over. What is
// no JSON has any outcome.
func typesOf(object []byte) (public, own json.RawMessage) {
	for rest := compact.Space(object[1:]); len(rest) > 0 && rest[0] == '"'; {
		n := stringLen(rest)
		name := rest[:n]
		rest = compact.Space(rest[n:])
		if len(rest) == 0 || rest[0] != ':' {
			break
		}
		rest = compact.Space(rest[1:])
		n = valueLen(rest)
		value := rest[:n]
		if bytes.IndexByte(name, '\\') >= 0 {
			var s string
			_ = json.Unmarshal(name, &s)
			name = appendQuoted(nil, s)
		}
		switch string(name) {
		case `"type"`:
			public = value
		case `"_type"`:
			own = value
		}
		rest = compact.Space(rest[n:])
		if len(rest) == 0 || rest[0] != ',' {
			break
		}
		rest = compact.Space(rest[1:])
	}
	return public, own
}

// text returns the string that data is, if it is one.
func text(data json.RawMessage) (s string, ok bool) {
	switch {
	case len(data) < 2 || data[0] != '"':
		return "", false
	case bytes.IndexByte(data, '\\') < 0:
		return string(data[1 : len(data)-1]), true
	}
	return s, json.Unmarshal(data, &s) == nil
}

// stringLen is the length of the JSON string that b begins with; all of b where it has no end.
func stringLen(b []byte) int {
	for i := 1; ; i++ {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return len(b)
		}
		i += n
		before := i
		for before > 1 && b[before-1] == '\\' {
			before--
		}
		if (i-before)%2 == 0 { // the quote is not escaped
			return i + 1
		}
	}
}

// valueLen is the length of the JSON value that b begins with; all of b where it has no end.
func valueLen(b []byte) int {
	for i, depth := 0, 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			i += stringLen(b[i:]) - 1
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth < 0 {
				return i
			} else if depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
	}
	return len(b)
}
