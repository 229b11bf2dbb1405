package streamhttp

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// inPath returns the request whose path has the stream's name for one that has it in its query: browsers, and others
// who parse URLs as they do, take "." and ".." for steps of a path however they are written, and some proxies decode
// %2F.
func inPath(r *http.Request) *http.Request {
	rest, ok := strings.CutPrefix(r.URL.Path, "/stream")
	if !ok || rest != "" && rest != "/events" && rest != "/times" {
		return r
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if names := values["name"]; err == nil && len(names) == 1 {
		r = r.Clone(r.Context())
		r.URL.Path, r.URL.RawPath = "/streams/"+names[0]+rest, "/streams/"+segment(names[0])+rest
		values.Del("name")
		r.URL.RawQuery = values.Encode()
	}
	return r
}

// segment is a name as one segment of a path.
func segment(name string) string {
	if name == "." || name == ".." { // which would be a step
		return strings.ReplaceAll(name, ".", "%2E")
	}
	return url.PathEscape(name)
}

// maxWait is how long a request may wait for an event.
const maxWait = time.Hour

// query holds a request's parameters.
type query url.Values

// parameters returns those of r's URL. One that is not among known is refused, for it would have been meant to do
// something, and so is one that is there twice; type alone may be.
func parameters(r *http.Request, known ...string) (query, error) {
	if r.URL.RawQuery == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("%w query: %w", streamlib.ErrInvalid, err)
	}
	for name, v := range values {
		switch {
		case !slices.Contains(known, name):
			takes := "none is taken here"
			if len(known) > 0 {
				takes = "taken here: " + strings.Join(known, ", ")
			}
			return nil, fmt.Errorf("%w parameter %q: %s", streamlib.ErrInvalid, name, takes)
		case len(v) > 1 && name != "type":
			return nil, fmt.Errorf("%w parameter %s: it is there twice", streamlib.ErrInvalid, name)
		}
	}
	return query(values), nil
}

func (q query) has(name string) bool { return q[name] != nil }

func (q query) get(name string) string { return url.Values(q).Get(name) }

// apart refuses parameters that say different things of the same.
func (q query) apart(a, b string) error {
	if q.has(a) && q.has(b) {
		return fmt.Errorf("%w parameters: %s and %s contradict each other", streamlib.ErrInvalid, a, b)
	}
	return nil
}

func (q query) offset(name string, otherwise streamlib.Offset) (streamlib.Offset, error) {
	if !q.has(name) {
		return otherwise, nil
	}
	return streamlib.ParseOffset(q.get(name))
}

// count returns a number of at least 1, 0 where there is none.
func (q query) count(name string) (int, error) {
	if !q.has(name) {
		return 0, nil
	}
	n, err := strconv.ParseUint(q.get(name), 10, 64)
	if err != nil || n < 1 || n > uint64(streamlib.MaxOffset) {
		return 0, fmt.Errorf("%w %s %q: it is a number, 1 or more", streamlib.ErrInvalid, name, q.get(name))
	}
	return int(n), nil
}

func (q query) bool(name string) (bool, error) {
	switch v := q.get(name); {
	case !q.has(name) || v == "false":
		return false, nil
	case v == "true":
		return true, nil
	default:
		return false, fmt.Errorf("%w %s %q: it is true or false", streamlib.ErrInvalid, name, v)
	}
}

func (q query) duration(name string) (time.Duration, error) {
	if !q.has(name) {
		return 0, nil
	}
	d, err := time.ParseDuration(q.get(name))
	if err != nil || d < 0 || d > maxWait {
		return 0, fmt.Errorf("%w %s %q: it is a time such as 20s or 500ms, at most %v", streamlib.ErrInvalid, name,
			q.get(name), maxWait)
	}
	return d, nil
}

// before returns the offset that a read ends before, MaxOffset+1 where none is told.
func (q query) before() (streamlib.Offset, error) {
	o, err := q.offset("before", streamlib.MaxOffset+1)
	switch {
	case err != nil:
	case o == streamlib.Now: // which is before what is not there yet
		o = streamlib.MaxOffset + 1
	case o == streamlib.Beginning:
		err = fmt.Errorf("%w before %q: it is the offset behind the last event to read, or now", streamlib.ErrInvalid,
			q.get("before"))
	}
	return o, err
}

// since returns the time that a parameter says, nil where there is none.
func (q query) since(name string) (*time.Time, error) {
	if !q.has(name) {
		return nil, nil
	}
	now := time.Now()
	t, err := ParseSince(q.get(name), now)
	if err != nil { // a zone's plus that was not escaped is a space
		if again, errAgain := ParseSince(strings.Replace(q.get(name), " ", "+", 1), now); errAgain == nil {
			return &again, nil
		}
	}
	return &t, err
}

// ParseSince reads a time of RFC 3339, which has its zone, or how long before now it was, such as 90m, 7d or 1d12h; a
// day has 24 hours. The error is streamlib.ErrInvalid.
func ParseSince(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	for _, layout := range [...]string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04",
		"2006-01-02 15:04", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, fmt.Errorf("%w since %q: it has no zone, such as the Z of %s, which is UTC, or +02:00",
				streamlib.ErrInvalid, s, t.Format(time.RFC3339))
		}
	}
	days, rest, ok := strings.Cut(s, "d")
	if !ok {
		days, rest = "0", s
	}
	n, err := strconv.ParseUint(days, 10, 16)
	ago := time.Duration(0)
	if rest != "" {
		var errRest error
		ago, errRest = time.ParseDuration(rest)
		err = cmp.Or(err, errRest)
	}
	if err != nil || s == "" || ago < 0 {
		return now, fmt.Errorf("%w since %q: it is a time such as 2026-01-31T09:00:00Z, or how long ago, such as 90m or 7d",
			streamlib.ErrInvalid, s)
	}
	return now.Add(-ago).Add(-time.Duration(n) * 24 * time.Hour), nil
}

