package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// TestListPages goes through more names than a page is cut from at once, with names whose files sort otherwise than
// they do.
func TestListPages(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	is.NoErr(err)
	defer s.Close()
	var want []string
	for i := range 3000 {
		name := fmt.Sprintf("%c-%d", []rune("aZ😀%")[i%4], i)
		want = append(want, name)
		is.NoErr(os.WriteFile(filepath.Join(dir, path(name)), nil, 0o600))
	}
	slices.Sort(want)
	for _, limit := range []int{0, 7, 100, 1500} {
		var got []string
		for after := ""; ; {
			page, err := listed(s, "", after, limit)
			is.NoErr(err)
			got = append(got, page...)
			if limit == 0 || len(page) < limit {
				break
			}
			is.Equal(len(page), limit)
			after = page[limit-1]
		}
		is.Equal(got, want)
	}
	page, err := listed(s, "Z-1", "Z-1", 2)
	is.NoErr(err)
	is.Equal(page, []string{"Z-1001", "Z-1005"})
}

// TestListWhileStreamsComeAndGo: pages of names that are in memory have what was made and deleted since.
func TestListWhileStreamsComeAndGo(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	s, err := Open(dir, Options{NoSync: true})
	is.NoErr(err)
	defer s.Close()
	const many = 5000
	for i := range many {
		is.NoErr(os.WriteFile(filepath.Join(dir, path(fmt.Sprintf("s-%04d", i))), nil, 0o600))
	}
	page, err := listed(s, "", "", 2)
	is.NoErr(err)
	is.Equal(page, []string{"s-0000", "s-0001"})
	is.Equal(s.names.Kept(), many)
	is.NoErr(put(s, "s-0001-new", eventOf("s-0001-new", 0, []byte("1"))))
	is.NoErr(s.Commit(t.Context(), "s-0003", streamlib.Change{Delete: true}))
	page, err = listed(s, "", "s-0001", 3)
	is.NoErr(err)
	is.Equal(page, []string{"s-0001-new", "s-0002", "s-0004"})
	is.NoErr(s.Commit(t.Context(), "s-0001-new", streamlib.Change{Delete: true}))
	page, err = listed(s, "", "s-0001", 1)
	is.NoErr(err)
	is.Equal(page, []string{"s-0002"})
	is.Equal(s.names.Kept(), many-1)
}

// TestStatedNamesThoseWithAState, whether that is in a journal or in its file, and the name in the file's or not.
func TestStatedNamesThoseWithAState(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	is.NoErr(err)
	note := func(name string) {
		is.NoErr(s.Commit(t.Context(), name, streamlib.Change{State: &streamlib.State{Note: "{}"}}))
	}
	note("b")
	note(longName)
	event, err := streamlib.NewRecord(0, "plain", []byte("1"), time.Now())
	is.NoErr(err)
	e, err := streamlib.ParseRecord(event)
	is.NoErr(err)
	is.NoErr(s.Commit(t.Context(), "plain", streamlib.Change{Events: []streamlib.Event{e}}))
	for range 2 {
		names, err := s.Stated(t.Context(), "", 0)
		is.NoErr(err)
		is.Equal(names, []string{longName, "b"})
		names, err = s.Stated(t.Context(), longName, 1)
		is.NoErr(err)
		is.Equal(names, []string{"b"})
		is.NoErr(s.Close())
		s, err = Open(dir, Options{})
		is.NoErr(err)
	}
	is.NoErr(s.Close())
}
