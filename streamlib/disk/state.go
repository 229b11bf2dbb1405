package disk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// stateRecord is a stream's state as a journal has it, and a file in DIR/state.
type stateRecord struct {
	Stream    string `json:"stream"`
	Life      int64  `json:"life,omitempty"`
	First     string `json:"first,omitempty"` // an offset; "" is 0
	Closed    bool   `json:"closed,omitempty"`
	UpdatedAt string `json:"updatedAt,omitempty"` // where no event is kept
	// Keys are the core's: see streamlib.State.
	Keys json.RawMessage `json:"keys,omitempty"`
	// Note and Held are the core's, too.
	Note json.RawMessage `json:"note,omitempty"`
	Held bool            `json:"held,omitempty"`
	// Made says that the change makes the stream's file: who replays it does not miss it.
	Made bool `json:"made,omitempty"`
}

// maxState is how long a state may be as a line: a name, keys and a note with every byte escaped, and the rest.
const maxState = 256 << 10

const timeLayout = "2006-01-02T15:04:05.000Z"

func newStateRecord(name string, state streamlib.State, made, empty bool) *stateRecord {
	r := &stateRecord{Stream: name, Life: state.Life, Closed: state.Closed, Keys: json.RawMessage(state.Keys), Made: made,
		Note: json.RawMessage(state.Note), Held: state.Held}
	if state.First > 0 {
		r.First = state.First.String()
	}
	if empty && !state.UpdatedAt.IsZero() {
		r.UpdatedAt = state.UpdatedAt.UTC().Format(timeLayout)
	}
	return r
}

func (r *stateRecord) line() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // the keys are kept as they are
	if err := e.Encode(r); err != nil {
		panic(err) // our own type, and keys that were looked at
	}
	return appendLine(nil, bytes.TrimSuffix(b.Bytes(), []byte("}\n")))
}

// parseState reads what line returned, less its seal.
func parseState(record []byte) (*stateRecord, error) {
	r := &stateRecord{}
	if err := json.Unmarshal(append(record, '}'), r); err != nil || r.Stream == "" {
		return nil, errControl
	}
	_, err := r.state()
	return r, err
}

func (r *stateRecord) state() (state streamlib.State, err error) {
	state = streamlib.State{Life: r.Life, Closed: r.Closed, Keys: string(r.Keys), Note: string(r.Note), Held: r.Held}
	if r.First != "" {
		state.First, err = streamlib.ParseOffset(r.First)
	}
	if r.UpdatedAt != "" && err == nil {
		state.UpdatedAt, err = time.Parse(timeLayout, r.UpdatedAt)
	}
	if err == nil && state.First < 0 {
		err = errControl
	}
	return state, err
}

func statePath(stem string) string { return stateDir + "/" + stem + suffix }

