package object

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/iterate/durable-streams/streamlib"
)

// A batch is an object that was read.
type batch struct {
	head   head
	events []streamlib.Event
	etag   string
}

func (b batch) holds(o streamlib.Offset) bool { return b.head.First <= o && o < b.head.end() }

const (
	window  = 500      // offsets are listed at once, or more, where an object has many
	widest  = 16_000   // at most: a LIST tells of a thousand objects
	ahead   = 8        // objects are read at once
	maxRead = 16 << 20 // bytes of objects that are read at once, if those are more than one
)

// Read reads what there is now.
func (s *Storage) Read(ctx context.Context, name string, from,
	to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	return func(yield func([]streamlib.Event, error) bool) {
		err := cmp.Or(streamlib.CheckName(name), context.Cause(ctx))
		var t *tail
		if err == nil {
			t, err = s.learn(ctx, name)
		}
		if err != nil {
			yield(nil, err)
			return
		}
		s.read(ctx, name, t, from, to, yield)
	}
}

// ReadLife asks for the stream's end only where it is not known to be so far behind.
func (s *Storage) ReadLife(ctx context.Context, name string, life int64, from,
	to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	return func(yield func([]streamlib.Event, error) bool) {
		err := cmp.Or(streamlib.CheckName(name), context.Cause(ctx))
		t := s.mind(name)
		if err == nil && (t == nil || t.info(name).Tail < to) {
			t, err = s.learn(ctx, name)
		}
		if err == nil && t.Life != life {
			err = streamlib.ErrDeleted
		}
		if err != nil {
			yield(nil, err)
			return
		}
		s.read(ctx, name, t, from, to, yield)
	}
}

func (s *Storage) read(ctx context.Context, name string, t *tail, from, to streamlib.Offset,
	yield func([]streamlib.Event, error) bool) {
	is := t.info(name)
	if from < 0 {
		from = is.First
	} else if from < is.First {
		yield(nil, &streamlib.GoneError{Stream: name, After: from - 1, Tail: is.Tail, First: is.First})
		return
	}
	wide := streamlib.Offset(window)
	for to = min(to, is.Tail); from < to; {
		batches, err := s.some(ctx, name, t, from, min(to, from+wide))
		for _, b := range batches {
			if !b.holds(from) || from >= to {
				continue
			}
			events := b.events[from-b.head.First : min(to, b.head.end())-b.head.First]
			from += streamlib.Offset(len(events))
			if !yield(slices.Clip(events), nil) {
				return
			}
		}
		if err == nil {
			each := (batches[len(batches)-1].head.end() - batches[0].head.First) / streamlib.Offset(len(batches))
			wide = min(max(window, 4*ahead*each), widest)
			continue
		}
		yield(nil, s.missed(ctx, name, is.Life, from, err))
		return
	}
}

// missed is err, met while the event at from was looked for, unless the stream's life is over or the event was dropped.
// Where nobody can tell whether it was, nothing is called damaged.
func (s *Storage) missed(ctx context.Context, name string, life int64, from streamlib.Offset, err error) error {
	now, failed := s.learn(ctx, name)
	_, damaged := errors.AsType[*streamlib.CorruptError](err)
	switch {
	case failed != nil && damaged:
		return failed
	case failed != nil:
		return err
	case now.info(name).Life != life:
		return streamlib.ErrDeleted
	case now.Kept > from:
		return &streamlib.GoneError{Stream: name, After: from - 1, Tail: now.end(), First: now.Kept}
	}
	return err
}

// some returns objects in order, of which the first holds from, as there is one, and the others what is before to.
func (s *Storage) some(ctx context.Context, name string, t *tail, from, to streamlib.Offset) ([]batch, error) {
	if t.size > 0 && t.First <= from {
		return []batch{{head: t.head, events: t.events}}, nil
	}
	for range 8 { // what is listed may be merged before it is read
		keys, err := s.covering(ctx, name, t.at.gen, from, to)
		if err != nil {
			return nil, err
		}
		batches, err := s.fetch(ctx, keys)
		switch {
		case len(batches) > 0 && batches[0].holds(from):
			return batches, nil // those before one that did not come, for the reader to go on from
		case err == errNone && len(batches) == 0:
			continue
		case err != nil && err != errNone:
			return nil, err
		}
		// A collector has put what is there together with what was before it, and did not remove it.
		below := position{t.at.gen, from, 0}
		if len(keys) > 0 {
			if below, err = parsePosition(strings.TrimPrefix(keys[0], s.dir(name))); err != nil {
				return nil, err
			}
		}
		if b, err := s.merged(ctx, name, below, from); err != errNone {
			return []batch{b}, err
		}
	}
	return nil, &streamlib.CorruptError{File: s.dir(name), Reason: fmt.Sprintf("event %d is missing", from)}
}

