package streamlib_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/internal/compact"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/matryer/is"
)

func TestParseOffset(t *testing.T) {
	for s, want := range map[string]streamlib.Offset{
		"-1": streamlib.Beginning, "now": streamlib.Now, "0": 0, "7": 7, "007": 7, "0000000000000042": 42,
		"00000000000000000000000000000000000001": 1, "9007199254740991": streamlib.MaxOffset,
	} {
		got, err := streamlib.ParseOffset(s)
		if err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", s, got, err, want)
		}
		if again, err := streamlib.ParseOffset(got.String()); err != nil || again != want {
			t.Errorf("%v: %v, %v", got, again, err)
		}
	}
	if s := streamlib.Offset(-7).String(); s != "-7" {
		t.Errorf("%q", s)
	}
	for _, s := range []string{
		"", " ", "-2", "-0", "+1", "1 ", " 1", "1.0", "1e3", "0x1", "1_000", "Now", "NOW", "last", "9007199254740992",
		"18446744073709551617", "٣", "-1 ", "--1",
	} {
		if got, err := streamlib.ParseOffset(s); !errors.Is(err, streamlib.ErrInvalid) {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

func TestHasType(t *testing.T) {
	for _, test := range []struct {
		data  string
		types []string
		want  bool
	}{
		{`1`, nil, true},
		{`{"type":"a"}`, []string{"a"}, true},
		{`{"_type":"a"}`, []string{"a"}, true},
		{`{"_type":"a"}`, []string{"b", "a"}, true},
		{`{"type":"a","_type":"b"}`, []string{"b"}, true},
		{`{"type":"a","_type":"b"}`, []string{"a"}, true},
		{`{"type":"\u0061"}`, []string{"a"}, true},
		{`{"type":"a","type":"b"}`, []string{"b"}, true}, // the last one counts, as JSON readers have it
		{`{"type":""}`, []string{""}, true},
		{`{"type":"a"}`, []string{"A"}, false},
		{`{"Type":"a","TYPE":"a","_Type":"a"}`, []string{"a"}, false}, // members go by their exact names
		{`{"type":"a","Type":"b"}`, []string{"a"}, true},
		{`{"type":"a","Type":"b"}`, []string{"b"}, false},
		{`{"x":{"type":"a"}}`, []string{"a"}, false},
		{`[{"type":"a"}]`, []string{"a"}, false},
		{`"type"`, []string{"type"}, false},
		{`{"type":null}`, []string{""}, false},
		{`{"type":1}`, []string{"1"}, false},
		{`{}`, []string{""}, false},
		{`{"ty\u0070e":"a"}`, []string{"a"}, true},
		{`{"x":"\\","type":"a\"b"}`, []string{`a"b`}, true},
		{`{"x":"\\\"","y":[{"type":"a"},"]"],"type":"b"}`, []string{"a"}, false},
		{`{"x":"\\\"","y":[{"type":"a"},"]"],"type":"b"}`, []string{"b"}, true},
		{`{"type":"a","type":{"a":"a"}}`, []string{"a"}, false},
	} {
		if got := event(t, 0, "s", test.data).HasType(test.types...); got != test.want {
			t.Errorf("%s has type %q: %v", test.data, test.types, got)
		}
	}
}

func TestEventJSON(t *testing.T) {
	is := is.New(t)
	const public = `{"offset":"0000000000000042","eventStreamId":"a \"b\" \\ <é>","data":{"n":1.0,"s":"<&>` + "\u2028" + `"},"createdAt":"2024-01-08T00:00:00.000Z"}`
	e := event(t, 42, `a "b" \ <é>`, `{"n":1.0,"s":"<&>`+"\u2028"+`"}`)
	is.Equal(e.String(), public)
	is.Equal(string(e.AppendJSON([]byte("x"))), "x"+public)
	_, _ = append(e.Data(), "beside"...), append(e.Record(), "beside"...)
	is.Equal(e.String(), public) // nobody writes into its memory by accident

	var decoded streamlib.Event
	is.NoErr(json.Unmarshal([]byte(public), &decoded))
	is.Equal(decoded.String(), public)
	is.Equal(decoded.Offset, streamlib.Offset(42))
	is.Equal(decoded.Stream(), `a "b" \ <é>`)
	is.Equal(decoded.CreatedAt(), time.Date(2024, 1, 8, 0, 0, 0, 0, time.UTC))
	is.Equal(decoded.Key(), "")

	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	is.NoErr(encoder.Encode([]streamlib.Event{e}))
	is.Equal(out.String(), "["+public+"]\n")
}

// TestEventThroughJSON takes events through whatever encoding/json writes them as, and back.
func TestEventThroughJSON(t *testing.T) {
	const hostile = "a&b <c> \"d\" \\ é😀 \u2028\u2029 </script>"
	for _, data := range []string{
		`1`, `-0`, `1.0e+00`, `""`, `null`, `{}`, `[]`, `{"b":{"a":[1,2]},"b":12345678901234567890.10}`,
		`"` + "a\u2028" + `"`, `"\u003c\/\ud83d"`, `"<&>"`,
	} {
		is := is.New(t)
		e := event(t, 7, hostile, data)
		escaped, err := json.Marshal(map[string]any{"b": []streamlib.Event{e}, "a": 1})
		is.NoErr(err)
		indented, err := json.MarshalIndent(json.RawMessage(escaped), ">", "\t")
		is.NoErr(err)
		var bare bytes.Buffer
		encoder := json.NewEncoder(&bare)
		encoder.SetEscapeHTML(false)
		is.NoErr(encoder.Encode(json.RawMessage(escaped)))
		for _, text := range []string{string(escaped), strings.ReplaceAll(string(indented), "\n>", "\n"), bare.String()} {
			var got struct{ B []streamlib.Event }
			is.NoErr(json.Unmarshal([]byte(text), &got))
			back := got.B[0]
			is.Equal(back.Offset, streamlib.Offset(7))
			is.Equal(back.Stream(), hostile)
			is.Equal(back.CreatedAt(), e.CreatedAt())
			var want bytes.Buffer
			json.HTMLEscape(&want, []byte(data)) // which is what the encoder made of it
			is.Equal(string(back.Data()), want.String())
			again, err := json.Marshal(back)
			is.NoErr(err)
			once, err := json.Marshal(e)
			is.NoErr(err)
			is.Equal(string(again), string(once))
		}
		var out bytes.Buffer
		encoder = json.NewEncoder(&out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		is.NoErr(encoder.Encode(e))
		var exact streamlib.Event
		is.NoErr(json.Unmarshal(out.Bytes(), &exact))
		is.Equal(exact.String(), e.String())
		var members map[string]json.RawMessage // in another order
		is.NoErr(json.Unmarshal(out.Bytes(), &members))
		sorted, err := json.Marshal(members)
		is.NoErr(err)
		is.NoErr(json.Unmarshal(sorted, &exact))
		is.Equal(exact.Stream(), hostile)
	}
}

func TestUnmarshalRefuses(t *testing.T) {
	const good = `{"offset":"0000000000000042","eventStreamId":"s","data":{"a":1},"createdAt":"2024-01-08T00:00:00.000Z"}`
	for _, bad := range []string{
		"1", "null", "{}", `"x"`, "[]",
		strings.Replace(good, `"0000000000000042"`, "42", 1),
		strings.Replace(good, "0000000000000042", "-1", 1),
		strings.Replace(good, "0000000000000042", "now", 1),
		strings.Replace(good, "0000000000000042", "9007199254740992", 1),
		strings.Replace(good, `"s"`, `""`, 1),
		strings.Replace(good, `"s"`, `"\u0000"`, 1),
		strings.Replace(good, `"s"`, `"`+strings.Repeat("s", 256)+`"`, 1),
		strings.Replace(good, `"data":{"a":1},`, ``, 1),
		strings.Replace(good, `{"a":1}`, "\"\xff\"", 1),
		strings.Replace(good, `{"a":1}`, strings.Repeat("[", 1001)+strings.Repeat("]", 1001), 1),
		strings.Replace(good, `2024-01-08T00:00:00.000Z`, ``, 1),
		strings.Replace(good, `2024-01-08T00:00:00.000Z`, `2024-01-38T00:00:00.000Z`, 1),
		strings.Replace(good, `2024-01-08T00:00:00.000Z`, `10000-01-08T00:00:00.000Z`, 1),
		strings.Replace(good, `2024-01-08T00:00:00.000Z`, `2024-01-08T00:00:00.000+01:00`, 1),
	} {
		var e streamlib.Event
		if err := json.Unmarshal([]byte(bad), &e); err == nil {
			t.Errorf("%.200s: %v", bad, e)
		}
	}
}

// TestNewRecordRefuses: what NewRecord makes can be read back.
func TestNewRecordRefuses(t *testing.T) {
	is := is.New(t)
	day := time.Date(2024, 1, 8, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		o          streamlib.Offset
		name, data string
		at         time.Time
	}{
		{-1, "s", "1", day},
		{streamlib.MaxOffset + 1, "s", "1", day},
		{0, "", "1", day},
		{0, "a\nb", "1", day},
		{0, "s", "", day},
		{0, "s", "1", time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
		{0, "s", "1", time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("west", -3600))},
		{0, "s", "1", time.Date(-1, 12, 31, 0, 0, 0, 0, time.UTC)},
	} {
		_, err := streamlib.NewRecord(test.o, test.name, json.RawMessage(test.data), test.at)
		if !errors.Is(err, streamlib.ErrInvalid) {
			t.Errorf("%+v: %v", test, err)
		}
	}
	for _, at := range []time.Time{
		{}, time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC),
	} {
		record, err := streamlib.NewRecord(streamlib.MaxOffset, "s", json.RawMessage("1"), at)
		is.NoErr(err)
		e, err := streamlib.ParseRecord(record)
		is.NoErr(err)
		is.True(e.CreatedAt().Equal(at))
	}
}

func TestParseRecordRefuses(t *testing.T) {
	const good = `{"offset":"0000000000000042","eventStreamId":"s","data":{"a":1},"createdAt":"2024-01-08T00:00:00.000Z"`
	if _, err := streamlib.ParseRecord([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"", "{}", good[:50], good[:len(good)-1], good + "}", good + " ", " " + good,
		strings.Replace(good, "0000000000000042", "000000000000042", 1),
		strings.Replace(good, "0000000000000042", "000000000000004x", 1),
		strings.Replace(good, "0000000000000042", "-000000000000001", 1),
		strings.Replace(good, "0000000000000042", "9007199254740992", 1), // 2^53
		strings.Replace(good, "0000000000000042", "9999999999999999", 1),
		strings.Replace(good, `"s"`, `xs"`, 1),
		strings.Replace(good, `"s"`, `"s`, 1),
		strings.Replace(good, `"s"`, `""`, 1),
		strings.Replace(good, `"s"`, `"\x"`, 1),
		strings.Replace(good, `"s"`, `"\u0000"`, 1),
		strings.Replace(good, `"s"`, "\"a\nb\"", 1),
		strings.Replace(good, `{"a":1}`, ``, 1),
		strings.Replace(good, `"data"`, `"date"`, 1),
		strings.Replace(good, `2024-01-08T00:00:00.000Z`, `2024-01-08T00:00:00x000Z`, 1),
		good + `,"key":`, good + `,"key":"`, good + `,"key":""`, good + `,"key":1`, good + `,"key":"a"b`, good + `,"key": "a"`, good + `,"key":"a" `,
		good + `,"key":"\n"`, good + `,"key":"a\u0000"`, good + `,"key":"a","key":"b"`, good + `,"crc32c":"00000000"`,
	} {
		if e, err := streamlib.ParseRecord([]byte(bad)); err == nil {
			t.Errorf("%s: %v, key %q", bad, e, e.Key())
		}
	}
}

// TestParseRecordEachByte puts each byte at each place of the digits and of the signs between them.
func TestParseRecordEachByte(t *testing.T) {
	const good = `{"offset":"1234567890123456","eventStreamId":"s","data":{"a":1},"createdAt":"2024-01-08T00:00:00.000Z"`
	for at := range good {
		if inOffset := 11 <= at && at < 27; !inOffset && at < len(good)-len(`2024-01-08T00:00:00.000Z"`) {
			continue
		}
		for c := range 256 {
			record := []byte(good)
			record[at] = byte(c)
			digit := '0' <= c && c <= '9'
			e, err := streamlib.ParseRecord(record)
			if want := byte(c) == good[at] || digit && '0' <= good[at] && good[at] <= '9'; (err == nil) != want {
				if o, _ := strconv.Atoi(string(record[11:27])); !want || o <= int(streamlib.MaxOffset) {
					t.Errorf("%s: %v", record, err)
				}
			} else if err == nil && e.Offset.String() != string(record[11:27]) {
				t.Errorf("%s: offset %d", record, e.Offset)
			}
		}
	}
}

// FuzzParseRecord reads anything, and finds what it takes for an event to be one in every respect.
func FuzzParseRecord(f *testing.F) {
	const good = `{"offset":"0000000000000042","eventStreamId":"s","data":{"a":1},"createdAt":"2024-01-08T00:00:00.000Z"`
	for _, seed := range []string{good, good + `,"key":"k"`, good + `,"key":"\"\\"`, good + "}", good[:60],
		good + `,"createdAt":"2024-01-08T00:00:00.000Z"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		e, err := streamlib.ParseRecord(record)
		if err != nil {
			return
		}
		if e.Stream() == "" || e.Offset < 0 || e.Offset > streamlib.MaxOffset || len(e.Data()) == 0 {
			t.Errorf("%q: stream %q, offset %d, data %q", record, e.Stream(), e.Offset, e.Data())
		}
		e.Key()
		e.CreatedAt()
		e.HasType("a")
		if !bytes.Equal(e.Record(), record) {
			t.Errorf("%q: record %q", record, e.Record())
		}
		// Of these the storage's checksum says that they are what a stream made of them.
		var data bytes.Buffer
		if json.Compact(&data, e.Data()) != nil || !bytes.Equal(data.Bytes(), e.Data()) ||
			e.CreatedAt().IsZero() || streamlib.CheckName(e.Stream()) != nil {
			return
		}
		var again streamlib.Event
		if err := json.Unmarshal([]byte(e.String()), &again); err != nil || again.String() != e.String() {
			t.Errorf("%q: %v, %v", e, again, err)
		}
	})
}

// FuzzRecord takes names, data and keys through a stream, and its records through ParseRecord.
func FuzzRecord(f *testing.F) {
	hostile := []string{`a`, `","key":"`, `","createdAt":"2024-01-08T00:00:00.000Z`, `","data":1,"`, `\`, `\\"`, `"`,
		`}`, `,"key":"k"`, `x"}`, "é😀\u2028"}
	for i, s := range hostile {
		quoted, _ := json.Marshal(s)
		f.Add(s, string(quoted), hostile[(i+3)%len(hostile)])
		f.Add(s, `{"createdAt":"2024-01-08T00:00:00.000Z","key":`+string(quoted)+`}`, "")
		f.Add("s", `[1 , 2]`, s)
		f.Add("s", `{"createdAt":"2024-01-08T00:00:00.000Z","key":`+string(quoted)+`}`, s)
	}
	f.Fuzz(func(t *testing.T, name, data, key string) {
		s := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{}).Stream(name)
		receipt, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(data, data), Key: key})
		if err != nil {
			if !errors.Is(err, streamlib.ErrInvalid) {
				t.Error(err)
			}
			return
		}
		var want bytes.Buffer
		if err := json.Compact(&want, []byte(data)); err != nil {
			t.Fatal(err)
		}
		for i, e := range receipt.Events {
			parsed, err := streamlib.ParseRecord(e.Record())
			if err != nil {
				t.Fatalf("%s: %v", e.Record(), err)
			}
			for _, e := range []streamlib.Event{e, parsed} {
				if e.Offset != streamlib.Offset(i) || e.Stream() != name || string(e.Data()) != want.String() || e.Key() != key ||
					!e.CreatedAt().Equal(parsed.CreatedAt()) || e.String() != parsed.String() || strings.Contains(e.String(), "\n") {
					t.Errorf("%s", e.Record())
				}
			}
			var public struct {
				Offset, EventStreamID string
				Data                  json.RawMessage
				CreatedAt             time.Time
			}
			if err := json.Unmarshal([]byte(e.String()), &public); err != nil {
				t.Fatal(err)
			}
			if public.Offset != e.Offset.String() || public.EventStreamID != name ||
				string(public.Data) != want.String() || !public.CreatedAt.Equal(e.CreatedAt()) {
				t.Errorf("%+v is not %s", public, e)
			}
		}
	})
}

