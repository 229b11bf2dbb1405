package disk

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"strings"

	"github.com/iterate/durable-streams/streamlib"
)

func (s *Store) Read(ctx context.Context, name string, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	return func(yield func([]streamlib.Event, error) bool) {
		if ctx.Err() != nil {
			yield(nil, context.Cause(ctx))
			return
		}
		l, err := s.logs.acquire(name)
		if err != nil {
			yield(nil, classified(err))
			return
		}
		defer s.logs.release(l)
		l.read(from, to, func(events []streamlib.Event, err error) bool {
			if ctx.Err() != nil {
				yield(nil, context.Cause(ctx))
				return false
			}
			return yield(events, s.found(l, err))
		})
	}
}

func (s *Store) Stat(ctx context.Context, name string) (streamlib.Info, error) {
	info := streamlib.Info{Name: name}
	if ctx.Err() != nil {
		return info, context.Cause(ctx)
	}
	l, err := s.logs.acquire(name)
	if err != nil {
		return info, classified(err)
	}
	defer s.logs.release(l)
again:
	l.mu.Lock()
	f, size, corrupt, stated := l.file, l.size, l.corrupt, l.stated
	info.State, info.Tail = l.state, l.tail
	info.UpdatedAt = l.updated
	l.mu.Unlock()
	if corrupt != nil {
		return info, corrupt
	}
	if f == nil {
		info.Life = s.deletions.Load()
	}
	first, begin, err := l.start()
	if first != info.First { // it moved meanwhile
		goto again
	}
	if info.Size = max(size-begin, 0); err == nil && info.Tail > info.First {
		var first streamlib.Event
		var life int64
		if first, life, err = firstEvent(f, begin, size, l.path); err == nil {
			info.CreatedAt = first.CreatedAt()
		}
		if !stated {
			info.Life = life
		}
	}
	if damaged, ok := errors.AsType[*streamlib.CorruptError](err); ok {
		_ = s.found(l, damaged)
	} else if err != nil {
		return info, classified(err)
	}
	if m := s.marked(l); m != nil {
		info.Damage = m.corrupt()
	}
	return info, nil
}

// firstEvent returns the event of the line that begins at begin, of whichever stream it is, and the life that it says.
func firstEvent(f file, begin, size int64, path string) (e streamlib.Event, life int64, err error) {
	s := scanner{f: f, pos: begin, size: size, chunk: 4 << 10}
	line, err := s.next()
	if err == io.EOF {
		return e, 0, &streamlib.CorruptError{File: path, Offset: begin, Reason: "the file ends before its first event"}
	} else if err != nil {
		return e, 0, err
	}
	record, err := unseal(line)
	if err == nil {
		record, life = withoutLife(record)
		e, err = streamlib.ParseRecord(record)
	}
	if err != nil {
		return e, 0, &streamlib.CorruptError{File: path, Offset: begin, Reason: err.Error()}
	}
	return e, life, nil
}

func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return s.names.Page(prefix, after, limit, s.allNames)
}

// allNames returns the names of the streams that there are, in no order, some perhaps twice.
func (s *Store) allNames() ([]string, error) {
	files, err := s.fs.names(streamsDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, classified(err)
	}
	all := files[:0]
	for _, file := range files {
		if !strings.HasSuffix(file, suffix) {
			continue
		}
		name, err := s.streamName(file)
		if err != nil {
			s.options.Log.Error("a stream whose name cannot be read is not listed", "file", file, "error", err)
			continue
		}
		if streamlib.CheckName(name) == nil {
			all = append(all, name)
		}
	}
	return all, nil
}

// Stated returns in byte order up to limit names behind after, of the streams that had a state when the first of them
// were asked for: these are few where nearly all have none.
func (s *Store) Stated(ctx context.Context, after string, limit int) ([]string, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return s.stated.Page("", after, limit, func() (all []string, err error) {
		files, err := s.fs.names(stateDir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, classified(err)
		}
		s.mu.Lock()
		for _, r := range s.states {
			all = append(all, r.Stream)
		}
		s.mu.Unlock()
		for _, file := range files {
			stem, ok := strings.CutSuffix(file, suffix)
			if !ok {
				continue
			}
			name, hashed := unstem(stem)
			if hashed {
				name = s.stateName(stem)
			}
			if streamlib.CheckName(name) == nil {
				all = append(all, name)
			}
		}
		return all, nil
	})
}

// streamName returns the name of the stream that is in a file of the streams' folder. Where the file's name is a
// hash, its first whole event tells, or else the mark of its damage; it is "" where neither does.
func (s *Store) streamName(file string) (string, error) {
	stemmed := strings.TrimSuffix(file, suffix)
	name, hashed := unstem(stemmed)
	if !hashed {
		return name, nil
	}
	f, size, err := openSized(s.fs, streamsDir+"/"+file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	defer f.close()
	for lines := (scanner{f: f, size: size, chunk: 4 << 10}); ; {
		line, err := lines.next()
		if err == io.EOF {
			return cmp.Or(s.stateName(stemmed), s.markedName(stemmed)), nil
		} else if err != nil {
			return "", err
		}
		if record, err := unseal(line); err != nil {
			continue
		} else if e, err := parseRecord(record); err == nil && stem(e.Stream()) == stemmed {
			return e.Stream(), nil
		}
	}
}

func (s *Store) Last(ctx context.Context, name string, size int64) (streamlib.Offset, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	l, err := s.logs.acquire(name)
	if err != nil {
		return 0, classified(err)
	}
	defer s.logs.release(l)
	l.mu.Lock()
	corrupt := l.corrupt
	l.mu.Unlock()
	if corrupt != nil {
		return 0, corrupt
	}
	o, err := l.last(size)
	return o, classified(s.found(l, err))
}
