package memory_test

import (
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamtest"
)

func TestMemory(t *testing.T) {
	streamtest.Storage(t, func(*testing.T) streamlib.Storage { return memory.New() })
}
