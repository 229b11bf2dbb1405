package streamlib_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/matryer/is"
)

// trace makes hooks that write down what they are given.
type trace struct {
	mu   sync.Mutex
	seen []string
}

func (r *trace) add(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, fmt.Sprintf(format, args...))
}

func (r *trace) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.seen
	r.seen = nil
	return seen
}

func (r *trace) before(id string, veto string) streamlib.BeforeHook {
	return streamlib.BeforeHook{ID: id, Run: func(_ context.Context, name string, data json.RawMessage) error {
		r.add("%s %s %s", id, name, data)
		if veto != "" && strings.Contains(string(data), veto) {
			return errors.New("no " + veto)
		}
		return nil
	}}
}

func (r *trace) after(id string, fail string) streamlib.AfterHook {
	return streamlib.AfterHook{ID: id, Run: func(_ context.Context, name string, e streamlib.Event) error {
		r.add("%s %s %d %s", id, name, e.Offset, e.Data())
		if fail != "" && strings.Contains(string(e.Data()), fail) {
			return errors.New("failed on " + fail)
		}
		return nil
	}}
}

func plain(name string) streamlib.Stream {
	return streamlib.Plain(name, memory.New(), streamlib.Options{})
}

func TestHooksRunInOrder(t *testing.T) {
	is := is.New(t)
	var r trace
	core := plain("orders")
	inner := streamlib.WithHooks(core, streamlib.Hooks{Before: []streamlib.BeforeHook{r.before("in", "")},
		After: []streamlib.AfterHook{r.after("in", "")}})
	s := streamlib.WithHooks(inner, streamlib.Hooks{
		Before: []streamlib.BeforeHook{r.before("b1", ""), r.before("b2", "")},
		After:  []streamlib.AfterHook{r.after("a1", "1"), r.after("a2", "")},
	})
	admit := func(context.Context) error { r.add("admit"); return nil }
	// Hooks see what is stored.
	_, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1", " 2\n"), Key: "k", Admit: admit})
	is.NoErr(err)
	is.Equal(r.take(), []string{
		"admit", "b1 orders 1", "b2 orders 1", "b1 orders 2", "b2 orders 2", "in orders 1", "in orders 2",
		// the outer ones first
		"in orders 0 1", "in orders 1 2", "a1 orders 0 1", "a2 orders 0 1", "a1 orders 1 2", "a2 orders 1 2",
		// an after hook that fails stops nothing
	})
	_, err = s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1", "2"), Key: "k", Admit: admit})
	is.NoErr(err)
	is.Equal(r.take(), nil) // a repeat runs none
	_, err = s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("{")})
	is.True(errors.Is(err, streamlib.ErrInvalid))
	is.Equal(r.take(), nil) // nor does what is refused anyway
	_, err = s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("3"), IfTail: new(streamlib.Offset)})
	is.True(err != nil)
	// Before hooks run before the condition is decided; after hooks only where something was stored.
	is.Equal(len(r.take()), 3)
}

func TestVeto(t *testing.T) {
	is := is.New(t)
	var r trace
	s := streamlib.WithHooks(plain("orders"), streamlib.Hooks{
		Before: []streamlib.BeforeHook{r.before("b1", ""), r.before("b2", "2"), r.before("b3", "")},
		After:  []streamlib.AfterHook{r.after("a", "")},
	})
	receipt, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1", "2", "3"), Key: "k"})
	veto, ok := errors.AsType[*streamlib.HookError](err)
	is.True(ok)
	is.Equal(*veto, streamlib.HookError{HookID: "b2", Message: "no 2"})
	is.Equal(veto.Error(), "hook b2: no 2")
	is.Equal(len(receipt.Events), 0)
	// The first failure ends it.
	is.Equal(r.take(), []string{"b1 orders 1", "b2 orders 1", "b3 orders 1", "b1 orders 2", "b2 orders 2"})
	// Nothing of the batch is stored.
	is.Equal(len(read(t, s, 0, streamlib.MaxOffset)), 0)
	receipt, err = s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1"), Key: "k"})
	is.NoErr(err)
	is.True(!receipt.Repeated)

	own := streamlib.WithHooks(plain("orders"), streamlib.Hooks{Before: []streamlib.BeforeHook{{ID: "b",
		Run: func(context.Context, string, json.RawMessage) error {
			return fmt.Errorf("wrapped: %w", &streamlib.HookError{HookID: "its own", Message: "why"})
		}}}})
	_, err = own.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})
	veto, ok = errors.AsType[*streamlib.HookError](err)
	is.True(ok)
	is.Equal(veto.HookID, "its own")
}

