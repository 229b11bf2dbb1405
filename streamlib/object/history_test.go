package object

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/streamtest"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "the one history that TestHistories replays, telling what happens")
	crashFlag = flag.Duration("crash", 0, "how long TestHistories goes on")
	firstFlag = flag.Uint64("first", 0, "the seed from which it goes on, for 5000 at most; 0 takes a random one")
)

// TestHistories runs random histories of several gateways on one store, of which each may crash or sleep at any
// request, and whose requests and answers get lost, come twice or hours late. What was acknowledged must be there.
func TestHistories(t *testing.T) {
	if *seedFlag != 0 {
		if err := newHistory(*seedFlag, t.Logf).run(t); err != nil {
			t.Fatal(err)
		}
		return
	}
	first, count, end := uint64(1), uint64(1000), time.Time{}
	if testing.Short() || raceEnabled {
		count /= 20
	}
	if *crashFlag > 0 {
		first, end = *firstFlag, time.Now().Add(*crashFlag)
		if count = 5000; first == 0 {
			first, count = rand.Uint64N(1<<62)+1, math.MaxUint64
		}
	}
	total := map[string]int{}
	n := uint64(0)
	for ; n < count && (end.IsZero() || time.Now().Before(end)); n++ {
		h := newHistory(first+n, func(string, ...any) {})
		if err := h.run(t); err != nil {
			t.Fatalf("%v\nreplay it in streamlib: go test ./object -run '^TestHistories$' -v -seed %d", err, first+n)
		}
		for what, n := range h.did {
			total[what] += n
		}
	}
	t.Logf("%d histories from seed %d: %v", n, first, total)
	for _, what := range []string{"append", "delete", "trim", "merged", "removed", "crash", "jump", "late",
		"refused late"} {
		if n > 50 && total[what] == 0 {
			t.Errorf("no history had a %s", what)
		}
	}
}

// A history is one run. What its goroutines ask for waits until its turn has come, so that one seed is one run but for
// what goroutines do at once.
type history struct {
	rng   *rand.Rand
	trace func(string, ...any)
	store *fake
	clock *clock // the store's
	calm  bool   // nothing fails any more
	did   map[string]int
	err   error

	blocks   blocks
	gateways []*gateway
	clients  sync.WaitGroup
	going    atomic.Int32 // clients
	waiting  []*transit
	late     []*transit // nobody waits for them any more, and they may still reach the store

	mu      sync.Mutex
	tick    int64
	appends map[string][]sent // by stream
	deletes map[string][]sent
	runs    map[string][][]streamlib.Event
	created map[string][]byte // all changes there have been, by key
}

// sent is an append or a deletion with what came of it.
type sent struct {
	streamtest.Append
	life   int64
	ifTail *streamlib.Offset
}

// A gateway is a process.
type gateway struct {
	h       *history
	n       int
	skew    time.Duration // of its clock
	dead    bool
	frozen  int // for so many steps
	storage *Storage
	manager *streamlib.Manager
	asked   int
	end     context.CancelFunc
	ctx     context.Context
}

// A transit is a request on its way.
type transit struct {
	g       *gateway
	n       int
	request *http.Request // nil where it is not signed yet
	body    []byte
	answer  chan *http.Response
	said    string
}

func (t *transit) String() string {
	if t.said == "" {
		t.said = t.say()
	}
	return t.said
}

func (t *transit) say() string {
	if t.request == nil {
		return fmt.Sprintf("%d is to sign", t.g.n)
	}
	q := t.request.URL.Query()
	condition := ""
	for _, name := range []string{amazon.absent[0], amazon.match, google.match} {
		condition += t.request.Header.Get(name)
	}
	return fmt.Sprintf("%d %s %s%s %s", t.g.n, t.request.Method, strings.TrimPrefix(t.request.URL.Path, "/bucket/streams"),
		q.Get("prefix"), strings.Trim(condition, `"`))
}

