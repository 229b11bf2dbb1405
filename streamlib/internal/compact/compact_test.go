package compact

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/matryer/is"
)

func nested(open, closing string, n int) string {
	return strings.Repeat(open, n) + strings.Repeat(closing, n)
}

// FuzzAll compares with encoding/json: the same values are taken, and get the same compact form, but for invalid
// UTF-8 and for what nests deeper than MaxDepth.
func FuzzAll(f *testing.F) {
	for _, seed := range []string{
		"", " ", "null", "nul", "true", "falsey", " [ 1 , 2 ] ", `{ "a" : { } , "b":[ ]}`, `{"a":1,}`, `{,}`, `[,]`,
		`{"a" 1}`, `{a:1}`, "[1 2]", "[[[]]", "]", "1 2",
		"0", "-0", "01", "1.", ".1", "-", "1e", "1e+", "1E-07", "1.5e10", "+1", "1x", "0x10",
		`"\u00e9\ud800\\\"\/\b\f\n\r\t"`, `"\u12g4"`, `"\x"`, `"\`, `"`, "\"\n\"", "\"\x7f\"",
		"\"\u2028<>&\"", "\"\xff\"", "\"\xc3\"", "\"\xed\xa0\x80\"", "\xff", "\ufeff1", "\u00a01", "\v1", "\f1",
		nested("[", "]", 1000), nested("[", "]", 1001), nested(`{"":`, "}", 999), nested(" [ ", "\n]",
			30), "[" + strings.Repeat("[],", 2000) + "1]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		given := slices.Clone(src)
		got, err := All(nil, src)
		if !bytes.Equal(src, given) {
			t.Fatalf("%q became %q", given, src)
		}
		if want := json.Valid(src) && utf8.Valid(src) && depth(src) <= MaxDepth; (err == nil) != want {
			t.Fatalf("%q is valid: %v, got %v", src, want, err)
		}
		if err != nil {
			return
		}
		var want bytes.Buffer
		if err := json.Compact(&want, src); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%q: %q, want %q", src, got, want.Bytes())
		}
		if again, err := All([]byte("kept"), got); err != nil || string(again) != "kept"+string(got) {
			t.Errorf("again: %q, %v", again, err)
		}
		if inPlace, err := All(given[:0], given); err != nil || !bytes.Equal(inPlace, got) {
			t.Errorf("in place: %q, %v", inPlace, err)
		}
		// A value is found where others follow it, unless it is a number that goes on.
		if out, rest, err := Value(nil, append(slices.Clone(src), ",x"...)); err != nil || !bytes.Equal(out, got) ||
			string(Space(rest)) != ",x" {
			t.Errorf("%q, then %q, %v", out, rest, err)
		}
	})
}

// depth is how deep valid JSON nests.
func depth(src []byte) (deepest int) {
	n, inString := 0, false
	for i := 0; i < len(src); i++ {
		switch c := src[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case !inString && (c == '[' || c == '{'):
			n++
			deepest = max(deepest, n)
		case !inString && (c == ']' || c == '}'):
			n--
		}
	}
	return deepest
}

func TestErrors(t *testing.T) {
	for src, want := range map[string]string{
		"":                     "unexpected end of JSON",
		`{"a":`:                "unexpected end of JSON",
		"-":                    "unexpected end of JSON",
		"é":                    "unexpected 'é' in JSON",
		"[1,\n]":               "unexpected ']' in JSON",
		"\"\xff\"":             "invalid UTF-8",
		"\xff":                 "invalid UTF-8",
		"1 2":                  "unexpected text after the JSON value",
		"\"a\nb\"":             "control character 0x0a in a string",
		`"\x"`:                 "bad escape in a string",
		nested("[", "]", 1001): "JSON nests deeper than 1000",
	} {
		if _, err := All(nil, []byte(src)); err == nil || err.Error() != want {
			t.Errorf("%.20q: %v, want %s", src, err, want)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	is := is.New(t)
	src := []byte(` { "a" : [ 1 , "é\n" , null , { } ] } `)
	dst := make([]byte, 0, len(src))
	is.Equal(testing.AllocsPerRun(100, func() { _, _ = All(dst, src) }), 0.0)
}
