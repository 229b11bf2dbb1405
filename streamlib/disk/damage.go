package disk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/iterate/durable-streams/streamlib"
)

// mark is what is known of a stream's damage. Its file in DIR/damaged outlives the process: while it is there,
// whatever it says, the stream takes no appends.
type mark struct {
	Stream     string `json:"stream"` // "" where it could not be told
	File       string `json:"file"`
	Offset     int64  `json:"offset"`
	Reason     string `json:"reason"`
	Unreplayed string `json:"unreplayed,omitempty"` // the file that has what the journal had for the stream
	// Trouble says that nothing is damaged, but the file could not be read: the next start tries again.
	Trouble bool `json:"trouble,omitempty"`

	State *stateRecord `json:"state,omitempty"` // what the journal had for it beside events

	lasting bool // its file is durable
	told    bool // that it is not
}

func (m *mark) corrupt() *streamlib.CorruptError {
	return &streamlib.CorruptError{File: m.File, Offset: m.Offset, Reason: m.Reason}
}

// loadMarks reads what former processes found damaged.
func (s *Store) loadMarks() error {
	files, err := s.fs.names(damagedDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, file := range files {
		stem, ok := strings.CutSuffix(file, suffix)
		if !ok {
			continue
		}
		m, err := s.readMark(damagedDir + "/" + file)
		if err != nil {
			name, _ := unstem(stem)
			m = &mark{Stream: name, File: streamsDir + "/" + file,
				Reason: "it was found damaged, and the mark cannot be read: " + err.Error()}
		}
		m.lasting = true
		s.marks[stem] = m
	}
	return nil
}

func (s *Store) readMark(path string) (*mark, error) {
	b, err := readStart(s.fs, path, 64<<10)
	if err != nil {
		return nil, err
	}
	record, err := unseal(b)
	if err != nil {
		return nil, err
	}
	m := &mark{}
	return m, json.Unmarshal(append(record, '}'), m)
}

// stem is the name of the log's file, and of what belongs to it, less the suffix.
func (l *log) stem() string {
	if l.name == "" {
		return strings.TrimSuffix(strings.TrimPrefix(l.path, streamsDir+"/"), suffix)
	}
	return stem(l.name)
}

// marked returns what is known of the stream's damage, nil where nothing is.
func (s *Store) marked(l *log) *mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.marks) == 0 {
		return nil
	}
	return s.marks[l.stem()]
}

// markedName returns the name that the mark of a file's damage has, "" where there is none.
func (s *Store) markedName(stem string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.marks[stem]; m != nil {
		return m.Stream
	}
	return ""
}

// found remembers err where it says that the stream is damaged, and returns it. A control record of a later version
// is no damage.
func (s *Store) found(l *log, err error) error {
	if c, ok := errors.AsType[*streamlib.CorruptError](err); ok && c.Reason != errControl.Error() {
		_ = s.mark(l, mark{File: c.File, Offset: c.Offset, Reason: c.Reason}) // it is told, and tried again
	}
	return err
}

// mark lets the stream take no appends from now on, after the next start too. Where that could not be made durable,
// as on a full disk, it holds for this process, and what finds the damage again tries again.
func (s *Store) mark(l *log, found mark) error {
	s.marking.Lock()
	defer s.marking.Unlock()
	stem := l.stem()
	s.mu.Lock()
	m := s.marks[stem]
	if l.deleted {
		s.mu.Unlock()
		return nil // the next life is none of it
	}
	if m == nil {
		found.Stream, m = l.name, &found
		s.marks[stem] = m
		s.options.Log.Error("a stream is damaged and takes no appends until it is repaired",
			"stream", m.Stream, "file", m.File, "offset", m.Offset, "reason", m.Reason)
	}
	s.mu.Unlock()
	if m.lasting {
		return nil
	}
	err := s.writeMark(m, damagedDir+"/"+stem+suffix)
	m.lasting = err == nil
	if err != nil && !m.told {
		m.told = true
		s.options.Log.Error("the next start may not know that the stream is damaged: its mark cannot be written",
			"stream", m.Stream, "error", err)
	}
	return err
}

func (s *Store) writeMark(m *mark, path string) error {
	record, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := errors.Join(s.fs.mkdir(damagedDir), s.fs.syncDir(".")); err != nil {
		return err
	}
	// A part of a mark would be one that only repair takes away.
	if err := writeWhole(s.fs, path, appendLine(nil, record[:len(record)-1])); err != nil {
		return err
	}
	return s.fs.syncDir(damagedDir)
}

