package object

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

const (
	// lifetime is for how long an object stays that is no more the last of its stream, by the store's clock. What may
	// be built on it is signed 15 minutes later at most (see the package's documentation).
	lifetime = time.Hour

	passTime  = time.Hour        // between the beginnings of two passes, of all processes together
	aloneTime = 10 * time.Minute // after which a pass that told nothing is taken to have ended
	tellTime  = time.Minute      // between what a pass tells
	lookTime  = 10 * time.Minute // about, between two looks whether a pass is due
)

// A progress is what the processes tell each other of their passes, so that one is at it at a time. Nothing but work
// depends on it.
type progress struct {
	Begun time.Time `json:"begun"`         // the pass, by the store's clock
	Told  time.Time `json:"told"`          // this
	At    string    `json:"at,omitempty"`  // the key behind which it goes on; "" when it is over
	Done  time.Time `json:"done,omitzero"` // when the last one began that has seen all
}

// Collect does now what a storage that Open returned does by itself about every hour, and returns how many objects it
// has written and removed: none where that is not due, or another process is at it. Where the store cannot be relied on
// for that, or Open did not try, it is ErrUnavailable.
func (s *Storage) Collect(ctx context.Context) (written, removed int, err error) {
	if !s.collects {
		return 0, 0, fmt.Errorf("%w: the store is not known to be reliable for removing anything", streamlib.ErrUnavailable)
	}
	p, err := s.pass(ctx)
	return p.made, p.removed, err
}

// collector makes passes until ctx is done.
func (s *Storage) collector(ctx context.Context) {
	for {
		select {
		case <-time.After(lookTime/2 + rand.N(lookTime)):
		case <-ctx.Done():
			return
		}
		written, removed, err := s.Collect(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			s.log.Warn("the object store could not be tidied up; it is tried again", "error", err)
		case written+removed > 0:
			s.log.Info("the object store was tidied up", "written", written, "removed", removed)
		}
	}
}

// A pass goes over all objects once.
type pass struct {
	s       *Storage
	is      progress
	etag    string
	told    time.Time // when it last told, by this machine's clock
	horizon time.Time // what was written before it can have superseded what goes
	made    int
	removed int

	// of the stream that is listed:
	stem    string
	name    string
	newest  entry
	kept    streamlib.Offset
	looked  bool    // kept is known
	skipped bool    // it cannot be read, or has gone
	objects []entry // of one block, the newest first
	then    entry   // what follows these
	last    entry   // that was listed
	gone    []entry // of generations that are over
}

// pass collects what can go of all streams, where that is due and no other process is at it.
func (s *Storage) pass(ctx context.Context) (*pass, error) {
	p := &pass{s: s}
	if due, err := p.begin(ctx); !due || err != nil {
		return p, err
	}
	if err := p.collect(ctx); err != nil {
		return p, err
	}
	p.is.Done, p.is.At = p.is.Begun, ""
	return p, p.tell(ctx)
}

// collect goes over all objects that are left.
func (p *pass) collect(ctx context.Context) error {
	for _, folder := range []struct {
		name string
		each func(context.Context, entry) error
	}{{"d/", p.mark}, {"s/", p.object}, {"try/", p.try}} {
		if at, resumes := strings.CutPrefix(p.is.At, p.s.c.o.Prefix); resumes && at > folder.name+"~" {
			continue
		}
		if err := p.all(ctx, folder.name, folder.each); err != nil {
			return err
		}
		if err := p.endStream(ctx); err != nil {
			return err
		}
	}
	return nil
}

// try removes what is left of a trial whose process crashed.
func (p *pass) try(ctx context.Context, e entry) error {
	if !p.old(e) {
		return nil
	}
	p.removed++
	return p.s.c.remove(ctx, e.key)
}

func (p *pass) key() string { return p.s.c.o.Prefix + "collector" }

