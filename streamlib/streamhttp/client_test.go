package streamhttp_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// restartable serves h on one address, whatever happens to the server.
type restartable struct {
	t      testing.TB
	h      http.Handler
	addr   string
	cancel context.CancelFunc
	server *http.Server
	served chan struct{}
}

func (s *restartable) start() {
	s.t.Helper()
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.addr = l.Addr().String()
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(s.t.Context())
	s.server, s.served = streamhttp.NewServer(ctx, s.h, nil), make(chan struct{})
	go func() {
		defer close(s.served)
		_ = s.server.Serve(l)
	}()
}

// stop ends the server at once, connections and all; it is waited for.
func (s *restartable) stop() {
	s.cancel()
	_ = s.server.Close()
	<-s.served
}

func TestFollowGoesOnOverRestarts(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	server := &restartable{t: t, h: quickRetry(streamhttp.NewHandler(m, streamhttp.Config{})), addr: "127.0.0.1:0"}
	server.start()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	waits, restarted := make(chan error, 1000), make(chan struct{})
	follow := streamhttp.Follow{Reconnecting: func(err error) { waits <- err }}
	client := &streamhttp.Client{URL: "http://" + server.addr}
	add(t, m.Stream("s"), "0")
	next := streamlib.Offset(0)
	for events, err := range client.Stream("s").Follow(ctx, follow) {
		is.NoErr(err)
		is.Equal(len(events), 1)
		is.Equal(events[0].Offset, next) // no gap, no repeat
		switch next++; next {
		case 20:
			server.stop()
			is.Equal(len(waits), 0) // a connection that broke alone was made again at once
			return
		case 10:
			server.stop()
			go func() { // comes back once the client has met nobody there
				defer close(restarted)
				<-waits
				<-waits
				server.start()
				add(t, m.Stream("s"), "0")
			}()
			continue
		case 11:
			<-restarted
			for len(waits) > 0 {
				<-waits
			}
		}
		if next%3 == 0 {
			server.stop()
			server.start()
		}
		add(t, m.Stream("s"), "0")
	}
	t.Fatal("it ended without an error")
}

func TestFollowEndsWithTheStream(t *testing.T) {
	is := is.New(t)
	client, m := serve(t, streamhttp.Config{})
	add(t, m.Stream("s"), "0")
	var last error
	for events, err := range client.Stream("s").Follow(t.Context(), streamhttp.Follow{}) {
		if last = err; len(events) > 0 {
			is.NoErr(m.Stream("s").Delete(t.Context()))
		}
	}
	is.True(errors.Is(last, streamlib.ErrDeleted))
	is.Equal(last.Error(), `subscribe "s": stream was deleted`)
}

func TestFollowTellsOfAnotherLife(t *testing.T) {
	for _, n := range []int{1, 3, 5} { // events of the next life
		is := is.New(t)
		m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
		server := &restartable{t: t, h: quickRetry(streamhttp.NewHandler(m, streamhttp.Config{})), addr: "127.0.0.1:0"}
		server.start()
		client := &streamhttp.Client{URL: "http://" + server.addr}
		add(t, m.Stream("s"), "0", "1", "2")
		var last error
		seen := 0
		for events, err := range client.Stream("s").Follow(t.Context(), streamhttp.Follow{}) {
			if seen, last = seen+len(events), err; len(events) > 0 {
				server.stop()
				is.NoErr(m.Stream("s").Delete(t.Context()))
				add(t, m.Stream("s"), slices.Repeat([]string{"0"}, n)...)
				server.start()
			}
		}
		server.stop()
		is.Equal(seen, 3)
		gone, ok := errors.AsType[*streamlib.GoneError](last)
		is.True(ok)
		is.Equal(*gone, streamlib.GoneError{Stream: "s", After: 2, Tail: streamlib.Offset(n)})
	}
}

func TestFollowFailsWhereItCannotBegin(t *testing.T) {
	is := is.New(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	is.NoErr(err)
	addr := l.Addr().String()
	is.NoErr(l.Close())
	f := streamhttp.Follow{Reconnecting: func(error) { t.Error("it was never connected") }}
	n := 0
	for _, err := range (&streamhttp.Client{URL: "http://" + addr}).Stream("s").Follow(t.Context(), f) {
		n++
		is.True(strings.Contains(err.Error(), "connection refused"))
	}
	is.Equal(n, 1)
}

// script answers the n-th request with its n-th handler, and further ones with the last.
func script(t testing.TB, handlers ...http.HandlerFunc) (*streamhttp.Client, *atomic.Int64) {
	var n atomic.Int64
	return serveHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handlers[min(int(n.Add(1)), len(handlers))-1](w, r)
	})), &n
}

func frames(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, text)
	}
}

func refuse(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Error(w, `{"error":"so it is"}`, code) }
}

func wire(o int) string {
	return strings.ReplaceAll(frame(o, "0"), "TIME", "2024-01-08T00:00:00.000Z") + "\n"
}

// bareID is a position as older servers tell it, which some clients pass over.
var bareID = regexp.MustCompile(`(?m)^id: (.*)\n\n`)

