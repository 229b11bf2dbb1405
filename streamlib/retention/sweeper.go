package retention

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

const (
	every     = time.Second            // it looks at what has changed
	atLeast   = 100 * time.Millisecond // between two looks, also where much comes
	settle    = 5 * time.Second        // between two times that a stream is trimmed, unless it grows fast
	again     = time.Minute            // until what failed is tried again
	summary   = time.Minute            // between two that are logged
	workTime  = 100 * time.Millisecond // of streams that are due, and of those at the start, until it rests
	pageNames = 10_000                 // that are listed at once
)

// A Keeper has rules of its own for some streams, as package protocol has for those with a TTL.
type Keeper interface {
	// Names returns in byte order up to limit names of streams that are behind after: all for which it may have a rule,
	// and maybe others. It is asked at the start.
	Names(ctx context.Context, after string, limit int) ([]string, error)

	// Changed returns the names of streams whose rule may be a new one, or may be due, since it was last called.
	Changed() []string

	// Apply does to a stream what is due, and returns when it is to be looked at next, zero where it need not be. The
	// stream may be one that there is not.
	Apply(ctx context.Context, info streamlib.Info) (next time.Time, err error)
}

// A Sweeper applies rules to the streams of a manager. Its fields are set before Run is called, once.
type Sweeper struct {
	Manager *streamlib.Manager
	Retain  Rules            // what goes of streams
	Expire  Rules            // which streams go, by when they were appended to
	Keeper  Keeper           // nil is none
	Now     func() time.Time // the manager's clock; nil is time.Now
	Log     *slog.Logger     // nil discards

	begun   time.Time
	first   pass
	ages    schedule            // when an age of a stream comes up, by Now
	waiting schedule            // until when streams wait that were trimmed or have failed, by steady
	failing map[string]struct{} // those that have failed
	sum     sum

	trims, events, deleted, failed atomic.Int64 // see Totals
}

// Totals are what a Sweeper has done since its Run began.
type Totals struct {
	Trims   int64 // how often the oldest events of a stream went
	Events  int64 // that went so
	Deleted int64 // streams to which nobody had appended
	Failing int64 // streams that failed when they were looked at last, and are tried again
}

// Totals returns what was done until now, without what the Keeper did. It may be called at any time, by many
// goroutines at once.
func (s *Sweeper) Totals() Totals {
	return Totals{s.trims.Load(), s.events.Load(), s.deleted.Load(), s.failed.Load()}
}

// sum is what was done since it was logged.
type sum struct {
	logged          time.Time
	trimmed, events int64
	expired         int64
}

// Run applies the rules until ctx is done; where there are none it returns. What goes wrong it logs and tries again.
func (s *Sweeper) Run(ctx context.Context) {
	rules := len(s.Retain.rules)+len(s.Expire.rules) > 0
	if !rules && s.Keeper == nil {
		return
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	s.begun, s.failing = time.Now(), map[string]struct{}{}
	s.first = newPass(s.Manager.List, s.Retain, s.Expire)
	changed, much := func() []string { return nil }, (<-chan struct{})(nil)
	if rules {
		watch := s.Manager.Watch(s.much()) // before the first look, so that there is nothing between them
		defer watch.Close()
		changed, much = watch.Streams, watch.Much
	}
	var kept pass
	if s.Keeper != nil {
		kept = pass{patterns: []rule{{prefix: true}}, keeper: true, names: func(ctx context.Context, _, after string,
			limit int) ([]string, error) {
			return s.Keeper.Names(ctx, after, limit)
		}}
	}
	defer s.summarize()
	for ctx.Err() == nil {
		begun := time.Now()
		for _, name := range changed() {
			s.changed(ctx, name, false)
		}
		if s.Keeper != nil {
			for _, name := range s.Keeper.Changed() {
				s.changed(ctx, name, true)
			}
		}
		more := s.due(ctx)
		more = s.first.step(ctx, s) || more
		more = kept.step(ctx, s) || more
		if time.Since(s.sum.logged) >= summary {
			s.summarize()
		}
		rest := every
		if more {
			rest = atLeast
		}
		rest = min(max(rest, time.Since(begun)), settle)
		wait(ctx, min(rest, atLeast), nil)
		wait(ctx, rest-atLeast, much)
	}
}

// steady is a clock that is never set.
func (s *Sweeper) steady() time.Time { return s.begun.Add(time.Since(s.begun)) }

// wait waits for the time, or until there is something in early.
func wait(ctx context.Context, d time.Duration, early <-chan struct{}) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-early:
	case <-ctx.Done():
	}
}

