package protocol

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"unicode/utf8"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

const maxHeader = 1 << 10 // bytes that a header may have that is remembered

// one returns the value of a header, which is there once or not at all. It is remembered, so it must be UTF-8.
func one(r *http.Request, name string) (value string, there bool, err error) {
	values := r.Header[http.CanonicalHeaderKey(name)]
	switch {
	case len(values) == 0:
		return "", false, nil
	case len(values) > 1:
		return "", true, refuse(http.StatusBadRequest, "%s is there %d times", name, len(values))
	case len(values[0]) > maxHeader || !utf8.ValidString(values[0]):
		return "", true, refuse(http.StatusBadRequest, "invalid %s: it has at most %d bytes of UTF-8", name, maxHeader)
	}
	return values[0], true, nil
}

// producerOf reads the producer's headers, nil where there are none.
func producerOf(r *http.Request) (*producer, error) {
	var values [3]string
	count := 0
	for i, name := range [...]string{"Producer-Id", "Producer-Epoch", "Producer-Seq"} {
		value, there, err := one(r, name)
		if err != nil {
			return nil, err
		}
		if values[i] = value; there {
			count++
		}
	}
	switch {
	case count == 0:
		return nil, nil
	case count != len(values):
		return nil, refuse(http.StatusBadRequest, "Producer-Id, Producer-Epoch and Producer-Seq are there together or not at all")
	case values[0] == "":
		return nil, refuse(http.StatusBadRequest, "the Producer-Id is empty")
	}
	p := &producer{ID: values[0], mark: markOf(values[0])}
	for i, n := range [...]*int64{&p.Epoch, &p.Seq} {
		text := values[i+1]
		number, err := strconv.ParseInt(text, 10, 64)
		if err != nil || text[0] < '0' || number > int64(streamlib.MaxOffset) {
			return nil, refuse(http.StatusBadRequest, "invalid number %q of a producer", text)
		}
		*n = number
	}
	return p, nil
}

// repeatError says that the append was made before.
type repeatError struct {
	last   producer
	tail   streamlib.Offset
	closed bool
}

func (e *repeatError) Error() string { return "the append was made before" }

// answer is a refusal with headers.
type answer struct {
	error
	header map[string]string
}

func (a *answer) Unwrap() error { return a.error }

// admit decides on a producer's append, and notes it.
func (n *note) admit(p *producer, tail streamlib.Offset, state *streamlib.State) error {
	if state.Closed {
		if by := n.ClosedBy; by != nil && by.ID == p.ID && by.Epoch == p.Epoch && by.Seq == p.Seq {
			return &repeatError{*p, tail, true}
		}
		return &streamlib.ClosedError{Tail: tail}
	}
	gap := func(expected int64) error {
		return &answer{refuse(http.StatusConflict, "the producer's next number is %d, not %d", expected, p.Seq),
			map[string]string{"Producer-Expected-Seq": strconv.FormatInt(expected, 10),
				"Producer-Received-Seq": strconv.FormatInt(p.Seq, 10)}}
	}
	switch was, _, _, known := n.find(p); {
	case !known:
		if p.Seq != 0 {
			return gap(0)
		}
	case p.Epoch < was.Epoch:
		return &answer{refuse(http.StatusForbidden, "the producer's epoch is %d", was.Epoch),
			map[string]string{"Producer-Epoch": strconv.FormatInt(was.Epoch, 10)}}
	case p.Epoch > was.Epoch:
		if p.Seq != 0 {
			return refuse(http.StatusBadRequest, "an epoch begins with number 0, not %d", p.Seq)
		}
	case p.Seq <= was.Seq:
		return &repeatError{was, tail, false}
	case p.Seq > was.Seq+1:
		return gap(was.Seq + 1)
	}
	n.set(p)
	return nil
}

func (h *Handler) append(w http.ResponseWriter, r *http.Request, name string) (streamlib.Receipt, error) {
	body, release, err := h.body(w, r, name)
	defer release()
	if err != nil {
		return streamlib.Receipt{}, err
	}
	p, err := producerOf(r)
	if err != nil {
		return streamlib.Receipt{}, err
	}
	seq, hasSeq, err := one(r, "Stream-Seq")
	if err != nil {
		return streamlib.Receipt{}, err
	}
	for try := range tries {
		sure := try > 0
		info, n, known := h.recent(name)
		if sure {
			info, n, err = h.look(r.Context(), name)
		} else if !known {
			continue
		}
		var batch streamlib.Batch
		if err == nil {
			batch, err = compose(r, body, info, &n)
		}
		if err != nil && !sure {
			continue
		} else if err != nil {
			return streamlib.Receipt{}, err
		}
		batch.Decide = func(tail streamlib.Offset, state *streamlib.State) error {
			if tail == 0 && !state.Closed && state.Note == "" {
				return errNone
			}
			now := n.reread(state.Note)
			switch {
			case now.ID != n.ID || state.Life != info.Life || !sure && (now.head != n.head || state.Closed):
				return errAgain
			case now.Deleted:
				return errDeleted
			}
			if p != nil {
				if err := now.admit(p, tail, state); err != nil {
					return err
				}
				if batch.Close {
					now.ClosedBy = p
					now.change()
				}
			}
			if state.Closed {
				if len(body) == 0 {
					return nil // it is what was asked for
				}
				return &streamlib.ClosedError{Stream: name, Tail: tail}
			}
			if hasSeq {
				if now.Seq != nil && seq <= *now.Seq {
					return refuse(http.StatusConflict, "Stream-Seq %q is not behind %q", seq, *now.Seq)
				}
				now.Seq = &seq
				now.change()
			}
			if p != nil || hasSeq {
				state.Note = now.text
			}
			return nil
		}
		receipt, err := h.streams.Stream(name).Append(r.Context(), batch)
		if errors.Is(err, errAgain) {
			continue
		}
		if _, vetoed := errors.AsType[*streamlib.HookError](err); vetoed && p != nil {
			err = h.unless(r.Context(), name, p, err) // hooks come first, and may have let it through before
		}
		return h.appended(w, name, &n, p, len(body) > 0, receipt, err)
	}
	return streamlib.Receipt{}, errBusy
}

