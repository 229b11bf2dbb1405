package disk

import (
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
	life  int // counts deletions
	facts []fact
}

func (s *state) has(append int) bool {
	return slices.ContainsFunc(s.facts, func(f fact) bool { return f.append == append })
}

func (s *state) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "life %d:", s.life)
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
	keyed  []sent // what may be sent again
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

// appends begins an append of data: from now on it may be there.
func (t *truth) appends(append_ int, data []string) attempt {
	a := attempt{t: t, append: append_, before: slices.Clone(t.states)}
	for _, s := range t.states {
		if s.has(append_) {
			continue
		}
		with := &state{s.life, slices.Clone(s.facts)}
		for _, d := range data {
			with.facts = append(with.facts, fact{append_, d, ""})
		}
		a.added = append(a.added, with)
	}
	t.states = append(t.states, a.added...)
	return a
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

func (a attempt) deleted() error {
	a.t.keep(a.added, always)
	return a.t.sane("a deletion")
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

// matches tells whether the events are the state's first ones.
func (s *state) matches(events []streamlib.Event) bool {
	if len(events) > len(s.facts) {
		return false
	}
	for i, e := range events {
		if f := s.facts[i]; int(e.Offset) != i || f.data != string(e.Data()) ||
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
				s.facts[i].event = e.String()
			}
		}
	}
	return nil
}

// found: this is all of the stream, after a start.
func (t *truth) found(events []streamlib.Event) error {
	for _, s := range t.states {
		if len(s.facts) == len(events) && s.matches(events) {
			t.states = []*state{s}
			return t.served(events)
		}
	}
	return fmt.Errorf("stream %q: after the start there is%s\nthere may be %v", t.name, brief(events), t.states)
}
