package disk

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
)

// inode is a file or a folder.
type inode struct {
	live   content // as programs see it
	disk   content // what a power cut leaves of it at least
	since  []change
	synced int64 // size at the last sync
	errors int   // of syncs that lost something

	folder  bool
	entries map[string]*inode
	durable map[string]*inode
	moves   []move
	lost    []move // that a sync said it could not make durable
	changes int64  // counts the moves
	links   int
}

// change is a write or, where data is nil, a truncation.
type change struct {
	at   int64
	data []byte
}

// move is a change of a folder's entries.
type move struct {
	from, to string // from is "" where to is created, to is "" where from is removed
	node     *inode
}

// move changes the folder's entries.
func (n *inode) move(m move) {
	m.apply(n.entries)
	n.moves = append(n.moves, m)
	n.changes++
}

func newFolder() *inode {
	return &inode{folder: true, entries: map[string]*inode{}, durable: map[string]*inode{}}
}

// content is a file's bytes in pages, nil for zeros, which are never changed once they are there.
type content struct {
	size  int64
	pages [][]byte
}

const page = 4 << 10

var zeros [page]byte

func (c *content) clone() content { return content{c.size, slices.Clone(c.pages)} }

func (c *content) truncate(size int64) {
	c.size = size
	if n := int((size + page - 1) / page); n < len(c.pages) {
		c.pages = slices.Clip(c.pages[:n])
	}
	if rest := size % page; rest > 0 && int(size/page) < len(c.pages) && c.pages[size/page] != nil {
		p := bytes.Clone(c.pages[size/page])
		clear(p[rest:])
		c.pages[size/page] = p
	}
}

func (c *content) write(b []byte, at int64) {
	c.size = max(c.size, at+int64(len(b)))
	for len(b) > 0 {
		i, from := int(at/page), at%page
		n := min(int64(len(b)), page-from)
		for len(c.pages) <= i {
			c.pages = append(c.pages, nil)
		}
		if c.pages[i] != nil || !bytes.Equal(b[:n], zeros[:n]) {
			p := make([]byte, page)
			copy(p, c.pages[i])
			copy(p[from:], b[:n])
			c.pages[i] = p
		}
		b, at = b[n:], at+n
	}
}

func (c *content) read(b []byte, at int64) (n int) {
	for n < len(b) && at < c.size {
		i, from := int(at/page), at%page
		p := zeros[:]
		if i < len(c.pages) && c.pages[i] != nil {
			p = c.pages[i]
		}
		k := copy(b[n:], p[from:min(page, from+c.size-at)])
		n, at = n+k, at+int64(k)
	}
	return n
}

func (c *content) bytes() []byte {
	b := make([]byte, c.size)
	c.read(b, 0)
	return b
}

func (c *content) apply(ch change) {
	if ch.data == nil {
		c.truncate(ch.at)
	} else {
		c.write(ch.data, ch.at)
	}
}

// cut leaves of what was not durable nothing, any part, or all.
func (n *inode) cut(rng *rand.Rand, keep int, seen map[*inode]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	if !n.folder {
		for _, ch := range n.since {
			n.disk.land(rng, ch, keep)
		}
		if len(n.since) > 0 && keep == 1 { // the size by itself
			lo, hi := n.disk.size, max(n.disk.size, n.live.size)
			for _, ch := range n.since {
				if ch.data == nil {
					lo = min(lo, ch.at)
				}
			}
			durable := n.synced
			switch rng.IntN(4) {
			case 0:
				n.disk.truncate(max(lo, min(durable, n.disk.size)))
			case 1:
				n.disk.size = hi
			case 2:
				if at := max(min(lo, durable), 0); hi > at {
					n.disk.truncate(at + rng.Int64N(hi-at+1))
				}
			}
		}
		n.since = nil
		n.live = n.disk.clone()
		return
	}
	for _, m := range n.moves {
		if keep == 0 || keep == 1 && rng.IntN(2) == 0 {
			continue
		}
		m.apply(n.durable)
	}
	n.moves, n.entries = nil, maps.Clone(n.durable)
	for _, name := range slices.Sorted(maps.Keys(n.entries)) {
		n.entries[name].links = 0
	}
	for _, name := range slices.Sorted(maps.Keys(n.entries)) {
		n.entries[name].links++
		n.entries[name].cut(rng, keep, seen)
	}
}

// land puts a part of the change onto the disk.
func (c *content) land(rng *rand.Rand, ch change, keep int) {
	if keep == 0 {
		return
	}
	if keep == 2 || ch.data == nil {
		if keep == 2 || rng.IntN(2) == 0 {
			c.apply(ch)
		}
		return
	}
	size := c.size
	switch b := ch.data; rng.IntN(6) {
	case 0: // nothing
	case 1:
		c.apply(ch)
	case 2: // the beginning
		c.write(b[:rng.IntN(len(b)+1)], ch.at)
	case 3: // the end
		i := rng.IntN(len(b) + 1)
		c.write(b[i:], ch.at+int64(i))
	case 4: // some sectors
		for at := ch.at; at < ch.at+int64(len(b)); {
			next := min((at/512+1)*512, ch.at+int64(len(b)))
			if rng.IntN(2) == 0 {
				c.write(b[at-ch.at:next-ch.at], at)
			}
			at = next
		}
	case 5: // some runs of bytes
		for i := 0; i < len(b); {
			n := min(1+rng.IntN(1+len(b)/4), len(b)-i)
			if rng.IntN(2) == 0 {
				c.write(b[i:i+n], ch.at+int64(i))
			}
			i += n
		}
	}
	c.size = max(c.size, size)
}

func (m move) apply(entries map[string]*inode) {
	if m.from != "" {
		delete(entries, m.from)
	}
	if m.to != "" {
		entries[m.to] = m.node
	}
}

func (n *inode) change(ch change) {
	n.live.apply(ch)
	n.since = append(n.since, ch)
}

// settle makes what is written to the file, or the folder's entries, durable.
func (n *inode) settle() {
	if n.folder {
		for _, m := range n.moves {
			m.apply(n.durable)
		}
		n.moves = nil
		return
	}
	for _, ch := range n.since {
		n.disk.apply(ch)
	}
	n.since, n.synced = nil, n.disk.size
}

// lose leaves of what was not synced what reached the disk, and all of it clean: the next sync makes none of the rest
// durable. Of names the next start's does, for they are the file system's own, which fails for good where it cannot
// write them.
func (n *inode) lose(rng *rand.Rand, reached effect) {
	for _, m := range n.moves {
		if reached == wholly || reached == partly && rng.IntN(2) == 0 {
			m.apply(n.durable)
		} else {
			n.lost = append(n.lost, m)
		}
	}
	n.moves = nil
	if len(n.since) > 0 {
		n.errors++
	}
	for _, ch := range n.since {
		n.disk.land(rng, ch, int(reached))
	}
	n.since, n.synced = nil, n.disk.size
}
