package streamlib_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamtest"
	"github.com/matryer/is"
)

// faulty is a memory storage whose calls a test can take into its own hands.
type faulty struct {
	sound
	append func(name string, events []streamlib.Event) error
	delete func(name string) error
	stat   func(name string) (streamlib.Info, error)
	read   func(name string, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error]
}

func newFaulty() *faulty {
	f := &faulty{sound: sound{memory.New()}}
	f.heal()
	return f
}

func (f *faulty) Commit(_ context.Context, name string, c streamlib.Change) error {
	if c.Delete {
		return f.delete(name)
	}
	return f.append(name, c.Events)
}

func (f *faulty) Stat(_ context.Context, name string) (streamlib.Info, error) { return f.stat(name) }

func (f *faulty) Read(
	_ context.Context, name string, from, to streamlib.Offset,
) iter.Seq2[[]streamlib.Event, error] {
	return f.read(name, from, to)
}

// sound is what faulty does where no test has a hand in it.
type sound struct{ streamlib.Storage }

func (s sound) append(name string, events []streamlib.Event) error {
	return s.Commit(context.Background(), name, streamlib.Change{Events: events})
}

func (s sound) delete(name string) error {
	return s.Commit(context.Background(), name, streamlib.Change{Delete: true})
}

func (s sound) stat(name string) (streamlib.Info, error) { return s.Stat(context.Background(), name) }

func (s sound) read(name string, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	return s.Read(context.Background(), name, from, to)
}

// heal makes it a sound storage again.
func (f *faulty) heal() {
	f.append, f.delete, f.stat, f.read = f.sound.append, f.sound.delete, f.sound.stat, f.sound.read
}

func (f *faulty) stream(name string) streamlib.Stream {
	return streamlib.Plain(name, f, streamlib.Options{})
}

var errDisk = errors.New("input/output error")

// TestFailingCommit lets one commit fail that several callers wait for: all are told, and the stream goes on.
func TestFailingCommit(t *testing.T) {
	for name, fail := range map[string]func() error{
		"refused": func() error { return fmt.Errorf("%w: no room", streamlib.ErrFull) },
		"open":    func() error { return errDisk },
		"panic":   func() error { panic("a bug in the storage") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				storage := newFaulty()
				first := make(chan bool)
				storage.append = func(name string, events []streamlib.Event) error {
					<-first // while the others queue
					storage.append = func(string, []streamlib.Event) error { return fail() }
					return storage.sound.append(name, events)
				}
				s := storage.stream("orders")
				var history streamtest.Recorder
				errs := make([]error, 7)
				var callers sync.WaitGroup
				for i := range errs {
					callers.Go(func() {
						defer func() {
							if p := recover(); p != nil { // the caller who commits has the panic itself
								errs[i] = fmt.Errorf("panic: %v", p)
							}
						}()
						b := streamlib.Batch{Data: streamlib.JSON(fmt.Sprint(i), fmt.Sprintf("%d.5", i)), Key: fmt.Sprint("k", i)}
						switch i {
						case 5: // decided on top of what fails
							b.IfTail = new(streamlib.Offset)
						case 6:
							b = streamlib.Batch{Data: streamlib.JSON(`"x"`), IfTail: new(streamlib.Offset)}
						}
						receipt, err := history.Append(t.Context(), s, b)
						if errs[i] = err; err != nil {
							is.Equal(len(receipt.Events), 0)
						}
					})
					synctest.Wait() // in this order
				}
				close(first)
				callers.Wait()
				is.NoErr(errs[0])
				for _, err := range errs[1:] {
					is.True(err != nil) // a caller was told that its append succeeded
					is.Equal(errors.Is(err, streamlib.ErrFull), name == "refused")
				}
				stored := read(t, s, 0, streamlib.MaxOffset)
				is.NoErr(streamtest.Check(stored, history.Appends()))

				storage.heal()
				for i := range errs {
					b := streamlib.Batch{Data: streamlib.JSON(fmt.Sprint(i), fmt.Sprintf("%d.5", i)), Key: fmt.Sprint("k", i)}
					receipt, err := history.Append(t.Context(), s, b)
					is.NoErr(err)
					is.Equal(receipt.Repeated, i == 0)
					is.Equal(receipt.Events[0].Offset, streamlib.Offset(2*i))
				}
				is.NoErr(streamtest.Check(read(t, s, 0, streamlib.MaxOffset), history.Appends()))
			})
		})
	}
}

