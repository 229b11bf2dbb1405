package streamtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// Stream tests that what open returns makes streams that keep the contract of streamlib.Stream. Open is called for
// every subtest and returns the streams of an empty place by name, with default limits. Their hooks, if any, let
// everything pass.
func Stream(t *testing.T, open func(t *testing.T) func(name string) streamlib.Stream) {
	run(t, open, []streamTest{
		{"an append's events stand at the tail, contiguous and in order", testAppend},
		{"data is kept byte for byte but for white space", testData},
		{"data may be changed once append returned", testOwned},
		{"what is no JSON value in UTF-8 is refused", testInvalid},
		{"what is too large is refused", testTooLarge},
		{"names are told apart, and are no paths", testNames},
		{"what is no name is refused", testBadNames},
		{"a batch is there whole or not at all", testAtomic},
		{"racing appends lose nothing and keep their order", testRace},
		{"a read is half-open and ends at the tail", testRead},
		{"a read of a name that was never appended to yields nothing and makes nothing", testReadNothing},
		{"a subscription yields what is there, then what is appended", testSubscribe},
		{"a subscription from now yields what is appended from now on", testSubscribeNow},
		{"a subscription from beyond the tail waits for that position", testSubscribeBeyond},
		{"subscribing makes nothing", testSubscribeNothing},
		{"racing subscriptions and appends: no gap and no repeat", testSubscribeRace},
		{"a slow reader harms nobody and misses nothing", testSlow},
		{"a context that is done ends what it was given to", testContext},
		{"a deleted stream ends its subscriptions and starts again at 0", testDelete},
		{"a subscription sees one life of a stream", testLives},
		{"a key makes an append happen once", testKey},
		{"a key is good for batches", testKeyBatch},
		{"what can be a key and what cannot", testKeys},
		{"a key wins over a condition", testKeyCondition},
		{"a key is remembered over 10,000 events", testKeyWindow},
		{"of twins with a key one appends", testTwins},
		{"the key of an append that failed is free again", testKeyFree},
		{"a deleted stream's keys are forgotten", testKeyDelete},
		{"a condition on the tail is kept", testCondition},
		{"of writers with one condition one wins", testConditionRace},
	})
}

// Admit tests that streams call a batch's Admit, which takes place in the process that stores: it is not for clients.
func Admit(t *testing.T, open func(t *testing.T) func(name string) streamlib.Stream) {
	run(t, open, []streamTest{
		{"admit is called once for a batch that is new", testAdmit},
		{"admit refuses the batch", testAdmitRefuses},
		{"admit is not called for what is refused anyway", testAdmitInvalid},
		{"a twin waits for what admit says", testAdmitTwin},
	})
}

type streamTest struct {
	promise string
	run     func(t *testing.T, open func(name string) streamlib.Stream)
}

func run(t *testing.T, open func(t *testing.T) func(name string) streamlib.Stream, tests []streamTest) {
	for _, test := range tests {
		t.Run(test.promise, func(t *testing.T) { test.run(t, open(t)) })
	}
}

func testAppend(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	is.Equal(s.Name(), "orders")
	var all []streamlib.Event
	for n := range 5 {
		from := time.Now().UTC().Truncate(time.Millisecond)
		batch := streamlib.Batch{}
		for i := range n + 1 {
			batch.Data = append(batch.Data, value(n, i))
		}
		receipt, err := s.Append(soon(t), batch)
		is.NoErr(err)
		is.True(!receipt.Repeated)
		is.Equal(len(receipt.Events), n+1)
		for i, e := range receipt.Events {
			is.Equal(e.Offset, streamlib.Offset(len(all)+i))
			is.Equal(e.Stream(), "orders")
			is.Equal(string(e.Data()), string(value(n, i)))
			is.True(!e.CreatedAt().Before(from))
			is.Equal(e.CreatedAt().Location(), time.UTC)
			is.Equal(e.String(), fmt.Sprintf(`{"offset":"%016d","eventStreamId":"orders","data":%s,"createdAt":"%s"}`,
				e.Offset, value(n, i), e.CreatedAt().Format("2006-01-02T15:04:05.000Z")))
		}
		all = append(all, receipt.Events...)
		info, err := s.Stat(soon(t))
		is.NoErr(err)
		is.Equal(info.Name, "orders")
		is.Equal(info.Tail, streamlib.Offset(len(all)))
	}
	samePublic(t, read(t, s, 0, streamlib.MaxOffset), all)
}

