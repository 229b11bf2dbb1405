package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/transfer"
	"github.com/matryer/is"
)

func TestAStreamThatIsAnotherOneInTheTargetIsRefused(t *testing.T) {
	type state = streamlib.State
	for name, test := range map[string]struct {
		exported state
		to       int // exported are the events from the first up to here
		has      state
		hasTo    int
		other    bool // the last event that the target has is another one
		parts    int  // the offset of the DifferentError, -1 where there is none
		stored   int
	}{
		"the same":                        {state{}, 9, state{}, 9, false, -1, 0},
		"a part of it":                    {state{}, 9, state{}, 4, false, -1, 5},
		"more":                            {state{}, 9, state{}, 12, false, -1, 0},
		"another event in the middle":     {state{}, 9, state{}, 4, true, 3, 0},
		"another last event":              {state{}, 9, state{}, 9, true, 8, 0},
		"another event behind it":         {state{}, 9, state{}, 12, true, -1, 0},
		"another life":                    {state{Life: 1}, 9, state{}, 4, false, 0, 0},
		"it begins behind the target's":   {state{First: 6}, 9, state{}, 4, false, 4, 0},
		"it begins where the target ends": {state{First: 4}, 9, state{}, 4, false, 4, 0},
		"where the emptied target ends":   {state{First: 6}, 9, state{First: 6}, 6, false, -1, 3},
		"it is trimmed":                   {state{First: 4}, 9, state{}, 6, false, -1, 3},
		"the target is trimmed":           {state{}, 9, state{First: 4}, 6, false, -1, 3},
		"the target is trimmed further":   {state{}, 9, state{First: 10}, 12, false, -1, 0},
		"the target is emptied":           {state{}, 9, state{First: 6}, 6, false, -1, 3},
		"both are emptied":                {state{First: 6}, 6, state{First: 6}, 6, false, -1, 0},
		"it is emptied":                   {state{First: 6}, 6, state{}, 6, false, -1, 0},
		"the target is closed":            {state{}, 9, state{Closed: true}, 9, false, -1, 0},
		"the target is closed before":     {state{}, 9, state{Closed: true}, 8, false, 8, 0},
		"the target is closed and empty":  {state{}, 9, state{Closed: true}, 0, false, 0, 0},
		"it is closed":                    {state{Closed: true}, 9, state{}, 9, false, -1, 0},
		"it is closed with more":          {state{Closed: true}, 9, state{}, 4, false, -1, 5},
		"it is closed before":             {state{Closed: true}, 9, state{}, 10, false, 9, 0},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			from, to := memory.New(), memory.New()
			had := events("s", 0, test.hasTo)
			if test.other {
				o := test.hasTo - 1
				had[o] = event("s", streamlib.Offset(o), `"other"`, "", had[o].CreatedAt())
			}
			for _, side := range []struct {
				storage streamlib.Storage
				events  []streamlib.Event
				state   state
			}{{from, events("s", 0, test.to), test.exported}, {to, had, test.has}} {
				if side.state.Life == 0 {
					put(t, side.storage, "s", nil, side.events...)
					side.events = nil
				}
				put(t, side.storage, "s", &side.state, side.events...)
			}
			put(t, from, "another", nil, events("another", 0, 2)...)
			before := dump(t, to)

			lines := export(t, from, transfer.Query{})
			sum, err := transfer.Import(t.Context(), to, bytes.NewReader(lines))
			if test.parts >= 0 {
				different, ok := errors.AsType[*transfer.DifferentError](err)
				is.True(ok)
				is.Equal(different.Stream, "s")
				is.Equal(different.Offset, streamlib.Offset(test.parts))
				is.True(strings.HasSuffix(dump(t, to), before)) // "another" may stand before it
				return
			}
			is.NoErr(err)
			is.Equal(sum.Stored, int64(test.stored+2))
			info, err := to.Stat(t.Context(), "s")
			is.NoErr(err)
			is.Equal(info.Tail, streamlib.Offset(max(test.to, test.hasTo)))
			is.Equal(info.First, test.has.First) // nothing is taken away
			is.Equal(info.Closed, test.exported.Closed || test.has.Closed)
			again, err := transfer.Import(t.Context(), counted{to, t}, bytes.NewReader(lines))
			is.NoErr(err)
			is.Equal(again.Stored, int64(0))
		})
	}
}