// TestOpenOutcome has a storage that stores and says that it failed: the events are there for the followers, once
// each, and the keys for those who repeat.
func TestOpenOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		storage := newFaulty()
		s := storage.stream("orders")
		var got []streamlib.Event
		ctx, cancel := context.WithCancel(t.Context())
		var follower sync.WaitGroup
		follower.Go(func() {
			for batch, err := range s.Subscribe(ctx, 0) {
				if err == nil && len(batch) == 0 {
					t.Error("an empty batch")
					cancel()
				}
				got = append(got, batch...)
			}
		})
		synctest.Wait()
		add := func(i int) (streamlib.Receipt, error) {
			defer synctest.Wait()
			return s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(fmt.Sprint(i)), Key: fmt.Sprint("k", i)})
		}
		for round := range 3 {
			_, err := add(3 * round)
			is.NoErr(err)
			storage.append = func(name string, events []streamlib.Event) error {
				is.NoErr(storage.sound.append(name, events))
				return errDisk
			}
			_, err = add(3*round + 1)
			is.True(errors.Is(err, errDisk))
			is.Equal(len(got), 3*round+2) // it is durable, so it is seen
			storage.heal()
			again, err := add(3*round + 1)
			is.NoErr(err)
			is.True(again.Repeated) // a repeat after an open outcome is safe
			_, err = add(3*round + 2)
			is.NoErr(err)
		}
		stored := read(t, s, 0, streamlib.MaxOffset)
		is.Equal(len(stored), 9)
		cancel()
		follower.Wait()
		is.NoErr(streamtest.Check(got, historyOf(stored), streamtest.Run{Events: got}))
	})
}

// historyOf is the history that stored tells.
func historyOf(stored []streamlib.Event) (appends []streamtest.Append) {
	for _, e := range stored {
		appends = append(appends, streamtest.Append{Data: streamlib.JSON(string(e.Data())), Events: []streamlib.Event{e}})
	}
	return appends
}

// TestDeleteUnderWay reads while the storage has deleted the stream and has not said so yet.
func TestDeleteUnderWay(t *testing.T) {
	for name, test := range map[string]struct {
		result error
		want   error
	}{
		"deleted":      {nil, streamlib.ErrDeleted},
		"open outcome": {errDisk, streamlib.ErrDeleted},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				storage := newFaulty()
				s := storage.stream("orders")
				_, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1", "2", "3"), Key: "k"})
				is.NoErr(err)
				gone := make(chan bool)
				storage.delete = func(name string) error {
					is.NoErr(storage.sound.delete(name))
					<-gone
					return test.result
				}
				var all sync.WaitGroup
				follow := func(name string, events func(ctx context.Context) iter.Seq2[[]streamlib.Event, error]) {
					all.Go(func() {
						if err := last(events(t.Context())); !errors.Is(err, test.want) {
							t.Errorf("%s: %v, want %v", name, err, test.want)
						}
					})
					synctest.Wait()
				}
				follow("live", func(ctx context.Context) iter.Seq2[[]streamlib.Event, error] { return s.Subscribe(ctx, 0) })
				follow("beyond", func(ctx context.Context) iter.Seq2[[]streamlib.Event, error] { return s.Subscribe(ctx, 9) })
				all.Go(func() { is.Equal(errors.Is(s.Delete(t.Context()), errDisk), test.result != nil) })
				synctest.Wait()
				follow("catching up", func(ctx context.Context) iter.Seq2[[]streamlib.Event, error] { return s.Subscribe(ctx, 0) })
				follow("reading", func(ctx context.Context) iter.Seq2[[]streamlib.Event, error] { return s.Read(ctx, 0, 3) })
				all.Go(func() { // its original is gone, so it is new
					receipt, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("4"), Key: "k"})
					is.NoErr(err)
					is.True(!receipt.Repeated)
					is.Equal(receipt.Events[0].Offset, streamlib.Offset(0))
				})
				synctest.Wait()
				close(gone)
				all.Wait()
				is.Equal(fmt.Sprint(len(read(t, s, 0, streamlib.MaxOffset))), "1")
			})
		})
	}
}