// much is what brings a stream that was last seen below half over a bound up to twice the bound.
func (s *Sweeper) much() (events int, bytes int64) {
	for _, r := range s.Retain.rules {
		if n := int((r.bounds.Events + 1) / 2); n > 0 && (events == 0 || n < events) {
			events = n
		}
		if n := (r.bounds.Bytes + 1) / 2; n > 0 && (bytes == 0 || n < bytes) {
			bytes = n
		}
	}
	return events, bytes
}

// changed looks at a stream that was appended to, closed, trimmed or deleted, or that the keeper tells.
func (s *Sweeper) changed(ctx context.Context, name string, keeper bool) {
	_, failing := s.failing[name]
	if !failing || !s.waiting.has(name) {
		s.look(ctx, name, keeper)
	}
}

// due looks at the streams whose time has come, and tells whether there are more.
func (s *Sweeper) due(ctx context.Context) (more bool) {
	begun, now, steady := time.Now(), s.Now(), s.steady()
	for time.Since(begun) < workTime && ctx.Err() == nil {
		again, waited := s.waiting.next(steady)
		if waited {
			s.look(ctx, again, true)
		}
		name, old := s.ages.next(now)
		if old {
			s.look(ctx, name, true)
		}
		if !waited && !old {
			return false
		}
	}
	return true
}

