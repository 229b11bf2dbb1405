package disk

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/iterate/durable-streams/streamlib"
)

// fact is one event of a stream as the test knows it.
type fact struct {
	append int    // which append it is of
	data   string // what was sent
	event  string // what came back, "" until something did
}

// state is what a stream may be.
type state struct {
	life   int // counts deletions
	facts  []fact
	first  int // of facts that is kept
	closed bool
	note   string
}

// has tells whether the append is there, or was before its events were dropped: its key is still known.
func (s *state) has(append int) bool {
	return slices.ContainsFunc(s.facts, func(f fact) bool { return f.append == append })
}

func (s *state) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "life %d, from %d, closed %v, note %s:", s.life, s.first, s.closed, s.note)
	for _, f := range s.facts {
		data, _, _ := strings.Cut(f.data, `,"x"`)
		fmt.Fprintf(&b, " %s", data)
	}
	return b.String()
}

// truth is what a stream may be: more than one state where the outcome of an append or a deletion is open.
type truth struct {
	name   string
	states []*state
	keyed  []sent        // what may be sent again
	lives  map[int]int64 // what the store calls them
}

// sent is an append that had a key.
type sent struct {
	append int
	key    string
	data   []string
}

// attempt is one call that may change a stream.
type attempt struct {
	t      *truth
	append int
	before []*state
	added  []*state
}

// appends begins an append of data, behind which the stream may be closed, and with which it may be noted: from now on
// it may be there.
func (t *truth) appends(append_ int, data []string, closes bool, note string) attempt {
	a := attempt{t: t, append: append_, before: slices.Clone(t.states)}
	for _, s := range t.states {
		if s.has(append_) || s.closed {
			continue
		}
		with := &state{s.life, slices.Clone(s.facts), s.first, closes, cmp.Or(note, s.note)}
		for _, d := range data {
			with.facts = append(with.facts, fact{append_, d, ""})
		}
		a.added = append(a.added, with)
	}
	t.states = append(t.states, a.added...)
	return a
}

// notes begins to note something without an append.
func (t *truth) notes(note string) attempt {
	a := attempt{t: t, before: slices.Clone(t.states)}
	for _, s := range t.states {
		a.added = append(a.added, &state{s.life, slices.Clone(s.facts), s.first, s.closed, note})
	}
	t.states = append(t.states, a.added...)
	return a
}

// trims begins a trim. An append whose outcome was open before may come behind it.
func (t *truth) trims(before int) attempt {
	a := attempt{t: t, before: slices.Clone(t.states)}
	for _, s := range t.states {
		for _, shorter := range t.states {
			if n := len(shorter.facts); n <= len(s.facts) && shorter.life <= s.life {
				first := max(s.first, min(before, n))
				a.added = append(a.added, &state{s.life, slices.Clone(s.facts), first, s.closed, s.note})
			}
		}
	}
	t.states = append(t.states, a.added...)
	return a
}

// done: the attempt changed what it was to change.
func (a attempt) done(what string) error {
	a.t.keep(a.added, always)
	return a.t.sane(what)
}

// deletes begins a deletion.
func (t *truth) deletes() attempt {
	a := attempt{t: t, before: slices.Clone(t.states)}
	life := 0
	for _, s := range t.states {
		life = max(life, s.life)
	}
	a.added = []*state{{life: life + 1}}
	t.states = append(t.states, a.added...)
	return a
}

// keep drops the states that are not in list or that say no.
func (t *truth) keep(list []*state, ok func(*state) bool) {
	t.states = slices.DeleteFunc(slices.Clone(t.states), func(s *state) bool {
		return !slices.Contains(list, s) || !ok(s)
	})
}

func always(*state) bool { return true }

// refused: the attempt changed nothing.
func (a attempt) refused() error {
	a.t.keep(a.before, always)
	return a.t.sane("a refusal")
}

// late: the stream was closed before.
func (a attempt) late() error {
	life := 0
	for _, s := range a.before {
		if s.closed {
			life = max(life, s.life)
		}
	}
	a.t.keep(a.before, func(s *state) bool { return s.closed || s.life > life }) // a deletion may come yet
	return a.t.sane("that it is closed")
}

