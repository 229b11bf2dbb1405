package streamhttp

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// room is what a body may have beside its data: the envelope and white space.
const room = 64 << 10

// append appends the event of a JSON body, or the events of an NDJSON one.
func (h *handler) append(w http.ResponseWriter, r *http.Request, name string) error {
	if _, err := parameters(r); err != nil {
		return err
	}
	lines, err := isLines(r.Header)
	if err != nil {
		return err
	}
	batch := streamlib.Batch{}
	if batch.IfTail, err = ifTail(r.Header); err != nil {
		return err
	}
	if batch.Key, err = idempotencyKey(r.Header); err != nil {
		return err
	}
	limit := h.MaxEvent
	if lines {
		limit = streamlib.MaxBatch
	}
	body, err := readBody(w, r, limit)
	if err != nil {
		return err
	}
	blame := badBody // says what is wrong with what was not looked into
	if lines {
		batch.Data, err = lineValues(body, h.MaxEvent)
		blame = badLine
	} else {
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
	code := http.StatusCreated
	if receipt.Repeated {
		code = http.StatusOK
	}
	last := receipt.Events[len(receipt.Events)-1]
	setTail(w.Header(), (last.Offset + 1).String())
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
	answer := append(last.AppendJSON(make([]byte, 0, len(batch.Data[0])+len(name)+128)), '\n')
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

// readBody returns the body, of limit bytes of data and some room. It holds little more of a body than has arrived.
func readBody(w http.ResponseWriter, r *http.Request, limit int) ([]byte, error) {
	tooLarge := func() error {
		return fmt.Errorf("%w body: the limit is %d bytes of data", streamlib.ErrTooLarge, limit)
	}
	if r.ContentLength > int64(limit+room) {
		return nil, tooLarge()
	}
	delete(r.Header, "Expect") // the first read says go on: see takeRest
	reader := http.MaxBytesReader(w, r.Body, int64(limit+room))
	size := r.ContentLength + 1 // for the end to be seen
	if size == 0 {
		size = 4 << 10 // it is not known
	}
	body := make([]byte, 0, min(size, 64<<10)) // of what is announced nothing may come
	for {
		n, err := reader.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case err == io.EOF:
			_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // see serve
			return body, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, &Error{http.StatusRequestTimeout, fmt.Sprintf("the body did not arrive in %v", bodyTime)}
		case err != nil:
			if _, over := errors.AsType[*http.MaxBytesError](err); over {
				return nil, tooLarge()
			}
			return nil, fmt.Errorf("%w body: %w", streamlib.ErrInvalid, err)
		}
		if len(body) == cap(body) {
			body = slices.Grow(body, len(body))
		}
	}
}