func testData(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	var sent, want []string
	for _, pair := range [][2]string{
		{" \r\n\t{ \"a\" :\t[ 1 ,\r\n 2 ] , \"b\":{ } } ", `{"a":[1,2],"b":{}}`},
		{" \" a \" ", `" a "`},
		{"[ ]", "[]"},
	} {
		sent, want = append(sent, pair[0]), append(want, pair[1])
	}
	for _, same := range []string{
		"null", "true", "false", "0", "-0", `""`, "{}", "[]", `{"":{}}`,
		"9007199254740993", "123456789012345678901234567890.12345678901234567890", "1.0", "1.10E+05", "1e1000",
		"-1e-999999", "0.1e1",
		`"\u0000"`, `"\ud83d\ude00"`, `"\uD83D"`, `"\/\b\f\n\r\t\\\""`, `"\u2028"`, `"\u003c"`, "\"\u2028\u2029\"",
		`"<a href='x'>&"`, "\"\x7f\"",
		`"😀"`, "\"\u00e9 e\u0301\"", "\"\ufffd\ufffe\U0010ffff\ufeff\"", `{"a":1,"a":2,"A":3,"a":1}`,
		`{"b":1,"a":{"b":[{}]}}`,
		`{"data":1,"offset":"0000000000000007"}`,
		`{"createdAt":"2024-01-08T00:00:00.000Z","key":"k"}`,
		`"\",\"createdAt\":\"2024-01-08T00:00:00.000Z\",\"key\":\"k\""`, `"\\"`, `"id: 1\n\ndata: x"`,
		nested(1000), strings.Repeat(`{"a":`, 999) + "{}" + strings.Repeat("}", 999), `"` + strings.Repeat("€",
			100_000) + `"`,
	} {
		sent, want = append(sent, same), append(want, same)
	}
	one, batch := open("one"), open("batch")
	for i, data := range sent {
		receipt, err := one.Append(soon(t), streamlib.Batch{Data: streamlib.JSON(data)})
		if err != nil {
			t.Fatalf("append %.100s: %v", data, err)
		}
		is.Equal(string(receipt.Events[0].Data()), want[i])
	}
	receipt, err := batch.Append(soon(t), streamlib.Batch{Data: streamlib.JSON(sent...)})
	is.NoErr(err)
	subscription := subscribe(t, soon(t), one, 0)
	is.NoErr(subscription.until(len(want)))
	for _, got := range [][]streamlib.Event{
		receipt.Events, read(t, one, 0, streamlib.MaxOffset), read(t, batch, 0, streamlib.MaxOffset), subscription.events,
	} {
		is.Equal(len(got), len(want))
		for i, e := range got {
			is.Equal(string(e.Data()), want[i])
		}
	}
}

func testOwned(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	data := streamlib.JSON(`"first"`, `"second"`)
	receipt, err := s.Append(soon(t), streamlib.Batch{Data: data, Key: "k"})
	is.NoErr(err)
	want := fmt.Sprint(receipt.Events)
	for _, d := range data {
		clear(d)
	}
	is.Equal(fmt.Sprint(receipt.Events), want)
	is.Equal(fmt.Sprint(read(t, s, 0, streamlib.MaxOffset)), want)
}

