package streamlib

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/iterate/durable-streams/streamlib/internal/commit"
	"github.com/iterate/durable-streams/streamlib/internal/compact"
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
	// and ends. From is clamped to the stream's beginning, and Now is the tail. A name that was never appended to yields nothing.
	// Errors end the iteration: *CorruptError behind what still reads, ErrDeleted, the context's.
	Read(ctx context.Context, from, to Offset) iter.Seq2[[]Event, error]

	// Subscribe yields the events from from on, first what exists, then what is appended, in order with no gap and no
	// repeat, those that are ready together in one batch. It ends with an error: the context's when that is done,
	// ErrDeleted when the stream is. From a position beyond the tail it waits for that position. Subscribing makes nothing.
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

	// Key makes the append idempotent, "" is none: 1 to 255 bytes of UTF-8 without control characters. An append with a key
	// that one of the stream's last 10,000 events (or 64 MiB of them) was appended with adds nothing and returns what was
	// appended then, whatever IfTail says and without a hook being run; with other data it is ErrKeyReused.
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

// shared is what the streams of one manager have in common.
type shared struct {
	feed   feed
	keys   *windows
	making sync.Map // names of streams whose first append is under way: the storage may list what nobody can read yet
	doubts sync.Map // tails, by name, that the storage may not have: a manager may drop such a stream
}

const (
	// maxRecords bounds the records of one batch in bytes, for many small values grow on their way to the disk.
	maxRecords = 64 << 20
	// keepRecent is how many bytes of the last commits a followed stream keeps for its followers.
	keepRecent = 16 << 10
	// keepCommit is how large a commit may be for being kept whatever keepRecent says.
	keepCommit = 256 << 10
)

// core is the stream without hooks.
type core struct {
	name    string
	quoted  []byte
	storage Storage
	options Options
	shared  *shared
	commits commit.Group[*appending]

	mu        sync.Mutex    // guards what follows; held for reading and publishing, never while a commit is on the disk
	loaded    bool          // tail and last are what the storage has
	ended     bool          // not loaded after a deletion whose outcome is open
	tail      Offset        // behind what was published; unknown before it was loaded
	last      time.Time     // when the last event was created
	life      int           // counts deletions
	deleting  chan struct{} // closed when the deletion that is under way is over; nil where there is none
	changed   chan struct{} // closed when tail or life changes; nil while nobody waits
	followers int
	recent    []Event // the last commits' events while there are followers
	size      int     // of recent, in bytes
	claimed   map[string]chan struct{}
}

const unknown Offset = -1

// appending is one caller's part of a commit.
type appending struct {
	data   []json.RawMessage
	size   int
	key    string
	ifTail *Offset
	delete bool // the stream instead
	events []Event
	err    error
}

// newCore returns the stream called name in storage. There must be one at a time.
func newCore(name string, storage Storage, o Options) *core {
	o = o.withDefaults()
	s := &core{name: name, quoted: appendQuoted(nil, name), storage: storage, options: o, shared: o.shared, tail: unknown}
	if tail, ok := o.shared.doubts.Load(name); ok {
		s.tail = tail.(Offset)
	}
	s.commits = commit.Group[*appending]{Commit: s.commit, Size: func(a *appending) int { return a.size }, Max: MaxBatch}
	return s
}

func (s *core) Name() string { return s.name }

func (s *core) Append(ctx context.Context, b Batch) (Receipt, error) {
	a := &appending{key: b.Key, ifTail: b.IfTail}
	err := ctx.Err()
	if err == nil {
		err = a.take(b, s.options.MaxEvent, len(s.quoted))
	}
	if err != nil {
		return Receipt{}, fmt.Errorf("append %q: %w", s.name, err)
	}
	if len(a.data) == 0 {
		return Receipt{}, nil
	}
	if a.key != "" {
		events, release, err := s.claim(ctx, a)
		if err != nil || release == nil {
			return Receipt{Events: events, Repeated: err == nil}, err
		}
		defer release()
	}
	if b.Admit != nil {
		if err := b.Admit(ctx); err != nil {
			return Receipt{}, err
		}
		if err := ctx.Err(); err != nil {
			return Receipt{}, fmt.Errorf("append %q: %w", s.name, err)
		}
	}
	s.commits.Do(a)
	if a.err != nil {
		return Receipt{}, a.err
	}
	return Receipt{Events: a.events}, nil
}