func newHistory(seed uint64, trace func(string, ...any)) *history {
	rng := rand.New(rand.NewPCG(seed, 1))
	h := &history{
		rng: rng, trace: trace, store: newFake(), clock: &clock{at: began}, did: map[string]int{},
		appends: map[string][]sent{}, deletes: map[string][]sent{}, runs: map[string][][]streamlib.Event{},
		created: map[string][]byte{}, blocks: blocks{streamlib.Offset(1 + rng.IntN(4)), 1 + rng.IntN(3)},
	}
	h.store.unsigned, h.store.google = true, seed%8 == 0
	h.store.now = h.clock.now
	return h
}

// gateway starts a process with its clients.
func (h *history) gateway() {
	g := &gateway{h: h, n: len(h.gateways), skew: time.Duration(h.rng.IntN(21)-10) * time.Minute}
	if h.rng.IntN(2) == 0 {
		g.skew = 0
	}
	g.ctx, g.end = context.WithCancel(context.Background())
	h.gateways = append(h.gateways, g)
	o := h.store.options()
	o.Now = func() time.Time { return h.clock.now().Add(g.skew) }
	o.Keys = g.keys
	o.Transport = transport(g.roundTrip)
	g.storage = h.storage(o)
	g.manager = streamlib.NewManager(g.storage, streamlib.Plain, streamlib.Options{Now: o.Now})
	// A stream waits for its storage with a lock, in which synctest sees no end: so each of a manager's has one caller.
	for c, name := range []string{"a", "b"}[:1+h.rng.IntN(5)/4] {
		rng := rand.New(rand.NewPCG(h.rng.Uint64(), 2))
		h.going.Add(1)
		h.clients.Go(func() {
			defer h.going.Add(-1)
			g.client(rng, c, name)
		})
	}
	h.going.Add(1)
	rng := rand.New(rand.NewPCG(h.rng.Uint64(), 3))
	h.clients.Go(func() {
		defer h.going.Add(-1)
		for range 4 {
			_, _ = g.wait(g.ctx, &transit{g: g}) // for some time
			done, err := &pass{s: g.storage}, error(nil)
			if rng.IntN(4) == 0 {
				done, err = g.storage.pass(g.ctx)
			} else { // though others are at it
				err = done.collect(g.ctx)
			}
			h.mu.Lock()
			h.did["merged"] += done.made
			h.did["removed"] += done.removed
			h.trace("%d passed: %d %d %v", g.n, done.made, done.removed, err)
			h.mu.Unlock()
		}
	})
}

// storage is one as Open finds it, without the trial.
func (h *history) storage(o Options) *Storage {
	s := must(place(o))
	if s.blocks = h.blocks; h.store.google {
		s.c.spelling = google
	}
	return s
}

// wait waits for the transit's turn.
func (g *gateway) wait(ctx context.Context, t *transit) (*http.Response, error) {
	h := g.h
	h.mu.Lock()
	if g.dead {
		h.mu.Unlock()
		return nil, errLost
	}
	g.asked++
	t.n = g.asked
	t.answer = make(chan *http.Response, 1)
	h.waiting = append(h.waiting, t)
	h.mu.Unlock()
	select {
	case r := <-t.answer:
		if r == nil {
			return nil, errLost
		}
		return r, nil
	case <-ctx.Done():
		h.mu.Lock()
		defer h.mu.Unlock()
		h.waiting = slices.DeleteFunc(h.waiting, func(o *transit) bool { return o == t })
		if t.request != nil {
			h.late = append(h.late, t)
		}
		return nil, ctx.Err()
	}
}

// keys waits where the process sleeps, so that it also does between what it knows and its signature.
func (g *gateway) keys(ctx context.Context) (Keys, error) {
	g.h.mu.Lock()
	frozen := g.frozen > 0
	g.h.mu.Unlock()
	if frozen {
		if _, err := g.wait(ctx, &transit{g: g}); err != nil {
			return Keys{}, err
		}
	}
	return testKeys, nil
}

func (g *gateway) roundTrip(r *http.Request) (*http.Response, error) {
	body, _ := io.ReadAll(r.Body)
	return g.wait(r.Context(), &transit{g: g, request: r, body: body})
}

