package names_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib/internal/names"
	"github.com/matryer/is"
)

// TestPages compares pages with what there is while names come and go, and counts how often that is read.
func TestPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		random := rand.New(rand.NewPCG(1, 2))
		there := map[string]bool{}
		for i := range 5000 {
			there[fmt.Sprintf("%c/%d", 'a'+i%3, i)] = true
		}
		var x names.Index
		defer x.Close()
		reads := 0
		read := func() ([]string, error) {
			reads++
			return slices.Collect(maps.Keys(there)), nil
		}
		for range 300 {
			for range random.IntN(4) {
				name := fmt.Sprintf("%c/%d", 'a'+random.IntN(4), random.IntN(6000))
				if there[name] {
					delete(there, name)
				} else {
					there[name] = true
				}
				x.Note(name, there[name])
			}
			prefix := []string{"", "a", "b/", "b/1", "c/4999", "zz"}[random.IntN(6)]
			after := []string{"", "a/1", "b", "b/2000", "c/6", "zzz"}[random.IntN(6)]
			limit := random.IntN(200)
			var want []string
			for _, name := range slices.Sorted(maps.Keys(there)) {
				if strings.HasPrefix(name, prefix) && name > after && (limit == 0 || len(want) < limit) {
					want = append(want, name)
				}
			}
			got, err := x.Page(prefix, after, limit, read)
			is.NoErr(err)
			if !slices.Equal(got, want) {
				t.Fatalf("prefix %q, after %q, limit %d: %d names, not %d", prefix, after, limit, len(got), len(want))
			}
		}
		is.Equal(reads, 1)
		is.Equal(x.Kept(), len(there))
		time.Sleep(6 * time.Second) // nobody lists
		synctest.Wait()
		is.Equal(x.Kept(), 0)
		for range 20 { // for 40 s: what somebody else has changed is seen in time
			_, err := x.Page("", "", 1, read)
			is.NoErr(err)
			time.Sleep(2 * time.Second)
		}
		is.Equal(reads, 3)
	})
}

// TestChangedWhileRead: what changes while names are read is as it was changed.
func TestChangedWhileRead(t *testing.T) {
	is := is.New(t)
	var x names.Index
	defer x.Close()
	page, err := x.Page("", "", 0, func() ([]string, error) {
		x.Note("gone", false)
		x.Note("new", true)
		return []string{"old", "gone"}, nil
	})
	is.NoErr(err)
	is.Equal(page, []string{"new", "old"})
	is.Equal(x.Kept(), 0) // they are few
	_, err = x.Page("", "", 0, func() ([]string, error) { return nil, errors.New("no") })
	is.True(err != nil)
}
