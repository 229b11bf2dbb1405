package disk

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

var longName = strings.Repeat("L", 230) // its file's name is a hash

var (
	seedFlag  = flag.Uint64("seed", 0, "the one history that the crash tests replay, telling what it does")
	crashFlag = flag.Duration("crash", 0, "how long the crash tests go on together")
	firstFlag = flag.Uint64("first", 0, "the seed from which they go on, for 5000 each at most; 0 takes a random one")
)

// TestCrash runs random histories over a file system that crashes, and asks after each crash whether what is there is
// what may be there.
func TestCrash(t *testing.T) {
	histories(t, 3000, func(seed uint64, trace func(string, ...any)) error {
		return newHistory(seed, trace).run()
	})
}

// histories calls run with one seed after the other, and with that of a failure again to tell what it does.
func histories(t *testing.T, count uint64, run func(seed uint64, trace func(string, ...any)) error) {
	smallJournals(t)
	tell := func(format string, args ...any) {
		t.Log(strings.ReplaceAll(fmt.Sprintf(format, args...), longName, "L…"))
	}
	if *seedFlag != 0 {
		if err := run(*seedFlag, tell); err != nil {
			t.Fatal(err)
		}
		return
	}
	first, end := uint64(1), time.Time{}
	if testing.Short() || raceEnabled {
		count /= 10
	}
	if *crashFlag > 0 {
		first, end = *firstFlag, time.Now().Add(*crashFlag/3) // there are three such tests
		if count = 5000; first == 0 {
			first, count = rand.Uint64N(1<<62)+1, math.MaxUint64
		}
	}
	n := uint64(0)
	for ; n < count && (end.IsZero() || time.Now().Before(end)); n++ {
		if err := run(first+n, func(string, ...any) {}); err != nil {
			_ = run(first+n, tell)
			t.Fatalf("%v\nreplay it in streamlib: go test ./disk -run '^%s$' -v -seed %d", err, t.Name(), first+n)
		}
	}
	t.Logf("%d histories from seed %d", n, first)
}

// smallJournals lets journals take little memory, and three files be many.
func smallJournals(t testing.TB) {
	was, files := growth, manyFiles
	growth, manyFiles = 2*reserve, 3
	t.Cleanup(func() { growth, manyFiles = was, files })
}

// history is one run of a store with its crashes. It is one goroutine's work; what happens at once happens within an
// operation of the file system that another call waits for.
type history struct {
	rng     *rand.Rand
	trace   func(string, ...any)
	fs      *crashFS
	options Options
	store   *Store
	manager *streamlib.Manager
	streams []*truth
	clock   time.Time
	count   int // of appends and deletions
	doing   string
	nested  bool
	crashAt int
	faults  int              // 1 in so many operations fails, 0 is none
	nest    float64          // how often something else happens within an operation
	err     error            // what was found wrong within an operation
	watch   func(op) outcome // decides instead, where not nil
	after   func() error     // each step of a script
	closing bool             // an append may close its stream
	last    error            // of the last append or deletion

	outcomes []error // of appends that were made together
}

func newHistory(seed uint64, trace func(string, ...any)) *history {
	rng := rand.New(rand.NewPCG(seed, 1))
	h := &history{
		rng:   rng,
		trace: trace,
		fs:    newCrashFS(rand.New(rand.NewPCG(seed, 2))),
		clock: time.Date(2024, 1, 8, 0, 0, 0, 0, time.UTC),
		nest:  []float64{0, 0.05, 0.3}[rng.IntN(3)],
		options: Options{
			JournalSize: []int64{1, 700, 3000, 1 << 20}[rng.IntN(4)],
			MaxNames:    1 + rng.IntN(5),
			MaxOpen:     1 + rng.IntN(4),
		},
	}
	if rng.IntN(4) == 0 {
		h.options.MaxNames, h.options.MaxOpen = 0, 0
	}
	for _, name := range []string{"a", "b", "A", "%41", longName, "Older", "older"} {
		h.streams = append(h.streams, &truth{name: name, states: []*state{{}}})
	}
	h.fs.before = h.before
	for _, t := range h.streams[5:] {
		if h.rng.IntN(2) == 0 {
			h.plant(t, h.rng.IntN(5))
		}
	}
	return h
}

