package streamhttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/internal/compact"
)

// A Remote is a stream on a server. It is a streamlib.Stream with these differences: a batch's Admit is called before
// the request is sent, also where the batch is a repeat; an append with a key is sent again, a few times, while its
// outcome is open, unless the server was silent; a key neither begins nor ends with a space; a subscription survives
// restarts of the server; a batch has no Decide.
type Remote struct {
	c    *Client
	name string
}

var _ streamlib.Stream = (*Remote)(nil)

// Name returns the stream's name.
func (r *Remote) Name() string { return r.name }

// do sends a request about the stream; its path is what stands behind the name.
func (r *Remote) do(ctx context.Context, q request) (*http.Response, error) {
	q, err := r.request(q)
	if err != nil {
		return nil, err
	}
	return r.c.do(ctx, q)
}

func (r *Remote) request(q request) (request, error) {
	if err := streamlib.CheckName(r.name); err != nil {
		return q, err
	}
	q.path, q.stream = "/streams/"+segment(r.name)+q.path, r.name
	return q, nil
}

// Append is streamlib.Stream's.
func (r *Remote) Append(ctx context.Context, b streamlib.Batch) (streamlib.Receipt, error) {
	const tries = 6
	receipt, err := r.append(ctx, b)
	for try, wait := 1, time.Duration(0); err != nil; try++ {
		if b.Key == "" || try == tries || ctx.Err() != nil || !passing(err) || isSilent(err) {
			break
		}
		select {
		case <-time.After(wait):
			b.Admit = nil
			receipt, err = r.append(ctx, b)
		case <-ctx.Done():
		}
		wait = 2*wait + rand.N(200*time.Millisecond)
	}
	if conflict, ok := errors.AsType[*streamlib.ConflictError](err); ok && b.IfTail != nil && !conflict.Life {
		conflict.Want = *b.IfTail
	}
	return receipt, told(err, "append", r.name)
}