// begin tells whether a pass is due, and that it is begun.
func (p *pass) begin(ctx context.Context) (due bool, err error) {
	r, err := p.s.c.get(ctx, p.key())
	if err == errNone {
		p.etag, err = ifAbsent, nil
	} else if err == nil {
		p.etag = r.etag
		if json.Unmarshal(r.body, &p.is) != nil {
			p.is = progress{}
		}
	}
	if err != nil || r.date.IsZero() {
		return false, err
	}
	if p.is.At == "" && r.date.Sub(p.is.Begun) < passTime || p.is.At != "" && r.date.Sub(p.is.Told) < aloneTime {
		return false, nil
	}
	if p.is.At == "" {
		p.is.Begun, p.is.At = r.date, p.s.c.o.Prefix+"d/"
	}
	p.is.Told = r.date
	if err = p.tell(ctx); err == errTaken {
		return false, nil
	}
	return err == nil, err
}

// tell tells the others how far it is. It is errTaken where another has taken it over.
func (p *pass) tell(ctx context.Context) error {
	p.told = p.s.c.now()
	body, err := json.Marshal(p.is)
	if err != nil {
		return err
	}
	r, err := p.s.c.put(ctx, p.key(), append(body, '\n'), p.etag)
	if err == nil {
		p.etag = r.etag
	}
	return err
}

