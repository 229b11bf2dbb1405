package disk

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// errDown is what every operation says between a crash and the next start.
var errDown = errors.New("the machine is down")

// crashFS is a file system in memory that knows what of it is durable, and can crash at any operation.
//
// It promises the store as little as a disk may: a file's sync makes its data and size durable and not its name; a
// folder's sync makes the names in it durable and not what they name. Of the rest a power cut keeps any part, in any
// order: of a write any of its bytes, the size apart from the data, each change of a name by itself. Only a rename is
// whole or not at all.
type crashFS struct {
	// before, where not nil, is asked before each operation what becomes of it. It may call the store.
	before func(op) outcome

	mu      sync.Mutex // guards what follows
	rng     *rand.Rand // decides what a crash keeps
	root    *inode
	epoch   int // counts the starts; files of a former one are closed
	down    bool
	ops     int
	handles int // files open
	room    int64
	limited bool // room counts
	folds   bool // a name is found by what differs from it by case alone, too
	lost    bool // of a file that was closed, what syncAll would have made durable
	noted   map[string]*inode
}

// op is one operation on a crashFS.
type op struct {
	n          int
	kind, path string
	writable   bool // the file is opened for writing
}

// writes tells whether the operation changes something.
func (o op) writes() bool {
	switch o.kind {
	case "read", "size", "same", "names", "reachable", "open", "close":
		return false
	}
	return true
}

// outcome is what becomes of an operation: nothing special where it is zero.
type outcome struct {
	err    error
	effect effect // of an operation that fails
	crash  bool
}

type effect int

const (
	without effect = iota
	partly
	wholly
)

func newCrashFS(rng *rand.Rand) *crashFS {
	return &crashFS{rng: rng, root: newFolder(), noted: map[string]*inode{}}
}

// begin counts the operation, asks what becomes of it, and holds mu when it returns. Skip tells that it has no effect.
func (c *crashFS) enter(epoch int, kind, path string) (effect, error) {
	return c.enterOp(epoch, op{kind: kind, path: path})
}

func (c *crashFS) enterOp(epoch int, o op) (e effect, err error) {
	c.mu.Lock()
	if c.down || epoch != c.epoch {
		return without, errDown
	}
	c.ops++
	o.n = c.ops
	var out outcome
	if c.before != nil {
		c.mu.Unlock()
		out = c.before(o)
		c.mu.Lock()
		if c.down || epoch != c.epoch {
			return without, errDown
		}
	}
	if out.crash {
		c.down = true
		return out.effect, errDown
	}
	if out.err != nil {
		return out.effect, out.err
	}
	return wholly, nil
}

// crash is what happens to what was not durable when the machine, or only the process, ends.
type crash int

const (
	kill  crash = iota // the process: all that was written is there, durable or not
	cold               // the process, and what was clean in the page cache is read from the disk again
	power              // the machine
)

func (k crash) String() string { return [...]string{"kill", "kill, cold cache", "power cut"}[k] }

// restart crashes what is running and lets the next start see what is left.
func (c *crashFS) restart(k crash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	c.down, c.lost, c.handles, c.noted = false, false, 0, map[string]*inode{}
	seen := map[*inode]bool{}
	for _, n := range append(slices.Collect(maps.Values(c.root.entries)), c.root) {
		for _, m := range n.lost {
			if m.node != nil && n.entries[m.to] == m.node && n.entries[m.from] == nil { // a rename is one
				n.moves = append(n.moves, m)
				continue
			}
			for _, name := range [...]string{m.from, m.to} {
				if node := n.entries[name]; node != nil {
					n.moves = append(n.moves, move{to: name, node: node})
				} else if name != "" {
					n.moves = append(n.moves, move{from: name})
				}
			}
		}
		n.lost = nil
	}
	switch k {
	case cold:
		c.walk(func(_ string, n *inode) {
			n.live = n.disk.clone()
			for _, ch := range n.since {
				n.live.apply(ch)
			}
		})
	case power:
		c.root.cut(c.rng, c.rng.IntN(3), seen)
	}
}

// walk visits the files that have a name.
func (c *crashFS) walk(visit func(path string, n *inode)) {
	for _, folder := range slices.Sorted(maps.Keys(c.root.entries)) {
		n := c.root.entries[folder]
		if !n.folder {
			visit(folder, n)
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(n.entries)) {
			visit(folder+"/"+name, n.entries[name])
		}
	}
}

// loose returns the streams' files with bytes that were not synced.
func (c *crashFS) loose() (paths []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.walk(func(path string, n *inode) {
		if strings.HasSuffix(path, suffix) && len(n.since) > 0 {
			paths = append(paths, path)
		}
	})
	return paths
}

