package tokens

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

// A Token is a line of a file.
type Token struct {
	Name     string
	Digest   [sha256.Size]byte // of the secret
	Right    streamhttp.Right
	Prefixes []string  // none is all streams
	Expires  time.Time // zero is never
}

// New returns a new secret, of 130 random bits, and its digest.
func New() (secret string, digest [sha256.Size]byte) {
	secret = "ds_" + rand.Text()
	return secret, sha256.Sum256([]byte(secret))
}

// ParseRight returns the right that a word names.
func ParseRight(word string) (streamhttp.Right, bool) {
	for _, r := range []streamhttp.Right{streamhttp.Read, streamhttp.Write, streamhttp.Admin} {
		if word == r.String() {
			return r, true
		}
	}
	return 0, false
}

// Check returns why t is no line of a file.
func (t Token) Check() error {
	if err := checkName(t.Name); err != nil {
		return err
	}
	for _, p := range t.Prefixes {
		if err := streamlib.CheckName(p); err != nil {
			return errors.New("a prefix is the beginning of a stream's name: 1 to 255 bytes of UTF-8 without control characters")
		}
	}
	if t.Expires.Year() > 9999 {
		return errors.New("a token ends before the year 10000, or never")
	}
	return nil
}

func checkName(name string) error {
	bad := func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }
	if name == "" || len(name) > 255 || !utf8.ValidString(name) || strings.HasPrefix(name, "#") ||
		strings.ContainsFunc(name, bad) {
		return errors.New("a token's name is 1 to 255 bytes of UTF-8 without white space and control characters, and " +
			"does not begin with #")
	}
	return nil
}

// String returns the line of t.
func (t Token) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %x %v", t.Name, t.Digest, t.Right)
	for _, p := range t.Prefixes {
		b.WriteString(" prefix=")
		for _, r := range p {
			if r == '%' || unicode.IsSpace(r) || !unicode.IsPrint(r) {
				for _, c := range []byte(string(r)) {
					fmt.Fprintf(&b, "%%%02X", c)
				}
				continue
			}
			b.WriteRune(r)
		}
	}
	if !t.Expires.IsZero() {
		b.WriteString(" expires=" + t.Expires.UTC().Format(time.RFC3339))
	}
	return b.String()
}

// Parse returns the tokens of a file.
func Parse(file []byte) ([]Token, error) {
	var tokens []Token
	names, digests := map[string]int{}, map[[sha256.Size]byte]int{}
	n := 0
	for line := range bytes.Lines(bytes.TrimPrefix(file, []byte("\ufeff"))) {
		n++
		words := strings.Fields(string(line))
		if comment := slices.IndexFunc(words, func(w string) bool { return w[0] == '#' }); comment >= 0 {
			words = words[:comment]
		}
		if len(words) == 0 {
			continue
		}
		t, err := parse(words)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if first := names[t.Name]; first > 0 {
			return nil, fmt.Errorf("lines %d and %d have the same name", first, n)
		}
		if first := digests[t.Digest]; first > 0 {
			return nil, fmt.Errorf("lines %d and %d have the same digest", first, n)
		}
		names[t.Name], digests[t.Digest] = n, n
		tokens = append(tokens, t)
	}
	return tokens, nil
}

func parse(words []string) (t Token, err error) {
	if len(words) < 3 {
		return t, errors.New("a line is NAME SHA256 read|write|admin [prefix=P ...] [expires=TIME]")
	}
	t.Name = words[0]
	if n, err := hex.Decode(t.Digest[:], []byte(words[1])[:min(len(words[1]), 2*len(t.Digest))]); err != nil ||
		n != len(t.Digest) || len(words[1]) != 2*n {
		return t, errors.New("the second word is no SHA-256 digest, of 64 hex digits")
	}
	var ok bool
	if t.Right, ok = ParseRight(words[2]); !ok {
		return t, errors.New("the third word is neither read, write nor admin")
	}
	for _, word := range words[3:] {
		key, value, _ := strings.Cut(word, "=")
		switch {
		case key == "prefix":
			prefix, err := url.PathUnescape(value)
			if err != nil {
				return t, errors.New("in a prefix, % is written %25")
			}
			t.Prefixes = append(t.Prefixes, prefix)
		case key == "expires" && t.Expires.IsZero():
			if t.Expires, err = time.Parse(time.RFC3339, value); err != nil || t.Expires.IsZero() {
				return t, errors.New("expires= wants a time such as 2027-01-31T00:00:00Z")
			}
			t.Expires = t.Expires.UTC()
		case key == "expires":
			return t, errors.New("expires= is there twice")
		default:
			return t, errors.New("behind the right there is a word that is neither prefix=P nor expires=TIME")
		}
	}
	return t, t.Check()
}
