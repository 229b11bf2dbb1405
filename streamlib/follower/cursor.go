package follower

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/internal/seal"
)

const (
	version = "durable-streams 1"
	spare   = 4096        // lines that the file may have beside twice those that it needs
	rewrite = time.Second // until it is written anew again, where that failed
)

// A position is up to where a stream was handed over.
type position struct {
	life   int64
	next   streamlib.Offset // Now where that is still to be found out
	first  streamlib.Offset // what was handed over of the state: only where states are
	closed bool
	note   string // noteOf
}

// A cursor has the positions of all streams, in memory and in a file. One goroutine uses it.
type cursor struct {
	path    string
	streams map[string]position
	file    *os.File // to add to; nil where it is to be written anew
	lines   int      // that it has
	added   []byte   // that are not in the file yet
	tried   time.Time
}

// cursorLine is a line of the file: its first one, or what it says of a stream.
type cursorLine struct {
	Cursor  string `json:"cursor,omitempty"`
	Stream  string `json:"stream,omitempty"`
	Life    int64  `json:"life,omitempty"`
	Next    string `json:"next,omitempty"`
	First   int64  `json:"first,omitempty"`
	Closed  bool   `json:"closed,omitempty"`
	Note    string `json:"note,omitempty"`
	Deleted bool   `json:"deleted,omitempty"`
}

// openCursor reads the file where there is one. Damaged is how many of its lines are not as they were.
func openCursor(path string) (c *cursor, found bool, damaged int, err error) {
	c = &cursor{path: path, streams: map[string]position{}}
	f, err := daemon.OpenPlain(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return c, false, 0, nil
	} else if err != nil {
		return nil, false, 0, err
	}
	defer f.Close()
	in := bufio.NewReader(f)
	for ; ; c.lines++ {
		line, err := in.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return nil, true, damaged, err
		}
		if len(line) == 0 {
			break
		}
		var l cursorLine
		record, sealed := seal.Open(line)
		if sealed == nil {
			sealed = json.Unmarshal(append(record, '}'), &l)
		}
		switch {
		case c.lines == 0 && (sealed != nil || l.Cursor != version):
			return nil, true, damaged, fmt.Errorf("%s is damaged, or of another version: without it, which loses the place, "+
				"what is appended from then on is handed over", path)
		case sealed != nil || c.lines > 0 && !c.take(l):
			damaged++
		}
	}
	if c.lines == 0 {
		return nil, true, 0, fmt.Errorf("%s is empty: without it, which loses the place, what is appended from then on is "+
			"handed over", path)
	}
	if damaged == 0 {
		if c.file, err = daemon.OpenPlain(path, os.O_WRONLY|os.O_APPEND); err == nil {
			err = c.file.Sync() // what is known now stays known
		}
	}
	return c, true, damaged, err
}

// take does what a line says, and tells whether it says something.
func (c *cursor) take(l cursorLine) bool {
	next, err := streamlib.ParseOffset(l.Next)
	switch {
	case l.Deleted:
		delete(c.streams, l.Stream)
	case err != nil || l.Stream == "":
		return false
	default:
		c.streams[l.Stream] = position{l.Life, next, streamlib.Offset(l.First), l.Closed, l.Note}
	}
	return true
}

// set notes where a stream is, and remove that there is none. Both are in the file after the next flush.
func (c *cursor) set(name string, p position) {
	c.streams[name] = p
	c.add(stated(name, p))
}

func (c *cursor) remove(name string) {
	delete(c.streams, name)
	c.add(cursorLine{Stream: name, Deleted: true})
}

func (c *cursor) add(l cursorLine) {
	if c.file == nil { // it is written anew, with all streams
		return
	}
	c.added = appendLine(c.added, l)
	c.lines++
}

func stated(name string, p position) cursorLine {
	return cursorLine{Stream: name, Life: p.life, Next: p.next.String(), First: int64(p.first), Closed: p.closed,
		Note: p.note}
}

func appendLine(b []byte, l cursorLine) []byte {
	record, err := json.Marshal(l)
	if err != nil {
		panic(err) // a struct of strings and numbers
	}
	return seal.Append(b, record[:len(record)-1])
}

// flush brings the file up to what was set. Where it cannot, the next one tries again, a second later at the earliest.
func (c *cursor) flush() error {
	if len(c.added) == 0 && c.file != nil {
		return nil
	}
	if c.file != nil && c.lines <= 2*len(c.streams)+spare {
		_, err := c.file.Write(c.added)
		if c.added = c.added[:0]; err != nil { // a part of a line may be there
			c.close()
		}
		return err
	}
	c.added = nil
	c.close()
	if time.Since(c.tried) < rewrite {
		return nil
	}
	err := c.write()
	c.tried = time.Time{}
	if err != nil {
		c.tried = time.Now()
	}
	return err
}

// sync makes durable what is in the file.
func (c *cursor) sync() error {
	if c.file == nil {
		return nil
	}
	return c.file.Sync()
}

// write makes the file anew: a crash leaves the old one or the new one.
func (c *cursor) write() (err error) {
	dir := filepath.Dir(c.path)
	if err := os.Remove(c.path + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(c.path+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(c.path + ".new")
		}
	}()
	daemon.Give(f, dir)
	out := bufio.NewWriter(f)
	line := appendLine(nil, cursorLine{Cursor: version})
	lines := 1
	for name, p := range c.streams {
		if _, err := out.Write(line); err != nil {
			return err
		}
		line = appendLine(line[:0], stated(name, p))
		lines++
	}
	_, err = out.Write(line)
	if err = errors.Join(err, out.Flush(), f.Sync()); err != nil {
		return err
	}
	if runtime.GOOS == "windows" { // which renames nothing that is open
		f.Close()
		if err := daemon.Rename(c.path+".new", c.path); err != nil {
			return err
		}
		if f, err = daemon.OpenPlain(c.path, os.O_WRONLY|os.O_APPEND); err != nil {
			return err
		}
	} else {
		if err := daemon.Rename(c.path+".new", c.path); err != nil {
			return err
		}
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	c.file, c.lines = f, lines
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (c *cursor) close() {
	if c.file != nil {
		c.file.Close()
		c.file = nil
	}
}
