package streamlib

import (
	"context"
	"iter"
	"time"
)

// Storage keeps ordered records under names: Layer 0. It knows bytes and offsets; hooks, keys and conditions are not
// its.
//
// All methods may be called at once from many goroutines. What CheckName refuses is ErrInvalid and changes nothing.
// A name that was never appended to, or was deleted, is an empty stream: reading it creates nothing and is no
// error.
type Storage interface {
	// Commit makes the change, all of it or nothing. When it returns nil the change is durable: it survives a crash of
	// the process, of the machine, and the loss of power. Where the first event's offset is not the tail, the error is
	// *ConflictError. Other errors that promise that nothing was changed wrap ErrFull, ErrUnavailable, ErrTooLarge or
	// ErrInvalid, or are the context's, which is looked at before the change joins a commit and not after; the outcome
	// of the rest is open. It keeps no reference to events' memory unless it is the memory storage.
	Commit(ctx context.Context, name string, c Change) error

	// Read yields the durable events with offsets in [from, to), as far as there are any, in batches as they come off
	// the disk. It ends without an error at the tail, and with *CorruptError where the stored form is damaged. A
	// context that is done ends it with its cause. The caller may keep what is yielded.
	Read(ctx context.Context, name string, from, to Offset) iter.Seq2[[]Event, error]

	// Stat returns what is known of the stream without reading through it; *CorruptError where damage hides the tail.
	Stat(ctx context.Context, name string) (Info, error)

	// List returns in byte order the names of up to limit streams (all where it is 0 or less) that begin with
	// prefix and are behind after.
	List(ctx context.Context, prefix, after string, limit int) ([]string, error)

	// Damaged returns the streams that are known to be damaged, sorted by name, with no more than Name and Damage. It
	// does not look for any.
	Damaged() []Info

	// Close ends the use of the storage. Commits after it fail with ErrUnavailable.
	Close() error
}

// A Change is what one commit does to a stream: it appends, or it deletes. One that does neither changes nothing, and
// one that does both is ErrInvalid.
type Change struct {
	Events []Event // to append; the offset of the first must be the tail
	Delete bool    // the stream with its events; the next events start again at offset 0
}

// Info describes a stream.
type Info struct {
	Name      string
	Tail      Offset    // the offset that the next event will get; 0 for a stream that does not exist
	Size      int64     // of its stored form in bytes
	CreatedAt time.Time // of its first event
	UpdatedAt time.Time // of its last event

	// Damage is what is known to be damaged, nil where nothing is. A stream that has any takes no appends until it was
	// repaired.
	Damage *CorruptError
}
