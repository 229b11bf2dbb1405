package streamhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/budget"
)

const (
	roomTime  = time.Second      // that a request waits for room in memory
	stallTime = 10 * time.Second // that a large body, which holds room, may bring nothing
	firstBody = 4 << 10          // what is held of a body of which nothing has come
)

// errReading refuses an answer that has not begun.
var errReading = fmt.Errorf("%w: too much is being read, and there is no room in memory for more",
	streamlib.ErrUnavailable)

// An intake is the memory of an append: it takes from the budget what the body's bytes take as they arrive, and
// before the body is looked into what that makes of it.
type intake struct {
	streams *streamlib.Manager
	hold    budget.Hold
	name    string
	key     string
	events  func(body []byte) int // that there are in a body, or in what has come of it; nil is one
}

// ReadBody reads the body of a request that appends to the stream called name, up to limit bytes of data: within
// the time and the memory that requests have. Events tells how many there are in a body, or in what has come of it.
// Release gives the memory back, and is to be called behind the answer, also where there is an error.
func ReadBody(w http.ResponseWriter, r *http.Request, m *streamlib.Manager, name string, limit int,
	events func(body []byte) int) (body []byte, release func(), err error) {
	in := &intake{streams: m, hold: m.Budget().Requests.Hold(), name: name, events: events}
	body, err = in.read(w, r, limit)
	return body, in.hold.Release, err
}

// read returns the body, of limit bytes of data and some room. It holds little more of a body than has arrived.
func (in *intake) read(w http.ResponseWriter, r *http.Request, limit int) ([]byte, error) {
	tooLarge := func() error {
		return fmt.Errorf("%w body: the limit is %d bytes of data", streamlib.ErrTooLarge, limit)
	}
	if r.ContentLength > int64(limit+room) {
		return nil, tooLarge()
	}
	end := time.Now().Add(bodyTime)
	size := r.ContentLength + 1 // for the end to be seen
	if size == 0 {
		size = firstBody // it is not known
	}
	size = min(size, firstBody) // of what is announced nothing may come
	if err := in.grow(r.Context(), size, budget.Small); err != nil {
		return nil, err
	}
	delete(r.Header, "Expect") // the first read says go on: see takeRest
	if a, ok := w.(*answering); ok {
		w = a.ResponseWriter // which closes the connection behind a body that is too large
	}
	reader := http.MaxBytesReader(w, r.Body, int64(limit+room))
	c := http.NewResponseController(w)
	body := make([]byte, 0, size)
	for {
		n, err := reader.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case err == io.EOF:
			_ = c.SetReadDeadline(time.Time{}) // see serve
			return body, in.whole(r.Context(), body)
		case errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(end):
			return nil, &Error{http.StatusRequestTimeout, fmt.Sprintf("nothing of the body arrived for %v", stallTime)}
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, &Error{http.StatusRequestTimeout, fmt.Sprintf("the body did not arrive in %v", bodyTime)}
		case err != nil:
			if _, over := errors.AsType[*http.MaxBytesError](err); over {
				return nil, tooLarge()
			}
			return nil, fmt.Errorf("%w body: %w", streamlib.ErrInvalid, err)
		}
		if len(body) == cap(body) {
			if _, _, err := in.stored(body); err != nil { // what is too large already is not read on
				return nil, err
			}
			more := 2 * cap(body)
			if r.ContentLength >= 0 {
				more = min(more, int(r.ContentLength)+1)
			}
			if err := in.grow(r.Context(), int64(more), budget.Arriving); err != nil {
				return nil, err
			}
			body = slices.Grow(body, max(more-len(body), 1))
		}
		if cap(body) > budget.SmallSize {
			if stalls := time.Now().Add(stallTime); stalls.Before(end) {
				_ = c.SetReadDeadline(stalls)
			}
		}
	}
}

// stored is what the body so far takes as stored, about, and how many events that are. The error says that it is too
// much, however little of it is data.
func (in *intake) stored(body []byte) (size, events int, err error) {
	if events = 1; in.events != nil {
		events = in.events(body)
	}
	size, err = in.streams.Stored(in.name, in.key, events, events)
	return size + len(body), events, err
}

// whole takes room for what becomes of a body that is there: its values, their compact form, the events, their
// records in memory and on the way to the disk, and the answer.
func (in *intake) whole(ctx context.Context, body []byte) error {
	const perEvent = 24 + 32 // a value, an event
	stored, events, err := in.stored(body)
	if err != nil {
		return err
	}
	cost := 2*cap(body) + 2*stored + perEvent*events
	if stored > budget.SmallSize {
		cost += largeBuffers.size
	}
	return in.grow(ctx, int64(cost), budget.Whole)
}

func (in *intake) grow(ctx context.Context, n int64, rank budget.Rank) error {
	if !in.hold.Grow(ctx, n, rank, roomTime) {
		return fmt.Errorf("append %q: %w: there is no room in memory for the request beside others",
			in.name, streamlib.ErrUnavailable)
	}
	return nil
}
