package disk

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// conversion makes the streams' own files of those that the first implementation left, each with {"events":[…]} in it
// and the stream's raw name. It ends before the folder has a format, and nothing is appended until then, so what a
// crash leaves of it is done again.
type conversion struct {
	*Store
	count int
	new   []converted // files that do not have their names yet
	taken map[string]bool
	size  int64 // of these files
	loose bool  // of some of them the bytes are not durable yet
}

// converted is a file made of an older one, that is to be at path. It and from are in taken.
type converted struct{ from, made, path string }

// How much is given its names at once. The first files are synced one by one, which for a few costs less.
var maxNew, fewNew = 1000, 32

const maxNewSize = 64 << 20

// convert converts a folder that has no format yet. Where it cannot, the older files are there still.
func (s *Store) convert() error {
	if err := s.checkFormat(); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	files, err := s.fs.names(streamsDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c, start := &conversion{Store: s, taken: map[string]bool{}}, time.Now()
	for _, file := range files {
		if err := c.convertFile(file); err != nil {
			return fmt.Errorf("the streams of an older version must be converted, and %s/%s cannot be: %w",
				streamsDir, file, err)
		}
	}
	if err := c.name(); err != nil {
		return fmt.Errorf("the streams of an older version must be converted, and cannot be: %w", err)
	}
	if c.count > 0 {
		s.options.Log.Info("converted the streams of an older version", "streams", c.count, "took", time.Since(start))
	}
	return nil
}

// convertFile makes a stream's own file of one of the older form. It is to be whole and durable before it has its
// name. What is not of the older form stays as it is, and so does what can be no stream's.
func (c *conversion) convertFile(file string) error {
	from := streamsDir + "/" + file
	name, err := c.olderName(file)
	if err != nil || name == "" {
		return err
	}
	if err := streamlib.CheckName(name); err != nil {
		c.say(fmt.Sprintf("%s is of an older version and stays as it is, for it can be no stream's: %v", from, err))
		return nil
	}
	l := newLog(name)
	if l.path != from {
		if found, err := c.clear(l.path); err != nil {
			return err
		} else if found {
			return c.convertFile(file) // which was that file, where upper and lower case are the same
		}
	}
	made := l.path + ".converting"
	damage, size, err := c.writeLines(l, from, made)
	if classify(err) == streamlib.ErrFull && len(c.new) > 0 { // the older files take room
		if err = c.name(); err == nil {
			damage, size, err = c.writeLines(l, from, made)
		}
	}
	if err != nil {
		return err
	}
	if l.path != from {
		if free, err := c.isFree(l.path, made); err != nil {
			return err
		} else if !free {
			c.say(fmt.Sprintf("%s is of an older version and stays as it is, for stream %q has other events",
				from, name))
			return c.fs.remove(made)
		}
	}
	if damage != nil {
		if c.tell != nil { // the log says it where the stream is marked
			c.tell(fmt.Sprintf("stream %q: %s", name, damage.Reason))
		}
		if err := c.mark(l, *damage); err != nil {
			return err
		}
	}
	c.new = append(c.new, converted{from, made, l.path})
	c.taken[from], c.taken[l.path] = true, true
	c.size += size
	if c.count++; c.count%10_000 == 0 {
		c.options.Log.Info("converting the streams of an older version", "streams", c.count)
	}
	if len(c.new) < maxNew && c.size < maxNewSize {
		return nil
	}
	return c.name()
}

// olderName returns the name of the stream that is in a file of the streams' folder, "" where that does not have the
// older form. It is the file's, without what is escaped in it where the first event says that name.
func (c *conversion) olderName(file string) (string, error) {
	base, ok := strings.CutSuffix(file, suffix)
	if !ok {
		return "", nil
	}
	path := streamsDir + "/" + file
	f, size, err := openSized(c.fs, path)
	if errors.Is(err, fs.ErrNotExist) || err != nil && isCorrupt(noFile(path, err)) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	defer f.close()
	if older, err := isOlderForm(f, size); err != nil || !older {
		return "", err
	}
	r := &failing{r: io.NewSectionReader(f, 0, size)}
	d := json.NewDecoder(r)
	for range 3 { // {, "events" and [
		_, _ = d.Token()
	}
	var first struct{ EventStreamID string }
	if d.More() {
		_ = d.Decode(&first) // what is damaged is told when it is converted
	}
	if r.err != nil {
		return "", r.err
	}
	if unescaped, err := url.PathUnescape(base); err == nil && unescaped == first.EventStreamID {
		return unescaped, nil
	}
	return base, nil
}

// clear converts the file at path first, where that is an older one: what is one stream's own name may be another's
// raw name. It tells whether it found one.
func (c *conversion) clear(path string) (found bool, err error) {
	if count := c.count; !c.taken[path] {
		err = c.convertFile(strings.TrimPrefix(path, streamsDir+"/"))
		found = c.count > count
	}
	if err == nil && c.taken[path] {
		err = c.name()
	}
	return found, err
}

// writeLines writes the events of the older file to one at made, whose size it returns, durably or to be synced with
// others. Where it is damaged these are the ones before the damage, which it returns, and a copy of it is kept.
func (c *conversion) writeLines(l *log, from, made string) (damage *mark, _ int64, err error) {
	old, size, err := openSized(c.fs, from)
	if err != nil {
		return nil, 0, err
	}
	defer old.close()
	loose := c.count >= fewNew && c.fs.syncsClosed() // before anything is written
	f, err := c.fs.open(made, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = cmp.Or(err, f.close()) }()
	out := bufio.NewWriterSize(io.NewOffsetWriter(f, 0), 64<<10)
	err = rewrite(out, io.NewSectionReader(old, 0, size), from, l.name)
	corrupt, damaged := errors.AsType[*streamlib.CorruptError](err)
	if err != nil && !damaged {
		return nil, 0, err
	}
	if err := out.Flush(); err != nil {
		return nil, 0, err
	}
	length, err := f.size()
	if err != nil {
		return nil, 0, err
	}
	if damaged {
		kept, _, err := c.keepCopy(old, 0, size, l.beside("damaged", corrupt.Offset))
		if err != nil {
			return nil, 0, err
		}
		damage = &mark{File: l.path, Offset: length,
			Reason: fmt.Sprintf("%s was damaged at byte %d when it was converted, all of it is in %s: %s",
				from, corrupt.Offset, kept, corrupt.Reason)}
	}
	if loose {
		c.loose = true
		return damage, length, nil
	}
	return damage, length, c.sync(made, f.sync)
}

// isFree tells whether nothing is at path, or what was made for it already.
func (c *conversion) isFree(path, made string) (bool, error) {
	f, size, err := openSized(c.fs, made)
	if err != nil {
		return false, err
	}
	defer f.close()
	there, err := c.sameBytes(io.NewSectionReader(f, 0, size), size, path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case err != nil || there == nil:
		return false, err
	}
	return true, there.close()
}

// name gives the new files their names, once they are durable, and removes the older ones that had other names, once
// these are.
func (c *conversion) name() error {
	if c.loose {
		if err := c.sync(streamsDir, c.fs.syncAll); err != nil {
			return err
		}
	}
	older := c.new[:0:0]
	for _, n := range c.new {
		if err := c.fs.rename(n.made, n.path); err != nil {
			return err
		}
		if n.from != n.path {
			older = append(older, n)
		}
	}
	if len(older) > 0 {
		if err := c.syncStreams(); err != nil {
			return err
		}
	}
	for _, n := range older {
		if err := c.fs.remove(n.from); err != nil {
			return err
		}
	}
	c.new, c.size, c.loose = nil, 0, false
	clear(c.taken)
	return nil
}

// isOlderForm tells whether the file begins like {"events":[…]}, the form of the first implementation.
func isOlderForm(f file, size int64) (bool, error) {
	b := make([]byte, min(size, 64))
	if _, err := f.ReadAt(b, 0); err != nil {
		return false, err
	}
	rest, ok := bytes.CutPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte("{"))
	return ok && bytes.HasPrefix(bytes.TrimLeft(rest, " \t\r\n"), []byte(`"events"`)), nil
}

