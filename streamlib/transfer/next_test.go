package transfer_test

import (
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/transfer"
	"github.com/matryer/is"
)

// TestAdd: what comes next is added to exactly what stands before it, and to nothing else.
func TestAdd(t *testing.T) {
	event := func(o int) streamlib.Event {
		e, err := streamlib.ParseRecord([]byte(`{"offset":"` + streamlib.Offset(o).String() +
			`","eventStreamId":"s","data":1,"createdAt":"2024-01-08T00:00:00.000Z"`))
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	next := func(more bool, state streamlib.State, from, tail int) transfer.Next {
		n := transfer.Next{Stream: "s", State: state, More: more, Tail: streamlib.Offset(tail)}
		for o := from; o < tail; o++ {
			n.Events = append(n.Events, event(o))
		}
		return n
	}
	type state = streamlib.State
	first := next(false, state{Life: 3}, 0, 4)
	for _, test := range []struct {
		what   string
		before []transfer.Next
		next   transfer.Next
		added  bool
		want   streamlib.Info
	}{
		{"nothing, of nothing", nil, transfer.Next{Stream: "s"}, true, streamlib.Info{}},
		{"a stream", nil, first, true, streamlib.Info{State: state{Life: 3}, Tail: 4}},
		{"one that begins later", nil, next(false, state{First: 2, Keys: "{}"}, 2, 4), true,
			streamlib.Info{State: state{First: 2, Keys: "{}"}, Tail: 4}},
		{"one of which the first are missing", nil, next(false, state{First: 2}, 3, 4), false, streamlib.Info{}},
		{"a note alone", nil, next(false, state{Note: "1", Held: true}, 0, 0), true,
			streamlib.Info{State: state{Note: "1", Held: true}}},
		{"more, with what is ahead of it", nil, next(true, state{Note: "1", Held: true, Closed: true}, 0, 2), true,
			streamlib.Info{Tail: 2}},
		{"what follows", []transfer.Next{first}, next(false, state{Life: 3, Note: "1"}, 4, 6), true,
			streamlib.Info{State: state{Life: 3, Note: "1"}, Tail: 6}},
		{"the end", []transfer.Next{first}, next(false, state{Life: 3, Closed: true}, 4, 4), true,
			streamlib.Info{State: state{Life: 3, Closed: true}, Tail: 4}},
		{"a trim", []transfer.Next{first}, next(false, state{Life: 3, First: 3, Keys: "{}"}, 4, 5), true,
			streamlib.Info{State: state{Life: 3, First: 3, Keys: "{}"}, Tail: 5}},
		{"a trim of a closed one", []transfer.Next{next(false, state{Closed: true}, 0, 4)},
			next(false, state{First: 3, Closed: true}, 4, 4), true,
			streamlib.Info{State: state{First: 3, Closed: true}, Tail: 4}},
		{"a deletion", []transfer.Next{first}, transfer.Next{Stream: "s"}, true, streamlib.Info{}},
		{"the next life", []transfer.Next{first}, next(false, state{Life: 7}, 0, 1), true,
			streamlib.Info{State: state{Life: 7}, Tail: 1}},
		{"the end of the next life", []transfer.Next{first}, next(false, state{Life: 7}, 3, 5), false, streamlib.Info{}},
		{"what it has", []transfer.Next{first}, next(false, state{Life: 3}, 3, 5), false,
			streamlib.Info{State: state{Life: 3}, Tail: 4}},
		{"what leaves a gap", []transfer.Next{first}, next(false, state{Life: 3}, 5, 6), false,
			streamlib.Info{State: state{Life: 3}, Tail: 4}},
		{"an earlier life", []transfer.Next{first}, next(false, state{Life: 2}, 4, 5), false,
			streamlib.Info{State: state{Life: 3}, Tail: 4}},
		{"to what is closed", []transfer.Next{next(false, state{Closed: true}, 0, 1)}, next(false, state{}, 1, 2), false,
			streamlib.Info{State: state{Closed: true}, Tail: 1}},
		{"to what was trimmed further", []transfer.Next{first, next(false, state{Life: 3, First: 3}, 4, 4)},
			next(false, state{Life: 3, First: 2}, 4, 5), false, streamlib.Info{State: state{Life: 3, First: 3}, Tail: 4}},
	} {
		t.Run(test.what, func(t *testing.T) {
			is := is.New(t)
			to := memory.New()
			for _, n := range test.before {
				added, err := transfer.Add(t.Context(), to, n)
				is.NoErr(err)
				is.True(added)
			}
			added, err := transfer.Add(t.Context(), to, test.next)
			is.NoErr(err)
			is.Equal(added, test.added)
			info, err := to.Stat(t.Context(), "s")
			is.NoErr(err)
			is.Equal(info.Exists(), test.want.Exists())
			if info.Exists() {
				is.Equal(info.Tail, test.want.Tail)
				info.UpdatedAt = test.want.UpdatedAt
				is.Equal(info.State, test.want.State)
			}
		})
	}
}