// TestNextLife deletes the stream and makes it again just before a reader comes to the storage: it reads nothing of
// the next life.
func TestNextLife(t *testing.T) {
	is := is.New(t)
	storage := newFaulty()
	s := storage.stream("orders")
	for name, events := range map[string]iter.Seq2[[]streamlib.Event, error]{
		"read": s.Read(t.Context(), 0, 3), "subscribe": s.Subscribe(t.Context(), 0),
	} {
		is.NoErr(last2(s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1", "2", "3")})))
		storage.read = func(name string, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
			storage.heal()
			is.NoErr(s.Delete(t.Context()))
			is.NoErr(last2(s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("4", "5", "6", "7")})))
			return storage.sound.read(name, from, to)
		}
		for batch, err := range events {
			if len(batch) > 0 || !errors.Is(err, streamlib.ErrDeleted) {
				t.Errorf("%s: %v, %v", name, batch, err)
			}
		}
	}
}

// TestFailingDelete leaves the stream as it is where the storage refuses to delete it.
func TestFailingDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		storage := newFaulty()
		s := storage.stream("orders")
		b := streamlib.Batch{Data: streamlib.JSON("1"), Key: "k"}
		_, err := s.Append(t.Context(), b)
		is.NoErr(err)
		var got []streamlib.Event
		var follower sync.WaitGroup
		follower.Go(func() {
			for batch, err := range s.Subscribe(t.Context(), 0) {
				is.NoErr(err)
				if got = append(got, batch...); len(got) == 2 {
					return
				}
			}
		})
		synctest.Wait()
		storage.delete = func(string) error { return streamlib.ErrUnavailable }
		is.True(errors.Is(s.Delete(t.Context()), streamlib.ErrUnavailable))
		storage.heal()
		again, err := s.Append(t.Context(), b)
		is.NoErr(err)
		is.True(again.Repeated)
		_, err = s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("2")})
		is.NoErr(err)
		follower.Wait()
	})
}

// TestPanicBeforeADeletion: who waits in the same batch, behind what panics, is told that nothing was done for him.
func TestPanicBeforeADeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		storage := newFaulty()
		first := make(chan bool)
		storage.append = func(name string, events []streamlib.Event) error {
			<-first // while the others queue
			storage.append = func(string, []streamlib.Event) error { panic("a bug in the storage") }
			return storage.sound.append(name, events)
		}
		s := storage.stream("orders")
		add := func() error { return last2(s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})) }
		remove := func() error { return s.Delete(t.Context()) }
		errs := make([]error, 5)
		var callers sync.WaitGroup
		for i, call := range []func() error{add, add, remove, add, remove} {
			callers.Go(func() {
				defer func() {
					if p := recover(); p != nil {
						errs[i] = fmt.Errorf("panic: %v", p)
					}
				}()
				errs[i] = call()
			})
			synctest.Wait() // in this order
		}
		close(first)
		callers.Wait()
		is.NoErr(errs[0])
		for _, err := range errs[1:] {
			is.True(err != nil)
		}
		storage.heal()
		is.Equal(len(read(t, s, 0, streamlib.MaxOffset)), 1)
	})
}