func TestAPartAndAnotherTimeAreRefused(t *testing.T) {
	is := is.New(t)
	from, to := memory.New(), memory.New()
	put(t, from, "s", nil, events("s", 0, 9)...)
	_, err := transfer.Import(t.Context(), to, bytes.NewReader(export(t, from, transfer.Query{From: 4})))
	different, ok := errors.AsType[*transfer.DifferentError](err)
	is.True(ok)
	is.Equal(different.Reason, "there is none, and the export begins at 4")
	put(t, to, "s", nil, events("s", 0, 5)...)
	sum, err := transfer.Import(t.Context(), to, bytes.NewReader(export(t, from, transfer.Query{From: 4})))
	is.NoErr(err)
	is.Equal(sum.Stored, int64(4))
	same(t, to, from)

	for i, s := range []streamlib.Storage{from, to} { // both are emptied, of other events
		put(t, s, "t", &streamlib.State{First: 6, UpdatedAt: moment(i)})
	}
	_, err = transfer.Import(t.Context(), to, bytes.NewReader(export(t, from, transfer.Query{})))
	different, ok = errors.AsType[*transfer.DifferentError](err)
	is.True(ok)
	is.True(strings.HasPrefix(different.Reason, "its last event is of "))
}

// gone is a storage whose reads find nothing.
type gone struct{ streamlib.Storage }

func (gone) Read(context.Context, string, streamlib.Offset, streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	return func(func([]streamlib.Event, error) bool) {}
}

func TestAStreamThatGoesDuringAnImportIsSeen(t *testing.T) {
	is := is.New(t)
	s := variety(t)
	_, err := transfer.Import(t.Context(), gone{s}, bytes.NewReader(export(t, s, transfer.Query{})))
	different, ok := errors.AsType[*transfer.DifferentError](err)
	is.True(ok)
	is.Equal(different.Reason, "it was deleted meanwhile")
}

func TestAnExportThatWasDamagedIsRefused(t *testing.T) {
	is := is.New(t)
	from := variety(t)
	whole := export(t, from, transfer.Query{})
	lines := bytes.SplitAfter(bytes.TrimSuffix(whole, []byte("\n")), []byte("\n"))
	lines[len(lines)-1] = append(lines[len(lines)-1], '\n')
	refused := func(what string, input []byte) {
		t.Helper()
		to := memory.New()
		_, err := transfer.Import(t.Context(), to, bytes.NewReader(input))
		if !errors.Is(err, streamlib.ErrInvalid) || !strings.Contains(fmt.Sprint(err), "line ") {
			t.Errorf("%s: %v", what, err)
		}
		isPrefix(t, to, from)
	}
	for i := 0; i < len(whole); i += 7 {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 1 << (i % 8)
		refused(fmt.Sprintf("a bit of byte %d", i), damaged)
	}
	join := func(parts ...[][]byte) []byte {
		var all []byte
		for _, p := range parts {
			all = append(all, bytes.Join(p, nil)...)
		}
		return all
	}
	for i := range lines {
		refused(fmt.Sprintf("without line %d", i+1), join(lines[:i], lines[i+1:]))
		if i != len(lines)-1 { // two ends, and two starts, are refused too
			refused(fmt.Sprintf("line %d twice", i+1), join(lines[:i+1], lines[i:]))
		}
	}
	refused("the end twice", join(lines, lines[len(lines)-1:]))
	refused("nothing", nil)
	refused("something else", []byte("{\"offset\":1}\n"))
	refused("no JSON", []byte("hello\n"))
	refused("two, the second of which is cut", append(bytes.Clone(whole), whole[:100]...))

	to := memory.New()
	_, err := transfer.Import(t.Context(), to, bytes.NewReader(bytes.Repeat([]byte("x"), 9<<20)))
	is.True(errors.Is(err, streamlib.ErrTooLarge))
	_, err = transfer.Import(t.Context(), to, bytes.NewReader(append(bytes.Clone(whole), whole...)))
	is.NoErr(err) // two whole ones
	same(t, to, from)
}

