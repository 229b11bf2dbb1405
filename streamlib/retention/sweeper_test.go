package retention_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/disk"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/retention"
	"github.com/matryer/is"
)

// lab is a manager with a sweeper, in a synctest bubble.
type lab struct {
	t       *testing.T
	manager *streamlib.Manager
	set     atomic.Int64 // by how much the clock was set, in nanoseconds
	log     *logged
	totals  func() retention.Totals
	stop    func()
}

// logged is what was logged.
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

// now is the clock, which can be set, and which events and the sweeper have their times from.
func (l *lab) now() time.Time { return time.Now().Add(time.Duration(l.set.Load())) }

// newLab starts a sweeper over what there is in storage. It ends with the test or with stop.
func newLab(t *testing.T, storage streamlib.Storage, f streamlib.Factory, retain, expire string) *lab {
	l := &lab{t: t, log: &logged{}}
	l.manager = streamlib.NewManager(storage, f, streamlib.Options{Now: l.now})
	l.start(retain, expire)
	return l
}

// start starts a sweeper with the rules, with spaces between them, in place of the one there was.
func (l *lab) start(retain, expire string) {
	if l.stop != nil {
		l.stop()
	}
	keep, err := retention.Retain(strings.Fields(retain)...)
	if err != nil {
		l.t.Fatal(err)
	}
	unused, err := retention.Expire(strings.Fields(expire)...)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	log := slog.New(slog.NewTextHandler(l.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := &retention.Sweeper{Manager: l.manager, Retain: keep, Expire: unused, Now: l.now, Log: log}
	l.totals = s.Totals
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	l.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	l.t.Cleanup(l.stop)
}

// append appends n events, and returns what was appended.
func (l *lab) append(name string, n int) []streamlib.Event {
	l.t.Helper()
	var b streamlib.Batch
	for range n {
		b.Data = append(b.Data, streamlib.JSON("1")...)
	}
	receipt, err := l.manager.Stream(name).Append(l.t.Context(), b)
	if err != nil {
		l.t.Fatal(err)
	}
	return receipt.Events
}

func (l *lab) info(name string) streamlib.Info {
	l.t.Helper()
	info, err := l.manager.Stream(name).Stat(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	return info
}

// kept has the first offset that a stream has, and its tail.
func (l *lab) kept(name string) [2]streamlib.Offset {
	l.t.Helper()
	info := l.info(name)
	return [2]streamlib.Offset{info.First, info.Tail}
}

// everyStorage runs a test in a bubble, over each storage.
func everyStorage(t *testing.T, test func(t *testing.T, storage streamlib.Storage)) {
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, memory.New()) })
	})
	t.Run("disk", func(t *testing.T) {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			storage, err := disk.Open(dir, disk.Options{NoSync: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := storage.Close(); err != nil {
					t.Error(err)
				}
			})
			test(t, storage)
		})
	})
}

func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestKeepsTheNumberOfEvents(t *testing.T) {
	everyStorage(t, func(t *testing.T, storage streamlib.Storage) {
		is := is.New(t)
		l := newLab(t, storage, streamlib.Plain, "a=10 b*=3", "")
		l.append("a", 25)
		l.append("b/1", 4)
		l.append("c", 1000)
		sleep(2 * time.Second)
		is.Equal(l.kept("a"), [2]streamlib.Offset{15, 25})
		is.Equal(l.kept("b/1"), [2]streamlib.Offset{1, 4})
		is.Equal(l.kept("c"), [2]streamlib.Offset{0, 1000})
	})
}

func TestKeepsTheSize(t *testing.T) {
	everyStorage(t, func(t *testing.T, storage streamlib.Storage) {
		is := is.New(t)
		l := newLab(t, storage, streamlib.Plain, "*=1kB", "")
		for range 100 {
			l.append("a", 1)
		}
		sleep(10 * time.Second) // for 5 of them nothing is trimmed again where a look came amid the appends
		info := l.info("a")
		is.True(info.Size <= 1000)
		is.True(info.Size+info.Size/int64(info.Tail-info.First) > 1000)
		is.Equal(info.Tail, streamlib.Offset(100))
	})
}