// client appends, and now and then trims or deletes.
func (g *gateway) client(rng *rand.Rand, c int, name string) {
	h, s, tail, failed := g.h, g.manager.Stream(name), streamlib.Offset(0), sent{}
	for n := range 3 + rng.IntN(6) {
		switch what := rng.IntN(20); {
		case what == 0:
			d := sent{Append: streamtest.Append{Sent: h.now()}}
			d.Err = s.Delete(g.ctx)
			h.ended(g, "delete", name, h.deletes, d)
		case what < 3:
			err := s.Trim(g.ctx, max(0, tail-streamlib.Offset(rng.IntN(3))))
			h.ended(g, "trim", name, nil, sent{Append: streamtest.Append{Err: err}})
		case what < 5:
			var run []streamlib.Event
			for events, err := range s.Read(g.ctx, streamlib.Beginning, streamlib.MaxOffset) {
				if err == nil {
					run = append(run, events...)
				} else if _, corrupt := errors.AsType[*streamlib.CorruptError](err); corrupt {
					h.err = cmp.Or(h.err, err)
				}
			}
			h.mu.Lock()
			h.runs[name] = append(h.runs[name], run)
			h.mu.Unlock()
		default:
			a := failed // is tried again
			if a.Data == nil {
				for i := range 1 + rng.IntN(3) {
					a.Data = append(a.Data, json.RawMessage(fmt.Sprintf(`"%d.%d.%d.%d"`, g.n, c, n, i)))
				}
				if rng.IntN(2) == 0 {
					a.Key = string(a.Data[0])
				}
			}
			if a.ifTail = nil; rng.IntN(5) == 0 {
				at := tail
				a.ifTail = &at
			}
			a.Sent = h.now()
			receipt, err := s.Append(g.ctx, streamlib.Batch{Data: a.Data, Key: a.Key, IfTail: a.ifTail})
			if a.Err = err; err == nil {
				a.Events, a.life, tail = receipt.Events, receipt.Life, receipt.Tail
				if receipt.Repeated {
					a.ifTail = nil // it was not asked
				}
			}
			h.ended(g, "append", name, h.appends, a)
			if failed = (sent{}); err != nil && a.Key != "" {
				failed = a
			}
		}
	}
}

func (h *history) now() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tick++
	return h.tick
}

// errCrashed is of what a process did not live to tell.
var errCrashed = errors.New("the process crashed")

// ended notes what came of a call.
func (h *history) ended(g *gateway, what, name string, in map[string][]sent, a sent) {
	a.Answered = h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.did[what]++
	if g.dead {
		a.Err, a.Events = errCrashed, nil
	} else if a.Err != nil {
		h.did["failed "+what]++
	}
	if in != nil {
		in[name] = append(in[name], a)
	}
	h.trace("%d %s %q %s %v: %v %v", g.n, what, name, a.Data, a.Key, a.Events, a.Err)
}

// run runs the history, and returns what is wrong with it.
func (h *history) run(t *testing.T) (err error) {
	synctest.Test(t, func(t *testing.T) {
		must(open(t.Context(), h.store.options())) // the format
		for range 2 + h.rng.IntN(3) {
			h.gateway()
		}
		for steps := 0; ; steps++ {
			synctest.Wait()
			if h.err != nil || h.going.Load() == 0 && len(h.waiting) == 0 || steps == 5000 {
				break
			}
			if steps > 300 || h.going.Load() == 0 {
				h.calm = true
			}
			h.step()
		}
		for _, g := range h.gateways {
			g.end()
		}
		h.fail()
		h.clients.Wait()
		if err = h.err; err == nil && h.going.Load() > 0 {
			err = errors.New("it does not end")
		}
		if err == nil {
			err = h.judge()
		}
	})
	return err
}

// fail fails all that waits, from now on.
func (h *history) fail() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, g := range h.gateways {
		g.dead = true
	}
	for _, t := range h.waiting {
		t.answer <- nil
	}
	h.waiting = nil
}

