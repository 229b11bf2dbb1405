package streamlib

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/iterate/durable-streams/streamlib/budget"
	"github.com/iterate/durable-streams/streamlib/internal/compact"
)

// appending is one caller's part of a commit.
type appending struct {
	data    []json.RawMessage
	size    int
	key     string
	ifTail  *Offset
	ifLife  *int64
	close   bool
	decide  func(Offset, *State) error
	told    func([]Event) // of the events, once they were published
	op      string        // "trim", "delete", "import" or "look" where it is no append
	before  Offset        // of a trim
	change  *Change       // of an import
	imports int64         // that there had been when the key was looked up
	events  []Event
	state   State  // of the stream, and its
	tail    Offset // with it
	err     error
}

func (a *appending) does() string { return cmp.Or(a.op, "append") }

func (s *core) Append(ctx context.Context, b Batch) (Receipt, error) {
	a := &appending{key: b.Key, ifTail: b.IfTail, ifLife: b.IfLife, close: b.Close, decide: b.Decide, told: b.told}
	err := ctx.Err()
	if err == nil {
		err = a.take(b, s.options, len(s.quoted))
	}
	if err != nil {
		return Receipt{}, fmt.Errorf("append %q: %w", s.name, err)
	}
	if len(a.data) == 0 && !a.close && a.decide == nil {
		return Receipt{}, nil
	}
	for receipt := (Receipt{}); ; {
		if receipt, err = s.append(ctx, a, b.Admit); err != errAgain {
			return receipt, err
		}
		b.Admit = nil // it was asked
	}
}

