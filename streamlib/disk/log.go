package disk

import (
	"bytes"
	"container/list"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// log is one stream's open file.
type log struct {
	name   string
	quoted []byte
	path   string

	opening  sync.Once
	err      error // of opening
	readOnly bool  // the file must not be written

	// The committer's alone: what the log is once the open batch is applied.
	round    uint64 // of the commit that set the rest
	exists   bool
	end      int64
	next     streamlib.Offset
	there    bool // the stream is there
	pending  streamlib.State
	fresh    bool      // the file was not yet looked at in this commit
	replaced bool      // somebody removed or changed the file
	looked   time.Time // the folder's last change when the file was looked at

	mu      sync.Mutex // guards what is published
	file    file       // nil while there is none; set once
	size    int64      // up to here the file is durable and served
	tail    streamlib.Offset
	updated time.Time
	corrupt *streamlib.CorruptError // the end of the file is damaged: no tail
	state   streamlib.State
	stated  bool  // the state has a record; else its life is in the first line
	cut     int64 // where the event at cutFor begins
	cutFor  streamlib.Offset
	unnamed bool // a crash may leave the file that it took the place of

	// The open logs' mu guards these.
	refs   int
	dirty  bool          // has bytes that were not synced
	writes int           // counts what makes it dirty
	place  *list.Element // among the idle ones, nil where it is none

	deleted bool // the stream's life is over; the store's mu guards it
}

func newLog(name string) *log {
	return &log{name: name, quoted: quote(name), path: path(name)}
}

func (l *log) published() (f file, size int64, tail streamlib.Offset) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file, l.size, l.tail
}

func (l *log) publishedState() streamlib.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// openLog opens the stream's file, if it has one, reads its last line, and compares that with what is known of its
// damage.
func (s *Store) openLog(l *log) error {
	if err := l.open(s); err != nil {
		return err
	}
	if s.version.Load() > 1 && l.file == nil {
		if r, err := s.stateOf(l.stem()); err != nil && !isCorrupt(err) {
			return err
		} else if r != nil || err != nil {
			_ = s.found(l, l.lost())
		}
	}
	if l.corrupt != nil {
		_ = s.found(l, l.corrupt)
	} else if m := s.marked(l); m != nil && m.Offset >= l.size {
		l.corrupt = m.corrupt() // what was lost stood at the end
	}
	return nil
}

// open opens the stream's file, if it has one, and reads its last line.
func (l *log) open(s *Store) (err error) {
	defer func() {
		if err != nil && l.file != nil {
			l.file.close()
			l.file = nil
		}
	}()
	if l.file, l.readOnly, err = openAny(s.fs, l.path); errors.Is(err, fs.ErrNotExist) {
		var moved bool
		if moved, err = s.adopt(l); moved {
			l.file, err = s.fs.open(l.path, os.O_RDWR)
		}
	}
	if err != nil || l.file == nil {
		return err
	}
	if err = s.loadState(l); err != nil {
		return err
	}
	err = l.readTail()
	if corrupt, ok := errors.AsType[*streamlib.CorruptError](err); ok {
		l.corrupt = corrupt
		return nil
	}
	return err
}