func TestFollowReconnectsOnlyWhereItMayHelp(t *testing.T) {
	const opening = "retry: 1\nid: -1\n\n" // as older servers say it
	for _, test := range []struct {
		name    string
		answers []http.HandlerFunc
		events  int
		err     string
		asked   int64
	}{
		{"a refusal", []http.HandlerFunc{refuse(400)}, 0, "so it is", 1},
		{"trouble at first", []http.HandlerFunc{refuse(503)}, 0, "so it is", 1},
		{"another server", []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {}}, 0,
			`subscribe "s": the answer is not that of a durable-streams server`, 1},
		{"trouble, then a refusal", []http.HandlerFunc{frames(opening + wire(0)), refuse(503), refuse(500), refuse(502),
			refuse(403)}, 1, "so it is", 5},
		{"cut before the first event", []http.HandlerFunc{frames("retry: 1\n"), frames("retry: 1\n" + wire(0)),
			refuse(410)}, 1, "so it is", 3},
		{"cut within an event", []http.HandlerFunc{frames(opening + wire(0) + wire(1)[:40]),
			frames("id: 0\n\n" + wire(1)), refuse(410)}, 2, "so it is", 3},
		{"cut between id and data", []http.HandlerFunc{frames(opening + wire(0)[:21]), frames("id: -1\n\n" + wire(0)),
			refuse(410)}, 1, "so it is", 3},
		{"a gap", []http.HandlerFunc{frames(opening + wire(0) + wire(2))}, 1,
			`subscribe "s": the server left out or repeated events`, 1},
		{"a gap at the beginning", []http.HandlerFunc{frames("retry: 1\n" + wire(1))}, 0,
			`subscribe "s": the server left out or repeated events`, 1},
		{"a gap over a reconnection", []http.HandlerFunc{frames(opening + wire(0)), frames("id: 4\n\n" + wire(5))}, 1,
			`subscribe "s": the server left out or repeated events`, 2},
		{"a repeat", []http.HandlerFunc{frames(opening + wire(0) + wire(0))}, 1,
			`subscribe "s": the server left out or repeated events`, 1},
		{"an id that is not the event's", []http.HandlerFunc{frames(opening + strings.Replace(wire(0), "id: 0", "id: 1", 1))}, 0,
			`subscribe "s": the answer is not that of a durable-streams server`, 1},
		{"an event without an id", []http.HandlerFunc{frames(opening + wire(0)[len("id: 0000000000000000\n"):])}, 0,
			`subscribe "s": the answer is not that of a durable-streams server`, 1},
		{"what is no event", []http.HandlerFunc{frames(opening + "data: {}\n\n")}, 0,
			`subscribe "s": the answer is not that of a durable-streams server`, 1},
		{"deleted", []http.HandlerFunc{frames(opening + wire(0) + ": deleted\n")}, 1, `subscribe "s": stream was deleted`, 1},
	} {
		for _, form := range []string{"", " of an older server"} {
			t.Run(test.name+form, func(t *testing.T) {
				is := is.New(t)
				answers := slices.Clone(test.answers)
				for i, answer := range answers {
					if form == "" {
						answers[i] = rewritten(answer, func(s string) string {
							return bareID.ReplaceAllString(s, position("$1", "0000000000000000")+"\n")
						}).ServeHTTP
					}
				}
				client, asked := script(t, answers...)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				n, last := 0, error(nil)
				for events, err := range client.Stream("s").Subscribe(ctx, 0) {
					n, last = n+len(events), err
				}
				is.Equal(n, test.events)
				is.Equal(last.Error(), test.err)
				is.Equal(asked.Load(), test.asked)
			})
		}
	}
}

func TestRedirectsAreFollowedWithinTheOrigin(t *testing.T) {
	is := is.New(t)
	var stolen atomic.Int64
	thief := serveHandler(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stolen.Add(1) }))
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	h := streamhttp.NewHandler(m, streamhttp.Config{})
	to, code := "", 0
	client := serveHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path, ok := strings.CutPrefix(r.URL.Path, "/moved"); ok {
			http.Redirect(w, r, to+path+"?"+r.URL.RawQuery, code)
			return
		}
		is.Equal(r.Header.Get("Authorization"), "Bearer secret")
		h.ServeHTTP(w, r)
	}))
	home := client.URL
	client.URL, client.Token = home+"/moved", "secret"
	s := client.Stream("s")
	ask := map[string]func() error{
		"append": func() error {
			_, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})
			return err
		},
		"stat": func() error { _, err := s.Stat(t.Context()); return err },
		"read": func() (last error) {
			for _, err := range s.Read(t.Context(), 0, 1) {
				last = err
			}
			return last
		},
		"subscribe": func() error {
			for _, err := range s.Subscribe(t.Context(), 0) {
				return err
			}
			return nil
		},
		"subscribe to all": func() error {
			for _, err := range client.Subscribe(t.Context(), "") {
				return err
			}
			return nil
		},
		"list":   func() error { _, err := client.List(t.Context(), streamhttp.ListOptions{}); return err },
		"health": func() error { _, err := client.Health(t.Context()); return err },
		"delete": func() error { return s.Delete(t.Context()) },
	}
	add(t, m.Stream("s"), "0")
	for _, test := range []struct {
		to      string
		code    int
		refused string // the requests that are
	}{
		{"", 307, ""},
		{"", 308, ""},
		{home, 307, ""},
		{"", 301, "append delete"}, // which would make a GET of it
		{"", 303, "append delete"},
		{thief.URL, 301, "append delete health list read stat subscribe subscribe to all"},
		{thief.URL, 307, "append delete health list read stat subscribe subscribe to all"}, // another port
		{strings.Replace(home, "127.0.0.1", "localhost", 1), 308,
			"append delete health list read stat subscribe subscribe to all"},
		{strings.Replace(home, "http:", "https:", 1), 307, "append delete health list read stat subscribe subscribe to all"},
	} {
		to, code = test.to, test.code
		var refused []string
		for _, name := range slices.Sorted(maps.Keys(ask)) {
			if err := ask[name](); err != nil {
				refused = append(refused, name)
				is.True(strings.Contains(err.Error(), "the server redirects to "+cmp.Or(test.to, home)+"/"))
			}
			if name == "delete" {
				add(t, m.Stream("s"), "0")
			}
		}
		is.Equal(strings.Join(refused, " "), test.refused)
	}
	is.Equal(stolen.Load(), int64(0))
	to, code = "/moved", 307 // without end
	is.True(strings.Contains(ask["list"]().Error(), "again and again"))
}

