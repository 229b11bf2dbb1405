package streamtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// subscription takes from a Subscribe what it is asked for.
type subscription struct {
	from   streamlib.Offset
	next   func() ([]streamlib.Event, error, bool)
	stop   func()
	events []streamlib.Event
}

func subscribe(t *testing.T, ctx context.Context, s streamlib.Stream, from streamlib.Offset) *subscription {
	next, stop := iter.Pull2(s.Subscribe(ctx, from))
	t.Cleanup(stop)
	return &subscription{from: from, next: next, stop: stop}
}

var errEnded = errors.New("the subscription ended without an error")

// until takes until there were n events, or returns the error that came before.
func (s *subscription) until(n int) error {
	for len(s.events) < n {
		batch, err, ok := s.next()
		switch {
		case !ok:
			return errEnded
		case err != nil:
			return err
		case len(batch) == 0:
			return errors.New("the subscription yielded an empty batch")
		}
		s.events = append(s.events, batch...)
	}
	return nil
}

// appendUntil appends event after event until done returns.
func appendUntil(t *testing.T, s streamlib.Stream, done func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- done() }()
	for {
		select {
		case err := <-ended:
			return err
		default:
			fill(t, s, 1)
		}
	}
}

// together runs n calls at once and waits for them.
func together(n int, do func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			<-start
			errs[i] = do(i)
		})
	}
	close(start)
	all.Wait()
	return errs
}

// soon bounds what would otherwise hang where a promise is broken.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("it hangs"))
	t.Cleanup(cancel)
	return ctx
}

func value(n, i int) json.RawMessage { return json.RawMessage(fmt.Sprintf(`{"n":%d,"i":%d}`, n, i)) }

func fill(t *testing.T, s streamlib.Stream, n int) []streamlib.Event {
	t.Helper()
	var batch streamlib.Batch
	for i := range n {
		batch.Data = append(batch.Data, value(n, i))
	}
	receipt, err := s.Append(soon(t), batch)
	if err != nil {
		t.Fatal(err)
	}
	return receipt.Events
}

func read(t *testing.T, s streamlib.Stream, from, to streamlib.Offset) []streamlib.Event {
	t.Helper()
	var all []streamlib.Event
	for batch, err := range s.Read(soon(t), from, to) {
		if err != nil {
			t.Fatalf("read %q from %v to %v: %v", s.Name(), from, to, err)
		}
		all = append(all, batch...)
	}
	return all
}

// end returns the error that an iteration ends with.
func end(events iter.Seq2[[]streamlib.Event, error]) (last error) {
	for _, last = range events {
	}
	return last
}

func isEmpty(t *testing.T, s streamlib.Stream) {
	t.Helper()
	info, err := s.Stat(soon(t))
	if err != nil || info.Tail != 0 || info.Size != 0 || !info.CreatedAt.IsZero() || !info.UpdatedAt.IsZero() {
		t.Fatalf("stat: %+v, %v", info, err)
	}
	if got := read(t, s, 0, streamlib.MaxOffset); len(got) > 0 {
		t.Fatalf("read: %v", got)
	}
}

// samePublic compares the public forms: all that a client sees.
func samePublic(t *testing.T, got, want []streamlib.Event) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d events, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].String() != want[i].String() || got[i].Offset != want[i].Offset {
			t.Fatalf("event %d: %.300v, want %.300v", i, got[i], want[i])
		}
	}
}