// step lets one thing happen.
func (h *history) step() {
	h.mu.Lock()
	defer h.mu.Unlock()
	slices.SortFunc(h.waiting, func(a, b *transit) int {
		return cmp.Or(cmp.Compare(a.g.n, b.g.n), cmp.Compare(a.String(), b.String()), cmp.Compare(a.n, b.n))
	})
	var turns []*transit
	for _, g := range h.gateways {
		g.frozen = max(0, g.frozen-1)
	}
	for _, t := range h.waiting {
		if t.g.frozen == 0 || h.calm {
			turns = append(turns, t)
		}
	}
	dice := h.rng.IntN(100)
	switch {
	case len(turns) == 0 || dice == 0 && !h.calm: // who waits for a while goes on
		h.sleep([]time.Duration{30 * time.Millisecond, 300 * time.Millisecond, 3 * time.Second}[h.rng.IntN(3)])
		return
	case h.calm:
	case dice < 5:
		d := []time.Duration{time.Second, 4 * time.Minute, 9 * time.Minute, 14 * time.Minute, 20 * time.Minute,
			61 * time.Minute, 61 * time.Minute, 3 * time.Hour}[h.rng.IntN(8)]
		h.clock.add(d)
		h.did["jump"]++
		h.trace("jump %v", d)
		return
	case dice < 8:
		h.gateways[h.rng.IntN(len(h.gateways))].frozen = 5 + h.rng.IntN(60)
		return
	case dice == 8:
		h.crash(h.gateways[h.rng.IntN(len(h.gateways))])
		return
	case dice < 12 && len(h.late) > 0:
		i := h.rng.IntN(len(h.late))
		t := h.late[i]
		if h.rng.IntN(3) > 0 { // else it may come again
			h.late = slices.Delete(h.late, i, i+1)
		}
		h.did["late"]++
		if r := h.do(t, "late"); r.StatusCode == http.StatusForbidden {
			h.did["refused late"]++
		}
		return
	}
	t := turns[h.rng.IntN(len(turns))]
	h.waiting = slices.DeleteFunc(h.waiting, func(o *transit) bool { return o == t })
	if t.request == nil {
		t.answer <- answer(200, "", nil)
		return
	}
	fault := 0
	if !h.calm {
		fault = h.rng.IntN(60)
	}
	switch fault {
	case 1:
		h.trace("lost: %v", t)
		h.late = append(h.late, t)
		t.answer <- nil
	case 2:
		h.do(t, "its answer is lost:")
		t.answer <- nil
	case 3:
		h.do(t, "500 after")
		t.answer <- answer(500, "InternalError", nil)
	case 4:
		h.trace("500 before: %v", t)
		t.answer <- answer(500, "InternalError", nil)
	case 5:
		h.trace("503: %v", t)
		t.answer <- answer(503, "SlowDown", nil)
	case 6:
		t.answer <- answer(429, "", nil)
	default:
		t.answer <- h.do(t, "")
	}
}

// sleep lets the time of those who wait for a while pass.
func (h *history) sleep(d time.Duration) {
	h.mu.Unlock()
	time.Sleep(d)
	h.mu.Lock()
	h.clock.add(d)
}

// crash ends a process, and starts another.
func (h *history) crash(g *gateway) {
	if g.dead || len(h.gateways) > 5 {
		return
	}
	h.did["crash"]++
	h.trace("%d crashes", g.n)
	g.dead = true
	h.waiting = slices.DeleteFunc(h.waiting, func(t *transit) bool {
		if t.g != g {
			return false
		}
		if t.request != nil && h.rng.IntN(2) == 0 {
			h.late = append(h.late, t)
		}
		t.answer <- nil
		return true
	})
	g.end()
	h.mu.Unlock()
	h.gateway()
	h.mu.Lock()
}

// do lets a request reach the store.
func (h *history) do(t *transit, how string) *http.Response {
	key := strings.TrimPrefix(t.request.URL.Path, "/bucket/")
	_, there := h.store.objects[key]
	r := h.store.do(t.request, t.body)
	h.trace("%s %v: %d", how, t, r.StatusCode)
	if t.request.Method == http.MethodPut && r.StatusCode == 200 && !there && strings.HasPrefix(key, "streams/s/") {
		if h.created[key] != nil {
			h.err = cmp.Or(h.err, fmt.Errorf("%s was written again, after it was removed", key))
		}
		h.created[key] = t.body
	}
	return r
}

