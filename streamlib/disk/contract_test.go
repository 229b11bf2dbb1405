package disk_test

import (
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/disk"
	"github.com/iterate/durable-streams/streamlib/streamtest"
)

func TestContract(t *testing.T) {
	open := func(t *testing.T, dir string) streamlib.Storage {
		s, err := disk.Open(dir, disk.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	streamtest.Storage(t, func(t *testing.T) streamlib.Storage { return open(t, t.TempDir()) })
	streamtest.Durable(t, open)
	streamtest.Stream(t, func(t *testing.T) func(string) streamlib.Stream {
		return streamlib.NewManager(open(t, t.TempDir()), streamlib.Plain, streamlib.Options{}).Stream
	})
}