// take checks the batch and makes its data a's own, compact.
func (a *appending) take(b Batch, maxEvent, name int) error {
	if b.Key != "" {
		if err := CheckName(b.Key); err != nil {
			return fmt.Errorf("%w idempotency key: 1 to %d bytes of UTF-8 without control characters", ErrInvalid, maxName)
		}
	}
	for _, data := range b.Data {
		if a.size += len(data); a.size > MaxBatch+len(b.Data)*maxName {
			break
		}
	}
	arena := make([]byte, 0, a.size)
	a.size, a.data = 0, make([]json.RawMessage, len(b.Data))
	for i, data := range b.Data {
		from := len(arena)
		var err error
		arena, err = compact.All(arena, data)
		switch n := len(arena) - from; {
		case err != nil && len(b.Data) > 1:
			return fmt.Errorf("%w event %d: %w", ErrInvalid, i+1, err)
		case err != nil:
			return fmt.Errorf("%w event: %w", ErrInvalid, err)
		case n > maxEvent:
			return fmt.Errorf("%w: an event of %d bytes, the limit is %d", ErrTooLarge, n, maxEvent)
		case len(arena) > MaxBatch:
			return fmt.Errorf("%w: a batch of over %d bytes", ErrTooLarge, MaxBatch)
		}
		a.data[i] = json.RawMessage(arena[from:])
	}
	a.size = len(arena) + len(b.Data)*(name+len(b.Key)+nameAt+len(beforeData)+timeLen+len(beforeKey)+2)
	if a.size > maxRecords {
		return fmt.Errorf("%w: a batch of %d bytes as stored, the limit is %d", ErrTooLarge, a.size, maxRecords)
	}
	return nil
}

// commit is called by one goroutine at a time.
func (s *core) commit(batch []*appending) {
	defer func() { // what is left where the storage panics
		for _, a := range batch {
			a.err = fmt.Errorf("%q: %w", s.name, errUnfinished)
		}
	}()
	for len(batch) > 0 {
		if batch[0].delete {
			batch[0].err = s.remove()
			batch = batch[1:]
			continue
		}
		n := 1
		for n < len(batch) && !batch[n].delete {
			n++
		}
		run := batch[:n]
		batch = batch[n:]
		s.add(run)
	}
}

// errUnfinished is what is told of a commit in which the storage panics.
var errUnfinished = errors.New("the commit did not finish")

// add stores the batch, or fails it as a whole.
func (s *core) add(batch []*appending) {
	err := errUnfinished
	defer func() {
		if err != nil {
			conflict, ok := errors.AsType[*ConflictError](err) // the storage's: it is not as this stream left it
			if ok {
				err = fmt.Errorf("%w: the storage's tail is %d, not %d", ErrUnavailable, conflict.Tail, conflict.Want)
			}
			if ok || !refused(err) {
				s.doubt(false)
			}
			for _, a := range batch {
				a.events, a.err = nil, fmt.Errorf("append %q: %w", s.name, err)
			}
		}
		s.shared.making.Delete(s.name)
	}()
	err = s.store(batch)
}

