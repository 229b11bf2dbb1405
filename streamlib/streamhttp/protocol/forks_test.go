package protocol_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp/protocol"
	"github.com/matryer/is"
)

// dying is a storage whose process ends with its n-th commit, which was made or was not.
type dying struct {
	streamlib.Storage
	left atomic.Int64
	made bool
}

func (s *dying) Commit(ctx context.Context, name string, c streamlib.Change) error {
	switch left := s.left.Add(-1); {
	case left > 0, left == 0 && s.made:
		if err := s.Storage.Commit(ctx, name, c); err != nil || left > 0 {
			return err
		}
		fallthrough
	default:
		return errors.New("the process ended")
	}
}

// tidy is what a sweeper does at the start of another process.
func tidy(is *is.I, s streamlib.Storage) *protocol.Handler {
	m := streamlib.NewManager(s, streamlib.Plain, streamlib.Options{})
	p := protocol.NewHandler(m, protocol.Config{})
	for range 3 { // what one finds another may need
		names, err := p.Names(context.Background(), "", 0)
		is.NoErr(err)
		for _, name := range names {
			info, err := m.Stream(name).Stat(context.Background())
			is.NoErr(err)
			_, err = p.Apply(context.Background(), info)
			is.NoErr(err)
		}
	}
	return p
}

// TestACrashLeavesNoHalfOfAFork: the process ends at each commit of a history, and its next start finds a source with a
// fork, or one without, and nothing in between.
func TestACrashLeavesNoHalfOfAFork(t *testing.T) {
	steps := []struct{ request, headers string }{
		{"PUT /v1/stream/f", "Stream-Forked-From: /v1/stream/s"},
		{"PUT /v1/stream/g", "Stream-Forked-From: /v1/stream/f\nStream-Fork-Offset: 0000000000000001"},
		{"POST /v1/stream/g", js},
		{"DELETE /v1/stream/f", ""},
		{"DELETE /v1/stream/s", ""},
		{"DELETE /v1/stream/g", ""},
	}
	for _, made := range []bool{false, true} {
		for n := int64(1); ; n++ {
			is := is.New(t)
			storage := &dying{Storage: memory.New(), made: made}
			storage.left.Store(1 << 62)
			h := handler(storage, streamlib.Plain)
			do(h, "PUT /v1/stream/s", js, "[1,2]")
			storage.left.Store(n)
			acknowledged := map[string]bool{}
			for _, step := range steps {
				if resp, _ := do(h, step.request, step.headers, "3"[:strings.Count(step.headers, js)]); resp.StatusCode < 300 {
					acknowledged[step.request] = true
				} else {
					break
				}
			}
			died := storage.left.Load() <= 0

			tidy(is, storage.Storage)
			again := handler(storage.Storage, streamlib.Plain)
			status := map[string]int{}
			for _, name := range []string{"s", "f", "g"} {
				resp, _ := do(again, "GET /v1/stream/"+name, "", "")
				status[name] = resp.StatusCode
			}
			held := func(name string) bool {
				info, err := storage.Stat(t.Context(), name)
				is.NoErr(err)
				return info.Held
			}
			where := fmt.Sprint(made, n, acknowledged, status)
			if held("s") != (status["f"] != 404) || held("f") != (status["g"] != 404) {
				t.Fatalf("%s: s is held: %v, f is held: %v", where, held("s"), held("f"))
			}
			if status["g"] == 200 {
				_, body := do(again, "GET /v1/stream/g", "", "")
				if body != "[1]" && body != "[1,3]" || acknowledged["POST /v1/stream/g"] && body != "[1,3]" {
					t.Fatalf("%s: g has %s", where, body)
				}
			} else if acknowledged["PUT /v1/stream/g"] && !acknowledged["DELETE /v1/stream/s"] {
				t.Fatalf("%s: g is gone", where)
			}
			if (status["f"] == 410 || status["s"] == 410) && status["g"] != 200 {
				t.Fatalf("%s: something is kept for nobody", where)
			}
			if !died {
				is.Equal(status, map[string]int{"s": 404, "f": 404, "g": 404})
				break
			}
		}
	}
}

