package streamlib

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"sync"
	"time"

	"github.com/iterate/durable-streams/streamlib/budget"
)

// A key is remembered for this many of the stream's last events, or for this many bytes of them.
const (
	keyEvents = 10_000
	keyBytes  = 64 << 20
)

const (
	windowCost = 512 // bytes that one takes, about, beside its keys
	keyCost    = 40  // bytes that a key takes in it, about
	loadAtOnce = 8   // windows are read at once, for what is read takes memory too
	loadFirst  = 16  // events are read first, and four times as many each time then
)

// windows are those of a manager's streams, by name. They have one bound together, and chance says which one makes
// room for another: where more streams take turns than have room, the one that was not used for longest would
// always be the next.
type windows struct {
	seed  maphash.Seed
	most  int           // bytes that they may take
	turns chan struct{} // one for each that is being read

	mu    sync.Mutex // guards what follows and what is in each; taken after a stream's own
	of    map[string]*window
	bytes int
}

// A window knows which of a stream's last events were appended with a key: by the key's hash the last one of its
// append. The event has the key itself. That two keys of a window have one hash happens once in 10^11 windows; the
// older is forgotten then.
type window struct {
	young, old map[uint64]Offset
	since      Offset        // where young begins
	unread     *unread       // what it lacks yet of the storage's events, nil when it is whole
	loading    chan struct{} // closed when who reads them stops; then nil
}

// An unread is how far the reading of a window's events has come. It goes backwards in steps, and forwards in each, so
// that it reads no more than about the window however large the events are, and goes on where it stopped.
type unread struct {
	from, at, to Offset // the step, and where what is to be read of it begins
	events       Offset // that were read
	size         int    // of those, in bytes
}

func newWindows(b *budget.Budget) *windows {
	k := &windows{seed: maphash.MakeSeed(), turns: make(chan struct{}, loadAtOnce), of: map[string]*window{}}
	k.most = int(b.Windows(k.held))
	return k
}

func (k *windows) held() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return int64(k.bytes)
}

func (w *window) size() int { return windowCost + keyCost*(len(w.young)+len(w.old)) }

// find returns the last event that was appended with the key, unknown where there is none; or else a channel that
// is closed when it is to be called again, or a window that the caller is to load before.
func (k *windows) find(name, key string, tail Offset) (last Offset, wait <-chan struct{}, load *window) {
	k.mu.Lock()
	defer k.mu.Unlock()
	last = unknown
	w := k.of[name]
	if w != nil && w.loading != nil {
		return unknown, w.loading, nil
	}
	if w != nil && w.unread == nil {
		h, ok := maphash.String(k.seed, key), false
		if last, ok = w.young[h]; !ok {
			if last, ok = w.old[h]; !ok || last < tail-keyEvents {
				last = unknown
			}
		}
	}
	if w == nil || w.unread == nil && last >= tail { // or it is of a file that was there before
		k.drop(name)
		w = &window{young: map[uint64]Offset{}, since: tail}
		w.unread = &unread{from: tail, at: tail, to: tail}
		k.of[name] = w
		k.bytes += w.size()
	}
	if w.unread != nil {
		w.loading = make(chan struct{})
		return unknown, nil, w
	}
	return last, nil, nil
}

// lacks tells that the stream's window is there, and that no append in it had the key.
func (k *windows) lacks(name, key string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	w, h := k.of[name], maphash.String(k.seed, key)
	if w == nil || w.unread != nil {
		return false
	}
	_, young := w.young[h]
	_, old := w.old[h]
	return !young && !old
}

// add notes an append with a key, where the stream has a window.
func (k *windows) add(name, key string, last Offset) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.of[name]
	if w == nil {
		return
	}
	k.bytes -= w.size()
	if last-w.since >= keyEvents {
		w.old, w.young, w.since = w.young, map[uint64]Offset{}, last
	}
	w.young[maphash.String(k.seed, key)] = last
	k.bytes += w.size()
	k.shrink(w)
}

