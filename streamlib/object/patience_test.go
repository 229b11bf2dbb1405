package object

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// TestPatience: an append is answered within 8 s by a store that fails, hangs, or takes nearly as long as it may.
func TestPatience(t *testing.T) {
	hang := func(r *http.Request) *http.Response { <-r.Context().Done(); return nil }
	slow := func(r *http.Request) *http.Response {
		select {
		case <-time.After(2400 * time.Millisecond):
		case <-r.Context().Done():
		}
		return nil
	}
	only := func(method string, do func(*http.Request) *http.Response) func(*http.Request) *http.Response {
		return func(r *http.Request) *http.Response {
			if r.Method == method {
				return do(r)
			}
			return nil
		}
	}
	says := func(status int, code string) func(*http.Request) *http.Response {
		return func(*http.Request) *http.Response { return answer(status, code, nil) }
	}
	for name, fault := range map[string]func(*http.Request) *http.Response{
		"no answer": hang, "slow": slow, "no answer to a PUT": only(http.MethodPut, hang),
		"no answer to a GET": only(http.MethodGet, hang), "slow PUT": only(http.MethodPut, slow),
		"503": says(503, "SlowDown"), "500": says(500, "InternalError"), "another is always first": only(http.MethodPut,
			says(412, "PreconditionFailed")), "403": says(403, "AccessDenied"), "no bucket": says(404, "NoSuchBucket"),
	} {
		for _, cold := range []bool{false, true} {
			for _, key := range []string{"", "k"} {
				t.Run(fmt.Sprint(name, ", cold ", cold, ", key ", key), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						is := is.New(t)
						f := newFake()
						f.unsigned = true
						s, err := open(t.Context(), f.options())
						is.NoErr(err)
						for i := range 200 {
							is.NoErr(put(s, i))
						}
						if cold {
							s, err = open(t.Context(), f.options())
							is.NoErr(err)
						}
						a := streamlib.NewManager(s, streamlib.Plain, streamlib.Options{}).Stream("a")
						if !cold {
							_, err := a.Stat(t.Context())
							is.NoErr(err)
						}
						f.fault = func(r *http.Request, after bool) (*http.Response, error) {
							if answer := fault(r); !after && answer != nil {
								return answer, nil
							}
							return nil, r.Context().Err()
						}
						begun := time.Now()
						_, err = a.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1"), Key: key})
						if took := time.Since(begun); took > 8*time.Second {
							t.Errorf("it took %v: %v", took, err)
						}
						tail := len(f.keys) - 1
						if errors.Is(err, streamlib.ErrUnavailable) {
							is.Equal(tail, 200)
						} else if err == nil {
							is.Equal(tail, 201)
						}
					})
				})
			}
		}
	}
}

// TestPatienceWithKeys: where the keys of many small objects are to be read slowly, each append with one is answered
// within 8 s, what was read stays read, and a repeat comes in.
func TestPatienceWithKeys(t *testing.T) {
	for _, test := range []struct {
		each    time.Duration // that the store takes
		objects int
		hangs   bool // the store, at the first PUT
	}{
		{100 * time.Millisecond, 500, false}, {time.Second, 500, false}, {2400 * time.Millisecond, 500, false},
		{1200 * time.Millisecond, 16, true},
	} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				f := newFake()
				f.unsigned = true
				s, err := open(t.Context(), f.options())
				is.NoErr(err)
				m := streamlib.NewManager(s, streamlib.Plain, streamlib.Options{})
				for i := range test.objects {
					is.NoErr(appendKey(m.Stream("a"), fmt.Sprint(i), false))
				}
				s, err = open(t.Context(), f.options())
				is.NoErr(err)
				a := streamlib.NewManager(s, streamlib.Plain, streamlib.Options{}).Stream("a")
				if !test.hangs {
					_, err := a.Stat(t.Context())
					is.NoErr(err)
				}
				hangs := test.hangs
				f.fault = func(r *http.Request, after bool) (*http.Response, error) {
					if after {
						return nil, r.Context().Err()
					}
					each := test.each
					if hangs && r.Method == http.MethodPut {
						each, hangs = time.Hour, false
					}
					select {
					case <-time.After(each):
					case <-r.Context().Done():
					}
					return nil, r.Context().Err()
				}
				tries := 0
				for _, key := range []string{"new", "0"} {
					for {
						begun := time.Now()
						err := appendKey(a, key, key == "0")
						if took := time.Since(begun); took > 8*time.Second {
							t.Errorf("it took %v: %v", took, err)
						}
						if err == nil {
							break
						}
						if tries++; tries > test.objects || !test.hangs && !errors.Is(err, streamlib.ErrUnavailable) {
							t.Fatal("it does not come in: ", err)
						}
					}
				}
			})
		})
	}
}

// appendKey appends an event with a key, that repeats another or does not.
func appendKey(s streamlib.Stream, key string, repeats bool) error {
	r, err := s.Append(context.Background(), streamlib.Batch{Data: streamlib.JSON("1"), Key: key})
	if err == nil && r.Repeated != repeats {
		err = fmt.Errorf("key %q: %+v", key, r)
	}
	return err
}
