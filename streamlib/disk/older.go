package disk

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// isOlderForm tells whether the file begins like {"events":[…]}, the form of the first implementation.
func isOlderForm(f file) (bool, error) {
	size, err := f.size()
	if err != nil {
		return false, err
	}
	b := make([]byte, min(size, 64))
	if _, err := f.ReadAt(b, 0); err != nil {
		return false, err
	}
	rest, ok := bytes.CutPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte("{"))
	return ok && bytes.HasPrefix(bytes.TrimLeft(rest, " \t\r\n"), []byte(`"events"`)), nil
}

// hasOlder tells whether there is a file of the older form under the stream's raw name, and returns its path.
func hasOlder(fsys fsys, name string) (raw string, ok bool, err error) {
	if raw = rawPath(name); raw == "" {
		return raw, false, nil
	}
	f, err := fsys.open(raw, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return raw, false, nil
	} else if err != nil {
		return raw, false, err
	}
	ok, err = isOlderForm(f)
	return raw, ok, errors.Join(err, f.close())
}

// adopt opens the file that is under the stream's raw name, and gives it its own name: one of the first implementation, or one that
// somebody moved there. The file is nil where there is none.
func (s *Store) adopt(l *log) (file, error) {
	raw, ok, err := hasOlder(s.fs, l.name)
	if err != nil {
		return nil, err
	} else if !ok {
		if ok, err = s.adoptLines(l); err != nil || !ok {
			return nil, err
		}
	} else if err := s.convert(raw, l.path, l.name); err != nil {
		return nil, err
	}
	return s.fs.open(l.path, os.O_RDWR)
}

// adoptLines gives a file of lines under the stream's raw name its own name, and tells whether there was one. Without that the stream would
// begin again at offset 0.
func (s *Store) adoptLines(l *log) (ok bool, err error) {
	raw := rawPath(l.name)
	if raw == "" {
		return false, nil
	}
	f, err := s.fs.open(raw, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	there := &log{name: l.name, quoted: l.quoted, path: raw, file: f}
	if there.size, err = f.size(); err == nil {
		_, _, err = there.check(1, new(Summary))
	}
	if err = errors.Join(err, f.close()); err != nil {
		return false, err
	}
	if err := s.fs.rename(raw, l.path); err != nil {
		return false, err
	}
	return true, s.syncStreams()
}

// convert makes the stream's file at to from the older form at from. The new file is whole and durable before it has its
// name; until then from is as it was.
func (s *Store) convert(from, to, name string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("convert %s: %w", from, err)
		}
	}()
	old, err := s.fs.open(from, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer old.close()
	size, err := old.size()
	if err != nil {
		return err
	}
	made := to + ".converting"
	f, err := s.fs.open(made, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	defer f.close()
	out := bufio.NewWriterSize(io.NewOffsetWriter(f, 0), 64<<10)
	if err := rewrite(out, io.NewSectionReader(old, 0, size), from, name); err != nil {
		return err
	}
	if err := errors.Join(out.Flush(), s.sync(made, f.sync)); err != nil {
		return err
	}
	if err := s.fs.rename(made, to); err != nil {
		return err
	}
	if err := s.syncStreams(); err != nil {
		return err
	}
	if from == to {
		return nil
	}
	if err := s.fs.remove(from); err != nil {
		return err
	}
	return s.syncStreams()
}

// rewrite writes lines for the events of the older form. Offsets are kept and must be contiguous from 0; times are kept,
// but one that is before its predecessor's, as a clock that was set back leaves it, becomes that.
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
