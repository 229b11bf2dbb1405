package budget

import (
	"context"
	"time"
)

// step is what a reader takes for what it reads and writes next: what a storage reads at once, and what it is made into
// for the client.
const step = 512 << 10

// turnsKey is for the turns of a context.
type turnsKey struct{}

type turns struct {
	share    *Share
	patience time.Duration
}

// WithTurns returns a context for reading of streams in which whoever reads takes turns in the share; it waits for the
// first one no longer than patience, where that is not 0. It is for who reads and writes on, and reads nothing else
// meanwhile: who waited for a second turn while he has one might wait for himself.
func WithTurns(ctx context.Context, s *Share, patience time.Duration) context.Context {
	return context.WithValue(ctx, turnsKey{}, turns{s, patience})
}

// A Turn is a reader's. Nil is one that needs no room.
type Turn struct {
	hold Hold
	size int64
}

// TakeTurn waits for one, where the context has turns. It tells whether there is room.
func TakeTurn(ctx context.Context) (t *Turn, ok bool) {
	of, limited := ctx.Value(turnsKey{}).(turns)
	if !limited {
		return nil, true
	}
	t = &Turn{hold: of.share.Hold(), size: step}
	return t, t.hold.Grow(ctx, t.size, Whole, of.patience)
}

// Has says how many bytes were read at once.
func (t *Turn) Has(n int64) {
	if t != nil {
		t.size = max(step, 2*n)
		t.hold.Force(t.size)
	}
}

// Wanted tells whether others wait for a turn: whoever has one lets go of all that he has read, and calls Next.
func (t *Turn) Wanted() bool {
	if t == nil {
		return false
	}
	t.hold.share.mu.Lock()
	defer t.hold.share.mu.Unlock()
	return t.hold.share.waiting.Len() > 0
}

// Next gives the turn back where it is wanted and waits for another one as large. It tells whether it came before ctx
// was done.
func (t *Turn) Next(ctx context.Context) bool {
	if !t.Wanted() {
		return true
	}
	t.hold.Release()
	return t.hold.Grow(ctx, t.size, Whole, 0)
}

// End gives the turn back.
func (t *Turn) End() {
	if t != nil {
		t.hold.Release()
	}
}