// TestAnswersThatAreCutAreErrors: behind a proxy that speaks HTTP/1.0 an answer may end early and look whole.
func TestAnswersThatAreCutAreErrors(t *testing.T) {
	answer := func(promised string, events ...int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/x-ndjson")
			if promised != "" {
				w.Header().Set("Stream-Next-Offset", promised)
			}
			for _, o := range events {
				fmt.Fprintln(w, strings.ReplaceAll(event(o, "0"), "TIME", "2024-01-08T00:00:00.000Z"))
			}
		}
	}
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc
		q      streamhttp.Query
		err    string
	}{
		{"whole", answer("3", 0, 1, 2), streamhttp.Query{}, ""},
		{"of an older server", answer("", 0, 1), streamhttp.Query{}, ""},
		{"cut", answer("0000000000000003", 0, 1), streamhttp.Query{},
			`read "s": the answer ends before offset 2, and was to go up to 3: unexpected EOF`},
		{"cut before the first event", answer("3"), streamhttp.Query{From: streamlib.Beginning},
			`read "s": the answer ends before offset 0, and was to go up to 3: unexpected EOF`},
		{"cut before a later event", answer("3"), streamhttp.Query{From: 2},
			`read "s": the answer ends before offset 2, and was to go up to 3: unexpected EOF`},
		{"the last ones, cut", answer("3", 1), streamhttp.Query{Last: 2},
			`read "s": the answer ends before offset 2, and was to go up to 3: unexpected EOF`},
		{"beyond the tail", answer("3"), streamhttp.Query{From: 7}, ""},
		{"at the tail", answer("3"), streamhttp.Query{From: 3}, ""},
		{"from now", answer("3"), streamhttp.Query{From: streamlib.Now}, ""},
		{"filtered", answer("3", 1), streamhttp.Query{Types: []string{"x"}}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			is := is.New(t)
			client, _ := script(t, test.answer)
			var last error
			for _, err := range client.Stream("s").Query(t.Context(), test.q) {
				last = err
			}
			if test.err == "" {
				is.NoErr(last)
				return
			}
			is.Equal(last.Error(), test.err)
			is.True(errors.Is(last, io.ErrUnexpectedEOF))
		})
	}
	t.Run("an append's", func(t *testing.T) {
		is := is.New(t)
		client, asked := script(t, answer("3", 0), answer("3", 0, 1, 2))
		receipt, err := client.Stream("s").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("0", "0", "0"), Key: "k"})
		is.NoErr(err) // its outcome was open, so it was sent again
		is.Equal(len(receipt.Events), 3)
		is.Equal(asked.Load(), int64(2))
	})
	t.Run("a list", func(t *testing.T) {
		is := is.New(t)
		client, _ := script(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"streams":["a",`)
		})
		_, err := client.List(t.Context(), streamhttp.ListOptions{})
		is.True(errors.Is(err, io.ErrUnexpectedEOF))
	})
}

func TestFollowResumesByItsLastEvent(t *testing.T) {
	is := is.New(t)
	var asked []string
	note := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.URL.RawQuery+" "+r.Header.Get("Last-Event-ID"))
			next(w, r)
		}
	}
	at := func(id string) string { return position(id, "0000000000000007") + "\n" }
	client, _ := script(t, note(frames("retry: 1\n"+at("6"))), note(frames(at("6")+wire(7)+at("0000000000000009"))),
		note(frames(at("9")+wire(9))))
	var last error
	for _, err := range client.Stream("s").Follow(t.Context(),
		streamhttp.Follow{From: streamlib.Now, Types: []string{"x"}}) {
		last = err
	}
	is.True(strings.Contains(last.Error(), "left out or repeated")) // 9 was passed
	is.Equal(asked, []string{"offset=now&type=x ", "offset=now&type=x 6",
		"offset=now&type=x 0000000000000009"})
}

func TestFollowSince(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	server := &restartable{t: t, h: quickRetry(streamhttp.NewHandler(m, streamhttp.Config{})), addr: "127.0.0.1:0"}
	server.start()
	defer func() { server.stop() }()
	client := &streamhttp.Client{URL: "http://" + server.addr}
	add(t, m.Stream("s"), abc...)
	var got []streamlib.Offset
	for events, err := range client.Stream("s").Follow(t.Context(), streamhttp.Follow{Since: "1h"}) {
		is.NoErr(err)
		for _, e := range events {
			got = append(got, e.Offset)
		}
		if len(got) == 5 {
			break
		} else if len(got) == 3 { // it goes on behind what it has seen, and not since an hour ago
			server.stop()
			server.start()
			add(t, m.Stream("s"), abc[:2]...)
		}
	}
	is.Equal(got, []streamlib.Offset{0, 1, 2, 3, 4})
	for _, err := range client.Stream("s").Follow(t.Context(), streamhttp.Follow{Since: "1h ago"}) {
		is.True(errors.Is(err, streamlib.ErrInvalid))
	}
}

// TestFollowResumes where an earlier subscription ended, unless the stream was deleted since.
func TestFollowResumes(t *testing.T) {
	client, m := serve(t, streamhttp.Config{})
	add(t, m.Stream("s"), abc...)
	for _, test := range []struct {
		stream string
		from   streamlib.Offset
		want   []streamlib.Offset
		gone   *streamlib.GoneError
	}{
		{"s", 0, []streamlib.Offset{0, 1, 2}, nil},
		{"s", 1, []streamlib.Offset{1, 2}, nil},
		{"s", 3, nil, nil},
		{"s", 4, nil, &streamlib.GoneError{Stream: "s", After: 3, Tail: 3}},
		{"none", 0, nil, nil},
		{"none", 1, nil, &streamlib.GoneError{Stream: "none", After: 0, Tail: 0}},
	} {
		t.Run(fmt.Sprint(test.stream, " ", test.from), func(t *testing.T) {
			is := is.New(t)
			var got []streamlib.Offset
			var last error
			f := streamhttp.Follow{From: test.from, Resume: true, UntilTail: true}
			for events, err := range client.Stream(test.stream).Follow(t.Context(), f) {
				last = err
				for _, e := range events {
					got = append(got, e.Offset)
				}
			}
			is.Equal(got, test.want)
			gone, _ := errors.AsType[*streamlib.GoneError](last)
			is.Equal(gone, test.gone)
			is.Equal(last == nil, gone == nil)
		})
	}
}

func TestFollowTellsWhenItHasCaughtUp(t *testing.T) {
	bubble(t, func(t *testing.T, client *streamhttp.Client, m *streamlib.Manager, _ func() net.Conn) {
		is := is.New(t)
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		add(t, m.Stream("s"), abc...)
		var got []string
		note := func(format string, args ...any) {
			got = append(got, fmt.Sprintf(format, args...)+time.Since(start).String())
		}
		f := streamhttp.Follow{Types: []string{"b"}, CaughtUp: func(tail streamlib.Offset) {
			switch note("tail %d at ", tail); len(got) {
			case 3: // after a silence
				add(t, m.Stream("s"), abc...)
			case 5:
				cancel()
			}
		}}
		for events, err := range client.Stream("s").Follow(ctx, f) {
			if err != nil {
				is.True(errors.Is(err, context.Canceled))
				break
			}
			note("event %d at ", events[0].Offset)
		}
		is.Equal(got, []string{"event 1 at 0s", "tail 3 at 0s", "tail 3 at 15s", "event 4 at 15s", "tail 6 at 30s"})
	})
}

func TestFollowUntilTail(t *testing.T) {
	client, m := serve(t, streamhttp.Config{})
	add(t, m.Stream("s"), abc...)
	for _, test := range []struct {
		stream string
		f      streamhttp.Follow
		want   []streamlib.Offset
		tail   streamlib.Offset
	}{
		{"s", streamhttp.Follow{}, []streamlib.Offset{0, 1, 2}, 3},
		{"s", streamhttp.Follow{From: 1}, []streamlib.Offset{1, 2}, 3},
		{"s", streamhttp.Follow{From: streamlib.Now}, nil, 3},
		{"s", streamhttp.Follow{From: 9}, nil, -1}, // the place is not the tail
		{"s", streamhttp.Follow{Types: []string{"b"}}, []streamlib.Offset{1}, 3},
		{"s", streamhttp.Follow{Last: 1}, []streamlib.Offset{2}, 3},
		{"s", streamhttp.Follow{Since: "1h"}, []streamlib.Offset{0, 1, 2}, 3},
		{"none", streamhttp.Follow{}, nil, 0},
	} {
		t.Run(fmt.Sprintf("%+v", test.f), func(t *testing.T) {
			is := is.New(t)
			var got []streamlib.Offset
			tail := streamlib.Offset(-1)
			test.f.UntilTail, test.f.CaughtUp = true, func(at streamlib.Offset) { tail = at }
			for events, err := range client.Stream(test.stream).Follow(t.Context(), test.f) {
				is.NoErr(err)
				for _, e := range events {
					got = append(got, e.Offset)
				}
			}
			is.Equal(got, test.want)
			is.Equal(tail, test.tail)
		})
	}
}

// TestFollowUntilTailOverALostConnection: it ends where it is told the tail, or by an answer that there is no more,
// and not where the connection does.
func TestFollowUntilTailOverALostConnection(t *testing.T) {
	const opening = "retry: 1\n"
	nothing := func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) }
	for _, test := range []struct {
		name    string
		answers []http.HandlerFunc
		events  int
	}{
		{"told", []http.HandlerFunc{frames(opening + wire(0)), frames(opening + ": ping\n"),
			frames(opening + wire(1) + caughtUp(2))}, 2},
		{"all was there", []http.HandlerFunc{frames(opening + wire(0)), refuse(503), nothing}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			is := is.New(t)
			answers := slices.Clone(test.answers)
			for i, answer := range answers {
				answers[i] = func(w http.ResponseWriter, r *http.Request) {
					is.Equal(r.FormValue("until"), "tail")
					answer(w, r)
				}
			}
			client, asked := script(t, answers...)
			n := 0
			for events, err := range client.Stream("s").Follow(t.Context(), streamhttp.Follow{UntilTail: true}) {
				is.NoErr(err)
				n += len(events)
			}
			is.Equal(n, test.events)
			is.Equal(asked.Load(), int64(3))
		})
	}
}

// TestFollowPausesWhereItIsOnlyToldTheTail: a server that ends each connection behind its opening is not asked again
// and again without a pause.
func TestFollowPausesWhereItIsOnlyToldTheTail(t *testing.T) {
	is := is.New(t)
	client, asked := script(t, frames("retry: 1\n"+position("-1", "0000000000000000")+"\n"+caughtUp(0)))
	ctx, cancel := context.WithCancel(t.Context())
	f := streamhttp.Follow{Reconnecting: func(error) { cancel() }}
	for _, err := range client.Stream("s").Follow(ctx, f) {
		is.True(errors.Is(err, context.Canceled))
	}
	is.Equal(asked.Load(), int64(2))
}

func TestFollowLast(t *testing.T) {
	is := is.New(t)
	client, m := serve(t, streamhttp.Config{})
	add(t, m.Stream("s"), abc...)
	var got []streamlib.Offset
	for events, err := range client.Stream("s").Follow(t.Context(), streamhttp.Follow{Last: 1, Types: []string{"a"}}) {
		is.NoErr(err)
		for _, e := range events {
			got = append(got, e.Offset)
		}
		if len(got) == 2 {
			break
		}
		add(t, m.Stream("s"), abc[1], abc[0])
	}
	is.Equal(got, []streamlib.Offset{2, 4})
}

func TestSilentConnectionIsTakenForLost(t *testing.T) {
	opening := frames("retry: 1000\n" + position("-1", "0000000000000000") + "\n")
	for _, test := range []struct {
		name  string
		first http.HandlerFunc
		fails bool
	}{
		{"before it began", func(http.ResponseWriter, *http.Request) {}, true},
		{"once it began", func(w http.ResponseWriter,
			r *http.Request) {
			opening(w, r)
			_ = http.NewResponseController(w).Flush()
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var n atomic.Int64
			wrap := func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if n.Add(1) > 1 {
						h.ServeHTTP(w, r)
						return
					}
					test.first(w, r)
					<-r.Context().Done() // as where the network has gone
				})
			}
			bubbleAround(t, wrap, func(t *testing.T, client *streamhttp.Client, m *streamlib.Manager, _ func() net.Conn) {
				is := is.New(t)
				start := time.Now()
				add(t, m.Stream("s"), "0")
				for events, err := range client.Stream("s").Subscribe(t.Context(), 0) {
					is.Equal(err != nil, test.fails)
					is.Equal(len(events) == 1, !test.fails)
					break
				}
				is.Equal(time.Since(start), 45*time.Second)
			})
		})
	}
}

// TestServerThatSendsNothing is an error of everything that waits for it, at its first byte and at a later one.
func TestServerThatSendsNothing(t *testing.T) {
	const begun = `{"offset":"0000000000000000","eventStreamId":"s","data":`
	one, large := streamlib.JSON("1"), streamlib.JSON(`"`+strings.Repeat("x", 1<<20)+`"`)
	last := func(events iter.Seq2[[]streamlib.Event, error]) (err error) {
		for _, err = range events {
		}
		return err
	}
	for _, test := range []struct {
		name string
		call func(context.Context, *streamhttp.Client, *streamhttp.Remote) error
		says string
		took time.Duration
	}{
		{"append", func(ctx context.Context, _ *streamhttp.Client, s *streamhttp.Remote) error {
			_, err := s.Append(ctx, streamlib.Batch{Data: one})
			return err
		}, `append "s": `, 30 * time.Second},
		{"append with a key", func(ctx context.Context, _ *streamhttp.Client, s *streamhttp.Remote) error {
			_, err := s.Append(ctx, streamlib.Batch{Data: one, Key: "k"})
			return err
		}, `append "s": `, 30 * time.Second},
		{"append of what it does not take", func(ctx context.Context, _ *streamhttp.Client, s *streamhttp.Remote) error {
			_, err := s.Append(ctx, streamlib.Batch{Data: large})
			return err
		}, `append "s": `, 30 * time.Second},
		{"read", func(ctx context.Context, _ *streamhttp.Client, s *streamhttp.Remote) error {
			return last(s.Read(ctx, 0, streamlib.MaxOffset+1))
		}, `read "s": `, 30 * time.Second},
		{"a search", func(ctx context.Context, _ *streamhttp.Client, s *streamhttp.Remote) error {
			return last(s.Query(ctx, streamhttp.Query{Types: []string{"rare"}}))
		}, `read "s": `, 10 * time.Minute},
		{"a wait", func(ctx context.Context, _ *streamhttp.Client, s *streamhttp.Remote) error {
			return last(s.Query(ctx, streamhttp.Query{Wait: time.Minute}))
		}, `read "s": `, 90 * time.Second},
		{"stat", func(ctx context.Context, _ *streamhttp.Client, s *streamhttp.Remote) error {
			_, err := s.Stat(ctx)
			return err
		}, `stat "s": `, 30 * time.Second},
		{"delete", func(ctx context.Context, _ *streamhttp.Client, s *streamhttp.Remote) error {
			return s.Delete(ctx)
		}, `delete "s": `, 30 * time.Second},
		{"list", func(ctx context.Context, c *streamhttp.Client, _ *streamhttp.Remote) error {
			_, err := c.List(ctx, streamhttp.ListOptions{})
			return err
		}, `list streams: `, 30 * time.Second},
		{"health", func(ctx context.Context, c *streamhttp.Client, _ *streamhttp.Remote) error {
			_, err := c.Health(ctx)
			return err
		}, ``, 30 * time.Second},
	} {
		for _, at := range []string{"at first", "later"} {
			if at == "later" && (test.name == "stat" || test.name == "delete") {
				continue // their answers have no body
			}
			var end chan struct{}
			mute := func(http.Handler) http.Handler {
				end = make(chan struct{}) // of the bubble
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if at == "later" {
						w.Header().Set("Content-Type", "application/x-ndjson")
						if test.name == "list" || test.name == "health" {
							w.Header().Set("Content-Type", "application/json")
						}
						_, _ = io.WriteString(w, begun)
						_ = http.NewResponseController(w).Flush()
					}
					<-end
				})
			}
			t.Run(test.name+" "+at, func(t *testing.T) {
				bubbleAround(t, mute, func(t *testing.T, c *streamhttp.Client, _ *streamlib.Manager, _ func() net.Conn) {
					is := is.New(t)
					defer close(end)
					c.Patience = 30 * time.Second
					start := time.Now()
					err := test.call(t.Context(), c, c.Stream("s"))
					is.Equal(err.Error(), fmt.Sprintf("%sno answer from http://localhost for %v s", test.says,
						test.took.Seconds()))
					is.Equal(time.Since(start), test.took)
				})
			})
		}
	}
}

// TestReaderThatPauses is none that the server keeps waiting.
func TestReaderThatPauses(t *testing.T) {
	bubble(t, func(t *testing.T, client *streamhttp.Client, m *streamlib.Manager, _ func() net.Conn) {
		is := is.New(t)
		client.Patience = 10 * time.Second
		const events = 10
		for range events {
			add(t, m.Stream("s"), `"`+strings.Repeat("x", 100<<10)+`"`)
		}
		n := 0
		for got, err := range client.Stream("s").Query(t.Context(), streamhttp.Query{}) {
			is.NoErr(err)
			if n == 0 {
				time.Sleep(2 * client.Patience)
			}
			n += len(got)
		}
		is.Equal(n, events)
	})
}

// TestServerThatIsNotThere is said in one sentence.
func TestServerThatIsNotThere(t *testing.T) {
	is := is.New(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	is.NoErr(err)
	server := "127.0.0.1:" + fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	is.NoErr(l.Close())
	for url, says := range map[string]string{
		"http://" + server:                      "no answer from http://" + server + ": connection refused",
		"http://me:secret@" + server + "/path/": "no answer from http://me:xxxxx@" + server + "/path: connection refused",
	} {
		_, err = (&streamhttp.Client{URL: url}).Stream("s").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})
		is.Equal(err.Error(), `append "s": `+says)
		dial, ok := errors.AsType[*net.OpError](err)
		is.True(ok && dial.Op == "dial")
	}
	closing, _ := script(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	_, err = closing.Health(t.Context())
	is.Equal(err.Error(), "no answer from "+closing.URL+": it closed the connection")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = closing.Health(ctx)
	is.True(errors.Is(err, context.Canceled))
	is.Equal(err.Error(), "ask "+closing.URL+": context canceled")
}

// cut passes requests on to the server, and cuts the first n answers off when all has been done.
func cut(t testing.TB, server string, n int64) (*streamhttp.Client, *atomic.Int64) {
	target, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	var passed atomic.Int64
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(*http.Response) error {
		if passed.Add(1) <= n {
			panic(http.ErrAbortHandler)
		}
		return nil
	}
	return serveHandler(t, proxy), &passed
}

func TestAppendWithKeySurvivesLostAnswers(t *testing.T) {
	for _, data := range [][]string{{"1"}, {"1", "2", "3"}} {
		t.Run(fmt.Sprint(len(data), " events"), func(t *testing.T) {
			is := is.New(t)
			client, m := serve(t, streamhttp.Config{})
			proxied, passed := cut(t, client.URL, 2)
			receipt, err := proxied.Stream("s").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(data...), Key: "k"})
			is.NoErr(err)
			is.True(receipt.Repeated)
			is.Equal(len(receipt.Events), len(data))
			is.Equal(receipt.Events[0].Offset, streamlib.Offset(0))
			is.Equal(passed.Load(), int64(3))
			info, err := m.Stream("s").Stat(t.Context())
			is.NoErr(err)
			is.Equal(info.Tail, streamlib.Offset(len(data)))
		})
	}
}

func TestAppendIsRepeatedOnlyWithKeyAndWithinBounds(t *testing.T) {
	for _, test := range []struct {
		status int
		key    string
		asked  int64
	}{
		{503, "", 1}, {500, "", 1}, {503, "k", 6}, {500, "k", 6}, {502, "k", 6},
		{507, "k", 1}, {400, "k", 1}, {413, "k", 1}, {422, "k", 1}, {404, "k", 1}, {429, "k", 1},
	} {
		t.Run(fmt.Sprint(test.status, test.key), func(t *testing.T) {
			var asked atomic.Int64
			answer := func(http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1); refuse(test.status)(w, r) })
			}
			bubbleAround(t, answer, func(t *testing.T, client *streamhttp.Client, _ *streamlib.Manager, _ func() net.Conn) {
				is := is.New(t)
				_, err := client.Stream("s").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1"), Key: test.key})
				is.Equal(err.Error(), "so it is")
				is.Equal(asked.Load(), test.asked)
			})
		})
	}
	t.Run("a lost answer without a key", func(t *testing.T) {
		is := is.New(t)
		client, m := serve(t, streamhttp.Config{})
		proxied, passed := cut(t, client.URL, 1)
		_, err := proxied.Stream("s").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})
		is.True(err != nil)
		is.True(strings.HasPrefix(err.Error(), `append "s": `))
		is.Equal(passed.Load(), int64(1))
		info, err := m.Stream("s").Stat(t.Context())
		is.NoErr(err)
		is.Equal(info.Tail, streamlib.Offset(1))
	})
}

// given is a stream whose appends fail as they are told.
type given struct {
	streamlib.Stream
	err error
}

func (g given) Append(context.Context, streamlib.Batch) (streamlib.Receipt, error) {
	return streamlib.Receipt{}, g.err
}

func TestErrorsArriveAsTheyWereSent(t *testing.T) {
	three := streamlib.Offset(3)
	for _, sent := range []error{
		streamlib.ErrInvalid, streamlib.ErrTooLarge, streamlib.ErrKeyReused, streamlib.ErrFull, streamlib.ErrUnavailable, streamlib.ErrDeleted,
		&streamlib.HookError{HookID: "guard", Message: "no"}, &streamlib.ConflictError{Stream: "s", Tail: 7, Want: 3},
		&streamlib.ClosedError{Stream: "s", Tail: 7}, &streamlib.ConflictError{Stream: "s", Tail: 7, Want: 7, Life: true},
	} {
		t.Run(sent.Error(), func(t *testing.T) {
			is := is.New(t)
			m := streamlib.NewManager(memory.New(), func(name string, s streamlib.Storage,
				o streamlib.Options) streamlib.Stream {
				return given{streamlib.Plain(name, s, o), fmt.Errorf("append: %w", sent)}
			}, streamlib.Options{})
			client := serveHandler(t, streamhttp.NewHandler(m, streamhttp.Config{}))
			_, got := client.Stream("s").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1"), IfTail: &three})
			switch want := sent.(type) {
			case *streamlib.HookError:
				is.Equal(*got.(*streamlib.HookError), *want)
			case *streamlib.ClosedError:
				is.Equal(*got.(*streamlib.ClosedError), *want)
			case *streamlib.ConflictError:
				is.Equal(*got.(*streamlib.ConflictError), *want)
			default:
				is.True(errors.Is(got, sent))
				is.Equal(got.Error(), "append: "+sent.Error())
			}
		})
	}
}

func TestClientRefusesWhatCannotBeSent(t *testing.T) {
	is := is.New(t)
	client := serveHandler(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was sent") }))
	s := client.Stream("s")
	for _, b := range []streamlib.Batch{
		{Data: streamlib.JSON("1"), Key: " k"},
		{Data: streamlib.JSON("1"), Key: "k "},
		{Data: streamlib.JSON("1"), Key: "k\n"},
		{Data: streamlib.JSON(`1,"data":2`)},
		{Data: streamlib.JSON("1", "2\n3")},
	} {
		_, err := s.Append(t.Context(), b)
		is.True(errors.Is(err, streamlib.ErrInvalid))
	}
	_, err := s.Append(t.Context(), streamlib.Batch{Data: []json.RawMessage{json.RawMessage(`"` + strings.Repeat("x",
		9<<20) + `"`)}})
	is.True(errors.Is(err, streamlib.ErrTooLarge))
}

