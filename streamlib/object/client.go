package object

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// Keys are what a store knows its user by.
type Keys struct {
	ID, Secret string
	Token      string    // "" where they are not temporary
	Expires    time.Time // zero where they do not
}

// A client sends requests to one bucket.
type client struct {
	o    Options
	base *url.URL // of the bucket, with no slash at its end
	http http.RoundTripper
	keys func(context.Context) (Keys, error)
	now  func() time.Time

	spelling spelling // as Open finds it
}

// A reply is what a store answered.
type reply struct {
	status int
	code   string // of an error
	etag   string // of the object that was written or read, or what the store's spelling has in its place
	body   []byte
	date   time.Time // the store's, zero where it told none
	known  time.Time // when what it says was so, at the earliest: before it was asked for, by neither clock later
}

// taken tells whether a condition did not hold.
func (r reply) taken() bool {
	return r.status == http.StatusPreconditionFailed || r.status == http.StatusConflict
}

// again tells whether the store wants to be asked again.
func (r reply) again() bool {
	return r.status >= 500 && r.status != http.StatusNotImplemented || r.status == http.StatusTooManyRequests ||
		r.code == "RequestTimeout"
}

// refused tells whether what was asked for was not done. Of 503 a proxy knows less than the store.
func (r reply) refused() bool {
	return r.status >= 300 && r.status < 500 || r.status == http.StatusNotImplemented ||
		r.status == http.StatusServiceUnavailable && r.code != ""
}

// tooSkewed is the code of what was signed too long ago.
const tooSkewed = "RequestTimeTooSkewed"

// An answerError is an answer that is no success.
type answerError struct {
	op   string
	code string
	text string
	http int
}

func (e *answerError) Error() string {
	text := fmt.Sprintf("the store answered %d", e.http)
	if e.code != "" {
		text += " " + e.code
	}
	switch {
	case e.http == http.StatusForbidden:
		text += ": its keys, the bucket's policy or the clock of this machine do not allow it"
	case e.code == "NoSuchBucket":
		text += ": there is no such bucket"
	}
	return e.op + ": " + text
}

func (e *answerError) Unwrap() error { return streamlib.ErrUnavailable }

// conditions of a PUT.
const ifAbsent = "*"

// do sends one request, signed with the time at, or now where that is zero. Its error is that no whole answer came.
func (c *client) do(ctx context.Context, method, key string, query [][2]string, body []byte, ifMatch string,
	at time.Time) (r reply, err error) {
	keys, err := c.keys(ctx)
	if err != nil {
		return r, fmt.Errorf("%w: no keys for the store: %w", streamlib.ErrUnavailable, err)
	}
	u := *c.base
	path := u.Path + "/" + key
	u.Path, u.RawPath = path, escape(path, "/")
	slices.SortFunc(query, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	for i, q := range query {
		if i > 0 {
			u.RawQuery += "&"
		}
		u.RawQuery += escape(q[0], "") + "=" + escape(q[1], "")
	}
	ctx, cancel := context.WithTimeout(ctx, c.o.Patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return r, err
	}
	request.URL.RawPath = u.RawPath
	c.spelling.condition(request, ifMatch)
	sum := hash(body)
	request.Header.Set(c.spelling.prefix+"Content-Sha256", sum)
	before := c.now()
	if at.IsZero() {
		at = before
	}
	signer{c.spelling, keys}.sign(request, sum, at)
	response, err := c.http.RoundTrip(request)
	if err != nil {
		return r, fmt.Errorf("%s: %w", c.place(), err)
	}
	defer response.Body.Close()
	r.status, r.etag, r.known = response.StatusCode, response.Header.Get(c.spelling.version), before
	if r.body, err = io.ReadAll(io.LimitReader(response.Body, 256<<20)); err != nil {
		return r, fmt.Errorf("%s: %w", c.place(), err)
	}
	if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		if r.date = date; date.Before(r.known) {
			r.known = date
		}
	}
	if r.status >= 300 {
		var said struct{ Code string }
		_ = xml.Unmarshal(r.body, &said)
		r.code = said.Code
	}
	return r, nil
}

// place is the store as errors name it.
func (c *client) place() string { return c.base.Host }

func (c *client) failed(op string, r reply) error {
	return &answerError{op: op, code: r.code, http: r.status}
}

var (
	errNone  = errors.New("no such object")
	errTaken = errors.New("the object is not as it was expected")
)

// retry does what has no effect until there is an answer that says something, or the time is over.
func (c *client) retry(ctx context.Context, op string, do func(context.Context) (reply, error)) (r reply, err error) {
	ctx, cancel := c.patient(ctx, op)
	defer cancel()
	for wait := 20 * time.Millisecond; ; wait *= 2 {
		r, err = do(ctx)
		switch {
		case err == nil && r.status < 300:
			return r, nil
		case err == nil && r.status == http.StatusNotFound && r.code != "NoSuchBucket":
			return r, errNone
		case err == nil && r.taken():
			return r, errTaken
		case err == nil && !r.again():
			return r, c.failed(op, r)
		case err == nil:
			err = c.failed(op, r)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.Canceled) {
				return r, context.Cause(ctx)
			}
			return r, fmt.Errorf("%w: %s: %w", streamlib.ErrUnavailable, op, err)
		}
	}
}

// patient bounds for how long all that one call asks may take together.
func (c *client) patient(ctx context.Context, op string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.o.Patience, fmt.Errorf("%w: %s: the store does not answer in time",
		streamlib.ErrUnavailable, op))
}

func (c *client) get(ctx context.Context, key string) (reply, error) {
	return c.retry(ctx, "get", func(ctx context.Context) (reply, error) {
		return c.do(ctx, http.MethodGet, key, nil, nil, "", time.Time{})
	})
}

// put writes what it does no harm to write twice.
func (c *client) put(ctx context.Context, key string, body []byte, ifMatch string) (reply, error) {
	return c.retry(ctx, "put", func(ctx context.Context) (reply, error) {
		return c.do(ctx, http.MethodPut, key, nil, body, ifMatch, time.Time{})
	})
}

// remove removes an object, if it is there.
func (c *client) remove(ctx context.Context, key string) error {
	_, err := c.retry(ctx, "delete", func(ctx context.Context) (reply, error) {
		return c.do(ctx, http.MethodDelete, key, nil, nil, "", time.Time{})
	})
	if err == errNone {
		err = nil
	}
	return err
}

// A listing is one page of LIST.
type listing struct {
	Contents []struct {
		Key          string
		LastModified time.Time
		ETag         string
		Size         int64
	}
	CommonPrefixes []struct{ Prefix string }
	IsTruncated    bool
	known, date    time.Time // date is the store's, zero where it told none
}

func (c *client) list(ctx context.Context, prefix, after, delimiter string, limit int) (l listing, err error) {
	query := [][2]string{{"list-type", "2"}, {"prefix", prefix}, {"max-keys", fmt.Sprint(limit)}}
	if after != "" {
		query = append(query, [2]string{"start-after", after})
	}
	if delimiter != "" {
		query = append(query, [2]string{"delimiter", delimiter})
	}
	r, err := c.retry(ctx, "list", func(ctx context.Context) (reply, error) {
		return c.do(ctx, http.MethodGet, "", slices.Clone(query), nil, "", time.Time{})
	})
	if err == errNone {
		err = c.failed("list", r)
	}
	if err != nil {
		return l, err
	}
	if err := xml.Unmarshal(r.body, &l); err != nil {
		return l, fmt.Errorf("%w: list: the store's answer is none: %w", streamlib.ErrUnavailable, err)
	}
	l.known, l.date = r.known, r.date
	return l, nil
}