func (r *Remote) append(ctx context.Context, b streamlib.Batch) (streamlib.Receipt, error) {
	q, err := appendRequest(b)
	if err == nil {
		q, err = r.request(q)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && b.Decide != nil {
		err = fmt.Errorf("append %q: %w batch: a decision is made where the stream is, and not over HTTP", r.name,
			streamlib.ErrInvalid)
	}
	if err != nil || len(b.Data) == 0 && !b.Close {
		return streamlib.Receipt{}, err
	}
	if b.Admit != nil {
		if err := b.Admit(ctx); err != nil {
			return streamlib.Receipt{}, err
		}
	}
	resp, err := r.c.do(ctx, q)
	if err != nil {
		return streamlib.Receipt{}, err
	}
	defer resp.Body.Close()
	receipt := streamlib.Receipt{Repeated: resp.StatusCode == http.StatusOK, Closed: isClosed(resp.Header)}
	receipt.Life = lifeOf(resp.Header)
	receipt.Events = make([]streamlib.Event, 0, len(b.Data))
	err = readEvents(resp.Body, func(batch []streamlib.Event) bool {
		receipt.Events = append(receipt.Events, batch...)
		return true
	})
	tail, errTail := streamlib.ParseOffset(resp.Header.Get("Stream-Next-Offset"))
	n := len(receipt.Events)
	if receipt.Tail = tail; n > 0 {
		receipt.Tail = receipt.Events[n-1].Offset + 1
	}
	switch {
	case err != nil:
	case n < len(b.Data) && errTail == nil:
		err = io.ErrUnexpectedEOF
	case n != len(b.Data), n == 0 && errTail != nil:
		err = errNotOurs
	case b.Close && !receipt.Closed && !receipt.Repeated:
		err = errNoEnd
	}
	return receipt, err
}

// appendRequest returns the request that appends the batch: an envelope for one event, lines for more.
func appendRequest(b streamlib.Batch) (q request, err error) {
	q = request{method: http.MethodPost, header: http.Header{"Content-Type": jsonType}}
	if b.Close {
		setClosed(q.header)
	}
	size := 16
	for _, data := range b.Data {
		size += len(data) + 1
	}
	q.body = make([]byte, 0, size)
	if len(b.Data) == 1 {
		q.body = append(q.body, `{"data":`...)
	} else {
		q.header["Content-Type"], q.header["Accept"] = lineType, lineType
	}
	for i, data := range b.Data { // compact, for a line ends a value
		if q.body, err = compact.All(q.body, data); err != nil {
			return q, fmt.Errorf("%w event %d: %w", streamlib.ErrInvalid, i+1, err)
		}
		if len(b.Data) == 1 {
			q.body = append(q.body, '}')
		} else if i < len(b.Data)-1 {
			q.body = append(q.body, '\n')
		}
	}
	if len(q.body) > streamlib.MaxBatch+room {
		return q, fmt.Errorf("%w: a batch of %d bytes, the limit is %d", streamlib.ErrTooLarge, len(q.body),
			streamlib.MaxBatch)
	}
	if b.Key != "" {
		if streamlib.CheckName(b.Key) != nil || strings.TrimSpace(b.Key) != b.Key {
			return q, fmt.Errorf("%w idempotency key %q: it is 1 to 255 bytes of UTF-8 without control characters and "+
				"without spaces at its ends",
				streamlib.ErrInvalid, b.Key)
		}
		q.header["Idempotency-Key"] = []string{b.Key}
	}
	setConditions(q.header, b.IfTail, b.IfLife)
	return q, nil
}

// parseEvent takes an event in its public form, and keeps it.
func parseEvent(b []byte) (streamlib.Event, error) {
	if len(b) == 0 || b[len(b)-1] != '}' {
		return streamlib.Event{}, errNotOurs
	}
	event, err := streamlib.ParseRecord(b[:len(b)-1])
	if err != nil {
		return event, errNotOurs
	}
	return event, nil
}

// Read is streamlib.Stream's.
func (r *Remote) Read(ctx context.Context, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	if from < 0 && from != streamlib.Now {
		from = streamlib.Beginning
	}
	q := Query{From: from}
	if first := max(from, 0); to <= streamlib.MaxOffset && from != streamlib.Now {
		if q.Limit = int(to - first); to <= first {
			q.From, q.Limit = streamlib.Now, 0 // nothing
		}
	}
	events := r.Query(ctx, q)
	if q.From != streamlib.Beginning {
		return events
	}
	return func(yield func([]streamlib.Event, error) bool) {
		for batch, err := range events {
			n := len(batch)
			for n > 0 && batch[n-1].Offset >= to { // the first that is kept may be any
				n--
			}
			if (n > 0 || err != nil) && !yield(batch[:n], err) || n < len(batch) {
				return
			}
		}
	}
}

// A Query says which events Query yields; the zero value is all that there are, with none dropped.
type Query struct {
	From  streamlib.Offset // of the first one; Beginning is the first that is kept
	Since string           // instead of From: see Follow
	Limit int              // of events; 0 is none
	Last  int              // instead of From and Limit: how many of the last events
	Types []string         // only events that HasType; Limit and Last count these alone
	Wait  time.Duration    // where there is no such event, how long to wait for one, at most an hour; not with Last
}

// Query yields events that there are, and ends.
func (r *Remote) Query(ctx context.Context, q Query) iter.Seq2[[]streamlib.Event, error] {
	return iterate(ctx, "read", r.name, func(yield func([]streamlib.Event, error) bool) error {
		values := url.Values{}
		if set(values, "since", q.Since); q.Since == "" && q.Last == 0 {
			values.Set("offset", clamped(q.From))
		}
		setCount(values, "limit", q.Limit)
		setCount(values, "last", q.Last)
		setTypes(values, q.Types)
		if q.Wait != 0 {
			values.Set("wait", q.Wait.String())
		}
		limit := r.c.Patience
		if len(q.Types) > 0 {
			limit *= 20
		}
		if limit > 0 {
			limit += q.Wait
		}
		resp, err := r.do(ctx, request{path: "/events", query: values, header: http.Header{"Accept": lineType}, limit: limit})
		if err != nil {
			if gone, ok := errors.AsType[*streamlib.GoneError](err); ok {
				gone.After = max(q.From, 0) - 1
			}
			return err
		}
		defer resp.Body.Close()
		if !is(resp, lineType[0]) {
			return errNotOurs
		}
		next := q.From // to come
		if q.Since != "" {
			next = streamlib.Now // the server knows
		} else if q.Last > 0 || next == streamlib.Beginning {
			next, _ = streamlib.ParseOffset(resp.Header.Get(firstHeader))
		}
		err = readEvents(resp.Body, func(events []streamlib.Event) bool {
			next = events[len(events)-1].Offset + 1
			return yield(events, nil)
		})
		if err != nil && err != errStopped {
			return r.why(ctx, next, err)
		}
		if err != nil || len(q.Types) > 0 || next == streamlib.Now { // of which it is not known that there is one
			return err
		}
		// An older server promises nothing.
		if promised, err := streamlib.ParseOffset(resp.Header.Get("Stream-Next-Offset")); err == nil && next < promised {
			return r.why(ctx, next, fmt.Errorf("the answer ends before offset %d, and was to go up to %d: %w", next, promised,
				io.ErrUnexpectedEOF))
		}
		return nil
	})
}

// why returns the damage that an answer broke off at, where the server tells of one, or that what comes next was
// dropped, else err.
func (r *Remote) why(ctx context.Context, next streamlib.Offset, err error) error {
	if isSilent(err) {
		return err
	}
	info, errStat := r.Stat(ctx)
	if damage, ok := errors.AsType[*streamlib.CorruptError](errStat); ok {
		return damage
	}
	switch {
	case info.Damage != nil:
		return info.Damage
	case next >= 0 && next < info.First:
		return &streamlib.GoneError{Stream: r.name, After: next - 1, Tail: info.Tail, First: info.First}
	}
	return err
}

// readEvents yields the events of an answer of lines, those that came together in one batch.
func readEvents(body io.Reader, yield func([]streamlib.Event) bool) error {
	for l := (lines{r: body}); ; {
		err := l.fill()
		if err == io.EOF && !l.begun() {
			return nil
		} else if err != nil {
			return unexpected(err)
		}
		var events []streamlib.Event
		for line, ok := l.next(); ok; line, ok = l.next() {
			event, err := parseEvent(line)
			if err != nil {
				return err
			}
			events = append(events, event)
		}
		if len(events) > 0 && !yield(events) {
			return errStopped
		}
	}
}

// clamped is o as a parameter; what is before the beginning is the beginning.
func clamped(o streamlib.Offset) string {
	if o < streamlib.Now {
		o = streamlib.Beginning
	}
	return o.String()
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Stat is streamlib.Stream's.
func (r *Remote) Stat(ctx context.Context) (streamlib.Info, error) {
	info := streamlib.Info{Name: r.name}
	resp, err := r.do(ctx, request{method: http.MethodHead, absent: true})
	if err == nil {
		defer resp.Body.Close()
		h := resp.Header
		if info.Tail, err = streamlib.ParseOffset(h.Get("Stream-Next-Offset")); err != nil {
			err = errNotOurs
		}
		info.Size, _ = strconv.ParseInt(h.Get("Stream-Size"), 10, 64)
		info.CreatedAt, _ = time.Parse(timeLayout, h.Get("Stream-Created-At"))
		info.UpdatedAt, _ = time.Parse(timeLayout, h.Get("Stream-Updated-At"))
		info.First, _ = streamlib.ParseOffset(h.Get(firstHeader))
		info.Closed, info.Life = isClosed(h), lifeOf(h)
		var p problem
		if json.Unmarshal([]byte(h.Get(problemHeader)), &p) == nil {
			info.Damage = p.corrupt()
		}
	}
	return info, told(err, "stat", r.name)
}

// lifeOf returns the life that an answer's ETag tells.
func lifeOf(h http.Header) int64 {
	if m, err := parseMark(strings.Trim(h.Get("Etag"), `"`)); err == nil && m.life != nil {
		return *m.life
	}
	return 0
}

// Trim is streamlib.Stream's.
func (r *Remote) Trim(ctx context.Context, before streamlib.Offset) error {
	return r.trim(ctx, before, nil)
}

// TrimIf is streamlib.Stream's.
func (r *Remote) TrimIf(ctx context.Context, before streamlib.Offset, life int64) error {
	return r.trim(ctx, before, &life)
}

func (r *Remote) trim(ctx context.Context, before streamlib.Offset, ifLife *int64) error {
	if before > streamlib.MaxOffset {
		before = streamlib.Now
	} else if before != streamlib.Now {
		before = max(before, 0)
	}
	return r.remove(ctx, "trim", request{path: "/events", query: url.Values{"before": {before.String()}}}, nil, ifLife)
}

// Delete is streamlib.Stream's.
func (r *Remote) Delete(ctx context.Context) error {
	return r.remove(ctx, "delete", request{}, nil, nil)
}

// DeleteIf is streamlib.Stream's.
func (r *Remote) DeleteIf(ctx context.Context, tail streamlib.Offset, life int64) error {
	return r.remove(ctx, "delete", request{}, &tail, &life)
}

// remove has the server remove what q names, on conditions.
func (r *Remote) remove(ctx context.Context, op string, q request, ifTail *streamlib.Offset, ifLife *int64) error {
	q.method, q.header = http.MethodDelete, http.Header{}
	setConditions(q.header, ifTail, ifLife)
	resp, err := r.do(ctx, q)
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent {
			err = errNotOurs
		}
	}
	if conflict, ok := errors.AsType[*streamlib.ConflictError](err); ok {
		if conflict.Op = op; !conflict.Life && ifTail != nil {
			conflict.Want = *ifTail
		}
	}
	return told(err, op, r.name)
}
