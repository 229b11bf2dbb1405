package retention

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// Bounds say how much of a stream is kept; what is 0 bounds nothing.
type Bounds struct {
	Age    time.Duration // of an event
	Events int64
	Bytes  int64 // of the events, as Info.Size counts them
}

// Rules have the bounds of streams by their names; the zero value has none. A stream has one rule: that for its very
// name, or else the one with the longest prefix.
type Rules struct {
	rules []rule // in the order in which they are tried
}

type rule struct {
	pattern string // before the =
	name    string
	prefix  bool // name is the beginning of names
	bounds  Bounds
}

// Retain reads rules for how much of a stream is kept. A rule is PREFIX*=BOUNDS for the streams whose names begin
// with PREFIX, so that * alone is all of them, or NAME=BOUNDS for one stream. Bounds are an age, a size and a number of
// events, or some of these, with commas between: 7d,1GB,100000. Ages are in s, m, h, d or w. Sizes are in B, in kB,
// MB, GB or TB, which are powers of 1000, or in KiB, MiB, GiB or TiB, which are powers of 1024. What is over any of
// the bounds goes.
func Retain(rules ...string) (Rules, error) { return parse(rules, false) }

// Expire reads rules for how long streams are kept that nobody appends to: PREFIX*=AGE or NAME=AGE.
func Expire(rules ...string) (Rules, error) { return parse(rules, true) }

func parse(texts []string, ageAlone bool) (r Rules, err error) {
	for _, text := range texts {
		read, err := parseRule(text)
		switch {
		case err != nil:
		case ageAlone && (read.bounds.Events > 0 || read.bounds.Bytes > 0):
			err = errors.New("a stream expires by an age alone, such as 30d")
		case slices.ContainsFunc(r.rules, func(other rule) bool { return other.pattern == read.pattern }):
			err = fmt.Errorf("there is another rule for %q", read.pattern)
		}
		if err != nil {
			return Rules{}, fmt.Errorf("%q: %w", text, err)
		}
		r.rules = append(r.rules, read)
	}
	slices.SortStableFunc(r.rules, func(a, b rule) int { return b.rank() - a.rank() })
	return r, nil
}

// rank orders the rules that match a name: no prefix is longer than the name.
func (r rule) rank() int {
	if r.prefix {
		return 2 * len(r.name)
	}
	return 2*len(r.name) + 1
}

// Of returns the bounds of the stream called name.
func (r Rules) Of(name string) Bounds {
	for _, rule := range r.rules {
		if rule.name == name || rule.prefix && strings.HasPrefix(name, rule.name) {
			return rule.bounds
		}
	}
	return Bounds{}
}

func parseRule(text string) (rule, error) {
	i := strings.LastIndexByte(text, '=') // names may have some, and bounds have none
	if i < 0 {
		return rule{}, errors.New("a rule is NAME=BOUNDS or PREFIX*=BOUNDS, and this one has no =")
	}
	r := rule{pattern: text[:i]}
	r.name, r.prefix = strings.CutSuffix(r.pattern, "*")
	switch {
	case r.pattern == "":
		return r, errors.New("no stream is named; * is for all of them")
	case strings.Contains(r.name, "*"):
		return r, fmt.Errorf("%q: a * stands at the end of a prefix, and nowhere else", r.pattern)
	case r.name != "":
		if err := streamlib.CheckName(r.name); err != nil {
			return r, err
		}
	}
	for part := range strings.SplitSeq(text[i+1:], ",") {
		if err := r.bounds.add(part); err != nil {
			return r, fmt.Errorf("%q: %w", part, err)
		}
	}
	return r, nil
}

// units are what a number in a rule may have behind it, without one it counts events.
var units = map[string]struct {
	ages bool
	size int64 // in bytes or nanoseconds
}{
	"s": {true, int64(time.Second)}, "m": {true, int64(time.Minute)}, "h": {true, int64(time.Hour)},
	"d": {true, 24 * int64(time.Hour)}, "w": {true, 7 * 24 * int64(time.Hour)},
	"B": {false, 1}, "kB": {false, 1e3}, "MB": {false, 1e6}, "GB": {false, 1e9}, "TB": {false, 1e12},
	"KiB": {false, 1 << 10}, "MiB": {false, 1 << 20}, "GiB": {false, 1 << 30}, "TiB": {false, 1 << 40},
}

// add reads one bound.
func (b *Bounds) add(text string) error {
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	unit, known := units[text[len(digits):]]
	n, err := strconv.ParseUint(digits, 10, 63) // takes no sign
	bound, kind := &b.Bytes, "size"
	switch {
	case len(digits) == len(text):
		bound, kind, unit.size, known = &b.Events, "number of events", 1, true
	case unit.ages:
		bound, kind = (*int64)(&b.Age), "age"
	}
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && known && int64(n) > math.MaxInt64/unit.size:
		return errors.New("it is too much")
	case err != nil:
		return errors.New("a bound is a whole number with a unit, such as 7d or 1GB, or a number of events")
	case !known:
		return fmt.Errorf("there is no unit %q: an age is in s, m, h, d or w, and a size in B, kB, MB, GB or TB, or in "+
			"KiB, MiB, GiB or TiB", text[len(digits):])
	case n == 0:
		return errors.New("it would keep nothing")
	case *bound != 0:
		return fmt.Errorf("there is another %s in this rule", kind)
	}
	*bound = int64(n) * unit.size
	return nil
}