// rewrite writes lines for the events of the older form. Offsets are kept and must be contiguous from 0; times are
// kept, but one that is before its predecessor's, as a clock that was set back leaves it, becomes that.
func rewrite(out io.Writer, in io.Reader, from, name string) error {
	r := &failing{r: in}
	d := json.NewDecoder(r)
	damaged := func(format string, args ...any) error {
		if r.err != nil {
			return r.err
		}
		return &streamlib.CorruptError{File: from, Offset: d.InputOffset(), Reason: fmt.Sprintf(format, args...)}
	}
	for _, want := range []json.Token{json.Delim('{'), "events", json.Delim('[')} {
		if token, err := d.Token(); err != nil || token != want {
			return damaged("%v where %v should be (%v)", token, want, err)
		}
	}
	var last time.Time
	var line []byte
	quoted := quote(name)
	for o := streamlib.Offset(0); d.More(); o++ {
		var old struct {
			Offset    string
			Data      json.RawMessage
			CreatedAt time.Time
		}
		if err := d.Decode(&old); err != nil {
			return damaged("event %d: %v", o, err)
		}
		if at, err := streamlib.ParseOffset(old.Offset); err != nil || at != o {
			return damaged("offset %q where %d should be", old.Offset, o)
		}
		if t := old.CreatedAt.UTC().Truncate(time.Millisecond); t.After(last) {
			last = t
		}
		record, err := streamlib.NewRecord(o, name, old.Data, last)
		if err != nil {
			return damaged("event %d: %v", o, err)
		}
		line = appendLine(line[:0], record)
		if _, err := parseLine(line, quoted); err != nil || len(line) > maxLine {
			return damaged("event %d cannot be kept: %d bytes, created %v", o, len(old.Data), old.CreatedAt)
		}
		if _, err := out.Write(line); err != nil {
			return err
		}
	}
	for _, want := range []json.Token{json.Delim(']'), json.Delim('}')} {
		if token, err := d.Token(); err != nil || token != want {
			return damaged("%v where %v should be (%v)", token, want, err)
		}
	}
	if token, err := d.Token(); err != io.EOF {
		return damaged("%v behind the end (%v)", token, err)
	}
	return nil
}

// failing keeps the error that reading failed with.
type failing struct {
	r   io.Reader
	err error
}

func (f *failing) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}
