package object

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

func event(o int) streamlib.Event {
	data, at := fmt.Appendf(nil, `{"n":%d}`, o), time.Unix(1704672000, 0)
	record, err := streamlib.NewRecord(streamlib.Offset(o), "a", data, at)
	if err == nil {
		var e streamlib.Event
		if e, err = streamlib.ParseRecord(record); err == nil {
			return e
		}
	}
	panic(err)
}

func put(s *Storage, o int) error {
	return s.Commit(context.Background(), "a", streamlib.Change{Events: []streamlib.Event{event(o)}})
}

// TestFence stalls a writer for over an hour between what it knows and its request. Meanwhile another has written to its
// place, and that object was removed, as a collector does: the late write must not fill the hole.
func TestFence(t *testing.T) {
	t.Run("S3", func(t *testing.T) { testFence(t, newFake()) })
	t.Run("Google", func(t *testing.T) { testFence(t, newGoogle()) })
}

func testFence(t *testing.T, f *fake) {
	is := is.New(t)
	clock := time.Now()
	f.now = func() time.Time { return clock }
	other := openFake(t, f)
	stall := func() {}
	o := f.options()
	o.Keys = func(context.Context) (Keys, error) { stall(); return testKeys, nil }
	s, err := Open(t.Context(), o)
	is.NoErr(err)
	is.NoErr(put(s, 0))
	stall = func() {
		stall = func() {}
		clock = clock.Add(70 * time.Minute)
		is.NoErr(put(other, 1))
		is.NoErr(put(other, 2))
		_, err := other.c.do(t.Context(), http.MethodDelete, other.key("a", position{0, 1, 0}), nil, nil, "", time.Time{})
		is.NoErr(err)
	}
	err = put(s, 1)
	conflict, ok := errors.AsType[*streamlib.ConflictError](err)
	is.True(ok) // it was acknowledged where it is lost
	is.Equal(conflict.Tail, streamlib.Offset(3))
	is.NoErr(put(s, 3))
}

// TestFaults lets requests fail, and tells what is said and what is stored.
func TestFaults(t *testing.T) {
	always := func(status int, code string) func(int) (*http.Response, error) {
		return func(int) (*http.Response, error) { return answer(status, code, nil), nil }
	}
	for name, test := range map[string]struct {
		fault   func(n int) (*http.Response, error) // of the n-th PUT
		after   bool                                // it took effect
		refused bool
		stored  bool
	}{
		"forbidden":           {always(403, "AccessDenied"), false, true, false},
		"no bucket":           {always(404, "NoSuchBucket"), false, true, false},
		"slow down":           {always(503, "SlowDown"), false, true, false},
		"too many":            {always(429, "TooManyRequests"), false, true, false},
		"broken":              {always(500, "InternalError"), false, false, false},
		"no answer":           {func(int) (*http.Response, error) { return nil, errLost }, false, false, false},
		"the answer is lost":  {func(int) (*http.Response, error) { return nil, errLost }, true, false, true},
		"broken after it":     {always(500, "InternalError"), true, false, true},
		"a conflict with one": {always(409, "ConditionalRequestConflict"), true, false, true},
		"once": {func(n int) (*http.Response, error) {
			if n == 0 {
				return nil, errLost
			}
			return nil, nil
		}, false, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			f := newFake()
			s := openFake(t, f)
			is.NoErr(put(s, 0))
			n := 0
			f.fault = func(r *http.Request, after bool) (*http.Response, error) {
				if r.Method != http.MethodPut || after != test.after {
					return nil, nil
				}
				n++
				return test.fault(n - 1)
			}
			err := put(s, 1)
			f.fault = nil
			is.Equal(err == nil, test.stored)
			is.Equal(errors.Is(err, streamlib.ErrUnavailable), test.refused)
			if err != nil {
				is.True(!strings.Contains(err.Error(), testKeys.Secret))
			}
			info, err := s.Stat(t.Context(), "a")
			is.NoErr(err)
			want := streamlib.Offset(1)
			if test.stored {
				want = 2
			}
			is.Equal(info.Tail, want)
			is.NoErr(put(s, int(want)))
		})
	}
}

