package streamhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// A subscription is what a request is to follow.
type subscription struct {
	*place
	r       *http.Request // whose context ends with the subscription
	cancel  func()
	stream  streamlib.Stream
	of      streamlib.Info
	begin   streamlib.Offset
	events  iter.Seq2[[]streamlib.Event, error] // nil where there is nothing to send
	opening []byte
}

// follow subscribes to a stream. What it needs of its goroutine's stack, of which there is one for each subscriber, is
// little while it waits, while the header is written, for which net/http takes much, and while the storage is asked:
// so that stays at 8 KiB. What is known of the stream is therefore kept elsewhere.
func (h *handler) follow(w http.ResponseWriter, r *http.Request, name string) error {
	s, err := h.subscribe(w, r, name)
	if s == nil {
		return err
	}
	defer s.cancel()
	f := openFrames(w, s.r, s.begin, s.of.Tail, s.opening)
	defer f.close()
	if s.events == nil {
		return nil
	}
	f.until, f.suffix = s.until, suffixOf(s.of.Life)
	defer h.counted.subscribed(f, name)()
	if h.frame(f, s.r, s.events, s.types, true) {
		s.end(r.Context(), f)
	}
	return nil
}

// end writes that nothing will come any more.
func (s *subscription) end(ctx context.Context, f *frames) {
	end := f.tail // of one that from was beyond no event has told
	if now, err := s.stream.Stat(ctx); err == nil && now.Life == s.of.Life {
		end = now.Tail
	}
	_ = f.write(appendEnd(nil, end), true)
}

// subscribe begins the subscription that r asks for; it is nil where the answer is none. Where nothing will come any
// more that is 204, which ends a browser's attempts.
func (h *handler) subscribe(w http.ResponseWriter, r *http.Request, name string) (*subscription, error) {
	p, err := placeOf(r)
	if err != nil {
		return nil, err
	}
	s := &subscription{place: p, r: r, cancel: func() {}, stream: h.streams.Stream(name), opening: []byte(retry)}
	if err := s.find(r.Context()); err != nil {
		return nil, err
	}
	if s.until && !s.of.Closed && s.of.Tail != untold && s.begin >= s.of.Tail { // there is nothing to send
		if s.after != streamlib.Now { // to a reader who has had all, and whom this keeps from coming again
			w.WriteHeader(http.StatusNoContent)
			return nil, nil
		}
		s.opening = appendPosition(s.opening, s.begin-1, s.of.Tail, suffixOf(s.of.Life))
		return s, nil
	}
	s.r, s.cancel = UntilEnd(r)
	// Before the client hears of it: what is deleted from here on ends it.
	s.events = s.stream.Subscribe(h.inTurn(s.r.Context(), 0), s.begin)
	was, life := there(s.of), s.of.Life
	err = s.stat(r.Context())
	// It was deleted in between, and the place is one in its former life, or it was trimmed.
	again := was && (s.of.Life != life || s.of.First > s.begin)
	over := s.of.Closed && s.of.Tail != untold && s.begin >= s.of.Tail
	if err != nil || again || over {
		s.cancel()
		for range s.events {
		}
	}
	switch {
	case err != nil:
		return nil, err
	case again:
		return h.subscribe(w, r, name)
	case over:
		setTail(w.Header(), s.of)
		setClosed(w.Header())
		w.WriteHeader(http.StatusNoContent)
		return nil, nil
	}
	// Who would connect again and again is refused where there is nothing to send.
	if s.begin < s.of.Tail && h.damaged(name) {
		if err := s.try(); err != nil {
			s.cancel()
			return nil, err
		}
	}
	// All that the subscription yields is of this life, for if that is not the one that it began in it yields nothing.
	// Where an event is there at once it tells the position, and until then the same request goes there again.
	if !s.fixed() || s.begin >= s.of.Tail {
		s.opening = appendPosition(s.opening, s.begin-1, s.of.Tail, suffixOf(s.of.Life))
	}
	return s, nil
}

// try waits for what the subscription yields first, and returns the error where it is one.
func (s *subscription) try() error {
	next, stop := iter.Pull2(s.events)
	end := s.cancel
	s.cancel = func() { stop(); end() }
	batch, err, _ := next()
	s.events = func(yield func([]streamlib.Event, error) bool) {
		for ok := true; ok && yield(batch, err); batch, err, ok = next() {
		}
	}
	return err
}