// judge compares what is there, and what has been, with what was said.
func (h *history) judge() error {
	ctx := context.Background()
	s := h.storage(h.store.options())
	for n := range 3 {
		for _, name := range []string{"a", "b"} {
			if err := h.judgeStream(s, name); err != nil {
				return fmt.Errorf("stream %q after %d passes more: %w", name, n, err)
			}
		}
		h.clock.add(2 * time.Hour)
		if _, err := s.pass(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (h *history) judgeStream(s *Storage, name string) error {
	dir := s.dir(name)
	var at []position
	for key := range h.created {
		if strings.HasPrefix(key, dir) {
			at = append(at, must(parsePosition(strings.TrimPrefix(key, dir))))
		}
	}
	slices.SortFunc(at, func(a, b position) int { return cmp.Compare(b.String(), a.String()) })
	next, last := position{}, head{}
	lives, streams := []int64{}, map[int64][]streamlib.Event{}
	for _, p := range at {
		if p != next {
			return fmt.Errorf("there is a change at %v, and not at %v", p, next)
		}
		was := must(behind(name, p, h.created[dir+p.String()], time.Time{}))
		next, last = was.next, was.head
		life := last.Life
		if last.Deleted {
			life = lives[len(lives)-1]
		} else if len(lives) == 0 || lives[len(lives)-1] != life {
			lives = append(lives, life)
		}
		streams[life] = append(streams[life], must2(parse("", h.created[dir+p.String()]))...)
	}
	for _, life := range lives {
		var appends []streamtest.Append
		for _, a := range h.appends[name] {
			if a.Err == nil && a.ifTail != nil && a.Events[0].Offset != *a.ifTail {
				return fmt.Errorf("%v was appended on condition of %d", a.Events, *a.ifTail)
			}
			if a.Err != nil || a.life == life {
				appends = append(appends, a.Append)
			}
		}
		if err := streamtest.Check(streams[life], appends); err != nil {
			return fmt.Errorf("life %d: %w", life, err)
		}
	}
	for _, d := range h.deletes[name] {
		before := int64(-1)
		for _, a := range h.appends[name] {
			if a.Err == nil && a.Answered < d.Sent {
				before = max(before, a.life)
			}
		}
		for _, a := range h.appends[name] {
			if d.Err == nil && a.Err == nil && a.Sent > d.Answered && a.life <= before {
				return fmt.Errorf("%v was appended to life %d, which was deleted", a.Events, a.life)
			}
		}
	}
	for _, run := range h.runs[name] {
		if len(run) > 0 && !slices.ContainsFunc(slices.Collect(maps.Values(streams)), func(all []streamlib.Event) bool {
			from := int(run[0].Offset)
			return from+len(run) <= len(all) && slices.EqualFunc(run, all[from:from+len(run)], func(a, b streamlib.Event) bool {
				return a.String() == b.String()
			})
		}) {
			return fmt.Errorf("a reader saw %v", run)
		}
	}

	info, err := s.Stat(context.Background(), name)
	if err != nil {
		return err
	}
	if info.Exists() == last.Deleted && len(at) > 0 || info.Life != last.Life || info.First != last.Kept {
		return fmt.Errorf("it is %+v, and the last change was %+v", info, last)
	}
	var events []streamlib.Event
	for batch, err := range s.Read(context.Background(), name, streamlib.Beginning, streamlib.MaxOffset) {
		if err != nil {
			return err
		}
		events = append(events, batch...)
	}
	if last.Deleted || len(at) == 0 {
		if len(events) > 0 {
			return fmt.Errorf("it is deleted, and has %v", events)
		}
		return nil
	}
	want := streams[last.Life][last.Kept:]
	same := func(a, b streamlib.Event) bool { return string(a.Record()) == string(b.Record()) }
	if !slices.EqualFunc(events, want, same) {
		return fmt.Errorf("it has %v instead of %v", events, want)
	}
	names, err := s.List(context.Background(), "", "", 0)
	if err == nil && slices.Contains(names, name) != info.Exists() {
		err = fmt.Errorf("the list is %q, and %q is there: %v", names, name, info.Exists())
	}
	return err
}

func must2[A, B any](_ A, v B, err error) B {
	if err != nil {
		panic(err)
	}
	return v
}