func TestAfterHooksSeeWhatIsDurable(t *testing.T) {
	is := is.New(t)
	s := plain("orders")
	ctx, cancel := context.WithCancel(t.Context())
	called := false
	hooked := streamlib.WithHooks(s, streamlib.Hooks{After: []streamlib.AfterHook{{ID: "a",
		Run: func(ctx context.Context, _ string, e streamlib.Event) error {
			called = true
			cancel() // the caller goes away
			if got := read(t, s, 0, streamlib.MaxOffset); len(got) != 1 || got[0].String() != e.String() {
				t.Errorf("stored: %v", got)
			}
			return ctx.Err()
		}}}, Log: slog.New(slog.NewTextHandler(&failing{t}, nil))})
	_, err := hooked.Append(ctx, streamlib.Batch{Data: streamlib.JSON("1")})
	is.NoErr(err)
	is.True(called)
}

// failing is a log that nothing may be written to.
type failing struct{ t *testing.T }

func (f failing) Write(b []byte) (int, error) {
	f.t.Errorf("logged: %s", b)
	return len(b), nil
}

func TestAfterHooksErrorsAreLogged(t *testing.T) {
	is := is.New(t)
	var log bytes.Buffer
	var r trace
	factory := streamlib.Factory(streamlib.Plain).WithHooks(streamlib.Hooks{After: []streamlib.AfterHook{
		r.after("a1", `"bad`), {ID: "a2", Run: func(context.Context, string,
			streamlib.Event) error {
			panic("a bug in the hook")
		}},
	}})
	s := factory("orders", memory.New(), streamlib.Options{Log: slog.New(slog.NewJSONHandler(&log, nil))})
	_, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(`"good"`, `"bad\u000a"`)})
	is.NoErr(err)
	var lines []map[string]any
	for line := range strings.Lines(log.String()) {
		var m map[string]any
		is.NoErr(json.Unmarshal([]byte(line), &m))
		delete(m, "time")
		lines = append(lines, m)
	}
	entry := func(hook, offset, err string) map[string]any {
		return map[string]any{"level": "ERROR", "msg": "after hook failed", "hook": hook, "stream": "orders",
			"offset": offset, "error": err}
	}
	want := []map[string]any{
		entry("a2", "0000000000000000", "panic: a bug in the hook"),
		entry("a1", "0000000000000001", `failed on "bad`),
		entry("a2", "0000000000000001", "panic: a bug in the hook"),
	}
	if !reflect.DeepEqual(lines, want) {
		t.Errorf("%v, want %v", lines, want)
	}
}

func TestHookThatPanics(t *testing.T) {
	is := is.New(t)
	s := streamlib.WithHooks(plain("orders"), streamlib.Hooks{Before: []streamlib.BeforeHook{{ID: "b",
		Run: func(_ context.Context, _ string, data json.RawMessage) error {
			if string(data) == "1" {
				panic("a bug in the hook")
			}
			return nil
		}}}})
	_, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1"), Key: "k"})
	veto, ok := errors.AsType[*streamlib.HookError](err)
	is.True(ok)
	is.Equal(*veto, streamlib.HookError{HookID: "b", Message: "panic: a bug in the hook"})
	_, err = s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("2"), Key: "k"})
	is.NoErr(err)
}

// TestHookThatHangs has hooks that do not look at their contexts: each fails after its time, and nothing else stops.
func TestHookThatHangs(t *testing.T) {
	for _, timeout := range []time.Duration{0, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			forever, late := make(chan bool), make(chan string, 1)
			var log bytes.Buffer
			s := streamlib.WithHooks(plain("orders"), streamlib.Hooks{
				Before: []streamlib.BeforeHook{{ID: "b", Run: func(_ context.Context, _ string, data json.RawMessage) error {
					if string(data) == `"before"` {
						<-forever
						late <- string(data)
					}
					return nil
				}}},
				After: []streamlib.AfterHook{{ID: "a", Run: func(_ context.Context, _ string, e streamlib.Event) error {
					if string(e.Data()) == `"after"` {
						<-forever
					}
					return nil
				}}},
				Timeout: timeout,
				Log:     slog.New(slog.NewTextHandler(&log, nil)),
			})
			limit := timeout
			if limit == 0 {
				limit = 10 * time.Second
			}
			var hanging sync.WaitGroup
			start := time.Now()
			hanging.Go(func() {
				is := is.NewRelaxed(t)
				data := streamlib.JSON(`"before"`)
				_, err := s.Append(t.Context(), streamlib.Batch{Data: data})
				clear(data[0])
				veto, ok := errors.AsType[*streamlib.HookError](err)
				is.True(ok)
				is.Equal(*veto, streamlib.HookError{HookID: "b", Message: fmt.Sprintf("no answer in %v", limit)})
				is.Equal(time.Since(start), limit)
			})
			hanging.Go(func() {
				is := is.NewRelaxed(t)
				receipt, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(`"after"`)})
				is.NoErr(err) // it is durable
				is.Equal(len(receipt.Events), 1)
				is.Equal(time.Since(start), limit)
			})
			synctest.Wait()
			_, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})
			is.NoErr(err)
			is.Equal(time.Since(start), time.Duration(0)) // others do not wait
			hanging.Wait()
			is.True(strings.Contains(log.String(), fmt.Sprintf(`hook=a stream=orders offset=0000000000000000 error="no answer in %v"`, limit)))
			is.Equal(len(read(t, s, 0, streamlib.MaxOffset)), 2)
			close(forever)
			is.Equal(<-late, `"before"`) // though the caller has changed its own by now
		})
	}
}