// A place is where a request asks a subscription to begin.
type place struct {
	from  streamlib.Offset
	last  int              // instead of from
	since *time.Time       // instead of both; nil where none is told
	after streamlib.Offset // the last event that was seen, and so ahead of all; Now where none is told
	life  *int64           // that it was seen in; nil is the present one
	types []string
	until bool // the subscription ends where it has caught up
}

// placeOf returns the place that r's URL and header name.
func placeOf(r *http.Request) (*place, error) {
	q, err := parameters(r, "offset", "since", "last", "until", "type", "last-event-id", "lastEventId")
	if err == nil {
		err = cmp.Or(q.apart("last", "offset"), q.apart("since", "offset"), q.apart("since", "last"))
	}
	if err != nil {
		return nil, err
	}
	from, err := q.offset("offset", streamlib.Now)
	last, errLast := q.count("last")
	since, errSince := q.since("since")
	p := &place{from, last, since, streamlib.Now, nil, q["type"], q.has("until")}
	if p.until && q.get("until") != "tail" {
		err = cmp.Or(err, fmt.Errorf("%w until %q: it is tail", streamlib.ErrInvalid, q.get("until")))
	}
	if err := cmp.Or(err, errLast, errSince); err != nil {
		return p, err
	}
	resume := r.Header.Get("Last-Event-ID")
	sent := resume != ""
	// The first is a polyfill's, which adds it to what the URL has.
	for _, name := range [...]string{"lastEventId", "last-event-id"} {
		if resume == "" && q.has(name) {
			if resume = q.get(name); resume == "" {
				return p, fmt.Errorf("%w %s: it is empty", streamlib.ErrInvalid, name)
			}
		}
	}
	if resume == "" {
		return p, nil
	}
	m, err := parseMark(resume)
	if err != nil {
		return p, fmt.Errorf("%w Last-Event-ID %q: it is the id of an event, -1, or a number of at most %d",
			streamlib.ErrInvalid, resume, streamlib.MaxOffset)
	}
	if sent && m.offset >= 0 && m.life == nil { // the id of a client that writes numbers in its own way
		m.life = new(int64)
	}
	p.after, p.life = m.offset, m.life
	return p, nil
}

// fixed tells whether the place stays the same while the stream grows.
func (p *place) fixed() bool {
	return p.after != streamlib.Now || p.last == 0 && p.from != streamlib.Now
}

// stat learns what is known of the stream, with a tail that is untold where that is damaged and the place does not
// need it: what stands before the damage still reads.
func (s *subscription) stat(ctx context.Context) (err error) {
	s.of, err = s.stream.Stat(ctx)
	if _, corrupt := errors.AsType[*streamlib.CorruptError](err); corrupt && s.fixed() && s.after < 0 {
		s.of.Tail, err = untold, nil
	}
	return err
}

// find learns what is known of the stream, and the offset of the place in it.
func (s *subscription) find(ctx context.Context) error {
	err := s.stat(ctx)
	if err != nil {
		return err
	}
	switch resumed := s.after != streamlib.Now; {
	case resumed && there(s.of) && !(mark{s.after, s.life}).of(s.of.Life):
		return &streamlib.GoneError{Stream: s.of.Name, After: s.after, Tail: s.of.Tail}
	case resumed && s.after+1 < s.of.First:
		return s.gone(s.after)
	// An opening's: no event was seen yet.
	case s.after == streamlib.Beginning, resumed && s.after+1 == s.from:
		s.begin = s.after + 1
	case resumed && s.after >= s.of.Tail:
		return s.gone(s.after)
	case resumed:
		s.begin = s.after + 1
	case s.last > 0:
		s.begin, err = startOfLast(ctx, s.stream, s.of, s.last, s.types)
	case s.since != nil:
		s.begin, err = startOfSince(ctx, s.stream, s.of.Tail, *s.since)
	case s.from == streamlib.Now:
		s.begin = s.of.Tail
	case s.from == streamlib.Beginning:
		s.begin = s.of.First
	case s.from < s.of.First:
		return s.gone(s.from - 1)
	default:
		s.begin = s.from
	}
	return err
}

// gone says that what follows after is not kept, or not yet there.
func (s *subscription) gone(after streamlib.Offset) error {
	return &streamlib.GoneError{Stream: s.of.Name, After: after, Tail: s.of.Tail, First: s.of.First}
}

// untold is a tail that is not known.
const untold = streamlib.Now

// damaged tells whether the stream is known to be.
func (h *handler) damaged(name string) bool {
	return slices.ContainsFunc(h.streams.Damaged(), func(info streamlib.Info) bool { return info.Name == name })
}
