package object

import (
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/streamtest"
)

func openFake(t *testing.T, f *fake) *Storage {
	t.Helper()
	s, err := Open(t.Context(), f.options())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// newPatient is a store without faults, which is waited for as long as a loaded machine takes.
func newPatient() *fake {
	f := newFake()
	f.patience = 5 * time.Minute
	return f
}

// newGoogle is one that does as Google's.
func newGoogle() *fake {
	f := newPatient()
	f.google = true
	return f
}

func TestStorage(t *testing.T) {
	t.Parallel()
	testStorage(t, newPatient)
}

func testStorage(t *testing.T, newStore func() *fake) {
	streamtest.Storage(t, func(t *testing.T) streamlib.Storage { return openFake(t, newStore()) })
	var mu sync.Mutex
	stores := map[string]*fake{} // by the folder of the test
	streamtest.Durable(t, func(t *testing.T, dir string) streamlib.Storage {
		mu.Lock()
		defer mu.Unlock()
		if stores[dir] == nil {
			stores[dir] = newStore()
		}
		return openFake(t, stores[dir])
	})
}

func TestStream(t *testing.T) {
	t.Parallel()
	streamtest.Stream(t, func(t *testing.T) func(string) streamlib.Stream {
		return streamlib.NewManager(openFake(t, newPatient()), streamlib.Plain, streamlib.Options{}).Stream
	})
}

func TestShared(t *testing.T) {
	t.Parallel()
	testShared(t, newPatient)
}

func testShared(t *testing.T, newStore func() *fake) {
	streamtest.Shared(t, func(t *testing.T) func() streamlib.Shared {
		f := newStore()
		return func() streamlib.Shared { return openFake(t, f) }
	})
}

// TestGoogle runs the contracts in Google's spelling, which each of the storages finds by itself.
func TestGoogle(t *testing.T) {
	if raceEnabled {
		t.Skip("a spelling is words in a header: TestStorage and TestShared look for races")
	}
	t.Parallel()
	t.Run("storage", func(t *testing.T) { testStorage(t, newGoogle) })
	if !testing.Short() { // it waits for long
		t.Run("shared", func(t *testing.T) { testShared(t, newGoogle) }) // it has all of streamtest.Stream, too
	}
}

// TestNames: the order of stems is that of names, and so is the beginning of one.
func TestNames(t *testing.T) {
	names := []string{"", "\x20", "-", ".", "/", "0", "9", ":", "A", "Z", "_", "`", "a", "a b", "a-b", "a/b", "aa", "z",
		"{", "é", "😀"}
	for i, a := range names {
		if i > 0 {
			if name, _, ok := unstem(stem(a)); !ok || name != a {
				t.Errorf("%q is %q, of which the name is %q", a, stem(a), name)
			}
		}
		for _, b := range names {
			if (a < b) != (stem(a)+"/" < stem(b)+"/") {
				t.Errorf("%q and %q have stems in another order", a, b)
			}
			if !strings.HasPrefix(stem(a+b), encode(a)) {
				t.Errorf("%q does not begin as %q does", a+b, a)
			}
		}
	}
	for i := range 300 {
		if len(stem(strings.Repeat("é", i%127+1))) > 230 {
			t.Error("a stem is too long: " + strconv.Itoa(i))
		}
	}
}