func testInvalid(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, bad := range []string{
		"", " ", "{", "}", "[", `{"a"}`, `{"a":}`, `{"a":1,}`, `{a:1}`, `{'a':1}`, `{1:1}`, "[1,]", "[,1]", "[1 2]",
		"01", "1.", ".1", "+1", "-", "1e", "0x1", "NaN",
		"Infinity", "nul", "nulll", "True", "undefined", `"a`, `"\x"`, `"\u12"`, `"\u12g4"`, "\"a\nb\"", "\"\x00\"",
		"\"\x1b\"", "/*x*/1", "1//", "\ufeff1", "\u00a01",
		"1 2", "1\n2", "1,2", "1}", `1,"data":2`, `1}{"data":2`, `1,"x":2`, "{}{}", "[]]", "\"\xff\"", "\"\xc3\"",
		"\"\xed\xa0\x80\"", "\"\xc0\xaf\"", "{\"\xff\":1}", "\xff",
		nested(1001), strings.Repeat(`{"a":`, 1000) + "{}" + strings.Repeat("}",
			1000), nested(100_000), strings.Repeat("[", 1000),
	} {
		for _, data := range [][]json.RawMessage{streamlib.JSON(bad), streamlib.JSON("1", bad), streamlib.JSON(bad, "1")} {
			receipt, err := s.Append(soon(t), streamlib.Batch{Data: data})
			if !errors.Is(err, streamlib.ErrInvalid) || len(receipt.Events) != 0 {
				t.Errorf("append %d with %.100q: %v, %v", len(data), bad, receipt.Events, err)
			}
		}
	}
	isEmpty(t, s)
	_, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON("1")})
	is.NoErr(err)
}

func testTooLarge(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	large := func(n int) json.RawMessage { return json.RawMessage(`"` + strings.Repeat("x", n-2) + `"`) }
	var nine []json.RawMessage
	for range 9 {
		nine = append(nine, large(streamlib.MaxEvent))
	}
	for _, data := range [][]json.RawMessage{{large(streamlib.MaxEvent + 1)},
		{json.RawMessage("1"), large(streamlib.MaxEvent + 1)}, nine} {
		_, err := s.Append(soon(t), streamlib.Batch{Data: data})
		is.True(errors.Is(err, streamlib.ErrTooLarge))
	}
	isEmpty(t, s)
	_, err := s.Append(soon(t), streamlib.Batch{Data: nine[:1]})
	is.NoErr(err)
	_, err = s.Append(soon(t), streamlib.Batch{Data: nine[:7]})
	is.NoErr(err)
	is.Equal(len(read(t, s, 0, streamlib.MaxOffset)), 8)
}

func testNames(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	all := names()
	for i, name := range all {
		s := open(name)
		is.Equal(s.Name(), name)
		receipt, err := s.Append(soon(t), streamlib.Batch{Data: []json.RawMessage{value(i, 0)}})
		if err != nil {
			t.Fatalf("append %q: %v", name, err)
		}
		is.Equal(receipt.Events[0].Offset, streamlib.Offset(0)) // nobody else's stream
		is.Equal(receipt.Events[0].Stream(), name)
	}
	for i, name := range all {
		s := open(name)
		got := read(t, s, 0, streamlib.MaxOffset)
		is.Equal(len(got), 1)
		is.Equal(string(got[0].Data()), string(value(i, 0)))
		var back streamlib.Event
		text, err := json.Marshal(got[0]) // which escapes what HTML has a meaning for
		is.NoErr(err)
		is.NoErr(json.Unmarshal(text, &back))
		samePublic(t, []streamlib.Event{back}, got)
		subscription := subscribe(t, soon(t), s, 0)
		is.NoErr(subscription.until(1))
		subscription.stop()
		samePublic(t, subscription.events, got)
		info, err := s.Stat(soon(t))
		is.NoErr(err)
		is.Equal(info.Tail, streamlib.Offset(1))
	}
	for i, name := range all {
		is.NoErr(open(name).Delete(soon(t)))
		isEmpty(t, open(name))
		if i+1 < len(all) {
			is.Equal(len(read(t, open(all[i+1]), 0, streamlib.MaxOffset)), 1)
		}
	}
}