// plant puts a stream of n events there as the first implementation left it: under its raw name.
func (h *history) plant(t *truth, n int) {
	type older struct {
		Offset        string          `json:"offset"`
		EventStreamID string          `json:"eventStreamId"`
		Data          json.RawMessage `json:"data"`
		CreatedAt     time.Time       `json:"createdAt"`
	}
	events := make([]older, n)
	s := t.states[0]
	for i := range events {
		at := h.clock.Add(time.Duration(i) * time.Millisecond)
		data := fmt.Sprintf(`{"older":%d}`, i)
		events[i] = older{streamlib.Offset(i).String(), t.name, json.RawMessage(data), at}
		record, _ := streamlib.NewRecord(streamlib.Offset(i), t.name, json.RawMessage(data), at)
		s.facts = append(s.facts, fact{-1, data, string(record) + "}"})
	}
	b, _ := json.MarshalIndent(map[string]any{"events": events}, "", "  ")
	h.fs.plant(streamsDir+"/"+t.name+suffix, b)
}

// before decides what becomes of an operation, and lets something else happen first.
func (h *history) before(o op) outcome {
	if h.watch != nil {
		return h.watch(o)
	}
	if o.n == h.crashAt {
		e := effect(h.rng.IntN(3))
		h.trace("    crash at %d %s %s, effect %d", o.n, o.kind, o.path, e)
		return outcome{crash: true, effect: e}
	}
	if h.nest > 0 && !h.nested && h.rng.Float64() < h.nest && h.store != nil {
		h.nested = true
		h.within(o)
		h.nested = false
	}
	if h.faults > 0 && h.rng.IntN(h.faults) == 0 {
		errs := []error{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EMFILE, syscall.EROFS}
		if h.store != nil && h.store.checkpointing { // a full disk would wait for this checkpoint, which waits for it
			errs = []error{syscall.EIO, syscall.EMFILE, syscall.EROFS}
		}
		out := outcome{err: errs[h.rng.IntN(len(errs))], effect: effect(h.rng.IntN(3))}
		if o.kind == "sync" || o.kind == "syncDir" {
			out.err = syscall.EIO
		}
		h.trace("    %d %s %s fails: %v, effect %d", o.n, o.kind, o.path, out.err, out.effect)
		return out
	}
	return outcome{}
}

// within does what another goroutine could do while the operation waits. It must not wait for what the caller holds.
func (h *history) within(o op) {
	journal, stream := strings.HasSuffix(o.path, journalSuffix), strings.HasSuffix(o.path, suffix)
	manager := false // may the manager be used?
	switch {
	case journal && (o.kind == "write" || o.kind == "sync" || o.kind == "remove"), stream && o.kind == "write":
		manager = true
	case o.path == newTrimmed && o.kind == "sync" && h.doing == "collect":
	case stream && (o.kind == "sync" || o.kind == "truncate"), o.path == journalDir && o.kind == "syncDir":
	default:
		return
	}
	h.trace("    within %d %s %s", o.n, o.kind, o.path)
	switch t := h.streams[h.rng.IntN(len(h.streams))]; {
	case h.doing == "collect":
		h.note(h.change(t))
		if h.rng.IntN(2) == 0 && !h.store.checkpointing {
			h.trace("      checkpoint: %v", h.store.checkpoint())
		}
	case h.doing == "checkpoint" && !h.store.removing && h.rng.IntN(2) == 0:
		h.note(h.change(t))
	case h.doing != "checkpoint" && h.doing != "close" && !h.store.checkpointing && h.rng.IntN(2) == 0:
		h.trace("      checkpoint: %v", h.store.checkpoint())
	case manager && h.doing != "delete":
		h.note(h.read(t))
	default:
		var events []streamlib.Event
		var err error
		for batch, e := range h.store.Read(context.Background(), t.name, 0, streamlib.MaxOffset) {
			events, err = append(events, batch...), e
		}
		h.trace("      read %s: %d events, %v", t.name, len(events), err)
		h.note(damaged(err))
		h.note(t.served(events))
	}
}