func TestList(t *testing.T) {
	is := is.New(t)
	client, m := serve(t, streamhttp.Config{})
	for _, name := range []string{"a", "b/1", "b/2", "b/3"} {
		add(t, m.Stream(name), "0", "1")
	}
	_, err := m.Stream("b/2").Append(t.Context(), streamlib.Batch{Close: true})
	is.NoErr(err)
	page, err := client.List(t.Context(), streamhttp.ListOptions{})
	is.NoErr(err)
	is.Equal(len(page.Streams), 4)
	is.Equal(page.Next, "")
	is.Equal(page.Streams[0], streamlib.Info{Name: "a"})
	var names []string
	for o := (streamhttp.ListOptions{Prefix: "b/", Limit: 2, Details: true}); ; o.After = page.Next {
		page, err = client.List(t.Context(), o)
		is.NoErr(err)
		for _, info := range page.Streams {
			names = append(names, info.Name)
			want, err := m.Stream(info.Name).Stat(t.Context())
			is.NoErr(err)
			is.Equal(info, want)
		}
		if page.Next == "" {
			break
		}
	}
	is.Equal(names, []string{"b/1", "b/2", "b/3"})
}

func TestStatTellsAllThatIsKnown(t *testing.T) {
	is := is.New(t)
	client, m := serve(t, streamhttp.Config{})
	for _, last := range []bool{false, true} {
		_, err := m.Stream("s").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("0", "1"), Close: last})
		is.NoErr(err)
		want, err := m.Stream("s").Stat(t.Context())
		is.NoErr(err)
		got, err := client.Stream("s").Stat(t.Context())
		is.NoErr(err)
		is.Equal(got, want)
	}
	other, _ := script(t, refuse(404))
	_, err := other.Stream("s").Stat(t.Context())
	is.True(err != nil) // another server's 404 is no empty stream
}

