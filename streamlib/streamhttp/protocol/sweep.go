package protocol

import (
	"context"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// A Handler is a retention.Keeper: what is over goes, and so do claims of forks that there are not.

// lookAgain is how often the forks of a stream are looked for: they may be deleted natively.
const lookAgain = 10 * time.Minute

// Names is for the first look at what there is.
func (h *Handler) Names(ctx context.Context, after string, limit int) ([]string, error) {
	return h.config.Names(ctx, after, limit)
}

// note notes that a stream is to be looked at.
func (h *Handler) note(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changed[name] = true
}

// Changed returns the names of the streams that are to be looked at since it was called last.
func (h *Handler) Changed() (names []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name := range h.changed {
		names = append(names, name)
	}
	clear(h.changed)
	return names
}

// Apply does to the stream what is due, and returns when it is to be looked at again, zero where it need not be.
func (h *Handler) Apply(ctx context.Context, info streamlib.Info) (next time.Time, err error) {
	if !info.Exists() {
		h.forget(info.Name)
		return next, nil
	}
	n := parseNote(info.Note)
	if len(n.Forks) > 0 {
		dead, err := h.dead(ctx, &n)
		if err == nil && len(dead) > 0 {
			err = h.release(ctx, info.Name, dead...)
		}
		if err != nil || len(dead) > 0 {
			return time.Now(), err
		}
		next = time.Now().Add(lookAgain)
	}
	switch {
	case n.Deleted && len(n.Forks) == 0:
		return next, h.collect(ctx, info, n)
	case n.Deleted:
		return next, nil
	case h.over(info, &n):
		if err = h.expire(ctx, info, n); err == errAgain {
			return time.Now().Add(time.Second), nil
		}
		return next, err
	}
	if end := h.ends(info, &n); !end.IsZero() && (next.IsZero() || end.Before(next)) {
		next = end
	}
	return next, nil
}
