package disk

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

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
	state  *stateRecord // nil where it was not set

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
	i, _ := slices.BinarySearchFunc(p, at,
		func(p piece, at int64) int { return cmp.Compare(p.from+int64(p.length)-1, at) })
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

// without returns what stands behind the first n bytes.
func (p pieces) without(n int64) (rest pieces) {
	for _, piece := range p {
		if skip := max(0, min(n-piece.from, int64(piece.length))); skip < int64(piece.length) {
			piece.at, piece.length, piece.from = piece.at+skip, piece.length-int(skip), rest.size()
			rest = append(rest, piece)
		}
	}
	return rest
}

// readJournals checks the journals and plans what is to be done for each stream. A journal's first frame says how
// many frames the one before it has; nothing does so for the last, whose end may be torn. Damage is
// *streamlib.CorruptError, together with what was read up to it; with lenient, and in a journal written without
// syncs, it is logged and the journal ends there.
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
		err = j.walk(func(lines []byte, at int64) error {
			if j.sequence == 0 {
				err := j.open(lines, journals[:len(journals)-1])
				if corrupt, ok := errors.AsType[*streamlib.CorruptError](err); ok && lenient &&
					corrupt.File != j.path {
					s.say(corrupt.Error())
					return nil
				}
				return err
			}
			return j.plan(plan, lines, at)
		})
		if corrupt, ok := errors.AsType[*streamlib.CorruptError](err); ok && (lenient || j.rebooted) {
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
		return &streamlib.CorruptError{File: j.path, Offset: int64(headerLen),
			Reason: "its first record: " + err.Error()}
	}
	j.noSync = o.Sync == "none"
	j.rebooted = j.noSync && (o.Boot == "" || o.Boot != bootID())
	if n := len(before); n > 0 {
		if p := before[n-1]; !p.rebooted && (p.number != o.Previous || p.sequence != o.Frames) {
			return &streamlib.CorruptError{File: p.path, Offset: p.end,
				Reason: fmt.Sprintf("it has %d frames, %s says that %s had %d",
					p.sequence, j.path, journalPath(o.Previous), o.Frames)}
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
		} else if e, err := parseRecord(record); err == nil {
			if last = plan[e.Stream()]; last == nil {
				last = &replayed{name: e.Stream(), life: life{first: -1}}
				plan[last.name] = last
			}
			if name = quote(last.name); last.first < 0 {
				last.first = e.Offset
			}
			last.add(j, at, n)
			_, life := withoutLife(record)
			j.deletions = max(j.deletions, life)
		} else {
			last = nil
			var d deletion
			state, errState := parseState(record)
			if errState != nil {
				if err := json.Unmarshal(append(record, '}'), &d); err != nil || d.Delete == "" {
					return damaged(errControl)
				}
			} else {
				d.Delete = state.Stream
			}
			r := plan[d.Delete]
			if r == nil {
				r = &replayed{name: d.Delete, life: life{first: -1}}
				plan[d.Delete] = r
			}
			if state != nil {
				j.deletions = max(j.deletions, state.Life)
				state.Made = state.Made || r.state != nil && r.state.Made
				r.state = state
			} else {
				j.deletions = max(j.deletions, d.Deletions)
				r.deleted, r.sum = true, d.First
				r.former, r.life = append(r.former, r.life), life{first: -1}
			}
		}
		lines, at = lines[n:], at+int64(n)
	}
	return nil
}

// beginning returns where among the life's lines the stream's file begins, which has one of them at begin: 0, or further
// on where those before it were dropped.
func (r *life) beginning(begin int64, line []byte) (at int64, ok bool) {
	for s := (scanner{f: r.pieces, size: r.pieces.size(), chunk: 64 << 10}); ; {
		at := s.pos - begin
		there, err := s.next()
		if err != nil {
			return 0, false
		} else if !bytes.Equal(there, line) {
			continue
		}
		end := []byte{'\n'}
		if at > 0 {
			_, err = r.pieces.ReadAt(end, at-1)
		}
		return at, at >= 0 && err == nil && end[0] == '\n'
	}
}

// align drops the lines that the stream's file does not begin with, as its first whole line tells. Without one they can
// all stand there.
func (r *life) align(l *log) error {
	begin, line, err := l.firstWhole()
	if line == nil || err != nil {
		return err
	}
	at, ok := r.beginning(begin, line)
	if !ok {
		return nil // whose that line is will be found out
	}
	first, err := (&scanner{f: r.pieces, pos: at, size: r.pieces.size(), chunk: 4 << 10}).next()
	if err != nil {
		return err
	}
	e, err := parseLine(first, l.quoted)
	if err != nil {
		return l.damaged(0, fmt.Errorf("what the journal has for it: %w", err))
	}
	r.pieces, r.first = r.pieces.without(at), e.Offset
	return nil
}

// skip drops the lines of the events before o, of which the stream's file does not have any more.
func (r *life) skip(l *log, o streamlib.Offset) error {
	for s := (scanner{f: r.pieces, size: r.pieces.size(), chunk: 64 << 10}); ; {
		begin := s.pos
		line, err := s.next()
		if err == io.EOF {
			r.pieces, r.first = nil, o
			return nil
		} else if err != nil {
			return err
		}
		e, err := parseLine(line, l.quoted)
		if err != nil {
			return l.damaged(0, fmt.Errorf("what the journal has for it: %w", err))
		}
		if e.Offset >= o {
			r.pieces, r.first = r.pieces.without(begin), e.Offset
			return nil
		}
	}
}

func (r *replayed) add(j *journal, at int64, length int) {
	if n := len(r.pieces); n > 0 && r.pieces[n-1].path == j.path &&
		r.pieces[n-1].at+int64(r.pieces[n-1].length) == at {
		r.pieces[n-1].length += length
		return
	}
	r.pieces = append(r.pieces, piece{j.file, j.path, at, length, r.pieces.size()})
}
