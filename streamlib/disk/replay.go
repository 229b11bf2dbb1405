package disk

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// replayed is what the journals say of one stream.
type replayed struct {
	name   string
	former []life // that were deleted, the oldest first
	life
}

// life is what the journals have of a stream between two deletions.
type life struct {
	first  streamlib.Offset // of pieces, -1 where there are none
	pieces pieces

	deleted bool
	sum     string // of the first line that was deleted: see deletion
}

// piece is a run of one stream's lines in a journal.
type piece struct {
	in     io.ReaderAt
	path   string
	at     int64
	length int
	from   int64 // where it is in all of them
}

// pieces read like a file.
type pieces []piece

func (p pieces) size() int64 {
	if len(p) == 0 {
		return 0
	}
	last := p[len(p)-1]
	return last.from + int64(last.length)
}

func (p pieces) ReadAt(b []byte, at int64) (n int, err error) {
	i, _ := slices.BinarySearchFunc(p, at, func(p piece, at int64) int { return cmp.Compare(p.from+int64(p.length)-1, at) })
	for ; n < len(b); i++ {
		if i == len(p) {
			return n, io.EOF
		}
		skip := at + int64(n) - p[i].from
		k := min(int64(len(b)-n), int64(p[i].length)-skip)
		if _, err := p[i].in.ReadAt(b[n:n+int(k)], p[i].at+skip); err != nil {
			return n, err
		}
		n += int(k)
	}
	return n, nil
}