func TestKeepsTheAge(t *testing.T) {
	everyStorage(t, func(t *testing.T, storage streamlib.Storage) {
		is := is.New(t)
		l := newLab(t, storage, streamlib.Plain, "*=1h", "")
		for range 6 { // one each ten minutes
			l.append("a", 1)
			sleep(10 * time.Minute)
		}
		is.Equal(l.kept("a"), [2]streamlib.Offset{0, 6})
		sleep(2 * time.Second)
		is.Equal(l.kept("a"), [2]streamlib.Offset{1, 6})
		sleep(10 * time.Minute)
		is.Equal(l.kept("a"), [2]streamlib.Offset{2, 6})
		sleep(time.Hour)
		is.Equal(l.kept("a"), [2]streamlib.Offset{6, 6})
		is.Equal(l.append("a", 1)[0].Offset, streamlib.Offset(6))
	})
}

func TestWhatIsOverAnyBoundGoes(t *testing.T) {
	everyStorage(t, func(t *testing.T, storage streamlib.Storage) {
		is := is.New(t)
		l := newLab(t, storage, streamlib.Plain, "*=1h,10,2kB", "")
		small := len(l.append("a", 8)[0].Record())
		sleep(59 * time.Minute)
		is.Equal(l.kept("a"), [2]streamlib.Offset{0, 8})
		l.append("a", 4) // too many
		sleep(10 * time.Second)
		is.Equal(l.kept("a"), [2]streamlib.Offset{2, 12})
		sleep(time.Minute) // too old
		is.Equal(l.kept("a"), [2]streamlib.Offset{8, 12})
		_, err := l.manager.Stream("a").Append(t.Context(), streamlib.Batch{
			Data: streamlib.JSON(strings.Repeat("1", 2000-small-small/2-small+1))}) // too large for more than one of them
		is.NoErr(err)
		sleep(10 * time.Second)
		is.Equal(l.kept("a"), [2]streamlib.Offset{11, 13})
	})
}

func TestDeletesStreamsThatNobodyAppendsTo(t *testing.T) {
	everyStorage(t, func(t *testing.T, storage streamlib.Storage) {
		is := is.New(t)
		l := newLab(t, storage, streamlib.Plain, "trimmed=1", "*=30m kept*=70m")
		for _, name := range []string{"a", "used", "closed", "trimmed", "kept/1"} {
			l.append(name, 5)
		}
		for _, name := range []string{"closed", "empty"} {
			_, err := l.manager.Stream(name).Append(t.Context(), streamlib.Batch{Close: true})
			is.NoErr(err)
		}
		is.NoErr(l.manager.Stream("a").Trim(t.Context(), streamlib.Now))
		list := func() []string {
			names, err := l.manager.List(t.Context(), "", "", 0)
			is.NoErr(err)
			return names
		}
		sleep(15 * time.Minute)
		l.append("used", 1)
		l.start("", "*=30m kept*=70m") // which finds them
		sleep(15 * time.Minute)
		is.Equal(list(), []string{"a", "closed", "empty", "kept/1", "trimmed", "used"})
		sleep(2 * time.Second)
		is.Equal(list(), []string{"kept/1", "used"})
		sleep(15 * time.Minute)
		is.Equal(list(), []string{"kept/1"})
		sleep(25 * time.Minute)
		is.Equal(len(list()), 0)
		l.append("a", 1) // once more
		sleep(30*time.Minute - time.Second)
		is.Equal(list(), []string{"a"})
		sleep(3 * time.Second)
		is.Equal(len(list()), 0)
	})
}

// meddler is a stream to which something is done between the sweeper's look and its act.
type meddler struct {
	streamlib.Stream
	meddle func(s streamlib.Stream)
}

func (m meddler) TrimIf(ctx context.Context, before streamlib.Offset, life int64) error {
	m.meddle(m.Stream)
	return m.Stream.TrimIf(ctx, before, life)
}

func (m meddler) DeleteIf(ctx context.Context, tail streamlib.Offset, life int64) error {
	m.meddle(m.Stream)
	return m.Stream.DeleteIf(ctx, tail, life)
}

