package streamhttp

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// Config is what a handler needs to know; the zero value is ready to use.
type Config struct {
	MaxEvent   int          // limit for one event's data in bytes, the same as the manager's; 0 is streamlib.MaxEvent
	Log        *slog.Logger // for the causes of answers 500; nil discards
	Health     Health       // what /healthz tells
	AllowHosts []string     // names that requests may be for, beside localhost and loopback addresses; ports are ignored
}

// Health is what a server tells of itself at /healthz.
type Health struct {
	Status    string    `json:"status"`        // empty in a Config is "ok"
	PID       int       `json:"pid,omitempty"` // this, Dir and Args are told to clients on the same machine only
	Dir       string    `json:"dir,omitempty"`
	Version   string    `json:"version"`
	Storage   string    `json:"storage"`
	StartedAt time.Time `json:"startedAt"`
	Args      []string  `json:"args,omitzero"`
}

// NewHandler returns the routes over m: Layer 5.
func NewHandler(m *streamlib.Manager, c Config) http.Handler {
	return http.NotFoundHandler()
}
