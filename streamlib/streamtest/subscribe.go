package streamtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

func testSubscribe(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	all := fill(t, s, 3)
	subscriptions := []*subscription{
		subscribe(t, soon(t), s, streamlib.Beginning), subscribe(t, soon(t), s, -7), subscribe(t, soon(t), s, 0),
		subscribe(t, soon(t), s, 2), subscribe(t, soon(t), s, 3),
	}
	for n := range 6 {
		if n > 0 {
			all = append(all, fill(t, s, n)...)
		}
		for _, sub := range subscriptions {
			is.NoErr(sub.until(len(all) - int(max(sub.from, 0))))
			samePublic(t, sub.events, all[max(sub.from, 0):])
		}
	}
	sub := subscribe(t, soon(t), s, 0) // one that is left does nothing to the others
	is.NoErr(sub.until(1))
	sub.stop()
	all = append(all, fill(t, s, 1)...)
	for _, sub := range subscriptions {
		is.NoErr(sub.until(len(all) - int(max(sub.from, 0))))
	}
}

func testSubscribeNow(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	fill(t, s, 3)
	sub := subscribe(t, soon(t), s, streamlib.Now)
	is.NoErr(appendUntil(t, s, func() error { return sub.until(3) }))
	is.True(sub.events[0].Offset >= 3)
	is.NoErr(Run{streamlib.Now, sub.events}.check(read(t, s, 0, streamlib.MaxOffset)))
}

func testSubscribeBeyond(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	subscriptions := []*subscription{subscribe(t, soon(t), s, 2), subscribe(t, soon(t), s, 9), subscribe(t, soon(t), s, 0)}
	is.NoErr(appendUntil(t, s, func() error {
		return errors.Join(together(3, func(i int) error { return subscriptions[i].until(3) })...)
	}))
	stored := read(t, s, 0, streamlib.MaxOffset)
	for _, sub := range subscriptions {
		is.NoErr(Run{sub.from, sub.events}.check(stored))
	}
}

func testSubscribeNothing(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	ctx, cancel := context.WithCancel(soon(t))
	ended := make(chan error, 1)
	go func() { ended <- end(s.Subscribe(ctx, 0)) }()
	isEmpty(t, s)
	cancel()
	is.True(errors.Is(<-ended, context.Canceled))
	isEmpty(t, s)
}

func testSubscribeRace(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	var history Recorder
	const writers, readers, count, total = 8, 24, 30, 8 * 30 * 2
	ctx := soon(t)
	var writing sync.WaitGroup
	wrote := make([]error, writers)
	for w := range writers {
		writing.Go(func() {
			s := open("orders")
			for n := range count {
				data := streamlib.JSON(fmt.Sprintf(`{"w":%d,"n":%d}`, w, n), fmt.Sprintf(`{"w":%d,"n":%d,"second":true}`, w, n))
				if _, err := history.Append(ctx, s, streamlib.Batch{Data: data}); err != nil {
					wrote[w] = err
				}
			}
		})
	}
	runs := make([]Run, readers)
	readErrs := together(readers, func(r int) error {
		s := open("orders")
		from := streamlib.Beginning
		if r%2 == 1 { // some begin where the tail is by then
			info, err := s.Stat(ctx)
			if err != nil {
				return err
			}
			from = info.Tail
		}
		runs[r].From = from
		if from == total {
			return nil
		}
		for batch, err := range s.Subscribe(ctx, from) {
			if err != nil {
				return err
			}
			if len(batch) == 0 {
				return errors.New("an empty batch")
			}
			runs[r].Events = append(runs[r].Events, batch...)
			if batch[len(batch)-1].Offset >= total-1 {
				break
			}
		}
		return nil
	})
	writing.Wait()
	is.NoErr(errors.Join(wrote...))
	is.NoErr(errors.Join(readErrs...))
	stored := read(t, open("orders"), 0, streamlib.MaxOffset)
	is.Equal(len(stored), total)
	is.NoErr(Check(stored, history.Appends(), runs...))
	for _, r := range runs {
		is.Equal(max(r.From, 0)+streamlib.Offset(len(r.Events)), streamlib.Offset(total))
	}
}

