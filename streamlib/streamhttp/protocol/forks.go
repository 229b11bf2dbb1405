package protocol

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// claimTime is how long a claim may be one of a fork that another server is making.
const claimTime = 10 * time.Minute

// change decides on the stream's note, and whether it is held, alone.
func (h *Handler) change(ctx context.Context, name string, closes bool,
	decide func(*note, streamlib.Offset, *streamlib.State) error) (streamlib.Receipt, error) {
	return h.streams.Stream(name).Append(ctx, streamlib.Batch{Close: closes,
		Decide: func(tail streamlib.Offset, state *streamlib.State) error {
			n := parseNote(state.Note)
			if err := decide(&n, tail, state); err != nil {
				return err
			}
			n.change()
			state.Note, state.Held = n.text, len(n.Forks) > 0
			return nil
		}})
}

// remove deletes the stream, or where forks need it marks it as deleted.
func (h *Handler) remove(w http.ResponseWriter, r *http.Request, name string) error {
	for range tries {
		info, n, err := h.look(r.Context(), name)
		if err != nil {
			return err
		}
		stream := h.streams.Stream(name)
		err = h.discard(r.Context(), info, n, func() error {
			if n.Fork != nil {
				return stream.DeleteIf(r.Context(), info.Tail, info.Life)
			}
			return stream.Delete(r.Context())
		})
		if err == nil {
			w.WriteHeader(http.StatusNoContent)
		}
		if err != errAgain {
			return err
		}
	}
	return errBusy
}

// expire is remove of a stream that is over. Where it is used again meanwhile, it stays, and the error is errAgain.
func (h *Handler) expire(ctx context.Context, info streamlib.Info, n note) error {
	return h.discard(ctx, info, n, func() error {
		if !h.over(info, &n) {
			return errAgain
		}
		return h.streams.Stream(info.Name).DeleteIf(ctx, info.Tail, info.Life)
	})
}

// discard deletes the stream by remove, or where forks need it marks it as deleted. Its error is errAgain where the
// stream is not any more what was looked at. A fork goes before its source forgets it: what a crash leaves is a
// claim of a fork that there is not.
func (h *Handler) discard(ctx context.Context, info streamlib.Info, n note, remove func() error) error {
	if len(n.Forks) > 0 {
		dead, err := h.dead(ctx, &n)
		if err == nil && len(dead) > 0 {
			err = h.release(ctx, info.Name, dead...)
		}
		switch {
		case err != nil:
			return err
		case len(dead) == len(n.Forks):
			return errAgain
		}
		_, err = h.change(ctx, info.Name, true, func(now *note, tail streamlib.Offset, state *streamlib.State) error {
			if now.ID != n.ID || state.Life != info.Life || len(now.Forks) == 0 {
				return errAgain
			}
			now.Deleted = true
			return nil
		})
		if errors.Is(err, errAgain) {
			return errAgain
		}
		return err
	}
	err := remove()
	if _, conflict := errors.AsType[*streamlib.ConflictError](err); conflict || errors.Is(err, streamlib.ErrHeld) {
		return errAgain
	} else if err != nil {
		return err
	}
	h.forget(info.Name)
	if n.Fork != nil {
		return h.release(ctx, n.Fork.Source, n.ID)
	}
	return nil
}

// dead returns the IDs of the forks that there are not: that were not made, or that are gone.
func (h *Handler) dead(ctx context.Context, n *note) (ids []string, err error) {
	for _, c := range n.Forks {
		h.mu.Lock()
		alive := h.making[c.ID]
		h.mu.Unlock()
		if alive || h.config.Shared && time.Since(time.Unix(c.At, 0)) < claimTime {
			continue
		}
		info, err := h.streams.Stream(c.Name).Stat(ctx)
		if err != nil {
			return nil, err
		}
		if fork := parseNote(info.Note); fork.ID != c.ID {
			ids = append(ids, c.ID)
		}
	}
	return ids, nil
}

// release lets the source forget forks, and takes it away where it was kept for them alone.
func (h *Handler) release(ctx context.Context, source string, ids ...string) error {
	var was note
	receipt, err := h.change(ctx, source, false, func(n *note, _ streamlib.Offset, _ *streamlib.State) error {
		kept := slices.DeleteFunc(slices.Clone(n.Forks), func(c claim) bool { return slices.Contains(ids, c.ID) })
		if len(kept) == len(n.Forks) {
			return errNone
		}
		n.Forks, was = kept, *n
		was.Forks = kept
		return nil
	})
	if errors.Is(err, errNone) {
		return nil
	}
	if err != nil || !was.Deleted || len(was.Forks) > 0 {
		return err
	}
	info := streamlib.Info{Name: source, Tail: receipt.Tail, State: streamlib.State{Life: receipt.Life}}
	return h.collect(ctx, info, was)
}

// collect takes away a stream that was kept for forks, of which there are none any more. It is closed, and nobody
// forks it, so it is what it was.
func (h *Handler) collect(ctx context.Context, info streamlib.Info, n note) error {
	err := h.streams.Stream(info.Name).DeleteIf(ctx, info.Tail, info.Life)
	if _, conflict := errors.AsType[*streamlib.ConflictError](err); err != nil && !conflict {
		return err
	}
	h.forget(info.Name)
	if n.Fork != nil {
		return h.release(ctx, n.Fork.Source, n.ID)
	}
	return nil
}

func (h *Handler) forget(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.used, name)
}