// TestManyForkAtOnce: each of them is one, and the source goes with the last.
func TestManyForkAtOnce(t *testing.T) {
	is := is.New(t)
	s := memory.New()
	h := handler(s, streamlib.Plain)
	do(h, "PUT /v1/stream/s", js, "[1,2]")
	var all sync.WaitGroup
	var forks atomic.Int64
	for i := range 100 {
		all.Go(func() {
			name := fmt.Sprintf("/v1/stream/f%d", i%50)
			if resp, body := do(h, "PUT "+name, "Stream-Forked-From: /v1/stream/s", ""); resp.StatusCode == 201 {
				forks.Add(1)
			} else if resp.StatusCode != 200 {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
		})
	}
	all.Wait()
	is.Equal(forks.Load(), int64(50))
	for i := range 50 {
		all.Go(func() { do(h, "DELETE /v1/stream/s", "", "") })
		all.Go(func() {
			if resp, body := do(h, fmt.Sprintf("DELETE /v1/stream/f%d", i), "", ""); resp.StatusCode != 204 {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
		})
	}
	all.Wait()
	names, err := s.List(t.Context(), "", "", 0)
	is.NoErr(err)
	is.Equal(len(names), 0)
}

// TestManyMakeOneStream: one of them does, and all of them have it.
func TestManyMakeOneStream(t *testing.T) {
	is := is.New(t)
	h := handler(memory.New(), streamlib.Plain)
	var all sync.WaitGroup
	var made, had atomic.Int64
	for range 100 {
		all.Go(func() {
			switch resp, _ := do(h, "PUT /v1/stream/s", js, "[1]"); resp.StatusCode {
			case 201:
				made.Add(1)
			case 200:
				had.Add(1)
			}
		})
	}
	all.Wait()
	is.Equal(made.Load(), int64(1))
	is.Equal(had.Load(), int64(99))
	_, body := do(h, "GET /v1/stream/s", "", "")
	is.Equal(body, "[1]")
}

// TestAForkWithoutItsSource says so: one may be brought without the other.
func TestAForkWithoutItsSource(t *testing.T) {
	is := is.New(t)
	s := memory.New()
	h := handler(s, streamlib.Plain)
	do(h, "PUT /v1/stream/s", js, "[1,2]")
	do(h, "PUT /v1/stream/f", "Stream-Forked-From: /v1/stream/s", "[3]")
	_, lines := do(h, "GET /export?name=f", "", "")
	other := handler(memory.New(), streamlib.Plain)
	resp, body := do(other, "POST /import", "Content-Type: application/x-ndjson", lines)
	if resp.StatusCode != 200 {
		t.Fatal(resp.StatusCode, body)
	}
	resp, _ = do(other, "GET /v1/stream/f", "", "")
	is.Equal(resp.StatusCode, 410)
	resp, body = do(other, "GET /v1/stream/f?offset=0000000000000002", "", "")
	is.Equal(resp.StatusCode, 200)
	is.Equal(body, "[3]")
	resp, _ = do(other, "DELETE /v1/stream/f", "", "")
	is.Equal(resp.StatusCode, 204)
}

// TestWhatCannotBeDeletedIsNotWaitedFor: a stream that is over, or that somebody else holds.
func TestWhatCannotBeDeletedIsNotWaitedFor(t *testing.T) {
	is := is.New(t)
	s := &dying{Storage: memory.New()}
	s.left.Store(3)
	h := handler(s, streamlib.Plain)
	do(h, "PUT /v1/stream/s", js+"Stream-TTL: 0", "[1]")
	do(h, "PUT /v1/stream/t", js, "[1]")
	resp, _ := do(h, "PUT /v1/stream/s", js, "[1]")
	is.True(resp.StatusCode >= 500)
	m := memory.New()
	h = handler(m, streamlib.Plain)
	do(h, "PUT /v1/stream/s", js, "[1]")
	info, err := m.Stat(t.Context(), "s")
	is.NoErr(err)
	info.Held = true
	is.NoErr(m.Commit(t.Context(), "s", streamlib.Change{State: &info.State}))
	resp, _ = do(handler(m, streamlib.Plain), "DELETE /v1/stream/s", "", "")
	is.Equal(resp.StatusCode, 503)
}