// accepts tells whether the client asked for the media type by its name.
func accepts(r *http.Request, mediaType string) bool {
	for _, accept := range r.Header["Accept"] {
		for part := range strings.SplitSeq(accept, ",") {
			if name, _, _ := strings.Cut(part, ";"); strings.EqualFold(strings.TrimSpace(name), mediaType) {
				return true
			}
		}
	}
	return false
}

// A mark is an offset in a life of a stream. The id of an event and the ETag of a tail are marks: the offset in 16
// digits, and where the life is not 0 a hyphen and the life.
type mark struct {
	offset streamlib.Offset
	life   *int64 // nil is the present one, whichever that is
}

// parseMark reads a mark, or a number as a person writes it, which is of the present life.
func parseMark(s string) (mark, error) {
	digits, suffix, later := strings.Cut(s, "-")
	if digits == "" { // -1 is before what any life has
		digits, later = s, false
	}
	o, err := streamlib.ParseOffset(digits)
	if err != nil || o == streamlib.Now {
		return mark{}, fmt.Errorf("%w mark %q", streamlib.ErrInvalid, s)
	}
	m := mark{offset: o}
	switch {
	case later:
		life, err := strconv.ParseUint(suffix, 10, 63)
		if err != nil {
			return mark{}, fmt.Errorf("%w mark %q", streamlib.ErrInvalid, s)
		}
		m.life = new(int64(life))
	case s == o.String() && o >= 0:
		m.life = new(int64)
	}
	return m, nil
}

// of tells whether the mark may be of the life.
func (m mark) of(life int64) bool { return m.life == nil || *m.life == life }

// suffixOf is what marks of a life have behind the offset.
func suffixOf(life int64) string {
	if life == 0 {
		return ""
	}
	return "-" + strconv.FormatInt(life, 10)
}

// conditions returns the tail and the life that the request makes conditions, nil where it makes none.
func conditions(h http.Header) (tail *streamlib.Offset, life *int64, err error) {
	match, none := h["If-Match"], h["If-None-Match"]
	switch {
	case len(match) == 0 && len(none) == 0:
		return nil, nil, nil
	case len(match) > 0 && len(none) > 0:
		return nil, nil, fmt.Errorf("%w headers: If-Match and If-None-Match contradict each other", streamlib.ErrInvalid)
	case len(none) == 1 && strings.TrimSpace(none[0]) == "*":
		return new(streamlib.Offset), nil, nil
	case len(none) > 0:
		return nil, nil, fmt.Errorf("%w If-None-Match %q: it is *", streamlib.ErrInvalid, none)
	}
	if tag := strings.TrimSpace(match[0]); len(match) == 1 && len(tag) > 2 && tag[0] == '"' && tag[len(tag)-1] == '"' {
		tag = tag[1 : len(tag)-1]
		suffix, any := strings.CutPrefix(tag, anyTail)
		if any {
			tag = "0-" + suffix
		}
		m, err := parseMark(tag)
		switch {
		case err != nil || m.offset < 0:
		case any:
			return nil, m.life, nil
		case m.offset == 0 && tag == m.offset.String(): // what has no events may be in no life yet
			return &m.offset, nil, nil
		default:
			return &m.offset, m.life, nil
		}
	}
	return nil, nil, fmt.Errorf("%w If-Match %q: it is an ETag, or the tail in quotes, such as \"42\"",
		streamlib.ErrInvalid, match)
}

// anyTail, and a life, is the condition on a life alone.
const anyTail = "*-"

// setConditions is conditions backwards.
func setConditions(h http.Header, tail *streamlib.Offset, life *int64) {
	var tag string
	switch {
	case tail == nil && life == nil:
		return
	case tail == nil:
		tag = anyTail + strconv.FormatInt(*life, 10)
	case life == nil:
		tag = strconv.FormatInt(int64(*tail), 10)
	default:
		tag = tail.String() + suffixOf(*life)
	}
	h["If-Match"] = []string{`"` + tag + `"`}
}

// idempotencyKey returns the request's key, "" where it has none.
func idempotencyKey(h http.Header) (string, error) {
	switch keys := h["Idempotency-Key"]; {
	case len(keys) == 0:
		return "", nil
	case len(keys) > 1 || keys[0] == "":
		return "", fmt.Errorf("%w Idempotency-Key %q: it is one value that is not empty", streamlib.ErrInvalid, keys)
	default:
		return keys[0], nil
	}
}

// closes tells whether the request closes its stream.
func closes(h http.Header) (bool, error) {
	switch values := h[closedHeader]; {
	case len(values) == 0:
		return false, nil
	case len(values) == 1 && strings.EqualFold(values[0], "true"):
		return true, nil
	default:
		return false, fmt.Errorf("%w %s %q: it is true, or not there", streamlib.ErrInvalid, closedHeader, values)
	}
}

// closedHeader asks for the end of a stream, and in answers says that they reach it.
const closedHeader = "Stream-Closed"

func setClosed(h http.Header) { h[closedHeader] = []string{"true"} }

func isClosed(h http.Header) bool { return h.Get(closedHeader) == "true" }