// TestHookThatHangsInABatch: the time is the append's, however many events and hooks it has, and one goroutine at
// most is left.
func TestHookThatHangsInABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		const events, limit = 100, 20 * time.Millisecond
		forever := make(chan bool)
		var running, left atomic.Int64 // runs that began, and that have not ended
		slow := func(takes func()) {
			running.Add(1)
			left.Add(1)
			defer left.Add(-1)
			takes()
		}
		hang, sleep := func() { <-forever }, func() { time.Sleep(limit * 3 / 10) }
		add := func(h streamlib.Hooks) (stored int, err error) {
			running.Store(0)
			s := streamlib.WithHooks(plain("orders"), h)
			data := make([]string, events)
			for i := range data {
				data[i] = fmt.Sprint(i)
			}
			start := time.Now()
			_, err = s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(data...)})
			is.Equal(time.Since(start), limit)
			synctest.Wait()
			return len(read(t, s, 0, streamlib.MaxOffset)), err
		}
		for name, test := range map[string]struct {
			takes  func()
			begins int64
		}{"it hangs": {hang, 1}, "all are slow": {sleep, 4}} {
			pass := streamlib.BeforeHook{ID: "pass", Run: func(context.Context, string, json.RawMessage) error {
				return nil
			}}
			before := streamlib.BeforeHook{ID: "b", Run: func(context.Context, string, json.RawMessage) error {
				slow(test.takes)
				return nil
			}}
			n, err := add(streamlib.Hooks{Before: []streamlib.BeforeHook{pass, before}, Timeout: limit})
			veto, ok := errors.AsType[*streamlib.HookError](err)
			is.True(ok)
			is.Equal(*veto, streamlib.HookError{HookID: "b", Message: "no answer in 20ms"})
			is.Equal(n, 0)
			is.Equal(running.Load(), test.begins)

			var log bytes.Buffer
			after := streamlib.AfterHook{ID: "a", Run: func(context.Context, string, streamlib.Event) error {
				slow(test.takes)
				return errors.New("no")
			}}
			logger := slog.New(slog.NewTextHandler(&log, nil))
			n, err = add(streamlib.Hooks{After: []streamlib.AfterHook{after}, Timeout: limit, Log: logger})
			is.NoErr(err)
			is.Equal(n, events)
			is.Equal(running.Load(), test.begins)
			is.Equal(strings.Count(log.String(), "after hook failed"), int(test.begins))
			at := streamlib.Offset(test.begins - 1)
			is.True(strings.Contains(log.String(), fmt.Sprintf(`hook=a stream=orders offset=%v error="no answer in 20ms"`, at)))
			is.True(strings.Contains(log.String(), fmt.Sprintf("runs=%d", events-test.begins))) // that were left out
			is.True(left.Load() <= 2)                                                           // of two appends
			if name == "it hangs" {
				close(forever)
			}
			time.Sleep(limit)
			is.Equal(left.Load(), int64(0))
			forever = make(chan bool)
		}
	})
}

// TestCallerLeavesDuringHook ends the caller's context while a before hook runs: that is no veto.
func TestCallerLeavesDuringHook(t *testing.T) {
	is := is.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	s := streamlib.WithHooks(plain("orders"), streamlib.Hooks{Before: []streamlib.BeforeHook{{ID: "b",
		Run: func(ctx context.Context, _ string, _ json.RawMessage) error {
			cancel()
			<-ctx.Done()
			return ctx.Err()
		}}}})
	_, err := s.Append(ctx, streamlib.Batch{Data: streamlib.JSON("1")})
	is.True(errors.Is(err, context.Canceled))
	_, vetoed := errors.AsType[*streamlib.HookError](err)
	is.True(!vetoed)
	is.Equal(len(read(t, s, 0, streamlib.MaxOffset)), 0)
}