func (h *history) note(err error) {
	if h.err == nil {
		h.err = err
	}
}

func (h *history) now() time.Time {
	h.clock = h.clock.Add(time.Duration(h.rng.IntN(5)-1) * time.Millisecond)
	return h.clock
}

func (h *history) run() error {
	rounds := 1 + h.rng.IntN(4)
	h.closing = true
	for range rounds {
		if err := h.start(false); err != nil {
			return err
		}
		if h.rng.IntN(3) == 0 {
			h.faults = []int{10, 50, 200}[h.rng.IntN(3)]
		}
		h.crashAt = 0
		if h.rng.IntN(8) > 0 {
			h.crashAt = h.fs.ops + 1 + h.rng.IntN([]int{10, 100, 400}[h.rng.IntN(3)])
		}
		for range 1 + h.rng.IntN(30) {
			if err := errors.Join(h.step(), h.err); err != nil {
				return err
			}
			if h.fs.down {
				break
			}
		}
		closes := !h.fs.down && h.rng.IntN(3) == 0
		if closes {
			h.doing = "close"
			err := h.store.Close()
			h.trace("close: %v", err)
			h.doing = ""
			if err == nil && !h.fs.down && h.faults == 0 {
				if loose := h.fs.loose(); len(loose) > 0 {
					return fmt.Errorf("closed, and not durable: %v", loose)
				}
				if h.fs.handles > 0 {
					return fmt.Errorf("closed, and %d files are open", h.fs.handles)
				}
			}
		}
		h.faults = 0
		h.restart()
	}
	if err := h.start(true); err != nil {
		return err
	}
	h.nest, h.closing = 0, false
	for _, t := range h.streams { // whatever happened, it goes on
		if t.states[0].closed {
			continue
		}
		if err := h.append(t, h.sends(2), nil); err != nil {
			return err
		}
		if h.last != nil {
			return fmt.Errorf("in the end: %w", h.last)
		}
	}
	h.fs.restart(power)
	if err := h.start(true); err != nil {
		return err
	}
	return h.err
}

// troubled tells whether a stream was set aside, or its mark could not be read, though nothing is damaged.
func (s *Store) troubled() bool {
	for _, m := range s.marks {
		if m.Trouble || strings.Contains(m.Reason, "the mark cannot be read") {
			return true
		}
	}
	return false
}

func (h *history) restart() {
	kind := crash(h.rng.IntN(3))
	h.trace("restart after a %v", kind)
	h.fs.restart(kind)
	h.store, h.manager = nil, nil
}

// start opens the store, with crashes on its way, and looks at all there is; not always unless it is the last time.
func (h *history) start(last bool) error {
	for tries := 0; ; tries++ {
		h.crashAt, h.faults = 0, 0
		if tries < 5 && h.rng.IntN(2) == 0 {
			h.crashAt = h.fs.ops + 1 + h.rng.IntN(60)
		}
		if tries < 3 && h.rng.IntN(6) == 0 {
			h.faults = 10
		}
		faulty := h.faults > 0
		h.trace("open, crash at %d", h.crashAt)
		store, err := openStore(h.fs, h.options)
		h.faults = 0
		if h.fs.down {
			h.restart()
			continue
		}
		if err != nil && faulty {
			h.trace("open: %v", err)
			if err := damaged(err); err != nil {
				return err
			}
			if h.fs.handles > 0 {
				return fmt.Errorf("open failed (%v), and %d files are open", err, h.fs.handles)
			}
			h.restart() // who cannot open it ends
			continue
		}
		if err != nil {
			return fmt.Errorf("open: %w", err)
		}
		if faulty && store.troubled() { // what could not be read or written then waits for the next start
			h.restart()
			continue
		}
		h.crashAt = 0
		h.store = store
		h.manager = streamlib.NewManager(store, streamlib.Plain, streamlib.Options{Now: h.now})
		if loose := h.fs.loose(); len(loose) > 0 && h.fs.contents(journalPath(1)) == nil {
			return fmt.Errorf("no journal, and not durable: %v", loose)
		}
		if !last && h.rng.IntN(3) == 0 {
			return nil // so that streams are opened, and older ones converted, while crashes come
		}
		return h.look()
	}
}