// loaded puts what was found in the storage into the window, which begins at since and lacks what is unread.
func (k *windows) loaded(name string, w *window, found map[uint64]Offset, since Offset, left *unread) {
	k.mu.Lock()
	defer k.mu.Unlock()
	close(w.loading)
	w.loading = nil
	if k.of[name] != w { // forgotten meanwhile
		return
	}
	k.bytes -= w.size()
	maps.Copy(found, w.old) // found before, or appended meanwhile
	maps.Copy(found, w.young)
	w.young, w.old, w.since, w.unread = found, nil, since, left
	k.bytes += w.size()
	k.shrink(w)
}

// remove lets the stream's window forget a key.
func (k *windows) remove(name, key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.of[name]; w != nil {
		k.bytes -= w.size()
		h := maphash.String(k.seed, key)
		delete(w.young, h)
		delete(w.old, h)
		k.bytes += w.size()
	}
}

// forget drops the stream's window.
func (k *windows) forget(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop(name)
}

// drop is forget for who holds mu.
func (k *windows) drop(name string) {
	if w := k.of[name]; w != nil {
		k.bytes -= w.size()
		delete(k.of, name)
	}
}

// shrink makes room, not at the cost of w or of what is being loaded. The caller holds mu.
func (k *windows) shrink(w *window) {
	for name, other := range k.of { // begins anywhere
		if k.bytes <= k.most {
			return
		}
		if other != w && other.loading == nil {
			k.drop(name)
		}
	}
}

// place is what lookUp found out about a key.
type place struct {
	wait <-chan struct{} // closed when it is to be looked up again
	load *window         // for the caller to load, who then looks it up again
	last Offset          // else: of the events that were appended with it, unknown where the key is the caller's now
	life int
	tail Offset

	imports int64   // that there had been
	first   Offset  // that is kept
	dropped dropped // where repeats
	repeats bool
}

// claim returns the events of a's key where it was used, else it holds the key until release is called: a twin waits
// here for the outcome.
func (s *core) claim(ctx context.Context, a *appending) (events []Event, release func(), err error) {
	waiting, cancel := s.patient(ctx, answerTime)
	defer cancel()
	begun := time.Now()
	took := func(most time.Duration) bool { return s.others != nil && time.Since(begun) > most }
	for looked := s.others == nil; ; {
		p, err := s.lookUp(a.key)
		free := err == nil && p.wait == nil && p.load == nil && !p.repeats && p.last == unknown
		switch late := took(claimTime); {
		case err != nil:
		case p.wait != nil:
			select {
			case <-p.wait:
			case <-waiting.Done():
				err = context.Cause(waiting)
			}
		case p.load != nil:
			err = s.loadKeys(waiting, p)
		case free && !late:
			a.imports = p.imports
			return nil, func() { s.unclaim(a.key) }, nil
		case free:
			s.unclaim(a.key)
			err = errSlow
		case !looked && late: // what it is to look at may take as long again
			err = errSlow
		case !looked: // it may be over elsewhere
			looked, err = true, s.fresh(ctx)
		case p.repeats:
			if events, err = s.repeats(a, p.dropped); err == nil {
				return events, nil, nil
			}
		default:
			if events, err = s.original(waiting, a, p); err == nil {
				return events, nil, nil
			}
		}
		if _, gone := errors.AsType[*GoneError](err); errors.Is(err, ErrDeleted) || gone && s.others != nil {
			if err = errSlow; !took(keyTime) {
				err = s.fresh(ctx) // others deleted or trimmed it
			}
		}
		switch {
		case err == nil, err == errAgain:
			continue
		case ctx.Err() == nil && !errors.Is(err, ErrKeyReused):
			err = unavailable(err)
		}
		return nil, nil, fmt.Errorf("append %q: %w", s.name, err)
	}
}

