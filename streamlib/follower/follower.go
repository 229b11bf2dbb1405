package follower

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

const (
	tick      = time.Second            // between two looks at what was closed, trimmed or deleted
	longest   = 5 * time.Minute        // between two tries, about
	pageNames = 10_000                 // that are listed at once
	workTime  = 100 * time.Millisecond // of the first look at all streams, until it rests as long
)

// Options say what is handed over, and to whom.
type Options struct {
	Manager *streamlib.Manager
	Streams string // PREFIX* for the streams whose names begin with PREFIX, so that * is all of them; or one's NAME
	Path    string // of the cursor, in a folder that is there
	All     bool   // where there is no cursor yet, begin with all that is kept and not with what is appended from Open on
	States  bool   // hand over also what else changes of a stream: that it is closed, trimmed, noted, held or deleted

	// Deliver takes the changes, each stream's in order; what belongs to one stream stands in one of them. It is called
	// by one goroutine at a time, and again with the same where its error is not nil, after 1, 2 and 4 seconds, and then
	// after twice as long each time, up to five minutes, more or less. Between two tries the changes become others where
	// a stream was deleted or trimmed. With a *StreamsError only the changes of the streams that it names are tried
	// again, each stream after times of its own, and the others go on. ErrEnd ends the follower.
	Deliver func(ctx context.Context, changes []Change) error

	Bytes  int           // of events that are handed over at once, unless a single one has more; 0 is 1 MiB
	Gather time.Duration // how long an event waits for others; 0 is 20 ms
	Log    *slog.Logger  // nil discards
}

// A Change is what comes next of a stream.
type Change struct {
	Stream  string
	Deleted bool              // what was handed over of the stream is deleted; what stands here is of another life
	Events  []streamlib.Event // contiguous, as they stand in the storage
	Tail    streamlib.Offset  // behind the events; 0 where the stream is deleted, and there is no other
	More    bool              // the stream goes on there already

	// State is the stream's as it was when the events were read: it is closed only where these are its last ones, and
	// with More it tells of events that are still to come. The first events may be missing where State.First is beyond
	// what was handed over before.
	State streamlib.State
}

// ErrEnd is Deliver's where nothing is to be handed over any more.
var ErrEnd = errors.New("nothing more is wanted")

// A StreamsError is Deliver's where it has failed for some streams alone.
type StreamsError struct {
	Streams map[string]error // by name; not empty
}

func (e *StreamsError) Error() string {
	for name, err := range e.Streams {
		return fmt.Sprintf("%d streams, among them %q: %v", len(e.Streams), name, err)
	}
	return "no streams"
}

// A Follower hands changes over: see the package.
type Follower struct {
	o      Options
	prefix string // of Options.Streams
	many   bool   // streams may be meant
	watch  *streamlib.Watch
	cursor *cursor

	// What follows is Run's.
	waiting map[string]time.Time // streams that are to be looked at, and since when
	order   []string             // these, those that are next first
	failing map[string]*failure  // streams that have failed by themselves
	resting int                  // how many of these are not being tried
	retried time.Time            // when failing was looked at
	oldest  time.Time            // since when that waits which waits longest of failing; zero where none does
	first   pass
	unsaved bool // the cursor could not be written, and that was said

	flushes  chan chan struct{} // who waits in Flush comes with a channel to close
	flushing []chan struct{}    // Run's: these
	ended    chan struct{}      // closed when Run has returned

	mu     sync.Mutex // guards what follows
	status Status
	since  time.Time // what Behind is reckoned from; zero where nothing waits
}

type failure struct {
	tries int
	until time.Time // it rests, zero where it is being tried
	since time.Time // it has something
}