func testBadNames(t *testing.T, open func(string) streamlib.Stream) {
	for _, name := range badNames {
		s := open(name)
		_, appended := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON("1")})
		_, stat := s.Stat(soon(t))
		for _, err := range []error{appended, stat, s.Delete(soon(t)), end(s.Read(soon(t), 0, 1)),
			end(s.Subscribe(soon(t), 0))} {
			if !errors.Is(err, streamlib.ErrInvalid) {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
}

func testAtomic(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	const size, count = 7, 40
	tail := streamlib.Offset(1)
	for _, b := range []streamlib.Batch{
		{Data: streamlib.JSON("1", "2", "3", "x")},
		{Data: streamlib.JSON("1", "2", "3"), IfTail: &tail},
	} {
		_, err := s.Append(soon(t), b)
		is.True(err != nil)
		isEmpty(t, s)
	}
	done := make(chan error, 1)
	ctx := soon(t)
	go func() {
		var err error
		for n := 0; n < count && err == nil; n++ {
			var batch streamlib.Batch
			for i := range size {
				batch.Data = append(batch.Data, value(n, i))
			}
			_, err = s.Append(ctx, batch)
		}
		done <- err
	}()
	for over := false; !over; {
		select {
		case err := <-done:
			is.NoErr(err)
			over = true
		default:
		}
		info, err := s.Stat(ctx)
		is.NoErr(err)
		is.Equal(info.Tail%size, streamlib.Offset(0)) // stat saw a part of a batch
		n := len(read(t, s, 0, streamlib.MaxOffset))
		is.Equal(n%size, 0)          // read saw a part of a batch
		is.True(n >= int(info.Tail)) // stat told of what cannot be read
		is.True(!over || n == size*count)
	}
}

func testRace(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	var history Recorder
	const writers, count = 24, 20
	errs := together(writers, func(w int) error {
		s := open("orders")
		for n := range count {
			var batch streamlib.Batch
			for i := range (w+n)%3 + 1 {
				batch.Data = append(batch.Data, json.RawMessage(fmt.Sprintf(`{"w":%d,"n":%d,"i":%d}`, w, n, i)))
			}
			if _, err := history.Append(soon(t), s, batch); err != nil {
				return err
			}
		}
		return nil
	})
	is.NoErr(errors.Join(errs...))
	stored := read(t, open("orders"), 0, streamlib.MaxOffset)
	is.Equal(len(stored), writers*count*2)
	is.NoErr(Check(stored, history.Appends()))
}

func testRead(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	all := fill(t, s, 10)
	for _, from := range []streamlib.Offset{-7, streamlib.Beginning, 0, 1, 5, 9, 10, 11, streamlib.MaxOffset} {
		for _, to := range []streamlib.Offset{0, 1, 5, 9, 10, 11, streamlib.MaxOffset} {
			low := min(max(from, 0), 10)
			high := max(low, min(to, 10))
			samePublic(t, read(t, s, from, to), all[low:high])
		}
	}
	is.Equal(len(read(t, s, streamlib.Now, streamlib.MaxOffset)), 0)

	for range 2 { // it may be left at any time, and asked again
		for batch, err := range s.Read(soon(t), 0, streamlib.MaxOffset) {
			is.NoErr(err)
			is.True(len(batch) > 0)
			break
		}
	}
	var kept []streamlib.Event
	for batch, err := range s.Read(soon(t), 0, streamlib.MaxOffset) { // up to the tail where it began
		is.NoErr(err)
		kept = append(kept, batch...)
		fill(t, s, 1)
	}
	samePublic(t, kept, all)
}

func testReadNothing(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	for _, from := range []streamlib.Offset{streamlib.Beginning, streamlib.Now, 0, 7} {
		is.Equal(len(read(t, s, from, streamlib.MaxOffset)), 0)
	}
	isEmpty(t, s)
}

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

func testKey(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	fill(t, s, 1)
	batch := streamlib.Batch{Data: streamlib.JSON(`{"a": 1}`), Key: "k"}
	first, err := s.Append(soon(t), batch)
	is.NoErr(err)
	is.True(!first.Repeated)
	is.Equal(first.Events[0].Offset, streamlib.Offset(1))
	fill(t, s, 1)
	for _, data := range []string{`{"a": 1}`, `{"a":1}`, ` { "a" :1}`} { // white space is nothing
		again, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON(data), Key: "k"})
		is.NoErr(err)
		is.True(again.Repeated)
		samePublic(t, again.Events, first.Events)
	}
	for _, data := range [][]json.RawMessage{streamlib.JSON(`{"a":2}`), streamlib.JSON(`{"a":1}`, `{"a":1}`),
		streamlib.JSON(`{"a":1.0}`)} {
		receipt, err := s.Append(soon(t), streamlib.Batch{Data: data, Key: "k"})
		is.True(errors.Is(err, streamlib.ErrKeyReused))
		is.Equal(len(receipt.Events), 0)
	}
	is.Equal(len(read(t, s, 0, streamlib.MaxOffset)), 3)

	other, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON(`{"a":1}`), Key: "K"})
	is.NoErr(err)
	is.True(!other.Repeated)
	elsewhere, err := open("other").Append(soon(t), batch)
	is.NoErr(err)
	is.True(!elsewhere.Repeated)
}

