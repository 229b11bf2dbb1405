package disk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/iterate/durable-streams/streamlib"
)

// unreplayed is the control record of a stream whose file its journal could not continue.
type unreplayed struct {
	Unreplayed string `json:"unreplayed"` // the file that has the lines
	Reason     string `json:"reason"`
}

// unreplayedReason is what the control record in line says, errControl where it is another.
func unreplayedReason(line []byte) error {
	var u unreplayed
	if record, err := unseal(line); err != nil || json.Unmarshal(append(record, '}'), &u) != nil ||
		u.Unreplayed == "" {
		return errControl
	}
	return fmt.Errorf("what the journal had for it could not be added and is in %s: %s", u.Unreplayed, u.Reason)
}

// setAside keeps the lines that cannot be replayed in a file of their own and marks the stream: it can be read up to
// the damage and not be appended to until somebody has looked.
func (s *Store) setAside(l *log, r *replayed, reason error) error {
	at := int64(0)
	corrupt, damaged := errors.AsType[*streamlib.CorruptError](reason)
	text := reason.Error()
	if damaged {
		at, text = corrupt.Offset, corrupt.Reason
	}
	m := mark{File: l.path, Offset: at, Reason: text, Trouble: !damaged, State: r.state}
	if len(r.pieces) > 0 {
		kept, _, err := s.keepCopy(r.pieces, 0, r.pieces.size(), l.beside("unreplayed", int64(r.first)))
		if err != nil {
			return errors.Join(reason, err)
		}
		m.Unreplayed, m.Reason = kept, fmt.Sprintf("what the journal had for it could not be added and is in %s: %s",
			kept, text)
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
			s.options.Log.Warn("what the journal had for a stream can still not be added",
				"stream", m.Stream, "kept", m.Unreplayed, "error", err)
		} else if joined {
			if err := errors.Join(s.writeStates([]string{l.stem()}), s.unmark(l)); err != nil {
				return err
			}
			s.options.Log.Warn("what the journal had for a stream was added", "stream", m.Stream, "kept", m.Unreplayed)
		}
	}
	return nil
}

// rejoin adds what was set aside to the stream that it belongs to, where it goes on there, and tells whether it does.
func (s *Store) rejoin(l *log, m *mark) (joined bool, err error) {
	is := m.State
	if is == nil {
		if is, err = s.readState(l.stem()); err != nil {
			is = nil
		}
	}
	if is != nil {
		l.state, _ = is.state()
	}
	if m.Unreplayed == "" && (m.State == nil || !m.Trouble) {
		return false, nil
	}
	if m.Unreplayed == "" {
		f, err := s.fs.open(l.path, os.O_RDWR)
		if err != nil {
			return false, err
		}
		s.keepState(l, m)
		return true, f.close()
	}
	kept, size, err := openSized(s.fs, m.Unreplayed)
	if err != nil {
		return false, err
	}
	defer kept.close()
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
	if err := s.add(l, &life{first: e.Offset, pieces: pieces{{in: kept, path: m.Unreplayed, length: int(size)}}}); err != nil {
		return true, err
	}
	// Of what was dropped the journal may have had less than there was. The stream begins where that ends, then.
	first := l.state.First
	l.state.First = 0
	if err := l.readTail(); err != nil {
		return true, err
	}
	if l.tail < first {
		fits := *is
		fits.First = l.tail.String()
		m.State = &fits
	}
	s.keepState(l, m)
	return true, nil
}

// keepState lets the stream have the state that its mark has.
func (s *Store) keepState(l *log, m *mark) {
	if m.State != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.states[l.stem()] = m.State
	}
}

// excuse sets aside what the journals have of a stream where err is that stream's own trouble, so that the others
// start. The disk's, such as that it is full, keeps the store from starting.
func (s *Store) excuse(l *log, r *replayed, err error) error {
	if _, begun := err.(halfWritten); begun || classify(err) != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return s.setAside(l, r, err)
}
