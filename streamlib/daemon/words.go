package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Word is s, such as a path, as one word of a message: quoted where it has a space or what a terminal may obey.
func Word(s string) string {
	if s == "" || strings.Contains(s, " ") || !isPrintable(s) {
		return strconv.Quote(s)
	}
	return s
}

func isPrintable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// Message is what err says, in a form that does a terminal no harm, with its paths as words.
func Message(err error) string {
	var paths []string
	walk(err, func(err error) {
		switch e := err.(type) {
		case *fs.PathError:
			paths = append(paths, e.Path)
		case *os.LinkError:
			paths = append(paths, e.Old, e.New)
		}
	})
	slices.SortFunc(paths, func(a, b string) int { return len(b) - len(a) }) // one may begin with another
	var pairs []string
	for _, p := range paths {
		if p != "" && Word(p) != p {
			pairs = append(pairs, p, Word(p))
		}
	}
	var b strings.Builder
	for _, r := range strings.NewReplacer(pairs...).Replace(err.Error()) {
		if unicode.IsPrint(r) || r == '\n' {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// walk calls f with err and all that it wraps.
func walk(err error, f func(error)) {
	f(err)
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			walk(err, f)
		}
	default:
		if inner := errors.Unwrap(err); inner != nil {
			walk(inner, f)
		}
	}
}

// ShellWord is s as one word of what somebody is to type: quoted where the shell would take it for more.
func ShellWord(s string) string {
	if runtime.GOOS == "windows" {
		return windowsWord(s)
	}
	plain := func(r rune) bool {
		return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("_-./:@%+=,", r)
	}
	switch {
	case s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }):
		return s
	case isPrintable(s):
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	b := []byte("$'")
	for _, c := range []byte(s) {
		if c < ' ' || c >= 0x7F || c == '\'' || c == '\\' {
			b = fmt.Appendf(b, `\%03o`, c)
		} else {
			b = append(b, c)
		}
	}
	return string(append(b, '\''))
}

// windowsWord is a word for cmd and PowerShell, neither of which takes a backslash for more than that.
func windowsWord(s string) string {
	plain := func(r rune) bool {
		return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune(`\_-./:@+=~`, r)
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"`
}