func testKeyBatch(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	batch := streamlib.Batch{Data: streamlib.JSON("1", "2", "3"), Key: "k"}
	first, err := s.Append(soon(t), batch)
	is.NoErr(err)
	next, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON("1", "2", "3"), Key: "next"})
	is.NoErr(err)
	again, err := s.Append(soon(t), batch)
	is.NoErr(err)
	is.True(again.Repeated)
	samePublic(t, again.Events, first.Events)
	for _, data := range [][]json.RawMessage{streamlib.JSON("1", "2"), streamlib.JSON("2", "3"),
		streamlib.JSON("1", "2", "3", "4"), streamlib.JSON("1", "2", "4"), streamlib.JSON("1")} {
		_, err := s.Append(soon(t), streamlib.Batch{Data: data, Key: "k"})
		is.True(errors.Is(err, streamlib.ErrKeyReused))
	}
	samePublic(t, read(t, s, 0, streamlib.MaxOffset), slices.Concat(first.Events, next.Events))
}

func testKeys(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	for i, key := range []string{"a b", `"`, `\`, `\"`, `","key":"x`, `","createdAt":"2024-01-08T00:00:00.000Z`, "}",
		"😀", "é", "e\u0301", strings.Repeat("k", 255), strings.Repeat(`"`, 255), "%20", "a,b", "0"} {
		batch := streamlib.Batch{Data: []json.RawMessage{value(i, 0)}, Key: key}
		first, err := s.Append(soon(t), batch)
		if err != nil {
			t.Fatalf("key %q: %v", key, err)
		}
		again, err := s.Append(soon(t), batch)
		is.NoErr(err)
		is.True(!first.Repeated && again.Repeated)
		samePublic(t, again.Events, first.Events)
		is.Equal(string(first.Events[0].Data()), string(value(i, 0)))
		is.Equal(first.Events[0].Offset, streamlib.Offset(i))
	}
	before := read(t, s, 0, streamlib.MaxOffset)
	for _, key := range []string{strings.Repeat("k", 256), "a\x00", "a\nb", "\x7f", "a\u0085", "\xff"} {
		_, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON("1"), Key: key})
		if !errors.Is(err, streamlib.ErrInvalid) {
			t.Errorf("key %q: %v", key, err)
		}
	}
	samePublic(t, read(t, s, 0, streamlib.MaxOffset), before)
}

