package streamlib

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"time"
)

// What a stream does where its storage has other writers. Its own commits are decided on what it knows, and the storage
// refuses them where that is not all: then it takes in what the others did, and decides again.

// What an append may take of the 8 s within which it is answered.
const (
	lostTime   = 3 * time.Second         // to be tried again, where others forestall it
	keyTime    = 5 * time.Second         // to read keys, of what is read once for all
	claimTime  = 3 * time.Second         // to know that its key is new; what is left is the commit's
	answerTime = 7500 * time.Millisecond // to know what was appended with it
)

// errSlow says that what an append wants to know of its key took too long, and that it is to be sent again. What was
// read by then is known.
var errSlow = fmt.Errorf("%w: the keys of the stream's last events are still being read", ErrUnavailable)

// patient bounds how long an append looks for its key.
func (s *core) patient(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	if s.others == nil {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, most, errSlow)
}

// put is the storage's Commit of a change that was decided on the tail and the state.
func (s *core) put(c Change, tail Offset, was *State) error {
	if s.others != nil {
		c.If = &Info{Name: s.name, Tail: tail, State: *was}
	}
	return s.storage.Commit(context.Background(), s.name, c)
}

// stored is the storage's Read of the given life.
func (s *core) stored(ctx context.Context, from, to Offset, life int64) iter.Seq2[[]Event, error] {
	if s.others != nil {
		return s.others.ReadLife(ctx, s.name, life, from, to)
	}
	return s.storage.Read(ctx, s.name, from, to)
}

// lost tells whether a commit that ended with err is to be decided again, for others were first; what they did is known
// then. Try counts the tries, and who has lost often waits for longer.
func (s *core) lost(err error, try int) bool {
	if _, conflict := errors.AsType[*ConflictError](err); s.others == nil || !conflict && err != errStale {
		return false
	}
	if err == errStale {
		s.sure = true
		return s.refresh() == nil
	}
	s.sure = true
	if try == 1 || s.losing.IsZero() {
		s.losing = time.Now()
	} else if time.Since(s.losing) > lostTime {
		return false
	}
	time.Sleep(rand.N(time.Millisecond << min(try, 6)))
	return s.refresh() == nil
}

// errStale says that what is refused, or trimmed, is to be decided on what the storage has now.
var errStale = fmt.Errorf("%w: what others did is not known", ErrUnavailable)

// refresh takes in what others have done. It is called by who commits.
func (s *core) refresh() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.loaded
	s.loaded = false
	err := s.load()
	s.loaded = s.loaded || known && s.lived // followers go on while the storage does not answer
	return err
}

// looks answers who only wants to know what others did, all at once, and returns the rest of the batch.
func (s *core) looks(batch []*appending) (rest []*appending) {
	if s.others == nil {
		return batch
	}
	looked, err := false, error(nil)
	for _, a := range batch {
		switch {
		case a.op != "look":
			rest = append(rest, a)
		case !looked:
			looked, err = true, s.refresh()
			fallthrough
		default:
			a.err = err
		}
	}
	return rest
}

// fresh returns when the stream is known as it was when it was called, or later.
func (s *core) fresh(ctx context.Context) error {
	if s.others == nil {
		return nil
	}
	a := &appending{op: "look"}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	s.commits.Do(a)
	if _, damaged := errors.AsType[*CorruptError](a.err); damaged {
		return nil // what stands before it still reads
	}
	return a.err
}

// listen takes in what others do until the function that it returns is called.
func (s *core) listen() (deaf func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var listening sync.WaitGroup
	listening.Go(func() {
		for s.others.Changed(ctx, s.name) == nil {
			_ = s.fresh(ctx) // if not now, the next time
		}
	})
	return func() {
		cancel()
		listening.Wait()
	}
}