func TestFactories(t *testing.T) {
	const notString, notAgent = "data must have a _type member that is a string", `data's _type must begin with "agent:"`
	var log bytes.Buffer
	m := map[string]*streamlib.Manager{}
	for name, f := range map[string]streamlib.Factory{
		"plain": streamlib.Plain, "validated": streamlib.Validated, "agent": streamlib.EmbryonicAgent,
		"active": streamlib.Active,
	} {
		logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		m[name] = streamlib.NewManager(memory.New(), f, streamlib.Options{Log: logger})
	}
	for _, test := range []struct{ factory, data, id, message string }{
		{"plain", `1`, "", ""},
		{"active", `1`, "", ""},
		{"validated", `{"_type":"a"}`, "", ""},
		{"validated", `{"_type":""}`, "", ""},
		{"validated", `{"_type":1,"_type":"a"}`, "", ""},
		{"validated", `{"type":"a"}`, "validate-type", notString},
		{"validated", `{"_Type":"a"}`, "validate-type", notString},
		{"validated", `{"_type":null}`, "validate-type", notString},
		{"validated", `{"_type":["a"]}`, "validate-type", notString},
		{"validated", `"_type"`, "validate-type", notString},
		{"validated", `["_type"]`, "validate-type", notString},
		{"validated", `null`, "validate-type", notString},
		{"agent", `{"_type":"agent:said","n":1}`, "", ""},
		{"agent", `{"_type":"agent:"}`, "", ""},
		{"agent", `{"_type":"said"}`, "validate-agent-event", notAgent},
		{"agent", `{"_type":"Agent:said"}`, "validate-agent-event", notAgent},
		{"agent", `{"_type":7}`, "validate-agent-event", notString},
		{"agent", `1`, "validate-agent-event", notString},
	} {
		_, err := m[test.factory].Stream("s").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(test.data)})
		veto, vetoed := errors.AsType[*streamlib.HookError](err)
		if vetoed != (test.id != "") || !vetoed && err != nil || vetoed &&
			*veto != (streamlib.HookError{HookID: test.id, Message: test.message}) {
			t.Errorf("%s %s: %v", test.factory, test.data, err)
		}
	}
	is := is.New(t)
	is.Equal(strings.Count(log.String(), "\n"), 2)
	is.True(strings.Contains(log.String(), `level=DEBUG msg="agent event" stream=s offset=0000000000000000 type=agent:said`))
	is.True(strings.Contains(log.String(), `offset=0000000000000001 type=agent:`+"\n"))
}

// TestTellIsInOrder of the stream, and once for each append that has stored something, before that returns.
func TestTellIsInOrder(t *testing.T) {
	is := is.New(t)
	var told []streamlib.Event // without a lock: it is called once at a time
	hooks := streamlib.Hooks{Tell: func(name string, events []streamlib.Event) {
		is.Equal(name, "s")
		told = append(told, events...)
	}}
	m := streamlib.NewManager(memory.New(), streamlib.Factory(streamlib.Plain).WithHooks(hooks), streamlib.Options{})
	s := m.Stream("s")
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 20 {
				_, err := s.Append(context.Background(), streamlib.Batch{Data: streamlib.JSON("1", "2")})
				is.NoErr(err)
			}
		})
	}
	wg.Wait()
	is.Equal(len(told), 2000)
	for i, e := range told {
		is.Equal(e.Offset, streamlib.Offset(i))
	}
	for range 2 { // the second is a repeat
		_, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("3"), Key: "k"})
		is.NoErr(err)
		is.Equal(len(told), 2001)
	}
	_, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("4"), IfTail: new(streamlib.Offset)})
	is.True(err != nil)
	_, err = s.Append(t.Context(), streamlib.Batch{Close: true})
	is.NoErr(err)
	is.Equal(len(told), 2001)
}

// TestTellOfAnyStream: one that is not of the package tells of an append when it has returned.
func TestTellOfAnyStream(t *testing.T) {
	is := is.New(t)
	told := 0
	inner := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{}).Stream("s")
	s := streamlib.WithHooks(foreign{inner}, streamlib.Hooks{Tell: func(string, []streamlib.Event) { told++ }})
	outer := streamlib.WithHooks(s, streamlib.Hooks{Tell: func(string, []streamlib.Event) { told += 10 }})
	_, err := outer.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})
	is.NoErr(err)
	is.Equal(told, 11)
}

// foreign is a stream that knows of a batch what anybody can.
type foreign struct{ streamlib.Stream }

func (s foreign) Append(ctx context.Context, b streamlib.Batch) (streamlib.Receipt, error) {
	return s.Stream.Append(ctx, streamlib.Batch{Data: b.Data, Admit: b.Admit})
}
