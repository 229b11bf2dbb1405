package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/mirror"
	"github.com/iterate/durable-streams/streamlib/transfer"
	"github.com/matryer/is"
)

// lab is a manager with a mirror, in a synctest bubble.
type lab struct {
	t       *testing.T
	manager *streamlib.Manager
	to      streamlib.Storage
	path    string

	mu    sync.Mutex
	log   strings.Builder
	fresh bool                                                 // the target has lost all
	asks  int                                                  // of the target
	fail  func(name string, changes bool, n int) (error, bool) // the error of the n-th question, and whether it was done
	m     *mirror.Mirror
	stop  func()
}

// target is the lab's, which fails as the lab says.
type target struct {
	streamlib.Storage
	l *lab
}

func (s target) ask(name string, changes bool, do func() error) error {
	s.l.mu.Lock()
	s.l.asks++
	n, fail := s.l.asks, s.l.fail
	s.l.mu.Unlock()
	if fail == nil {
		return do()
	}
	err, done := fail(name, changes, n)
	if err == nil {
		return do()
	}
	if done {
		_ = do()
	}
	return err
}

func (s target) Stat(ctx context.Context, name string) (info streamlib.Info, err error) {
	err = s.ask(name, false, func() (err error) { info, err = s.Storage.Stat(ctx, name); return err })
	return info, err
}

func (s target) List(ctx context.Context, prefix, after string, limit int) (names []string, err error) {
	err = s.ask("", false, func() (err error) { names, err = s.Storage.List(ctx, prefix, after, limit); return err })
	return names, err
}

func (s target) Commit(ctx context.Context, name string, c streamlib.Change) error {
	return s.ask(name, true, func() error { return s.Storage.Commit(ctx, name, c) })
}

func (target) Close() error { return nil }

func (l *lab) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Write(b)
}

func newLab(t *testing.T) *lab {
	return &lab{t: t, to: memory.New(), path: filepath.Join(t.TempDir(), "mirror.cursor"),
		manager: streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})}
}

func (l *lab) start() {
	l.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	m, err := mirror.Open(ctx, mirror.Options{Manager: l.manager, Path: l.path, Log: slog.New(slog.NewTextHandler(l, nil)),
		Target: func(context.Context) (s streamlib.Storage, fresh bool, err error) {
			return target{l.to, l}, l.fresh, target{l.to, l}.ask("", false, func() error { return nil })
		}})
	if err != nil {
		cancel()
		l.t.Fatal(err)
	}
	l.m = m
	ended := make(chan struct{})
	go func() { m.Run(ctx); close(ended) }()
	l.stop = func() { cancel(); <-ended }
	l.t.Cleanup(l.stop)
}

func (l *lab) failing(fail func(name string, changes bool, n int) (error, bool)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = fail
}

func (l *lab) append(name string, data ...string) {
	l.t.Helper()
	var b streamlib.Batch
	for _, d := range data {
		b.Data = append(b.Data, streamlib.JSON(d)...)
	}
	if _, err := l.manager.Stream(name).Append(l.t.Context(), b); err != nil {
		l.t.Fatal(err)
	}
}

// same fails the test where the copy is not what the streams are.
func (l *lab) same() {
	l.t.Helper()
	if want, have := l.export(transfer.Streams{Manager: l.manager}), l.export(l.to); want != have {
		l.t.Fatalf("the copy is\n%s\nand the streams are\n%s\n%s", have, want, l.log.String())
	}
}

func (l *lab) export(from transfer.Source) string {
	l.t.Helper()
	var b strings.Builder
	if _, err := transfer.Export(context.Background(), from, &b, transfer.Query{}); err != nil {
		l.t.Fatal(err)
	}
	return b.String()
}

var errAway = fmt.Errorf("%w: away", streamlib.ErrUnavailable)