// TestLinesWithoutChecksums: what a person wrote is taken where it is right.
func TestLinesWithoutChecksums(t *testing.T) {
	const (
		start = `{"export":"durable-streams 1"}` + "\n"
		head  = `{"stream":"s","tail":"1"}` + "\n"
		one   = `{"offset":"0000000000000000","eventStreamId":"s","data":1,"createdAt":"2024-01-08T00:00:00.000Z"}` + "\n"
		foot  = `{"end":"s","tail":"1"}` + "\n"
		end   = `{"exported":1,"events":1}` + "\n"

		head2 = `{"stream":"s","tail":"2"}` + "\n"
		ends2 = `{"end":"s","tail":"2"}` + "\n" + `{"exported":1,"events":2}` + "\n"
	)
	second := strings.Replace(one, `0000"`, `0001"`, 1)
	later := func(line string) string { return strings.Replace(line, "00.000Z", "00.001Z", 1) }
	headed := func(head string) string { return start + head + "\n" + one + foot + end }
	changed := func(from, to string) string { return start + head + strings.Replace(one, from, to, 1) + foot + end }
	ended := func(foot, end string) string { return start + head + one + foot + "\n" + end + "\n" }
	for input, want := range map[string]string{
		start + head + one + foot + end:                      "",
		start + head2 + one + second + ends2:                 "",
		start + head2 + one + later(second) + ends2:          "",
		headed(` {"stream" : "s", "tail":"1" }`):             "",
		headed(`{"stream":"s","tail":"1","ttl":5}`):          "line 2: invalid line: not a line of an export",
		headed(`{"stream":"\u0000","tail":"1"}`):             "invalid stream name",
		headed(`{"stream":"s","tail":"-1"}`):                 `invalid offset "-1"`,
		headed(`{"stream":"s","first":"2","tail":"1"}`):      "there is no stream",
		headed(`{"stream":"s","from":"2","tail":"1"}`):       "there is no stream",
		headed(`{"stream":"s","life":-1,"tail":"1"}`):        "there is no stream",
		headed(`{"stream":"s","tail":"1","updatedAt":"no"}`): "parsing time",
		headed(`{"streams":"s"}`):                            "not a line of an export",
		headed(`{}`):                                         "not a line of an export",
		headed(`{"export":"durable-streams 2"}`):             `the export's format is "durable-streams 2"`,
		changed(`"s"`, `"t"`):                                `an event of stream "t" among those of "s"`,
		changed(`:1,`, `: 1,`):                               "white space",
		changed(`:1,`, `:tru,`):                              "its data",
		changed("0000\"", "0001\""):                          `event 1 of "s" stands where 0 should`,
		changed("2024-01", "2024-13"):                        "has no time",
		changed("}\n", `,"key":"`+"\u0085"+`"}`+"\n"):        "key",
		changed("}\n", `,"key":""}`+"\n"):                    "not an event's encoded form",
		start + head2 + later(one) + second + ends2:          "or one before its predecessor's",
		start + head2 + one + foot + end:                     `stream "s" ends at 1, and its events at 1`,
		start + head + one + second + foot + end:             "and the stream goes up to 1",
		start + head + foot + end:                            `stream "s" ends at 1, and its events at 0`,
		ended(`{"end":"t","tail":"1"}`, end):                 `stream "t" ends, and did not begin`,
		ended(foot[:len(foot)-1], `{"exported":2}`):          "it ends an export of 2 whole streams with 0 events",
		ended(foot[:len(foot)-1], `{"exported":1}`):          "with 0 events, and there are 1 with 1",
		head + one + foot + end:                              `stream "s" begins outside of an export`,
		start + one + foot + end:                             "an event stands outside of a stream",
		start + start + head + one + foot + end:              "an export begins here",
		start + head + head + one + foot + end:               "or in another stream",
		start + head + one + foot:                            "line 5: invalid export: it ends here and is not whole",
	} {
		_, err := transfer.Import(t.Context(), memory.New(), strings.NewReader(input))
		if want == "" && err != nil || want != "" && !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s%v", input, err)
		}
	}
}

