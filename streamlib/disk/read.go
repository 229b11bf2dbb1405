package disk

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"slices"
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
		l.read(max(from, 0), to, func(events []streamlib.Event, err error) bool {
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
	l.mu.Lock()
	f, corrupt := l.file, l.corrupt
	info.Size, info.Tail, info.UpdatedAt = l.size, l.tail, l.updated
	l.mu.Unlock()
	if corrupt != nil {
		return info, corrupt
	}
	if info.Tail > 0 {
		first, err := firstEvent(f, info.Size, l.path)
		if damaged, ok := errors.AsType[*streamlib.CorruptError](err); ok {
			_ = s.found(l, damaged)
		} else if err != nil {
			return info, classified(err)
		} else {
			info.CreatedAt = first.CreatedAt()
		}
	}
	if m := s.marked(l); m != nil {
		info.Damage = m.corrupt()
	}
	return info, nil
}

// firstEvent returns the event of the file's first line, of whichever stream it is.
func firstEvent(f file, size int64, path string) (e streamlib.Event, err error) {
	s := scanner{f: f, size: size, chunk: 4 << 10}
	line, err := s.next()
	if err == io.EOF {
		return e, &streamlib.CorruptError{File: path, Reason: "the file ends before its first event"}
	} else if err != nil {
		return e, err
	}
	record, err := unseal(line)
	if err == nil {
		e, err = streamlib.ParseRecord(record)
	}
	if err != nil {
		return e, &streamlib.CorruptError{File: path, Reason: err.Error()}
	}
	return e, nil
}

func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	files, err := s.fs.names(streamsDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, classified(err)
	}
	var names []string
	page := func() { // leaves the first limit names, in order
		slices.Sort(names)
		names = slices.Compact(names)
		if limit > 0 && len(names) > limit {
			names = names[:limit]
		}
	}
	bound := "" // no name from here on is on the page
	for _, file := range files {
		if !strings.HasSuffix(file, suffix) {
			continue
		}
		name, err := s.streamName(file)
		if err != nil {
			s.options.Log.Error("a stream whose name cannot be read is not listed", "file", file, "error", err)
			continue
		}
		if !strings.HasPrefix(name, prefix) || name <= after || bound != "" && name >= bound ||
			streamlib.CheckName(name) != nil {
			continue
		}
		if names = append(names, name); limit > 0 && len(names) >= 2*limit+1024 {
			if page(); len(names) == limit {
				bound = names[limit-1]
			}
		}
	}
	page()
	return names, nil
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
			return s.markedName(stemmed), nil
		} else if err != nil {
			return "", err
		}
		if record, err := unseal(line); err != nil {
			continue
		} else if e, err := streamlib.ParseRecord(record); err == nil && stem(e.Stream()) == stemmed {
			return e.Stream(), nil
		}
	}
}
