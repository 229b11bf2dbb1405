package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/iterate/durable-streams/streamlib"
)

// An Opener begins to read what a query exports; the caller closes it. A client of a server has one, and From makes one.
type Opener func(ctx context.Context, q Query) (io.ReadCloser, error)

// From opens exports of a source.
func From(s Source) Opener {
	return func(ctx context.Context, q Query) (io.ReadCloser, error) {
		ctx, cancel := context.WithCancel(ctx)
		r, w := io.Pipe()
		p := &piped{PipeReader: r, cancel: cancel}
		p.writing.Go(func() {
			_, err := Export(ctx, s, w, q)
			if _, broken := errors.AsType[*BrokenError](err); broken { // which the export says
				err = nil
			}
			w.CloseWithError(err)
		})
		return p, nil
	}
}

type piped struct {
	*io.PipeReader
	cancel  context.CancelFunc
	writing sync.WaitGroup
}

func (p *piped) Close() error {
	p.cancel()
	err := p.PipeReader.Close()
	p.writing.Wait()
	return err
}

// copies is how many streams are copied at once, which then share the target's commits.
const copies = 32

// Backup makes of to a copy of all streams that open exports, and reads of them only what is new: a stream goes on from
// its last event in to, which is compared; one that was deleted is deleted there, one that was made again is replaced,
// and what was dropped is dropped. Of what it wrote it reads and compares the checksums.
//
// Each stream in to is then as it was at one moment during the backup. Where a backup was interrupted, some streams
// are as they were before, and those that were being copied have the first of their new events; the next one goes on.
//
// A stream of which to has more than there is, as where a folder was restored, is left as it is, and the error is a
// *BrokenError, as where a stream cannot be read. Where there is no stream at all, and to has some, nothing is done: it
// may be the wrong folder.
func Backup(ctx context.Context, open Opener, to streamlib.Storage) (Summary, error) {
	b := backup{open: open, to: to}
	sum, err := b.all(ctx)
	if err != nil {
		return sum, fmt.Errorf("back up: %w", err)
	}
	return sum, sum.Err()
}

type backup struct {
	open Opener
	to   streamlib.Storage

	mu sync.Mutex // guards the summary
	Summary
}

func (b *backup) all(ctx context.Context) (Summary, error) {
	streams, err := b.list(ctx)
	if err != nil {
		return b.Summary, err
	}
	if err := b.dropOthers(ctx, streams); err != nil {
		return b.Summary, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var copying sync.WaitGroup
	turns := make(chan struct{}, copies)
	for _, l := range streams {
		turns <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		copying.Go(func() {
			defer func() { <-turns }()
			if err := b.stream(ctx, l); err != nil {
				cancel(err)
			}
		})
	}
	copying.Wait()
	return b.Summary, context.Cause(ctx)
}

// A listed stream is one that there is.
type listed struct {
	head
	known bool // the head says all
}

// is tells whether the stream is as info says.
func (l listed) is(info streamlib.Info) bool {
	return l.known && l.Life == info.Life && l.First == info.First && l.Closed == info.Closed && l.tail == info.Tail &&
		l.Keys == info.Keys && l.Note == info.Note && l.Held == info.Held && l.UpdatedAt.Equal(info.UpdatedAt) && info.Damage == nil
}

// list returns the streams that there are, by name.
func (b *backup) list(ctx context.Context) (map[string]listed, error) {
	streams := map[string]listed{}
	_, err := b.read(ctx, Query{From: streamlib.Now}, func(h head) *receiver {
		streams[h.name] = listed{h, true}
		return &receiver{head: h}
	})
	if broken, ok := errors.AsType[*BrokenError](err); ok { // who copies those meets it again
		err = nil
		for name := range broken.Streams {
			streams[name] = listed{streams[name].head, false}
		}
	}
	return streams, err
}

// read gives what q exports to receivers.
func (b *backup) read(ctx context.Context, q Query, receive func(head) *receiver) (Summary, error) {
	export, err := b.open(ctx, q)
	if err != nil {
		return Summary{}, err
	}
	defer export.Close()
	return run(ctx, export, receive)
}

// dropOthers deletes the streams that there are not any more.
func (b *backup) dropOthers(ctx context.Context, streams map[string]listed) error {
	names, err := b.to.List(ctx, "", "", 0)
	if err != nil {
		return err
	}
	if len(streams) == 0 && len(names) > 0 {
		return fmt.Errorf("there are no streams to copy, and the copy has %d: nothing was deleted", len(names))
	}
	for _, name := range names {
		if _, there := streams[name]; !there {
			if err := b.drop(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *backup) drop(ctx context.Context, name string) error {
	if err := b.to.Commit(ctx, name, streamlib.Change{Delete: true}); err != nil {
		return fmt.Errorf("stream %q: %w", name, err)
	}
	b.add(Summary{Deleted: 1})
	return nil
}

// stream copies what is new of one. It may change while that is done, so it is tried more than once. The error is what
// keeps the others from being copied, too.
func (b *backup) stream(ctx context.Context, l listed) error {
	const tries = 3
	for try, whole := 1, false; ; try++ {
		info, err := b.to.Stat(ctx, l.name)
		if err == nil && l.is(info) {
			b.add(Summary{Streams: 1})
			return nil
		}
		var sum Summary
		there := true
		if err == nil {
			q := Query{Name: l.name}
			if info.Life == l.Life && !whole {
				q.From = max(info.Tail-1, 0)
			}
			sum, there, err = b.copy(ctx, q)
		}
		_, broken := errors.AsType[*BrokenError](err)
		_, different := errors.AsType[*DifferentError](err)
		_, damaged := errors.AsType[*streamlib.CorruptError](err) // in the copy
		whole = err == errAgain
		switch {
		case (broken || whole) && try < tries:
			sum.Broken, l.known = nil, false
			b.add(sum)
			continue
		case err == nil && !there:
			return b.drop(ctx, l.name)
		case different, damaged:
			sum.broken(l.name, err.Error())
		case err != nil && !broken:
			return err
		}
		b.add(sum)
		return nil
	}
}

// copy brings into the target what q exports of a stream, and tells whether there is one.
func (b *backup) copy(ctx context.Context, q Query) (sum Summary, there bool, err error) {
	sum, err = b.read(ctx, q, func(h head) *receiver {
		there = true
		return &receiver{to: b.to, head: h, exact: true}
	})
	return sum, there, err
}

func (b *backup) add(sum Summary) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Streams += sum.Streams
	b.Events += sum.Events
	b.Stored += sum.Stored
	b.Deleted += sum.Deleted
	for name, cause := range sum.Broken {
		b.broken(name, cause)
	}
}