// flaky is a storage whose commits fail after some, and whose reads break off.
type flaky struct {
	streamlib.Storage
	left  atomic.Int64
	broke map[string]error
}

var errFlaky = errors.New("flaky")

func (f *flaky) Commit(ctx context.Context, name string, c streamlib.Change) error {
	if f.left.Add(-1) < 0 {
		return errFlaky
	}
	return f.Storage.Commit(ctx, name, c)
}

func (f *flaky) Read(ctx context.Context, name string, from, to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	return func(yield func([]streamlib.Event, error) bool) {
		for events, err := range f.Storage.Read(ctx, name, from, to) {
			if broke := f.broke[name]; broke != nil {
				yield(events[:len(events)/2], nil)
				yield(nil, broke)
				return
			}
			if !yield(events, err) {
				return
			}
		}
	}
}

// large has a stream of four batches, too.
func large(t *testing.T) streamlib.Storage {
	s := variety(t)
	var list []streamlib.Event
	for o := range 25 {
		list = append(list, event("big", streamlib.Offset(o+1), `"`+strings.Repeat("x", 1<<20-2)+`"`, "", moment(o)))
	}
	put(t, s, "big", &streamlib.State{First: 1, Closed: true}, list...)
	return s
}

// slow is a storage whose first commit waits until read is closed.
type slow struct {
	streamlib.Storage
	begun   atomic.Bool
	read    chan struct{}
	commits atomic.Int32
}

func (s *slow) Commit(ctx context.Context, name string, c streamlib.Change) error {
	if !s.begun.Swap(true) {
		select {
		case <-s.read:
		case <-ctx.Done(): // the import has failed
		}
	}
	s.commits.Add(1)
	return s.Storage.Commit(ctx, name, c)
}

// telling is an input that closes read when so much of it was.
type telling struct {
	io.Reader
	left int
	read chan struct{}
}

func (r *telling) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if r.left > 0 && r.left <= n {
		close(r.read)
	}
	r.left -= n
	return n, err
}

// TestAStreamsBatchesAreCommittedInOrder: also where two more were read before the first one is.
func TestAStreamsBatchesAreCommittedInOrder(t *testing.T) {
	is := is.New(t)
	from, read := large(t), make(chan struct{})
	to := &slow{Storage: memory.New(), read: read}
	whole := export(t, from, transfer.Query{Name: "big"})
	_, err := transfer.Import(t.Context(), to, &telling{bytes.NewReader(whole), 20 << 20, read})
	is.NoErr(err)
	is.Equal(to.commits.Load(), int32(4)) // of 8 MiB
	is.Equal(string(export(t, to, transfer.Query{})), string(whole))
}

func TestAnImportThatFailsIsDoneAgain(t *testing.T) {
	is := is.New(t)
	from := large(t)
	whole := export(t, from, transfer.Query{})
	to := &flaky{Storage: memory.New()}
	for n := range int64(20) {
		to.left.Store(n / 4)
		_, err := transfer.Import(t.Context(), to, bytes.NewReader(whole))
		isPrefix(t, to, from)
		if err == nil {
			same(t, to, from)
			is.True(n > 8)
			return
		}
		is.True(errors.Is(err, errFlaky))
	}
	t.Error("it never ended")
}

// changing is a storage in which something happens after the first look at a stream.
type changing struct {
	streamlib.Storage
	happens func()
	damage  *streamlib.CorruptError
}

