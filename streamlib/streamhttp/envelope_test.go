package streamhttp

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/iterate/durable-streams/streamlib/internal/compact"
)

// FuzzEnvelope compares envelope and bodyValue with encoding/json, which takes all that they take.
func FuzzEnvelope(f *testing.F) {
	for _, seed := range []string{
		`{"data":1}`, ` { "data" : {"a":[1,2.0,"x\u0000"]} } `, `{"data":null}`, `{"d\u0061ta":""}`,
		`{"data":1,"data":2}`, `{"Data":1}`, `{}`,
		`{"data":1}x`, `{"data"}`, `{"data":}`, `{"data":1,}`, `{,"data":1}`, `["data"]`, `"data"`, ``, `{"data":1`,
		"{\"data\":\"\xff\"}", `{"data":"\ud83d"}`,
		`{"":1}`, `{"data\u0000":1}`, "\ufeff{\"data\":1}", `{"data":1]`, `{"data" 1}`, `{data:1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if bytes.Count(body, []byte("["))+bytes.Count(body, []byte("{")) > 1000 {
			t.Skip("may nest too deep")
		}
		want, ok := reference(body)
		got, err := envelope(bytes.Clone(body))
		if ok != (err == nil) {
			t.Fatalf("%q: error %v, but encoding/json says %v", body, err, ok)
		}
		if err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%q: got %q, want %q", body, got, want)
		}
		got, err = bodyValue(body, len(body))
		if err == nil { // then it may not have been looked into
			got, err = compact.All(nil, got)
		}
		if ok != (err == nil) || ok != (badBody(bytes.Clone(body), 0) == nil) || ok && !bytes.Equal(got, want) {
			t.Fatalf("%q: got %q and error %v, want %q and %v", body, got, err, want, ok)
		}
	})
}

// reference is envelope in terms of encoding/json, but for the depth.
func reference(body []byte) (json.RawMessage, bool) {
	if !utf8.Valid(body) || !json.Valid(body) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if t, _ := d.Token(); t != json.Delim('{') {
		return nil, false
	}
	if name, _ := d.Token(); name != "data" {
		return nil, false
	}
	var data json.RawMessage
	if d.Decode(&data) != nil || d.More() {
		return nil, false
	}
	var want bytes.Buffer
	err := json.Compact(&want, data)
	return want.Bytes(), err == nil
}

// FuzzLines looks for a body whose lines are not the values that come out, or that make a line of their own.
func FuzzLines(f *testing.F) {
	for _, seed := range []string{"1\n2", "\n", "{\"a\":\n1}", "\"\\n\"\r\n[ ]\n", "1 2", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var want [][]byte
		ok := utf8.Valid(body)
		for line := range bytes.SplitSeq(body, []byte("\n")) {
			if line = bytes.Trim(line, " \t\r"); len(line) == 0 {
				continue
			}
			var value bytes.Buffer
			ok = ok && json.Compact(&value, line) == nil
			want = append(want, value.Bytes())
		}
		lines, err := lineValues(body, 1<<20)
		if (len(want) > 0) != (err == nil) {
			t.Fatalf("%q: error %v for %d values", body, err, len(want))
		}
		if err := badLine(body, 1<<20); ok != (err == nil) {
			t.Fatalf("%q: error %v, but encoding/json says %v", body, err, ok)
		}
		for i := range lines {
			if got, err := compact.All(nil, lines[i]); ok &&
				(err != nil || !bytes.Equal(got, want[i]) || bytes.ContainsAny(got, "\n\r")) {
				t.Fatalf("%q: value %d is %q, want %q", body, i, got, want[i])
			}
		}
	})
}