// all calls each for each object in the folder.
func (p *pass) all(ctx context.Context, folder string, each func(context.Context, entry) error) error {
	prefix, after := p.s.c.o.Prefix+folder, ""
	if strings.HasPrefix(p.is.At, prefix) {
		after = p.is.At
	}
	for more := true; more; {
		l, err := p.s.c.list(ctx, prefix, after, "", 1000)
		if err != nil {
			return err
		}
		if l.date.IsZero() {
			return fmt.Errorf("%w: the store does not tell its time", streamlib.ErrUnavailable)
		}
		p.horizon = l.date.Add(-lifetime)
		for _, o := range l.Contents {
			after = o.Key
			if err := each(ctx, entry{key: o.Key, size: o.Size, modified: o.LastModified}); err != nil {
				return err
			}
		}
		more = l.IsTruncated && len(l.Contents) > 0
		if more && p.s.c.now().Sub(p.told) > tellTime {
			p.is.At, p.is.Told = after, l.date
			if err := p.tell(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// old tells whether what e superseded can go.
func (p *pass) old(e entry) bool { return !e.modified.After(p.horizon) }

// mark looks at a stream of which a generation may have ended. What has ended is buried: the last change goes to a
// place of its own, that tells where the next life begins, and all other objects go.
func (p *pass) mark(ctx context.Context, e entry) error {
	stem, gen, _ := strings.Cut(strings.TrimPrefix(e.key, p.s.c.o.Prefix+"d/"), "/")
	dir := p.s.c.o.Prefix + "s/" + stem + "/"
	l, err := p.s.c.list(ctx, dir, "", "", 1)
	if err != nil {
		return err
	}
	if len(l.Contents) > 0 {
		newest := entry{key: l.Contents[0].Key, modified: l.Contents[0].LastModified}
		if newest.position, err = parsePosition(strings.TrimPrefix(newest.key, dir)); err != nil {
			return err
		}
		if newest.generation() >= gen { // no later one has begun
			if !p.old(newest) {
				return nil
			}
			r, err := p.s.c.get(ctx, newest.key)
			if err == errNone {
				return nil
			} else if err != nil {
				return err
			}
			h, _, err := parse(newest.key, r.body)
			if err != nil || !h.Deleted {
				return err
			}
			return p.bury(ctx, stem, newest.position, r.body)
		}
	}
	p.removed++
	return p.s.c.remove(ctx, e.key)
}

// bury removes a generation that ended with what is at end, and all before it.
func (p *pass) bury(ctx context.Context, stem string, end position, body []byte) error {
	grave, dir := p.s.grave(stem, end.generation()), p.s.c.o.Prefix+"s/"+stem+"/"
	if _, err := p.s.c.put(ctx, grave, body, ""); err != nil {
		return err
	}
	p.made++
	for _, folder := range []struct{ prefix, after string }{
		{dir, dir + end.String()},
		{p.s.grave(stem, ""), grave},
	} {
		for more := true; more; {
			l, err := p.s.c.list(ctx, folder.prefix, folder.after, "", 1000)
			if err != nil {
				return err
			}
			var objects []entry
			for _, o := range l.Contents {
				objects = append(objects, entry{key: o.Key})
			}
			p.removed += len(objects)
			if err := p.s.removeAll(ctx, objects); err != nil {
				return err
			}
			more = l.IsTruncated
		}
	}
	p.removed += 2
	if err := p.s.c.remove(ctx, dir+end.String()); err != nil {
		return err
	}
	return p.s.c.remove(ctx, p.s.mark(stem, end.generation()))
}

// object takes the next object of the listing: of each stream the newest comes first.
func (p *pass) object(ctx context.Context, e entry) (err error) {
	root := p.s.c.o.Prefix + "s/"
	stem, at, _ := strings.Cut(strings.TrimPrefix(e.key, root), "/")
	if stem != p.stem {
		if err := p.endStream(ctx); err != nil {
			return err
		}
		p.stem = stem
	}
	if p.skipped {
		return nil
	}
	if e.position, err = parsePosition(at); err != nil {
		p.skip(fmt.Errorf("%s: %w", e.key, err))
		return nil
	}
	defer func() { p.last = e }()
	switch {
	case p.newest.key == "":
		p.newest = e
		return nil
	case e.gen < p.newest.gen:
		if err := p.endBlock(ctx); err != nil || p.skipped || !p.old(p.last) {
			return err
		}
		if p.gone = append(p.gone, e); len(p.gone) == 1000 {
			return p.removeGone(ctx)
		}
		return nil
	}
	top := p.s.blocks.levels - 1
	if n := len(p.objects); n > 0 && p.s.blocks.of(top, e.first) != p.s.blocks.of(top, p.objects[n-1].first) {
		if err := p.endBlock(ctx); err != nil {
			return err
		}
	}
	if len(p.objects) == 0 {
		p.then = p.last
	}
	p.objects = append(p.objects, e)
	return nil
}

// endStream ends the stream that was listed.
func (p *pass) endStream(ctx context.Context) error {
	err := p.endBlock(ctx)
	if err == nil {
		err = p.removeGone(ctx)
	}
	p.stem, p.name, p.kept, p.looked, p.skipped = "", "", 0, false, false
	p.newest, p.then, p.last = entry{}, entry{}, entry{}
	return err
}

func (p *pass) removeGone(ctx context.Context) error {
	err := p.s.removeAll(ctx, p.gone)
	p.removed += len(p.gone)
	p.gone = nil
	return err
}

// skip leaves the stream as it is.
func (p *pass) skip(why error) {
	p.s.log.Warn("a stream on the object store is not tidied up", "stream", p.name, "error", why)
	p.skipped, p.objects = true, nil
}

// endBlock merges the objects that were listed, which are all of a block.
func (p *pass) endBlock(ctx context.Context) error {
	objects := p.objects
	p.objects = nil
	if len(objects) == 0 || p.skipped || p.unchanged(objects) {
		return nil
	}
	top := p.s.blocks.levels - 1
	if p.s.blocks.of(top, objects[0].first) == p.s.blocks.of(top, p.newest.first) && len(objects) == 1 &&
		objects[0].size < muchMerged {
		return nil // it is too little
	}
	if !p.looked {
		if err := p.look(ctx); err != nil || p.skipped {
			return err
		}
	}
	slices.Reverse(objects)
	m := merger{s: p.s, name: p.name, kept: p.kept, newest: p.newest.position, old: p.old, objects: objects, then: p.then}
	err := m.run(ctx)
	p.made, p.removed = p.made+m.made, p.removed+m.removed
	if corrupt, ok := errors.AsType[*streamlib.CorruptError](err); ok {
		p.skip(corrupt)
		return nil
	}
	return err
}

// unchanged tells whether the last pass that saw all has seen the objects as they are, and could have let them go.
func (p *pass) unchanged(objects []entry) bool {
	since := p.is.Done.Add(-lifetime - time.Minute)
	for _, e := range append([]entry{p.newest, p.then}, objects...) {
		if !e.modified.Before(since) {
			return false
		}
	}
	return true
}

// look reads what the stream is.
func (p *pass) look(ctx context.Context) error {
	r, err := p.s.c.get(ctx, p.newest.key)
	if err == errNone {
		p.skipped = true
		return nil
	} else if err != nil {
		return err
	}
	h, _, err := parse(p.newest.key, r.body)
	if err != nil {
		p.skip(err)
		return nil
	}
	p.name, p.kept, p.looked, p.skipped = h.Stream, h.Kept, true, h.Deleted
	return nil
}
