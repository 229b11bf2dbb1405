package object

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/streamtest"
	"github.com/matryer/is"
)

// startVersitygw starts the server that VERSITYGW names, and returns what opens an empty place of its, and where it
// has its buckets. It listens on a socket of its own, so that nobody else can have its port.
func startVersitygw(t *testing.T) (newPlace func() Options, folder string) {
	program := os.Getenv("VERSITYGW")
	if program == "" {
		t.Skip("VERSITYGW does not say where versitygw is: scripts/objects does")
	}
	dir, err := os.MkdirTemp("", "vgw") // a socket's path may have some 100 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.MkdirAll(filepath.Join(dir, "data", "bucket"), 0o700); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(program, "--quiet", "--keep-alive", "--port", socket, "--access", testKeys.ID, "--secret",
		testKeys.Secret, "posix", filepath.Join(dir, "data"))
	cmd.Env = append(os.Environ(), "HOME="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DialContext: dial}
	for {
		response, err := (&http.Client{Transport: transport}).Get("http://store.example/")
		if err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
			break
		}
		select {
		case <-ended:
			t.Fatal("versitygw has ended")
		default:
		}
	}
	var places atomic.Int64
	return func() Options {
		return Options{Bucket: "bucket", Prefix: fmt.Sprint(places.Add(1)), Endpoint: "http://store.example",
			Transport: transport, Keys: func(context.Context) (Keys, error) { return testKeys, nil }}
	}, filepath.Join(dir, "data")
}

