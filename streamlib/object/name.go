package object

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/iterate/durable-streams/streamlib"
)

// maxStem is how long an encoded name may be before it is cut: stores on a file system take 255 bytes.
const maxStem = 160

// encode encodes a name, or the beginning of one, so that the order of bytes stays: lower-case letters, digits and '-'
// stand for themselves, and any other byte is two hex digits behind a sign that sorts where the byte would.
func encode(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-':
			b.WriteByte(c)
		case c < '-':
			fmt.Fprintf(&b, "(%02x", c)
		case c < '0':
			fmt.Fprintf(&b, ".%02x", c)
		case c < 'a':
			fmt.Fprintf(&b, "=%02x", c)
		default:
			fmt.Fprintf(&b, "~%02x", c)
		}
	}
	return b.String()
}

// stem is what names a stream's objects: its encoded name and a '!', which sorts before all that could come. Of a name
// that is too long it is the first bytes, and behind the '!' the SHA-256 of the name; the objects have it whole.
func stem(name string) string {
	e := encode(name)
	if len(e) <= maxStem {
		return e + "!"
	}
	sum := sha256.Sum256([]byte(name))
	return e[:maxStem] + "!" + hex.EncodeToString(sum[:])
}

// unstem is the name whose stem s is; cut tells that only its objects can say, ok is false where it is none.
func unstem(s string) (name string, cut, ok bool) {
	e, sum, found := strings.Cut(s, "!")
	if !found || sum != "" {
		return "", found, found
	}
	var b []byte
	for i := 0; i < len(e); i++ {
		if strings.IndexByte("(.=~", e[i]) < 0 {
			b = append(b, e[i])
			continue
		}
		if i+3 > len(e) {
			return "", false, false
		}
		c, err := strconv.ParseUint(e[i+1:i+3], 16, 8)
		if err != nil {
			return "", false, false
		}
		b = append(b, byte(c))
		i += 2
	}
	return string(b), false, stem(string(b)) == s
}

// A position is the place of an object in a stream: what it changes comes at first, in the generation, and is the n-th
// change there.
type position struct {
	gen   int64
	first streamlib.Offset
	n     int
}

const maxChanges = 1e8 - 1

func (p position) String() string {
	return fmt.Sprintf("%016d/%016d.%08d", int64(streamlib.MaxOffset)-p.gen, streamlib.MaxOffset-p.first, maxChanges-p.n)
}

// generation is how names have p's.
func (p position) generation() string { return p.String()[:16] }

func parsePosition(s string) (p position, err error) {
	var gen, first int64
	if len(s) != 16+1+16+1+8 {
		return p, fmt.Errorf("%q is no position", s)
	}
	if _, err = fmt.Sscanf(s, "%16d/%16d.%8d", &gen, &first, &p.n); err != nil {
		return p, fmt.Errorf("%q is no position: %w", s, err)
	}
	p.gen, p.first, p.n = int64(streamlib.MaxOffset)-gen, streamlib.MaxOffset-streamlib.Offset(first), maxChanges-p.n
	return p, nil
}

// before tells whether p comes before q.
func (p position) before(q position) bool { return p.String() > q.String() }
