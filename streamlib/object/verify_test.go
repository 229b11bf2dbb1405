package object

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// TestVerify reads a place before and after it is collected, and with each kind of damage.
func TestVerify(t *testing.T) {
	is := is.New(t)
	f, s, clock := clocked(t)
	s.blocks = blocks{4, 2}
	for i := range 70 {
		is.NoErr(put(s, i))
	}
	is.NoErr(s.Commit(t.Context(), "a", streamlib.Change{State: &streamlib.State{First: 35}}))
	for i := range 10 {
		is.NoErr(s.Commit(t.Context(), "a", streamlib.Change{Events: []streamlib.Event{event(70 + i)}}))
	}
	sum, err := s.Verify(t.Context(), nil)
	is.NoErr(err)
	is.Equal([]int{sum.Streams, int(sum.Events), sum.Objects, sum.Overlaps, len(sum.Damage), len(sum.Unread)},
		[]int{1, 80, 81, 0, 0, 0})
	before := maps.Clone(f.objects)
	keys := slices.Clone(f.keys)
	tidy(t, s, clock)
	sum, err = s.Verify(t.Context(), nil)
	is.NoErr(err)
	is.Equal([]int{int(sum.Events), sum.Overlaps, len(sum.Damage)}, []int{45, 0, 0})
	is.True(sum.Objects < 20)
	after := maps.Clone(f.objects)
	left := slices.Clone(f.keys)

	// What a collector that crashed did not remove overlaps.
	at := s.key("a", position{0, 50, 0})
	is.True(before[at].body != nil && after[at].body == nil)
	f.objects[at] = before[at]
	f.keys = slices.Insert(f.keys, slices.IndexFunc(f.keys, func(k string) bool { return k > at }), at)
	sum, err = s.Verify(t.Context(), nil)
	is.NoErr(err)
	is.Equal([]int{int(sum.Events), sum.Overlaps, len(sum.Damage)}, []int{45, 1, 0})

	damaged := func(objects map[string]stored, keys []string, key string, body []byte, says string) {
		t.Helper()
		f.objects, f.keys = maps.Clone(objects), slices.Clone(keys)
		if is := f.objects[key]; body != nil {
			is.body = body
			f.objects[key] = is
		} else {
			delete(f.objects, key)
			f.keys = slices.DeleteFunc(f.keys, func(k string) bool { return k == key })
		}
		sum, err := s.Verify(t.Context(), nil)
		is.NoErr(err)
		if len(sum.Damage) == 0 || !strings.Contains(sum.Damage[0].Error(), says) {
			t.Errorf("%s: %v", says, sum.Damage)
		}
	}
	damaged(before, keys, at, nil, "are missing")
	damaged(before, keys, at, before[s.key("a", position{0, 51, 0})].body, "begins at 51")
	whole := before[at].body
	for i := 0; i < len(whole); i += 37 {
		flipped := slices.Clone(whole)
		flipped[i] ^= 1
		damaged(before, keys, at, flipped, "corrupt")
	}
	for _, key := range left { // no object that has events can be missing, but the last
		if p, err := parsePosition(strings.TrimPrefix(key, s.dir("a"))); err == nil && p.first < 79 && p.first >= 35 {
			damaged(after, left, key, nil, "are missing")
		}
	}
}