func TestAStreamThatIsAppendedToAtTheLastMomentIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		meddled := 0
		meddle := func(s streamlib.Stream) {
			if meddled++; meddled < 4 {
				_, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("2")})
				is.NoErr(err)
			}
		}
		factory := func(name string, storage streamlib.Storage, o streamlib.Options) streamlib.Stream {
			return meddler{streamlib.Plain(name, storage, o), meddle}
		}
		l := newLab(t, memory.New(), factory, "", "*=1h")
		l.append("a", 1)
		for n := range 3 {
			sleep(time.Hour + 2*time.Second)
			is.Equal(meddled, n+1)
			is.Equal(l.kept("a"), [2]streamlib.Offset{0, streamlib.Offset(n + 2)})
		}
		sleep(time.Hour)
		is.Equal(meddled, 4)
		is.Equal(l.info("a").Tail, streamlib.Offset(0))
		is.True(!strings.Contains(l.log.String(), "WARN"))
	})
}

// TestAStreamThatIsMadeAgainIsNotTrimmedForTheFormerOne: what was found out of the one says nothing of the other.
func TestAStreamThatIsMadeAgainIsNotTrimmedForTheFormerOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		meddled := 0
		meddle := func(s streamlib.Stream) {
			if meddled++; meddled > 1 {
				return
			}
			is.NoErr(s.Delete(t.Context()))
			_, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1", "2", "3")})
			is.NoErr(err)
		}
		factory := func(name string, storage streamlib.Storage, o streamlib.Options) streamlib.Stream {
			return meddler{streamlib.Plain(name, storage, o), meddle}
		}
		l := newLab(t, memory.New(), factory, "*=1h", "")
		l.append("a", 10)
		sleep(2*time.Hour - time.Minute)
		is.Equal(meddled, 1)
		is.Equal(l.kept("a"), [2]streamlib.Offset{0, 3})
		sleep(time.Hour)
		is.Equal(l.kept("a"), [2]streamlib.Offset{3, 3})
	})
}

// TestAClockThatIsSetBackDropsNothing: events are never younger than the clock says, so they go later.
func TestAClockThatIsSetBackDropsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t, memory.New(), streamlib.Plain, "a=1h n=5", "x*=1h")
		l.append("a", 1)
		l.append("x", 1)
		l.set.Store(int64(-24 * time.Hour))
		l.append("a", 1)
		l.append("x/back", 1)
		sleep(59 * time.Minute)
		is.Equal(l.kept("a"), [2]streamlib.Offset{0, 2})
		is.Equal(l.kept("x/back"), [2]streamlib.Offset{0, 1})
		l.append("n", 6) // a number is kept whatever the clock says
		sleep(2 * time.Second)
		is.Equal(l.kept("n"), [2]streamlib.Offset{1, 6})
		sleep(23 * time.Hour)
		is.Equal(l.kept("a"), [2]streamlib.Offset{0, 2})
		is.Equal(l.kept("x"), [2]streamlib.Offset{0, 1})
		is.Equal(l.kept("x/back"), [2]streamlib.Offset{0, 0})
		sleep(time.Hour + time.Minute)
		is.Equal(l.kept("a"), [2]streamlib.Offset{2, 2})
		is.Equal(l.kept("x"), [2]streamlib.Offset{0, 0})
	})
}

// counted is a storage that counts what is asked of it, and fails on demand.
type counted struct {
	streamlib.Storage
	stats, trims, deletions atomic.Int64
	fail                    func(name string) error // where events are dropped
	damage                  func(name string) *streamlib.CorruptError
	between                 func() // two events of a read
}

func (c *counted) Commit(ctx context.Context, name string, change streamlib.Change) error {
	switch {
	case change.Delete:
		c.deletions.Add(1)
	case len(change.Events) == 0:
		c.trims.Add(1)
	}
	if c.fail != nil && len(change.Events) == 0 {
		if err := c.fail(name); err != nil {
			return err
		}
	}
	return c.Storage.Commit(ctx, name, change)
}

func (c *counted) Stat(ctx context.Context, name string) (streamlib.Info, error) {
	c.stats.Add(1)
	info, err := c.Storage.Stat(ctx, name)
	if c.damage != nil {
		info.Damage = c.damage(name)
	}
	return info, err
}

