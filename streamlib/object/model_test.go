package object

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// A scenario is a few processes with one store. All orders are tried in which what they ask for can reach it, and in
// which the clock can jump meanwhile.
type scenario struct {
	sizes     []int                             // of the batches that are there at the beginning
	processes func(w *world) []func(s *Storage) // what the processes do, all of which know the tail
	jumps     []time.Duration                   // each may happen once, at any moment
	open      func(process int, s *Storage)     // may change a process's storage
	late      []int                             // processes that sign a request when it reaches the store: at any time
	early     time.Duration                     // by which objects look older

	objects map[string]stored // at the beginning
	keys    []string
	known   *tail
}

// world is one order of a scenario.
type world struct {
	t     *testing.T
	store *fake
	clock *clock
	known *tail // to all processes, at the beginning
	late  []int

	mu      sync.Mutex
	waiting []*ask
	seen    map[int]string // what each process has been answered
	acked   map[streamlib.Offset]string
	created map[string]bool
	err     error
	over    bool
}

// An ask is something that a process waits for: to sign a request, or to have it answered.
type ask struct {
	process int
	what    string
	request *http.Request // nil where it is signed
	body    []byte
	done    chan *http.Response
}

func (a *ask) String() string { return fmt.Sprintf("%d %s", a.process, a.what) }

// wait waits until the ask's turn has come.
func (w *world) wait(a *ask) (*http.Response, error) {
	a.done = make(chan *http.Response)
	w.mu.Lock()
	if w.over {
		w.mu.Unlock()
		return nil, errLost
	}
	w.waiting = append(w.waiting, a)
	w.mu.Unlock()
	r, ok := <-a.done
	if !ok {
		return nil, errLost
	}
	return r, nil
}

// options are those of a process whose requests wait.
func (w *world) options(process int) Options {
	o := w.store.options()
	o.Transport = transport(func(r *http.Request) (*http.Response, error) {
		body, _ := io.ReadAll(r.Body)
		what := r.Method + " " + r.URL.Path + " " + r.URL.Query().Get("start-after")
		if r.Header.Get("If-None-Match") != "" {
			what += " " + r.Header.Get("X-Amz-Date")
		}
		return w.wait(&ask{process: process, what: what, request: r, body: body})
	})
	return o
}

type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// pass lets an ask have its turn.
func (w *world) pass(a *ask) {
	var r *http.Response
	if a.request != nil {
		if slices.Contains(w.late, a.process) {
			a.request.Header.Set("X-Amz-Date", w.clock.now().Format(dateLayout))
		}
		key := strings.TrimPrefix(a.request.URL.Path, "/bucket/")
		_, there := w.store.objects[key]
		r = w.store.do(a.request, a.body)
		if a.request.Method == http.MethodPut && r.StatusCode == 200 && !there {
			if w.created[key] {
				w.err = cmp.Or(w.err, fmt.Errorf("%s was written again, after it was removed", key))
			}
			w.created[key] = true
		}
		w.seen[a.process] += fmt.Sprint(a.what, " ", w.clock.now().Sub(began), " ", r.StatusCode, "\n")
	} else {
		w.seen[a.process] += fmt.Sprint(a.what, " ", w.clock.now().Sub(began), "\n")
	}
	a.done <- r
}

// state is what the future depends on.
func (w *world) state(jumped int) string {
	var b strings.Builder
	fmt.Fprintln(&b, jumped, w.clock.now().Unix())
	for _, key := range w.store.keys {
		o := w.store.objects[key]
		h, _, _ := parse(key, o.body)
		fmt.Fprintln(&b, key, h.First, h.Count, h.Merged, o.modified.Unix())
	}
	for _, a := range w.waiting {
		fmt.Fprintln(&b, a)
	}
	for process := range len(w.seen) + 1 {
		fmt.Fprintln(&b, process, w.seen[process])
	}
	return b.String()
}

