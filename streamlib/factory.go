package streamlib

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
)

// A Factory makes the stream called name, which has passed CheckName, over a storage: Layer 3. What it makes is the
// only way to that stream: the Manager asks it for every stream, so the hooks of a factory with hooks cannot be
// reached around. The data of batches that its stream is given is as it was sent, and nobody has checked it yet:
// Plain's stream does.
type Factory func(name string, storage Storage, o Options) Stream

// Active is what streamd uses unless its --factory flag says otherwise: the one line to change.
var Active Factory = Plain

// Plain makes streams without hooks.
func Plain(name string, storage Storage, o Options) Stream { return newCore(name, storage, o) }

// WithHooks returns a factory whose streams have hooks around those that f makes.
func (f Factory) WithHooks(h Hooks) Factory {
	return func(name string, storage Storage, o Options) Stream {
		h := h
		if h.Log == nil {
			h.Log = o.Log
		}
		return WithHooks(f(name, storage, o), h)
	}
}

// Validated makes streams whose events' data must have a "_type" member that is a string.
func Validated(name string, storage Storage, o Options) Stream {
	return Factory(Plain).WithHooks(Hooks{Before: []BeforeHook{{ID: "validate-type", Run: validateType}}})(name,
		storage, o)
}

// EmbryonicAgent makes streams of agents' events: data's "_type" must begin with "agent:", and each event is logged
// for who debugs.
func EmbryonicAgent(name string, storage Storage, o Options) Stream {
	log := o.withDefaults().Log
	return Factory(Plain).WithHooks(Hooks{
		Before: []BeforeHook{{ID: "validate-agent-event", Run: validateAgentEvent}},
		After: []AfterHook{{ID: "log-agent-event", Run: func(ctx context.Context, name string, e Event) error {
			if log.Enabled(ctx, slog.LevelDebug) {
				t, _ := typeOf(e.Data())
				log.DebugContext(ctx, "agent event", "stream", name, "offset", e.Offset.String(), "type", t)
			}
			return nil
		}}},
	})(name, storage, o)
}

func validateType(_ context.Context, _ string, data json.RawMessage) error {
	_, err := typeOf(data)
	return err
}

func validateAgentEvent(_ context.Context, _ string, data json.RawMessage) error {
	t, err := typeOf(data)
	if err == nil && !strings.HasPrefix(t, "agent:") {
		err = errors.New(`data's _type must begin with "agent:"`)
	}
	return err
}

// typeOf returns data's "_type" member, by that very name.
func typeOf(data json.RawMessage) (string, error) {
	if len(data) > 0 && data[0] == '{' {
		_, own := typesOf(data)
		if t, ok := text(own); ok {
			return t, nil
		}
	}
	return "", errors.New("data must have a _type member that is a string")
}
