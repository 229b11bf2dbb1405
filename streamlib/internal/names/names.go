// Package names keeps names in order while they are being listed, page by page, and no longer: who reads a million
// names for each page of a thousand reads them a thousand times.
package names

import (
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	few  = 4096             // as many are read for each page
	long = 30 * time.Second // names are kept no longer, for somebody else may change what they are of
	idle = 5 * time.Second  // or longer than this behind the last page
)

// An Index is what was read of names, and what has changed since. Its zero value is ready to use; its methods may be
// called at once.
type Index struct {
	mu     sync.Mutex // held while names are read; guards what follows
	sorted []string   // nil where nothing is kept; parts of one string
	read   time.Time
	timer  *time.Timer

	noting sync.Mutex // taken after mu; guards notes
	notes  map[string]bool
}

// Note notes that there is a name from now on, or is none. It is called behind what made it so, and never waits for
// names to be read.
func (x *Index) Note(name string, there bool) {
	x.noting.Lock()
	defer x.noting.Unlock()
	if x.notes != nil {
		x.notes[name] = there
	}
}

// Page returns in byte order up to limit names (all where it is 0 or less) that begin with prefix and are behind
// after. Read returns all names, in any order, for the index to keep.
func (x *Index) Page(prefix, after string, limit int, read func() ([]string, error)) ([]string, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.sorted != nil && time.Since(x.read) > long {
		x.drop()
	}
	if err := x.refresh(read); err != nil {
		x.drop()
		return nil, err
	}
	from, _ := slices.BinarySearch(x.sorted, max(prefix, after))
	page := x.sorted[from:]
	if len(page) > 0 && page[0] == after {
		page = page[1:]
	}
	n, _ := slices.BinarySearchFunc(page, prefix, func(name, prefix string) int {
		if strings.HasPrefix(name, prefix) {
			return -1
		}
		return 1
	})
	if limit > 0 {
		n = min(n, limit)
	}
	page = slices.Clone(page[:n])
	if len(x.sorted) <= few {
		x.drop()
	} else if x.timer == nil {
		x.timer = time.AfterFunc(idle, x.forget)
	} else {
		x.timer.Reset(idle)
	}
	return page, nil
}

// refresh makes sorted what there is. The caller holds mu.
func (x *Index) refresh(read func() ([]string, error)) error {
	if x.sorted == nil {
		x.noting.Lock()
		x.notes = map[string]bool{} // of what changes while they are read, too
		x.noting.Unlock()
		x.read = time.Now()
		all, err := read()
		if err != nil {
			return err
		}
		slices.Sort(all)
		x.sorted = joined(slices.Compact(all))
	}
	var notes map[string]bool
	x.noting.Lock()
	if len(x.notes) > 0 {
		notes, x.notes = x.notes, map[string]bool{}
	}
	x.noting.Unlock()
	if len(notes) > 0 {
		x.sorted = merged(x.sorted, notes)
	}
	return nil
}

// joined returns the names as parts of one string, which the collector need not look into.
func joined(all []string) []string {
	text := strings.Join(all, "")
	names := make([]string, len(all)) // not nil
	for i, name := range all {
		names[i], text = text[:len(name)], text[len(name):]
	}
	return names
}

// merged returns the sorted names with those that there are by now, and without those that there are not.
func merged(sorted []string, notes map[string]bool) []string {
	changed := make([]string, 0, len(notes))
	for name := range notes {
		changed = append(changed, name)
	}
	slices.Sort(changed)
	all := make([]string, 0, len(sorted)+len(changed))
	for _, name := range changed {
		n, found := slices.BinarySearch(sorted, name)
		all = append(all, sorted[:n]...)
		if sorted = sorted[n:]; found {
			sorted = sorted[1:]
		}
		if notes[name] {
			all = append(all, name)
		}
	}
	return append(all, sorted...)
}

// forget is the timer's.
func (x *Index) forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.drop()
}

// drop is forget for who holds mu.
func (x *Index) drop() {
	x.sorted = nil
	x.noting.Lock()
	x.notes = nil
	x.noting.Unlock()
	if x.timer != nil {
		x.timer.Stop()
		x.timer = nil
	}
}

// Kept returns how many names are in memory.
func (x *Index) Kept() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.sorted)
}

// Close forgets the names.
func (x *Index) Close() { x.forget() }
