package transfer

import (
	"context"
	"iter"

	"github.com/iterate/durable-streams/streamlib"
)

// Streams are a manager's as a Source and a Target: what is exported is what its readers see, and who follows a stream
// gets what is imported.
type Streams struct{ *streamlib.Manager }

// Stat is streamlib.Stream's.
func (s Streams) Stat(ctx context.Context, name string) (streamlib.Info, error) {
	return s.Stream(name).Stat(ctx)
}

// Read is streamlib.Stream's.
func (s Streams) Read(ctx context.Context, name string, from,
	to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	return s.Stream(name).Read(ctx, from, to)
}

// Commit is streamlib.Manager's Import.
func (s Streams) Commit(ctx context.Context, name string, c streamlib.Change) error {
	return s.Import(ctx, name, c)
}
