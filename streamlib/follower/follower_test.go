package follower_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/follower"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/matryer/is"
)

// lab is a manager with a follower, in a synctest bubble.
type lab struct {
	t       *testing.T
	storage *counted
	manager *streamlib.Manager
	o       follower.Options
	f       *follower.Follower
	log     logged
	opened  func() // where not nil, what is done between Open and Run
	stop    func() error

	mu   sync.Mutex
	got  []string // STREAM/OFFSET=DATA, what was delivered
	fail func(changes []follower.Change) error
}

type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// counted is a storage that counts what is asked of it.
type counted struct {
	streamlib.Storage
	asked atomic.Int64
	read  func() // where not nil, what happens behind each reading
}

func (c *counted) Read(ctx context.Context, name string, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	return func(yield func([]streamlib.Event, error) bool) {
		c.Storage.Read(ctx, name, from, to)(yield)
		if c.read != nil {
			c.read()
		}
	}
}

func (c *counted) Stat(ctx context.Context, name string) (streamlib.Info, error) {
	c.asked.Add(1)
	return c.Storage.Stat(ctx, name)
}

func newLab(t *testing.T, o follower.Options) *lab {
	l := &lab{t: t, storage: &counted{Storage: memory.New()}}
	l.manager = streamlib.NewManager(l.storage, streamlib.Plain, streamlib.Options{})
	o.Manager, o.Path = l.manager, filepath.Join(t.TempDir(), "test.cursor")
	if o.Streams == "" {
		o.Streams = "*"
	}
	o.Log = slog.New(slog.NewTextHandler(&l.log, nil))
	if o.Deliver == nil {
		o.Deliver = l.deliver
	}
	l.o = o
	return l
}

// start starts a follower, where the other one has ended. It ends with the test.
func (l *lab) start() {
	l.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f, err := follower.Open(ctx, l.o)
	if err != nil {
		cancel()
		l.t.Fatal(err)
	}
	l.f = f
	if l.opened != nil {
		l.opened()
	}
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	l.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	l.t.Cleanup(func() { l.stop() })
}

func (l *lab) deliver(_ context.Context, changes []follower.Change) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		if err := l.fail(changes); err != nil {
			return err
		}
	}
	for _, c := range changes {
		if c.Deleted {
			l.got = append(l.got, c.Stream+" deleted")
		}
		for _, e := range c.Events {
			l.got = append(l.got, fmt.Sprintf("%s/%d=%s", e.Stream(), e.Offset, e.Data()))
		}
		if c.State.Closed {
			l.got = append(l.got, fmt.Sprintf("%s closed at %d", c.Stream, c.Tail))
		}
	}
	return nil
}

func (l *lab) failing(fail func([]follower.Change) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = fail
}

// took is what was delivered since it was last asked.
func (l *lab) took() string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	got := strings.Join(l.got, " ")
	l.got = nil
	return got
}

func (l *lab) append(name string, data ...string) {
	l.t.Helper()
	if _, err := l.manager.Stream(name).Append(context.Background(), streamlib.Batch{Data: streamlib.JSON(data...)}); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) close(name string) {
	l.t.Helper()
	if _, err := l.manager.Stream(name).Append(context.Background(), streamlib.Batch{Close: true}); err != nil {
		l.t.Fatal(err)
	}
}

func TestHandsOnWhatIsAppendedFromThenOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t, follower.Options{Streams: "a*"})
		l.append("a", "1", "2")
		l.append("ab", "1")
		l.start()
		time.Sleep(time.Minute)
		is.Equal(l.took(), "")
		l.append("a", "3")
		l.append("a", "4")
		l.append("b", "1")
		time.Sleep(25 * time.Millisecond)
		is.Equal(l.took(), "a/2=3 a/3=4")
		l.append("ac", "1") // a new stream
		time.Sleep(time.Second)
		is.Equal(l.took(), "ac/0=1")
		is.NoErr(l.stop())

		l.append("a", "5") // while there is none
		l.append("ad", "1")
		l.start()
		time.Sleep(time.Second)
		got := l.took()
		is.True(got == "a/4=5 ad/0=1" || got == "ad/0=1 a/4=5")
		is.Equal(l.f.Status(), follower.Status{Events: 2, Batches: 1, Streams: 4})
	})
}

func TestANewFollowerMayBeginWithAllThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t, follower.Options{All: true, Streams: "a"})
		l.append("a", "1", "2")
		l.append("ab", "1")
		l.start()
		l.append("a", "3")
		time.Sleep(time.Second)
		is.Equal(l.took(), "a/0=1 a/1=2 a/2=3")
	})
}

// TestTriesAgain: with the same events, after 1, 2 and 4 seconds, and then for as long as it takes; and it tells.
func TestTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t, follower.Options{})
		var tries []time.Time
		var first []follower.Change
		l.failing(func(changes []follower.Change) error {
			if tries = append(tries, time.Now()); first == nil {
				first = changes
			}
			is.Equal(&changes[0], &first[0])
			return errors.New("nobody there")
		})
		l.start()
		began := time.Now()
		l.append("a", "1")
		time.Sleep(10 * time.Second)
		l.append("a", "2")
		l.append("b", "1")
		synctest.Wait()
		for i, after := range []time.Duration{0, 1, 3, 7} {
			is.Equal(tries[i].Sub(tries[0]).Round(time.Second), after*time.Second)
		}
		s := l.f.Status()
		is.Equal(s.Failing, "nobody there")
		is.Equal(s.Failures, int64(4))
		is.Equal(s.Behind, time.Since(began).Truncate(time.Millisecond))
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		is.True(len(tries) > 24*60/8) // at the latest after six minutes and a quarter
		is.True(len(tries) < 24*60/3)
		gaps := map[time.Duration]bool{} // with jitter, for many may wait for the same receiver
		for i := len(tries) - 100; i < len(tries); i++ {
			gap := tries[i].Sub(tries[i-1])
			is.True(gap >= 225*time.Second && gap <= 376*time.Second)
			gaps[gap.Round(10*time.Millisecond)] = true
		}
		is.True(len(gaps) > 50)
		is.Equal(l.f.Status().Waiting, 2)
		l.failing(nil)
		time.Sleep(7 * time.Minute)
		is.Equal(l.took(), "a/0=1 a/1=2 b/0=1")
		s = l.f.Status()
		is.Equal(s.Failing, "")
		is.Equal(s.Behind, time.Duration(0))
		is.Equal(s.Waiting, 0)
		is.Equal(strings.Count(l.log.String(), "level=WARN"), 1)
	})
}

// TestWhatIsDeletedMeanwhileIsNotTriedAgain.
func TestWhatIsDeletedMeanwhileIsNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t, follower.Options{})
		l.start()
		l.failing(func([]follower.Change) error { return errors.New("no") })
		l.append("a", "1")
		l.append("b", "1", "2")
		time.Sleep(time.Minute)
		is.NoErr(l.manager.Stream("a").Delete(t.Context()))
		is.NoErr(l.manager.Stream("b").Trim(t.Context(), 1))
		l.append("a", "9")
		l.failing(nil)
		time.Sleep(time.Hour)
		got := l.took()
		is.True(got == "a/0=9 b/1=2" || got == "b/1=2 a/0=9")
		is.Equal(l.f.Status().Dropped, int64(0)) // it was never handed over that there is a b
	})
}

// TestNoEventIsTakenForOneOfAnotherLife: where a stream is deleted and made again in the middle of a look at it.
func TestNoEventIsTakenForOneOfAnotherLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t, follower.Options{States: true})
		var lives []string
		l.failing(func(changes []follower.Change) error {
			for _, c := range changes {
				lives = append(lives, fmt.Sprintf("%d %t %d %s", c.State.Life, c.Deleted, c.Tail, c.Events))
			}
			return nil
		})
		l.start()
		l.storage.read = func() {
			l.storage.read = nil
			is.NoErr(l.manager.Stream("a").Delete(t.Context()))
			l.append("a", `"second"`)
		}
		l.append("a", `"first"`)
		time.Sleep(time.Second)
		is.Equal(l.took(), `a/0="second"`)
		is.Equal(len(lives), 1)
		is.True(strings.HasPrefix(lives[0], "1 false 1"))
	})
}

