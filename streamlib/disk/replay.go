package disk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// replayed is what the journals say of one stream since it was last deleted.
type replayed struct {
	name    string
	deleted bool
	first   streamlib.Offset
	pieces  []piece
}

// piece is a run of one stream's lines in a journal.
type piece struct {
	journal *journal
	at      int64
	length  int
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
	if err != nil || len(journals) == 0 {
		return err
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
	if lost {
		if err := s.repairAll(nil); err != nil {
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
			return journals, plan, err
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
				last = &replayed{name: e.Stream(), first: -1}
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
			plan[d.Delete] = &replayed{name: d.Delete, deleted: true, first: -1}
			last = nil
		}
		lines, at = lines[n:], at+int64(n)
	}
	return nil
}

func (r *replayed) add(j *journal, at int64, length int) {
	if n := len(r.pieces); n > 0 && r.pieces[n-1].journal == j && r.pieces[n-1].at+int64(r.pieces[n-1].length) == at {
		r.pieces[n-1].length += length
		return
	}
	r.pieces = append(r.pieces, piece{j, at, length})
}

// keepTorn copies what stands behind a journal's last frame. It was never acknowledged.
func (s *Store) keepTorn(j *journal) error {
	if j.clean {
		return nil
	}
	kept := fmt.Sprintf("%s.torn-%d", j.path, j.end)
	n, err := s.keep(j.file, j.end, j.allocated, kept)
	if err != nil || n == 0 {
		return err
	}
	s.options.Log.Warn("the journal ends in a frame that was not finished, and so not acknowledged", "file", j.path, "offset", j.end, "bytes", n, "kept", kept)
	return nil
}

// copyTail writes what f has in [from, to), less the zeros at its end, to a file of its own, durably.
func (s *Store) copyTail(f io.ReaderAt, from, to int64, path string) (n int64, err error) {
	b := make([]byte, 64<<10)
	for pos := from; pos < to; pos += int64(len(b)) { // where do the zeros at the end begin?
		b = b[:min(int64(cap(b)), to-pos)]
		if _, err := f.ReadAt(b, pos); err != nil {
			return 0, err
		}
		if part := bytes.TrimRight(b, "\x00"); len(part) > 0 {
			n = pos - from + int64(len(part))
		}
	}
	if n == 0 {
		return 0, nil
	}
	out, err := s.fs.open(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.NewOffsetWriter(out, 0), io.NewSectionReader(f, from, n))
	return n, errors.Join(err, out.sync(), out.close(), s.fs.syncDir(path[:strings.IndexByte(path, '/')]))
}

// keep is copyTail for what was not acknowledged: that there is no room for it is no reason not to start.
func (s *Store) keep(f io.ReaderAt, from, to int64, path string) (int64, error) {
	n, err := s.copyTail(f, from, to, path)
	if classify(err) != streamlib.ErrFull {
		return n, err
	}
	s.options.Log.Error("what was not acknowledged is cut off, and there is no room to keep it", "bytes", n, "kept", path, "error", err)
	if err := s.fs.remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	return 0, nil
}

// replay makes the stream's file what the journals say, durably. Doing it twice is harmless.
func (s *Store) replay(r *replayed) error {
	l := newLog(r.name)
	if r.deleted {
		if err := removeStream(s.fs, r.name); err != nil {
			return err
		}
	}
	if len(r.pieces) == 0 {
		return nil
	}
	if err := s.convertAgain(l); err != nil {
		return err
	}
	f, err := s.fs.open(l.path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	defer f.close()
	l.file = f
	size, err := f.size()
	if err != nil {
		return err
	}
	var pos int64
	if r.first > 0 {
		if _, pos, err = l.seek(r.first-1, size); err != nil {
			if _, corrupt := errors.AsType[*streamlib.CorruptError](err); corrupt {
				return s.setAside(l, r, err)
			}
			return err
		}
	}
	next := r.first
	for _, p := range r.pieces {
		lines := make([]byte, p.length)
		if _, err := p.journal.file.ReadAt(lines, p.at); err != nil {
			return err
		}
		if next, err = l.continues(lines, next); err != nil {
			return s.setAside(l, r, err)
		}
		if _, err := f.WriteAt(lines, pos); err != nil {
			return err
		}
		pos += int64(len(lines))
	}
	if err := s.cut(l, pos, size, next); err != nil {
		return err
	}
	return f.sync()
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
	if err != nil || !older {
		return err
	}
	err = s.convert(from, l.path, l.name)
	if _, corrupt := errors.AsType[*streamlib.CorruptError](err); corrupt {
		return nil // it is told when the journal finds nothing to continue
	}
	return err
}

// continues checks that the lines' offsets go on from next, and returns what follows them.
func (l *log) continues(lines []byte, next streamlib.Offset) (streamlib.Offset, error) {
	for len(lines) > 0 {
		n := bytes.IndexByte(lines, '\n') + 1
		e, err := parseLine(lines[:n], l.quoted)
		if err != nil {
			return next, err
		}
		if e.Offset != next {
			return next, fmt.Errorf("the journal has offset %d where %d should be", e.Offset, next)
		}
		next, lines = next+1, lines[n:]
	}
	return next, nil
}

// cut ends the file at pos. Whole lines that go on from there stay: since only what a journal has durably is ever written to
// a stream's file, they were durable, and the journal lost them, or was copied before them. What else is there is kept beside.
func (s *Store) cut(l *log, pos, size int64, next streamlib.Offset) error {
	if pos >= size {
		return nil
	}
	from := next
	for lines := (scanner{f: l.file, pos: pos, size: size, chunk: 64 << 10}); ; pos, next = lines.pos, next+1 {
		line, err := lines.next()
		if err != nil && err != io.EOF {
			return err
		}
		if e, bad := parseLine(line, l.quoted); err != nil || bad != nil || e.Offset != next {
			break
		}
	}
	if next > from {
		s.options.Log.Warn("events that the journal does not have were kept", "stream", l.name, "from", from.String(), "to", next.String())
	}
	if pos == size {
		return nil
	}
	kept := fmt.Sprintf("%s/%s.torn-%d", streamsDir, stem(l.name), pos)
	n, err := s.keep(l.file, pos, size, kept)
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
	kept := fmt.Sprintf("%s/%s.unreplayed-%d", streamsDir, stem(l.name), r.first)
	out, err := s.fs.open(kept, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	w := io.NewOffsetWriter(out, 0)
	for _, p := range r.pieces {
		if _, err = io.Copy(w, io.NewSectionReader(p.journal.file, p.at, int64(p.length))); err != nil {
			break
		}
	}
	if err := errors.Join(err, out.sync(), out.close()); err != nil {
		return err
	}
	record, err := json.Marshal(unreplayed{kept, reason.Error()})
	if err != nil {
		return err
	}
	size, err := l.file.size()
	if err != nil {
		return err
	}
	var mark []byte
	if size > 0 {
		if line, err := lastLine(l.file, size); err != nil {
			return err
		} else if line[len(line)-1] != '\n' {
			mark = append(mark, '\n')
		}
	}
	if _, err := l.file.WriteAt(appendLine(mark, record[:len(record)-1]), size); err != nil {
		return err
	}
	s.options.Log.Error("a stream is damaged: what the journal has for it could not be added and was kept", "stream", l.name, "kept", kept, "error", reason)
	return errors.Join(l.file.sync(), s.fs.syncDir(streamsDir))
}
