package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/streamtest"
)

// TestSmall is the contract where journals are full, and files closed, all the time.
func TestSmall(t *testing.T) {
	t.Run("in memory", func(t *testing.T) {
		streamtest.Storage(t, func(t *testing.T) streamlib.Storage {
			s, _, err := files{}.open(Options{JournalSize: 1000, MaxOpen: 3})
			if err != nil {
				t.Fatal(err)
			}
			return s
		})
	})
	t.Run("on a folder", func(t *testing.T) {
		streamtest.Storage(t, func(t *testing.T) streamlib.Storage {
			return openFolder(t, t.TempDir(), Options{JournalSize: 10_000, MaxNames: 3, MaxOpen: 2})
		})
	})
	streamtest.Durable(t, func(t *testing.T, dir string) streamlib.Storage {
		return openFolder(t, dir, Options{JournalSize: 10_000, MaxNames: 3, MaxOpen: 2})
	})
	streamtest.Stream(t, func(t *testing.T) func(name string) streamlib.Stream {
		s := openFolder(t, t.TempDir(), Options{JournalSize: 10_000, MaxNames: 3, MaxOpen: 2})
		return streamlib.NewManager(s, streamlib.Plain, streamlib.Options{}).Stream
	})
}

// TestCrashConcurrent is TestCrash with writers, readers and checkpoints at once. Its histories do not repeat exactly.
func TestCrashConcurrent(t *testing.T) {
	histories(t, 600, func(seed uint64, trace func(string, ...any)) error { return crashConcurrent(seed) })
}

func crashConcurrent(seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 3))
	fs := newCrashFS(rand.New(rand.NewPCG(seed, 4)))
	o := Options{JournalSize: []int64{1, 2000, 1 << 20}[rng.IntN(3)], MaxNames: 1 + rng.IntN(4),
		MaxOpen: 1 + rng.IntN(3)}
	names := []string{"a", "B", longName}
	histories := make([]streamtest.Recorder, len(names))
	var runs [3][]streamtest.Run
	for range 1 + rng.IntN(3) {
		store, err := openStore(fs, o)
		if err != nil {
			return err
		}
		m := streamlib.NewManager(store, streamlib.Plain, streamlib.Options{})
		crashAt := fs.ops + 1 + rng.IntN(300)
		fs.before = func(o op) outcome { return outcome{crash: o.n == crashAt, effect: effect(crashAt % 3)} }

		ctx, cancel := context.WithCancel(context.Background())
		var writers, others sync.WaitGroup
		for range 4 {
			rng := rand.New(rand.NewPCG(rng.Uint64(), 5))
			writers.Go(func() {
				for range 1 + rng.IntN(20) {
					i := rng.IntN(len(names))
					b := streamlib.Batch{}
					for range 1 + rng.IntN(3) {
						b.Data = append(b.Data, json.RawMessage(fmt.Sprintf(`"%x %s"`,
							rng.Uint64(), strings.Repeat("x", rng.IntN(100)))))
					}
					if rng.IntN(3) == 0 {
						b.Key = fmt.Sprint(rng.Uint64())
					}
					_, err := histories[i].Append(context.Background(), m.Stream(names[i]), b)
					if err != nil && b.Key != "" && !errors.Is(err, streamlib.ErrUnavailable) {
						_, _ = histories[i].Append(context.Background(), m.Stream(names[i]), b)
					}
				}
			})
		}
		done := make(chan struct{})
		others.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					store.checkpoint()
					runtime.Gosched()
				}
			}
		})
		var mu sync.Mutex
		for i, name := range names {
			from := []streamlib.Offset{streamlib.Beginning, streamlib.Now, 3}[rng.IntN(3)]
			others.Go(func() {
				run := streamtest.Run{From: from}
				for batch := range m.Stream(name).Subscribe(ctx, from) {
					run.Events = append(run.Events, batch...)
				}
				mu.Lock()
				defer mu.Unlock()
				runs[i] = append(runs[i], run)
			})
		}
		writers.Wait()
		close(done)
		cancel()
		others.Wait()

		fs.before = nil
		fs.restart(crash(rng.IntN(3)))
		if rng.IntN(2) == 0 { // and again
			crashAt := fs.ops + 1 + rng.IntN(50)
			fs.before = func(o op) outcome { return outcome{crash: o.n == crashAt} }
			_, _ = openStore(fs, o)
			fs.before = nil
			fs.restart(crash(rng.IntN(3)))
		}
		if store, err = openStore(fs, o); err != nil {
			return err
		}
		for i, name := range names {
			stored, err := read(store, name, 0)
			if err == nil {
				err = streamtest.Check(stored, histories[i].Appends(), runs[i]...)
			}
			if err != nil {
				return fmt.Errorf("stream %q: %w", name, err)
			}
		}
		fs.restart(kill)
	}
	return nil
}

// These are what the tests ask of a storage.

func put(s streamlib.Storage, name string, events ...streamlib.Event) error {
	return s.Commit(context.Background(), name, streamlib.Change{Events: events})
}

func drop(s streamlib.Storage, name string) error {
	return s.Commit(context.Background(), name, streamlib.Change{Delete: true})
}

func stat(s streamlib.Storage, name string) (streamlib.Info, error) {
	return s.Stat(context.Background(), name)
}

func listed(s streamlib.Storage, prefix, after string, limit int) ([]string, error) {
	return s.List(context.Background(), prefix, after, limit)
}

func eventOf(name string, o int, data json.RawMessage) streamlib.Event {
	record, _ := streamlib.NewRecord(streamlib.Offset(o), name, data, testTime)
	e, _ := streamlib.ParseRecord(record)
	return e
}
