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
	//
	// A deletion of a stream that there is makes Info.Life of its name more, durably: above each life that a stream of
	// that name has had, also by a change's State.
	Commit(ctx context.Context, name string, c Change) error

	// Read yields the durable events with offsets in [from, to), as far as there are any, in batches as they come off
	// the disk. It ends without an error at the tail, and with *CorruptError where the stored form is damaged. Below
	// the first event that is kept, but for Beginning, it is *GoneError. A context that is done ends it with its cause.
	// The caller may keep what is yielded.
	Read(ctx context.Context, name string, from, to Offset) iter.Seq2[[]Event, error]

	// Stat returns what is known of the stream without reading through it; *CorruptError where damage hides the tail.
	Stat(ctx context.Context, name string) (Info, error)

	// Last returns the lowest offset from which on the events take at most size bytes of the stored form, as Info.Size
	// counts them: the tail where the last event takes more.
	Last(ctx context.Context, name string, size int64) (Offset, error)

	// List returns in byte order the names of up to limit streams (all where it is 0 or less) that begin with
	// prefix and are behind after.
	List(ctx context.Context, prefix, after string, limit int) ([]string, error)

	// Damaged returns the streams that are known to be damaged, sorted by name, with no more than Name and Damage. It
	// does not look for any.
	Damaged() []Info

	// Close ends the use of the storage. Commits after it fail with ErrUnavailable.
	Close() error
}

// A Change is what one commit does to a stream: it appends events, sets the state, or both at once, or it deletes. One
// that does nothing changes nothing, and one that deletes and does something else is ErrInvalid.
type Change struct {
	Events []Event // to append; the offset of the first must be the tail
	State  *State  // the stream's from now on, nil leaves it as it is; makes the stream where there is none
	Delete bool    // the stream with its events and state; the next events start again at offset 0

	// If is what the change was decided on: a Shared storage makes it only where the stream still has that tail, life,
	// first event, end, note and hold, else the error is *ConflictError. Others need not look at it; nil is no condition.
	If *Info
}

// Shared is a Storage that has other writers, in other processes or in this one. Each of its methods tells what all of
// them have committed by the time of the call; a stream's manager asks it before each read.
type Shared interface {
	Storage

	// ReadLife is Read of the stream with the given life. Where that is over it ends with ErrDeleted, and yields nothing
	// of what came after it.
	ReadLife(ctx context.Context, name string, life int64, from, to Offset) iter.Seq2[[]Event, error]

	// Changed returns nil once a writer other than this Storage may have changed the stream since the last call of Stat
	// or Commit, or ends with the context's cause. It outlasts a storage that does not answer.
	Changed(ctx context.Context, name string) error
}

// State is what a stream has beside its events, the zero value being that of nearly all. A Storage keeps it and knows
// First alone.
type State struct {
	// Life tells the streams apart that had one name after each other: the number of deletions that the storage had
	// seen when the first event was appended.
	Life int64

	// First is the offset of the first event that is kept. It never goes back, and those before it are dropped. A
	// stream that the change makes may begin there.
	First Offset

	// Closed says that there will be no more events. The storage does not look at it.
	Closed bool

	// Keys are the appends with a key that are remembered though their events were dropped, at most 48 KiB of JSON. The
	// storage does not look at them.
	Keys string

	// Note is what those who append keep of the stream beside its events (see Batch.Decide): JSON, at most MaxNote bytes.
	// A stream that has one is there, also without events. The storage does not look at it.
	Note string

	// Held says that others need the stream's events: a Trim drops none, and a deletion is ErrHeld. The storage does not
	// look at it.
	Held bool

	// UpdatedAt is when the last event was created, for a stream of which none is kept, or when one that had none was
	// closed or noted.
	UpdatedAt time.Time
}

// MaxNote is the limit for a State's Note in bytes.
const MaxNote = 48 << 10

// Info describes a stream.
type Info struct {
	Name string
	State
	Tail      Offset    // the offset that the next event will get; 0 for a stream that does not exist
	Size      int64     // of the stored form, of the events that are kept, in bytes
	CreatedAt time.Time // of its first event that is kept

	// Damage is what is known to be damaged, nil where nothing is. A stream that has any takes no appends until it was
	// repaired.
	Damage *CorruptError
}

// Exists tells whether there is such a stream: what was never appended to, closed or noted is none.
func (i Info) Exists() bool { return i.State.exists(i.Tail) }

func (s State) exists(tail Offset) bool { return tail > 0 || s.Closed || s.Note != "" }