// tries is how often a request looks at what others change meanwhile.
const tries = 100

var errBusy = fmt.Errorf("%w: others change the stream, or what is over cannot be deleted", streamlib.ErrUnavailable)

// errAgain says that the stream is not any more what was looked at.
var errAgain = errors.New("it is another stream now")

// unless is err, or where the append was made before what says that.
func (h *Handler) unless(ctx context.Context, name string, p *producer, err error) error {
	info, n, failed := h.look(ctx, name)
	if failed != nil {
		return err
	}
	if repeat, ok := errors.AsType[*repeatError](n.admit(p, info.Tail, &info.State)); ok {
		return repeat
	}
	return err
}

// compose is the batch of a request to a stream that is what info and n say.
func compose(r *http.Request, body []byte, info streamlib.Info, n *note) (batch streamlib.Batch, err error) {
	batch.Close = closes(r)
	given := r.Header.Get("Content-Type")
	switch {
	case len(body) == 0 && !batch.Close:
		return batch, refuse(http.StatusBadRequest, "the body is empty")
	case len(body) == 0 || info.Closed: // which is decided in the commit
	case given == "":
		return batch, refuse(http.StatusBadRequest, "the Content-Type is missing")
	case given != n.Type && mediaType(given) != mediaType(n.Type):
		return batch, refuse(http.StatusConflict, "the stream is %s, not %s", n.Type, given)
	default:
		if batch.Data, err = values(body, n.json()); err == nil && len(batch.Data) == 0 {
			err = refuse(http.StatusBadRequest, "the array is empty")
		}
	}
	return batch, err
}

// appended answers.
func (h *Handler) appended(w http.ResponseWriter, name string, n *note, p *producer, data bool,
	receipt streamlib.Receipt, err error) (streamlib.Receipt, error) {
	if repeat, ok := errors.AsType[*repeatError](err); ok {
		h.use(name, n)
		setProducer(w.Header(), repeat.last)
		setTail(w.Header(), streamlib.Info{Tail: repeat.tail, State: streamlib.State{Closed: repeat.closed}})
		w.WriteHeader(http.StatusNoContent)
		return streamlib.Receipt{Repeated: true}, nil
	} else if err != nil {
		return receipt, err
	}
	if !data { // else State.UpdatedAt tells
		h.use(name, n)
	}
	setTail(w.Header(), streamlib.Info{Tail: receipt.Tail, State: streamlib.State{Closed: receipt.Closed}})
	code := http.StatusNoContent
	if p != nil {
		setProducer(w.Header(), *p)
		if data {
			code = http.StatusOK
		}
	}
	w.WriteHeader(code)
	return receipt, nil
}

func setProducer(head http.Header, p producer) {
	head.Set("Producer-Epoch", strconv.FormatInt(p.Epoch, 10))
	head.Set("Producer-Seq", strconv.FormatInt(p.Seq, 10))
}

// body reads the request's. Release is to be called behind the answer.
func (h *Handler) body(w http.ResponseWriter, r *http.Request, name string) (body []byte, release func(), err error) {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, func() {}, refuse(http.StatusUnsupportedMediaType, "content encoding %q is not read here", encoding)
	}
	return streamhttp.ReadBody(w, r, h.streams, name, streamlib.MaxBatch, func(body []byte) (events int) {
		if mediaType(r.Header.Get("Content-Type")) != jsonType {
			return 1
		}
		for range elements(body) {
			events++
		}
		return events
	})
}

// space is what JSON has around values.
const space = " \t\r\n"

// elements yields the elements of a JSON array, or what is none. What is no JSON is yielded so that one of them is no
// JSON either.
func elements(body []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		body = bytes.Trim(body, space)
		if n := len(body); n < 2 || body[0] != '[' || body[n-1] != ']' {
			yield(body)
			return
		}
		body = body[1 : len(body)-1]
		if len(bytes.Trim(body, space)) == 0 {
			return
		}
		from, depth, quoted := 0, 0, false
		for i := 0; i < len(body); i++ {
			switch c := body[i]; {
			case quoted && c == '\\':
				i++
			case c == '"':
				quoted = !quoted
			case quoted:
			case c == '[', c == '{':
				depth++
			case c == ']', c == '}':
				depth--
			case c == ',' && depth == 0:
				if !yield(body[from:i]) {
					return
				}
				from = i + 1
			}
		}
		yield(body[from:])
	}
}

// values are the events' data for a body.
func values(body []byte, isJSON bool) (all []json.RawMessage, err error) {
	if !isJSON {
		if len(body) == 0 {
			return nil, nil
		}
		return []json.RawMessage{encode(body)}, nil
	}
	if len(bytes.Trim(body, space)) == 0 {
		return nil, fmt.Errorf("%w body: it is no JSON", streamlib.ErrInvalid)
	}
	for element := range elements(body) {
		all = append(all, element)
	}
	return all, nil
}
