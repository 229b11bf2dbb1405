package protocol

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// FuzzElements: the elements of what is JSON are those that encoding/json finds, and of what is none one is none.
func FuzzElements(f *testing.F) {
	for _, body := range []string{"1", "[]", " [ ] ", "[1]", "[1,2]", "[[1,2],[3]]", `["a,]",{"b":[1,{"c":"\\\","}]}]`,
		"[1,]", "[,1]", "[1] , [2]", "[1],[2]", "[]]", "[[]", `["a]`, "[1 2]", "", " ",
		"[", "]", "{]", "[}]", "[{]},1]", `"\`, "1,2"} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var got [][]byte
		valid := true
		for element := range elements(body) {
			valid = valid && json.Valid(element)
			got = append(got, bytes.Trim(element, space))
		}
		if valid != json.Valid(body) {
			t.Fatalf("%q is JSON: %v, its elements %q are: %v", body, !valid, got, valid)
		}
		if !valid {
			return
		}
		want := []json.RawMessage{bytes.Trim(body, space)}
		if want[0][0] == '[' {
			want = nil
			if err := json.Unmarshal(body, &want); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.EqualFunc(got, want, func(a []byte, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
			t.Fatalf("%q has the elements %q, and not %q", body, got, want)
		}
	})
}

// FuzzBytes: what a stream that is no JSON gets is what its readers get, and takes little more room.
func FuzzBytes(f *testing.F) {
	for _, b := range []string{"text", "\x00\x01\xff", `{"base64":"AA=="}`, `"quoted"`, "\u2028 <a href='&'>", "\r\n",
		strings.Repeat("\x00", 50), "\ufffd", "\xed\xa0\x80"} {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		data := encode(b)
		if !json.Valid(data) {
			t.Fatalf("%q is stored as %s", b, data)
		}
		if got := decode(data); !bytes.Equal(got, b) {
			t.Fatalf("%q came back as %q", b, got)
		}
		if len(data) > len(b)*4/3+20 {
			t.Fatalf("%d bytes take %d", len(b), len(data))
		}
	})
}

// TestNativeValuesAreBytesToo: what came over the native routes is read as its text, or its JSON.
func TestNativeValuesAreBytesToo(t *testing.T) {
	is := is.New(t)
	for data, want := range map[string]string{`"a\nb"`: "a\nb", `{"base64":"/w=="}`: "\xff",
		`{"base64":"?"}`: `{"base64":"?"}`,
		`{"a":1}`:        `{"a":1}`, `{"base64":"/w==","b":1}`: `{"base64":"/w==","b":1}`, "1": "1", "null": "null"} {
		is.Equal(string(decode(json.RawMessage(data))), want)
	}
}

// TestANoteKnowsItsProducers, in the order in which they were heard from, as many as there is room for, whatever they
// are called; and the text is JSON all the time.
func TestANoteKnowsItsProducers(t *testing.T) {
	is := is.New(t)
	rng := rand.New(rand.NewPCG(1, 1))
	odd := []string{`"`, `\`, `"},{"id":"x`, `,"producers":[`, `]}`, "é<&>", "a", "ab", strings.Repeat("long", 200)}
	for _, kinds := range []int{1, 12, 1500} {
		n := parseNote("")
		type known struct{ epoch, seq int64 }
		want, order := map[string]known{}, []string{}
		for i := range 4 * kinds {
			id := fmt.Sprint(odd[rng.IntN(len(odd)-kinds/1500)], rng.IntN(kinds)/9)
			p := &producer{ID: id, Epoch: rng.Int64N(3), Seq: int64(i), mark: markOf(id)}
			n.set(p)
			want[id] = known{p.Epoch, p.Seq}
			order = append(slices.DeleteFunc(order, func(other string) bool { return other == id }), id)
			if i%7 == 0 {
				seq := fmt.Sprint(i)
				n.Seq = &seq
				n.change()
			}
			if i%200 > 0 && kinds > 100 {
				continue
			}
			is.True(len(n.text) <= streamlib.MaxNote)
			var read struct {
				Seq       *string
				Producers []producer
			}
			is.NoErr(json.Unmarshal([]byte(n.text), &read))
			is.True(len(read.Producers) == len(order) || len(n.text) > streamlib.MaxNote*3/4)
			gone := len(order) - len(read.Producers) // those that were not heard from for longest
			for j, p := range read.Producers {
				is.Equal(p.ID, order[gone+j])
				is.Equal(known{p.Epoch, p.Seq}, want[p.ID])
				p.mark = markOf(p.ID)
				found, _, _, ok := n.find(&p)
				is.True(ok && found.Epoch == p.Epoch && found.Seq == p.Seq)
			}
			if gone > 0 {
				_, _, _, ok := n.find(&producer{mark: markOf(order[gone-1])})
				is.True(!ok)
			}
			again := n.reread(n.text)
			is.Equal(again, n)
			fresh := parseNote(n.text)
			is.Equal(fresh.text, n.text)
			is.Equal(fresh.head, n.head)
		}
	}
}
