package streamhttp

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// A Client speaks to a server that serves NewHandler's routes. With a URL its zero value is ready to use, from many
// goroutines at once.
type Client struct {
	URL  string       // of the server, such as http://127.0.0.1:3000
	HTTP *http.Client // nil is one of this package's own; its Timeout must be 0
}

// Health returns what the server tells of itself. An answer that is none of a durable-streams server is an error.
func (c *Client) Health(ctx context.Context) (Health, error) { return Health{}, errNotYet }

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
}

// List returns the streams there are.
func (c *Client) List(ctx context.Context, o ListOptions) (Page, error) { return Page{}, errNotYet }

// Subscribe yields what is appended from now on to the streams whose names begin with prefix, streams made later among
// them, where types are given only events that HasType. It ends with an error when the connection is lost: what was
// appended meanwhile cannot be had this way.
func (c *Client) Subscribe(ctx context.Context, prefix string, types ...string) iter.Seq2[[]streamlib.Event, error] {
	return failing(errNotYet)
}

// Stream returns the server's stream called name. It asks the server nothing.
func (c *Client) Stream(name string) *Remote { return &Remote{c, name} }

// A Remote is a stream on a server. It is a streamlib.Stream with these differences: a batch's Admit is called before the
// request is sent, also where the batch is a repeat; an append with a key is sent again, a few times, when its outcome is open.
type Remote struct {
	c    *Client
	name string
}

var _ streamlib.Stream = (*Remote)(nil)

// Name returns the stream's name.
func (r *Remote) Name() string { return r.name }

// Append is streamlib.Stream's.
func (r *Remote) Append(ctx context.Context, b streamlib.Batch) (streamlib.Receipt, error) {
	return streamlib.Receipt{}, errNotYet
}

// Read is streamlib.Stream's.
func (r *Remote) Read(ctx context.Context, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	return failing(errNotYet)
}

// Subscribe is Follow with From alone.
func (r *Remote) Subscribe(ctx context.Context, from streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	return r.Follow(ctx, Follow{From: from})
}

// Stat is streamlib.Stream's.
func (r *Remote) Stat(ctx context.Context) (streamlib.Info, error) { return streamlib.Info{}, errNotYet }

// Delete is streamlib.Stream's.
func (r *Remote) Delete(ctx context.Context) error { return errNotYet }

// A Query says which events Query yields; the zero value is all that there are.
type Query struct {
	From  streamlib.Offset // of the first one; Beginning and 0 are the same
	Limit int              // of events; 0 is none
	Last  int              // instead of From and Limit: so many of the last events; 0 is all
	Types []string         // only events that HasType; Limit and Last count these alone
	Wait  time.Duration    // where there is no such event, how long to wait for one; not with Last
}

// Query yields events that there are, and ends.
func (r *Remote) Query(ctx context.Context, q Query) iter.Seq2[[]streamlib.Event, error] {
	return failing(errNotYet)
}

// A Follow says which events Follow yields; the zero value is all of them.
type Follow struct {
	From  streamlib.Offset // of the first one; Beginning and 0 are the same, Now is what comes
	Last  int              // instead of From: so many of the last events, then what comes
	Types []string         // only events that HasType; Last counts these alone

	// Reconnecting, where not nil, is called before each wait to connect again, with why it was not possible so far.
	Reconnecting func(err error)
}

// Follow yields the events that there are, then what is appended, as they come and without end. A failure of the first connection is
// an error. Once connected, it connects again by itself whenever the connection is lost, and goes on with no gap and no
// repeat. It ends with an error: the context's; streamlib.ErrDeleted when the stream is deleted meanwhile; *streamlib.GoneError
// when that is found out later; or the server's refusal.
func (r *Remote) Follow(ctx context.Context, f Follow) iter.Seq2[[]streamlib.Event, error] {
	return failing(errNotYet)
}

var errNotYet = errors.New("not yet")

func failing(err error) iter.Seq2[[]streamlib.Event, error] {
	return func(yield func([]streamlib.Event, error) bool) { yield(nil, err) }
}
