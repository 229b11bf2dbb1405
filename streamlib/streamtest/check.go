// Package streamtest is the contracts of streamlib.Storage and streamlib.Stream, executable: every implementation
// passes the same suites. Check judges the history of a stream, also one that crashed on its way.
package streamtest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/iterate/durable-streams/streamlib"
)

// An Append is one call of Append in a history: what was sent, and what came back.
//
// What a history sends must be told apart: no value is sent twice, but by the calls that repeat one append with its
// key.
type Append struct {
	Data []json.RawMessage // at least one
	Key  string

	// Sent and Answered order the history: a count that grows, taken before the call and after it. Where no answer came,
	// Answered says nothing.
	Sent, Answered int64

	Events []streamlib.Event // what was acknowledged, none where the call failed
	Err    error             // why it failed; the outcome is open where streamlib does not promise that nothing was stored
}

// A Run is what a subscription yielded.
type Run struct {
	From   streamlib.Offset
	Events []streamlib.Event
}

// Check returns what is wrong with the history of one life of a stream, nil where nothing is. Stored is the whole
// stream as it is read in the end. It holds that
//
//   - offsets are contiguous from 0, and times never go back;
//   - what was acknowledged is there once, where the answer said and with the bytes that were sent, less white space;
//   - an append is there whole or not at all, and not at all where it was refused;
//   - an append that was acknowledged before another was sent stands before it;
//   - nothing is there that was not sent;
//   - each subscription saw the stream from its position on, without a gap or a repeat.
func Check(stored []streamlib.Event, appends []Append, runs ...Run) error {
	places := map[string]int{}
	for i, e := range stored {
		if e.Offset != streamlib.Offset(i) {
			return fmt.Errorf("offset %d stands where %d should", e.Offset, i)
		}
		if i > 0 && e.CreatedAt().Before(stored[i-1].CreatedAt()) {
			return fmt.Errorf("offset %d was created before the one before it", i)
		}
		if first, twice := places[string(e.Data())]; twice {
			return fmt.Errorf("offsets %d and %d are one event: %s", first, i, e.Data())
		}
		places[string(e.Data())] = i
	}
	batches, err := merge(appends)
	if err != nil {
		return err
	}
	sent := int64(math.MinInt64) // the latest of what stands before
	found := 0
	for i := range batches {
		b := &batches[i]
		if err := b.find(stored, places); err != nil {
			return err
		}
		if b.found {
			found += len(b.data)
		}
	}
	slices.SortFunc(batches, func(a, b batch) int { return cmp.Compare(a.first, b.first) })
	for _, b := range batches {
		if !b.found {
			continue
		}
		if b.answered < sent {
			return fmt.Errorf("offset %d was acknowledged before one was sent that stands before it", b.first)
		}
		sent = max(sent, b.sent)
	}
	if found != len(stored) {
		return fmt.Errorf("%d of %d stored events were never sent", len(stored)-found, len(stored))
	}
	for _, r := range runs {
		if err := r.check(stored); err != nil {
			return err
		}
	}
	return nil
}

// batch is an append with its repeats.
type batch struct {
	data           []json.RawMessage // compact
	key            string
	sent, answered int64 // first
	acknowledged   []streamlib.Event
	refused        bool

	found bool
	first int // offset
}

func merge(appends []Append) ([]batch, error) {
	var batches []batch
	byValue := map[string]int{}
	for _, a := range appends {
		b := batch{key: a.Key, sent: a.Sent, answered: math.MaxInt64, acknowledged: a.Events, refused: refused(a.Err)}
		for _, data := range a.Data {
			var c bytes.Buffer
			if err := json.Compact(&c, data); err != nil {
				return nil, fmt.Errorf("the history sent %q: %w", data, err)
			}
			b.data = append(b.data, c.Bytes())
		}
		if a.Events != nil {
			b.answered = a.Answered
		}
		first := string(b.data[0])
		i, repeats := byValue[first]
		if !repeats {
			byValue[first] = len(batches)
			batches = append(batches, b)
			continue
		}
		known := &batches[i]
		if b.key == "" || b.key != known.key || !slices.EqualFunc(b.data, known.data, equal) {
			return nil, fmt.Errorf("the history sent %s twice: it cannot be judged", first)
		}
		if b.acknowledged != nil && known.acknowledged != nil && !slices.EqualFunc(b.acknowledged, known.acknowledged, same) {
			return nil, fmt.Errorf("key %q was acknowledged as %v and as %v", b.key, known.acknowledged, b.acknowledged)
		}
		if known.acknowledged == nil {
			known.acknowledged = b.acknowledged
		}
		known.sent, known.answered = min(known.sent, b.sent), min(known.answered, b.answered)
		known.refused = known.refused && b.refused
	}
	return batches, nil
}