// look reads everything.
func (h *history) look() error {
	nest := h.nest
	h.nest = 0
	defer func() { h.nest = nest }()
	var names []string
	for _, t := range h.streams {
		events, err := readAll(h.manager.Stream(t.name))
		if err != nil {
			return fmt.Errorf("after the start: %w", err)
		}
		h.trace("found %s:%s", t.name, brief(events))
		info, err := h.manager.Stream(t.name).Stat(context.Background())
		if err != nil {
			return fmt.Errorf("stat %q: %w", t.name, err)
		}
		if err := t.found(events, info); err != nil {
			return err
		}
		if info.Exists() {
			names = append(names, t.name)
		}
	}
	slices.Sort(names)
	listed, err := h.manager.List(context.Background(), "", "", 0)
	listed = slices.DeleteFunc(listed, func(name string) bool { return strings.EqualFold(name, "older") })
	names = slices.DeleteFunc(names, func(name string) bool { return strings.EqualFold(name, "older") })
	if err != nil || !slices.Equal(names, listed) {
		return fmt.Errorf("listed are %q (%v), there are %q", listed, err, names)
	}
	return nil
}

func readAll(s streamlib.Stream) (events []streamlib.Event, err error) {
	for batch, e := range s.Read(context.Background(), streamlib.Beginning, streamlib.MaxOffset) {
		events, err = append(events, batch...), e
	}
	return events, err
}

// damaged returns err where it says that something is damaged: nothing is, whatever else may fail.
func damaged(err error) error {
	if _, corrupt := errors.AsType[*streamlib.CorruptError](err); corrupt {
		return err
	}
	return nil
}

func (h *history) step() error {
	t := h.streams[h.rng.IntN(len(h.streams))]
	switch h.rng.IntN(12) {
	case 0:
		return h.read(t)
	case 5:
		h.doing = "collect"
		for h.store.collect() {
		}
		h.doing = ""
		return nil
	case 4:
		h.trace("ready: %v", h.store.Ready())
		return nil
	case 3:
		return h.together(t, h.streams[h.rng.IntN(len(h.streams))], h.streams[h.rng.IntN(len(h.streams))])
	case 1, 2:
		h.doing = "checkpoint"
		done := h.store.checkpoint()
		h.doing = ""
		h.trace("checkpoint: %v", done)
		return nil
	}
	return h.change(t)
}

func (h *history) read(t *truth) error {
	events, err := readAll(h.manager.Stream(t.name))
	h.trace("read %s: %d events, %v", t.name, len(events), err)
	if err := damaged(err); err != nil {
		return err
	}
	return t.served(events)
}

// change appends to the stream or deletes it.
func (h *history) change(t *truth) error {
	switch h.rng.IntN(10) {
	case 0:
		return h.remove(t)
	case 1:
		return h.trim(t)
	case 2:
		return h.noted(t)
	}
	w := h.sends(1 + h.rng.IntN(4)*h.rng.IntN(2))
	if h.rng.IntN(3) == 0 {
		w.key = fmt.Sprint("key ", w.append)
		t.keyed = append(t.keyed, w)
	} else if len(t.keyed) > 0 && h.rng.IntN(4) == 0 {
		w = t.keyed[h.rng.IntN(len(t.keyed))]
	}
	var ifTail *streamlib.Offset
	if h.rng.IntN(4) == 0 {
		at := streamlib.Offset(len(t.states[0].facts) + h.rng.IntN(2))
		ifTail = &at
	}
	return h.append(t, w, ifTail)
}