// refused tells whether a storage that returns err has stored nothing.
func refused(err error) bool {
	for _, kind := range [...]error{ErrFull, ErrUnavailable, ErrTooLarge, ErrInvalid} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// doubt forgets what a commit whose outcome is open may have changed: the storage knows it, and is asked at once, for
// followers wait for what was stored. Where it does not answer, who comes next asks again.
func (s *core) doubt(ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loaded, s.ended, s.recent, s.size = false, ended, nil, 0
	s.shared.keys.forget(s.name)
	if s.shared.doubts.Delete(s.name); !ended && s.tail != unknown {
		s.shared.doubts.Store(s.name, s.tail)
	}
	s.wake()
	_ = s.load()
}

// store gives the batch's events their places, makes them durable and shows them. Conditions are decided here.
func (s *core) store(batch []*appending) error {
	tail, created, err := s.end()
	if err != nil {
		return unavailable(err)
	}
	size, count := 0, 0
	for _, a := range batch {
		size += a.size
		count += len(a.data)
	}
	// Truncate drops the monotonic reading as well, by which a wall clock that jumped back would still be After.
	if now := s.options.Now().UTC().Truncate(time.Millisecond); now.After(created) {
		created = now
	}
	if !writable(created) {
		return fmt.Errorf("%w: by the clock it is %v, and events' times end with the year 9999", ErrUnavailable, created)
	}
	stamp := appendTime(nil, created)
	records, events := make([]byte, 0, size), make([]Event, 0, count)
	for _, a := range batch {
		next, first := tail+Offset(len(events)), len(events)
		a.err = nil
		if a.ifTail != nil && *a.ifTail != next {
			a.err = &ConflictError{Stream: s.name, Tail: next, Want: *a.ifTail}
			continue
		}
		if next+Offset(len(a.data))-1 > MaxOffset {
			a.err = fmt.Errorf("append %q: %w: the last offset is %d", s.name, ErrUnavailable, MaxOffset)
			continue
		}
		for i, data := range a.data {
			from, o := len(records), next+Offset(i)
			records = appendRecord(records, o, s.quoted, data, stamp, a.key)
			public := records[from:len(records):len(records)]
			if a.key != "" {
				public = public[:bytes.LastIndex(public, []byte(beforeKey))]
			}
			events = append(events, Event{o, public})
		}
		a.events = events[first:len(events):len(events)]
	}
	if len(events) == 0 {
		return nil
	}
	if tail == 0 {
		s.shared.making.Store(s.name, nil)
	}
	if err := s.storage.Append(s.name, events); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range batch {
		if a.key != "" && a.err == nil {
			s.shared.keys.add(s.name, a.key, a.events[len(a.events)-1].Offset)
		}
	}
	s.publish(events, len(records), created)
	return nil
}

// publish shows events, size bytes, which are durable: the tail moves behind them, and then followers are told,
// this stream's and those of all streams. Nothing else tells of an event. The caller holds mu.
func (s *core) publish(events []Event, size int, created time.Time) {
	s.tail, s.last = events[len(events)-1].Offset+1, created
	s.remember(events, size)
	s.wake()
	s.shared.feed.publish(s.name, events, size)
}

func (s *core) Delete(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete %q: %w", s.name, err)
	}
	a := &appending{delete: true}
	s.commits.Do(a)
	return a.err
}