// unmark lets the stream take appends again: it was deleted or mended.
func (s *Store) unmark(l *log) error {
	s.marking.Lock()
	defer s.marking.Unlock()
	stem := l.stem()
	s.mu.Lock()
	m := s.marks[stem]
	s.mu.Unlock()
	if m == nil {
		return nil
	}
	if err := s.fs.remove(damagedDir + "/" + stem + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.fs.syncDir(damagedDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.marks, stem)
	return nil
}

// Damaged returns the streams that are known to be damaged, in the order of their names.
func (s *Store) Damaged() []streamlib.Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	var damaged []streamlib.Info
	for _, m := range s.marks {
		damaged = append(damaged, streamlib.Info{Name: m.Stream, Damage: m.corrupt()})
	}
	slices.SortFunc(damaged, func(a, b streamlib.Info) int {
		return strings.Compare(a.Name+"\x00"+a.Damage.File, b.Name+"\x00"+b.Damage.File)
	})
	return damaged
}

// keepCopy writes what f has in [from, to), less the zeros at its end, to a file of its own, durably, and returns its
// path: with a number behind it where that is taken, for a copy that was made once is never written again. One that
// has the same bytes will do.
func (s *Store) keepCopy(f io.ReaderAt, from, to int64, path string) (kept string, n int64, err error) {
	if n, err = withoutZeros(f, from, to); err != nil || n == 0 {
		return "", 0, err
	}
	source := func() *io.SectionReader { return io.NewSectionReader(f, from, n) }
	folder := filepath.Dir(path)
	for i := 1; ; i++ {
		out, err := s.sameBytes(source(), n, numbered(path, i))
		if errors.Is(err, fs.ErrNotExist) {
			break
		} else if out != nil {
			return numbered(path, i), n, errors.Join(err, out.sync(), out.close(), s.fs.syncDir(folder))
		} else if err != nil && i == maxCopies {
			return "", 0, err
		}
	}
	out, kept, err := s.create(path)
	if err != nil {
		return "", 0, err
	}
	_, err = io.Copy(io.NewOffsetWriter(out, 0), source())
	if err = errors.Join(err, out.sync(), out.close(), s.fs.syncDir(folder)); err != nil {
		return "", 0, errors.Join(err, s.fs.remove(kept))
	}
	return kept, n, nil
}

// maxCopies bounds the search for a name among those that cannot be opened, whatever they are.
const maxCopies = 1000

// numbered is the i-th name of a copy.
func numbered(path string, i int) string {
	if i == 1 {
		return path
	}
	return fmt.Sprintf("%s.%d", path, i)
}

// create makes a file for a copy, under the first of its names that is free.
func (s *Store) create(path string) (f file, kept string, err error) {
	for i := 1; ; i++ {
		kept = numbered(path, i)
		if f, err = s.fs.open(kept, os.O_RDWR|os.O_CREATE|os.O_EXCL); !errors.Is(err, fs.ErrExist) {
			return f, kept, err
		}
	}
}

// withoutZeros is the length of what f has in [from, to) less the zeros at its end.
func withoutZeros(f io.ReaderAt, from, to int64) (n int64, err error) {
	b := make([]byte, 64<<10)
	for pos := from; pos < to; pos += int64(len(b)) {
		b = b[:min(int64(cap(b)), to-pos)]
		if _, err := f.ReadAt(b, pos); err != nil {
			return 0, err
		}
		if i := len(bytes.TrimRight(b, "\x00")); i > 0 {
			n = pos - from + int64(i)
		}
	}
	return n, nil
}

// sameBytes opens the file at path where it is what in has, n bytes; nil where it is another. Where there is none it
// is fs.ErrNotExist.
func (s *Store) sameBytes(in io.Reader, n int64, path string) (file, error) {
	f, err := s.fs.open(path, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	size, err := f.size()
	same := err == nil && size == n
	for a, b := make([]byte, 64<<10), make([]byte, 64<<10); same && n > 0; n -= int64(len(a)) {
		a = a[:min(int64(cap(a)), n)]
		b = b[:len(a)]
		if _, err = io.ReadFull(in, a); err == nil {
			_, err = f.ReadAt(b, size-n)
		}
		same = err == nil && string(a) == string(b)
	}
	if !same {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

// putAside gives a file a name that no copy has.
func (s *Store) putAside(from, path string) (kept string, err error) {
	for i := 1; ; i++ {
		f, err := s.fs.open(numbered(path, i), os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			kept = numbered(path, i)
			return kept, errors.Join(s.fs.rename(from, kept), s.fs.syncDir(filepath.Dir(path)))
		} else if err == nil {
			f.close()
		} else if i == maxCopies {
			return "", err
		}
	}
}
