package streamlib

import (
	"context"
	"encoding/json"
	"iter"
	"log/slog"
	"time"
)

// A Stream is one named, ordered, durable event log: Layer 1, what wraps it, and the client of a server alike.
//
// All methods may be called at once from many goroutines. A context ends a wait; it does not take back an append that
// has joined a commit.
type Stream interface {
	// Name returns the stream's name.
	Name() string

	// Append adds the batch's events in order at the tail, contiguously, all or none, and returns them once they are
	// durable. Of two appends, one sent after the other was acknowledged stands behind it. Errors: ErrInvalid,
	// ErrTooLarge, *HookError, *ConflictError, ErrKeyReused, ErrFull, ErrUnavailable have stored nothing; after any
	// other the outcome is open, and repeating the call with a key is safe.
	Append(ctx context.Context, b Batch) (Receipt, error)

	// Read yields the events with offsets in [from, to) up to the tail as it is when the iteration begins, in batches,
	// and ends. From is clamped to the stream's beginning, and Now is the tail. A name that was never appended to yields
	// nothing. Errors end the iteration: *CorruptError behind what still reads, ErrDeleted, the context's.
	Read(ctx context.Context, from, to Offset) iter.Seq2[[]Event, error]

	// Subscribe yields the events from from on, first what exists, then what is appended, in order with no gap and no
	// repeat, those that are ready together in one batch. It ends with an error: the context's when that is done,
	// ErrDeleted when the stream is. From a position beyond the tail it waits for that position. Subscribing makes
	// nothing.
	Subscribe(ctx context.Context, from Offset) iter.Seq2[[]Event, error]

	// Stat returns the tail and what else is known of the stream.
	Stat(ctx context.Context) (Info, error)

	// Delete removes the stream with its events and ends its subscriptions. It is no error where there is none.
	Delete(ctx context.Context) error
}

// A Batch is what one append adds.
type Batch struct {
	// Data are the events' values, one JSON value each: valid JSON (RFC 8259) in UTF-8, nested at most 1000 deep. They
	// are kept as they are less insignificant white space. The caller may change them once Append returned.
	Data []json.RawMessage

	// Key makes the append idempotent, "" is none: 1 to 255 bytes of UTF-8 without control characters. An append with a
	// key that one of the stream's last 10,000 events (or 64 MiB of them) was appended with adds nothing and returns
	// what was appended then, whatever IfTail says and without a hook being run; with other data it is ErrKeyReused.
	Key string

	// IfTail, where not nil, appends only if it is the tail, else the error is *ConflictError.
	IfTail *Offset

	// Admit, where not nil, is called once it is known that the batch is no repeat, before it joins a commit; its error
	// refuses the batch. WithHooks runs the before hooks here.
	Admit func(ctx context.Context) error
}

// JSON returns the values of a Batch, each a JSON text.
func JSON(values ...string) []json.RawMessage {
	data := make([]json.RawMessage, len(values))
	for i, v := range values {
		data[i] = json.RawMessage(v)
	}
	return data
}

// A Receipt is the answer to an append.
type Receipt struct {
	Events   []Event
	Repeated bool // the events were appended by an earlier call with the same key
}

// Options are what streams need to know; the zero value is ready to use.
type Options struct {
	MaxEvent int              // limit for one event's data in bytes; 0 is MaxEvent, at most MaxBatch
	Now      func() time.Time // the clock; nil is time.Now. Past the year 9999 appends are ErrUnavailable
	Log      *slog.Logger     // nil discards

	shared *shared // the manager's; nil where there is none
}

func (o Options) withDefaults() Options {
	if o.MaxEvent == 0 {
		o.MaxEvent = MaxEvent
	}
	o.MaxEvent = min(o.MaxEvent, MaxBatch)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.shared == nil {
		o.shared = &shared{keys: newWindows()}
	}
	return o
}
