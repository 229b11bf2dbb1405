package streamhttp

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/internal/compact"
)

// room is what a body may have beside its data: the envelope and white space.
const room = 64 << 10

// A posting is a request that appends.
type posting struct {
	intake
	streamlib.Batch
	body  []byte
	lines bool // it is one of lines
}

// append appends the event of a JSON body, or the events of an NDJSON one, and closes the stream where that is asked
// for, behind them or without any.
//
// The goroutine of whoever leads a commit makes it, with all layers above it on its stack, and that is to stay at
// 8 KiB. So this has a small frame: what it takes to read the batch and to answer is over, or not yet there, then.
func (h *handler) append(w http.ResponseWriter, r *http.Request, name string) error {
	p := &posting{intake: intake{streams: h.streams, hold: h.streams.Budget().Requests.Hold(), name: name}}
	defer p.hold.Release() // behind the answer
	if err := h.batch(w, r, p); err != nil {
		return err
	}
	receipt, err := h.streams.Stream(name).Append(r.Context(), p.Batch)
	if err != nil {
		return h.blamed(p, err)
	}
	h.appended(w, r, p, &receipt)
	return nil
}

// batch reads the batch of r into p.
func (h *handler) batch(w http.ResponseWriter, r *http.Request, p *posting) (err error) {
	if _, err := parameters(r); err != nil {
		return err
	}
	if p.lines, err = isLines(r.Header); err != nil {
		return err
	}
	if p.Close, err = closes(r.Header); err != nil {
		return err
	}
	if p.IfTail, p.IfLife, err = conditions(r.Header); err != nil {
		return err
	}
	if p.Key, err = idempotencyKey(r.Header); err != nil {
		return err
	}
	p.key = p.Key
	limit := h.MaxEvent
	if p.lines {
		limit = streamlib.MaxBatch
		p.events = countLines
	}
	if p.body, err = p.read(w, r, limit); err != nil {
		return err
	}
	switch {
	case p.Close && len(compact.Space(p.body)) == 0:
	case p.lines:
		p.Data, err = lineValues(p.body, h.MaxEvent)
	default:
		p.Data = make([]json.RawMessage, 1)
		p.Data[0], err = bodyValue(p.body, h.MaxEvent)
	}
	return err
}

// blamed returns err, with which an append failed, or what is wrong with what was not looked into before.
func (h *handler) blamed(p *posting, err error) error {
	switch {
	case !errors.Is(err, streamlib.ErrInvalid) && !errors.Is(err, streamlib.ErrTooLarge):
		return err
	case p.lines && len(p.Data) > 0:
		return cmp.Or(badLine(p.body, h.MaxEvent), err)
	}
	return cmp.Or(badBody(p.body, h.MaxEvent), err)
}

// appended answers.
func (h *handler) appended(w http.ResponseWriter, r *http.Request, p *posting, receipt *streamlib.Receipt) {
	if receipt.Repeated {
		h.counted.repeated.Add(1)
	} else {
		h.counted.appends.Add(1)
		h.counted.events.Add(len(receipt.Events))
	}
	state := streamlib.State{Life: receipt.Life, Closed: receipt.Closed}
	setTail(w.Header(), streamlib.Info{Tail: receipt.Tail, State: state})
	if receipt.Closed {
		setClosed(w.Header())
	}
	code := http.StatusCreated
	switch {
	case len(p.Data) == 0:
		w.WriteHeader(http.StatusNoContent)
		return
	case receipt.Repeated:
		code = http.StatusOK
	}
	if p.lines {
		a := newAnswer(w, r, code, accepts(r, lineType[0]))
		defer a.release()
		for _, e := range receipt.Events {
			if a.add(e) != nil {
				break // the client has gone
			}
		}
		_ = a.end()
		return
	}
	answer := append(receipt.Events[0].AppendJSON(make([]byte, 0, len(p.Data[0])+len(p.name)+128)), '\n')
	w.Header()["Content-Type"] = jsonType
	w.Header()["Content-Length"] = []string{strconv.Itoa(len(answer))}
	w.WriteHeader(code)
	_, _ = w.Write(answer) // the client may have gone
}

// isLines tells whether the body is NDJSON; what is neither that nor JSON is refused.
func isLines(h http.Header) (bool, error) {
	if encoding := h.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return false, &Error{http.StatusUnsupportedMediaType, fmt.Sprintf("content encoding %q is not read here", encoding)}
	}
	given := h.Get("Content-Type")
	if given == "" || given == "application/json" {
		return false, nil
	}
	name, _, err := mime.ParseMediaType(given)
	switch {
	case err != nil:
	case name == lineType[0]:
		return true, nil
	case name == "application/json", name == "text/json", strings.HasPrefix(name, "application/") &&
		strings.HasSuffix(name, "+json"),
		name == "application/x-www-form-urlencoded", name == "text/plain": // what curl -d and fetch say of anything
		return false, nil
	}
	return false, &Error{http.StatusUnsupportedMediaType,
		fmt.Sprintf("content type %q is not read here; send application/json or application/x-ndjson", given)}
}