// TestDelayed lets a PUT arrive long after its writer gave it up and told that the outcome is open.
func TestDelayed(t *testing.T) {
	is := is.New(t)
	f := newFake()
	s := openFake(t, f)
	is.NoErr(put(s, 0))
	var late []*http.Request
	f.fault = func(r *http.Request, after bool) (*http.Response, error) {
		if r.Method != http.MethodPut {
			return nil, nil
		}
		body, _ := r.GetBody()
		again := r.Clone(context.Background())
		again.Body = body
		late = append(late, again)
		return nil, errLost
	}
	m := streamlib.NewManager(s, streamlib.Plain, streamlib.Options{})
	batch := streamlib.Batch{Data: streamlib.JSON("1"), Key: "k"}
	_, err := m.Stream("a").Append(t.Context(), batch)
	is.True(err != nil && !errors.Is(err, streamlib.ErrUnavailable))
	f.fault = nil
	for _, r := range late {
		_, err := f.RoundTrip(r)
		is.NoErr(err)
	}
	receipt, err := m.Stream("a").Append(t.Context(), batch)
	is.NoErr(err)
	is.True(receipt.Repeated)
	is.Equal(receipt.Tail, streamlib.Offset(2))
}

// TestRequests: who is alone appends with one request.
func TestRequests(t *testing.T) {
	is := is.New(t)
	f := newFake()
	m := streamlib.NewManager(openFake(t, f), streamlib.Plain, streamlib.Options{})
	add := func() {
		_, err := m.Stream("a").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})
		is.NoErr(err)
	}
	add()
	clear(f.requests)
	for range 50 {
		add()
	}
	is.Equal(f.requests, map[string]int{http.MethodPut: 50})
}

// TestFlipped flips each byte of an object: none is served.
func TestFlipped(t *testing.T) {
	is := is.New(t)
	f := newFake()
	s := openFake(t, f)
	is.NoErr(put(s, 0))
	key := s.key("a", position{})
	whole := f.objects[key]
	for i := range whole.body {
		body := []byte(string(whole.body))
		body[i] ^= 1
		f.objects[key] = stored{body, whole.etag, whole.modified}
		s.forget("a")
		_, err := s.Stat(t.Context(), "a")
		if _, corrupt := errors.AsType[*streamlib.CorruptError](err); !corrupt {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
}

// TestLastObjectsHaveOneBound: what is kept of many streams' last objects takes no more than maxHeld together, and an
// append to a stream of which it was let go is one request as before.
func TestLastObjectsHaveOneBound(t *testing.T) {
	is := is.New(t)
	f := newFake()
	s := openFake(t, f)
	const large = 900 << 10
	data := streamlib.JSON(`"` + strings.Repeat("x", large) + `"`)
	m := streamlib.NewManager(s, streamlib.Plain, streamlib.Options{})
	requests, streams := 0, maxHeld/large+8
	f.fault = func(r *http.Request, after bool) (*http.Response, error) {
		if after {
			requests++
		}
		return nil, nil
	}
	appendAll := func() {
		for i := range streams {
			_, err := m.Stream(fmt.Sprint("s", i)).Append(t.Context(), streamlib.Batch{Data: data})
			is.NoErr(err)
		}
	}
	appendAll()
	requests = 0
	appendAll()
	is.Equal(requests, streams)
	sum, kept := 0, 0
	for _, known := range s.known {
		if sum += known.size; known.size > 0 {
			kept++
		}
	}
	is.Equal(s.held, sum)
	is.True(sum <= maxHeld)
	is.True(kept > maxHeld/large/2)
	is.Equal(len(s.known), streams)
	for i := range 8 {
		for events, err := range s.Read(t.Context(), fmt.Sprint("s", i), 1, streamlib.MaxOffset) {
			is.NoErr(err)
			is.Equal(len(events[0].Data()), large+2)
		}
	}
}
