package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

// cursorPause is the time between two writes of a cursor, which load would make many of.
const cursorPause = 100 * time.Millisecond

// A cursor is the file that keeps the place of a subscription. The place is behind the last event that was printed, or
// left out, and it is written later than the event, so that who goes on there after an end at any time misses nothing
// and gets again what was printed since the last write, of the last tenth of a second. The file is written beside and
// renamed: whoever reads it, also after kill -9, finds a whole one. It is not synced: after the loss of power it may be
// an older one, or on some file systems empty, which is found out and said.
type cursor struct {
	path string
	name string      // of the stream
	life int64       // of the stream that the place is of; set before the place first moves
	fail func(error) // ends the subscription; set before, too

	mu    sync.Mutex       // guards what follows, and the file
	next  streamlib.Offset // the place
	kept  streamlib.Offset // that the file has; -1 where there is no file
	wrote time.Time
	later *time.Timer // writes the place; nil where the file has it
	err   error       // of a write; there is none after it
}

// cursorLine is the line of a cursor's file.
type cursorLine struct {
	Stream string `json:"stream"`
	Next   string `json:"next"`           // offset
	Life   int64  `json:"life,omitempty"` // of the stream: see streamlib.State
}

// maxCursor is more than a cursor's file has, in bytes: a name and what JSON makes of it.
const maxCursor = 4 << 10

// openCursor reads the cursor of the stream, whose next is negative where there is none yet, and finds out whether it
// can be written before anything is printed.
func openCursor(path, name string) (*cursor, error) {
	if to, err := filepath.EvalSymlinks(path); err == nil { // a rename would replace the link
		path = to
	}
	c := &cursor{path: path, name: name, next: -1}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is no file", path)
	case info.Size() > maxCursor:
		err = fmt.Errorf("%s is no cursor: it has %d bytes", path, info.Size())
	default:
		if err = c.read(); err != nil {
			err = hintError{err, "another FILE; or to begin again, rm " + daemon.ShellWord(path)}
		}
	}
	if err == nil {
		var f *os.File
		if f, err = c.beside(); err == nil {
			err = cmp.Or(f.Close(), os.Remove(f.Name()))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("--cursor: %w", err)
	}
	c.kept = c.next
	return c, nil
}

// read takes the place from the file.
func (c *cursor) read() error {
	text, err := os.ReadFile(c.path)
	if err != nil {
		return err
	}
	var line cursorLine
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err = d.Decode(&line)
	_, end := d.Token()
	next, errNext := streamlib.ParseOffset(line.Next)
	switch {
	case err == io.EOF:
		return fmt.Errorf("%s is no cursor: it is empty", c.path)
	case err != nil:
		return fmt.Errorf("%s is no cursor: %w", c.path, err)
	case end != io.EOF, errNext != nil, next < 0:
		return fmt.Errorf("%s is no cursor: %.60q", c.path, text)
	case line.Stream != c.name:
		return fmt.Errorf("%s is of the stream %q, not of %q", c.path, line.Stream, c.name)
	}
	c.next, c.life = next, line.Life
	return nil
}

// beside makes a file that takes the cursor's place, with a name that no other run gives to its own.
func (c *cursor) beside() (*os.File, error) {
	return os.CreateTemp(filepath.Dir(c.path), filepath.Base(c.path)+".new*")
}

// followKept is follow with the events printed, and the place kept.
func (c *call) followKept(ctx context.Context, s *streamhttp.Remote, f streamhttp.Follow, as form,
	keep *cursor) error {
	ctx, _, stop := interruptible(ctx) // for the place is to be kept before the end
	defer stop()
	ctx, keep.fail = context.WithCancelCause(ctx)
	defer keep.fail(nil)
	if keep.next >= 0 {
		f.From, f.Resume, f.Last, f.Since = keep.next, true, 0, ""
	}
	f.Life = &keep.life
	f.CaughtUp = func(tail streamlib.Offset) {
		if err := keep.move(tail); err != nil {
			keep.fail(err)
		}
	}
	err := c.follow(ctx, s, f, func(events []streamlib.Event) (done bool, err error) {
		if err := c.printEvents(events, as); err != nil {
			return false, err
		}
		return false, keep.move(events[len(events)-1].Offset + 1)
	})
	if i, ok := errors.AsType[interruption](err); ok {
		err = toldError{i} // there is nothing to say
	}
	return cmp.Or(keep.close(), err)
}

// move takes the place that everything before was printed or left out.
func (c *cursor) move(next streamlib.Offset) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next = next
	if c.err != nil || next == c.kept || c.later != nil {
		return c.err
	}
	if pause := cursorPause - time.Since(c.wrote); pause > 0 {
		c.later = time.AfterFunc(pause, func() {
			if err := c.close(); err != nil {
				c.fail(err)
			}
		})
		return nil
	}
	return c.write()
}

// close writes the place where the file does not have it.
func (c *cursor) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.later != nil {
		c.later.Stop()
		c.later = nil
	}
	if c.err != nil || c.next == c.kept {
		return c.err
	}
	return c.write()
}

// write writes the file. The caller holds mu.
func (c *cursor) write() error {
	f, err := c.beside()
	if err == nil {
		err = json.NewEncoder(f).Encode(cursorLine{c.name, c.next.String(), c.life})
		if err = cmp.Or(err, f.Close()); err == nil {
			err = daemon.Rename(f.Name(), c.path)
		}
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}
	if err != nil {
		c.err = fmt.Errorf("--cursor: keep the place %s: %w", c.next, err)
	}
	c.kept, c.wrote = c.next, time.Now()
	return c.err
}