// TestSomeStreamsFail: the others go on, and each of them is tried again by itself.
func TestSomeStreamsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t, follower.Options{})
		var bad atomic.Bool
		var tries atomic.Int64
		bad.Store(true)
		l.o.Deliver = func(ctx context.Context, changes []follower.Change) error {
			failed := map[string]error{}
			for _, c := range changes {
				if bad.Load() && c.Stream == "bad" {
					tries.Add(1)
					failed[c.Stream] = errors.New("it is bad")
				} else {
					is.NoErr(l.deliver(ctx, []follower.Change{c}))
				}
			}
			if len(failed) > 0 {
				return &follower.StreamsError{Streams: failed}
			}
			return nil
		}
		l.start()
		l.append("bad", "1")
		l.append("good", "1")
		time.Sleep(time.Second)
		is.Equal(l.took(), "good/0=1")
		l.append("good", "2")
		l.append("bad", "2")
		for range 3600 {
			l.append("bad", "3")
			time.Sleep(time.Second)
		}
		is.Equal(l.took(), "good/1=2")
		is.True(tries.Load() > 60/8)
		is.True(tries.Load() < 30)
		s := l.f.Status()
		is.Equal(s.Waiting, 1)
		is.Equal(s.Failed, 1)
		is.True(s.Behind > time.Hour)
		bad.Store(false)
		time.Sleep(7 * time.Minute)
		is.True(strings.HasPrefix(l.took(), "bad/0=1 bad/1=2 bad/2=3 "))
		is.Equal(l.f.Status().Failed, 0)
		time.Sleep(time.Second)
		is.Equal(l.f.Status().Behind, time.Duration(0))
		is.Equal(strings.Count(l.log.String(), "level=WARN"), 1)
	})
}

func TestStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t, follower.Options{States: true})
		l.append("a", "1")
		l.start()
		l.close("a")
		time.Sleep(time.Second)
		is.Equal(l.took(), "a closed at 1")
		l.append("b", "1", "2")
		l.close("b")
		l.close("c")
		time.Sleep(time.Second)
		is.Equal(l.took(), "b/0=1 b/1=2 b closed at 2 c closed at 0")
		is.NoErr(l.manager.Stream("b").Delete(t.Context()))
		is.NoErr(l.manager.Stream("c").Delete(t.Context()))
		l.append("c", "3")
		time.Sleep(time.Second)
		got := l.took()
		is.True(got == "b deleted c deleted c/0=3" || got == "c deleted c/0=3 b deleted")
		is.NoErr(l.stop())
		is.NoErr(l.manager.Stream("a").Delete(t.Context()))
		l.start()
		time.Sleep(time.Second)
		is.Equal(l.took(), "a deleted")
		is.NoErr(l.stop())
		l.start()
		time.Sleep(time.Minute)
		is.Equal(l.took(), "")
	})
}

func TestWhatRetentionTookIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t, follower.Options{})
		l.append("a", "0")
		l.start()
		is.NoErr(l.stop())
		l.append("a", "1", "2", "3")
		is.NoErr(l.manager.Stream("a").Trim(t.Context(), 3))
		l.start()
		time.Sleep(time.Second)
		is.Equal(l.took(), "a/3=3")
		is.Equal(l.f.Status().Dropped, int64(2))
		is.True(strings.Contains(l.log.String(), "events were dropped before they could be handed over"))
	})
}

// TestFlush returns at once where nothing waits, and else when that was handed over, however long that takes.
func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t, follower.Options{Gather: time.Minute})
		l.start()
		time.Sleep(time.Second)
		begun := time.Now()
		is.NoErr(l.f.Flush(t.Context()))
		is.Equal(time.Since(begun), time.Duration(0))
		for i := range 3 {
			l.append("a", "1")
			l.append("b", "2")
			time.Sleep(time.Duration(i) * 400 * time.Millisecond) // it may be gathering, or not have looked
			is.NoErr(l.f.Flush(t.Context()))
			is.Equal(l.took(), fmt.Sprintf("a/%d=1 b/%d=2", i, i))
		}
		is.True(time.Since(begun) < 2*time.Second)
		l.failing(func([]follower.Change) error { return errors.New("away") })
		l.append("a", "1")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, errors.New("an hour"))
		defer cancel()
		is.Equal(l.f.Flush(ctx).Error(), "an hour")
		flushed := make(chan error)
		go func() { flushed <- l.f.Flush(t.Context()) }()
		is.NoErr(l.stop())
		is.True(<-flushed != nil)
	})
}

func TestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t, follower.Options{})
		l.start()
		l.failing(func([]follower.Change) error { return fmt.Errorf("410: %w", follower.ErrEnd) })
		l.append("a", "1")
		time.Sleep(time.Second)
		is.True(errors.Is(l.stop(), follower.ErrEnd))
	})
}

// TestCostsNothingWhileAllIsDelivered.
func TestCostsNothingWhileAllIsDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t, follower.Options{Streams: "followed*"})
		for i := range 100 {
			l.append(fmt.Sprint("followed", i), "1")
		}
		l.append("other", "1")
		l.start()
		time.Sleep(time.Minute)
		l.storage.asked.Store(0)
		file, err := os.Stat(l.o.Path)
		is.NoErr(err)
		for range 1000 {
			time.Sleep(time.Second)
			l.append("other", "1")
		}
		is.Equal(l.storage.asked.Load(), int64(0))
		now, err := os.Stat(l.o.Path)
		is.NoErr(err)
		is.Equal(now.Size(), file.Size())
	})
}

// TestBatches: no more is handed over at once than is asked for, unless a single event is larger.
func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var sizes []int
		l := newLab(t, follower.Options{Bytes: 1000})
		l.failing(func(changes []follower.Change) error {
			size, n := 0, 0
			for _, c := range changes {
				for _, e := range c.Events {
					size, n = size+len(e.Record()), n+1
				}
			}
			is.True(size <= 1000+200 || n == 1)
			sizes = append(sizes, n)
			return nil
		})
		l.start()
		var want []string
		for i := range 20 {
			l.append("a", fmt.Sprint(i))
			want = append(want, fmt.Sprintf("a/%d=%d", i, i))
		}
		l.append("a", `"`+strings.Repeat("x", 5000)+`"`)
		l.close("a")
		time.Sleep(time.Second)
		got := l.took()
		is.True(strings.HasPrefix(got, strings.Join(want, " ")+" a/20=")) // and is closed behind the last one
		is.True(strings.HasSuffix(got, " a closed at 21"))
		is.True(len(sizes) >= 3)
	})
}

// TestACopyIsWhatItIsOf lets a copy be made of streams with which all that can be done is done, by a follower that fails,
// ends and is started again, with the cursor of a moment before, too.
func TestACopyIsWhatItIsOf(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) { copyIsWhatItIsOf(t, rand.New(rand.NewPCG(seed, 17))) })
	}
}

