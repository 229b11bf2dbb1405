package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/transfer"
	"github.com/matryer/is"
)

// reading is an opener that counts the events that are read.
type reading struct {
	transfer.Opener
	events atomic.Int64
}

func (r *reading) open(ctx context.Context, q transfer.Query) (io.ReadCloser, error) {
	export, err := r.Opener(ctx, q)
	if err != nil {
		return nil, err
	}
	defer export.Close()
	b, err := io.ReadAll(export)
	if err != nil {
		return nil, err
	}
	r.events.Add(int64(bytes.Count(b, []byte("\n{\"offset\":"))))
	return io.NopCloser(bytes.NewReader(b)), nil
}

// change does something to one of a few streams, and returns how many events that appended.
func change(t *testing.T, m transfer.Streams, r *rand.Rand) (appended int) {
	t.Helper()
	is := is.New(t)
	s := m.Stream(fmt.Sprint("s", r.IntN(6)))
	info, err := s.Stat(t.Context())
	is.NoErr(err)
	switch n := r.IntN(20); {
	case n < 12 && !info.Closed:
		appended = 1 + r.IntN(5)
		b := streamlib.Batch{Close: n == 0}
		for range appended {
			b.Data = append(b.Data, streamlib.JSON(fmt.Sprint(r.Int()))...)
		}
		if n%2 == 0 {
			b.Key = fmt.Sprint("k", r.Int())
		}
		_, err = s.Append(t.Context(), b)
	case n < 16:
		err = s.Trim(t.Context(), info.First+streamlib.Offset(r.IntN(int(info.Tail-info.First)+1)))
	case n < 18:
		err = s.Delete(t.Context())
	}
	is.NoErr(err)
	return appended
}

// TestABackupIsTheSource makes one after a few changes each time, and reads little more than what is new.
func TestABackupIsTheSource(t *testing.T) {
	for seed := range uint64(20) {
		is := is.New(t)
		r := rand.New(rand.NewPCG(seed, 1))
		storage, to := memory.New(), memory.New()
		m := manager(storage)
		from := &reading{Opener: transfer.From(m)}
		put(t, storage, "always", nil, events("always", 0, 500)...)
		for round := range 100 {
			appended := 0
			for range r.IntN(8) {
				appended += change(t, m, r)
			}
			from.events.Store(0)
			sum, err := transfer.Backup(t.Context(), from.open, to)
			if err != nil {
				t.Fatalf("seed %d, round %d: %v", seed, round, err)
			}
			same(t, to, storage)
			if round > 0 {
				is.True(from.events.Load() <= int64(appended+6)) // one each is compared
				is.True(sum.Stored <= int64(appended))
			}
		}
	}
}

// TestABackupThatFailsIsMadeAgain: what is there in between are former states, or first events of the new ones.
func TestABackupThatFailsIsMadeAgain(t *testing.T) {
	is := is.New(t)
	r := rand.New(rand.NewPCG(1, 1))
	storage := memory.New()
	to := &flaky{Storage: memory.New()}
	m := manager(storage)
	failed := 0
	for range 300 {
		for range 20 {
			change(t, m, r)
		}
		for commits := int64(0); ; commits++ {
			to.left.Store(commits)
			_, err := transfer.Backup(t.Context(), transfer.From(m), to)
			if err == nil {
				break
			}
			is.True(errors.Is(err, errFlaky))
			failed++
			names, err := to.List(t.Context(), "", "", 0)
			is.NoErr(err)
			for _, name := range names {
				has, err := to.Stat(t.Context(), name)
				is.NoErr(err)
				now, err := storage.Stat(t.Context(), name)
				is.NoErr(err)
				if has.Life == now.Life && now.Tail > 0 {
					is.True(has.Tail <= now.Tail && has.First <= max(now.First, has.Tail))
					is.True(!has.Closed || now.Closed && has.Tail == now.Tail)
				}
			}
		}
		same(t, to.Storage, storage)
	}
	is.True(failed > 300)
}

// TestABackupWhileStreamsChange: each stream is as it was at one moment.
func TestABackupWhileStreamsChange(t *testing.T) {
	is := is.New(t)
	storage, to := memory.New(), memory.New()
	m := manager(storage)
	done := make(chan bool)
	go func() {
		defer close(done)
		r := rand.New(rand.NewPCG(3, 1))
		for range 3000 {
			change(t, m, r)
		}
	}()
	for over, n := false, 0; !over; n++ {
		select {
		case <-done:
			over = true
		default:
		}
		_, err := transfer.Backup(t.Context(), transfer.From(m), to)
		if _, broken := errors.AsType[*transfer.BrokenError](err); err != nil && !broken {
			t.Fatal(err)
		}
	}
	_, err := transfer.Backup(t.Context(), transfer.From(m), to)
	is.NoErr(err)
	same(t, to, storage)
}

