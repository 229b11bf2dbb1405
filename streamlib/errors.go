package streamlib

import (
	"cmp"
	"errors"
	"fmt"
)

// What callers tell apart. Errors wrap these; test them with errors.Is and errors.AsType.
//
// An append that fails with any of them has stored nothing. The outcome of an append that fails with another error is
// open: repeat it with a key.
var (
	ErrInvalid     = errors.New("invalid")                      // the caller's argument: name, offset, JSON
	ErrTooLarge    = errors.New("too large")                    // an event or a batch over its limit
	ErrKeyReused   = errors.New("key was used with other data") // an idempotency key
	ErrFull        = errors.New("storage is full")              // no space; appends work again when there is some
	ErrUnavailable = errors.New("cannot be done now")           // the stream or its storage; reading may work
	ErrDeleted     = errors.New("stream was deleted")           // under a reader
	ErrHeld        = errors.New("others need the stream")       // a deletion of what is State.Held
)

var errNoEvent = errors.New("not an event's encoded form")

// A ConflictError says that a condition on the tail did not hold, and what the tail is.
type ConflictError struct {
	Stream string
	Tail   Offset
	Want   Offset
	Life   bool   // the condition named another life of the stream
	Op     string // what was not done; "" is append
}

func (e *ConflictError) Error() string {
	op := cmp.Or(e.Op, "append")
	if e.Life {
		return fmt.Sprintf("%s %q: the stream was deleted since, and begun again; tail is %d", op, e.Stream, e.Tail)
	}
	return fmt.Sprintf("%s %q: tail is %d, not %d", op, e.Stream, e.Tail, e.Want)
}

// A ClosedError says that an append came behind the end: the stream was closed, and its tail stays what it is.
type ClosedError struct {
	Stream string
	Tail   Offset
}

func (e *ClosedError) Error() string {
	return fmt.Sprintf("append %q: the stream was closed at %d", e.Stream, e.Tail)
}

// A GoneError says that a reader cannot go on behind the event that it names: the events before First were dropped, or,
// where First is not beyond what comes next, the stream was deleted and made again, and has not that event.
type GoneError struct {
	Stream string
	After  Offset
	Tail   Offset
	First  Offset // the first event that is kept
}

func (e *GoneError) Error() string {
	if e.First > e.After+1 {
		return fmt.Sprintf("read %q from %d: the events before %d were dropped", e.Stream, e.After+1, e.First)
	}
	return fmt.Sprintf("resume %q after %d: tail is %d, the stream was deleted since", e.Stream, e.After, e.Tail)
}

// A CorruptError says that a stream's stored form is damaged. What stands before Offset still reads.
type CorruptError struct {
	File   string
	Offset int64 // in bytes
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s is corrupt at byte %d: %s", e.File, e.Offset, e.Reason)
}

// A HookError is the veto of a before hook.
type HookError struct {
	HookID  string
	Message string
}

func (e *HookError) Error() string { return fmt.Sprintf("hook %s: %s", e.HookID, e.Message) }
