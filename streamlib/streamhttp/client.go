package streamhttp

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// A Client speaks to a server that serves NewHandler's routes. With a URL its zero value is ready to use, from many
// goroutines at once. It follows redirects within the server's origin alone, and only those that keep the method.
type Client struct {
	URL   string       // of the server, such as http://127.0.0.1:3000, or with an HTTP that goes there unix:PATH
	HTTP  *http.Client // nil is one of this package's own; its Timeout must be 0
	Token string       // sent as a bearer token, unless it is empty

	// Patience is how long the server may send nothing, while it is asked for something, before that is a
	// *NoAnswerError; 0 is without end. It should be longer than the server's hooks may take. Where the server may have
	// to look through all of a stream it has twenty times as long, and a subscription has its own bound.
	Patience time.Duration
}

// ownHTTP keeps as many connections as were in use at once, for there is one server.
var ownHTTP = func() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 0, 1024
	t.DisableCompression = true
	return &http.Client{Transport: t}
}()

// Health returns what the server tells of itself. The answer of some other server is an error.
func (c *Client) Health(ctx context.Context) (Health, error) {
	var h Health
	resp, err := c.do(ctx, request{path: "/healthz"})
	if err == nil {
		err = decode(resp, &h)
	}
	if err == nil && h.Status == "" {
		err = errNotOurs
	}
	if _, silent := errors.AsType[*NoAnswerError](err); err != nil && !silent { // which says whom it asked
		err = told(err, "ask "+c.URL, "")
	}
	if err != nil {
		return Health{}, err
	}
	return h, nil
}

// Ready returns nil where the server takes appends, and else why not: an *Error with status 503 where it said so. It
// waits for the appends that are under way.
func (c *Client) Ready(ctx context.Context) error {
	resp, err := c.do(ctx, request{path: "/readyz"})
	if err != nil {
		return told(err, "ask "+c.URL, "")
	}
	return resp.Body.Close()
}

// ListOptions say which streams List returns; the zero value is all of them.
type ListOptions struct {
	Prefix  string // of the names
	After   string // only names behind this one
	Limit   int    // 0 is no limit
	Details bool   // all of Info and not only its Name
}

// A Page is an answer of List.
type Page struct {
	Streams []streamlib.Info // sorted by name
	Next    string           // the After of the next page; empty on the last one

	Errors map[string]error // by name, why details cannot be had; *streamlib.CorruptError also where they can
}

// List returns the streams there are. Of one that cannot be read, details are its name alone.
func (c *Client) List(ctx context.Context, o ListOptions) (Page, error) {
	q := url.Values{}
	set(q, "prefix", o.Prefix)
	set(q, "after", o.After)
	setCount(q, "limit", o.Limit)
	if o.Details {
		q.Set("details", "true")
	}
	var answer struct {
		Streams json.RawMessage
		Next    string
		Damaged []detail
	}
	resp, err := c.do(ctx, request{path: "/streams", query: q})
	if err == nil {
		err = decode(resp, &answer)
	}
	page := Page{Next: answer.Next, Errors: map[string]error{}}
	note := func(d detail) *streamlib.CorruptError {
		if d.Error == "" {
			return nil
		}
		c := d.corrupt()
		if page.Errors[d.Name] = c; c == nil {
			page.Errors[d.Name] = errors.New(oneLine(d.Error))
		}
		return c
	}
	switch {
	case err != nil:
	case o.Details:
		var details []detail
		err = json.Unmarshal(answer.Streams, &details)
		for _, d := range details {
			info := streamlib.Info{Name: d.Name, Size: d.Size, Damage: note(d)}
			info.Tail, _ = streamlib.ParseOffset(d.NextOffset)
			info.CreatedAt, _ = time.Parse(timeLayout, d.CreatedAt)
			info.UpdatedAt, _ = time.Parse(timeLayout, d.UpdatedAt)
			info.First, _ = streamlib.ParseOffset(d.First)
			info.Closed, info.Life = d.Closed, d.Life
			page.Streams = append(page.Streams, info)
		}
	default:
		var names []string
		err = json.Unmarshal(answer.Streams, &names)
		damaged := map[string]*streamlib.CorruptError{}
		for _, d := range answer.Damaged {
			damaged[d.Name] = note(d)
		}
		for _, name := range names {
			page.Streams = append(page.Streams, streamlib.Info{Name: name, Damage: damaged[name]})
		}
	}
	if err != nil {
		return Page{}, told(err, "list streams", "")
	}
	return page, nil
}