// readState returns the state that the stream's own file has, nil where there is none.
func (s *Store) readState(stem string) (*stateRecord, error) {
	if s.version.Load() < 2 {
		return nil, nil
	}
	path := statePath(stem)
	b, err := readStart(s.fs, path, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	record, err := unseal(b)
	if err == nil {
		var r *stateRecord
		if r, err = parseState(record); err == nil {
			return r, nil
		}
	}
	return nil, &streamlib.CorruptError{File: path, Reason: err.Error()}
}

// stateOf returns the stream's state as it is published: from memory where its file may be older, nil where it has
// none.
func (s *Store) stateOf(stem string) (*stateRecord, error) {
	s.mu.Lock()
	r := s.states[stem]
	s.mu.Unlock()
	if r != nil {
		return r, nil
	}
	return s.readState(stem)
}

// writeStates gives the streams' states their files, durably. What is not published any more is passed over.
func (s *Store) writeStates(stems []string) error {
	s.mu.Lock()
	stems = slices.DeleteFunc(stems, func(stem string) bool { return s.states[stem] == nil })
	s.mu.Unlock()
	if len(stems) == 0 {
		return nil
	}
	if err := s.fs.mkdir(stateDir); err != nil {
		return err
	}
	slices.Sort(stems)
	written := map[string]*stateRecord{}
	for _, stem := range stems {
		s.mu.Lock()
		r := s.states[stem]
		s.mu.Unlock()
		if r == nil {
			continue
		}
		if err := s.writeState(r, statePath(stem)); err != nil {
			return fmt.Errorf("%s: %w", statePath(stem), cause(err))
		}
		written[stem] = r
	}
	if err := s.sync(stateDir, func() error { return s.fs.syncDir(stateDir) }); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for stem, r := range written {
		if s.states[stem] == r {
			delete(s.states, stem)
		}
	}
	return nil
}

// writeState is writeWhole, that of a stream that is deleted meanwhile gone again.
func (s *Store) writeState(r *stateRecord, path string) error {
	f, err := s.fs.open(newState, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	kept := *r
	kept.Made = false // which the journal is done with
	if _, err = f.WriteAt(kept.line(), 0); err == nil && !s.options.NoSync {
		err = s.sync(newState, f.sync)
	}
	if err = errors.Join(err, f.close()); err != nil {
		return err
	}
	s.renaming.Lock() // or a deletion's removal could come between
	defer s.renaming.Unlock()
	s.mu.Lock()
	gone := s.states[stem(r.Stream)] == nil
	s.mu.Unlock()
	if gone {
		return nil
	}
	return s.fs.rename(newState, path)
}

// removeState removes the state of a stream that is deleted.
func (s *Store) removeState(name string) error {
	if s.version.Load() < 2 {
		return nil
	}
	s.renaming.Lock()
	defer s.renaming.Unlock()
	s.mu.Lock()
	delete(s.states, stem(name))
	s.mu.Unlock()
	if err := s.fs.remove(statePath(stem(name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// stateName returns the name of the stream whose state has the stem, "" where there is none.
func (s *Store) stateName(stem string) string {
	if r, err := s.stateOf(stem); err == nil && r != nil {
		return r.Stream
	}
	return ""
}

// A life that is not 0 stands in the line of the stream's event 0, behind all that is the event's.
const (
	beforeLife = `,"life":"`
	lifeLen    = len(beforeLife) + 16 + len(`"`)
)

var zeroOffset = []byte(`{"offset":"0000000000000000"`)

func appendLife(record []byte, life int64) []byte {
	return fmt.Appendf(slices.Clip(record), beforeLife+`%016d"`, life)
}

// withoutLife parts an event's record from the life that stands behind it. No quote within a string is bare, so nobody
// can make data or a key that ends like one.
func withoutLife(record []byte) (event []byte, life int64) {
	n := len(record) - lifeLen
	if n < len(zeroOffset) || string(record[:len(zeroOffset)]) != string(zeroOffset) ||
		string(record[n:n+len(beforeLife)]) != beforeLife || record[len(record)-1] != '"' {
		return record, 0
	}
	for _, c := range record[n+len(beforeLife) : len(record)-1] {
		if c < '0' || c > '9' {
			return record, 0
		}
		life = 10*life + int64(c-'0')
	}
	return record[:n:n], life
}

// parseRecord returns the event of a record that a line had.
func parseRecord(record []byte) (streamlib.Event, error) {
	record, _ = withoutLife(record)
	return streamlib.ParseRecord(record)
}

// loadState sets the log's state from what is known of it. One that is damaged is the stream's damage.
func (s *Store) loadState(l *log) error {
	r, err := s.stateOf(l.stem())
	switch {
	case isCorrupt(err):
		l.stated = true
		return s.begins(l, s.found(l, err))
	case err != nil || r == nil:
		return err
	}
	l.stated = true
	l.state, _ = r.state()
	return s.begins(l, nil)
}

// orphans marks the streams that have a state and no file, of those that are to have one.
func (s *Store) orphans(files []string, plan map[string]*replayed) error {
	if s.version.Load() < 2 {
		return nil
	}
	states, err := s.fs.names(stateDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, file := range states {
		base, ok := strings.CutSuffix(file, suffix)
		if _, there := slices.BinarySearch(files, file); !ok || there {
			continue
		}
		l := newLog(s.stateName(base))
		if r := plan[l.name]; l.name == "" {
			l.path = streamsDir + "/" + file
		} else if r != nil && (len(r.former) > 0 || len(r.pieces) > 0 && r.first == 0) {
			continue // the journal removes the one, or makes the other
		}
		_ = s.found(l, l.lost())
	}
	return nil
}

func (l *log) lost() error {
	return l.damaged(0, errors.New("somebody removed it: what it had beside its events is there"))
}

// begins compares the state with where the stream's file begins. What is known to be lost of it is not missed again.
func (s *Store) begins(l *log, damage error) error {
	base, err := l.base()
	switch {
	case err != nil || base == l.state.First || base == unknown:
		return err
	case base < l.state.First && damage == nil:
		s.mu.Lock()
		s.trimmed[l.name] = true
		s.mu.Unlock()
	case base > l.state.First:
		if damage == nil {
			_ = s.found(l, l.lostBeginning(base))
		}
		l.state.First = base
	}
	return nil
}

func (l *log) lostBeginning(base streamlib.Offset) error {
	return l.damaged(0, fmt.Errorf("it begins at offset %d, and %d is the first that is kept", base, l.state.First))
}

const unknown streamlib.Offset = -1

// base is the offset that the file's first line has, unknown where it has none that is whole.
func (l *log) base() (streamlib.Offset, error) {
	size, err := l.file.size()
	if err != nil {
		return 0, err
	}
	line, err := (&scanner{f: l.file, size: size, chunk: 4 << 10}).next()
	if err == io.EOF {
		return unknown, nil
	} else if err != nil {
		return 0, err
	}
	e, err := parseLine(line, l.quoted)
	if err != nil {
		return unknown, nil // whoever reads it is told
	}
	return e.Offset, nil
}

// formatOf is the version of the folder that has the state: the second one has states, and the third one notes.
func (r *stateRecord) formatOf() int {
	if r != nil && (len(r.Note) > 0 || r.Held) {
		return 3
	}
	return 2
}

// upgrade gives the folder at least the version.
func (s *Store) upgrade(version int) error {
	if int(s.version.Load()) >= version {
		return nil
	}
	err := s.fs.mkdir(stateDir)
	if err == nil {
		err = writeWhole(s.fs, formatFile, fmt.Appendf(nil, "durable-streams %d\n", version))
	}
	if err == nil {
		err = s.sync(".", func() error { return s.fs.syncDir(".") })
	}
	if err == nil {
		s.version.Store(int32(version))
	}
	return err
}

// accepts tells whether the change of the state can be made with the request's events, and sets what follows.
func (l *log) accepts(r *request) error {
	next := l.next
	r.record, r.life, r.made = nil, 0, false
	if r.state != nil && !l.there && (len(r.events) == 0 || r.events[0].Offset == r.state.First) {
		next = r.state.First
	}
	if len(r.events) > 0 && r.events[0].Offset != next {
		return &streamlib.ConflictError{Stream: r.name, Tail: l.next, Want: r.events[0].Offset}
	}
	r.tail = next + streamlib.Offset(len(r.events))
	if r.state == nil {
		return nil
	}
	if r.state.First < l.pending.First || r.state.First > r.tail {
		return fmt.Errorf("%w change of %q: the first event would be %d, there are those from %d to %d",
			streamlib.ErrInvalid, r.name, r.state.First, l.pending.First, r.tail)
	}
	now, was := *r.state, l.pending
	now.UpdatedAt, was.UpdatedAt = time.Time{}, time.Time{}
	onlyLife := now == streamlib.State{Life: now.Life}
	switch {
	case l.there && now == was:
	case onlyLife && !l.stated && len(r.events) > 0 && r.events[0].Offset == 0:
		r.life = now.Life
	default:
		r.record = newStateRecord(r.name, *r.state, !l.there, r.state.First == r.tail)
	}
	return nil
}

// start returns the first event that is kept, and where in the file it begins, or would.
func (l *log) start() (first streamlib.Offset, begin int64, err error) {
	l.mu.Lock()
	first = l.state.First
	tail, size, cut, cutFor, corrupt := l.tail, l.size, l.cut, l.cutFor, l.corrupt
	l.mu.Unlock()
	switch {
	case first == 0, l.file == nil:
		return first, 0, nil
	case first == cutFor:
		return first, cut, nil
	case first == tail && corrupt == nil:
		return first, size, nil
	}
	if begin, _, err = l.seek(first, size); err != nil {
		return first, 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state.First == first {
		l.cut, l.cutFor = begin, first
	}
	return first, begin, nil
}

// last returns the offset from which on the events take at most size bytes.
func (l *log) last(size int64) (streamlib.Offset, error) {
	_, end, tail := l.published()
	first, begin, err := l.start()
	if err != nil || end-begin <= size {
		return first, err
	}
	from := end - max(size, 0)
	if from == end {
		return tail, nil
	}
	_, line, err := lineFrom(l.file, from, end, end)
	if err != nil || line == nil {
		return tail, err
	}
	e, err := parseLine(line, l.quoted)
	if err != nil {
		return tail, l.damaged(from, err)
	}
	return e.Offset, nil
}