func TestQuery(t *testing.T) {
	client, m := serve(t, streamhttp.Config{})
	add(t, m.Stream("s"), abc...)
	for _, test := range []struct {
		q    streamhttp.Query
		want []streamlib.Offset
	}{
		{streamhttp.Query{}, []streamlib.Offset{0, 1, 2}},
		{streamhttp.Query{From: 1, Limit: 1}, []streamlib.Offset{1}},
		{streamhttp.Query{Last: 2}, []streamlib.Offset{1, 2}},
		{streamhttp.Query{Types: []string{"a"}, Last: 1}, []streamlib.Offset{2}},
		{streamhttp.Query{Types: []string{"b"}}, []streamlib.Offset{1}},
		{streamhttp.Query{From: streamlib.Now}, nil},
		{streamhttp.Query{Since: "1h", From: 1, Limit: 2}, []streamlib.Offset{0, 1}},
		{streamhttp.Query{Since: "9999-01-01T00:00:00Z"}, nil},
		{streamhttp.Query{Since: "9999-01-01T00:00:00Z", From: streamlib.Beginning}, nil},
		{streamhttp.Query{From: 2, Wait: time.Minute}, []streamlib.Offset{2}},
		{streamhttp.Query{From: 3, Wait: time.Millisecond}, nil},
	} {
		t.Run(fmt.Sprintf("%+v", test.q), func(t *testing.T) {
			is := is.New(t)
			var got []streamlib.Offset
			for events, err := range client.Stream("s").Query(t.Context(), test.q) {
				is.NoErr(err)
				for _, e := range events {
					got = append(got, e.Offset)
				}
			}
			is.Equal(got, test.want)
		})
	}
	for _, err := range client.Stream("s").Query(t.Context(), streamhttp.Query{Last: 1, Limit: 1}) {
		if !errors.Is(err, streamlib.ErrInvalid) {
			t.Error(err)
		}
	}
}