func copyIsWhatItIsOf(t *testing.T, rnd *rand.Rand) {
	is := is.New(t)
	l := newLab(t, follower.Options{States: true, All: true, Bytes: 2000})
	c := copied{streams: map[string]*copiedStream{}}
	mood := rand.New(rand.NewPCG(rnd.Uint64(), 18))
	var synced int64 // the cursor, as far as the package says
	l.o.Deliver = func(_ context.Context, changes []follower.Change) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		failed := map[string]error{}
		for _, change := range changes {
			if c.streams[change.Stream] == nil {
				file, err := os.Stat(l.o.Path)
				is.NoErr(err)
				synced = file.Size()
			}
			switch mood.IntN(20) {
			case 0:
				failed[change.Stream] = errors.New("not this one")
			case 1: // the outcome is open
				c.take(t, change)
				return errors.New("the answer is lost")
			default:
				c.take(t, change)
			}
		}
		if len(failed) > 0 {
			return &follower.StreamsError{Streams: failed}
		}
		return nil
	}
	l.opened = func() {
		file, err := os.Stat(l.o.Path)
		is.NoErr(err)
		synced = file.Size()
	}
	l.start()
	for range 300 {
		name := fmt.Sprint("s", rnd.IntN(6))
		s := l.manager.Stream(name)
		switch n := rnd.IntN(24); n {
		case 0, 1:
			if err := s.Delete(t.Context()); !errors.Is(err, streamlib.ErrHeld) {
				is.NoErr(err)
			}
		case 2, 3:
			info, err := s.Stat(t.Context())
			is.NoErr(err)
			is.NoErr(s.Trim(t.Context(), info.First+streamlib.Offset(rnd.IntN(4))))
		case 4:
			_, _ = s.Append(t.Context(), streamlib.Batch{Close: true})
		case 8, 9:
			_, err := s.Append(t.Context(), streamlib.Batch{Decide: func(_ streamlib.Offset, state *streamlib.State) error {
				state.Note, state.Held = fmt.Sprint(rnd.IntN(3)), rnd.IntN(4) == 0
				return nil
			}})
			is.NoErr(err)
		case 5, 6, 7:
			is.NoErr(l.stop())
			file, err := os.ReadFile(l.o.Path)
			is.NoErr(err)
			if n > 5 { // as a crash of the machine leaves it
				is.NoErr(os.Truncate(l.o.Path, synced+rnd.Int64N(int64(len(file))-synced+1)))
			}
			if n == 7 { // nobody follows them for a while
				_ = s.Delete(t.Context()) // it may be held
			}
			l.start()
		default:
			var b streamlib.Batch
			for range 1 + rnd.IntN(5) {
				b.Data = append(b.Data, streamlib.JSON(`"`+strings.Repeat("x", rnd.IntN(300))+`"`)...)
			}
			_, _ = s.Append(t.Context(), b) // it may be closed
		}
		time.Sleep(time.Duration(rnd.Int64N(int64(time.Duration(1) << (15 + rnd.IntN(17))))))
	}
	time.Sleep(time.Hour)
	names, err := l.manager.List(t.Context(), "", "", 0)
	is.NoErr(err)
	l.mu.Lock()
	defer l.mu.Unlock()
	is.Equal(len(c.streams), len(names))
	for _, name := range names {
		info, err := l.manager.Stream(name).Stat(t.Context())
		is.NoErr(err)
		have := c.streams[name]
		is.True(have != nil)
		is.Equal(have.life, info.Life)
		is.Equal(have.tail, info.Tail)
		is.Equal(have.closed, info.Closed)
		is.Equal(have.first, info.First)
		is.Equal(have.note, info.Note)
		is.Equal(have.held, info.Held)
		for events, err := range l.manager.Stream(name).Read(t.Context(), streamlib.Beginning, streamlib.MaxOffset) {
			is.NoErr(err)
			for _, e := range events {
				is.Equal(have.events[e.Offset], e.String())
			}
		}
	}
	is.Equal(l.f.Status().Waiting, 0)
}

// copied is a copy of streams.
type copied struct{ streams map[string]*copiedStream }

type copiedStream struct {
	life        int64
	first, tail streamlib.Offset
	closed      bool
	note        string
	held        bool
	events      map[streamlib.Offset]string
}

func (c *copied) take(t *testing.T, change follower.Change) {
	s := c.streams[change.Stream]
	if change.Deleted {
		delete(c.streams, change.Stream)
		s = nil
	}
	if is := (streamlib.Info{State: change.State, Tail: change.Tail}); !is.Exists() {
		if !change.Deleted {
			t.Errorf("%q: a change that is none", change.Stream)
		}
		return
	}
	if s == nil || s.life != change.State.Life { // the other one's deletion may have been told to a cursor that was lost
		s = &copiedStream{life: change.State.Life, events: map[streamlib.Offset]string{}}
		c.streams[change.Stream] = s
	}
	for i, e := range change.Events {
		if i == 0 && e.Offset > s.tail && e.Offset > change.State.First {
			t.Errorf("%q: event %d came behind %d", change.Stream, e.Offset, s.tail)
		}
		if had := s.events[e.Offset]; had != "" && had != e.String() {
			t.Errorf("%q: another event %d", change.Stream, e.Offset)
		}
		s.events[e.Offset] = e.String()
		s.tail = max(s.tail, e.Offset+1)
	}
	if n := len(change.Events); n > 0 && change.Events[n-1].Offset+1 != change.Tail {
		t.Errorf("%q: tail %d behind event %d", change.Stream, change.Tail, change.Events[n-1].Offset)
	}
	s.tail = max(s.tail, change.Tail)
	s.first = max(s.first, change.State.First)
	s.closed = s.closed || change.State.Closed
	if !change.More {
		s.note, s.held = change.State.Note, change.State.Held
	}
}