func (c *changing) Stat(ctx context.Context, name string) (streamlib.Info, error) {
	info, err := c.Storage.Stat(ctx, name)
	if info.Damage = c.damage; c.happens != nil {
		c.happens()
		c.happens = nil
	}
	return info, err
}

// TestAStreamThatChangesBeforeItIsRead: the export is of the moment after that.
func TestAStreamThatChangesBeforeItIsRead(t *testing.T) {
	for what, change := range map[string]streamlib.Change{
		"trimmed": {State: &streamlib.State{Life: 1, First: 5}}, "deleted": {Delete: true},
		"deleted and made again": {State: &streamlib.State{Life: 2}, Events: events("s", 0, 20)},
		"closed":                 {State: &streamlib.State{Life: 1, Closed: true}},
	} {
		t.Run(what, func(t *testing.T) {
			is := is.New(t)
			s := memory.New()
			put(t, s, "s", &streamlib.State{Life: 1}, events("s", 0, 9)...) // as many as it has seen deletions then
			was := string(export(t, s, transfer.Query{}))
			from := &changing{Storage: s, happens: func() {
				if what == "deleted and made again" {
					is.NoErr(s.Commit(t.Context(), "s", streamlib.Change{Delete: true}))
				}
				is.NoErr(s.Commit(t.Context(), "s", change))
			}}
			got := string(export(t, from, transfer.Query{}))
			is.Equal(got == string(export(t, s, transfer.Query{})), what != "closed")
			is.Equal(got == was, what == "closed")
		})
	}
}

// TestWhatIsNotWholeIsSaid: a stream that ends early, or is known to have lost events.
func TestWhatIsNotWholeIsSaid(t *testing.T) {
	is := is.New(t)
	damage := &streamlib.CorruptError{File: "streams/s.json", Reason: "some were lost"}
	s := memory.New()
	put(t, s, "s", nil, events("s", 0, 9)...)
	for want, from := range map[string]transfer.Source{
		"it was deleted meanwhile: it ended at 0, before 9": gone{s}, damage.Error(): &changing{Storage: s, damage: damage},
	} {
		_, err := transfer.Export(t.Context(), from, io.Discard, transfer.Query{})
		broken, ok := errors.AsType[*transfer.BrokenError](err)
		is.True(ok)
		is.Equal(broken.Streams["s"], want)
	}
}

func TestAStreamThatCannotBeReadDoesNotHideTheOthers(t *testing.T) {
	is := is.New(t)
	damage := &streamlib.CorruptError{File: "streams/plain.json", Offset: 9, Reason: "rot"}
	from := &flaky{Storage: variety(t), broke: map[string]error{"plain": damage, "closed": damage}}
	var b bytes.Buffer
	sum, err := transfer.Export(t.Context(), from, &b, transfer.Query{})
	broken, ok := errors.AsType[*transfer.BrokenError](err)
	is.True(ok)
	is.Equal(len(broken.Streams), 2)
	is.Equal(broken.Streams["plain"], damage.Error())
	is.Equal(err.Error(), `stream "closed" is not whole: streams/plain.json is corrupt at byte 9: rot; and 1 more`)
	is.Equal(sum.Streams, 6)
	is.Equal(sum.Events, int64(62-20-2))

	to := memory.New()
	got, err := transfer.Import(t.Context(), to, bytes.NewReader(b.Bytes()))
	again, ok := errors.AsType[*transfer.BrokenError](err)
	is.True(ok)
	is.Equal(again, broken)
	sum.Stored = sum.Events
	is.Equal(got, sum)
	isPrefix(t, to, from.Storage)
	closed, err := to.Stat(t.Context(), "closed")
	is.NoErr(err)
	is.Equal(closed.Tail, streamlib.Offset(1))
	is.True(!closed.Closed)

	from.broke = nil // it was repaired
	_, err = transfer.Import(t.Context(), to, bytes.NewReader(export(t, from, transfer.Query{})))
	is.NoErr(err)
	same(t, to, from.Storage)
}