func TestSubscribeToAll(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	server := &restartable{t: t, h: streamhttp.NewHandler(m, streamhttp.Config{}), addr: "127.0.0.1:0"}
	server.start()
	client := &streamhttp.Client{URL: "http://" + server.addr}
	var got []string
	var last error
	for events, err := range client.Subscribe(t.Context(), "b", "x") {
		last = err
		for _, e := range events {
			got = append(got, e.Stream())
		}
		switch {
		case err != nil:
		case len(got) == 0: // it has begun
			add(t, m.Stream("a"), `{"type":"x"}`)
			add(t, m.Stream("b"), `{"type":"y"}`, `{"type":"x"}`)
		case len(got) == 1:
			add(t, m.Stream("b/c"), `{"_type":"x"}`)
		default:
			server.stop()
		}
	}
	is.Equal(got, []string{"b", "b/c"})
	// Told, for there may be a gap.
	is.True(errors.Is(last, io.ErrUnexpectedEOF) || strings.Contains(last.Error(), "connection reset"))
}

func TestHealth(t *testing.T) {
	is := is.New(t)
	want := streamhttp.Health{Status: "ok", PID: 7, Dir: "/d", Version: "v", Storage: "fs",
		StartedAt: time.Unix(1, 0).UTC(), Args: []string{"--port", "3"}}
	client, _ := serve(t, streamhttp.Config{Health: want, Local: func(*http.Request) bool { return true }})
	got, err := client.Health(t.Context())
	is.NoErr(err)
	is.Equal(got, want)
	for _, other := range []http.HandlerFunc{
		func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") },
		func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, "{}")
		},
		refuse(404),
	} {
		client, _ := script(t, other)
		_, err := client.Health(t.Context())
		is.True(err != nil)
	}
}

