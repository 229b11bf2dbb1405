package streamlib

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/iterate/durable-streams/streamlib/internal/compact"
)

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
	if err := s.storage.Commit(context.Background(), s.name, Change{Events: events}); err != nil {
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
	if err = s.storage.Commit(context.Background(), s.name, Change{Delete: true}); err != nil {
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
