package transfer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// A Target takes streams: a streamlib.Storage, or whoever takes changes of streams as that does.
type Target interface {
	Stat(ctx context.Context, name string) (streamlib.Info, error)
	Read(ctx context.Context, name string, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error]
	Commit(ctx context.Context, name string, c streamlib.Change) error
}

// Import adds to a target what an export has and the target has not: events with their offsets, times and keys, and
// what is known of each stream. It takes nothing away. Of a stream that the target has, the events that both have are
// compared, and where one differs the error is a *DifferentError and nothing more is added to that stream. So an
// import that was interrupted is done again from the beginning, and one that is done twice changes nothing.
//
// A stream is closed with the last of its events, once the export is known to have all of them. An input that is no
// export, or ends in the middle, is streamlib.ErrInvalid and names the line; what was added before it stays. A
// *BrokenError says that all was imported, and of which streams the export had not all.
func Import(ctx context.Context, to Target, r io.Reader) (Summary, error) {
	sum, err := run(ctx, r, func(h head) *receiver { return &receiver{to: to, head: h} })
	if err != nil {
		err = fmt.Errorf("import: %w", err)
	}
	return sum, err
}

// Check reads an export to its end and tells what an import would find wrong with it.
func Check(ctx context.Context, r io.Reader) (Summary, error) {
	return run(ctx, r, func(h head) *receiver { return &receiver{head: h} })
}

const (
	// maxFlight bounds the bytes of events that are on their way into the target, and minFlight is what a batch of few
	// counts: so many streams share the target's commits.
	maxFlight = 16 << 20
	minFlight = 64 << 10

	// Held is about how many bytes of events an import holds at most.
	Held = maxFlight + streamlib.MaxBatch
)

// run reads an export and gives each stream's events to its receiver.
func run(ctx context.Context, r io.Reader, receive func(head) *receiver) (Summary, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m := importer{ctx: ctx, cancel: cancel, receive: receive, lines: lines{r: r}, before: map[string]chan struct{}{}}
	m.room = sync.NewCond(&m.mu)
	err := m.read()
	m.running.Wait()
	if m.failed != nil { // the reason for err, where there is one
		err = m.failed
	}
	if err != nil {
		return m.Summary, err
	}
	return m.Summary, m.Err()
}

type importer struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	receive func(head) *receiver
	lines   lines
	running sync.WaitGroup // one for each batch that is on its way

	// Of the stream whose lines are being read.
	to      *receiver // nil between streams
	events  []streamlib.Event
	size    int
	next    streamlib.Offset
	last    time.Time
	scratch []byte

	begun bool  // the export's start was read, and its end was not
	done  total // of this export

	mu sync.Mutex // guards what follows
	Summary
	failed error
	flight int
	room   *sync.Cond
	before map[string]chan struct{} // by name, closed when the batch of the stream that came last is done
}

// read takes the lines apart.
func (m *importer) read() error {
	for {
		b, err := m.lines.next()
		switch {
		case err == io.EOF && m.lines.number > 0 && !m.begun:
			return nil
		case err == io.EOF, err == io.ErrUnexpectedEOF:
			return fmt.Errorf("line %d: %w export: it ends here and is not whole; export it again", m.lines.number+1,
				streamlib.ErrInvalid)
		case err != nil:
			return err
		}
		if bytes.HasPrefix(b, []byte(eventStart)) {
			err = m.event(b)
		} else {
			err = m.other(b)
		}
		if m.ctx.Err() != nil {
			return context.Cause(m.ctx)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w line: %w", m.lines.number, streamlib.ErrInvalid, err)
		}
	}
}

func (m *importer) event(b []byte) (err error) {
	if m.to == nil {
		return fmt.Errorf("an event stands outside of a stream")
	}
	var e streamlib.Event
	if e, m.scratch, err = parseEvent(b, &m.to.head, m.scratch); err != nil {
		return err
	}
	if e.Offset != m.next || e.Offset >= m.to.tail {
		return fmt.Errorf("event %d of %q stands where %d should, and the stream goes up to %d", e.Offset, m.to.name,
			m.next, m.to.tail)
	}
	created := e.CreatedAt()
	if created.IsZero() || created.Before(m.last) {
		return fmt.Errorf("event %d of %q has no time, or one before its predecessor's", e.Offset, m.to.name)
	}
	size := len(e.Record())
	if m.size+size > streamlib.MaxBatch && m.size > 0 {
		m.send(false)
	}
	m.events, m.size, m.next, m.last = append(m.events, e), m.size+size, m.next+1, created
	return nil
}

func (m *importer) other(b []byte) error {
	parsed, err := parseOther(b)
	if err != nil {
		return err
	}
	switch l := parsed.(type) {
	case nil:
		if m.begun {
			return fmt.Errorf("an export begins here, and the one before is not whole")
		}
		m.begun, m.done = true, total{}
	case head:
		if !m.begun || m.to != nil {
			return fmt.Errorf("stream %q begins outside of an export, or in another stream", l.name)
		}
		m.to, m.next, m.last = m.receive(l), l.from, time.Time{}
	case foot:
		return m.foot(l)
	case total:
		if !m.begun || m.to != nil || l != m.done {
			return fmt.Errorf("it ends an export of %d whole streams with %d events, and there are %d with %d", l.streams,
				l.events, m.done.streams, m.done.events)
		}
		m.begun = false
	}
	return nil
}

func (m *importer) foot(f foot) error {
	if m.to == nil || f.name != m.to.name {
		return fmt.Errorf("stream %q ends, and did not begin", f.name)
	}
	if f.tail != m.next || f.cause == "" && f.tail != m.to.tail {
		return fmt.Errorf("stream %q ends at %d, and its events at %d", f.name, f.tail, m.next)
	}
	m.done.events += int64(f.tail - m.to.from)
	if f.cause == "" {
		m.done.streams++
	} else {
		m.mu.Lock()
		m.broken(f.name, f.cause)
		m.mu.Unlock()
	}
	if f.cause == "" || len(m.events) > 0 {
		m.send(f.cause == "")
	}
	m.to = nil
	return nil
}

// send gives the events that were read to the receiver, once that has those before. Whole says that they are all.
func (m *importer) send(whole bool) {
	to, events, cost := m.to, m.events, max(m.size, minFlight)
	m.events, m.size = nil, 0
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.flight > 0 && m.flight+cost > maxFlight {
		m.room.Wait()
	}
	m.flight += cost
	before, done := m.before[to.name], make(chan struct{})
	m.before[to.name] = done
	m.running.Go(func() {
		if before != nil {
			<-before
		}
		var stored int
		err := context.Cause(m.ctx)
		if err == nil {
			stored, err = to.take(m.ctx, events, whole)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if close(done); m.before[to.name] == done {
			delete(m.before, to.name)
		}
		m.flight -= cost
		m.room.Signal()
		m.Events += int64(len(events))
		m.Stored += int64(stored)
		switch {
		case err == nil && whole:
			m.Streams++
		case err != nil && m.failed == nil:
			m.failed = err
			m.cancel(err)
		}
	})
}
