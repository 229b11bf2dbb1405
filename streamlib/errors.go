package streamlib

import (
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
)

var errNoEvent = errors.New("not an event's encoded form")

// A ConflictError says that a condition on the tail did not hold, and what the tail is.
type ConflictError struct {
	Stream string
	Tail   Offset
	Want   Offset
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("append %q: tail is %d, not %d", e.Stream, e.Tail, e.Want)
}

// A GoneError says that a reader cannot resume after the event it names: the stream does not have that event, since it
// was deleted and made again.
type GoneError struct {
	Stream string
	After  Offset
	Tail   Offset
}

func (e *GoneError) Error() string {
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