// run goes the given way, and then always the first. It returns how many choices there were at each step, to where it
// came to a state that was seen.
func (sc scenario) run(t *testing.T, way []int, states map[string]bool) (choices []int, trace []string, failed error) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, store: newFake(), clock: &clock{at: began}, known: sc.known, late: sc.late,
			seen: map[int]string{}, acked: map[streamlib.Offset]string{}, created: map[string]bool{}}
		w.store.now = w.clock.now
		w.store.early, w.store.unsigned = sc.early, true
		w.store.objects, w.store.keys = maps.Clone(sc.objects), slices.Clone(sc.keys)
		for _, key := range w.store.keys {
			w.created[key] = true
		}
		var running sync.WaitGroup
		for i, process := range sc.processes(w) {
			w.seen[i] = ""
			running.Go(func() {
				s := must(place(w.options(i)))
				s.known["a"] = w.known
				if sc.open != nil {
					sc.open(i, s)
				}
				process(s)
			})
		}
		jumped := 0
		for {
			synctest.Wait()
			w.mu.Lock()
			slices.SortStableFunc(w.waiting, func(a, b *ask) int { return cmp.Compare(a.String(), b.String()) })
			var turns []*ask // of what a process asks at once the first alone
			for _, a := range w.waiting {
				if len(turns) == 0 || turns[len(turns)-1].process != a.process {
					turns = append(turns, a)
				}
			}
			n := len(turns)
			for i := range sc.jumps {
				if jumped&(1<<i) == 0 {
					n++
				}
			}
			if len(w.waiting) == 0 {
				w.mu.Unlock()
				break
			}
			step := len(choices)
			if step >= len(way) {
				state := w.state(jumped)
				if states[state] {
					w.mu.Unlock()
					choices = append(choices, 0)
					break
				}
				states[state] = true
			}
			choice := 0
			if step < len(way) {
				choice = way[step]
			}
			choices = append(choices, n)
			if choice < len(turns) {
				a := turns[choice]
				w.waiting = slices.DeleteFunc(w.waiting, func(b *ask) bool { return a == b })
				w.mu.Unlock()
				trace = append(trace, a.String())
				w.pass(a)
				continue
			}
			choice -= len(turns)
			for i, d := range sc.jumps {
				if jumped&(1<<i) == 0 {
					if choice == 0 {
						jumped |= 1 << i
						w.clock.add(d)
						trace = append(trace, "jump "+d.String())
					}
					choice--
				}
			}
			w.mu.Unlock()
		}
		w.mu.Lock()
		pruned := len(w.waiting) > 0
		w.over = true
		for _, a := range w.waiting {
			close(a.done)
		}
		w.mu.Unlock()
		running.Wait()
		if failed = w.err; failed == nil && !pruned {
			failed = w.check()
		}
	})
	return choices, trace, failed
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var began = time.Date(2024, 1, 8, 0, 0, 0, 0, time.UTC)

// explore goes all ways, and returns the error of the first that fails.
func (sc scenario) explore(t *testing.T) (orders int, err error) {
	w := &world{store: newFake(), acked: map[streamlib.Offset]string{}}
	w.store.now = func() time.Time { return began }
	s := must(open(t.Context(), w.store.options()))
	for _, n := range sc.sizes {
		w.add(s, "before", n)
	}
	sc.objects, sc.keys, sc.known = w.store.objects, w.store.keys, s.known["a"]
	states := map[string]bool{}
	for way := []int{}; ; {
		choices, trace, err := sc.run(t, way, states)
		if orders++; err != nil {
			return orders, fmt.Errorf("%w\n%s", err, strings.Join(trace, "\n"))
		}
		for len(way) < len(choices) {
			way = append(way, 0)
		}
		for len(way) > 0 && way[len(way)-1]+1 >= choices[len(way)-1] {
			way = way[:len(way)-1]
		}
		if len(way) == 0 || raceEnabled && orders == 300 {
			return orders, nil
		}
		way[len(way)-1]++
	}
}

// check reads all by a process that begins now.
func (w *world) check() error {
	s, err := open(context.Background(), w.store.options())
	if err != nil {
		return err
	}
	w.clock.add(time.Second)
	info, err := s.Stat(context.Background(), "a")
	if err != nil {
		return err
	}
	n := info.First
	for events, err := range s.Read(context.Background(), "a", streamlib.Beginning, streamlib.MaxOffset) {
		if err != nil {
			return err
		}
		for _, e := range events {
			if e.Offset != n {
				return fmt.Errorf("%d stands where %d should", e.Offset, n)
			}
			if want, ok := w.acked[n]; ok && string(e.Data()) != want {
				return fmt.Errorf("%d was acknowledged as %s, and is %s", n, want, e.Data())
			}
			delete(w.acked, n)
			n++
		}
	}
	for o := range w.acked {
		if o >= info.First {
			return fmt.Errorf("%d was acknowledged, and is lost", o)
		}
	}
	if n != info.Tail {
		return fmt.Errorf("it ends at %d, and its tail is %d", n, info.Tail)
	}
	return nil
}

// add appends n events where the stream ends.
func (w *world) add(s *Storage, process string, n int) bool {
	info, err := s.Stat(context.Background(), "a")
	return err == nil && w.addAt(s, process, n, info.Tail)
}