// TestPanickingStorage panics wherever a storage can: the call has it, and the next one works.
func TestPanickingStorage(t *testing.T) {
	storage := newFaulty()
	fail := func() { panic("a bug in the storage") }
	b := streamlib.Batch{Data: streamlib.JSON("1"), Key: "k"}
	calls := map[string]func(s streamlib.Stream) error{
		"append": func(s streamlib.Stream) error {
			_, err := s.Append(t.Context(), streamlib.Batch{Data: b.Data})
			return err
		},
		"keyed":  func(s streamlib.Stream) error { _, err := s.Append(t.Context(), b); return err },
		"read":   func(s streamlib.Stream) error { return last(s.Read(t.Context(), 0, 1)) },
		"delete": func(s streamlib.Stream) error { return s.Delete(t.Context()) },
		"subscribe": func(s streamlib.Stream) error {
			for _, err := range s.Subscribe(t.Context(), 0) {
				return err
			}
			return nil
		},
	}
	for name, call := range calls {
		for where, breaks := range map[string]func(){
			"stat": func() { storage.stat = func(string) (streamlib.Info, error) { fail(); return streamlib.Info{}, nil } },
			"read": func() {
				storage.read = func(string, streamlib.Offset, streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
					fail()
					return nil
				}
			},
			"append": func() { storage.append = func(string, []streamlib.Event) error { fail(); return nil } },
			"delete": func() { storage.delete = func(string) error { fail(); return nil } },
		} {
			t.Run(name+" with a panic in "+where, func(t *testing.T) {
				is := is.New(t)
				storage.heal()
				is.NoErr(storage.delete("orders"))
				is.NoErr(last2(storage.stream("orders").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("0")})))
				s := storage.stream("orders")
				breaks()
				func() {
					defer func() { recover() }()
					_ = call(s)
				}()
				storage.heal()
				is.NoErr(call(s))
				is.NoErr(last2(s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("2")})))
			})
		}
	}
}

// TestStatFails: what cannot be looked at takes no appends, and stored nothing.
func TestStatFails(t *testing.T) {
	is := is.New(t)
	storage := newFaulty()
	corrupt := &streamlib.CorruptError{File: "streams/orders.json", Offset: 7, Reason: "a test"}
	is.NoErr(last2(storage.stream("orders").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1", "2")})))
	storage.stat = func(string) (streamlib.Info, error) { return streamlib.Info{}, corrupt }
	storage.read = func(name string, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
		return func(yield func([]streamlib.Event, error) bool) {
			for batch, err := range storage.sound.read(name, from, min(to, 2)) {
				if !yield(batch, err) {
					return
				}
			}
			if to > 2 && from <= 2 {
				yield(nil, corrupt)
			}
		}
	}
	s := storage.stream("orders")
	for _, key := range []string{"", "k"} {
		_, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("3"), Key: key})
		is.True(errors.Is(err, streamlib.ErrUnavailable))
		found, _ := errors.AsType[*streamlib.CorruptError](err)
		is.Equal(found, corrupt)
		is.Equal(strings.Count(err.Error(), streamlib.ErrUnavailable.Error()), 1)
	}
	is.Equal(len(read(t, s, 0, 2)), 2) // what stands before the damage
	for _, test := range []struct {
		from streamlib.Offset
		want int
	}{{streamlib.Beginning, 2}, {0, 2}, {1, 1}, {2, 0}, {5, 0}, {streamlib.Now, 0}} {
		for name, events := range map[string]iter.Seq2[[]streamlib.Event, error]{
			"read": s.Read(t.Context(), test.from, streamlib.MaxOffset), "subscribe": s.Subscribe(t.Context(), test.from),
		} {
			n, ended := 0, error(nil)
			for batch, err := range events {
				n, ended = n+len(batch), err
			}
			found, ok := errors.AsType[*streamlib.CorruptError](ended)
			if n != test.want || !ok || found != corrupt {
				t.Errorf("%s from %v: %d events, want %d, then %v", name, test.from, n, test.want, ended)
			}
		}
	}
}

func read(t *testing.T, s streamlib.Stream, from, to streamlib.Offset) (all []streamlib.Event) {
	t.Helper()
	for batch, err := range s.Read(t.Context(), from, to) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, batch...)
	}
	return all
}

// last returns the error that an iteration ends with.
func last(events iter.Seq2[[]streamlib.Event, error]) (err error) {
	for _, err = range events {
	}
	return err
}

func last2(_ streamlib.Receipt, err error) error { return err }
