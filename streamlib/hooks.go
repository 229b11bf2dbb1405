package streamlib

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/iterate/durable-streams/streamlib/internal/compact"
)

// Hooks are what WithHooks runs around appends.
type Hooks struct {
	Before  []BeforeHook
	Whole   *BatchHook // sees all of an append's data at once, behind the before hooks; nil is none
	After   []AfterHook
	Timeout time.Duration // for all before hooks of an append together, and again for its after hooks; 0 is 10 s

	// Tell, where not nil, is told of each append's events once they are durable, before the after hooks run. Of one
	// stream it is called once at a time and in the stream's order, as far as that tells it; appends wait for it.
	Tell func(name string, events []Event)

	Log *slog.Logger // for the errors of after hooks; nil discards
}

// A BeforeHook sees an event's data, as it is going to be stored, before it is appended. Its error vetoes the append.
type BeforeHook struct {
	ID  string
	Run func(ctx context.Context, name string, data json.RawMessage) error
}

// A BatchHook sees the data of an append's events, as it is going to be stored, before they are appended. Its error vetoes
// the append.
type BatchHook struct {
	ID  string
	Run func(ctx context.Context, name string, data []json.RawMessage) error
}

// An AfterHook sees an event once it is durable. Its error is logged and changes nothing.
type AfterHook struct {
	ID  string
	Run func(ctx context.Context, name string, event Event) error
}

// WithHooks returns s with hooks around its appends: Layer 2. For each event in order the before hooks run in
// order; the first failure is the append's *HookError and nothing is stored. Once the events are durable, the after
// hooks run in order, and then the append returns. A repeat of an append with a key runs none. A hook that panics
// has failed. So has one that runs when the timeout is over, whether or not it looks at its context: it is not
// waited for, and none is run after it.
func WithHooks(s Stream, h Hooks) Stream {
	if h.Timeout == 0 {
		h.Timeout = 10 * time.Second
	}
	if h.Log == nil {
		h.Log = slog.New(slog.DiscardHandler)
	}
	return &hooked{s, h}
}

type hooked struct {
	Stream
	hooks Hooks
}

func (s *hooked) Append(ctx context.Context, b Batch) (Receipt, error) {
	inner := b.Admit
	b.Admit = func(ctx context.Context) error {
		if inner != nil {
			if err := inner(ctx); err != nil {
				return err
			}
		}
		if len(b.Data) == 0 || len(s.hooks.Before) == 0 && s.hooks.Whole == nil {
			return nil
		}
		events := make([]json.RawMessage, len(b.Data)) // the hooks' own, for one that is not waited for may still read
		for i, data := range b.Data {
			var err error
			if events[i], err = compact.All(make([]byte, 0, len(data)), data); err != nil {
				return fmt.Errorf("append %q: %w event: %w", s.Name(), ErrInvalid, err)
			}
		}
		limited, cancel := s.limited(ctx)
		defer cancel()
		hooks, each := s.hooks.Before, len(events)*len(s.hooks.Before)
		n := each
		if s.hooks.Whole != nil {
			n++
		}
		i, err := run(limited, 0, n, func(ctx context.Context, i int) error {
			if i == each {
				return s.hooks.Whole.Run(ctx, s.Name(), events)
			}
			return hooks[i%len(hooks)].Run(ctx, s.Name(), events[i/len(hooks)])
		})
		switch {
		case err != nil && ctx.Err() != nil:
			return fmt.Errorf("append %q: %w", s.Name(), context.Cause(ctx))
		case err != nil && i == each:
			return veto(s.hooks.Whole.ID, err)
		case err != nil:
			return veto(hooks[i%len(hooks)].ID, err)
		}
		return nil
	}
	told := s.hooks.Tell == nil
	if outer := b.told; !told {
		b.told = func(events []Event) {
			told = true
			if s.hooks.Tell(s.Name(), events); outer != nil {
				outer(events)
			}
		}
	}
	receipt, err := s.Stream.Append(ctx, b)
	if err != nil || receipt.Repeated {
		return receipt, err
	}
	if !told && len(receipt.Events) > 0 { // the stream is not of this package
		b.told(receipt.Events)
	}
	s.tell(context.WithoutCancel(ctx), receipt.Events) // what is durable is told of, also where the caller has gone
	return receipt, nil
}

// restore goes around the hooks.
func (s *hooked) restore(ctx context.Context, c Change) error { return restore(ctx, s.Stream, c) }

// tell runs the after hooks.
func (s *hooked) tell(ctx context.Context, events []Event) {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	hooks := s.hooks.After
	for i, n := 0, len(events)*len(hooks); i < n; i++ {
		var err error
		i, err = run(ctx, i, n, func(ctx context.Context, i int) error {
			return hooks[i%len(hooks)].Run(ctx, s.Name(), events[i/len(hooks)])
		})
		if err == nil {
			return
		}
		id, offset := hooks[i%len(hooks)].ID, events[i/len(hooks)].Offset
		log := s.hooks.Log.With("hook", id, "stream", s.Name(), "offset", offset.String())
		if log.Error("after hook failed", "error", err); ctx.Err() != nil && i+1 < n {
			log.Error("after hooks were not run: there was no time left", "runs", n-i-1)
			return
		}
	}
}

// veto makes a before hook's error a *HookError; one that it made itself keeps its message.
func veto(id string, err error) error {
	if own, ok := errors.AsType[*HookError](err); ok {
		return own
	}
	return &HookError{HookID: id, Message: err.Error()}
}

func (s *hooked) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, s.hooks.Timeout, fmt.Errorf("no answer in %v", s.hooks.Timeout))
}

// run calls hook with i and what follows below n, until one fails or ctx is done, and returns which and why. The
// goroutine is for hooks that do not look at their context.
func run(ctx context.Context, i, n int, hook func(ctx context.Context, i int) error) (at int, err error) {
	var on atomic.Int64
	ended := make(chan error, 1)
	go func() {
		var err error
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
			ended <- err
		}()
		for ; i < n && err == nil; i++ {
			on.Store(int64(i))
			if err = context.Cause(ctx); err == nil {
				err = hook(ctx, i)
			}
		}
	}()
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil && ctx.Err() != nil { // a hook's own word for it, too
		err = context.Cause(ctx)
	}
	return int(on.Load()), err
}
