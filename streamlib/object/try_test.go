package object

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// TestTry opens stores of which each does one thing not as it should.
func TestTry(t *testing.T) {
	without := func(header string) func(*fake, *http.Request) *http.Response {
		return func(_ *fake, r *http.Request) *http.Response {
			if r.Header.Get(header) != "" {
				r.Header.Del(header)
				r.Header.Del("Authorization") // it is not looked at
			}
			return nil
		}
	}
	for name, test := range map[string]struct {
		do      func(f *fake, r *http.Request) *http.Response // may change a request, or answer it
		refused string
		lacks   string
	}{
		"as it should":   {func(*fake, *http.Request) *http.Response { return nil }, "", ""},
		"all racers win": {without("If-None-Match"), "If-None-Match: * fulfilled", ""},
		"no conditions": {func(_ *fake, r *http.Request) *http.Response {
			if r.Header.Get("If-None-Match") != "" && strings.Contains(r.URL.Path, "/try/") {
				return answer(501, "NotImplemented", nil)
			}
			return nil
		}, "501 NotImplemented", ""},
		"what was written is not there": {func(f *fake, r *http.Request) *http.Response {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/try/") {
				return answer(404, "NoSuchKey", nil)
			}
			return nil
		}, "had just taken", ""},
		"no order": {func(f *fake, r *http.Request) *http.Response {
			if r.URL.Path == "/bucket/" {
				q := strings.ReplaceAll(r.URL.RawQuery, "%2Fa%2Fx", "%2Fz")
				r.URL.RawQuery = q
			}
			return nil
		}, "start-after", ""},
		"If-Match is not looked at": {without("If-Match"), "", "If-Match forbade"},
		"the date is not looked at": {func(f *fake, r *http.Request) *http.Response {
			r.Header.Set("X-Amz-Date", f.now().UTC().Format(dateLayout))
			return nil
		}, "", "signed 16 minutes ago"},
		"nothing can be removed": {func(f *fake, r *http.Request) *http.Response {
			if r.Method == http.MethodDelete {
				return answer(403, "AccessDenied", nil)
			}
			return nil
		}, "", "nothing can be removed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			f := newFake()
			f.unsigned = true
			var log bytes.Buffer
			o := f.options()
			o.Log = slog.New(slog.NewTextHandler(&log, nil))
			var mu sync.Mutex
			o.Transport = transport(func(r *http.Request) (*http.Response, error) {
				mu.Lock()
				defer mu.Unlock()
				body, _ := io.ReadAll(r.Body)
				if answer := test.do(f, r); answer != nil {
					return answer, nil
				}
				return f.do(r, body), nil
			})
			s, err := Open(t.Context(), o)
			if test.refused != "" {
				is.True(err != nil)
				is.True(strings.Contains(err.Error(), test.refused))
				is.Equal(f.count(""), f.count("try/")) // where it is refused nothing is begun
				return
			}
			is.NoErr(err)
			_, _, err = s.Collect(t.Context())
			is.Equal(errors.Is(err, streamlib.ErrUnavailable), test.lacks != "")
			is.NoErr(s.Close())
			is.Equal(strings.Contains(log.String(), "stays in the bucket"), test.lacks != "")
			if !strings.Contains(log.String(), test.lacks) {
				t.Error(log.String())
			}
			if test.lacks != "nothing can be removed" {
				is.Equal(f.count("try/"), 0)
			}
		})
	}
}

// TestTryGoogle: Google's store is asked in its own spelling. It takes one write a second of each name.
func TestTryGoogle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := newFake()
		f.google = true
		var log bytes.Buffer
		o := f.options()
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		var mu sync.Mutex
		written, refused := map[string]time.Time{}, 0
		o.Transport = transport(func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			body, _ := io.ReadAll(r.Body)
			last, again := written[r.URL.Path]
			if r.Method == http.MethodPut && again && time.Since(last) < time.Second {
				refused++
				return answer(429, "SlowDown", nil), nil
			}
			a := f.do(r, body)
			if r.Method == http.MethodPut && a.StatusCode == 200 {
				written[r.URL.Path] = time.Now()
			}
			return a, nil
		})
		s, err := Open(t.Context(), o)
		is.NoErr(err)
		is.Equal(s.c.spelling, google)
		is.Equal(log.String(), "") // it lacks nothing
		is.True(refused > racers-2)
		is.Equal(f.count("try/"), 0)
		is.NoErr(put(s, 0))
		is.NoErr(s.Close())

		o.Existing = true // as those open it that only read, and try nothing
		s, err = Open(t.Context(), o)
		is.NoErr(err)
		info, err := s.Stat(t.Context(), "a")
		is.NoErr(err)
		is.Equal(info.Tail, streamlib.Offset(1))
		is.NoErr(s.Close())
	})
}

// TestTryUnavailable: that a store does not answer is none of its faults.
func TestTryUnavailable(t *testing.T) {
	is := is.New(t)
	f := newFake()
	f.fault = func(r *http.Request, _ bool) (*http.Response, error) {
		if strings.Contains(r.URL.Path, "/try/") && r.Method == http.MethodPut {
			return nil, errLost
		}
		return nil, nil
	}
	o := f.options()
	o.Patience = 1
	_, err := Open(context.Background(), o)
	is.True(errors.Is(err, streamlib.ErrUnavailable))
	_, fault := errors.AsType[*FaultError](err)
	is.True(!fault)
}
