// Package compact checks a JSON value (RFC 8259) and drops its insignificant white space, in one pass that allocates
// nothing.
//
// It is stricter than encoding/json.Compact in two ways that matter to a log of lines: strings must be valid UTF-8,
// and nesting is bounded. Numbers and strings keep the sender's bytes.
package compact

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may nest.
const MaxDepth = 1000

var (
	errEnd   = errors.New("unexpected end of JSON")
	errDepth = fmt.Errorf("JSON nests deeper than %d", MaxDepth)
	errUTF8  = errors.New("invalid UTF-8")
)

// Value appends the compact form of the JSON value that src begins with to dst, and returns dst and what follows the
// value in src. Dst may be src[:0]: the compact form is never longer and never ahead of what was read.
func Value(dst, src []byte) (out, rest []byte, err error) {
	return value(dst, Space(src), 0)
}

// All is Value where nothing but white space may follow.
func All(dst, src []byte) ([]byte, error) {
	out, rest, err := Value(dst, src)
	if err == nil && len(Space(rest)) > 0 {
		err = errors.New("unexpected text after the JSON value")
	}
	return out, err
}

// Space drops the white space that b begins with.
func Space(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\n' || b[0] == '\t' || b[0] == '\r') {
		b = b[1:]
	}
	return b
}

func value(dst, src []byte, depth int) (out, rest []byte, err error) {
	if len(src) == 0 {
		return dst, src, errEnd
	}
	switch c := src[0]; {
	case c == '"':
		return String(dst, src)
	case c == '{', c == '[':
		if depth == MaxDepth {
			return dst, src, errDepth
		}
		return composite(dst, src, depth+1)
	case c == '-', '0' <= c && c <= '9':
		return number(dst, src)
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if len(src) >= len(word) && string(src[:len(word)]) == word {
			return append(dst, word...), src[len(word):], nil
		}
	}
	return dst, src, unexpected(src)
}

func composite(dst, src []byte, depth int) (out, rest []byte, err error) {
	object, end := src[0] == '{', src[0]+2 // in ASCII, both closing brackets come two after the opening ones
	dst = append(dst, src[0])
	src = Space(src[1:])
	if len(src) > 0 && src[0] == end {
		return append(dst, end), src[1:], nil
	}
	for {
		if object {
			if dst, src, err = String(dst, src); err != nil {
				return dst, src, err
			}
			if src = Space(src); len(src) == 0 {
				return dst, src, errEnd
			} else if src[0] != ':' {
				return dst, src, unexpected(src)
			}
			dst, src = append(dst, ':'), Space(src[1:])
		}
		if dst, src, err = value(dst, src, depth); err != nil {
			return dst, src, err
		}
		if src = Space(src); len(src) == 0 {
			return dst, src, errEnd
		}
		c := src[0]
		if c != ',' && c != end {
			return dst, src, unexpected(src)
		}
		dst, src = append(dst, c), src[1:]
		if c == end {
			return dst, src, nil
		}
		src = Space(src)
	}
}

// plain are the bytes that stand for themselves in a string.
var plain = func() (plain [256]bool) {
	for c := byte(' '); c < utf8.RuneSelf; c++ {
		plain[c] = c != '"' && c != '\\'
	}
	return plain
}()

// String is Value for a string alone.
func String(dst, src []byte) (out, rest []byte, err error) {
	if len(src) == 0 {
		return dst, src, errEnd
	} else if src[0] != '"' {
		return dst, src, unexpected(src)
	}
	i, ascii := 1, true
	for {
		for i < len(src) && plain[src[i]] {
			i++
		}
		if i >= len(src) {
			return dst, src, errEnd
		}
		switch c := src[i]; {
		case c == '"':
			if !ascii && !utf8.Valid(src[:i]) {
				return dst, src, errUTF8
			}
			return append(dst, src[:i+1]...), src[i+1:], nil
		case c < ' ':
			return dst, src, fmt.Errorf("control character %#02x in a string", c)
		case c >= utf8.RuneSelf:
			ascii = false
		case c == '\\':
			n := escape(src[i:])
			if n == 0 {
				return dst, src, errors.New("bad escape in a string")
			}
			i += n - 1
		}
		i++
	}
}

// escape is the length of the escape sequence that b begins with, 0 where it is none.
func escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) < 6 {
			return 0
		}
		for _, c := range b[2:6] {
			if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F') {
				return 0
			}
		}
		return 6
	}
	return 0
}

func number(dst, src []byte) (out, rest []byte, err error) {
	i := 0
	digits := func() bool {
		from := i
		for i < len(src) && '0' <= src[i] && src[i] <= '9' {
			i++
		}
		return i > from
	}
	if src[i] == '-' {
		i++
	}
	if i < len(src) && src[i] == '0' {
		i++
	} else if !digits() {
		return dst, src, unexpected(src[i:])
	}
	if i < len(src) && src[i] == '.' {
		if i++; !digits() {
			return dst, src, unexpected(src[i:])
		}
	}
	if i < len(src) && (src[i] == 'e' || src[i] == 'E') {
		if i++; i < len(src) && (src[i] == '+' || src[i] == '-') {
			i++
		}
		if !digits() {
			return dst, src, unexpected(src[i:])
		}
	}
	return append(dst, src[:i]...), src[i:], nil
}

func unexpected(src []byte) error {
	if len(src) == 0 {
		return errEnd
	}
	if src[0] >= utf8.RuneSelf && !utf8.FullRune(src) {
		return errUTF8
	}
	r, n := utf8.DecodeRune(src)
	if r == utf8.RuneError && n == 1 {
		return errUTF8
	}
	return fmt.Errorf("unexpected %q in JSON", r)
}