// append is Append of what was taken. It is errAgain where an import may have brought a's key since it was looked up.
func (s *core) append(ctx context.Context, a *appending, admit func(context.Context) error) (Receipt, error) {
	if a.key != "" && len(a.data) > 0 {
		events, release, err := s.claim(ctx, a)
		if err != nil {
			return Receipt{}, err
		} else if release == nil {
			return s.repeated(events), nil
		}
		defer release()
	}
	if admit != nil {
		if err := admit(ctx); err != nil {
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
	return Receipt{Events: a.events, Tail: a.tail, Life: a.state.Life, Closed: a.state.Closed}, nil
}

// repeated is the answer to an append that was made before.
func (s *core) repeated(events []Event) Receipt {
	s.mu.Lock()
	defer s.mu.Unlock()
	tail := events[len(events)-1].Offset + 1
	return Receipt{events, true, tail, s.state.Life, s.state.Closed && s.tail == tail}
}

// take checks the batch and makes its data a's own, compact.
func (a *appending) take(b Batch, o Options, name int) error {
	if b.Key != "" {
		if err := CheckName(b.Key); err != nil {
			return fmt.Errorf("%w idempotency key: 1 to %d bytes of UTF-8 without control characters", ErrInvalid, maxName)
		}
	}
	// What is compact already, as nearly all is, stays the caller's.
	longest := 0
	for _, data := range b.Data {
		longest = max(longest, len(data))
	}
	arena, total, own := make([]byte, 0, min(longest, MaxBatch)), 0, false
	a.data = b.Data
	for i, data := range b.Data {
		from := len(arena)
		var err error
		arena, err = compact.All(arena, data)
		n := len(arena) - from
		total += n
		switch {
		case err != nil && len(b.Data) > 1:
			return fmt.Errorf("%w event %d: %w", ErrInvalid, i+1, err)
		case err != nil:
			return fmt.Errorf("%w event: %w", ErrInvalid, err)
		case n > o.MaxEvent:
			return fmt.Errorf("%w: an event of %d bytes, the limit is %d", ErrTooLarge, n, o.MaxEvent)
		case total > MaxBatch:
			return fmt.Errorf("%w: a batch of over %d bytes", ErrTooLarge, MaxBatch)
		case n == len(data):
			arena = arena[:from]
			continue
		}
		if !own {
			a.data, own = slices.Clone(b.Data), true
		}
		a.data[i] = json.RawMessage(arena[from:len(arena):len(arena)])
	}
	a.size = storedSize(name, len(b.Key), len(b.Data), total)
	return tooLarge(a.size, o.Budget)
}

// storedSize is what a batch takes as stored, at most: many small values grow on their way to the disk.
func storedSize(name, key, events, bytes int) int {
	return bytes + events*(name+key+nameAt+len(beforeData)+timeLen+len(beforeKey)+2)
}

func tooLarge(stored int, b *budget.Budget) error {
	if limit := b.Batch(); stored > limit {
		return fmt.Errorf("%w: a batch of %d bytes as stored, the limit is %d", ErrTooLarge, stored, limit)
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
	for batch = s.looks(batch); len(batch) > 0; {
		if batch[0].op == "delete" {
			batch[0].err = s.remove(batch[0])
			batch = batch[1:]
			continue
		}
		n := 1
		for n < len(batch) && batch[0].op != "import" && batch[n].op != "import" && batch[n].op != "delete" {
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
				a.events, a.err = nil, fmt.Errorf("%s %q: %w", a.does(), s.name, err)
			}
		}
		s.shared.making.Delete(s.name)
	}()
	s.sure = false
	for try := 0; try == 0 || s.lost(err, try); try++ {
		if batch[0].op == "import" {
			err = s.bring(batch[0])
		} else {
			err = s.store(batch)
		}
	}
	for _, a := range batch {
		if a.told != nil && err == nil && a.err == nil && len(a.events) > 0 {
			a.told(a.events)
		}
	}
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

// A decision is what a batch makes of the stream.
type decision struct {
	change Change // with the events, and with &state where that changes
	size   int    // of the events, in bytes
	was    State  // on which it was decided, and
	end    Offset // the tail then
	made   bool   // the stream did not exist; it begins at
	begin  Offset
	state  State
}

// store makes the batch durable and shows it.
func (s *core) store(batch []*appending) error {
	d, err := s.decideAll(batch)
	if d == nil {
		return err
	}
	if d.made {
		s.shared.making.Store(s.name, nil)
	}
	if err := s.put(d.change, d.end, &d.was); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.made {
		s.tail = d.begin
	}
	for _, a := range batch {
		if a.key != "" && a.err == nil && len(a.events) > 0 {
			s.shared.keys.add(s.name, a.key, a.events[len(a.events)-1].Offset)
		}
	}
	s.publish(d.change.Events, d.size, d.state)
	return nil
}

// decideAll gives the batch's events their places. Conditions are decided here, and what the stream's state becomes.
// It returns nil where there is nothing to store.
func (s *core) decideAll(batch []*appending) (*decision, error) {
	tail, was, err := s.end()
	if err != nil {
		return nil, unavailable(err)
	}
	d := &decision{was: was, end: tail, made: !was.exists(tail), state: was}
	size, count := 0, 0
	for _, a := range batch {
		size += a.size
		count += len(a.data)
	}
	// Truncate drops the monotonic reading as well, by which a wall clock that jumped back would still be After.
	created := d.was.UpdatedAt
	if now := s.options.Now().UTC().Truncate(time.Millisecond); now.After(created) {
		created = now
	}
	if !writable(created) {
		return nil, fmt.Errorf("%w: by the clock it is %v, and events' times end with the year 9999", ErrUnavailable, created)
	}
	stamp := appendTime(nil, created)
	records, events := make([]byte, 0, size), make([]Event, 0, count)
	for _, a := range batch {
		first := len(events)
		a.events = nil
		if a.err = s.decide(a, tail+Offset(first), &d.state); a.err != nil || a.op == "trim" {
			if s.others != nil && !s.sure {
				return nil, errStale
			}
		}
		if a.err != nil {
			continue
		}
		if d.made && len(events) == 0 {
			tail = d.state.First // where a's decision lets it begin
		}
		for i, data := range a.data {
			from, o := len(records), tail+Offset(first+i)
			records = appendRecord(records, o, s.quoted, data, stamp, a.key)
			public := records[from:len(records):len(records)]
			if a.key != "" {
				public = public[:bytes.LastIndex(public, []byte(beforeKey))]
			}
			events = append(events, Event{o, public})
		}
		if len(a.data) > 0 || d.state.UpdatedAt.IsZero() && d.state.exists(tail) {
			d.state.UpdatedAt = created
		}
		a.events = events[first:len(events):len(events)]
		a.state, a.tail = d.state, tail+Offset(len(events))
	}
	if d.state.First != d.was.First {
		if d.state.Keys, err = s.remembered(d.was, d.state.First, tail+Offset(len(events)), events); err != nil {
			return nil, unavailable(err)
		}
	}
	d.begin, d.size, d.change.Events = tail, len(records), events
	if d.state.Closed != d.was.Closed || d.state.First != d.was.First || d.state.Note != d.was.Note ||
		d.state.Held != d.was.Held || d.end == 0 && len(events) > 0 && d.state.Life > 0 {
		d.change.State = &d.state
	}
	if len(events) == 0 && d.change.State == nil {
		return nil, nil
	}
	return d, nil
}

// decide tells why a cannot be done where the tail is next, or what the state becomes by it.
func (s *core) decide(a *appending, next Offset, was *State) error {
	state, begin := *was, was.First
	if a.decide != nil && (a.ifLife == nil || *a.ifLife == was.Life) {
		if err := a.decide(next, &state); err != nil {
			return fmt.Errorf("append %q: %w", s.name, err)
		}
		if !was.exists(next) {
			begin, next = state.First, state.First
		}
		state = State{was.Life, begin, was.Closed, was.Keys, state.Note, state.Held, was.UpdatedAt}
	}
	switch {
	case a.ifLife != nil && *a.ifLife != state.Life:
		return &ConflictError{Stream: s.name, Tail: next, Want: next, Life: true, Op: a.op}
	case a.op == "trim" && state.Held:
	case a.op == "delete" && state.Held:
		return fmt.Errorf("delete %q: %w", s.name, ErrHeld)
	case len(state.Note) > MaxNote:
		return fmt.Errorf("append %q: %w: a note of %d bytes, the limit is %d", s.name, ErrTooLarge, len(state.Note), MaxNote)
	case a.op == "trim":
		state.First = max(state.First, min(a.before, next))
	case state.Closed && len(a.data) > 0:
		return &ClosedError{s.name, next}
	case a.key != "" && len(a.data) > 0 && a.imports != s.imports.Load() && !s.shared.keys.lacks(s.name, a.key):
		return errAgain
	case a.ifTail != nil && *a.ifTail != next:
		return &ConflictError{Stream: s.name, Tail: next, Want: *a.ifTail, Op: a.op}
	case next+Offset(len(a.data))-1 > MaxOffset:
		return fmt.Errorf("append %q: %w: the last offset is %d", s.name, ErrUnavailable, MaxOffset)
	}
	state.Closed = state.Closed || a.close
	*was = state
	return nil
}

// publish shows events, size bytes, which are durable, and the state that goes with them: the tail moves behind them,
// and then followers are told, this stream's and those of all streams. Nothing else tells of an event. The caller
// holds mu.
func (s *core) publish(events []Event, size int, state State) {
	if s.state = state; len(events) > 0 {
		s.tail = events[len(events)-1].Offset + 1
		s.remember(events, size)
		s.shared.feed.publish(s.name, events, size)
	} else {
		s.shared.feed.changed(s.name)
	}
	s.wake()
}

func (s *core) Trim(ctx context.Context, before Offset) error {
	return s.drop(ctx, &appending{op: "trim", before: before})
}

func (s *core) TrimIf(ctx context.Context, before Offset, life int64) error {
	return s.drop(ctx, &appending{op: "trim", before: before, ifLife: &life})
}

func (s *core) Delete(ctx context.Context) error { return s.drop(ctx, &appending{op: "delete"}) }

func (s *core) DeleteIf(ctx context.Context, tail Offset, life int64) error {
	return s.drop(ctx, &appending{op: "delete", ifTail: &tail, ifLife: &life})
}

// drop trims or deletes.
func (s *core) drop(ctx context.Context, a *appending) error {
	if a.before == Now {
		a.before = MaxOffset + 1
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %q: %w", a.does(), s.name, err)
	}
	s.commits.Do(a)
	return a.err
}

func (s *core) remove(a *appending) error {
	s.sure = false
	for try := 0; ; try++ {
		tail, was, err := s.end()
		if err != nil && (a.ifTail != nil || s.others != nil) { // else what is damaged can be deleted
			return fmt.Errorf("delete %q: %w", s.name, unavailable(err))
		}
		if err == nil {
			if err := s.decide(a, tail, &State{Life: was.Life, Held: was.Held}); err != nil && (s.sure || !s.lost(errStale, 1)) {
				return err
			} else if err != nil {
				continue
			}
		}
		err = s.discard(tail, was)
		if _, conflict := errors.AsType[*ConflictError](err); conflict {
			if s.lost(err, try+1) {
				continue
			}
			err = fmt.Errorf("%w: others append to it", ErrUnavailable)
		}
		if err != nil {
			err = fmt.Errorf("delete %q: %w", s.name, err)
		}
		return err
	}
}

// discard deletes what has the tail and the state was.
func (s *core) discard(tail Offset, was State) error {
	done := make(chan struct{})
	s.mu.Lock()
	s.deleting = done
	s.mu.Unlock()
	err := errUnfinished
	defer func() {
		_, conflict := errors.AsType[*ConflictError](err)
		if err != nil && !conflict && !refused(err) {
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
	err = s.put(Change{Delete: true}, tail, &was)
	return err
}

// begin begins the next life. The caller holds mu.
func (s *core) begin() {
	s.life++
	s.loaded, s.lived, s.tail, s.state = false, false, 0, State{} // the storage knows the life
	s.recent, s.size = nil, 0
	s.shared.keys.forget(s.name)
	s.shared.doubts.Delete(s.name)
	s.shared.feed.changed(s.name)
	s.wake()
}

// end returns the tail and the state that goes with it.
func (s *core) end() (tail Offset, state State, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.load()
	return s.tail, s.state, err
}

// unavailable makes err one that promises that nothing was stored.
func unavailable(err error) error {
	if refused(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