// TestABackupLosesNothing: a copy that has more than there is, is left as it is, and the others are copied.
func TestABackupLosesNothing(t *testing.T) {
	type state = streamlib.State
	for name, test := range map[string]struct {
		has   state
		hasTo int
		other bool
		want  string
	}{
		"more events":      {state{Life: 1}, 12, false, "it goes on here"},
		"another event":    {state{Life: 1}, 4, true, "its event is not the one that was exported"},
		"a later life":     {state{Life: 2}, 4, false, "its life is 2, and not 1"},
		"fewer events":     {state{Life: 1, First: 6}, 9, false, "it begins at 6 here"},
		"an earlier end":   {state{Life: 1, Closed: true}, 8, false, "it is closed here"},
		"an end":           {state{Life: 1, Closed: true}, 9, false, "it is closed here"},
		"an end of others": {state{Life: 1, Closed: true}, 12, false, "it goes on here"},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			from, to := memory.New(), memory.New()
			put(t, from, "s", &state{Life: 1, First: 3}, events("s", 3, 9)...)
			put(t, from, "t", nil, events("t", 0, 9)...)
			had := events("s", int(test.has.First), test.hasTo)
			if test.other {
				had[3] = event("s", 3, `"other"`, "", had[3].CreatedAt())
			}
			put(t, to, "s", &test.has, had...)
			was := dump(t, to)
			sum, err := transfer.Backup(t.Context(), transfer.From(from), to)
			broken, ok := errors.AsType[*transfer.BrokenError](err)
			is.True(ok)
			is.Equal(len(broken.Streams), 1)
			is.True(strings.Contains(broken.Streams["s"], test.want))
			is.Equal(sum.Streams, 1)
			is.True(strings.HasPrefix(dump(t, to), was))
			is.True(strings.HasSuffix(dump(t, to), dump(t, from)[len(dump(t, from))-len("x"):]))
			is.Equal(string(export(t, to, transfer.Query{Name: "t"})), string(export(t, from, transfer.Query{Name: "t"})))
		})
	}
}

func TestABackupOfNothingDeletesNothing(t *testing.T) {
	is := is.New(t)
	to := variety(t)
	was := dump(t, to)
	_, err := transfer.Backup(t.Context(), transfer.From(memory.New()), to)
	is.True(err != nil && strings.Contains(err.Error(), "there are no streams to copy, and the copy has 8"))
	is.Equal(dump(t, to), was)
	_, err = transfer.Backup(t.Context(), transfer.From(memory.New()), memory.New())
	is.NoErr(err)
}

// lying is a storage that stores other events than it is given.
type lying struct{ streamlib.Storage }

func (l lying) Commit(ctx context.Context, name string, c streamlib.Change) error {
	c.Events = slices.Clone(c.Events)
	for i, e := range c.Events {
		c.Events[i] = event(name, e.Offset, `"lies"`, "", e.CreatedAt())
	}
	return l.Storage.Commit(ctx, name, c)
}

func TestABackupReadsWhatItWrote(t *testing.T) {
	is := is.New(t)
	_, err := transfer.Backup(t.Context(), transfer.From(large(t)), lying{memory.New()})
	is.True(err != nil && strings.Contains(err.Error(), "is not what is read"))
}

// TestABackupOfWhatCannotBeRead: what stands before the damage is there, and all others are.
func TestABackupOfWhatCannotBeRead(t *testing.T) {
	is := is.New(t)
	damage := &streamlib.CorruptError{File: "streams/plain.json", Offset: 9, Reason: "rot"}
	from := &flaky{Storage: variety(t), broke: map[string]error{"plain": damage}}
	to := memory.New()
	for range 2 {
		sum, err := transfer.Backup(t.Context(), transfer.From(from), to)
		broken, ok := errors.AsType[*transfer.BrokenError](err)
		is.True(ok)
		is.Equal(broken.Streams, map[string]string{"plain": damage.Error()})
		is.Equal(sum.Streams, 7)
		isPrefix(t, to, from.Storage)
	}
	info, err := to.Stat(t.Context(), "plain")
	is.NoErr(err)
	is.True(info.Tail > 0)
	from.broke = nil
	_, err = transfer.Backup(t.Context(), transfer.From(from), to)
	is.NoErr(err)
	same(t, to, from.Storage)
}

