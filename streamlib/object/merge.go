package object

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/internal/seal"
)

// blocks are the parts of a generation's offsets that objects are merged in. Those of a level are eight of the one
// below it, and the least offsets long at level 0; an object is in the block in which its name's offset is.
//
// An object is only ever changed where it is the first of a block, and then only to have more of that block; above
// level 0 it takes blocks of the level below whole, which nothing is added to any more. So whoever removes what another
// has taken in removes nothing that came after that, however late.
type blocks struct {
	least  streamlib.Offset
	levels int
}

func (b blocks) size(level int) streamlib.Offset { return b.least << (3 * level) }

func (b blocks) of(level int, o streamlib.Offset) streamlib.Offset { return o / b.size(level) }

const (
	maxMerged  = 8 << 20   // bytes of events in an object of several changes
	manyMerged = 16        // changes are worth a merge
	muchMerged = 256 << 10 // bytes that were trimmed are, too
	removing   = 16        // objects at once
)

// An entry is an object of a listing.
type entry struct {
	position
	key      string
	size     int64
	modified time.Time
}

// A merger puts the changes of one block of the highest level together.
type merger struct {
	s       *Storage
	name    string
	kept    streamlib.Offset // events before it are trimmed
	newest  position
	old     func(entry) bool // it was written so long ago that what is before it can go
	objects []entry          // in order, of the newest generation, without the newest
	then    entry            // what follows them
	made    int              // objects were written
	removed int              // and so many removed
}

// next is the object behind objects[i].
func (m *merger) next(i int) entry {
	if i+1 < len(m.objects) {
		return m.objects[i+1]
	}
	return m.then
}

// trimmed tells whether nothing of objects[i] is kept, by the names: where it is merged it may have more.
func (m *merger) trimmed(i int) bool { return m.next(i).first <= m.kept }

// run does what is worth it.
func (m *merger) run(ctx context.Context) error {
	top := m.s.blocks.levels - 1
	all := m.finished(top, m.objects[0].first)
	for i := range m.objects {
		all = all && m.old(m.next(i))
	}
	if all && m.then.first <= m.kept {
		m.removed += len(m.objects)
		return m.s.removeAll(ctx, m.objects)
	}
	return m.block(ctx, top, 0, len(m.objects))
}

// finished tells whether the block that has o gets no more changes.
func (m *merger) finished(level int, o streamlib.Offset) bool {
	return m.s.blocks.of(level, m.newest.first) > m.s.blocks.of(level, o)
}

