package streamhttp_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// TestLongLists: a list that is sent in steps is the one that pages make.
func TestLongLists(t *testing.T) {
	is := is.New(t)
	client, m := serve(t, streamhttp.Config{})
	var want []string
	for i := range 17_000 {
		name := fmt.Sprintf("%c<%d", 'a'+i%2, i)
		want = append(want, name)
		add(t, m.Stream(name), "1")
	}
	slices.Sort(want)
	list := func(query string) (names []string, next string) {
		t.Helper()
		got := ask(t, client, "GET /streams"+query, nil)
		is.Equal(got.status, 200)
		var page struct {
			Streams []any
			Next    string
		}
		is.NoErr(json.Unmarshal([]byte(got.body), &page))
		for _, s := range page.Streams {
			if d, ok := s.(map[string]any); ok {
				is.Equal(d["nextOffset"], "0000000000000001")
				s = d["name"]
			}
			names = append(names, s.(string))
		}
		return names, page.Next
	}
	same := func(got []string, next string, want []string, wantNext string) {
		t.Helper()
		if !slices.Equal(got, want) || next != wantNext {
			t.Errorf("%d names and %q, not %d and %q", len(got), next, len(want), wantNext)
		}
	}
	for query, names := range map[string][]string{"": want, "?details=true": want, "?prefix=b": want[8500:],
		"?limit=17000": want, "?limit=20000": want} {
		got, next := list(query)
		same(got, next, names, "")
	}
	got, next := list("?limit=16999")
	same(got, next, want[:16999], want[16998])
	for _, limit := range []int{8192, 8193, 1000} {
		var all []string
		for after := ""; ; {
			got, next := list(fmt.Sprintf("?limit=%d&after=%s", limit, after))
			if all = append(all, got...); next == "" {
				break
			}
			is.Equal(len(got), limit)
			after = next
		}
		same(all, "", want, "")
	}
}