func testKeyCondition(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	tail := streamlib.Offset(0)
	batch := streamlib.Batch{Data: streamlib.JSON("1"), Key: "k", IfTail: &tail}
	first, err := s.Append(soon(t), batch)
	is.NoErr(err)
	again, err := s.Append(soon(t), batch) // though the tail is 1 by now
	is.NoErr(err)
	is.True(again.Repeated)
	samePublic(t, again.Events, first.Events)
	batch.Data = streamlib.JSON("2")
	_, err = s.Append(soon(t), batch)
	is.True(errors.Is(err, streamlib.ErrKeyReused))
}

func testKeyWindow(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	batch := streamlib.Batch{Data: streamlib.JSON(`"kept"`), Key: "k"}
	first, err := s.Append(soon(t), batch)
	is.NoErr(err)
	for n := range 9 {
		var fill streamlib.Batch
		for i := range 1111 {
			fill.Data = append(fill.Data, value(n, i))
		}
		fill.Key = fmt.Sprint(n)
		_, err := s.Append(soon(t), fill)
		is.NoErr(err)
	}
	again, err := s.Append(soon(t), batch)
	is.NoErr(err)
	is.True(again.Repeated)
	samePublic(t, again.Events, first.Events)
	info, err := s.Stat(soon(t))
	is.NoErr(err)
	is.Equal(info.Tail, streamlib.Offset(10_000))
}

func testTwins(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	const twins = 12
	for n := range 5 {
		var history Recorder
		name := fmt.Sprint("orders", n)
		receipts := make([]streamlib.Receipt, twins)
		errs := together(twins, func(i int) (err error) {
			receipts[i], err = history.Append(soon(t), open(name),
				streamlib.Batch{Data: []json.RawMessage{value(n, 0), value(n, 1)}, Key: "k"})
			return err
		})
		is.NoErr(errors.Join(errs...))
		repeats := 0
		for _, r := range receipts {
			samePublic(t, r.Events, receipts[0].Events)
			if r.Repeated {
				repeats++
			}
		}
		is.Equal(repeats, twins-1)
		stored := read(t, open(name), 0, streamlib.MaxOffset)
		is.Equal(len(stored), 2)
		is.NoErr(Check(stored, history.Appends()))
	}
}

func testKeyFree(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	tail := streamlib.Offset(5)
	for _, b := range []streamlib.Batch{
		{Data: streamlib.JSON("1"), Key: "k", IfTail: &tail},
		{Data: streamlib.JSON("x"), Key: "k"},
		{Data: streamlib.JSON("1", "x"), Key: "k"},
	} {
		_, err := s.Append(soon(t), b)
		is.True(err != nil && !errors.Is(err, streamlib.ErrKeyReused))
	}
	receipt, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON("2"), Key: "k"})
	is.NoErr(err)
	is.True(!receipt.Repeated)
	is.Equal(len(read(t, s, 0, streamlib.MaxOffset)), 1)
}

func testKeyDelete(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	for _, data := range []string{"1", "1", "2"} {
		receipt, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON(data), Key: "k"})
		is.NoErr(err)
		is.True(!receipt.Repeated)
		is.Equal(receipt.Events[0].Offset, streamlib.Offset(0))
		is.NoErr(s.Delete(soon(t)))
	}
}

func testCondition(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	for tail := range streamlib.Offset(5) {
		for _, want := range []streamlib.Offset{0, 1, tail + 1, streamlib.MaxOffset} {
			if want == tail {
				continue
			}
			_, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON("1", "2"), IfTail: &want})
			conflict, ok := errors.AsType[*streamlib.ConflictError](err)
			is.True(ok)
			is.Equal(conflict.Tail, tail)
		}
		receipt, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON("1"), IfTail: &tail})
		is.NoErr(err)
		is.Equal(receipt.Events[0].Offset, tail)
	}
	is.NoErr(s.Delete(soon(t)))
	_, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON("1"), IfTail: new(streamlib.Offset)})
	is.NoErr(err)
}