func (c *counted) Read(ctx context.Context, name string, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event,
	error] {
	if c.between == nil {
		return c.Storage.Read(ctx, name, from, to)
	}
	return func(yield func([]streamlib.Event, error) bool) {
		for events, err := range c.Storage.Read(ctx, name, from, to) {
			for i := range events {
				if !yield(events[i:i+1], nil) {
					return
				}
				c.between()
			}
			if err != nil && !yield(nil, err) {
				return
			}
		}
	}
}

// TestAHotStreamIsTrimmedNowAndThen: not with each event, but within ten seconds, and never far over its bound.
func TestAHotStreamIsTrimmedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		storage := &counted{Storage: memory.New()}
		l := newLab(t, storage, streamlib.Plain, "slow=1000 fast=100 old=1m", "")
		for i := range 100 * 60 { // a minute
			l.append("slow", 1) // is over its bound from 10 s on
			l.append("old", 1)
			l.append("fast", 10)
			sleep(10 * time.Millisecond)
			slow, fast := l.kept("slow"), l.kept("fast")
			if i > 2000 {
				is.True(slow[1]-slow[0] >= 1000)
				is.True(slow[1]-slow[0] < 1000+600) // five seconds, and one
			}
			is.True(fast[1]-fast[0] <= 200+100) // a tenth of a second
		}
		is.Equal(l.kept("old"), [2]streamlib.Offset{0, 6000})
		is.True(storage.trims.Load() > 10)
		fast := 60_000 / 50 // the half of its bound is more
		if n := storage.trims.Load(); n > int64(fast+60/5+2) {
			t.Errorf("trimmed %d times", n)
		}
		before := storage.trims.Load()
		l.start("old=1m", "")
		for range 600 {
			l.append("old", 1)
			sleep(100 * time.Millisecond)
			age := l.now().Sub(l.info("old").CreatedAt)
			is.True(age <= time.Minute+7*time.Second)
		}
		is.True(storage.trims.Load()-before <= 60/5+1)
	})
}

// TestCostsWhatChanges counts what is asked of the storage of many streams.
func TestCostsWhatChanges(t *testing.T) {
	for _, many := range []int{10_000, 100_000} {
		if many > 10_000 && testing.Short() {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			storage := &counted{Storage: memory.New()}
			l := newLab(t, storage, streamlib.Plain, "none=1", "")
			for i := range many {
				l.append(fmt.Sprint("s/", i), 2)
			}
			sleep(time.Minute)
			is.True(storage.stats.Load() <= int64(many)+1) // the manager's, where a stream is new
			storage.stats.Store(0)
			l.start("s/*=1h s/1*=2h", "*=3h")
			sleep(20 * time.Second)
			is.True(storage.stats.Load() >= int64(many))
			is.True(storage.stats.Load() <= int64(many)+10)
			storage.stats.Store(0)
			for range 100 {
				for i := range 10 {
					l.append(fmt.Sprint("s/", i), 1)
				}
				sleep(time.Second)
			}
			if n := storage.stats.Load(); n > 100*10*3 { // its own, and the manager's where it had dropped the stream
				t.Errorf("%d of %d streams were asked for", n, many)
			}
			is.Equal(storage.trims.Load(), int64(0))
			if many > 10_000 {
				return
			}
			sleep(time.Hour + 10*time.Second)
			is.Equal(l.kept("s/5"), [2]streamlib.Offset{102, 102})
			is.Equal(l.kept("s/1"), [2]streamlib.Offset{0, 102})
			is.Equal(l.kept("s/9999"), [2]streamlib.Offset{2, 2})
			sleep(3 * time.Hour)
			is.Equal(storage.deletions.Load(), int64(many))
		})
	}
}

func TestWhatFailsIsLoggedOnceAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var broken atomic.Bool
		storage := &counted{Storage: memory.New()}
		storage.fail = func(name string) error {
			if broken.Load() && name != "well" {
				return fmt.Errorf("%w: no room", streamlib.ErrFull)
			}
			return nil
		}
		l := newLab(t, storage, streamlib.Plain, "*=5", "unused*=1h")
		l.append("unused", 1)
		for _, name := range []string{"a", "b", "well"} {
			l.append(name, 5)
		}
		l.stop()
		l.append("a", 1)
		l.append("b", 1)
		broken.Store(true) // before it looks
		l.start("*=5", "unused*=1h")
		trims := storage.trims.Load()
		for range 120 {
			l.append("well", 1)
			sleep(time.Minute)
			is.True(l.kept("well")[1]-l.kept("well")[0] <= 6)
		}
		is.Equal(strings.Count(l.log.String(), "level=WARN"), 3)
		is.True(strings.Contains(l.log.String(), `stream=a error="trim \"a\": storage is full: no room"`))
		is.True(storage.trims.Load()-trims < 3*130)
		is.Equal(l.kept("a"), [2]streamlib.Offset{0, 6})
		is.Equal(l.info("unused").Tail, streamlib.Offset(1))
		is.Equal(l.totals().Failing, int64(3)) // a, b and unused
		trims = storage.trims.Load()
		for range 120 { // it is not tried again for each append
			l.append("a", 1)
			sleep(time.Second)
		}
		is.True(storage.trims.Load()-trims <= 3*3)
		broken.Store(false)
		sleep(2 * time.Minute)
		is.Equal(l.kept("a"), [2]streamlib.Offset{121, 126})
		is.Equal(l.info("unused").Tail, streamlib.Offset(0))
		is.Equal(l.totals().Failing, int64(0))
		l.stop()
		is.Equal(strings.Count(l.log.String(), "level=WARN"), 3)
	})
}

func TestADamagedStreamIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var repaired atomic.Bool
		storage := &counted{Storage: memory.New()}
		storage.damage = func(name string) *streamlib.CorruptError {
			if name == "a" && !repaired.Load() {
				return &streamlib.CorruptError{File: "a.json", Offset: 7, Reason: "torn"}
			}
			return nil
		}
		l := newLab(t, storage, streamlib.Plain, "*=1", "*=1h")
		l.append("a", 3)
		l.append("b", 3)
		sleep(2 * time.Hour)
		is.Equal(l.kept("a"), [2]streamlib.Offset{0, 3})
		is.Equal(l.kept("b"), [2]streamlib.Offset{0, 0})
		is.Equal(strings.Count(l.log.String(), "level=WARN"), 1)
		is.True(strings.Contains(l.log.String(), "a.json is corrupt at byte 7: torn"))
		repaired.Store(true)
		sleep(2 * time.Minute)
		is.Equal(l.info("a").Tail, streamlib.Offset(0))
	})
}

// TestAFollowerInTheMiddleOfWhatGoesIsTold is a retention that runs between a follower's read of the file and its
// next.
func TestAFollowerInTheMiddleOfWhatGoesIsTold(t *testing.T) {
	everyStorage(t, func(t *testing.T, storage streamlib.Storage) {
		is := is.New(t)
		c := &counted{Storage: storage}
		l := newLab(t, c, streamlib.Plain, "*=10", "")
		reads := 0
		c.between = func() {
			if reads++; reads == 3 {
				l.append("a", 50)
				sleep(10 * time.Second)
			}
		}
		l.append("a", 10)
		var seen []streamlib.Event
		var last error
		for events, err := range l.manager.Stream("a").Subscribe(t.Context(), streamlib.Beginning) {
			seen, last = append(seen, events...), err
		}
		is.Equal(l.kept("a"), [2]streamlib.Offset{50, 60})
		gone, ok := errors.AsType[*streamlib.GoneError](last)
		is.True(ok)
		is.Equal(*gone, streamlib.GoneError{Stream: "a", After: 2, Tail: 60, First: 50})
		is.Equal(len(seen), 3)
		for i, e := range seen {
			is.Equal(e.Offset, streamlib.Offset(i))
		}
	})
}

