// Package mirror keeps a copy of all of a manager's streams in another storage, as an object store is: events with
// their offsets, times and keys, and that streams are closed, trimmed, noted, held and deleted.
//
//	m, err := mirror.Open(ctx, mirror.Options{
//		Manager: manager, Path: filepath.Join(dir, "mirror.cursor"), Target: openBucket,
//	})
//	if err != nil {
//		return err
//	}
//	m.Run(ctx)
//
// It is behind by half a second and what the target takes for two requests, and appends wait for nothing of it. Each
// stream in the target is as it was at a moment, and is never without an event that stands before one that it has.
// The moments of two streams are two.
//
// What was copied is noted by package follower, and what the target has is asked for before each change: a change is
// made only of a stream that is exactly what stands before it. So it does not matter where this process or the target
// ends, and what is noted may be lost. A target that is away, for a day too, costs the streams' names in memory, and
// gets what is kept then.
//
// Where a stream of the target is another one, as where somebody else has appended to it or the folder was restored
// from an older copy, it is left as it is, and the log and the status say so; the other streams go on.
package mirror

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/follower"
	"github.com/iterate/durable-streams/streamlib/transfer"
)

const (
	gather = 500 * time.Millisecond // that an event waits for others, which share its object
	bytes  = 4 << 20                // of events at once
	copies = 64                     // streams at once
)

// Options say what is copied, and where to.
type Options struct {
	Manager *streamlib.Manager
	Path    string // of the cursor, which belongs to the target, in a folder that is there

	// Target opens the storage that gets the copy. It is called by one goroutine at a time, and again, later, where its
	// error is not nil. Fresh says that it has nothing of what was copied before, as where it was emptied. Run closes
	// the storage.
	Target func(context.Context) (to streamlib.Storage, fresh bool, err error)
	Log    *slog.Logger // nil discards
}

// A Mirror copies: see the package.
type Mirror struct {
	*follower.Follower
	o      Options
	target streamlib.Storage // nil where it is still to be opened; Run's
}

// Open notes what is appended from then on; what there is it copies first. The target is opened by Run.
func Open(ctx context.Context, o Options) (m *Mirror, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	m = &Mirror{o: o}
	m.Follower, err = follower.Open(ctx, follower.Options{
		Manager: o.Manager, Streams: "*", Path: o.Path, All: true, States: true, Deliver: m.deliver,
		Bytes: bytes, Gather: gather, Log: o.Log,
	})
	return m, err
}

// Run copies until ctx is done. It is called once.
func (m *Mirror) Run(ctx context.Context) {
	if err := m.open(ctx); err != nil && ctx.Err() == nil { // who has nothing to copy yet shall know, too
		m.o.Log.Error("the mirror cannot be opened, and will be tried when there is something to copy", "error", err)
	}
	_ = m.Follower.Run(ctx) // which only deliver could end
	if m.target != nil {
		if err := m.target.Close(); err != nil {
			m.o.Log.Warn("the mirror was not closed", "error", err)
		}
	}
}

// open opens the target, unless it is open.
func (m *Mirror) open(ctx context.Context) error {
	if m.target != nil {
		return nil
	}
	to, fresh, err := m.o.Target(ctx)
	if err != nil {
		return err
	}
	if m.target = to; fresh {
		m.Anew()
	}
	return nil
}

// deliver brings changes of different streams into the target. Where one fails, it is the target's fault if that
// answers nothing else, or did none of several; else the stream's.
func (m *Mirror) deliver(ctx context.Context, changes []follower.Change) error {
	if err := m.open(ctx); err != nil {
		return err
	}
	var mu sync.Mutex // guards what follows
	failed := &follower.StreamsError{Streams: map[string]error{}}
	var outage, unclear error
	good := 0
	var copying sync.WaitGroup
	turns := make(chan struct{}, copies)
	for _, c := range changes {
		turns <- struct{}{}
		mu.Lock()
		ends := outage != nil || ctx.Err() != nil
		mu.Unlock()
		if ends {
			break
		}
		copying.Go(func() {
			defer func() { <-turns }()
			err := m.bring(ctx, c)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				good++
				return
			case its(err):
				good++
			case outage == nil && !m.answers(ctx):
				outage = err
			default:
				unclear = err
			}
			failed.Streams[c.Stream] = err
		})
	}
	copying.Wait()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case outage != nil:
		return outage
	case good == 0 && len(changes) > 1:
		return unclear
	case len(failed.Streams) > 0:
		return failed
	}
	return nil
}

// bring makes the target's stream what it is with the change.
func (m *Mirror) bring(ctx context.Context, c follower.Change) error {
	added, err := transfer.Add(ctx, m.target, transfer.Next{
		Stream: c.Stream, Events: c.Events, Tail: c.Tail, State: c.State, More: c.More,
	})
	if added || err != nil {
		return err
	}
	_, err = transfer.Copy(ctx, transfer.Streams{Manager: m.o.Manager}, m.target, c.Stream)
	return err
}

// its tells that an error is of the one stream.
func its(err error) bool {
	_, broken := errors.AsType[*transfer.BrokenError](err)
	_, corrupt := errors.AsType[*streamlib.CorruptError](err)
	return broken || corrupt || errors.Is(err, streamlib.ErrTooLarge) || errors.Is(err, streamlib.ErrInvalid)
}

// answers tells whether the target says anything at all.
func (m *Mirror) answers(ctx context.Context) bool {
	_, err := m.target.List(ctx, "", "", 1)
	return err == nil
}
