package streamlib

import (
	"iter"
	"time"
)

// Storage keeps ordered records under names: Layer 0. It knows bytes and offsets; hooks, keys and conditions are not its.
//
// All methods may be called at once from many goroutines. What CheckName refuses is ErrInvalid and changes nothing.
// A name that was never appended to, or was deleted, is an empty stream: reading it creates nothing and is no
// error.
type Storage interface {
	// Append adds events to the stream, all or none. When it returns nil they are durable: they survive a crash of the
	// process, of the machine, and the loss of power. The first event's offset must be the tail, else the error is
	// *ConflictError. Other errors that promise that nothing was stored wrap ErrFull, ErrUnavailable or ErrTooLarge; the outcome
	// of the rest is open. It keeps no reference to events' memory unless it is the memory storage.
	Append(name string, events []Event) error

	// Read yields the durable events with offsets in [from, to), as far as there are any, in batches as they come off
	// the disk. It ends without an error at the tail, and with *CorruptError where the stored form is damaged. The caller
	// may keep what is yielded.
	Read(name string, from, to Offset) iter.Seq2[[]Event, error]

	// Stat returns what is known of the stream without reading through it; *CorruptError where damage hides the tail.
	Stat(name string) (Info, error)

	// List returns in byte order the names of up to limit streams (all where it is 0 or less) that begin with
	// prefix and are behind after.
	List(prefix, after string, limit int) ([]string, error)

	// Damaged returns the streams that are known to be damaged, sorted by name, with no more than Name and Damage. It does not look for any.
	Damaged() []Info

	// Delete removes the stream, durably when it returns nil. The next Append starts again at offset 0.
	Delete(name string) error

	// Close ends the use of the storage. Appends after it fail with ErrUnavailable.
	Close() error
}

// Info describes a stream.
type Info struct {
	Name      string
	Tail      Offset    // the offset that the next event will get; 0 for a stream that does not exist
	Size      int64     // of its stored form in bytes
	CreatedAt time.Time // of its first event
	UpdatedAt time.Time // of its last event

	// Damage is what is known to be damaged, nil where nothing is. A stream that has any takes no appends until it was repaired.
	Damage *CorruptError
}