// lookUp finds the key, or holds it for the caller.
func (s *core) lookUp(key string) (place, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if twin, ok := s.claimed[key]; ok {
		return place{wait: twin}, nil
	}
	if err := s.load(); err != nil {
		return place{}, err
	}
	p := place{life: s.life, tail: s.tail, imports: s.imports.Load()}
	p.last, p.wait, p.load = s.shared.keys.find(s.name, key, s.tail)
	if p.first = s.state.First; p.last < p.first {
		p.last = unknown
	}
	if p.wait == nil && p.load == nil && p.last == unknown {
		if p.dropped, p.repeats = s.findDropped(key); p.repeats {
			return p, nil
		}
		if s.claimed == nil {
			s.claimed = map[string]chan struct{}{}
		}
		s.claimed[key] = make(chan struct{})
	}
	return p, nil
}

func (s *core) unclaim(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.claimed[key])
	delete(s.claimed, key)
}

// errAgain says that a key is to be looked up again.
var errAgain = errors.New("look the key up again")

// original returns the events that were appended with a's key, the last of them at p, where a repeats them.
func (s *core) original(ctx context.Context, a *appending, p place) (events []Event, err error) {
	n := Offset(len(a.data))
	_, err = s.read(ctx, max(p.first, p.last-n), p.last+1, p.life, func(batch []Event, _ error) bool { // and the one before
		events = append(events, batch...)
		return true
	})
	if err != nil {
		return nil, err
	}
	first := len(events)
	for first > 0 && events[first-1].Key() == a.key {
		first--
	}
	if first == len(events) { // another key of the same hash
		s.shared.keys.remove(s.name, a.key)
		return nil, errAgain
	}
	events = events[first:]
	dropped := len(a.data) - len(events) // of those that it repeats
	same := dropped == 0 || dropped > 0 && events[0].Offset == p.first && p.first >= Offset(dropped)
	for i := 0; same && i < len(events); i++ {
		same = bytes.Equal(events[i].Data(), a.data[dropped+i])
	}
	if !same {
		return nil, fmt.Errorf("%w: %q", ErrKeyReused, a.key)
	}
	return append(s.again(a, p.first, dropped, events[0].CreatedAt()), events...), nil
}

// again makes the first n events of a's again, which were dropped, before the offset first: a repeat has their data.
func (s *core) again(a *appending, first Offset, n int, created time.Time) []Event {
	events := make([]Event, n)
	for i, data := range a.data[:n] {
		record := appendRecord(nil, first-Offset(n-i), s.quoted, data, appendTime(nil, created), a.key)
		events[i], _ = ParseRecord(record)
	}
	return events
}

// loadKeys reads the keys of the last events before p.tail, while nobody waits who has no key. It goes on when the
// caller leaves: others want it. What was read until it fails stays read.
func (s *core) loadKeys(ctx context.Context, p place) error {
	keys, begin := s.shared.keys, max(p.first, p.tail-keyEvents)
	found, left, whole := map[uint64]Offset{}, *p.load.unread, false
	defer func() {
		rest := &left
		if whole {
			rest = nil
		}
		keys.loaded(s.name, p.load, found, max(begin, left.from), rest)
	}()
	select {
	case keys.turns <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-keys.turns }()
	ctx, cancel := s.patient(context.WithoutCancel(ctx), keyTime)
	defer cancel()
	for {
		for left.at = max(left.at, begin); left.at < left.to; left.at = left.to {
			_, err := s.read(ctx, left.at, left.to, p.life, func(events []Event, _ error) bool {
				for _, e := range events {
					left.size += len(e.Record())
					if key := e.Key(); key != "" {
						h := maphash.String(keys.seed, key)
						found[h] = max(found[h], e.Offset)
					}
				}
				left.at += Offset(len(events))
				left.events += Offset(len(events))
				return true
			})
			if err != nil {
				return err
			}
		}
		if whole = left.from <= begin || left.size >= keyBytes; whole {
			return nil
		}
		step := Offset(loadFirst)
		if left.events > 0 {
			step = min(4*(left.to-left.from), max(1, keyBytes/4/(Offset(left.size)/left.events)))
		}
		left.from, left.to = max(begin, left.from-step), left.from
		left.at = left.from
	}
}