// addAt appends n events at o, and tells whether it is done.
func (w *world) addAt(s *Storage, process string, n int, o streamlib.Offset) (done bool) {
	var events []streamlib.Event
	for i := range n {
		data := fmt.Appendf(nil, `"%s%d"`, process, o+streamlib.Offset(i))
		record := must(streamlib.NewRecord(o+streamlib.Offset(i), "a", data, time.Unix(1704672000, 0)))
		events = append(events, must(streamlib.ParseRecord(record)))
	}
	err := s.Commit(context.Background(), "a", streamlib.Change{Events: events})
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range events {
		if err == nil {
			w.acked[e.Offset] = string(e.Data())
		}
	}
	return err == nil
}

// awake appends n events at some moment, by a process that knows all.
func (w *world) awake(process, n int) bool {
	_, err := w.wait(&ask{process: process, what: "appends"})
	return err == nil && w.add(must(place(w.store.options())), "y", n)
}

// collect is a pass without what passes tell each other.
func collect(s *Storage) {
	p := &pass{s: s}
	if p.all(context.Background(), "s/", p.object) == nil {
		_ = p.endStream(context.Background())
	}
}

// fence has two writers of which one may sleep, and a collector. Both know the tail at the beginning, and the second
// moves it on, so that what the first wants to write can be collected before it comes.
func fence() scenario {
	return scenario{
		sizes: []int{2, 1},
		processes: func(w *world) []func(*Storage) {
			return []func(*Storage){
				func(*Storage) { _ = w.awake(0, 1) && w.awake(0, 1) },
				collect,
				func(s *Storage) { w.addAt(s, "x", 1, 3) },
			}
		},
		jumps: []time.Duration{12 * time.Minute, 50 * time.Minute},
		late:  []int{1},
		open:  func(process int, s *Storage) { s.blocks = blocks{2, 2} },
	}
}

// belief has a reader that may sleep before each of its requests, and writes where it found the tail.
func belief() scenario {
	sc := fence()
	sc.jumps = []time.Duration{62 * time.Minute}
	sc.processes = func(w *world) []func(*Storage) {
		return []func(*Storage){
			func(*Storage) { _ = w.awake(0, 1) && w.awake(0, 1) },
			collect,
			func(s *Storage) {
				s.c.keys = func(context.Context) (Keys, error) {
					_, err := w.wait(&ask{process: 2, what: "sign"})
					return testKeys, err
				}
				w.add(s, "x", 1)
			},
		}
	}
	return sc
}

// collectors has two collectors, and at some moment the end of a block, so that they merge on different levels.
func collectors() scenario {
	sc := fence()
	sc.sizes, sc.jumps = []int{1, 1, 1, 1}, nil
	sc.processes = func(w *world) []func(*Storage) {
		w.clock.add(2 * time.Hour)
		return []func(*Storage){
			collect,
			collect,
			func(*Storage) {
				if w.awake(2, 13) && w.awake(2, 1) {
					w.clock.add(62 * time.Minute)
				}
			},
		}
	}
	sc.late = []int{0, 1}
	return sc
}

// TestModel: in no order anything is lost. Each part of what keeps it so is taken away, and then something is.
func TestModel(t *testing.T) {
	for _, test := range []struct {
		name string
		sc   func() scenario
		harm func(sc *scenario) // nil where nothing is
	}{
		{"the fence", fence, nil},
		{"signed with now", fence, func(sc *scenario) {
			sc.jumps = []time.Duration{62 * time.Minute}
			sc.late = []int{1, 2}
		}},
		{"collected too early", fence, func(sc *scenario) {
			sc.early, sc.jumps = 50*time.Minute, []time.Duration{12 * time.Minute}
		}},
		{"what is not there", belief, nil},
		{"two collectors", collectors, nil},
		{"merged at free heads", collectors, func(sc *scenario) {
			sc.sizes = []int{1, 1, 1, 1, 1}
			sc.open = func(process int, s *Storage) { s.blocks = blocks{streamlib.Offset(2 + process), 2} }
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if raceEnabled && test.harm != nil {
				t.Skip("it takes too long to find")
			}
			sc := test.sc()
			if test.harm != nil {
				test.harm(&sc)
			}
			orders, err := sc.explore(t)
			t.Log(orders, "orders")
			if test.harm != nil {
				t.Log(err)
			}
			if (err == nil) != (test.harm == nil) {
				t.Error(err)
			}
		})
	}
}