// TestIsWhatItIsOf does with streams all that can be done, while the target fails, the mirror ends and is started
// again, with the cursor of before or none, and nobody mirrors for a while.
func TestIsWhatItIsOf(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) { isWhatItIsOf(t, rand.New(rand.NewPCG(seed, 19))) })
	}
}

func isWhatItIsOf(t *testing.T, rnd *rand.Rand) {
	is := is.New(t)
	l := newLab(t)
	mood := rand.New(rand.NewPCG(rnd.Uint64(), 18))
	fault := func(string, bool, int) (error, bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		switch mood.IntN(20) {
		case 0:
			return errAway, false
		case 1:
			return errors.New("the answer is lost"), true
		}
		return nil, false
	}
	l.failing(fault)
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
			is.NoErr(s.Trim(t.Context(), info.First+streamlib.Offset(rnd.IntN(9))))
		case 4:
			_, _ = s.Append(t.Context(), streamlib.Batch{Close: true})
		case 5, 6, 7:
			if n > 5 { // no deletion is known to nobody
				l.failing(nil)
				time.Sleep(time.Hour)
				is.NoErr(l.m.Flush(t.Context()))
				l.same()
				l.failing(fault)
			}
			l.stop()
			switch n {
			case 6:
				is.NoErr(os.Remove(l.path))
			case 7:
				file, err := os.ReadFile(l.path)
				is.NoErr(err)
				first := strings.IndexByte(string(file), '\n') + 1
				is.NoErr(os.Truncate(l.path, int64(first+rnd.IntN(len(file)-first+1))))
			}
			for i := range rnd.IntN(3) { // nobody follows them for a while
				if i == 1 && n == 5 {
					_ = s.Delete(t.Context()) // it may be held
				}
				_, _ = s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(`"unseen"`)})
			}
			l.start()
		case 8, 9:
			_, _ = s.Append(t.Context(), streamlib.Batch{Decide: func(_ streamlib.Offset, state *streamlib.State) error {
				state.Note, state.Held = fmt.Sprint(rnd.IntN(3)), rnd.IntN(4) == 0
				return nil
			}})
		default:
			b := streamlib.Batch{Key: fmt.Sprint("k", rnd.IntN(50))}
			for range 1 + rnd.IntN(5) {
				b.Data = append(b.Data, streamlib.JSON(`"`+strings.Repeat("x", rnd.IntN(300))+`"`)...)
			}
			_, _ = s.Append(t.Context(), b) // it may be closed, or have the key
		}
		time.Sleep(time.Duration(rnd.Int64N(int64(time.Duration(1) << (15 + rnd.IntN(17))))))
	}
	l.failing(nil)
	time.Sleep(time.Hour)
	is.NoErr(l.m.Flush(t.Context()))
	is.Equal(l.m.Status().Waiting, 0)
	l.same()
}

// TestTargetThatIsAway for a day keeps names alone, is told of once, and gets everything within minutes; so does one
// that is away at the start.
func TestTargetThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t)
		l.append("before", "1", "2")
		l.failing(func(string, bool, int) (error, bool) { return errAway, false })
		l.start()
		for i := range 24 {
			for n := range 30 {
				l.append(fmt.Sprint("s", n), fmt.Sprint(i))
			}
			time.Sleep(time.Hour)
		}
		is.Equal(l.m.Status().Waiting, 31)
		is.True(l.m.Status().Behind >= 24*time.Hour)
		is.True(strings.HasSuffix(l.m.Status().Failing, "away"))
		is.Equal(strings.Count(l.log.String(), "level=WARN"), 1)
		is.Equal(strings.Count(l.log.String(), "level=ERROR"), 1) // at the start
		l.failing(nil)
		time.Sleep(7 * time.Minute)
		is.Equal(l.m.Status().Waiting, 0)
		is.Equal(l.m.Status().Failing, "")
		l.same()
	})
}