// Open reads the cursor, or makes it. From then on, no append to the streams goes unnoticed. Where it is made, it
// looks at each stream once unless Options.All says otherwise.
func Open(ctx context.Context, o Options) (*Follower, error) {
	if o.Bytes == 0 {
		o.Bytes = 1 << 20
	}
	if o.Gather == 0 {
		o.Gather = 20 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	f := &Follower{o: o, waiting: map[string]time.Time{}, failing: map[string]*failure{},
		flushes: make(chan chan struct{}), ended: make(chan struct{})}
	if f.prefix, f.many = strings.CutSuffix(o.Streams, "*"); !f.many || f.prefix != "" {
		if err := streamlib.CheckName(f.prefix); err != nil {
			return nil, err
		}
	}
	c, found, damaged, err := openCursor(o.Path)
	if err != nil {
		return nil, err
	}
	if damaged > 0 {
		o.Log.Warn("a cursor has damaged lines: events are handed over again", "file", o.Path, "lines", damaged)
	}
	f.cursor = c
	f.watch = o.Manager.Watch(1, 0, o.Streams)
	known := found || o.All
	if !known {
		err = f.begin(ctx)
	}
	if err == nil {
		err = c.flush()
	}
	if err != nil {
		f.close()
		return nil, fmt.Errorf("follow %q: %w", o.Streams, err)
	}
	if f.first.listed = !known; known {
		for name := range c.streams {
			f.first.names = append(f.first.names, name)
		}
	}
	f.status.Streams = len(c.streams)
	return f, nil
}

// begin notes where each stream ends.
func (f *Follower) begin(ctx context.Context) error {
	for after := ""; ; {
		names, more, err := f.list(ctx, after)
		if err != nil {
			return err
		}
		for _, name := range names {
			p := position{next: streamlib.Now} // where it is damaged: what is appended once it was repaired
			if info, err := f.o.Manager.Stream(name).Stat(ctx); err == nil {
				p = positionOf(info)
			} else if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if p.next != 0 || p.closed || p.note != "" {
				f.cursor.set(name, p)
			}
		}
		if !more {
			return nil
		}
		after = names[len(names)-1]
	}
}

// positionOf is where a stream is that was handed over whole.
func positionOf(info streamlib.Info) position {
	return position{info.Life, info.Tail, info.First, info.Closed, noteOf(info.State)}
}

// list returns the next names behind after, and whether there may be more.
func (f *Follower) list(ctx context.Context, after string) (names []string, more bool, err error) {
	if !f.many {
		return []string{f.prefix}, false, nil
	}
	names, err = f.o.Manager.List(ctx, f.prefix, after, pageNames)
	return names, len(names) == pageNames, err
}

// Run hands over until ctx is done, which is no error, or Deliver returns ErrEnd, which is returned. It is called
// once.
func (f *Follower) Run(ctx context.Context) error {
	defer close(f.ended)
	defer f.close()
	for ctx.Err() == nil {
		f.collect()
		more := f.first.step(ctx, f)
		b := f.batch(ctx)
		err := f.hand(ctx, b)
		f.save(f.cursor.flush())
		if err != nil {
			return err
		}
		if f.tell(nil); len(f.order) > 0 || more {
			continue
		}
		for _, done := range f.flushing {
			close(done)
		}
		f.flushing = nil
		if f.idle(ctx, tick, f.watch.Much) {
			f.idle(ctx, f.o.Gather, nil) // others come with it
		}
	}
	return nil
}

// idle waits for the time, and tells whether there was something in early before. Who flushes ends it.
func (f *Follower) idle(ctx context.Context, d time.Duration, early <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case done := <-f.flushes:
		f.flushing = append(f.flushing, done)
	case <-early:
		return true
	}
	return false
}