// TestAKeyOutlivesItsEvents: an append whose original was trimmed away, in part or all of it, is a repeat.
func TestAKeyOutlivesItsEvents(t *testing.T) {
	everyStorage(t, func(t *testing.T, storage streamlib.Storage) {
		is := is.New(t)
		l := newLab(t, storage, streamlib.Plain, "*=3", "")
		batch := streamlib.Batch{Data: streamlib.JSON("1", "2", "3", "4"), Key: "k"}
		first, err := l.manager.Stream("a").Append(t.Context(), batch)
		is.NoErr(err)
		sleep(2 * time.Second)
		is.Equal(l.kept("a"), [2]streamlib.Offset{1, 4})
		again, err := l.manager.Stream("a").Append(t.Context(), batch)
		is.NoErr(err)
		is.True(again.Repeated)
		is.Equal(fmt.Sprint(again.Events), fmt.Sprint(first.Events))
		is.Equal(l.kept("a"), [2]streamlib.Offset{1, 4})
		l.append("a", 3)
		sleep(6 * time.Second)
		is.Equal(l.kept("a"), [2]streamlib.Offset{4, 7})
		again, err = l.manager.Stream("a").Append(t.Context(), batch)
		is.NoErr(err)
		is.True(again.Repeated)
		is.Equal(fmt.Sprint(again.Events), fmt.Sprint(first.Events))
		is.Equal(l.kept("a"), [2]streamlib.Offset{4, 7})
	})
}

func TestLogsASummary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t, memory.New(), streamlib.Plain, "*=100", "*=1h")
		l.append("a", 100)
		l.append("b", 100)
		sleep(6 * time.Second)
		for range 10 {
			l.append("a", 2)
			l.append("b", 2)
			sleep(6 * time.Second)
		}
		info := func() int { return strings.Count(l.log.String(), "level=INFO") }
		is.True(strings.Contains(l.log.String(),
			`level=INFO msg="dropped what is kept no longer" trimmed=2 events=4 deleted=0`))
		is.Equal(info(), 1)
		is.Equal(strings.Count(l.log.String(), "level=DEBUG"), 20)
		sleep(time.Minute)
		is.Equal(info(), 2)
		is.True(strings.Contains(l.log.String(), `trimmed=18 events=36 deleted=0`))
		sleep(time.Hour)
		l.stop()
		is.True(strings.Contains(l.log.String(), `trimmed=0 events=0 deleted=2`))
		is.Equal(info(), 3)
		is.Equal(l.totals(), retention.Totals{Trims: 20, Events: 40, Deleted: 2})
	})
}

// audited is a storage that judges everything that is dropped by what the rules say at that moment.
type audited struct {
	streamlib.Storage
	t                *testing.T
	now              func() time.Time
	keep             func(name string) (keep, unused retention.Bounds)
	mu               sync.Mutex
	own              map[string]streamlib.Offset // what the test itself drops up to
	dropped, deleted int
}

func (a *audited) Commit(ctx context.Context, name string, c streamlib.Change) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if own, ok := a.own[name]; c.Delete && !(ok && own == streamlib.MaxOffset) {
		a.deleted++
		info, err := a.Storage.Stat(ctx, name)
		_, unused := a.keep(name)
		if err != nil || unused.Age == 0 || a.now().Sub(info.UpdatedAt) <= unused.Age {
			a.t.Errorf("%q was deleted %v after the last append: %v", name, a.now().Sub(info.UpdatedAt), err)
		}
	} else if c.State != nil && c.State.First > own {
		a.judge(ctx, name, c)
	}
	return a.Storage.Commit(ctx, name, c)
}

// judge looks at each event that goes with c.
func (a *audited) judge(ctx context.Context, name string, c streamlib.Change) {
	keep, _ := a.keep(name)
	var events []streamlib.Event
	for batch, err := range a.Storage.Read(ctx, name, streamlib.Beginning, streamlib.MaxOffset) {
		if err != nil {
			a.t.Error(err)
		}
		events = append(events, batch...)
	}
	info, err := a.Storage.Stat(ctx, name)
	if err != nil || len(events) == 0 {
		a.t.Errorf("%q: %+v was trimmed: %v", name, info, err)
		return
	}
	size, around := info.Size, info.Size // of what is from an event on, and of what the storage has around each
	for _, e := range events {
		around -= int64(len(e.Record()))
	}
	around /= int64(len(events))
	for _, e := range c.Events { // in one commit with it
		size += int64(len(e.Record())) + around
	}
	events = append(events, c.Events...)
	for i, e := range events {
		if e.Offset >= c.State.First {
			break
		}
		a.dropped++
		age := a.now().Sub(e.CreatedAt())
		old := keep.Age > 0 && age > keep.Age
		many := keep.Events > 0 && int64(len(events)-i) > keep.Events
		large := keep.Bytes > 0 && size > keep.Bytes
		if !old && !many && !large && e.Offset >= a.own[name] {
			a.t.Errorf("%q: the event at %d was dropped, %v old, with %d events of %d bytes from it on, to keep %+v", name,
				e.Offset, age, len(events)-i, size, keep)
		}
		size -= int64(len(e.Record())) + around
	}
}