// TestOneStreamHoldsNoOther: one that somebody else has appended to is left as it is and named, and the others go on,
// also where all that is to be copied fails.
func TestOneStreamHoldsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t)
		l.start()
		l.append("a", "1")
		l.append("b", "1")
		is.NoErr(l.m.Flush(t.Context()))
		others := streamlib.NewManager(l.to, streamlib.Plain, streamlib.Options{})
		for _, name := range []string{"a", "b"} {
			_, err := others.Stream(name).Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(`"another's"`)})
			is.NoErr(err)
		}
		before := l.export(l.to)
		l.append("a", "2")
		l.append("b", "2")
		is.NoErr(l.m.Flush(t.Context()))
		is.Equal(l.export(l.to), before)
		is.Equal(l.m.Status().Failed, 2)
		l.append("c", "1")
		is.NoErr(l.m.Flush(t.Context()))
		info, err := l.to.Stat(t.Context(), "c")
		is.NoErr(err)
		is.Equal(info.Tail, streamlib.Offset(1))
		is.Equal(strings.Count(l.log.String(), "is another one here"), 2)
		for _, name := range []string{"a", "b"} { // its life is a later one, which takes the place
			is.NoErr(l.manager.Stream(name).Delete(t.Context()))
			l.append(name, "3")
		}
		time.Sleep(time.Hour)
		l.same()
	})
}

// TestOneStreamThatTheTargetRefuses holds no other, and where it refuses all of them one word is said of it.
func TestOneStreamThatTheTargetRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t)
		l.start()
		l.failing(func(name string, changes bool, _ int) (error, bool) {
			if changes && name == "bad" {
				return fmt.Errorf("%w: bad", streamlib.ErrUnavailable), false
			}
			return nil, false
		})
		l.append("bad", "1")
		is.NoErr(l.m.Flush(t.Context()))
		is.Equal(l.m.Status().Failed, 1)
		for i := range 10 {
			l.append("bad", "1")
			l.append(fmt.Sprint("good", i), "1")
			is.NoErr(l.m.Flush(t.Context()))
		}
		names, err := l.to.List(t.Context(), "", "", 0)
		is.NoErr(err)
		is.Equal(len(names), 10)
		l.failing(func(_ string, changes bool, _ int) (error, bool) {
			return fmt.Errorf("%w: no writing", streamlib.ErrUnavailable), changes
		})
		for i := range 100 {
			l.append(fmt.Sprint("good", i), "2")
		}
		time.Sleep(time.Hour)
		is.Equal(strings.Count(l.log.String(), "level=WARN"), 2)
		l.failing(nil)
		time.Sleep(10 * time.Minute)
		l.same()
	})
}

// TestBehind: what is appended is in the target within a second, and in few changes.
func TestBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t)
		l.start()
		for range 200 {
			l.append("a", "1")
			time.Sleep(100 * time.Millisecond)
			info, err := l.manager.Stream("a").Stat(t.Context())
			is.NoErr(err)
			copied, err := l.to.Stat(t.Context(), "a")
			is.NoErr(err)
			is.True(info.Tail-copied.Tail <= 10)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		is.True(l.asks <= 2*20*3) // for 200 events; the order of what falls together makes some 75
	})
}

// TestTargetThatHasLostAll gets all of it again, also of streams to which nobody appends any more.
func TestTargetThatHasLostAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t)
		l.start()
		for i := range 200 {
			l.append(fmt.Sprint("s", i), "1", "2")
		}
		is.NoErr(l.m.Flush(t.Context()))
		for _, away := range []bool{false, true} { // at the start
			l.stop()
			l.to, l.fresh = memory.New(), true
			if away {
				l.failing(func(string, bool, int) (error, bool) { return errAway, false })
			}
			l.start()
			l.append("s7", "3")
			time.Sleep(time.Minute)
			l.failing(nil)
			time.Sleep(time.Hour)
			is.NoErr(l.m.Flush(t.Context()))
			l.same()
		}
		l.stop()
		l.fresh = false
		before := l.asks
		l.start()
		is.NoErr(l.m.Flush(t.Context()))
		is.Equal(l.asks, before+1) // it is known what was copied
	})
}