// recover replays the journals, oldest first, and removes them. Where one was written without syncs, and the machine was
// started again since, any stream may be damaged, and is repaired.
func (s *Store) recover(repair bool) error {
	// What a former start had removed must not come back: a journal beside what this one does, a stream that it showed as deleted.
	for _, dir := range [...]string{journalDir, streamsDir} {
		if err := s.fs.syncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	journals, plan, err := s.readJournals(repair)
	defer func() {
		for _, j := range journals {
			j.file.close()
		}
	}()
	if err != nil {
		return err
	} else if len(journals) == 0 {
		return s.rejoinAll()
	}
	start := time.Now()
	noSync, lost := false, false
	for _, j := range journals {
		if err := s.keepTorn(j); err != nil {
			return err
		}
		noSync, lost = noSync || j.noSync, lost || j.lost
	}
	// Nothing goes into a stream's file that the journal may lose again.
	if err := journals[len(journals)-1].secure(); err != nil {
		return err
	}
	for i, name := range slices.Sorted(maps.Keys(plan)) {
		if err := s.replay(plan[name]); err != nil {
			return fmt.Errorf("replay %q: %w", name, err)
		}
		if (i+1)%10_000 == 0 {
			s.options.Log.Info("replaying", "streams", i+1, "of", len(plan))
		}
	}
	if err := s.rejoinAll(); err != nil {
		return err
	}
	if lost {
		if err := s.repairAll(nil, false); err != nil {
			return err
		}
	}
	if noSync {
		if err := s.fs.syncAll(); err != nil {
			return err
		}
	}
	if err := s.fs.syncDir(streamsDir); err != nil {
		return err
	}
	s.number = journals[len(journals)-1].number
	for _, j := range journals {
		if err := removeJournal(s.fs, j.path); err != nil {
			return err
		}
	}
	s.options.Log.Info("replayed the journal", "journals", len(journals), "streams", len(plan), "took", time.Since(start))
	return nil
}

// readJournals checks the journals and plans what is to be done for each stream. A journal's first frame says how many frames the
// one before it has; nothing does so for the last, whose end may be torn. Damage is *streamlib.CorruptError, together
// with what was read up to it; with lenient, and in a journal written without syncs, it is logged and the journal ends there.
func (s *Store) readJournals(lenient bool) (journals []*journal, plan map[string]*replayed, err error) {
	files, err := s.fs.names(journalDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	slices.Sort(files)
	plan = map[string]*replayed{}
	for _, file := range files {
		number := journalNumber(file)
		if number == 0 {
			continue
		}
		j := &journal{number: number, path: journalDir + "/" + file}
		if j.file, err = s.fs.open(j.path, os.O_RDWR); err != nil {
			if err = noFile(j.path, err); !lenient || !isCorrupt(err) {
				return journals, plan, err
			}
			kept := j.path + ".no-file"
			if e := s.fs.rename(j.path, kept); e != nil {
				return journals, plan, errors.Join(err, e)
			}
			s.say(fmt.Sprintf("%v; it is %s now", err, kept))
			continue
		}
		journals = append(journals, j)
		err = j.frames(func(lines []byte, at int64) error {
			if j.sequence == 0 {
				err := j.open(lines, journals[:len(journals)-1])
				if corrupt, ok := errors.AsType[*streamlib.CorruptError](err); ok && lenient && corrupt.File != j.path {
					s.say(corrupt.Error())
					return nil
				}
				return err
			}
			return j.plan(plan, lines, at)
		})
		if corrupt, ok := errors.AsType[*streamlib.CorruptError](err); ok && (lenient || j.lost) {
			s.say(fmt.Sprintf("%v; what follows there was given up", corrupt))
			err = nil
		}
		if err != nil {
			return journals, plan, err
		}
	}
	return journals, plan, nil
}

// open reads the journal's first record.
func (j *journal) open(lines []byte, before []*journal) error {
	var o opening
	record, err := unseal(lines)
	if err == nil {
		err = json.Unmarshal(append(record, '}'), &o)
	}
	if err != nil {
		return &streamlib.CorruptError{File: j.path, Offset: int64(headerLen), Reason: "its first record: " + err.Error()}
	}
	j.noSync = o.Sync == "none"
	j.lost = j.noSync && (o.Boot == "" || o.Boot != bootID())
	if n := len(before); n > 0 {
		if p := before[n-1]; !p.lost && (p.number != o.Previous || p.sequence != o.Frames) {
			return &streamlib.CorruptError{File: p.path, Offset: p.end,
				Reason: fmt.Sprintf("it has %d frames, %s says that %s had %d", p.sequence, j.path, journalPath(o.Previous), o.Frames)}
		}
	}
	return nil
}

// plan adds a frame's lines to what is to be done.
func (j *journal) plan(plan map[string]*replayed, lines []byte, at int64) error {
	damaged := func(err error) error {
		return &streamlib.CorruptError{File: j.path, Offset: at, Reason: err.Error()}
	}
	var last *replayed
	var name []byte // quoted, of last
	for len(lines) > 0 {
		n := bytes.IndexByte(lines, '\n') + 1
		if n == 0 {
			return damaged(errUnended)
		}
		record, err := unseal(lines[:n])
		if err != nil {
			return damaged(err)
		}
		if last != nil && len(record) > nameAt && bytes.HasPrefix(record[nameAt:], name) {
			last.add(j, at, n)
		} else if e, err := streamlib.ParseRecord(record); err == nil {
			if last = plan[e.Stream()]; last == nil {
				last = &replayed{name: e.Stream(), life: life{first: -1}}
				plan[last.name] = last
			}
			if name = quote(last.name); last.first < 0 {
				last.first = e.Offset
			}
			last.add(j, at, n)
		} else {
			var d deletion
			if err := json.Unmarshal(append(record, '}'), &d); err != nil || d.Delete == "" {
				return damaged(errControl)
			}
			r := plan[d.Delete]
			if r == nil {
				r = &replayed{name: d.Delete, life: life{first: -1}}
				plan[d.Delete] = r
			}
			r.deleted, r.sum = true, d.First
			r.former, r.life = append(r.former, r.life), life{first: -1}
			last = nil
		}
		lines, at = lines[n:], at+int64(n)
	}
	return nil
}

func (r *replayed) add(j *journal, at int64, length int) {
	if n := len(r.pieces); n > 0 && r.pieces[n-1].path == j.path && r.pieces[n-1].at+int64(r.pieces[n-1].length) == at {
		r.pieces[n-1].length += length
		return
	}
	r.pieces = append(r.pieces, piece{j.file, j.path, at, length, r.pieces.size()})
}

// keepTorn copies what stands behind a journal's last frame. It was never acknowledged.
func (s *Store) keepTorn(j *journal) error {
	if j.clean {
		return nil
	}
	kept, n, err := s.keep(j.file, j.end, j.allocated, fmt.Sprintf("%s.torn-%d", j.path, j.end))
	if err != nil || n == 0 {
		return err
	}
	s.options.Log.Warn("the journal ends in a frame that was not finished, and so not acknowledged", "file", j.path, "offset", j.end, "bytes", n, "kept", kept)
	return nil
}

// keep is keepCopy for what was not acknowledged: that there is no room for it is no reason not to start.
func (s *Store) keep(f io.ReaderAt, from, to int64, path string) (kept string, n int64, err error) {
	kept, n, err = s.keepCopy(f, from, to, path)
	if classify(err) != streamlib.ErrFull {
		return kept, n, err
	}
	s.options.Log.Error("what was not acknowledged is cut off, and there is no room to keep it", "bytes", n, "kept", kept, "error", err)
	return "", 0, nil
}

// replay makes the stream's file what the journals say, durably. Doing it twice is harmless. Where the file is not what they go on from, or
// cannot be read, it stays as it is and what they have is set aside.
func (s *Store) replay(r *replayed) error {
	l := newLog(r.name)
	if len(r.former) > 0 {
		if err := s.replayDeletion(l, r); err != nil {
			return err
		}
	}
	if len(r.pieces) == 0 {
		return nil
	}
	if f, err := s.fs.open(l.path, os.O_RDONLY); err == nil {
		f.close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return s.excuse(l, r, err)
	}
	if err := s.convertAgain(l); err != nil {
		return err
	}
	var err error
	if l.file, err = s.fs.open(l.path, os.O_RDWR|os.O_CREATE); err != nil {
		return s.excuse(l, r, err)
	}
	defer l.file.close()
	if err := s.add(l, &r.life); err != nil {
		return s.excuse(l, r, err)
	}
	return nil
}

// replayDeletion removes what was deleted. A file that begins like the life after it stays. One that is neither that nor, as far as the
// journals can tell, of a life that was deleted, has events that they lost.
func (s *Store) replayDeletion(l *log, r *replayed) error {
	f, err := s.fs.open(l.path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return s.removeAgain(l) // what has the raw name is the older form of what was deleted
	}
	reason := "the journal says that it was deleted, and does not know the events that it had"
	whose := stranger
	if err == nil {
		l.file = f
		whose, err = r.whose(l)
		err = errors.Join(err, f.close())
	}
	switch {
	case classify(err) != nil && !errors.Is(err, fs.ErrPermission):
		return err
	case err != nil:
		reason = "the journal says that it was deleted, and it could not be read: " + err.Error()
	case whose == nobody, whose == former:
		return s.removeAgain(l)
	case whose == current:
		return nil
	}
	kept, err := s.putAside(l.path, l.beside("deleted", 0))
	if err != nil {
		return err
	}
	return s.mark(l, mark{File: l.path, Reason: reason + "; it is now " + kept})
}

// owner is whose events a file begins with.
type owner int

const (
	nobody   owner = iota // it has none
	former                // a life that was deleted
	current               // the life after that
	stranger              // a life that the journals do not know
)

// whose tells whose events the file of a stream that was deleted begins with.
func (r *replayed) whose(l *log) (owner, error) {
	begin, line, err := l.firstWhole()
	if line == nil || err != nil {
		return nobody, err
	}
	is := func(life life) bool {
		if begin == 0 && life.sum == lineSum(line) || life.sum == "" && life.deleted {
			return true
		}
		b := make([]byte, len(line))
		_, err := life.pieces.ReadAt(b, begin)
		return life.first == 0 && err == nil && bytes.Equal(b, line)
	}
	switch {
	case is(r.life):
		return current, nil
	case slices.ContainsFunc(r.former, is):
		return former, nil
	}
	return stranger, nil
}

// removeAgain removes the stream's file, and what was known of its damage.
func (s *Store) removeAgain(l *log) error {
	return errors.Join(removeStream(s.fs, l.name), s.unmark(l))
}

// firstWhole returns the file's first line that is an event of the stream, and where it begins; nil where there is none, and where the file
// has the older form.
func (l *log) firstWhole() (begin int64, line []byte, err error) {
	if older, err := isOlderForm(l.file); err != nil || older {
		return 0, nil, err
	}
	size, err := l.file.size()
	if err != nil {
		return 0, nil, err
	}
	for s := (scanner{f: l.file, size: size, chunk: 4 << 10}); ; {
		begin = s.pos
		line, err := s.next()
		if err == io.EOF {
			return 0, nil, nil
		} else if err != nil {
			return 0, nil, err
		}
		if _, bad := parseLine(line, l.quoted); bad == nil {
			return begin, line, nil
		}
	}
}

// unsettled is an error met while writing to a stream's file, which the journal must write again.
type unsettled struct{ error }

func (u unsettled) Unwrap() error { return u.error }

// excuse sets aside what the journals have of a stream where err is that stream's own trouble, so that the others start. The disk's, such as
// that it is full, keeps the store from starting.
func (s *Store) excuse(l *log, r *replayed, err error) error {
	if _, begun := err.(unsettled); begun || classify(err) != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return s.setAside(l, r, err)
}

// add makes the life's lines the end of the stream's file, durably.
func (s *Store) add(l *log, r *life) error {
	pos, next, err := s.goesOn(l, r)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.NewOffsetWriter(l.file, pos), io.NewSectionReader(r.pieces, 0, r.pieces.size())); err != nil {
		return unsettled{err}
	}
	if err := s.cut(l, pos+r.pieces.size(), next); err != nil {
		return unsettled{err}
	}
	if err := l.file.sync(); err != nil {
		return unsettled{err}
	}
	return nil
}

// goesOn returns where in the stream's file the life's lines belong, and the offset that follows them. Where the file does not have what
// stands before them, or has other events in their place, it is *streamlib.CorruptError, and nothing has changed.
func (s *Store) goesOn(l *log, r *life) (pos int64, next streamlib.Offset, err error) {
	size, err := l.file.size()
	if err != nil {
		return 0, 0, err
	}
	var last time.Time
	if r.first > 0 {
		begin, end, err := l.seek(r.first-1, size)
		if err != nil {
			return 0, 0, err
		}
		line := make([]byte, end-begin)
		if _, err := l.file.ReadAt(line, begin); err != nil {
			return 0, 0, err
		}
		before, err := parseLine(line, l.quoted)
		if err != nil {
			return 0, 0, l.damaged(begin, err)
		}
		pos, last = end, before.CreatedAt()
	}
	next = r.first
	equal := true
	for _, p := range r.pieces {
		lines, there := make([]byte, p.length), make([]byte, max(0, min(int64(p.length), size-pos-p.from)))
		if _, err := p.in.ReadAt(lines, p.at); err != nil {
			return 0, 0, err
		}
		if next, last, err = l.continues(lines, next, last); err != nil {
			return 0, 0, l.damaged(pos+p.from, err)
		}
		if _, err := l.file.ReadAt(there, pos+p.from); err != nil {
			return 0, 0, err
		}
		equal = equal && bytes.Equal(there, lines[:len(there)])
	}
	if equal {
		return pos, next, nil
	}
	for lines := (scanner{f: l.file, pos: pos, size: size, chunk: 64 << 10}); lines.pos < pos+r.pieces.size(); {
		begin := lines.pos
		line, err := lines.next()
		if err == io.EOF {
			break
		} else if err != nil {
			return 0, 0, err
		}
		journals := make([]byte, len(line))
		if n, err := r.pieces.ReadAt(journals, begin-pos); err != nil && err != io.EOF {
			return 0, 0, err
		} else if bytes.Equal(journals[:n], line) {
			continue
		}
		if _, bad := parseLine(line, l.quoted); bad == nil {
			return 0, 0, l.damaged(begin, errors.New("the journal has other events in this place"))
		}
	}
	return pos, next, nil
}

// convertAgain converts the stream's file where that was done before the journal went on with it, and was lost.
func (s *Store) convertAgain(l *log) error {
	from := l.path
	f, err := s.fs.open(from, os.O_RDONLY)
	older := false
	if err == nil {
		older, err = isOlderForm(f)
		err = errors.Join(err, f.close())
	} else if errors.Is(err, fs.ErrNotExist) {
		from, older, err = hasOlder(s.fs, l.name)
	}
	switch {
	case err == nil && older:
		err = s.convert(from, l.path, l.name)
	case err == nil && from != l.path:
		_, err = s.adoptLines(l)
	}
	if _, corrupt := errors.AsType[*streamlib.CorruptError](err); corrupt {
		return nil // it is told when the journal finds nothing to continue
	}
	return err
}

// continues checks that the lines go on from next, and from the time of the event before, and returns what follows them.
func (l *log) continues(lines []byte, next streamlib.Offset, last time.Time) (streamlib.Offset, time.Time, error) {
	for len(lines) > 0 {
		n := bytes.IndexByte(lines, '\n') + 1
		e, err := parseLine(lines[:n], l.quoted)
		if err != nil {
			return next, last, err
		}
		if e.Offset != next {
			return next, last, fmt.Errorf("the journal has offset %d where %d should be", e.Offset, next)
		}
		if e.CreatedAt().Before(last) {
			return next, last, fmt.Errorf("the journal's event %d was created before its predecessor", next)
		}
		next, last, lines = next+1, e.CreatedAt(), lines[n:]
	}
	return next, last, nil
}

// cut ends the file at pos. Whole lines that go on from there stay: since only what a journal has durably is ever written to
// a stream's file, they were durable, and the journal lost them, or was copied before them. What else is there is kept beside; where
// there are whole lines in it, events were lost between.
func (s *Store) cut(l *log, pos int64, next streamlib.Offset) error {
	size, err := l.file.size()
	if err != nil || pos >= size {
		return err
	}
	from, gap := next, false
	for lines := (scanner{f: l.file, pos: pos, size: size, chunk: 64 << 10}); !gap; {
		line, err := lines.next()
		if err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		e, bad := parseLine(line, l.quoted)
		if bad == nil && e.Offset == next && lines.pos-int64(len(line)) == pos {
			pos, next = lines.pos, next+1
		} else {
			gap = bad == nil
		}
	}
	if next > from {
		s.options.Log.Warn("events that the journal does not have were kept", "stream", l.name, "from", from.String(), "to", next.String())
	}
	if pos == size {
		return nil
	}
	beside := l.beside("torn", pos)
	if gap {
		kept, _, err := s.keepCopy(l.file, pos, size, beside)
		if err == nil {
			err = s.mark(l, mark{File: l.path, Offset: pos, Reason: "events are missing before others, which are in " + kept})
		}
		if err != nil {
			return err
		}
		return l.file.truncate(pos)
	}
	kept, n, err := s.keep(l.file, pos, size, beside)
	if err != nil {
		return err
	}
	if n > 0 {
		s.options.Log.Warn("cut off what was not acknowledged", "stream", l.name, "file", l.path, "offset", pos, "bytes", n, "kept", kept)
	}
	return l.file.truncate(pos)
}

// unreplayed is the control record of a stream whose file its journal could not continue.
type unreplayed struct {
	Unreplayed string `json:"unreplayed"` // the file that has the lines
	Reason     string `json:"reason"`
}

// unreplayedReason is what the control record in line says, errControl where it is another.
func unreplayedReason(line []byte) error {
	var u unreplayed
	if record, err := unseal(line); err != nil || json.Unmarshal(append(record, '}'), &u) != nil || u.Unreplayed == "" {
		return errControl
	}
	return fmt.Errorf("what the journal had for it could not be added and is in %s: %s", u.Unreplayed, u.Reason)
}

// setAside keeps the lines that cannot be replayed in a file of their own and marks the stream: it can be read up to the damage
// and not be appended to until somebody has looked.
func (s *Store) setAside(l *log, r *replayed, reason error) error {
	at := int64(0)
	corrupt, damaged := errors.AsType[*streamlib.CorruptError](reason)
	text := reason.Error()
	if damaged {
		at, text = corrupt.Offset, corrupt.Reason
	}
	m := mark{File: l.path, Offset: at, Reason: text, Trouble: !damaged}
	if len(r.pieces) > 0 {
		kept, _, err := s.keepCopy(r.pieces, 0, r.pieces.size(), l.beside("unreplayed", int64(r.first)))
		if err != nil {
			return errors.Join(reason, err)
		}
		m.Unreplayed, m.Reason = kept, fmt.Sprintf("what the journal had for it could not be added and is in %s: %s", kept, text)
	}
	if err := s.mark(l, m); err != nil {
		return errors.Join(reason, err)
	}
	return nil
}

// rejoinAll adds what former starts set aside to the streams whose files could not be read then.
func (s *Store) rejoinAll() error {
	for _, m := range s.marks {
		if !m.Trouble || m.Stream == "" {
			continue
		}
		l := newLog(m.Stream)
		joined, err := s.rejoin(l, m)
		if err != nil {
			s.options.Log.Warn("what the journal had for a stream can still not be added", "stream", m.Stream, "kept", m.Unreplayed, "error", err)
		} else if joined {
			if err := s.unmark(l); err != nil {
				return err
			}
			s.options.Log.Warn("what the journal had for a stream was added", "stream", m.Stream, "kept", m.Unreplayed)
		}
	}
	return nil
}

// rejoin adds what was set aside to the stream that it belongs to, where it goes on there, and tells whether it does.
func (s *Store) rejoin(l *log, m *mark) (joined bool, err error) {
	if m.Unreplayed == "" {
		return false, nil
	}
	kept, err := s.fs.open(m.Unreplayed, os.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer kept.close()
	size, err := kept.size()
	if err != nil {
		return false, err
	}
	line, err := (&scanner{f: kept, size: size, chunk: 4 << 10}).next()
	if err != nil {
		return false, err
	}
	e, err := parseLine(line, l.quoted)
	if err != nil {
		return false, err
	}
	flag := os.O_RDWR
	if e.Offset == 0 {
		flag |= os.O_CREATE
	}
	if l.file, err = s.fs.open(l.path, flag); err != nil {
		return false, err
	}
	defer l.file.close()
	return true, s.add(l, &life{first: e.Offset, pieces: pieces{{in: kept, path: m.Unreplayed, length: int(size)}}})
}
