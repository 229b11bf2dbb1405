package object

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// A Summary is what Verify has read.
type Summary struct {
	Streams  int
	Events   int64
	Bytes    int64 // of all objects
	Objects  int
	Overlaps int // objects that are in another one, too: a collector ended between writing that and removing these
	Damage   []*streamlib.CorruptError
	Unread   []error // a stream each that could not be read
}

// Verify reads all objects of all streams, also while others write: every checksum, that each object has what its name
// says, that offsets are contiguous from the first that is kept, what overlaps, and that times never go back. It
// changes nothing. What it found is in the summary; the error is what kept it from reading. Progress, where not nil, is
// called behind each of the streams.
func (s *Storage) Verify(ctx context.Context, progress func(Summary)) (sum Summary, err error) {
	for after := ""; ; {
		root := s.c.o.Prefix + "s/"
		l, err := s.c.list(ctx, root, after, "/", 100)
		if err != nil {
			return sum, err
		}
		for _, p := range l.CommonPrefixes {
			after = p.Prefix + "~"
			if err := s.verifyStream(ctx, p.Prefix, &sum); err != nil {
				if ctx.Err() != nil {
					return sum, context.Cause(ctx)
				}
				sum.Unread = append(sum.Unread, fmt.Errorf("%s: %w", p.Prefix, err))
			}
			if progress != nil {
				progress(sum)
			}
		}
		if !l.IsTruncated || len(l.CommonPrefixes) == 0 {
			return sum, nil
		}
	}
}

// verifyStream reads the stream in dir. What is collected while it is read is listed again.
func (s *Storage) verifyStream(ctx context.Context, dir string, all *Summary) (err error) {
	for range 8 {
		sum := Summary{Streams: 1}
		v := verifier{s: s, dir: dir, sum: &sum}
		if err = v.run(ctx); err == errNone {
			continue
		}
		all.Streams, all.Events, all.Bytes = all.Streams+1, all.Events+sum.Events, all.Bytes+sum.Bytes
		all.Objects, all.Overlaps = all.Objects+sum.Objects, all.Overlaps+sum.Overlaps
		all.Damage = append(all.Damage, sum.Damage...)
		return err
	}
	return fmt.Errorf("%w: it changes too fast", streamlib.ErrUnavailable)
}

// A verifier reads one stream, from the oldest object on.
type verifier struct {
	s   *Storage
	dir string
	sum *Summary

	newest  position
	kept    streamlib.Offset // in the generation that is read
	gen     int64
	last    head // that was read
	begun   bool // it is of the generation
	merged  bool // and so is one that was merged
	end     streamlib.Offset
	created time.Time // the last event
	broken  bool      // what follows cannot be told
}

func (v *verifier) run(ctx context.Context) error {
	var objects []entry
	for after := ""; ; {
		l, err := v.s.c.list(ctx, v.dir, after, "", 1000)
		if err != nil {
			return err
		}
		for _, o := range l.Contents {
			after = o.Key
			e := entry{key: o.Key, size: o.Size}
			if e.position, err = parsePosition(strings.TrimPrefix(o.Key, v.dir)); err != nil {
				v.damaged(o.Key, err.Error())
				continue
			}
			objects = append(objects, e)
		}
		if !l.IsTruncated || len(l.Contents) == 0 {
			break
		}
	}
	if len(objects) == 0 {
		return nil
	}
	v.newest = objects[0].position
	kept, err := v.keptIn(ctx, objects)
	if err != nil {
		return err
	}
	slices.Reverse(objects)
	for at := 0; at < len(objects); {
		n, size := at, int64(0)
		for ; n < len(objects) && n-at < 4*ahead && (n == at || size+objects[n].size <= maxRead); n++ {
			size += objects[n].size
		}
		batches, err := v.s.fetch(ctx, keys(objects[at:n]))
		for i, b := range batches {
			o := objects[at+i]
			v.sum.Objects++
			v.sum.Bytes += o.size
			v.kept = kept[o.gen]
			v.object(o, b)
		}
		at += len(batches)
		if corrupt, ok := errors.AsType[*streamlib.CorruptError](err); ok {
			v.sum.Objects++
			v.sum.Damage = append(v.sum.Damage, corrupt)
			v.broken = true
			at++
		} else if err != nil {
			return err
		}
	}
	return nil
}

// keptIn reads what was trimmed in each generation: its last object tells.
func (v *verifier) keptIn(ctx context.Context, objects []entry) (map[int64]streamlib.Offset, error) {
	kept := map[int64]streamlib.Offset{}
	for _, o := range objects {
		if _, known := kept[o.gen]; known {
			continue
		}
		batches, err := v.s.fetch(ctx, []string{o.key})
		if err == nil {
			h := batches[0].head
			if kept[o.gen] = h.Kept; h.Deleted {
				kept[o.gen] = h.end() // what it had is not asked for
			}
		} else if _, corrupt := errors.AsType[*streamlib.CorruptError](err); !corrupt {
			return nil, err
		} else {
			kept[o.gen] = 0
		}
	}
	return kept, nil
}

func (v *verifier) damaged(key, reason string) {
	v.sum.Damage = append(v.sum.Damage, &streamlib.CorruptError{File: key, Reason: reason})
}

// object compares an object with those before it.
func (v *verifier) object(o entry, b batch) {
	h := b.head
	if !v.begun || o.gen != v.gen {
		if v.begun && !v.last.Deleted && !v.broken {
			v.damaged(o.key, "a life begins, and the one before it has not ended")
		}
		v.gen, v.begun, v.merged, v.end, v.broken = o.gen, true, false, 0, false
		v.created = time.Time{}
	}
	switch {
	case stem(h.Stream) != strings.TrimSuffix(strings.TrimPrefix(v.dir, v.s.c.o.Prefix+"s/"), "/"):
		v.damaged(o.key, fmt.Sprintf("it is of the stream %q", h.Stream))
	case h.First < o.first || h.First > o.first && !h.Merged && h.First > h.Kept:
		v.damaged(o.key, fmt.Sprintf("it begins at %d", h.First))
	case h.Merged && o.position == v.newest:
		v.damaged(o.key, "it is merged, and what follows it is missing")
	case h.First > max(v.end, v.kept) && !v.broken:
		v.damaged(o.key, fmt.Sprintf("the events from %d to %d before it are missing", max(v.end, v.kept), h.First-1))
	case h.First < v.end && !v.merged && !v.broken:
		v.damaged(o.key, fmt.Sprintf("it begins at %d, and what comes before it ends at %d", h.First, v.end))
	case h.end() <= v.end && v.merged && o.first < v.end:
		v.sum.Overlaps++
	}
	v.last, v.merged, v.broken = h, v.merged || h.Merged, false
	for _, e := range b.events {
		if e.Offset < v.end {
			continue
		}
		if e.Stream() != h.Stream {
			v.damaged(o.key, fmt.Sprintf("event %d is of the stream %q", e.Offset, e.Stream()))
		}
		if e.CreatedAt().Before(v.created) {
			v.damaged(o.key, fmt.Sprintf("event %d was created before the one before it", e.Offset))
		}
		v.created = e.CreatedAt()
		v.sum.Events++
	}
	v.end = max(v.end, h.end())
}
