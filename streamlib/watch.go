package streamlib

import (
	"maps"
	"slices"
	"strings"
)

// A Watch notes which streams change, by name: what it costs depends on their number, and not on how much is appended
// to each, and nobody is woken. One goroutine may use it.
type Watch struct {
	// Much has a value once a single stream got as much as the watch was told since Streams was last called.
	Much <-chan struct{}

	feed    *feed
	much    chan struct{}
	events  int // that are much; so many bytes are, too
	bytes   int64
	streams map[string]amount
	of      []string // names, or beginnings of names with a * behind; none are all
}

type amount struct {
	events int
	bytes  int64
}

func (f *feed) watch(events int, bytes int64, of []string) *Watch {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := &Watch{
		feed: f, much: make(chan struct{}, 1), events: events, bytes: bytes, streams: map[string]amount{}, of: of,
	}
	w.Much = w.much
	if f.watches == nil {
		f.watches = map[*Watch]struct{}{}
	}
	f.watches[w] = struct{}{}
	return w
}

// changed notes a stream to which nothing was appended.
func (f *feed) changed(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watches {
		w.note(name, 0, 0)
	}
}

// note is called by who holds the feed's lock.
func (w *Watch) note(name string, events int, bytes int64) {
	if len(w.of) > 0 && !slices.ContainsFunc(w.of, func(pattern string) bool {
		prefix, many := strings.CutSuffix(pattern, "*")
		return name == prefix || many && strings.HasPrefix(name, prefix)
	}) {
		return
	}
	a := w.streams[name]
	a.events, a.bytes = a.events+events, a.bytes+bytes
	w.streams[name] = a
	if w.events > 0 && a.events >= w.events || w.bytes > 0 && a.bytes >= w.bytes {
		select {
		case w.much <- struct{}{}:
		default: // it is known
		}
	}
}

// Streams returns the names of the streams that were appended to, closed, trimmed or deleted since it was last
// called, in no order.
func (w *Watch) Streams() []string {
	w.feed.mu.Lock()
	streams := w.streams
	w.streams = map[string]amount{}
	select {
	case <-w.much:
	default:
	}
	w.feed.mu.Unlock()
	return slices.Collect(maps.Keys(streams))
}

// Close ends the watch.
func (w *Watch) Close() {
	w.feed.mu.Lock()
	defer w.feed.mu.Unlock()
	delete(w.feed.watches, w)
}
