package streamlib

import (
	"context"
	"encoding/json"
	"iter"
	"log/slog"
	"time"

	"github.com/iterate/durable-streams/streamlib/budget"
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
	// ErrTooLarge, *HookError, *ConflictError, *ClosedError, ErrKeyReused, ErrFull, ErrUnavailable have stored nothing;
	// after any other the outcome is open, and repeating the call with a key is safe.
	Append(ctx context.Context, b Batch) (Receipt, error)

	// Read yields the events with offsets in [from, to) up to the tail as it is when the iteration begins, in batches,
	// and ends. Beginning is the first event that is kept, and Now is the tail. A name that was never appended to yields
	// nothing. Errors end the iteration: *CorruptError behind what still reads, *GoneError where from was dropped,
	// ErrDeleted, the context's.
	Read(ctx context.Context, from, to Offset) iter.Seq2[[]Event, error]

	// Subscribe yields the events from from on, first what exists, then what is appended, in order with no gap and no
	// repeat, those that are ready together in one batch. Behind the last event of a stream that is closed it ends
	// without an error. Else it ends with one: the context's when that is done, ErrDeleted when the stream is deleted,
	// *GoneError where it is and what comes next was dropped. From a position beyond the tail it waits for that
	// position, or the end. Subscribing makes nothing.
	Subscribe(ctx context.Context, from Offset) iter.Seq2[[]Event, error]

	// Stat returns the tail and what else is known of the stream.
	Stat(ctx context.Context) (Info, error)

	// Trim drops the events before an offset, durably: the tail stays, and no offset is given again. Now is the tail, and
	// what is beyond it, too; what was dropped before stays so.
	Trim(ctx context.Context, before Offset) error

	// TrimIf is Trim in the given life of the stream (see State), else the error is *ConflictError and nothing is dropped.
	TrimIf(ctx context.Context, before Offset, life int64) error

	// Delete removes the stream with its events and ends its subscriptions. It is no error where there is none.
	Delete(ctx context.Context) error

	// DeleteIf is Delete where the stream has that tail and that life, else the error is *ConflictError and nothing is
	// deleted: an append that came after who decides on it has looked is not lost.
	DeleteIf(ctx context.Context, tail Offset, life int64) error
}

// A Batch is what one append adds.
type Batch struct {
	// Data are the events' values, one JSON value each: valid JSON (RFC 8259) in UTF-8, nested at most 1000 deep. They
	// are kept as they are less insignificant white space. The caller may change them once Append returned.
	Data []json.RawMessage

	// Key makes the append idempotent, "" is none: 1 to 255 bytes of UTF-8 without control characters. An append with a
	// key that one of the stream's last 10,000 events (or 64 MiB of them) was appended with adds nothing and returns
	// what was appended then, whatever IfTail says and without a hook being run; with other data it is ErrKeyReused. Of
	// events that were dropped since, the keys of the last 300 appends or more are remembered: as many as 48 KiB hold.
	Key string

	// IfTail, where not nil, appends only if it is the tail, else the error is *ConflictError.
	IfTail *Offset

	// IfLife, where not nil, appends only in that life of the stream (see State), else the error is *ConflictError.
	IfLife *int64

	// Close ends the stream behind the data, of which there may be none, in one with it: every later append of events is
	// *ClosedError. To close again changes nothing.
	Close bool

	// Admit, where not nil, is called once it is known that the batch is no repeat, before it joins a commit; its error
	// refuses the batch. WithHooks runs the before hooks here.
	Admit func(ctx context.Context) error

	// Decide, where not nil, is called inside the commit, where IfTail is decided and before it, with the tail that the
	// batch would have before it and the state that goes with that: others share the commit, and what they append is
	// counted. Its error refuses the batch, and nothing of it is stored. What it makes of state's Note and Held is durable
	// in one with the data, of which there may be none; where there is no such stream, it may say with First where the
	// stream begins. It is called from any goroutine, and must neither wait nor use the stream.
	Decide func(tail Offset, state *State) error

	told func(events []Event) // called behind the commit, in the stream's order, unless it is nil; it must not wait
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
	Repeated bool   // the events were appended by an earlier call with the same key
	Tail     Offset // behind them; the stream's where there are none
	Life     int64  // of the stream: see State
	Closed   bool   // the stream ends behind them
}

// Options are what streams need to know; the zero value is ready to use.
type Options struct {
	MaxEvent int              // limit for one event's data in bytes; 0 is MaxEvent, at most MaxBatch
	Now      func() time.Time // the clock; nil is time.Now. Past the year 9999 appends are ErrUnavailable
	Log      *slog.Logger     // nil discards
	Budget   *budget.Budget   // of the memory that a manager's streams and their readers hold; nil is one of the default

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
	if o.Budget == nil {
		o.Budget = budget.New(0)
	}
	if o.shared == nil {
		o.shared = &shared{keys: newWindows(o.Budget), feed: feed{most: o.Budget.Behind()}}
	}
	return o
}
