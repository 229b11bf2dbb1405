package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

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