// notes is a decision that makes the note what it returns, and nothing where nothing is noted.
func (h *history) notes() (note string, decide func(streamlib.Offset, *streamlib.State) error) {
	h.count++
	note = fmt.Sprintf(`{"n":%d,"x":"%s"}`, h.count, strings.Repeat("x", h.rng.IntN(2000)*h.rng.IntN(2)))
	return note, func(_ streamlib.Offset, s *streamlib.State) error {
		s.Note = note
		return nil
	}
}

// noted notes something of the stream without an append.
func (h *history) noted(t *truth) error {
	doing := h.doing
	h.doing = "append"
	defer func() { h.doing = doing }()
	note, decide := h.notes()
	h.trace("note %.12s of %s", note, t.name)
	a := t.notes(note)
	_, err := h.manager.Stream(t.name).Append(context.Background(), streamlib.Batch{Decide: decide})
	h.trace("  noted %s: %v", t.name, err)
	switch {
	case err == nil:
		return a.done("a note")
	case promised(err):
		return a.refused()
	}
	return damaged(err)
}

func (h *history) trim(t *truth) error {
	doing := h.doing
	h.doing = "append"
	defer func() { h.doing = doing }()
	before := h.rng.IntN(len(t.states[0].facts) + 2)
	h.trace("trim %s before %d", t.name, before)
	a := t.trims(before)
	err := h.manager.Stream(t.name).Trim(context.Background(), streamlib.Offset(before))
	h.trace("  trimmed %s: %v", t.name, err)
	switch {
	case err == nil:
		return a.done("a trim")
	case promised(err):
		return a.refused()
	}
	return damaged(err)
}

// sends makes an append of n events.
func (h *history) sends(n int) sent {
	h.count++
	w := sent{append: h.count}
	for i := range n {
		w.data = append(w.data,
			fmt.Sprintf(`{"n":%d,"i":%d,"x":"%s"}`, h.count, i, strings.Repeat("x", h.rng.IntN(200)*h.rng.IntN(2))))
	}
	return w
}

func (h *history) remove(t *truth) error {
	doing := h.doing
	h.doing = "delete" // which readers wait for
	defer func() { h.doing = doing }()
	h.trace("delete %s", t.name)
	a := t.deletes()
	err := h.manager.Stream(t.name).Delete(context.Background())
	h.last = err
	h.trace("  deleted %s: %v", t.name, err)
	switch {
	case err == nil:
		t.keyed = nil
		return a.done("a deletion")
	case promised(err):
		return a.refused()
	}
	return damaged(err)
}

func (h *history) append(t *truth, w sent, ifTail *streamlib.Offset) error {
	doing := h.doing
	h.doing = "append"
	defer func() { h.doing = doing }()
	b := streamlib.Batch{Key: w.key, IfTail: ifTail, Close: h.closing && h.rng.IntN(20) == 0}
	for _, d := range w.data {
		b.Data = append(b.Data, json.RawMessage(d))
	}
	note := ""
	if h.closing && h.rng.IntN(3) == 0 {
		note, b.Decide = h.notes()
	}
	h.trace("append #%d to %s: %d events, key %q, closes %v, note %.12s", w.append, t.name, len(b.Data), b.Key,
		b.Close, note)
	a := t.appends(w.append, w.data, b.Close, note)
	r, err := h.manager.Stream(t.name).Append(context.Background(), b)
	h.trace("  appended #%d to %s:%s, %v", w.append, t.name, brief(r.Events), err)
	h.last = err
	switch {
	case err == nil:
		if ifTail != nil && !r.Repeated && r.Events[0].Offset != *ifTail {
			return fmt.Errorf("appended at %v if the tail is %v", r.Events, *ifTail)
		}
		return a.acknowledged(r)
	case isClosed(err):
		return a.late()
	case promised(err):
		return a.refused()
	}
	return damaged(err)
}

