package streamtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

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