// plant puts a file there, durably, as if it had been there for long.
func (c *crashFS) plant(path string, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if folder, _, ok := strings.Cut(path, "/"); ok && c.root.entries[folder] == nil {
		n := newFolder()
		c.root.entries[folder], c.root.durable[folder] = n, n
	}
	dir, base, _ := c.find(path)
	n := &inode{links: 1}
	n.live.write(b, 0)
	n.disk, n.synced = n.live.clone(), n.live.size
	dir.moves = slices.DeleteFunc(dir.moves, func(m move) bool { return m.from == base || m.to == base })
	dir.entries[base], dir.durable[base] = n, n
}

// contents returns the file as programs see it, nil where there is none.
func (c *crashFS) contents(path string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, _, n := c.find(path); n != nil {
		return n.live.bytes()
	}
	return nil
}

// find returns the folder, which is nil where there is none, the name in it, and what has that name.
func (c *crashFS) find(path string) (dir *inode, base string, n *inode) {
	dir, base = c.root, path
	if name, rest, ok := strings.Cut(path, "/"); ok {
		if dir = c.root.entries[name]; dir == nil || !dir.folder {
			return nil, "", nil
		}
		base = rest
	}
	if path == "." {
		return nil, "", c.root
	}
	if c.folds && dir.entries[base] == nil {
		for name, n := range dir.entries {
			if strings.EqualFold(name, base) {
				return dir, name, n
			}
		}
	}
	return dir, base, dir.entries[base]
}

func (c *crashFS) now() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.epoch
}

func pathError(kind, path string, err error) error {
	return &fs.PathError{Op: kind, Path: path, Err: err}
}

func (c *crashFS) open(path string, flag int) (file, error) {
	kind := "open"
	if flag&os.O_CREATE != 0 {
		kind = "create"
	}
	e, err := c.enterOp(c.now(), op{kind: kind, path: path, writable: flag&os.O_RDWR != 0})
	defer c.mu.Unlock()
	if err != nil && e == without {
		return nil, pathError(kind, path, err)
	}
	dir, base, n := c.find(path)
	switch {
	case path == "" || dir == nil || n == nil && flag&os.O_CREATE == 0:
		return nil, pathError(kind, path, fs.ErrNotExist)
	case n != nil && n.folder:
		return nil, pathError(kind, path, errors.New("is a directory"))
	case n != nil && flag&os.O_EXCL != 0:
		return nil, pathError(kind, path, fs.ErrExist)
	case n == nil:
		if n = (&inode{links: 1}); flag&os.O_RDWR == 0 {
			return nil, pathError(kind, path, fs.ErrPermission)
		}
		dir.move(move{to: base, node: n})
	case flag&os.O_TRUNC != 0:
		n.change(change{at: 0})
	}
	if err != nil {
		return nil, pathError(kind, path, err)
	}
	c.handles++
	return &crashFile{c: c, n: n, epoch: c.epoch, path: path, writable: flag&os.O_RDWR != 0, told: n.errors}, nil
}

func (c *crashFS) mkdir(path string) error {
	e, err := c.enter(c.now(), "mkdir", path)
	defer c.mu.Unlock()
	if err != nil && e == without {
		return pathError("mkdir", path, err)
	}
	if c.root.entries[path] == nil {
		n := newFolder()
		c.root.move(move{to: path, node: n})
	}
	return err
}

func (c *crashFS) rename(from, to string) error {
	e, err := c.enter(c.now(), "rename", from)
	defer c.mu.Unlock()
	if err != nil && e == without {
		return pathError("rename", from, err)
	}
	dir, base, n := c.find(from)
	toDir, toBase, old := c.find(to)
	if n == nil || dir != toDir {
		return pathError("rename", from, fs.ErrNotExist)
	}
	if old != nil {
		if old.links--; old.links == 0 {
			c.room += old.live.size
		}
	}
	dir.move(move{base, toBase, n})
	return err
}

func (c *crashFS) remove(path string) error {
	e, err := c.enter(c.now(), "remove", path)
	defer c.mu.Unlock()
	if err != nil && e == without {
		return pathError("remove", path, err)
	}
	dir, base, n := c.find(path)
	if path == "" || n == nil {
		return pathError("remove", path, fs.ErrNotExist)
	}
	if n.links--; n.links == 0 {
		c.room += n.live.size
	}
	dir.move(move{from: base})
	return err
}

func (c *crashFS) names(path string) ([]string, error) {
	_, err := c.enter(c.now(), "names", path)
	defer c.mu.Unlock()
	if err != nil {
		return nil, pathError("names", path, err)
	}
	dir := c.root.entries[path]
	if path == "." {
		dir = c.root
	}
	if dir == nil || !dir.folder {
		return nil, pathError("names", path, fs.ErrNotExist)
	}
	names := slices.Sorted(maps.Keys(dir.entries))
	c.rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return names, nil
}

func (c *crashFS) syncDir(path string) error {
	e, err := c.enter(c.now(), "syncDir", path)
	defer c.mu.Unlock()
	_, _, dir := c.find(path)
	if dir == nil || !dir.folder {
		return pathError("syncDir", path, errors.Join(err, fs.ErrNotExist))
	}
	switch {
	case e == wholly:
		dir.settle()
	case err != nil && !errors.Is(err, errDown):
		dir.lose(c.rng, e)
	}
	if err != nil {
		return pathError("syncDir", path, err)
	}
	return nil
}

