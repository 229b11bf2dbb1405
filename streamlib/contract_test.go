package streamlib_test

import (
	"context"
	"encoding/json"
	"sync"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamtest"
)

// TestStreams runs the contract of Stream over every layer of this package.
func TestStreams(t *testing.T) {
	pass := streamlib.Hooks{
		Before: []streamlib.BeforeHook{{ID: "pass",
			Run: func(context.Context, string, json.RawMessage) error { return nil }}},
		After: []streamlib.AfterHook{{ID: "pass", Run: func(context.Context, string, streamlib.Event) error { return nil }}},
	}
	managed := func(f streamlib.Factory) func(*testing.T) func(string) streamlib.Stream {
		return func(*testing.T) func(string) streamlib.Stream {
			return streamlib.NewManager(memory.New(), f, streamlib.Options{}).Stream
		}
	}
	for name, open := range map[string]func(*testing.T) func(string) streamlib.Stream{
		"core":    func(*testing.T) func(string) streamlib.Stream { return alone(streamlib.Plain) },
		"managed": managed(streamlib.Plain),
		"hooked":  managed(streamlib.Factory(streamlib.Plain).WithHooks(pass)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streamtest.Stream(t, open)
			streamtest.Admit(t, open)
		})
	}
}

// alone makes streams without a manager, each once. The manager checks the names that it is given; here the caller
// does.
func alone(f streamlib.Factory) func(name string) streamlib.Stream {
	var mu sync.Mutex
	storage, streams := memory.New(), map[string]streamlib.Stream{}
	return func(name string) streamlib.Stream {
		mu.Lock()
		defer mu.Unlock()
		if streamlib.CheckName(name) != nil {
			return streamlib.NewManager(storage, f, streamlib.Options{}).Stream(name)
		}
		if streams[name] == nil {
			streams[name] = f(name, storage, streamlib.Options{})
		}
		return streams[name]
	}
}