// TestNothingElseGoes does at random what people do, and looks at each event that goes, and at what stays.
func TestNothingElseGoes(t *testing.T) {
	for seed := range uint64(10) {
		everyStorage(t, func(t *testing.T, storage streamlib.Storage) { nothingElseGoes(t, storage, seed) })
	}
}

func nothingElseGoes(t *testing.T, storage streamlib.Storage, seed uint64) {
	is := is.New(t)
	const retain = "*=40m age*=20m size*=3kB few=7 all*=30m,2kB,15"
	const expire = "x*=50m all*=2h"
	keep, err := retention.Retain(strings.Fields(retain)...)
	is.NoErr(err)
	unused, err := retention.Expire(strings.Fields(expire)...)
	is.NoErr(err)
	a := &audited{Storage: storage, t: t, own: map[string]streamlib.Offset{}}
	a.keep = func(name string) (retention.Bounds, retention.Bounds) { return keep.Of(name), unused.Of(name) }
	var l *lab
	a.now = func() time.Time { return l.now() }
	l = &lab{t: t, log: &logged{}}
	l.manager = streamlib.NewManager(a, streamlib.Plain, streamlib.Options{Now: l.now})
	l.start(retain, expire)
	names := []string{"any", "age/1", "age/2", "size/1", "size/2", "few", "all/1", "all/2", "x/1", "x/2"}
	rnd := rand.New(rand.NewPCG(seed, 5))
	allow := func(name string, before streamlib.Offset) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.own[name] = before
	}
	for range 400 {
		name := names[rnd.IntN(len(names))]
		s := l.manager.Stream(name)
		switch rnd.IntN(12) {
		case 0:
			before := l.info(name).First + streamlib.Offset(rnd.IntN(5))
			allow(name, before)
			is.NoErr(s.Trim(t.Context(), before))
		case 1:
			allow(name, streamlib.MaxOffset)
			is.NoErr(s.Delete(t.Context()))
			allow(name, 0)
		case 2:
			l.set.Add(int64(time.Duration(rnd.IntN(11)-5) * time.Minute))
		case 3:
			l.start(retain, expire)
		default:
			var b streamlib.Batch
			for range 1 + rnd.IntN(8) {
				b.Data = append(b.Data, streamlib.JSON(`"`+strings.Repeat("x", rnd.IntN(500))+`"`)...)
			}
			_, err := s.Append(t.Context(), b)
			is.NoErr(err)
		}
		time.Sleep(time.Duration(rnd.Int64N(int64(time.Duration(1) << (20 + rnd.IntN(20)))))) // up to nine minutes
	}
	sleep(20 * time.Second)
	for _, name := range names {
		info, keep, unused := l.info(name), keep.Of(name), unused.Of(name)
		if info.Tail == 0 {
			continue
		}
		is.True(keep.Events == 0 || int64(info.Tail-info.First) <= keep.Events)
		is.True(keep.Bytes == 0 || info.Size <= keep.Bytes)
		is.True(keep.Age == 0 || info.First == info.Tail || l.now().Sub(info.CreatedAt) <= keep.Age+10*time.Second)
		is.True(unused.Age == 0 || l.now().Sub(info.UpdatedAt) <= unused.Age+10*time.Second)
	}
	is.True(a.dropped > 100)
	l.stop()
	is.True(!strings.Contains(l.log.String(), "WARN"))
}