// TestABackupGoesOnBehindAGap: where all that the copy has of a stream was dropped, and what comes next is more than a
// batch, or nothing.
func TestABackupGoesOnBehindAGap(t *testing.T) {
	is := is.New(t)
	from, to := variety(t), memory.New()
	var list []streamlib.Event
	for o := range streamlib.Offset(10) {
		list = append(list, event("big", 5+o, `"`+strings.Repeat("x", 1<<20-2)+`"`, "", moment(int(o))))
	}
	put(t, from, "big", &streamlib.State{First: 5}, list...)
	put(t, from, "emptied at once", &streamlib.State{First: 9, UpdatedAt: moment(9)})
	for _, name := range []string{"big", "emptied at once"} {
		old := event(name, 0, `"old"`, "", moment(0))
		put(t, to, name, nil, old)
	}
	sum, err := transfer.Backup(t.Context(), transfer.From(from), to)
	is.NoErr(err)
	is.Equal(sum.Streams, 10)
	same(t, to, from)

	put(t, to, "emptied", &streamlib.State{Life: 2, First: 90, UpdatedAt: moment(5)}) // as it is
	put(t, from, "other", &streamlib.State{First: 9, UpdatedAt: moment(9)})
	put(t, to, "other", &streamlib.State{First: 9, UpdatedAt: moment(8)})
	_, err = transfer.Backup(t.Context(), transfer.From(from), to)
	broken, ok := errors.AsType[*transfer.BrokenError](err)
	is.True(ok)
	is.True(strings.Contains(broken.Streams["other"], "its last event is of 2024-01-08T00:00:00.008Z, and not of"))
}

// TestABackupOfAStreamThatGoes: it is gone from the copy, too.
func TestABackupOfAStreamThatGoes(t *testing.T) {
	is := is.New(t)
	from, to := variety(t), variety(t)
	put(t, from, "plain", nil, events("plain", 40, 50)...)
	opened := 0
	_, err := transfer.Backup(t.Context(), func(ctx context.Context, q transfer.Query) (io.ReadCloser, error) {
		if opened++; opened == 2 { // the streams were listed
			is.NoErr(from.Commit(ctx, q.Name, streamlib.Change{Delete: true}))
		}
		return transfer.From(from)(ctx, q)
	}, to)
	is.NoErr(err)
	same(t, to, from)
}

// rotten is a storage with a stream that takes no more.
type rotten struct {
	streamlib.Storage
	name string
}

func (r rotten) Commit(ctx context.Context, name string, c streamlib.Change) error {
	if name == r.name {
		return fmt.Errorf("%w: %w", streamlib.ErrUnavailable, &streamlib.CorruptError{File: "streams/plain.json"})
	}
	return r.Storage.Commit(ctx, name, c)
}

// TestABackupToADamagedStream: the others are copied.
func TestABackupToADamagedStream(t *testing.T) {
	is := is.New(t)
	to := memory.New()
	sum, err := transfer.Backup(t.Context(), transfer.From(variety(t)), rotten{to, "plain"})
	broken, ok := errors.AsType[*transfer.BrokenError](err)
	is.True(ok)
	is.Equal(len(broken.Streams), 1)
	is.True(strings.Contains(broken.Streams["plain"], "is corrupt"))
	is.Equal(sum.Streams, 7)
}

// TestTenThousandStreams are exported, imported and backed up, over disk.
func TestTenThousandStreams(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	is := is.New(t)
	from := memory.New()
	for i := range 10_000 {
		name := fmt.Sprint("s", i)
		put(t, from, name, &streamlib.State{Closed: i%3 == 0}, events(name, 0, 1+i%3)...)
	}
	imported := open(t, t.TempDir())
	_, err := transfer.Import(t.Context(), imported, bytes.NewReader(export(t, from, transfer.Query{})))
	is.NoErr(err)
	same(t, imported, from)
	is.NoErr(imported.Close())
	copied := open(t, t.TempDir())
	for _, stored := range []int64{19_999, 0} {
		sum, err := transfer.Backup(t.Context(), transfer.From(from), copied)
		is.NoErr(err)
		is.Equal(sum.Streams, 10_000)
		is.Equal(sum.Stored, stored)
	}
	same(t, copied, from)
}
