package streamhttp

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

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

// ifTail returns the tail that the request makes a condition, nil where it makes none.
func ifTail(h http.Header) (*streamlib.Offset, error) {
	match, none := h["If-Match"], h["If-None-Match"]
	switch {
	case len(match) == 0 && len(none) == 0:
		return nil, nil
	case len(match) > 0 && len(none) > 0:
		return nil, fmt.Errorf("%w headers: If-Match and If-None-Match contradict each other", streamlib.ErrInvalid)
	case len(none) == 1 && strings.TrimSpace(none[0]) == "*":
		return new(streamlib.Offset), nil
	case len(none) > 0:
		return nil, fmt.Errorf("%w If-None-Match %q: it is *", streamlib.ErrInvalid, none)
	}
	if tag := strings.TrimSpace(match[0]); len(match) == 1 && len(tag) > 2 && tag[0] == '"' && tag[len(tag)-1] == '"' {
		if tail, err := streamlib.ParseOffset(tag[1 : len(tag)-1]); err == nil && tail >= 0 {
			return &tail, nil
		}
	}
	return nil, fmt.Errorf("%w If-Match %q: it is the tail in quotes, such as \"42\"", streamlib.ErrInvalid, match)
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
