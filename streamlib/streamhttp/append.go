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

// append appends the event of a JSON body, or the events of an NDJSON one, and closes the stream where that is asked
// for, behind them or without any.
func (h *handler) append(w http.ResponseWriter, r *http.Request, name string) error {
	if _, err := parameters(r); err != nil {
		return err
	}
	lines, err := isLines(r.Header)
	if err != nil {
		return err
	}
	batch := streamlib.Batch{}
	if batch.Close, err = closes(r.Header); err != nil {
		return err
	}
	if batch.IfTail, batch.IfLife, err = conditions(r.Header); err != nil {
		return err
	}
	if batch.Key, err = idempotencyKey(r.Header); err != nil {
		return err
	}
	limit := h.MaxEvent
	if lines {
		limit = streamlib.MaxBatch
	}
	in := intake{streams: h.streams, hold: h.streams.Budget().Requests.Hold(), name: name, key: batch.Key}
	if lines {
		in.events = countLines
	}
	defer in.hold.Release() // behind the answer
	body, err := in.read(w, r, limit)
	if err != nil {
		return err
	}
	blame := badBody // says what is wrong with what was not looked into
	switch {
	case batch.Close && len(compact.Space(body)) == 0:
	case lines:
		batch.Data, err = lineValues(body, h.MaxEvent)
		blame = badLine
	default:
		batch.Data = make([]json.RawMessage, 1)
		batch.Data[0], err = bodyValue(body, h.MaxEvent)
	}
	if err != nil {
		return err
	}
	receipt, err := h.streams.Stream(name).Append(r.Context(), batch)
	if errors.Is(err, streamlib.ErrInvalid) || errors.Is(err, streamlib.ErrTooLarge) {
		return cmp.Or(blame(body, h.MaxEvent), err)
	}
	if err != nil {
		return err
	}
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
	case len(batch.Data) == 0:
		w.WriteHeader(http.StatusNoContent)
		return nil
	case receipt.Repeated:
		code = http.StatusOK
	}
	if lines {
		a := newAnswer(w, r, code, accepts(r, lineType[0]))
		defer a.release()
		for _, e := range receipt.Events {
			if a.add(e) != nil {
				break // the client has gone
			}
		}
		_ = a.end()
		return nil
	}
	answer := append(receipt.Events[0].AppendJSON(make([]byte, 0, len(batch.Data[0])+len(name)+128)), '\n')
	w.Header()["Content-Type"] = jsonType
	w.Header()["Content-Length"] = []string{strconv.Itoa(len(answer))}
	w.WriteHeader(code)
	_, _ = w.Write(answer) // the client may have gone
	return nil
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