func TestOneClientIsForMany(t *testing.T) {
	is := is.New(t)
	client, m := serve(t, streamhttp.Config{})
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			for range 50 {
				add(t, client.Stream("s"), "0")
			}
		})
	}
	wait.Wait()
	info, err := m.Stream("s").Stat(t.Context())
	is.NoErr(err)
	is.Equal(info.Tail, streamlib.Offset(800))
}

// quickRetry makes h's event streams tell clients to come back soon.
func quickRetry(h http.Handler) http.Handler {
	return rewritten(h, func(s string) string { return strings.Replace(s, "retry: 1000\n", "retry: 1\n", 1) })
}

// rewritten is h, of which each write goes through f.
func rewritten(h http.Handler, f func(string) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(&rewriter{w, f}, r) })
}

type rewriter struct {
	http.ResponseWriter
	f func(string) string
}

func (w *rewriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *rewriter) Write(b []byte) (int, error) {
	_, err := io.WriteString(w.ResponseWriter, w.f(string(b)))
	return len(b), err
}

// damagedStorage is a storage whose stream s is damaged behind its second event.
type damagedStorage struct{ streamlib.Storage }

var damage = &streamlib.CorruptError{File: "streams/s.json", Offset: 7, Reason: "checksum"}

func (d damagedStorage) Read(
	ctx context.Context, name string, from, to streamlib.Offset,
) iter.Seq2[[]streamlib.Event, error] {
	return func(yield func([]streamlib.Event, error) bool) {
		for batch, err := range d.Storage.Read(ctx, name, from, min(to, 2)) {
			if !yield(batch, err) {
				return
			}
		}
		if to > 2 {
			yield(nil, damage)
		}
	}
}