// event makes an event as a storage would.
func event(t testing.TB, o streamlib.Offset, name, data string) streamlib.Event {
	t.Helper()
	record, err := streamlib.NewRecord(o, name, json.RawMessage(data), time.Date(2024, 1, 8, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	e, err := streamlib.ParseRecord(record)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// FuzzHasType: a type is found where encoding/json finds it, with white space too, which only a storage could bring.
func FuzzHasType(f *testing.F) {
	for _, data := range []string{`{"type":"a"}`, `{ "_type" : "a" , "x" : [ {"type":"b"} ] }`, `{"ty\u0070e":"\u0061"}`,
		`{"x":"\\","type":"\""}`, `{"type":"b","type":"a"}`, `{"a":{"b":"}"},"type":"a"}`, `[{"type":"a"}]`,
		`{"_type":"a","type":null,"n":-1.5e3}`, `{"type":"\ud800"}`} {
		f.Add([]byte(data), "a")
	}
	f.Fuzz(func(t *testing.T, data []byte, want string) {
		if _, err := compact.All(nil, data); err != nil {
			return
		}
		record := slices.Concat([]byte(`{"offset":"0000000000000000","eventStreamId":"s","data":`), data,
			[]byte(`,"createdAt":"2024-01-08T00:00:00.000Z"`))
		e, err := streamlib.ParseRecord(record)
		if err != nil {
			return
		}
		var members map[string]json.RawMessage
		has := false
		if bytes.HasPrefix(data, []byte("{")) && json.Unmarshal(data, &members) == nil {
			for _, name := range []string{"type", "_type"} {
				var value any
				_ = json.Unmarshal(members[name], &value)
				has = has || value == any(want)
			}
		}
		if got := e.HasType(want); got != has {
			t.Errorf("%s has type %q: %v", data, want, got)
		}
	})
}

func BenchmarkHasType(b *testing.B) {
	for _, data := range []string{`{"type":"message","text":"` + strings.Repeat("x", 150) + `"}`,
		`{"type":"message","text":"` + strings.Repeat(`x\n`, 50) + `"}`} {
		e := event(b, 0, "s", data)
		b.Run("", func(b *testing.B) {
			for b.Loop() {
				if e.HasType("other") {
					b.Fatal(data)
				}
			}
		})
	}
}