// block merges objects[from:to], which are all of a block. Its first object takes in what follows as long as there is
// room; what does not fit is left to the blocks below.
func (m *merger) block(ctx context.Context, level, from, to int) error {
	units := m.units(level, from, to)
	size, trimmed, bytes, full := int64(0), 0, int64(0), false
	n := 0
	for ; n < len(units)-1 && m.whole(level, units[n], units[n+1]); n++ {
		more := int64(0)
		for i := units[n]; i < units[n+1]; i++ {
			if m.trimmed(i) {
				trimmed++
				bytes += m.objects[i].size
			} else {
				more += m.objects[i].size
			}
		}
		if full = size+more > maxMerged; full {
			break
		}
		size += more
	}
	others := 0
	if n > 0 {
		others = units[n] - from - 1
	}
	finished := m.finished(level, m.objects[from].first)
	if others > 0 && (finished || full && level > 0 || level == 0 && others >= manyMerged-1 || trimmed >= manyMerged) ||
		n > 0 && bytes >= muchMerged {
		if level == 0 {
			units = []int{from, units[n]} // they are read together
			n = 1
		}
		left, err := m.merge(ctx, units[:n+1])
		if err != nil || left == to {
			return err
		}
		units = m.units(level, left, to)
	}
	for i := 0; level > 0 && i+1 < len(units); i++ {
		if err := m.block(ctx, level-1, units[i], units[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// units are where the parts of objects[from:to] begin that a block takes whole, and to.
func (m *merger) units(level, from, to int) (starts []int) {
	for i := from; i < to; i++ {
		if i == from || level == 0 ||
			m.s.blocks.of(level-1, m.objects[i].first) != m.s.blocks.of(level-1, m.objects[i-1].first) {
			starts = append(starts, i)
		}
	}
	return append(starts, to)
}

// whole tells whether the unit objects[from:to] can be taken.
func (m *merger) whole(level, from, to int) bool {
	if level > 0 && !m.finished(level-1, m.objects[from].first) {
		return false
	}
	for i := from; i < to; i++ {
		if !m.old(m.next(i)) {
			return false
		}
	}
	return true
}

// merge writes the events of the units under the name of the first object, without those that are trimmed, and removes
// the other objects. It returns the first object that it has left as it was.
func (m *merger) merge(ctx context.Context, units []int) (left int, err error) {
	all := run{merger: m, first: units[0]}
	left = units[0]
	for u := range len(units) - 1 {
		more := all
		if err := more.take(ctx, units[u], units[u+1]); err == errNone { // another collector is here, too
			return units[len(units)-1], nil
		} else if err != nil {
			return 0, err
		}
		if more.size > maxMerged && u > 0 {
			break
		}
		all, left = more, units[u+1]
	}
	first := m.objects[units[0]]
	if all.from() != all.head.First || all.end != all.head.end() {
		h := head{Nonce: rand.Text(), Stream: m.name, First: all.from(), Count: len(all.events), Bytes: all.bytes,
			Merged: true}
		_, err := m.s.c.put(ctx, first.key, h.body(all.events), all.etag)
		if err == errTaken || err == errNone {
			return units[len(units)-1], nil
		} else if err != nil {
			return 0, err
		}
		m.made++
	}
	m.removed += left - units[0] - 1
	return left, m.s.removeAll(ctx, m.objects[units[0]+1:left])
}

// A run is what a merge has read.
type run struct {
	*merger
	first int  // object, of which are
	head  head // and
	etag  string

	events []streamlib.Event
	size   int              // of these
	end    streamlib.Offset // behind what was read
	bytes  int64            // of the life, up to there
}

// from is where the run begins.
func (r *run) from() streamlib.Offset { return r.end - streamlib.Offset(len(r.events)) }

// take reads objects[from:to].
func (r *run) take(ctx context.Context, from, to int) error {
	for from < to {
		n, size := from, int64(0)
		for ; n < to && n-from < 4*ahead && size < maxRead; n++ {
			if n > r.first && r.trimmed(n) && !r.leads(n) {
				if n == from {
					from++
					r.end = max(r.end, r.next(n).first)
					continue
				}
				break
			}
			size += r.objects[n].size
		}
		batches, err := r.s.fetch(ctx, keys(r.objects[from:n]))
		if err != nil {
			return err
		}
		for i, b := range batches {
			if err := r.add(from+i, b); err != nil {
				return err
			}
		}
		from = n
	}
	return nil
}

// leads tells whether objects[i] may be merged: what is not the first of a block never is.
func (m *merger) leads(i int) bool {
	return i == 0 || m.s.blocks.of(0, m.objects[i].first) != m.s.blocks.of(0, m.objects[i-1].first)
}

// add adds what objects[i] has.
func (r *run) add(i int, b batch) error {
	key := r.objects[i].key
	if b.head.Stream != r.name || b.head.Deleted {
		return &streamlib.CorruptError{File: key, Reason: "it is of another stream, or deletes this one"}
	}
	if i == r.first {
		r.head, r.etag, r.end = b.head, b.etag, b.head.First
	}
	if b.head.First > max(r.end, r.kept) {
		return &streamlib.CorruptError{File: key,
			Reason: fmt.Sprintf("it begins at %d, and what comes before it ends at %d", b.head.First, r.end)}
	}
	for _, e := range b.events {
		if e.Offset >= max(r.end, r.kept) {
			r.events = append(r.events, e)
			r.size += len(e.Record()) + seal.Len
		}
	}
	if b.head.end() >= r.end {
		r.end, r.bytes = b.head.end(), b.head.Bytes
	}
	return nil
}

func keys(objects []entry) (keys []string) {
	for _, o := range objects {
		keys = append(keys, o.key)
	}
	return keys
}

// removeAll removes objects, the first first.
func (s *Storage) removeAll(ctx context.Context, objects []entry) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var going sync.WaitGroup
	turns := make(chan struct{}, removing)
	for _, o := range objects {
		turns <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		going.Go(func() {
			defer func() { <-turns }()
			if err := s.c.remove(ctx, o.key); err != nil {
				cancel(err)
			}
		})
	}
	going.Wait()
	return context.Cause(ctx)
}