// Flush returns nil once all that was appended before it was called is handed over, but for streams that have failed
// by themselves. It ends with the context's cause, or when Run has ended. Any number of goroutines may call it while
// Run runs.
func (f *Follower) Flush(ctx context.Context) error {
	done := make(chan struct{})
	ask := f.flushes
	for {
		select {
		case ask <- done:
			ask = nil
		case <-done:
			return nil
		case <-f.ended:
			return errors.New("the follower has ended")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Anew forgets what was handed over: all that is kept is handed over again, as where there is no cursor and
// Options.All is set. Deliver may call it, and who calls Run before that.
func (f *Follower) Anew() {
	clear(f.cursor.streams)
	f.cursor.close() // so that it is written anew
	f.save(f.cursor.flush())
	f.first = pass{}
}

func (f *Follower) close() {
	f.watch.Close()
	f.cursor.close()
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// collect takes the streams that have changed, and those that have failed whose time has come.
func (f *Follower) collect() {
	now := time.Now()
	for _, name := range slices.Sorted(slices.Values(f.watch.Streams())) {
		f.push(name, now)
	}
	if now.Sub(f.retried) < tick {
		return
	}
	f.retried, f.oldest = now, time.Time{}
	for name, failure := range f.failing {
		f.oldest = earlier(f.oldest, failure.since)
		if !failure.until.IsZero() && !failure.until.After(now) {
			failure.until = time.Time{}
			f.resting--
			f.push(name, failure.since)
		}
	}
}

// rests tells whether a stream has failed and is not to be tried yet: it is looked at when it is.
func (f *Follower) rests(name string) bool {
	failure := f.failing[name]
	return failure != nil && !failure.until.IsZero()
}

// push lets a stream be looked at, unless that is going to be.
func (f *Follower) push(name string, since time.Time) {
	if _, there := f.waiting[name]; !there && !f.rests(name) {
		f.waiting[name] = since
		f.order = append(f.order, name)
	}
}

// pop returns the stream that is looked at next, and since when it has something.
func (f *Follower) pop() (name string, since time.Time) {
	name = f.order[0]
	if f.order = f.order[1:]; len(f.order) == 0 {
		f.order = nil
	}
	since = f.waiting[name]
	delete(f.waiting, name)
	return name, since
}

// fail lets a stream rest that has failed by itself.
func (f *Follower) fail(name string, since time.Time, err error) {
	failed := f.failing[name]
	if failed == nil {
		f.o.Log.Warn("a stream could not be handed over, and will be tried again", "follower", f.o.Streams, "stream", name,
			"error", err)
		failed = &failure{since: since}
		f.failing[name] = failed
	}
	failed.tries++
	failed.until = time.Now().Add(pause(failed.tries))
	f.resting++
}

// pause is how long the try after so many failed ones waits.
func pause(tries int) time.Duration {
	if tries <= 3 {
		return time.Second << (tries - 1)
	}
	d := min(time.Second<<min(tries-1, 20), longest)
	return time.Duration(float64(d) * (0.75 + rand.Float64()/2))
}

// hand delivers a batch, in as many tries as that takes, and notes it.
func (f *Follower) hand(ctx context.Context, b []part) error {
	if len(b) == 0 {
		return nil
	}
	changes := make([]Change, len(b))
	for i, p := range b {
		changes[i] = p.Change
	}
	f.announce(b)
	for try := 1; ; try++ {
		f.tell(b)
		err := f.o.Deliver(ctx, changes)
		failed, some := errors.AsType[*StreamsError](err)
		switch {
		case err == nil, some && len(failed.Streams) > 0:
			if try > 1 {
				f.o.Log.Info("handing over again", "follower", f.o.Streams, "tries", try)
			}
			f.settle(b, failed)
			return nil
		case errors.Is(err, ErrEnd):
			return err
		case ctx.Err() != nil:
			return nil
		}
		rest := pause(try)
		f.mu.Lock()
		f.status.Failures++
		f.status.Failing, f.status.NextTry = err.Error(), time.Now().Add(rest)
		f.mu.Unlock()
		if try == 1 {
			f.o.Log.Warn("events could not be handed over, and will be tried again", "follower", f.o.Streams, "error", err)
		}
		for until := time.Now().Add(rest); ctx.Err() == nil && time.Now().Before(until); {
			wait(ctx, min(tick, time.Until(until)))
			f.collect()
			f.tell(b)
		}
		if ctx.Err() == nil && !f.holds(ctx, b) {
			for _, p := range b {
				f.push(p.Stream, p.since)
			}
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// announce notes the streams that are handed over for the first time, durably, where their deletions are handed over
// too: else a stream whose lines a loss of power took could be deleted without anybody knowing that it was handed
// over.
func (f *Follower) announce(b []part) {
	fresh := false
	for _, p := range b {
		if _, known := f.cursor.streams[p.Stream]; f.o.States && !known && !p.none {
			fresh = true
			f.cursor.set(p.Stream, position{life: p.to.life, next: p.to.next - streamlib.Offset(len(p.Events))})
		}
	}
	if fresh {
		f.save(f.cursor.flush(), f.cursor.sync())
	}
}

// settle notes what was delivered, all of b but the streams in failed.
func (f *Follower) settle(b []part, failed *StreamsError) {
	events := int64(0)
	for _, p := range b {
		if failed != nil && failed.Streams[p.Stream] != nil {
			f.fail(p.Stream, p.since, failed.Streams[p.Stream])
			continue
		}
		events += int64(len(p.Events))
		f.note(p)
		if delete(f.failing, p.Stream); p.More {
			f.push(p.Stream, p.since)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Events += events
	if f.status.Batches++; failed != nil {
		f.status.Failures++
	}
	f.status.Failing, f.status.NextTry = "", time.Time{}
}

// note notes where a stream is, or that there is none.
func (f *Follower) note(p part) {
	if was, known := f.cursor.streams[p.Stream]; p.none && known {
		f.cursor.remove(p.Stream)
	} else if !p.none && (!known || was != p.to) {
		f.cursor.set(p.Stream, p.to)
	}
	if p.dropped == 0 {
		return
	}
	f.o.Log.Warn("events were dropped before they could be handed over", "follower", f.o.Streams, "stream", p.Stream,
		"events", int64(p.dropped))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Dropped += int64(p.dropped)
}

// save writes the cursor, and says when it cannot, and when it can again.
func (f *Follower) save(errs ...error) {
	err := errors.Join(errs...)
	if err != nil && !f.unsaved {
		f.o.Log.Error("what is handed over cannot be noted: after a restart it is handed over again", "file", f.o.Path,
			"error", err)
		f.unsaved = true
	} else if err == nil && f.cursor.file != nil && f.unsaved {
		f.o.Log.Info("what is handed over is noted again", "file", f.o.Path)
		f.unsaved = false
	}
}
