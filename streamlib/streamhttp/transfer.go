package streamhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/budget"
	"github.com/iterate/durable-streams/streamlib/transfer"
)

// copied are the streams that the sender of a request may copy.
type copied struct {
	transfer.Streams
	h *handler
	r *http.Request
}

func (h *handler) copied(r *http.Request) copied {
	return copied{transfer.Streams{Manager: h.streams}, h, r}
}

func (c copied) List(_ context.Context, prefix, after string, limit int) ([]string, error) {
	return c.h.names(c.r, prefix, after, limit)
}

// Stat is what is asked first of each stream.
func (c copied) Stat(ctx context.Context, name string) (streamlib.Info, error) {
	if err := mayCopy(c.r, name); err != nil {
		return streamlib.Info{}, err
	}
	return c.Streams.Stat(ctx, name)
}

// mayCopy returns why the sender of r may not.
func mayCopy(r *http.Request, name string) error {
	if g := leased(r); g != nil {
		return g.allows(Admin, name)
	}
	return nil
}

// export answers with the lines of package transfer.
func (h *handler) export(w http.ResponseWriter, r *http.Request, _ string) error {
	p, err := parameters(r, "prefix", "name", "offset")
	if err == nil {
		err = p.apart("prefix", "name")
	}
	if err != nil {
		return err
	}
	q := transfer.Query{Prefix: p.get("prefix"), Name: p.get("name")}
	if q.From, err = p.offset("offset", 0); err != nil {
		return err
	}
	if p.has("name") {
		if err := cmp.Or(streamlib.CheckName(q.Name), mayCopy(r, q.Name)); err != nil {
			return err
		}
	}
	e := &exported{w: w, c: http.NewResponseController(w), conn: connection(r)}
	if r.Method == http.MethodHead {
		e.begin()
		return nil
	}
	_, err = transfer.Export(h.inTurn(r.Context(), 0), h.copied(r), e, q)
	if _, broken := errors.AsType[*transfer.BrokenError](err); err == nil || broken { // which the lines say
		return e.end()
	}
	if !e.begun {
		return err
	}
	if e.gone == nil {
		h.Log.Error("export broken off", "error", err)
		breakOff(e.conn)
	}
	return nil
}

// exported is an answer to whoever takes it, in large pieces.
type exported struct {
	w     http.ResponseWriter
	c     *http.ResponseController
	conn  *net.TCPConn
	begun bool
	gone  error // the client
}

func (e *exported) begin() {
	e.begun = true
	e.w.Header()["Content-Type"] = lineType
	e.w.WriteHeader(http.StatusOK)
}

func (e *exported) Write(b []byte) (n int, err error) {
	if !e.begun {
		resetOnClose(e.conn, true)
		e.begin()
	}
	_ = e.c.SetWriteDeadline(time.Now().Add(writeTime))
	n, e.gone = e.w.Write(b)
	return n, e.gone
}

func (e *exported) end() error {
	if e.c.Flush() == nil {
		resetOnClose(e.conn, false)
	}
	return nil
}

// importAll takes the lines of package transfer as its body, however long, and answers with what there was.
func (h *handler) importAll(w http.ResponseWriter, r *http.Request, _ string) error {
	if _, err := parameters(r); err != nil {
		return err
	}
	if _, err := isLines(r.Header); err != nil { // whatever curl says of it
		return err
	}
	hold := h.streams.Budget().Requests.Hold()
	defer hold.Release()
	if !hold.Grow(r.Context(), transfer.Held, budget.Arriving, roomTime) {
		return fmt.Errorf("import: %w: there is no room in memory for it beside others", streamlib.ErrUnavailable)
	}
	delete(r.Header, "Expect") // the first read says go on: see takeRest
	c := http.NewResponseController(w)
	sum, err := transfer.Import(r.Context(), h.copied(r), &arriving{r.Body, c})
	_ = c.SetReadDeadline(time.Time{}) // see serve
	_ = c.SetWriteDeadline(time.Now().Add(writeTime))
	if different, ok := errors.AsType[*transfer.DifferentError](err); ok {
		return &Error{http.StatusConflict, different.Error()}
	}
	if _, broken := errors.AsType[*transfer.BrokenError](err); err != nil && !broken {
		return err
	}
	answerJSON(w, http.StatusOK, sum)
	return nil
}

// importTime is how long a server may take for what it has of an import.
const importTime = 5 * time.Minute

// arriving is a body of which some has to arrive in each minute.
type arriving struct {
	body io.Reader
	c    *http.ResponseController
}

func (a *arriving) Read(b []byte) (int, error) {
	_ = a.c.SetReadDeadline(time.Now().Add(bodyTime))
	n, err := a.body.Read(b)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = &Error{http.StatusRequestTimeout, fmt.Sprintf("nothing of the body arrived in %v", bodyTime)}
	case err != nil && err != io.EOF:
		err = fmt.Errorf("%w body: %w", streamlib.ErrInvalid, err)
	}
	return n, err
}

// Export returns what the server exports: see package transfer. The caller closes it.
func (c *Client) Export(ctx context.Context, q transfer.Query) (io.ReadCloser, error) {
	values := url.Values{}
	set(values, "prefix", q.Prefix)
	set(values, "name", q.Name)
	if q.From != 0 {
		values.Set("offset", clamped(q.From))
	}
	resp, err := c.do(ctx, request{path: "/export", query: values})
	if err == nil && !is(resp, lineType[0]) {
		resp.Body.Close()
		err = errNotOurs
	}
	if err != nil {
		return nil, told(err, "export", q.Name)
	}
	return resp.Body, nil
}

// Import sends an export to the server, which does what transfer.Import does. The error is a *transfer.BrokenError, too,
// but where a stream is another one at the server it is an *Error with status 409. When the connection is lost, what was
// taken until then stays.
func (c *Client) Import(ctx context.Context, export io.Reader) (sum transfer.Summary, err error) {
	q := request{method: http.MethodPost, path: "/import", input: export, header: http.Header{"Content-Type": lineType}}
	if c.Patience > 0 {
		q.limit = max(c.Patience, importTime)
	}
	resp, err := c.do(ctx, q)
	if err == nil {
		err = decode(resp, &sum)
	}
	if err != nil {
		return sum, told(err, "import", "")
	}
	return sum, sum.Err()
}