func testConditionRace(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	const writers, rounds = 12, 8
	for tail := range streamlib.Offset(rounds) {
		won := make([]bool, writers)
		errs := together(writers, func(w int) error {
			_, err := open("orders").Append(soon(t), streamlib.Batch{Data: []json.RawMessage{value(w, int(tail))},
				IfTail: &tail})
			conflict, lost := errors.AsType[*streamlib.ConflictError](err)
			if lost && conflict.Tail == tail+1 {
				return nil
			}
			won[w] = err == nil
			return err
		})
		is.NoErr(errors.Join(errs...))
		is.Equal(len(slices.DeleteFunc(won, func(won bool) bool { return !won })), 1)
	}
	// Each writer counts one up, five times, on the word of the conflict alone.
	s := open("count")
	errs := together(writers, func(int) error {
		var tail streamlib.Offset
		for n := 0; n < 5; {
			_, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON(fmt.Sprint(int(tail))), IfTail: &tail})
			if conflict, lost := errors.AsType[*streamlib.ConflictError](err); lost {
				tail = conflict.Tail
				continue
			} else if err != nil {
				return err
			}
			n++
			tail++
		}
		return nil
	})
	is.NoErr(errors.Join(errs...))
	stored := read(t, s, 0, streamlib.MaxOffset)
	is.Equal(len(stored), writers*5)
	for i, e := range stored {
		is.Equal(string(e.Data()), fmt.Sprint(i))
	}
}

func testAdmit(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	type mark struct{}
	calls := 0
	batch := streamlib.Batch{Data: streamlib.JSON("1", "2"), Key: "k", Admit: func(ctx context.Context) error {
		is.Equal(ctx.Value(mark{}), "the caller's context")
		isEmpty(t, s) // nothing is stored yet
		calls++
		return nil
	}}
	ctx := context.WithValue(soon(t), mark{}, "the caller's context")
	for range 3 {
		_, err := s.Append(ctx, batch)
		is.NoErr(err)
		is.Equal(calls, 1)
	}
	batch.Data = streamlib.JSON("3")
	_, err := s.Append(ctx, batch)
	is.True(errors.Is(err, streamlib.ErrKeyReused))
	is.Equal(calls, 1)
}

func testAdmitRefuses(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	no := errors.New("no")
	batch := streamlib.Batch{Data: streamlib.JSON("1", "2"), Key: "k", Admit: func(context.Context) error { return no }}
	for range 2 {
		receipt, err := s.Append(soon(t), batch)
		is.True(errors.Is(err, no))
		is.Equal(len(receipt.Events), 0)
	}
	isEmpty(t, s)
	batch.Admit = nil
	receipt, err := s.Append(soon(t), batch) // its key is free
	is.NoErr(err)
	is.True(!receipt.Repeated)

	ctx, cancel := context.WithCancel(soon(t))
	_, err = s.Append(ctx, streamlib.Batch{Data: streamlib.JSON("3"),
		Admit: func(context.Context) error { cancel(); return nil }})
	is.True(errors.Is(err, context.Canceled)) // nobody waits for it any more
	is.Equal(len(read(t, s, 0, streamlib.MaxOffset)), 2)
}

func testAdmitInvalid(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	admit := func(context.Context) error { t.Error("admit was called"); return nil }
	for _, b := range []streamlib.Batch{{Data: streamlib.JSON("x")}, {Data: streamlib.JSON("1"), Key: "\n"},
		{Data: streamlib.JSON(`"` + strings.Repeat("x", streamlib.MaxEvent) + `"`)}} {
		b.Admit = admit
		_, err := s.Append(soon(t), b)
		is.True(err != nil)
	}
}

