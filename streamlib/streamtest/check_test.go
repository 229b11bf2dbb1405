package streamtest

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/matryer/is"
)

// TestCheck gives the judge histories with one thing wrong each.
func TestCheck(t *testing.T) {
	stored := func(values ...string) (list []streamlib.Event) {
		for i, v := range values {
			list = append(list, event("s", i, v, moment(i)))
		}
		return list
	}
	abc := stored(`"a"`, `"b"`, `"c"`)
	lost := errors.New("no answer")
	refusal := &streamlib.ConflictError{}
	for name, test := range map[string]struct {
		stored  []streamlib.Event
		appends []Append
		runs    []Run
		want    string // "" where nothing is wrong
	}{
		"nothing": {},
		"acknowledged": {abc, []Append{
			{Data: streamlib.JSON(` "a"`), Sent: 1, Answered: 2, Events: abc[:1]},
			{Data: streamlib.JSON(`"b"`, `"c" `), Sent: 3, Answered: 4, Events: abc[1:]},
		}, []Run{{streamlib.Beginning, abc}, {1, abc[1:]}, {streamlib.Now, abc[2:]}, {7, nil}}, ""},
		"open outcomes": {abc[:2], []Append{
			{Data: streamlib.JSON(`"a"`, `"b"`), Sent: 1, Err: lost}, {Data: streamlib.JSON(`"x"`, `"y"`), Sent: 2,
				Err: lost}, {Data: streamlib.JSON(`"z"`), Err: refusal},
		}, nil, ""},
		"at once, in either order": {abc[:2], []Append{
			{Data: streamlib.JSON(`"b"`), Sent: 1, Answered: 3, Events: abc[1:2]}, {Data: streamlib.JSON(`"a"`), Sent: 2,
				Answered: 4, Events: abc[:1]},
		}, nil, ""},
		"a repeat": {abc[:2], []Append{
			{Data: streamlib.JSON(`"a"`), Key: "k", Sent: 1, Err: lost},
			{Data: streamlib.JSON(`"b"`), Sent: 2, Answered: 3, Events: abc[1:2]},
			{Data: streamlib.JSON(`"a"`), Key: "k", Sent: 4, Answered: 5, Events: abc[:1]},
			{Data: streamlib.JSON(`"a"`), Key: "k", Sent: 6, Err: refusal},
		}, nil, ""},
		"gap": {abc[1:], nil, nil, "offset 1 stands where 0 should"},
		"time": {[]streamlib.Event{event("s", 0, "1", moment(1)), event("s", 1, "2", moment(0))}, nil, nil,
			"created before"},
		"twice": {stored(`"a"`, `"a"`), nil, nil, "are one event"},
		"lost": {abc[:1], []Append{{Data: streamlib.JSON(`"a"`), Events: abc[:1]},
			{Data: streamlib.JSON(`"b"`), Events: abc[1:2]}}, nil, "acknowledged and lost"},
		"elsewhere": {abc[:1], []Append{{Data: streamlib.JSON(`"a"`),
			Events: []streamlib.Event{event("s", 1, `"a"`, moment(0))}}}, nil, "acknowledged as"},
		"other time": {abc[:1], []Append{{Data: streamlib.JSON(`"a"`),
			Events: []streamlib.Event{event("s", 0, `"a"`, moment(7))}}}, nil, "acknowledged as"},
		"too few": {abc[:1], []Append{{Data: streamlib.JSON(`"a"`), Events: []streamlib.Event{}}}, nil,
			"acknowledged as"},
		"part":       {abc[:1], []Append{{Data: streamlib.JSON(`"a"`, `"b"`), Err: lost}}, nil, "in part"},
		"other part": {abc[:1], []Append{{Data: streamlib.JSON(`"0"`, `"a"`), Err: lost}}, nil, "in part"},
		"torn": {abc, []Append{{Data: streamlib.JSON(`"a"`, `"c"`), Err: lost},
			{Data: streamlib.JSON(`"b"`), Err: lost}}, nil, "torn"},
		"turned":     {abc[:2], []Append{{Data: streamlib.JSON(`"b"`, `"a"`), Err: lost}}, nil, "torn"},
		"refused":    {abc[:1], []Append{{Data: streamlib.JSON(`"a"`), Err: refusal}}, nil, "refused and stored"},
		"never sent": {abc, []Append{{Data: streamlib.JSON(`"a"`), Err: lost}}, nil, "2 of 3 stored events were never sent"},
		"wrong order": {abc[:2], []Append{{Data: streamlib.JSON(`"b"`), Sent: 1, Answered: 2, Events: abc[1:2]},
			{Data: streamlib.JSON(`"a"`), Sent: 3, Answered: 4, Events: abc[:1]}}, nil, "acknowledged before"},
		"open before": {abc[:2], []Append{{Data: streamlib.JSON(`"b"`), Sent: 1, Answered: 2, Events: abc[1:2]},
			{Data: streamlib.JSON(`"a"`), Sent: 3, Err: lost}}, nil, "acknowledged before"},
		"two places": {abc[:1], []Append{{Data: streamlib.JSON(`"a"`), Key: "k", Events: abc[:1]},
			{Data: streamlib.JSON(`"a"`), Key: "k", Events: abc[1:2]}}, nil, `key "k" was acknowledged as`},
		"no history": {abc[:1], []Append{{Data: streamlib.JSON(`"a"`), Err: lost},
			{Data: streamlib.JSON(`"a"`), Err: lost}}, nil, "cannot be judged"},
		"run began": {abc[:1], []Append{{Data: streamlib.JSON(`"a"`)}}, []Run{{1, abc[:1]}}, "began at 0"},
		"run late": {abc, []Append{{Data: streamlib.JSON(`"a"`, `"b"`, `"c"`)}},
			[]Run{{streamlib.Beginning, abc[1:]}}, "began at 1"},
		"run gap": {abc, []Append{{Data: streamlib.JSON(`"a"`, `"b"`, `"c"`)}},
			[]Run{{0, []streamlib.Event{abc[0], abc[2]}}}, "yielded 2 where 1"},
		"run repeat": {abc, []Append{{Data: streamlib.JSON(`"a"`, `"b"`, `"c"`)}},
			[]Run{{0, []streamlib.Event{abc[0], abc[0]}}}, "yielded 0 where 1"},
		"run beyond": {abc[:1], []Append{{Data: streamlib.JSON(`"a"`)}}, []Run{{0, abc}}, "what is not there"},
		"run other":  {abc[:1], []Append{{Data: streamlib.JSON(`"a"`)}}, []Run{{0, stored(`"z"`)}}, "stored is"},
	} {
		err := Check(test.stored, test.appends, test.runs...)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestRecorder(t *testing.T) {
	is := is.New(t)
	s := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{}).Stream("s")
	var r Recorder
	ctx, cancel := context.WithCancel(t.Context())
	_, err := r.Append(ctx, s, streamlib.Batch{Data: streamlib.JSON("1"), Key: "k"})
	is.NoErr(err)
	_, err = r.Append(ctx, s, streamlib.Batch{Data: streamlib.JSON("2"), IfTail: new(streamlib.Offset)})
	is.True(err != nil)
	cancel()
	_, err = r.Append(ctx, s, streamlib.Batch{Data: streamlib.JSON("3")})
	is.True(err != nil)
	got := r.Appends()
	is.Equal(len(got), 3)
	is.True(got[0].Key == "k" && got[0].Sent < got[0].Answered && got[0].Answered < got[1].Sent && len(got[0].Events) == 1)
	is.True(refused(got[1].Err) && got[1].Events == nil)
	is.True(!refused(got[2].Err))
	is.NoErr(Check(read(t, s, 0, streamlib.MaxOffset), got))
}