// adopt gives a file of lines that somebody moved to the stream's raw name its own name back, and tells whether there
// was one. Without that the stream would begin again at offset 0.
func (s *Store) adopt(l *log) (ok bool, err error) {
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
	// Where a file system takes upper for lower case, what was opened may be the file of another stream.
	names, err := s.fs.names(streamsDir)
	if err != nil || !slices.Contains(names, strings.TrimPrefix(raw, streamsDir+"/")) {
		return false, errors.Join(err, f.close())
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

// openAny opens for reading alone what must not be written.
func openAny(fsys fsys, path string) (f file, readOnly bool, err error) {
	f, err = fsys.open(path, os.O_RDWR)
	if isReadOnly(err) {
		f, err = fsys.open(path, os.O_RDONLY)
		return f, true, err
	}
	return f, false, err
}

// readTail sets size and tail from the file's end.
func (l *log) readTail() error {
	size, err := l.file.size()
	if err != nil {
		return err
	}
	l.size = size
	if size == 0 {
		l.tail, l.updated = l.state.First, l.state.UpdatedAt
		return nil
	}
	line, err := lastLine(l.file, size)
	if err != nil {
		return err
	}
	e, err := parseLine(line, l.quoted)
	if err == errControl {
		err = unreplayedReason(line)
	}
	if err != nil {
		return l.damaged(size-int64(len(line)), err)
	}
	if l.tail, l.updated = e.Offset+1, e.CreatedAt(); l.tail < l.state.First {
		return l.damaged(size, fmt.Errorf("it ends before offset %d, the first that is kept", l.state.First))
	}
	return nil
}

func (l *log) damaged(at int64, reason error) error {
	return &streamlib.CorruptError{File: l.path, Offset: at, Reason: reason.Error()}
}

// firstSum is the checksum of the file's first line, "none" where there is none, "" where it cannot be read.
func (l *log) firstSum() string {
	f, size, _ := l.published()
	if f == nil {
		return "none"
	}
	l.mu.Lock()
	unnamed := l.unnamed
	l.mu.Unlock()
	if unnamed {
		return ""
	}
	s := scanner{f: f, size: size, chunk: 4 << 10}
	line, err := s.next()
	switch err {
	case nil:
		return lineSum(line)
	case io.EOF:
		return "none"
	}
	return ""
}

// lastLine returns what stands behind the last line's end but one.
func lastLine(f io.ReaderAt, size int64) ([]byte, error) {
	for n := int64(4 << 10); ; n *= 8 {
		n = min(n, size)
		b := make([]byte, n)
		if _, err := f.ReadAt(b, size-n); err != nil {
			return nil, err
		}
		if i := bytes.LastIndexByte(b[:n-1], '\n'); i >= 0 || n == size || n > maxLine {
			return b[i+1:], nil
		}
	}
}

// growSlowly is from where on what is read at once is doubled for a line that is longer: it is kept with the events, and
// many readers may be at long ones.
const growSlowly = 128 << 10

// scanner goes along the lines of a file from pos, where one begins, to size. The lines it returned stay as they are.
type scanner struct {
	f     io.ReaderAt
	pos   int64
	size  int64
	chunk int64  // what to read at once
	ahead []byte // what was read and not returned
	n     int    // how long the next line in ahead is, 0 where that is not known
}

// buffered tells whether the next line is in memory.
func (s *scanner) buffered() bool {
	if s.n == 0 {
		s.n = bytes.IndexByte(s.ahead, '\n') + 1
	}
	return s.n > 0
}

// next returns the next line. A line without its end is the file's last, or longer than a line can be. At size it is
// io.EOF.
func (s *scanner) next() ([]byte, error) {
	for n := s.chunk; !s.buffered(); {
		have := int64(len(s.ahead))
		n = min(max(n, 2*have), s.size-s.pos)
		if n == 0 {
			return nil, io.EOF
		}
		if n == have || have > maxLine {
			s.n = len(s.ahead)
			break
		}
		b := make([]byte, n)
		copy(b, s.ahead)
		read, err := s.f.ReadAt(b[have:], s.pos+have)
		if err == io.EOF { // somebody cut the file: it ends where it does
			s.size = s.pos + have + int64(read)
		} else if err != nil {
			return nil, err
		}
		s.ahead = b[:have+int64(read)]
		if n *= 2; n < growSlowly {
			n *= 4
		}
	}
	line := s.ahead[:s.n:s.n]
	s.ahead, s.pos, s.n = s.ahead[s.n:], s.pos+int64(s.n), 0
	return line, nil
}

// seek returns where the line of offset o begins and ends, searching the file below size. It is right when all lines
// up to that one are whole, whatever stands behind: what is no line is taken for being behind. It is no sort.Search,
// which would begin in the middle: most often what is looked for is near the end, and a line that was found tells
// where the next one begins.
func (l *log) seek(o streamlib.Offset, size int64) (begin, end int64, err error) {
	const near = 64 << 10
	low, high := int64(0), size // the line begins in [low, high)
	for mid := size - near; mid > low && (high-low > near || mid == size-near); mid = low + (high-low)/2 {
		first, line, err := lineFrom(l.file, mid, high, size)
		if err != nil {
			return 0, 0, err
		}
		if e, err := parseLine(line, l.quoted); err == nil && e.Offset <= o {
			low = first
		} else {
			high = mid
		}
	}
	for s := (scanner{f: l.file, pos: low, size: size, chunk: near}); ; {
		begin := s.pos
		line, err := s.next()
		if err == io.EOF {
			return 0, 0, l.damaged(s.size, fmt.Errorf("the file ends before offset %d", o))
		} else if err != nil {
			return 0, 0, err
		}
		e, err := parseLine(line, l.quoted)
		if err == nil && e.Offset > o {
			err = fmt.Errorf("offset %d where %d or one before it should be", e.Offset, o)
		}
		if err != nil {
			return 0, 0, l.damaged(begin, err)
		}
		if e.Offset == o {
			return begin, s.pos, nil
		}
	}
}

// lineFrom returns the first line that begins in [from, high), where from > 0; none where there is none.
func lineFrom(f io.ReaderAt, from, high, size int64) (begin int64, line []byte, err error) {
	s := scanner{f: f, pos: from - 1, size: size, chunk: 4 << 10}
	if _, err = s.next(); err == io.EOF {
		return s.pos, nil, nil
	} else if err != nil || s.pos >= high {
		return s.pos, nil, err
	}
	begin = s.pos
	if line, err = s.next(); err == io.EOF {
		err = nil
	}
	return begin, line, err
}

// read yields the events in [from, to) that are published and kept.
func (l *log) read(from, to streamlib.Offset, yield func([]streamlib.Event, error) bool) {
	f, size, tail := l.published()
	switch first := l.publishedState().First; {
	case from < 0:
		from = first
	case from < first:
		yield(nil, &streamlib.GoneError{Stream: l.name, After: from - 1, Tail: tail, First: first})
		return
	}
	if l.corrupt == nil {
		to = min(to, tail)
	}
	if from >= to || f == nil && l.corrupt == nil {
		return
	} else if f == nil {
		yield(nil, l.corrupt)
		return
	}
	s := scanner{f: f, size: size, chunk: 16 << 10}
	if from > 0 {
		var err error
		if s.pos, _, err = l.seek(from, size); err != nil {
			yield(nil, err)
			return
		}
	}
	var events []streamlib.Event
	for from < to {
		if !s.buffered() {
			if len(events) > 0 {
				if !yield(events, nil) {
					return
				}
				events = make([]streamlib.Event, 0, len(events)+len(events)/8+1)
				s.chunk = 256 << 10
			}
		}
		begin := s.pos
		line, err := s.next()
		var e streamlib.Event
		if err == nil {
			if e, err = parseLine(line, l.quoted); err == nil && e.Offset != from {
				err = fmt.Errorf("offset %d where %d should be", e.Offset, from)
			}
			if err != nil {
				err = l.damaged(begin, err)
			}
		} else if err == io.EOF {
			err = l.damaged(begin, fmt.Errorf("the file ends before offset %d", from))
			if l.corrupt != nil {
				err = l.corrupt
			}
		}
		if err != nil {
			if len(events) == 0 || yield(events, nil) {
				yield(nil, err)
			}
			return
		}
		events = append(events, e)
		from++
	}
	if len(events) > 0 {
		yield(events, nil)
	}
}
