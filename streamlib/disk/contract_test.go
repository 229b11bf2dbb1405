package disk_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/disk"
	"github.com/iterate/durable-streams/streamlib/streamtest"
	"github.com/matryer/is"
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

// TestRemovedWhileClosed removes streams' files while others have taken their places among the open ones: their
// offsets are not given again, whatever the append asks for, until somebody deletes the streams.
func TestRemovedWhileClosed(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	storage, err := disk.Open(dir, disk.Options{MaxOpen: 4, MaxNames: 8})
	is.NoErr(err)
	defer storage.Close()
	m := streamlib.NewManager(storage, streamlib.Plain, streamlib.Options{})
	add := func(name, key string) error {
		_, err := m.Stream(name).Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1", "2"), Key: key})
		return err
	}
	is.NoErr(add("orders", ""))
	is.NoErr(add("keyed", "k"))
	for i := range 40 { // so many that no journal names them any more
		is.NoErr(add(fmt.Sprint("other", i), ""))
	}
	for _, name := range []string{"orders", "keyed"} {
		is.NoErr(os.Remove(filepath.Join(dir, "streams", name+".json")))
		for range 3 {
			for _, key := range []string{"", "k", "new"} {
				err := add(name, key)
				_, conflict := errors.AsType[*streamlib.ConflictError](err)
				if !errors.Is(err, streamlib.ErrUnavailable) || conflict {
					t.Errorf("append %q with key %q: %v", name, key, err)
				}
			}
		}
		is.NoErr(m.Stream(name).Delete(t.Context()))
		is.NoErr(add(name, "k"))
	}
}
