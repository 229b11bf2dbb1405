package retention

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/matryer/is"
)

// TestScheduleAgainstAMap compares it with a map that is searched.
func TestScheduleAgainstAMap(t *testing.T) {
	is := is.New(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var s schedule
	names, now := map[string]time.Time{}, start
	for range 20_000 {
		name := fmt.Sprint(rnd.IntN(50))
		switch rnd.IntN(5) {
		case 0:
			s.remove(name)
			delete(names, name)
		case 1:
			now = start.Add(time.Duration(rnd.IntN(100)) * time.Millisecond) // and back
			for got, ok := s.next(now); ok; got, ok = s.next(now) {
				at, known := names[got]
				is.True(known)
				is.True(!at.After(now))
				for _, other := range names {
					is.True(!other.Before(at))
				}
				delete(names, got)
			}
			for _, at := range names {
				is.True(at.After(now))
			}
		default:
			at := start.Add(time.Duration(rnd.IntN(100)) * time.Millisecond)
			s.set(name, at)
			names[name] = at
		}
		_, want := names[name]
		is.Equal(s.has(name), want)
		is.Equal(len(s.heap), len(names))
	}
}

// TestNoNameIsKeptOfAStreamThatIsGone: streams that come and go, each with a name of its own, leave nothing behind.
func TestNoNameIsKeptOfAStreamThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		manager := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
		s := &Sweeper{Manager: manager, Retain: rules(t, Retain, "*=1d,1"), Expire: rules(t, Expire, "*=30d")}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx) })
		for i := range 1000 {
			stream := manager.Stream(fmt.Sprint(i))
			_, err := stream.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1", "2")})
			is.NoErr(err)
			if i%2 == 0 {
				time.Sleep(2 * time.Second)
			}
			is.NoErr(stream.Delete(t.Context()))
		}
		time.Sleep(10 * time.Second)
		cancel()
		running.Wait()
		is.Equal(len(s.ages.heap)+len(s.ages.names)+len(s.waiting.heap)+len(s.waiting.names)+len(s.failing), 0)
	})
}

func rules(t *testing.T, read func(...string) (Rules, error), texts ...string) Rules {
	r, err := read(texts...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
