package streamhttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"

	"github.com/iterate/durable-streams/streamlib"
)

// An Error is an answer of a server that is not a success. It unwraps to the streamlib error that its status stands
// for, where there is one. After Status 500 the outcome of an append is open; every other answer has stored nothing.
type Error struct {
	Status  int
	Message string
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error {
	for _, s := range statuses {
		if s.status == e.Status {
			return s.err
		}
	}
	return nil
}

// damagedError is an answer that told of damage.
type damagedError struct {
	answer *Error
	damage *streamlib.CorruptError
}

func (e damagedError) Error() string   { return e.answer.Message }
func (e damagedError) Unwrap() []error { return []error{e.answer, e.damage} }

// statuses are the errors that a status alone tells. *HookError is 400, *ClosedError 409, *ConflictError 412 and
// *GoneError 410 with members of their own; all others are 500.
var statuses = []struct {
	err    error
	status int
}{
	{streamlib.ErrInvalid, http.StatusBadRequest},
	{streamlib.ErrTooLarge, http.StatusRequestEntityTooLarge},
	{streamlib.ErrKeyReused, http.StatusUnprocessableEntity},
	{streamlib.ErrFull, http.StatusInsufficientStorage},
	{streamlib.ErrUnavailable, http.StatusServiceUnavailable},
	{streamlib.ErrDeleted, http.StatusGone},
	{streamlib.ErrHeld, http.StatusConflict},
}

// problem is the body of an answer that is an Error.
type problem struct {
	Error  string `json:"error,omitempty"`
	HookID string `json:"hookId,omitempty"`
	Tail   string `json:"tail,omitempty"`
	First  string `json:"first,omitempty"` // of the events that are kept, where some are not

	Deleted bool `json:"deleted,omitempty"` // what the condition was said of

	Damage *damage `json:"damage,omitempty"`
}

// damage is a *CorruptError.
type damage struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	Reason string `json:"reason"`
}

// problemOf is what is told of damage.
func problemOf(c *streamlib.CorruptError) problem {
	return problem{Error: c.Error(), Damage: &damage{c.File, c.Offset, c.Reason}}
}

func (p problem) corrupt() *streamlib.CorruptError {
	if p.Damage == nil {
		return nil
	}
	return &streamlib.CorruptError{File: oneLine(p.Damage.File), Offset: p.Damage.Offset, Reason: oneLine(p.Damage.Reason)}
}

// problemHeader has the problem where there is no body for it, and where it is none of the request's.
const problemHeader = "Stream-Error"

func setProblem(h http.Header, p problem) {
	b, err := json.Marshal(p)
	if err == nil {
		h.Set(problemHeader, string(b))
	}
}

const bareText = "internal error, its cause is in the server's log"

// status returns what err is answered with.
func status(err error) (int, problem) {
	if e, ok := errors.AsType[*Error](err); ok && e.Status != 0 {
		return e.Status, problem{Error: e.Message}
	}
	if e, ok := errors.AsType[*streamlib.HookError](err); ok {
		return http.StatusBadRequest, problem{Error: e.Message, HookID: e.HookID}
	}
	if e, ok := errors.AsType[*streamlib.ClosedError](err); ok {
		return http.StatusConflict, problem{Error: e.Error(), Tail: e.Tail.String()}
	}
	if e, ok := errors.AsType[*streamlib.ConflictError](err); ok {
		return http.StatusPreconditionFailed, problem{Error: e.Error(), Tail: e.Tail.String(), Deleted: e.Life}
	}
	if e, ok := errors.AsType[*streamlib.GoneError](err); ok {
		return http.StatusGone, problem{Error: e.Error(), Tail: e.Tail.String(), First: firstText(e.First)}
	}
	p, code := problem{Error: err.Error()}, http.StatusInternalServerError
	if c, ok := errors.AsType[*streamlib.CorruptError](err); ok {
		p.Damage = problemOf(c).Damage
	}
	for _, s := range statuses {
		if errors.Is(err, s.err) {
			return s.status, p
		}
	}
	if p.Damage != nil {
		return code, p
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return http.StatusServiceUnavailable, problem{Error: "the server is shutting down"} // or nobody reads this
	}
	return code, problem{Error: bareText}
}

// refusal is status backwards: the error that an answer stands for. The ConflictError and the GoneError know of their
// request only what the answer says.
func refusal(resp *http.Response, stream string) error {
	var p problem
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if len(body) == 0 {
		body = []byte(resp.Header.Get(problemHeader))
	}
	if json.Unmarshal(body, &p) != nil || p.Error == "" { // a page, of a proxy or of a server that is none of ours
		p = problem{Error: fmt.Sprintf("%d %s: %s", resp.StatusCode, http.StatusText(resp.StatusCode), errNotOurs.Message)}
	}
	if to, err := resp.Location(); err == nil && resp.StatusCode/100 == 3 {
		p = problem{Error: fmt.Sprintf("the server redirects to %s, and only a redirect that keeps the method and "+
			"the origin is followed; "+
			"if that is the server that is meant, give its URL", to.Redacted())}
	}
	p.Error = oneLine(p.Error)
	tail, err := streamlib.ParseOffset(p.Tail)
	switch {
	case resp.StatusCode == http.StatusBadRequest && p.HookID != "":
		return &streamlib.HookError{HookID: p.HookID, Message: p.Error}
	case resp.StatusCode == http.StatusConflict && err == nil && isClosed(resp.Header):
		return &streamlib.ClosedError{Stream: stream, Tail: tail}
	case resp.StatusCode == http.StatusPreconditionFailed && err == nil:
		return &streamlib.ConflictError{Stream: stream, Tail: tail, Want: tail, Life: p.Deleted}
	case resp.StatusCode == http.StatusGone && err == nil:
		first, _ := streamlib.ParseOffset(p.First)
		return &streamlib.GoneError{Stream: stream, Tail: tail, First: first}
	}
	refused := &Error{resp.StatusCode, p.Error}
	if c := p.corrupt(); c != nil {
		return damagedError{refused, c}
	}
	return refused
}

// oneLine is a server's text in a form that does a terminal and a log no harm.
func oneLine(text string) string {
	const most = 2000
	text = strings.ToValidUTF8(text[:min(len(text), most)], "")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

// passing tells whether a repeated request may fare better: the connection was lost, or the server has troubles of
// its own.
func passing(err error) bool {
	if e, ok := errors.AsType[*Error](err); ok && e.Status == 0 {
		return false
	}
	if _, damaged := errors.AsType[*streamlib.CorruptError](err); damaged {
		return false
	}
	code, _ := status(err)
	return code >= 500 && code != http.StatusInsufficientStorage
}

// busy tells whether a proxy asked to come again later.
func busy(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Status == http.StatusRequestTimeout || e.Status == http.StatusTooManyRequests)
}

// told is err with what was being done, unless the server has said all.
func told(err error, doing, stream string) error {
	switch e := err.(type) {
	case nil, damagedError, *streamlib.HookError, *streamlib.ClosedError, *streamlib.ConflictError, *streamlib.GoneError:
		return err
	case *Error:
		if e.Status != 0 {
			return err
		}
	}
	if stream == "" {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s %q: %w", doing, stream, err)
}

var (
	errNotOurs = &Error{Message: "the answer is not that of a durable-streams server"}
	errGap     = &Error{Message: "the server left out or repeated events"}
	errNoEnd   = &Error{Message: "the server did what was asked but for closing the stream, which it does not know yet"}
)