// look does to a stream what its rules say, and notes when it is to be looked at next unless it changes. Keeper says
// that the keeper may have one.
func (s *Sweeper) look(ctx context.Context, name string, keeper bool) {
	keep, unused := s.Retain.Of(name), s.Expire.Of(name).Age
	ruled := keep != (Bounds{}) || unused > 0
	if keeper = keeper && s.Keeper != nil; !ruled && !keeper || ctx.Err() != nil {
		return
	}
	defer func() { s.failed.Store(int64(len(s.failing))) }()
	stream := s.Manager.Stream(name)
	info, err := stream.Stat(ctx)
	if err == nil && info.Damage != nil {
		err = info.Damage // who repairs it may want what is old
	}
	var next time.Time
	if err == nil && s.Keeper != nil {
		if next, err = s.Keeper.Apply(ctx, info); err == nil && !next.IsZero() {
			next = s.Now().Add(time.Until(next)) // by this clock
		}
	}
	switch {
	case err != nil:
	case !info.Exists():
		s.forget(name)
		return
	case ruled:
		var at time.Time
		if at, err = s.apply(ctx, stream, info, keep, unused); next.IsZero() || !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	_, conflict := errors.AsType[*streamlib.ConflictError](err)
	_, gone := errors.AsType[*streamlib.GoneError](err)
	switch {
	case ctx.Err() != nil:
		return
	case conflict, gone: // it is not any more what was looked at
		next = s.Now()
	case err != nil:
		if _, known := s.failing[name]; !known {
			s.Log.Warn("retention waits for a stream, and will be tried again", "stream", name, "error", err)
		}
		s.failing[name] = struct{}{}
		s.waiting.set(name, s.steady().Add(again))
		s.ages.remove(name)
		return
	}
	if delete(s.failing, name); next.IsZero() {
		s.ages.remove(name)
		return
	}
	if soonest := s.Now().Add(time.Millisecond); next.Before(soonest) { // not in this sweep again
		next = soonest
	}
	s.ages.set(name, next)
}

func (s *Sweeper) forget(name string) {
	delete(s.failing, name)
	s.ages.remove(name)
	s.waiting.remove(name)
}

// apply deletes or trims the stream where that is due, and returns when its next age comes up, zero where none does.
func (s *Sweeper) apply(ctx context.Context, stream streamlib.Stream, info streamlib.Info, keep Bounds,
	unused time.Duration) (next time.Time, err error) {
	now := s.Now()
	if info.Held { // nothing goes while others need it
		return next, nil
	}
	if unused > 0 && !info.UpdatedAt.IsZero() {
		if next = over(info.UpdatedAt, unused); !now.Before(next) {
			return time.Time{}, s.expire(ctx, stream, info)
		}
	}
	before, err := s.cut(ctx, stream, info, keep, now)
	if err != nil {
		return next, err
	}
	if before > info.First {
		return next, s.trim(ctx, stream, info, before) // its first event's age comes up when it is looked at again
	}
	if keep.Age > 0 && info.First < info.Tail && !s.waiting.has(info.Name) {
		if at := over(info.CreatedAt, keep.Age); next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next, nil
}

// over returns when what was created then, as its rounded time says, is over the age.
func over(created time.Time, age time.Duration) time.Time { return created.Add(age + time.Millisecond) }

// cut returns the first event that is within the bounds, or info.First where what is not is to wait.
func (s *Sweeper) cut(ctx context.Context, stream streamlib.Stream, info streamlib.Info, keep Bounds, now time.Time) (
	before streamlib.Offset, err error) {
	before = info.First
	kept := int64(info.Tail - info.First)
	if kept == 0 {
		return before, nil
	}
	if s.waiting.has(info.Name) && !high(kept, keep.Events) && !high(info.Size, keep.Bytes) {
		return before, nil
	}
	if keep.Events > 0 && kept > keep.Events {
		before = info.Tail - streamlib.Offset(keep.Events)
	}
	if keep.Bytes > 0 && info.Size > keep.Bytes {
		last, err := s.Manager.Last(ctx, info.Name, keep.Bytes)
		if err != nil {
			return before, err
		}
		before = max(before, last)
	}
	if keep.Age > 0 && !now.Before(over(info.CreatedAt, keep.Age)) {
		young, err := streamlib.Since(ctx, stream, now.Add(-keep.Age).Truncate(time.Millisecond))
		if err != nil {
			return before, err
		}
		before = max(before, young)
	}
	return before, nil
}

// high tells whether there is so much more than is kept that it does not wait.
func high(there, bound int64) bool { return bound > 0 && there-bound >= bound/2 && there > bound }

func (s *Sweeper) trim(ctx context.Context, stream streamlib.Stream, info streamlib.Info,
	before streamlib.Offset) error {
	if err := stream.TrimIf(ctx, before, info.Life); err != nil {
		return err
	}
	s.waiting.set(info.Name, s.steady().Add(settle))
	s.sum.trimmed++
	s.sum.events += int64(before - info.First)
	s.trims.Add(1)
	s.events.Add(int64(before - info.First))
	s.Log.Debug("dropped the oldest events", "stream", info.Name, "before", before.String(), "events", before-info.First)
	return nil
}

func (s *Sweeper) expire(ctx context.Context, stream streamlib.Stream, info streamlib.Info) error {
	if err := stream.DeleteIf(ctx, info.Tail, info.Life); err != nil {
		return err
	}
	s.forget(info.Name)
	s.sum.expired++
	s.deleted.Add(1)
	s.Log.Debug("deleted a stream that nobody appends to", "stream", info.Name, "tail", info.Tail.String(), "updatedAt",
		info.UpdatedAt)
	return nil
}

// summarize logs what was done since it last did.
func (s *Sweeper) summarize() {
	if s.sum.trimmed > 0 || s.sum.expired > 0 {
		s.Log.Info("dropped what is kept no longer", "trimmed", s.sum.trimmed, "events", s.sum.events, "deleted",
			s.sum.expired)
		s.sum = sum{logged: time.Now()}
	}
}

// pass is the first look at all streams that have a rule.
type pass struct {
	names    func(ctx context.Context, prefix, after string, limit int) ([]string, error)
	keeper   bool   // the rule may be the keeper's
	patterns []rule // that are still to be listed
	after    string
	page     []string // that are still to be looked at
	failed   bool     // to be listed
}

// newPass returns one that comes by each name once.
func newPass(names func(ctx context.Context, prefix, after string, limit int) ([]string, error), rules ...Rules) pass {
	p := pass{names: names}
	for _, r := range rules {
		p.patterns = append(p.patterns, r.rules...)
	}
	slices.SortFunc(p.patterns, func(a, b rule) int { return a.rank() - b.rank() })
	all := p.patterns
	p.patterns = nil
	for _, r := range all {
		if !slices.ContainsFunc(p.patterns, func(wide rule) bool {
			return wide.name == r.name && !r.prefix || wide.prefix && strings.HasPrefix(r.name, wide.name)
		}) {
			p.patterns = append(p.patterns, r)
		}
	}
	return p
}

// step looks at some streams, and tells whether there are more.
func (p *pass) step(ctx context.Context, s *Sweeper) (more bool) {
	begun := time.Now()
	for {
		for ; len(p.page) > 0; p.page = p.page[1:] {
			if time.Since(begun) >= workTime || ctx.Err() != nil {
				return true
			}
			s.look(ctx, p.page[0], p.keeper)
		}
		if p.page = nil; len(p.patterns) == 0 || !p.list(ctx, s) {
			return false
		}
	}
}

// list reads the next page; where it has the last of a pattern, that is done. It tells whether it could.
func (p *pass) list(ctx context.Context, s *Sweeper) bool {
	r := p.patterns[0]
	if !r.prefix {
		p.page, p.patterns = []string{r.name}, p.patterns[1:]
		return true
	}
	page, err := p.names(ctx, r.name, p.after, pageNames)
	if err != nil {
		if !p.failed && ctx.Err() == nil {
			s.Log.Warn("retention cannot list the streams, and will try it again", "error", err)
		}
		p.failed = true
		return false
	}
	if p.page = page; len(page) < pageNames {
		p.patterns, p.after = p.patterns[1:], ""
	} else {
		p.after = page[len(page)-1]
	}
	return true
}