func (d damagedStorage) Stat(ctx context.Context, name string) (streamlib.Info, error) {
	info, err := d.Storage.Stat(ctx, name)
	info.Damage = damage
	return info, err
}

func (d damagedStorage) Damaged() []streamlib.Info {
	return []streamlib.Info{{Name: "s", Damage: damage}}
}

// A client is told of damage, with file and offset, wherever it meets it, and does not ask again and again.
func TestDamageIsTold(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(damagedStorage{memory.New()}, streamlib.Plain, streamlib.Options{})
	_, err := m.Stream("s").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("0", "1", "2", "3")})
	is.NoErr(err)
	client := serveHandler(t, streamhttp.NewHandler(m, streamhttp.Config{
		Local: func(*http.Request) bool { return true }}))
	s := client.Stream("s")
	told := func(err error) {
		t.Helper()
		c, ok := errors.AsType[*streamlib.CorruptError](err)
		is.True(ok)
		is.Equal(c, damage)
	}
	for _, from := range []streamlib.Offset{0, 1, 2, 3} {
		n := 0
		for batch, e := range s.Read(t.Context(), from, streamlib.MaxOffset) {
			n, err = n+len(batch), e
		}
		told(err)
		is.Equal(n, max(0, 2-int(from)))
		n = 0
		for batch, e := range s.Follow(t.Context(), streamhttp.Follow{From: from}) {
			n, err = n+len(batch), e
		}
		told(err)
		is.Equal(n, max(0, 2-int(from)))
	}
	info, err := s.Stat(t.Context())
	is.NoErr(err)
	is.Equal(info.Damage, damage)
	for _, details := range []bool{false, true} {
		page, err := client.List(t.Context(), streamhttp.ListOptions{Details: details})
		is.NoErr(err)
		is.Equal(page.Streams[0].Damage, damage)
		told(page.Errors["s"])
	}
	health, err := client.Health(t.Context())
	is.NoErr(err)
	is.Equal(health.Damaged, []string{"s"})
	// A browser, which connects again when a connection breaks, is refused where there is nothing to send.
	is.Equal(ask(t, client, "GET /streams/s?offset=2", nil).status, 500)
}