// find looks the batch up in what is stored.
func (b *batch) find(stored []streamlib.Event, places map[string]int) error {
	b.first, b.found = places[string(b.data[0])]
	for i, data := range b.data {
		at, ok := places[string(data)]
		switch {
		case ok != b.found:
			return fmt.Errorf("an append of %d is there in part: %s", len(b.data), data)
		case ok && at != b.first+i:
			return fmt.Errorf("an append of %d at %d is torn: its event %d is at %d", len(b.data), b.first, i, at)
		}
	}
	switch {
	case b.acknowledged != nil && !b.found:
		return fmt.Errorf("acknowledged and lost: %v", b.acknowledged)
	case b.acknowledged != nil && !slices.EqualFunc(b.acknowledged, stored[b.first:b.first+len(b.data)], same):
		return fmt.Errorf("acknowledged as %v, stored as %v", b.acknowledged, stored[b.first:b.first+len(b.data)])
	case b.refused && b.found:
		return fmt.Errorf("refused and stored: %v", stored[b.first])
	}
	return nil
}

func (r Run) check(stored []streamlib.Event) error {
	if len(r.Events) == 0 {
		return nil
	}
	from := r.Events[0].Offset
	if want := max(r.From, 0); r.From != streamlib.Now && from != want {
		return fmt.Errorf("a subscription from %v began at %d", r.From, from)
	}
	for i, e := range r.Events {
		switch at := from + streamlib.Offset(i); {
		case e.Offset != at:
			return fmt.Errorf("a subscription from %v yielded %d where %d should be", r.From, e.Offset, at)
		case int(at) >= len(stored):
			return fmt.Errorf("a subscription from %v yielded what is not there: %v", r.From, e)
		case !same(e, stored[at]):
			return fmt.Errorf("a subscription from %v yielded %v, stored is %v", r.From, e, stored[at])
		}
	}
	return nil
}

// refused tells whether err promises that nothing was stored.
func refused(err error) bool {
	for _, kind := range []error{
		streamlib.ErrInvalid, streamlib.ErrTooLarge, streamlib.ErrKeyReused, streamlib.ErrFull, streamlib.ErrUnavailable,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	_, vetoed := errors.AsType[*streamlib.HookError](err)
	_, conflict := errors.AsType[*streamlib.ConflictError](err)
	return vetoed || conflict
}

func equal(a, b json.RawMessage) bool { return bytes.Equal(a, b) }

func same(a, b streamlib.Event) bool { return a.String() == b.String() }

// A Recorder writes the history of what is appended through it. The zero value is ready; its methods may be called at
// once.
type Recorder struct {
	mu      sync.Mutex
	count   int64
	appends []Append
}

// Append is s.Append.
func (r *Recorder) Append(ctx context.Context, s streamlib.Stream, b streamlib.Batch) (streamlib.Receipt, error) {
	a := Append{Data: b.Data, Key: b.Key, Sent: r.tick()}
	receipt, err := s.Append(ctx, b)
	a.Answered, a.Err = r.tick(), err
	if err == nil {
		a.Events = append([]streamlib.Event{}, receipt.Events...)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.appends = append(r.appends, a)
	return receipt, err
}

// Appends returns the history so far.
func (r *Recorder) Appends() []Append {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.appends)
}

func (r *Recorder) tick() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	return r.count
}