func (s *core) remove() error {
	done := make(chan struct{})
	s.mu.Lock()
	s.deleting = done
	s.mu.Unlock()
	err := errUnfinished
	defer func() {
		if err != nil && !refused(err) {
			s.doubt(true)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if err == nil {
			s.begin()
		}
		s.deleting = nil
		close(done)
	}()
	if err = s.storage.Delete(s.name); err != nil {
		return fmt.Errorf("delete %q: %w", s.name, err)
	}
	return nil
}

// begin begins the next life. The caller holds mu.
func (s *core) begin() {
	s.life++
	s.loaded, s.tail, s.last = true, 0, time.Time{}
	s.recent, s.size = nil, 0
	s.shared.keys.forget(s.name)
	s.shared.doubts.Delete(s.name)
	s.wake()
}

// end returns the tail, and when the last event was created.
func (s *core) end() (tail Offset, last time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.load()
	return s.tail, s.last, err
}

// unavailable makes err one that promises that nothing was stored.
func unavailable(err error) error {
	if refused(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// load makes sure that the tail is known, and publishes what an append whose outcome was open has stored. The
// caller holds mu: what waits for it waits for the tail.
func (s *core) load() error {
	if s.loaded { // each wake-up of a follower comes here; what reads costs it two allocations
		return nil
	}
	return s.reload()
}

func (s *core) reload() error {
	info, err := s.storage.Stat(s.name)
	switch {
	case err != nil:
		return err
	case s.tail == unknown:
		s.tail = info.Tail
	case info.Tail < s.tail && s.ended:
		s.begin()
	case info.Tail < s.tail: // offsets that were given are not given again
		return fmt.Errorf("the storage lost events: its tail is %d, it was %d", info.Tail, s.tail)
	}
	if s.tail < info.Tail {
		for events, err := range s.storage.Read(s.name, s.tail, info.Tail) {
			if err != nil {
				return err
			}
			size := 0
			for _, e := range events {
				size += len(e.Record())
			}
			s.publish(events, size, info.UpdatedAt)
		}
		if s.tail < info.Tail {
			return fmt.Errorf("the storage ended at %d, before %d", s.tail, info.Tail)
		}
	}
	s.loaded, s.ended, s.last = true, false, info.UpdatedAt
	s.shared.doubts.Delete(s.name)
	return nil
}

// wake lets the followers look again. The caller holds mu.
func (s *core) wake() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// remember keeps the last commits for the followers, who then need not read them from the storage each. What they were given
// stays as it is: the slice only grows, or is replaced. The caller holds mu.
func (s *core) remember(events []Event, size int) {
	if s.followers == 0 || size > keepCommit {
		s.recent, s.size = nil, 0
		return
	}
	if s.size+size > keepRecent { // half of it stays, for those who are a little behind
		kept := s.recent
		for ; len(kept) > 0 && s.size+size > keepRecent/2; kept = kept[1:] {
			s.size -= len(kept[0].Record())
		}
		s.recent = slices.Clone(kept)
	}
	s.recent, s.size = append(s.recent, events...), s.size+size
}

func (s *core) Stat(ctx context.Context) (info Info, err error) {
	for again := true; again && err == nil; {
		s.mu.Lock()
		life := s.life
		s.mu.Unlock()
		if info, err = s.storage.Stat(s.name); err == nil {
			info, again, err = s.readable(info, life)
		}
	}
	if err != nil {
		return info, fmt.Errorf("stat %q: %w", s.name, err)
	}
	return info, ctx.Err()
}

// readable is what of info, which the storage told in the given life, can be read: it may have more than was
// published.
func (s *core) readable(info Info, life int) (readable Info, again bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tail == unknown { // who reads it will find what the storage has
		return info, false, nil
	}
	err = s.load()
	switch {
	case err != nil || info.Tail <= s.tail:
	case s.tail == 0:
		info = Info{Name: s.name}
	default:
		info.Tail, info.UpdatedAt = s.tail, s.last
	}
	return info, s.life != life, err
}

func (s *core) Read(ctx context.Context, from, to Offset) iter.Seq2[[]Event, error] {
	return func(yield func([]Event, error) bool) {
		pos, life, tail, err := s.position(from)
		corrupt, damaged := errors.AsType[*CorruptError](err)
		if damaged && from != Now {
			tail, err = MaxOffset, nil // what stands before the damage still reads
		}
		if err == nil {
			if pos, err = s.read(ctx, pos, min(to, tail), life, yield); err == nil && damaged && pos < to {
				err = corrupt
			}
		}
		if err != nil && err != errStopped {
			yield(nil, fmt.Errorf("read %q: %w", s.name, err))
		}
	}
}

// Subscribe takes its place in the stream's life when it is called.
func (s *core) Subscribe(ctx context.Context, from Offset) iter.Seq2[[]Event, error] {
	pos, life, _, err := s.position(from)
	if _, corrupt := errors.AsType[*CorruptError](err); corrupt && from == Now {
		pos = MaxOffset // no place; what stands before the damage is not asked for
	}
	return func(yield func([]Event, error) bool) {
		if err := s.follow(ctx, pos, life, err, yield); err != errStopped {
			yield(nil, fmt.Errorf("subscribe %q: %w", s.name, err))
		}
	}
}

// errStopped ends an iteration whose consumer wants no more.
var errStopped = errors.New("the consumer stopped")

// position resolves from, and returns the life and the tail that go with it.
func (s *core) position(from Offset) (pos Offset, life int, tail Offset, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.load()
	if pos = max(from, 0); from == Now {
		pos = s.tail
	}
	return pos, s.life, s.tail, err
}

// follow is the one loop for catching up and for being live. Err is that of looking pos up.
func (s *core) follow(ctx context.Context, pos Offset, life int, err error, yield func([]Event, error) bool) error {
	if err != nil {
		if _, corrupt := errors.AsType[*CorruptError](err); corrupt {
			if _, err := s.read(ctx, pos, MaxOffset, life, yield); err != nil {
				return err
			}
		}
		return err
	}
	s.mu.Lock()
	s.followers++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		if s.followers--; s.followers == 0 {
			s.recent, s.size = nil, 0
		}
		s.mu.Unlock()
	}()
	for {
		recent, tail, changed, err := s.look(pos, life)
		switch {
		case err != nil:
			return err
		case changed != nil:
			select {
			case <-changed:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		case len(recent) > 0:
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if pos += Offset(len(recent)); !yield(recent, nil) {
				return errStopped
			}
		default:
			if pos, err = s.read(ctx, pos, tail, life, yield); err != nil {
				return err
			}
		}
	}
}

// look returns what a follower at pos does next: take the recent events, read up to the tail, or wait for a change.
func (s *core) look(pos Offset, life int) (recent []Event, tail Offset, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return nil, 0, nil, err
	}
	switch {
	case s.life != life:
		return nil, 0, nil, ErrDeleted
	case pos >= s.tail:
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		return nil, s.tail, s.changed, nil
	case len(s.recent) > 0 && s.recent[0].Offset <= pos:
		return slices.Clip(s.recent[pos-s.recent[0].Offset:]), s.tail, nil, nil
	}
	return nil, s.tail, nil, nil
}

// read yields [from, to) from the storage as long as the stream lives its given life, and returns where it ended.
func (s *core) read(ctx context.Context, from, to Offset, life int, yield func([]Event, error) bool) (Offset, error) {
	if from >= to {
		return from, nil
	}
	var failed error
	for events, err := range s.storage.Read(s.name, from, to) {
		if failed = err; failed != nil {
			break
		}
		s.mu.Lock()
		over := s.life != life
		s.mu.Unlock()
		switch {
		case over: // what was read may be of the next life
			return from, ErrDeleted
		case ctx.Err() != nil:
			return from, context.Cause(ctx)
		case !yield(events, nil):
			return from, errStopped
		}
		from += Offset(len(events))
	}
	if failed == nil && (from >= to || to == MaxOffset) {
		return from, nil
	}
	if err := s.settled(ctx, life); err != nil {
		return from, err
	}
	if failed == nil {
		failed = fmt.Errorf("the storage ended at %d, before %d", from, to)
	}
	return from, failed
}

// settled waits for a deletion that is under way, and returns ErrDeleted where the life is over.
func (s *core) settled(ctx context.Context, life int) error {
	s.mu.Lock()
	deleting := s.deleting
	s.mu.Unlock()
	if deleting != nil {
		select {
		case <-deleting:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if _, now, _, _ := s.position(0); now != life {
		return ErrDeleted
	}
	return nil
}