// covering lists the objects from the one that holds from to the one that holds what is before to, unless they are too
// many or too large: then fewer.
func (s *Storage) covering(ctx context.Context, name string, gen int64, from, to streamlib.Offset) ([]string, error) {
	type object struct {
		position
		size int64
	}
	var found []object
	dir := s.dir(name)
	at := dir + position{gen, to, 0}.String()
	for more := true; more; {
		l, err := s.c.list(ctx, dir+position{gen: gen}.generation(), at, "", 1000)
		if err != nil {
			return nil, err
		}
		more = l.IsTruncated && len(l.Contents) > 0
		for _, o := range l.Contents {
			p, err := parsePosition(strings.TrimPrefix(o.Key, dir))
			if err != nil {
				return nil, err
			}
			at = o.Key
			if len(found) == 0 || found[len(found)-1].first > p.first { // of the changes at one offset the last has events
				found = append(found, object{p, o.Size})
			}
			if p.first <= from {
				more = false
				break
			}
		}
	}
	slices.Reverse(found)
	var keys []string
	size := int64(0)
	for _, o := range found {
		if size += o.size; len(keys) == 4*ahead || len(keys) > 0 && size > maxRead {
			break
		}
		keys = append(keys, s.key(name, o.position))
	}
	return keys, nil
}

// merged returns the object before p that holds from. Only the first of a block can (see blocks).
func (s *Storage) merged(ctx context.Context, name string, p position, from streamlib.Offset) (batch, error) {
	dir := s.dir(name)
	for last, more := p, true; more; {
		l, err := s.c.list(ctx, dir+p.generation(), dir+last.String(), "", 1000)
		if err != nil {
			return batch{}, err
		}
		more = l.IsTruncated && len(l.Contents) > 0
		for i, o := range l.Contents {
			if last, err = parsePosition(strings.TrimPrefix(o.Key, dir)); err != nil {
				return batch{}, err
			}
			if i+1 < len(l.Contents) {
				next, err := parsePosition(strings.TrimPrefix(l.Contents[i+1].Key, dir))
				if err == nil && s.blocks.of(0, next.first) == s.blocks.of(0, last.first) {
					continue
				}
			}
			batches, err := s.fetch(ctx, []string{o.Key})
			if err == nil && batches[0].holds(from) {
				return batches[0], nil
			} else if err != nil && err != errNone {
				return batch{}, err
			}
		}
	}
	return batch{}, errNone
}

// fetch reads objects, several at once, and returns those before the first that could not be read.
func (s *Storage) fetch(ctx context.Context, keys []string) ([]batch, error) {
	batches, errs := make([]batch, len(keys)), make([]error, len(keys))
	var reading sync.WaitGroup
	turns := make(chan struct{}, ahead)
	for i, key := range keys {
		turns <- struct{}{}
		reading.Go(func() {
			defer func() { <-turns }()
			r, err := s.c.get(ctx, key)
			if err == nil {
				batches[i].etag = r.etag
				batches[i].head, batches[i].events, err = parse(key, r.body)
			}
			errs[i] = err
		})
	}
	reading.Wait()
	for i, err := range errs {
		if err != nil {
			return batches[:i], err
		}
	}
	return batches, nil
}

// holding returns the object that holds the event at o, which there is.
func (s *Storage) holding(ctx context.Context, name string, t *tail, o streamlib.Offset) (batch, error) {
	batches, err := s.some(ctx, name, t, o, o+1)
	if err != nil {
		return batch{}, s.missed(ctx, name, t.info(name).Life, o, err)
	}
	return batches[0], nil
}

// Last reads the stream backwards, and so as much of it as the answer tells of.
func (s *Storage) Last(ctx context.Context, name string, size int64) (streamlib.Offset, error) {
	if err := cmp.Or(streamlib.CheckName(name), context.Cause(ctx)); err != nil {
		return 0, err
	}
	t, err := s.learn(ctx, name)
	if err != nil {
		return 0, err
	}
	is := t.info(name)
	if is.Size <= size {
		return is.First, nil
	}
	o := is.Tail
	for o > is.First {
		b, err := s.holding(ctx, name, t, o-1)
		if err != nil {
			return 0, err
		}
		for i := int(o-b.head.First) - 1; i >= 0 && o > is.First; i-- {
			if size -= int64(len(b.events[i].Record())); size < 0 {
				return o, nil
			}
			o--
		}
	}
	return o, nil
}