// TestVersitygw runs the contracts at a real store.
func TestVersitygw(t *testing.T) {
	place, _ := startVersitygw(t)
	at := func(t *testing.T, o Options) *Storage {
		t.Helper()
		s, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	streamtest.Storage(t, func(t *testing.T) streamlib.Storage { return at(t, place()) })
	var mu sync.Mutex
	places := map[string]Options{} // by the folder of the test
	streamtest.Durable(t, func(t *testing.T, dir string) streamlib.Storage {
		mu.Lock()
		defer mu.Unlock()
		if _, there := places[dir]; !there {
			places[dir] = place()
		}
		return at(t, places[dir])
	})
	// It has all of streamtest.Stream, too.
	streamtest.Shared(t, func(t *testing.T) func() streamlib.Shared {
		o := place()
		return func() streamlib.Shared { return at(t, o) }
	})
}

// A ledger is what those who write one stream know by themselves.
type ledger struct {
	clock *atomic.Int64

	mu      sync.Mutex // guards what follows
	appends []streamtest.Append
	events  []streamlib.Event // that were acknowledged, by their offsets
	runs    []streamtest.Run
}

// append appends an event, and returns the tail behind it.
func (l *ledger) append(ctx context.Context, s streamlib.Stream) (streamlib.Offset, error) {
	sent := l.clock.Add(1)
	data := fmt.Appendf(nil, `{"n":%d}`, sent)
	var receipt streamlib.Receipt
	err := insist(func() (err error) {
		receipt, err = s.Append(ctx, streamlib.Batch{Data: streamlib.JSON(string(data)), Key: string(data)})
		return err
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.appends = append(l.appends, streamtest.Append{Data: []json.RawMessage{data}, Key: string(data), Sent: sent,
		Answered: l.clock.Add(1), Events: receipt.Events, Err: err})
	for _, e := range receipt.Events {
		l.events = append(l.events, make([]streamlib.Event, max(0, int(e.Offset)+1-len(l.events)))...)
		l.events[e.Offset] = e
	}
	return receipt.Tail, err
}

// insist does again what others forestalled for too long.
func insist(do func() error) (err error) {
	for range 10 {
		if err = do(); !errors.Is(err, streamlib.ErrUnavailable) {
			break
		}
	}
	return err
}

// delete ends the life that the ledger is of.
func (l *ledger) delete(ctx context.Context, s streamlib.Stream) error {
	err := s.Delete(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.appends, l.events = nil, nil
	return err
}

// read reads some events from an offset, and compares those that were acknowledged.
func (l *ledger) read(ctx context.Context, s *Storage, name string, from streamlib.Offset) error {
	at := from
	for events, err := range s.Read(ctx, name, from, from+70) {
		if _, gone := errors.AsType[*streamlib.GoneError](err); gone && name[0] == 't' {
			return nil
		} else if err != nil {
			return fmt.Errorf("read %s from %d: %w", name, from, err)
		}
		l.mu.Lock()
		known := slices.Clone(l.events[min(int(at), len(l.events)):])
		l.mu.Unlock()
		for i, e := range events {
			if e.Offset != at || i < len(known) && known[i].Record() != nil && known[i].String() != e.String() {
				return fmt.Errorf("read %s from %d: at %d is %v, where %v was acknowledged", name, from, at, e, known[i])
			}
			at++
		}
	}
	return nil
}

// judge reads what there is, at once and from offsets in all its parts.
func (l *ledger) judge(ctx context.Context, s *Storage, name string) error {
	info, err := s.Stat(ctx, name)
	if err != nil {
		return err
	}
	if len(l.events) != int(info.Tail) || info.Exists() != (len(l.events) > 0) {
		return fmt.Errorf("its tail is %d, and %d events were acknowledged", info.Tail, len(l.events))
	}
	stored := slices.Clone(l.events[:info.First])
	for events, err := range s.Read(ctx, name, streamlib.Beginning, streamlib.MaxOffset) {
		if err != nil {
			return err
		}
		stored = append(stored, events...)
	}
	if err := streamtest.Check(stored, l.appends, l.runs...); err != nil {
		return err
	}
	for from := info.First; from < info.Tail; from += 37 {
		if err := l.read(ctx, s, name, from); err != nil {
			return err
		}
	}
	return nil
}

// TestVersitygwCollects collects at a real store, while others append, trim, delete, read and follow. Before that all
// there is is set back by two hours, by the times of the store's files, at a moment when no process is there that knows
// anything: so it is as if these had come two hours later. What the writers noted is the judge.
func TestVersitygwCollects(t *testing.T) {
	is := is.New(t)
	newPlace, folder := startVersitygw(t)
	o := newPlace()
	o.Patience = time.Minute // that the machine is loaded is no fault of the store's
	ctx := t.Context()
	folder = filepath.Join(folder, o.Bucket, o.Prefix)
	ledgers, clock := map[string]*ledger{}, new(atomic.Int64)
	for _, kind := range []string{"long", "trimmed", "deleted"} {
		for i := range 3 {
			ledgers[fmt.Sprint(kind, i)] = &ledger{clock: clock}
		}
	}
	fail := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	opened := func() *Storage {
		s := must(Open(ctx, o))
		t.Cleanup(func() { s.Close() })
		return s
	}
	// write is what so many processes do to the streams, n times.
	write := func(processes, n int) {
		var writing sync.WaitGroup
		for process := range processes {
			m := streamlib.NewManager(opened(), streamlib.Plain, streamlib.Options{})
			for name, l := range ledgers {
				if process > 0 && name[len(name)-1] != '0' || process > 0 && name[0] == 'd' { // it is one's alone
					continue
				}
				s := m.Stream(name)
				writing.Go(func() {
					for i := range n {
						tail, err := l.append(ctx, s)
						fail(err)
						if name[0] == 't' && process == 0 && i%50 == 30 {
							fail(insist(func() error { return s.Trim(ctx, tail-20) }))
						}
						if name[0] == 'd' && i == n/2 || name == "deleted0" && i == n-1 {
							fail(l.delete(ctx, s))
						}
					}
				})
			}
		}
		writing.Wait()
	}
	objects := func() (n int) {
		fail(filepath.WalkDir(filepath.Join(folder, "s"), func(_ string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				n++
			}
			return err
		}))
		return n
	}
	setBack := func() {
		const by = 2 * lifetime
		s := must(place(o))
		if r, err := s.c.get(ctx, s.c.o.Prefix+"collector"); err == nil {
			var p progress
			is.NoErr(json.Unmarshal(r.body, &p))
			p.Begun, p.Told, p.Done = p.Begun.Add(-by), p.Told.Add(-by), p.Done.Add(-by)
			_, err = s.c.put(ctx, s.c.o.Prefix+"collector", must(json.Marshal(p)), "")
			is.NoErr(err)
		}
		is.NoErr(filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			return os.Chtimes(path, time.Time{}, info.ModTime().Add(-by))
		}))
	}

	write(1, 200)
	before := objects()
	for round := range 4 {
		setBack()
		var working, others sync.WaitGroup
		over, end := context.WithCancel(ctx)
		if round < 2 {
			working.Go(func() { write(2, 50) })
			s := opened()
			others.Go(func() {
				for over.Err() == nil {
					name := fmt.Sprint([]string{"long", "trimmed"}[rand.IntN(2)], rand.IntN(3))
					fail(ledgers[name].read(ctx, s, name, streamlib.Offset(rand.IntN(300))))
				}
			})
			others.Go(func() {
				run := streamtest.Run{From: streamlib.Beginning}
				m := streamlib.NewManager(s, streamlib.Plain, streamlib.Options{})
				for events, err := range m.Stream("long0").Subscribe(over, streamlib.Beginning) {
					if over.Err() == nil {
						fail(err)
					}
					run.Events = append(run.Events, events...)
				}
				ledgers["long0"].runs = append(ledgers["long0"].runs, run)
			})
		}
		collecting, crash := context.WithCancel(ctx)
		collector, asked := opened(), new(atomic.Int64)
		store := collector.c.http
		collector.c.http = transport(func(r *http.Request) (*http.Response, error) {
			if asked.Add(1) == 700 && round == 0 {
				crash()
			}
			return store.RoundTrip(r)
		})
		var p *pass
		working.Go(func() {
			var err error
			if p, err = collector.pass(collecting); round == 0 && errors.Is(err, context.Canceled) {
				return
			} else if round == 0 {
				err = fmt.Errorf("it did not end in the middle: %v", err)
			}
			fail(err)
		})
		if round == 1 { // another is at it, which ought not to be
			working.Go(func() { fail((&pass{s: opened(), told: time.Now()}).collect(ctx)) })
		}
		was := objects()
		working.Wait()
		end()
		others.Wait()
		crash()

		s := opened()
		sum, err := s.Verify(ctx, nil)
		is.NoErr(err)
		is.Equal([]int{len(sum.Damage), len(sum.Unread)}, []int{0, 0})
		is.Equal(sum.Objects, objects())
		for name, l := range ledgers {
			if err := l.judge(ctx, s, name); err != nil {
				t.Errorf("round %d: %s: %v", round, name, err)
			}
		}
		t.Logf("round %d: %d objects, and then %d of %d events, %d of them in others, too; %d were written and %d removed",
			round, was, sum.Objects, sum.Events, sum.Overlaps, p.made, p.removed)
		if round == 3 {
			is.Equal([]int{sum.Overlaps, p.made, p.removed}, []int{0, 0, 0}) // there is nothing more to do
		}
	}
	is.True(objects() < before/8)
	names, err := opened().List(ctx, "", "", 0)
	is.NoErr(err)
	is.Equal(names, []string{"deleted1", "deleted2", "long0", "long1", "long2", "trimmed0", "trimmed1", "trimmed2"})
}