func testAdmitTwin(t *testing.T, open func(string) streamlib.Stream) {
	is := is.New(t)
	s := open("orders")
	no := errors.New("no")
	inside, answer := make(chan bool), make(chan error)
	admit := func(context.Context) error { inside <- true; return <-answer }
	errs := make(chan error, 2)
	repeated := make(chan bool, 2)
	for range 2 {
		go func() {
			receipt, err := s.Append(soon(t), streamlib.Batch{Data: streamlib.JSON("1"), Key: "k", Admit: admit})
			errs <- err
			repeated <- receipt.Repeated
		}()
	}
	<-inside // one is asked
	select {
	case <-inside:
		t.Fatal("both twins are asked at once")
	case answer <- no:
	}
	is.True(errors.Is(<-errs, no))
	<-inside // then the other
	answer <- nil
	is.NoErr(<-errs)
	is.True(!<-repeated && !<-repeated)
	is.Equal(len(read(t, s, 0, streamlib.MaxOffset)), 1)
}

// subscription takes from a Subscribe what it is asked for.
type subscription struct {
	from   streamlib.Offset
	next   func() ([]streamlib.Event, error, bool)
	stop   func()
	events []streamlib.Event
}

func subscribe(t *testing.T, ctx context.Context, s streamlib.Stream, from streamlib.Offset) *subscription {
	next, stop := iter.Pull2(s.Subscribe(ctx, from))
	t.Cleanup(stop)
	return &subscription{from: from, next: next, stop: stop}
}

// until takes until there were n events, or returns the error that came before.
func (s *subscription) until(n int) error {
	for len(s.events) < n {
		batch, err, ok := s.next()
		switch {
		case !ok:
			return errors.New("the subscription ended without an error")
		case err != nil:
			return err
		case len(batch) == 0:
			return errors.New("the subscription yielded an empty batch")
		}
		s.events = append(s.events, batch...)
	}
	return nil
}

// appendUntil appends event after event until done returns.
func appendUntil(t *testing.T, s streamlib.Stream, done func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- done() }()
	for {
		select {
		case err := <-ended:
			return err
		default:
			fill(t, s, 1)
		}
	}
}

// together runs n calls at once and waits for them.
func together(n int, do func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			<-start
			errs[i] = do(i)
		})
	}
	close(start)
	all.Wait()
	return errs
}

// soon bounds what would otherwise hang where a promise is broken.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("it hangs"))
	t.Cleanup(cancel)
	return ctx
}

func value(n, i int) json.RawMessage { return json.RawMessage(fmt.Sprintf(`{"n":%d,"i":%d}`, n, i)) }

func fill(t *testing.T, s streamlib.Stream, n int) []streamlib.Event {
	t.Helper()
	var batch streamlib.Batch
	for i := range n {
		batch.Data = append(batch.Data, value(n, i))
	}
	receipt, err := s.Append(soon(t), batch)
	if err != nil {
		t.Fatal(err)
	}
	return receipt.Events
}

func read(t *testing.T, s streamlib.Stream, from, to streamlib.Offset) []streamlib.Event {
	t.Helper()
	var all []streamlib.Event
	for batch, err := range s.Read(soon(t), from, to) {
		if err != nil {
			t.Fatalf("read %q from %v to %v: %v", s.Name(), from, to, err)
		}
		all = append(all, batch...)
	}
	return all
}

// end returns the error that an iteration ends with.
func end(events iter.Seq2[[]streamlib.Event, error]) (last error) {
	for _, last = range events {
	}
	return last
}

func isEmpty(t *testing.T, s streamlib.Stream) {
	t.Helper()
	info, err := s.Stat(soon(t))
	if err != nil || info.Tail != 0 || info.Size != 0 || !info.CreatedAt.IsZero() || !info.UpdatedAt.IsZero() {
		t.Fatalf("stat: %+v, %v", info, err)
	}
	if got := read(t, s, 0, streamlib.MaxOffset); len(got) > 0 {
		t.Fatalf("read: %v", got)
	}
}

// samePublic compares the public forms: all that a client sees.
func samePublic(t *testing.T, got, want []streamlib.Event) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d events, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].String() != want[i].String() || got[i].Offset != want[i].Offset {
			t.Fatalf("event %d: %.300v, want %.300v", i, got[i], want[i])
		}
	}
}