func isClosed(err error) bool {
	_, closed := errors.AsType[*streamlib.ClosedError](err)
	return closed
}

// together appends to the streams, or deletes them, in one commit.
func (h *history) together(streams ...*truth) error {
	nest, was, doing := h.nest, h.doing, "append"
	defer func() { h.nest, h.doing = nest, was }()
	h.nest = 0
	var batch []*request
	var attempts []attempt
	for i, t := range streams {
		info, err := stat(h.store, t.name)
		if slices.Contains(streams[:i], t) || err != nil || info.Closed {
			if err := damaged(err); err != nil {
				return err
			}
			continue
		}
		if h.closing && h.rng.IntN(3) == 0 {
			h.trace("delete %s, with others", t.name)
			batch = append(batch, &request{kind: deletes, name: t.name})
			attempts = append(attempts, t.deletes())
			doing = "delete"
			continue
		}
		w, at := h.sends(1+h.rng.IntN(3)), h.now()
		if at.Before(info.UpdatedAt) {
			at = info.UpdatedAt
		}
		r := &request{kind: adds, name: t.name}
		for i, d := range w.data {
			record, _ := streamlib.NewRecord(info.Tail+streamlib.Offset(i), t.name, json.RawMessage(d), at)
			e, err := streamlib.ParseRecord(record)
			if err != nil {
				return err
			}
			r.events = append(r.events, e)
		}
		a := t.appends(w.append, w.data, false, "")
		if state := info.State; h.closing && h.rng.IntN(3) == 0 || info.Tail == 0 && state.Life > 0 {
			if len(t.keyed) == 0 { // whoever drops events remembers their keys
				state.First += streamlib.Offset(h.rng.IntN(int(info.Tail-info.First) + len(w.data) + 1))
			}
			state.Closed, state.UpdatedAt = h.rng.IntN(4) == 0, at
			r.state = &state
			for _, s := range a.added {
				s.first, s.closed = max(s.first, min(int(state.First), len(s.facts))), state.Closed
			}
		}
		h.trace("append #%d to %s, with others: %d events, %+v", w.append, t.name, len(w.data), r.state)
		batch, attempts = append(batch, r), append(attempts, a)
	}
	if len(batch) == 0 {
		return nil
	}
	h.nest, h.doing = nest, doing
	h.store.commit(batch)
	// The one before had other tails.
	h.manager = streamlib.NewManager(h.store, streamlib.Plain, streamlib.Options{Now: h.now})
	for i, r := range batch {
		h.trace("  appended to %s:%s, %v", r.name, brief(r.events), r.err)
		err := damaged(r.err)
		switch {
		case r.err == nil && r.kind == deletes:
			attempts[i].t.keyed = nil
			err = attempts[i].done("a deletion")
		case r.err == nil:
			err = attempts[i].acknowledged(streamlib.Receipt{Events: r.events})
		case promised(r.err):
			err = attempts[i].refused()
		}
		if err != nil {
			return err
		}
		h.outcomes = append(h.outcomes, r.err)
	}
	return nil
}

// promised tells whether the error promises that nothing was stored.
func promised(err error) bool {
	_, conflict := errors.AsType[*streamlib.ConflictError](err)
	return conflict || errors.Is(err, streamlib.ErrFull) || errors.Is(err, streamlib.ErrUnavailable) ||
		errors.Is(err, streamlib.ErrTooLarge)
}

// brief is what a trace says of events.
func brief(events []streamlib.Event) string {
	var b strings.Builder
	for _, e := range events {
		data, _, _ := strings.Cut(string(e.Data()), `,"x"`)
		fmt.Fprintf(&b, " %d:%s", e.Offset, data)
	}
	return b.String()
}

// at crashes at the first operation of a kind on a path, with its effect or without.
func (h *history) at(kind, path string, e effect) {
	h.watch = func(o op) outcome {
		return outcome{crash: o.kind == kind && o.path == path, effect: e}
	}
}