// Subscribe yields what is appended from now on to the streams whose names begin with prefix, streams made later
// among them; where types are given, only events that HasType. An empty batch comes first, once the server has begun.
// It ends with an error when the connection is lost: what was appended meanwhile cannot be had this way.
func (c *Client) Subscribe(ctx context.Context, prefix string, types ...string) iter.Seq2[[]streamlib.Event, error] {
	return iterate(ctx, "subscribe to all", "", func(yield func([]streamlib.Event, error) bool) error {
		q := url.Values{}
		set(q, "prefix", prefix)
		setTypes(q, types)
		s, err := c.connect(ctx, request{path: "/streams", query: q})
		if err != nil {
			return err
		}
		defer s.close()
		for events := []streamlib.Event(nil); yield(events, nil); {
			if events, err = s.next(); err != nil {
				return err
			}
		}
		return errStopped
	})
}

// Stream returns the server's stream called name. It asks the server nothing.
func (c *Client) Stream(name string) *Remote { return &Remote{c, name} }

// request is what do asks the server; what is empty is not sent.
type request struct {
	method string // empty is GET
	path   string // percent-encoded
	query  url.Values
	header http.Header
	body   []byte
	input  io.Reader     // instead of a body, where that is not known yet
	absent bool          // 404 is a success
	stream string        // that it is about
	limit  time.Duration // for silence; 0 is the client's
}

// do returns the server's answer where it is a success.
func (c *Client) do(ctx context.Context, q request) (*http.Response, error) {
	target := strings.TrimSuffix(c.URL, "/") + q.path
	if strings.HasPrefix(c.URL, "unix:") {
		target = "http://localhost" + q.path
	}
	if len(q.query) > 0 {
		target += "?" + q.query.Encode()
	}
	body := q.input
	if q.body != nil {
		body = bytes.NewReader(q.body)
	}
	req, err := http.NewRequestWithContext(ctx, cmp.Or(q.method, http.MethodGet), target, body)
	if err != nil {
		return nil, fmt.Errorf("%w server URL %q: %w", streamlib.ErrInvalid, c.URL, err)
	}
	maps.Copy(req.Header, q.header)
	if c.Token != "" {
		req.Header["Authorization"] = []string{"Bearer " + c.Token}
	}
	client := *cmp.Or(c.HTTP, ownHTTP)
	client.CheckRedirect = redirect
	resp, err := watched(&client, req, c.URL, cmp.Or(q.limit, c.Patience))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 && !(q.absent && resp.StatusCode == http.StatusNotFound) {
		defer resp.Body.Close()
		return nil, refusal(resp, q.stream)
	}
	return resp, nil
}

// redirect follows a redirect that keeps the method and the origin: no other server gets what is meant for this one,
// such as a token, and no append becomes a read.
func redirect(to *http.Request, via []*http.Request) error {
	switch from := via[0]; {
	case to.Method != from.Method || origin(to.URL) != origin(from.URL):
		return http.ErrUseLastResponse // see refusal
	case len(via) == 10:
		return &Error{Message: "the server redirects again and again"}
	}
	return nil
}

// origin is the scheme, host and port of u.
func origin(u *url.URL) string {
	port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// is tells whether the answer has the media type.
func is(resp *http.Response, mediaType string) bool {
	name, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return name == mediaType
}

// decode reads the answer, which is JSON.
func decode(resp *http.Response, v any) error {
	defer resp.Body.Close()
	if !is(resp, jsonType[0]) {
		return errNotOurs
	}
	err := json.NewDecoder(resp.Body).Decode(v)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !isSilent(err) {
		return errNotOurs
	}
	return err
}

func set(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

func setCount(q url.Values, name string, n int) {
	if n != 0 {
		q.Set(name, strconv.Itoa(n))
	}
}

func setTypes(q url.Values, types []string) {
	if len(types) > 0 {
		q["type"] = types
	}
}

// errStopped ends an iteration whose consumer wants no more.
var errStopped = errors.New("the consumer stopped")

// iterate makes an iterator of a function. Where ctx is done, its cause is the error.
func iterate(ctx context.Context, doing, stream string,
	f func(yield func([]streamlib.Event, error) bool) error) iter.Seq2[[]streamlib.Event, error] {
	return func(yield func([]streamlib.Event, error) bool) {
		err := f(yield)
		if err == nil || err == errStopped {
			return
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		yield(nil, told(err, doing, stream))
	}
}
