package budget_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib/budget"
	"github.com/matryer/is"
)

const mib = 1 << 20

// held returns a hold of n bytes that there is room for.
func held(t *testing.T, s *budget.Share, n int64, rank budget.Rank) *budget.Hold {
	t.Helper()
	h := s.Hold()
	if !h.Grow(t.Context(), n, rank, time.Second) {
		t.Fatalf("there is no room for %d bytes", n)
	}
	return &h
}

func TestRanks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		b := budget.New(256 * mib) // a share has 64 MiB
		slow := held(t, &b.Requests, 30*mib, budget.Arriving)
		other := b.Requests.Hold()
		begun := time.Now()
		is.True(!other.Grow(t.Context(), 3*mib, budget.Arriving, time.Second)) // bodies that arrive have a half
		is.Equal(time.Since(begun), time.Second)
		is.True(slow.Grow(t.Context(), 50*mib, budget.Whole, time.Second)) // one that has arrived goes on
		is.True(!other.Grow(t.Context(), 7*mib, budget.Whole, time.Second))
		for range 14 << 4 { // what is small has what is left
			held(t, &b.Requests, budget.SmallSize, budget.Arriving)
		}
		is.Equal(b.Held(), int64(64*mib))
		is.True(!other.Grow(t.Context(), 1, budget.Small, time.Second))
		held(t, &b.Readers, 50*mib, budget.Whole) // the other share is not touched
		slow.Release()
		is.True(other.Grow(t.Context(), 1, budget.Small, time.Second))
	})
}

// TestTurnsInOrder: who waits gets room in the order of coming, and nobody who comes later is let by, but what is small.
func TestTurnsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		b := budget.New(256 * mib)
		first := held(t, &b.Requests, 50*mib, budget.Whole)
		var mu sync.Mutex // guards order
		var order []int
		soFar := func() []int {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(order)
		}
		for i, size := range []int64{40 * mib, 30 * mib, budget.SmallSize} {
			go func() {
				h := b.Requests.Hold()
				if h.Grow(t.Context(), size, budget.Whole, 0) {
					mu.Lock()
					order = append(order, i)
					mu.Unlock()
					time.Sleep(time.Minute)
					h.Release()
				}
			}()
			synctest.Wait()
		}
		is.Equal(soFar(), []int{2})
		first.Release()
		synctest.Wait()
		is.Equal(soFar(), []int{2, 0}) // the other one has no room beside it
		time.Sleep(3 * time.Minute)
		is.Equal(soFar(), []int{2, 0, 1})
		is.Equal(b.Held(), int64(0))
	})
}

// TestGivesUp: who gives up leaves nothing behind, and lets go on who waited behind it.
func TestGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		b := budget.New(256 * mib)
		first := held(t, &b.Requests, 30*mib, budget.Whole)
		ctx, cancel := context.WithCancel(t.Context())
		large, small := make(chan bool), make(chan bool)
		wait := func(ctx context.Context, n int64, got chan bool) {
			h := b.Requests.Hold()
			got <- h.Grow(ctx, n, budget.Whole, 0)
		}
		go wait(ctx, 40*mib, large)
		synctest.Wait()
		go wait(t.Context(), 10*mib, small)
		synctest.Wait()
		is.Equal(b.Held(), int64(30*mib)) // it waits behind the large one, though there is room
		cancel()
		is.Equal(<-large, false)
		is.Equal(<-small, true)
		is.Equal(b.Held(), int64(40*mib))
		first.Release()
		is.Equal(b.Held(), int64(10*mib))
	})
}

// TestLargerThanAll: what is larger than what there is has it for itself, and two that hold a part of it end.
func TestLargerThanAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		b := budget.New(256 * mib)
		one, two := b.Requests.Hold(), b.Requests.Hold()
		is.True(one.Grow(t.Context(), 16*mib, budget.Arriving, time.Second))
		is.True(two.Grow(t.Context(), 16*mib, budget.Arriving, time.Second))
		results := make(chan bool, 2)
		for _, h := range []*budget.Hold{&one, &two} {
			go func() {
				ok := h.Grow(t.Context(), 1000*mib, budget.Whole, time.Second)
				h.Release()
				results <- ok
			}()
			time.Sleep(time.Second / 2)
		}
		is.Equal(<-results, false)
		is.Equal(<-results, true) // once the other one has given up
		is.Equal(b.Held(), int64(0))
	})
}

func TestReadersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		b := budget.New(64 * mib)
		none, ok := budget.TakeTurn(t.Context())
		is.True(ok && none == nil) // where nobody asked for turns
		none.Has(1)
		is.True(none.Next(t.Context()))
		none.End()

		ctx := budget.WithTurns(t.Context(), &b.Readers, time.Second)
		var stuck []*budget.Turn
		for {
			turn, ok := budget.TakeTurn(ctx)
			if !ok {
				break
			}
			stuck = append(stuck, turn)
		}
		is.Equal(len(stuck), 28) // seven eighths of 16 MiB
		waiting := make(chan bool, 1)
		go func() {
			turn, ok := budget.TakeTurn(budget.WithTurns(t.Context(), &b.Readers, 0))
			waiting <- ok
			turn.End()
		}()
		synctest.Wait()
		is.True(stuck[0].Next(t.Context())) // gave its turn to who waited, and had it back
		is.True(<-waiting)
		synctest.Wait()
		stuck[1].Has(4 * mib) // more than it has taken: it is counted
		is.Equal(b.Held(), int64(27*(512<<10)+8*mib))
		for _, turn := range stuck {
			turn.End()
		}
		is.Equal(b.Held(), int64(0))
	})
}
