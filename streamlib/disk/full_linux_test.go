package disk

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

func init() { programs["journal"] = withShortJournals }

// mount mounts a small disk for the test.
func mount(t *testing.T, options string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skip("no tmpfs can be mounted: ", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func TestSmallDisk(t *testing.T) {
	is := is.New(t)
	is.NoErr(fill(filepath.Join(mount(t, "size=256k"), "data"), func(s *Store) error { return drop(s, "a") }))
}

// What the journals take is given back before the disk is called full.
func TestJournalsGiveWay(t *testing.T) {
	is := is.New(t)
	s := openFolder(t, mount(t, "size=8m"), Options{})
	data := json.RawMessage(`"` + strings.Repeat("x", 10<<10) + `"`)
	var full error
	o := 0
	for ; full == nil; o++ {
		full = put(s, "a", eventOf("a", o, data))
	}
	is.True(errors.Is(full, streamlib.ErrFull))
	info, err := stat(s, "a")
	is.NoErr(err)
	is.Equal(int(info.Tail), o-1)
	if info.Size < 6<<20 { // half of it was the journal's
		t.Errorf("full with %d bytes of events on 8 MiB", info.Size)
	}
}

// The journal is no stream: where it comes to a limit for files, the next one is begun.
func TestJournalAtFileSizeLimit(t *testing.T) { run(t, "journal", t.TempDir()) }

func withShortJournals(args []string) error {
	limit := syscall.Rlimit{Cur: 300 << 10, Max: 300 << 10}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	s, err := Open(args[0], Options{})
	if err != nil {
		return err
	}
	const streams, rounds = 10, 100 // 1 MiB in all
	data := json.RawMessage(`"` + strings.Repeat("x", 1<<10) + `"`)
	for o := range rounds {
		for i := range streams {
			if err := put(s, fmt.Sprint("s", i), eventOf(fmt.Sprint("s", i), o, data)); err != nil {
				return err
			}
		}
	}
	// What no journal can hold is refused, and what came beside it is not.
	batch := []*request{
		{kind: adds, name: "s1", events: []streamlib.Event{eventOf("s1", rounds, data)}},
		{kind: adds, name: "large",
			events: []streamlib.Event{eventOf("large", 0, json.RawMessage(`"`+strings.Repeat("x", 400<<10)+`"`))}},
		{kind: adds, name: "s2", events: []streamlib.Event{eventOf("s2", rounds, data)}},
	}
	s.commit(batch)
	if batch[0].err != nil || !errors.Is(batch[1].err, streamlib.ErrFull) || batch[2].err != nil {
		return fmt.Errorf("%v, %v, %v", batch[0].err, batch[1].err, batch[2].err)
	}
	return s.Close()
}

// Streams that cannot be made for want of inodes cost the others nothing, and can be when there are some.
func TestNoInodes(t *testing.T) {
	is := is.New(t)
	s := openFolder(t, mount(t, "nr_inodes=40"), Options{JournalSize: 100 << 10})
	const old = 4
	for i := range old {
		is.NoErr(appendOne(s, fmt.Sprint("old", i), 0))
	}
	var makers, writers sync.WaitGroup
	stop := make(chan struct{})
	for m := range 4 {
		makers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprint("new", m, "-", i)
				if err := appendOne(s, name, 0); err != nil &&
					(!errors.Is(err, streamlib.ErrFull) || !strings.Contains(err.Error(), path(name))) {
					t.Errorf("make %s: %v", name, err)
				}
			}
		})
	}
	for i := range old {
		writers.Go(func() {
			for o := 1; o < 500; o++ {
				if err := appendOne(s, fmt.Sprint("old", i), o); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	makers.Wait()
	var err error
	for i := 0; err == nil; i++ { // a checkpoint may give back a journal's at any time
		err = appendOne(s, fmt.Sprint("last", i), 0)
	}
	is.True(errors.Is(err, streamlib.ErrFull))
	is.NoErr(drop(s, "old0"))
	is.NoErr(appendOne(s, "one-more", 0))
}