// acknowledged: the events are where the receipt says.
func (a attempt) acknowledged(r streamlib.Receipt) error {
	from, life := a.added, 0
	if r.Repeated {
		from = a.before
		for _, s := range from {
			if s.has(a.append) {
				life = max(life, s.life)
			}
		}
	}
	a.t.keep(from, func(s *state) bool {
		first := int(r.Events[0].Offset)
		if r.Repeated && s.life > life {
			return true // a deletion whose outcome was open before may come yet
		}
		if !r.Repeated && len(s.facts) != first+len(r.Events) || first+len(r.Events) > len(s.facts) {
			return false
		}
		for i, e := range r.Events {
			f := &s.facts[first+i]
			if f.append != a.append || f.data != string(e.Data()) || int(e.Offset) != first+i ||
				f.event != "" && f.event != e.String() {
				return false
			}
			f.event = e.String()
		}
		return true
	})
	return a.t.sane(fmt.Sprintf("the acknowledgement%s (repeated: %v)", brief(r.Events), r.Repeated))
}

func (t *truth) sane(what string) error {
	if len(t.states) == 0 {
		return fmt.Errorf("stream %q: %s cannot be", t.name, what)
	}
	return nil
}

// matches tells whether the events are the state's, from one on that may have been kept.
func (s *state) matches(events []streamlib.Event) bool {
	if len(events) == 0 {
		return true
	}
	first := int(events[0].Offset)
	if first+len(events) > len(s.facts) || first > s.first {
		return false
	}
	for i, e := range events {
		if f := s.facts[first+i]; int(e.Offset) != first+i || f.data != string(e.Data()) ||
			f.event != "" && f.event != e.String() {
			return false
		}
	}
	return true
}

// served: what a reader saw must be durable, unless the stream is deleted afterwards.
func (t *truth) served(events []streamlib.Event) error {
	if len(events) == 0 {
		return nil
	}
	life, found := 0, false
	for _, s := range t.states {
		if s.matches(events) {
			life, found = s.life, true
		}
	}
	if !found {
		return fmt.Errorf("stream %q: a reader was served what cannot be:%s\nit may be %v",
			t.name, brief(events), t.states)
	}
	t.states = slices.DeleteFunc(slices.Clone(t.states), func(s *state) bool {
		return s.life <= life && !s.matches(events)
	})
	for _, s := range t.states {
		for i, e := range events {
			if s.life <= life {
				s.facts[int(events[0].Offset)+i].event = e.String()
			}
		}
	}
	return nil
}

// found: this is all of the stream, after a start.
func (t *truth) found(events []streamlib.Event, info streamlib.Info) error {
	var misnamed error // which of two that look alike it is, its life tells
	for _, s := range t.states {
		if len(s.facts) == s.first+len(events) && s.matches(events) && int(info.First) == s.first &&
			info.Closed == s.closed && info.Note == s.note && int(info.Tail) == len(s.facts) {
			if err := t.lived(s, info.Life); err != nil {
				misnamed = err
				continue
			}
			t.states = []*state{s}
			return t.served(events)
		}
	}
	if misnamed != nil {
		return misnamed
	}
	return fmt.Errorf("stream %q: after the start there is %+v:%s\nthere may be %v", t.name, info, brief(events),
		t.states)
}

// lived: what the store calls a life of the stream, it calls no other.
func (t *truth) lived(s *state, life int64) error {
	if len(s.facts) == 0 && !s.closed && s.note == "" {
		return nil
	}
	if t.lives == nil {
		t.lives = map[int]int64{}
	}
	if known, ok := t.lives[s.life]; ok && known != life {
		return fmt.Errorf("stream %q: its life is %d, and was %d", t.name, life, known)
	}
	for other, called := range t.lives {
		if other != s.life && called == life {
			return fmt.Errorf("stream %q: two of its lives are called %d", t.name, life)
		}
	}
	t.lives[s.life] = life
	return nil
}