func (c *crashFS) syncAll() error {
	e, err := c.enter(c.now(), "syncAll", "")
	defer c.mu.Unlock()
	if c.lost {
		c.lost, err = false, syscall.EIO
	}
	if err != nil && !errors.Is(err, errDown) && e != wholly {
		c.walk(func(_ string, n *inode) { n.lose(c.rng, e) })
	}
	if err != nil {
		return err
	}
	c.root.settle()
	for _, n := range c.root.entries {
		n.settle()
	}
	c.walk(func(_ string, n *inode) { n.settle() })
	return nil
}

func (c *crashFS) syncsClosed() bool { return true }

func (c *crashFS) reachable() (changed time.Time, err error) {
	_, err = c.enter(c.now(), "reachable", "")
	defer c.mu.Unlock()
	if err != nil {
		return changed, err
	}
	for _, name := range []string{journalDir, streamsDir} {
		n := c.root.entries[name]
		if n == nil {
			return changed, pathError("stat", name, fs.ErrNotExist)
		}
		if then, ok := c.noted[name]; ok && then != n {
			return changed, pathError("stat", name, errors.New("not the one that was opened"))
		}
		c.noted[name] = n
		changed = time.Unix(-n.changes, 0) // the clock is set back all the time
	}
	return changed, nil
}

func (c *crashFS) same(path string, f file) (bool, error) {
	_, err := c.enter(c.now(), "same", path)
	defer c.mu.Unlock()
	_, _, n := c.find(path)
	return n == f.(*crashFile).n, err
}

func (c *crashFS) close() error { return nil }

// crashFile is an open file of a crashFS.
type crashFile struct {
	c        *crashFS
	n        *inode
	epoch    int
	path     string
	writable bool
	closed   bool
	told     int // of the inode's errors, how many it knows
}

func (f *crashFile) enter(kind string) (effect, error) {
	e, err := f.c.enter(f.epoch, kind, f.path)
	if err == nil && f.closed {
		e, err = without, fs.ErrClosed
	}
	if err != nil {
		err = pathError(kind, f.path, err)
	}
	return e, err
}

func (f *crashFile) ReadAt(b []byte, at int64) (int, error) {
	_, err := f.enter("read")
	defer f.c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n := f.n.live.read(b, at)
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *crashFile) WriteAt(b []byte, at int64) (int, error) {
	e, err := f.enter("write")
	defer f.c.mu.Unlock()
	if !f.writable {
		e, err = without, pathError("write", f.path, syscall.EBADF)
	}
	n := len(b)
	switch e {
	case without:
		return 0, err
	case partly:
		n = f.c.rng.IntN(n + 1)
	}
	if f.c.limited {
		if more := at + int64(n) - f.n.live.size; more > f.c.room {
			n = int(max(0, int64(n)-(more-f.c.room)))
			err = pathError("write", f.path, syscall.ENOSPC)
		}
	}
	if n > 0 {
		before := f.n.live.size
		f.n.change(change{at, bytes.Clone(b[:n])})
		f.c.room -= f.n.live.size - before
	}
	return n, err
}

func (f *crashFile) size() (int64, error) {
	_, err := f.enter("size")
	defer f.c.mu.Unlock()
	return f.n.live.size, err
}

func (f *crashFile) truncate(size int64) error {
	e, err := f.enter("truncate")
	defer f.c.mu.Unlock()
	if !f.writable {
		return pathError("truncate", f.path, syscall.EINVAL)
	}
	if e == wholly {
		f.c.room += f.n.live.size - size
		f.n.change(change{at: size})
	}
	return err
}

// sync that fails leaves the pages clean, as Linux does: what did not reach the disk is not written by the next one. What
// another sync lost is told once to each file that was open then (errseq_t, since Linux 4.13).
func (f *crashFile) sync() error {
	e, err := f.enter("sync")
	defer f.c.mu.Unlock()
	defer func() { f.told = f.n.errors }()
	switch {
	case err == nil && f.told < f.n.errors:
		f.n.lose(f.c.rng, partly)
		return pathError("sync", f.path, syscall.EIO)
	case e == wholly:
		f.n.settle()
	case err != nil && !errors.Is(err, errDown):
		f.n.lose(f.c.rng, e)
	}
	return err
}

// close that fails loses what was not synced, as when it is written back later, and the file has left the cache before
// somebody asks.
func (f *crashFile) close() error {
	e, err := f.enter("close")
	defer f.c.mu.Unlock()
	if f.closed || f.epoch != f.c.epoch {
		return err
	}
	f.closed = true
	f.c.handles--
	if err != nil && !errors.Is(err, errDown) && len(f.n.since) > 0 {
		f.n.lose(f.c.rng, e)
		f.c.lost = true
	}
	return err
}
