package streamlib

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/iterate/durable-streams/streamlib/internal/compact"
)

// Hooks are what WithHooks runs around appends.
type Hooks struct {
	Before  []BeforeHook
	After   []AfterHook
	Timeout time.Duration // for one run of one hook; 0 is 10 s
	Log     *slog.Logger  // for the errors of after hooks; nil discards
}

// A BeforeHook sees an event's data, as it is going to be stored, before it is appended. Its error vetoes the append.
type BeforeHook struct {
	ID  string
	Run func(ctx context.Context, name string, data json.RawMessage) error
}

// An AfterHook sees an event once it is durable. Its error is logged and changes nothing.
type AfterHook struct {
	ID  string
	Run func(ctx context.Context, name string, event Event) error
}

// WithHooks returns s with hooks around its appends: Layer 2. For each event in order the before hooks run in order; the
// first failure is the append's *HookError and nothing is stored. Once the events are durable, the after hooks run in
// order, and then the append returns. A repeat of an append with a key runs none. A hook that panics has failed, and so has
// one that runs longer than the timeout, whether or not it looks at its context; it is not waited for.
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
		if len(s.hooks.Before) == 0 {
			return nil
		}
		for _, data := range b.Data {
			data, err := compact.All(make([]byte, 0, len(data)), data) // its own, for a hook that is not waited for when the caller has it back
			if err != nil {
				return fmt.Errorf("append %q: %w event: %w", s.Name(), ErrInvalid, err)
			}
			for _, h := range s.hooks.Before {
				err := s.run(ctx, func(ctx context.Context) error { return h.Run(ctx, s.Name(), data) })
				if err != nil && ctx.Err() != nil {
					return fmt.Errorf("append %q: %w", s.Name(), context.Cause(ctx))
				} else if err != nil {
					return veto(h.ID, err)
				}
			}
		}
		return nil
	}
	receipt, err := s.Stream.Append(ctx, b)
	if err != nil || receipt.Repeated {
		return receipt, err
	}
	ctx = context.WithoutCancel(ctx) // what is durable is told of, also where the caller has gone
	for _, event := range receipt.Events {
		for _, h := range s.hooks.After {
			if err := s.run(ctx, func(ctx context.Context) error { return h.Run(ctx, s.Name(), event) }); err != nil {
				s.hooks.Log.Error("after hook failed", "hook", h.ID, "stream", s.Name(), "offset", event.Offset.String(), "error", err)
			}
		}
	}
	return receipt, nil
}

// veto makes a before hook's error a *HookError; one that it made itself keeps its message.
func veto(id string, err error) error {
	if own, ok := errors.AsType[*HookError](err); ok {
		return own
	}
	return &HookError{HookID: id, Message: err.Error()}
}

// run waits for the hook or for its timeout. The goroutine is for hooks that do not look at their context.
func (s *hooked) run(ctx context.Context, hook func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.hooks.Timeout, fmt.Errorf("no answer in %v", s.hooks.Timeout))
	defer cancel()
	result := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				result <- fmt.Errorf("panic: %v", p)
			}
		}()
		result <- hook(ctx)
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