func testSlow(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	fill(t, s, 1)
	slow, fast := subscribe(t, soon(t), s, 0), subscribe(t, soon(t), s, 0)
	is.NoErr(slow.until(1))
	const count = 100
	padding := strings.Repeat("x", 100_000) // more than sockets hold
	for n := range count {
		_, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON(fmt.Sprintf(`{"n":%d,"x":%q}`, n, padding))})
		is.NoErr(err)
		is.NoErr(fast.until(n + 2))
	}
	is.NoErr(slow.until(count + 1))
	stored := read(t, s, 0, streamlib.MaxOffset)
	samePublic(t, slow.events, stored)
	samePublic(t, fast.events, stored)
}

func testContext(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	all := fill(t, s, 3)
	done, cancel := context.WithCancel(t.Context())
	cancel()
	_, appended := s.Append(done, streamlib.Batch{Data: streamlib.JSON("1")})
	_, keyed := s.Append(done, streamlib.Batch{Data: streamlib.JSON("1"), Key: "k"})
	_, stat := s.Stat(done)
	for _, err := range []error{appended, keyed, stat, s.Delete(done), end(s.Read(done, 0, 3)),
		end(s.Subscribe(done, 0)), end(s.Subscribe(done, 3))} {
		is.True(errors.Is(err, context.Canceled))
	}
	samePublic(t, read(t, s, 0, streamlib.MaxOffset), all)

	ctx, cancel := context.WithCancel(soon(t))
	sub := subscribe(t, ctx, s, 0)
	is.NoErr(sub.until(3))
	cancel()
	is.True(errors.Is(sub.until(4), context.Canceled))
	_, _, more := sub.next()
	is.True(!more) // the error is the end
}

func testDelete(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	is.NoErr(s.Delete(soon(t))) // no error where there is none
	for life := range 3 {
		old := fill(t, s, 3+life)
		sub := subscribe(t, soon(t), s, 0)
		is.NoErr(sub.until(len(old)))
		is.NoErr(s.Delete(soon(t)))
		isEmpty(t, s)
		is.True(errors.Is(sub.until(len(old)+1), streamlib.ErrDeleted))
		samePublic(t, sub.events, old)
		if life == 1 {
			is.NoErr(s.Delete(soon(t)))
		}
	}
	again := fill(t, s, 2)
	is.Equal(again[0].Offset, streamlib.Offset(0))
	samePublic(t, read(t, s, 0, streamlib.MaxOffset), again)
	sub := subscribe(t, soon(t), s, 0)
	is.NoErr(sub.until(2))
	samePublic(t, sub.events, again)
}

func testLives(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	const lives, size, last = 25, 6, 1000
	ctx := soon(t)
	var writing sync.WaitGroup
	var wrote error
	writing.Go(func() {
		s := open("orders")
		for life := range lives {
			for n := range size {
				_, err := s.Append(ctx, streamlib.Batch{Data: []json.RawMessage{value(life, n)}})
				wrote = errors.Join(wrote, err)
			}
			wrote = errors.Join(wrote, s.Delete(ctx))
		}
		_, err := s.Append(ctx, streamlib.Batch{Data: []json.RawMessage{value(last, 0)}})
		wrote = errors.Join(wrote, err)
	})
	errs := together(6, func(int) error {
		s := open("orders")
		for { // until the last life is seen
			var run []streamlib.Event
			for batch, err := range s.Subscribe(ctx, 0) {
				if errors.Is(err, streamlib.ErrDeleted) {
					break
				} else if err != nil {
					return err
				}
				for _, e := range batch {
					run = append(run, e)
					var first, this struct{ N int }
					if json.Unmarshal(run[0].Data(), &first) != nil || json.Unmarshal(e.Data(), &this) != nil {
						return fmt.Errorf("not an event of this test: %v", e)
					}
					switch {
					case int(e.Offset) != len(run)-1:
						return fmt.Errorf("offset %d where %d should be", e.Offset, len(run)-1)
					case this.N != first.N:
						return fmt.Errorf("a subscription of life %d saw life %d", first.N, this.N)
					case this.N == last:
						return nil
					}
				}
			}
		}
	})
	writing.Wait()
	is.NoErr(wrote)
	is.NoErr(errors.Join(errs...))
}
