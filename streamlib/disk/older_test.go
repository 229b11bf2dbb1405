package disk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

func TestKillDuringConversion(t *testing.T) {
	is := is.New(t)
	smallJournals(t)
	for _, name := range []string{"Older", "older", strings.Repeat("O", 200)} {
		for n := 1; ; n++ {
			down := false
			for seed := range uint64(20) {
				h := scripted(t, Options{})
				h.fs.rng = rand.New(rand.NewPCG(seed, 2))
				s := &truth{name: name, states: []*state{{}}}
				h.streams = append(h.streams[:2], s)
				h.plant(s, 4)
				is.NoErr(h.open())
				from := h.fs.ops
				h.watch = func(o op) outcome { return outcome{crash: o.n == from+n, effect: effect(seed % 3)} }
				is.NoErr(h.read(s))
				down = h.fs.down
				h.watch = nil
				h.fs.restart(kill) // a start that sees what is not durable goes on with it, and then the power goes
				is.NoErr(h.open())
				is.NoErr(h.append(s, h.sends(2), nil))
				is.NoErr(h.last)
				is.NoErr(h.reopen(power))
			}
			if !down {
				break
			}
		}
	}
}

func TestOlderFormDamaged(t *testing.T) {
	is := is.New(t)
	const event = `{"offset":"0000000000000000","eventStreamId":"x","data":1,"createdAt":"2024-01-08T00:00:00.000Z"}`
	for _, older := range []string{
		`{"events":[` + event,
		`{"events":[` + event + `]`,
		`{"events":[` + event + `]} {}`,
		`{"events":[` + event + `,` + event + `]}`,
		`{"events":{}}`,
		`{"events":[{"offset":"x","data":1,"createdAt":"2024-01-08T00:00:00.000Z"}]}`,
		`{"events":[` + strings.Replace(event, "2024-01-08T00:00:00.000Z", "9999-12-31T23:59:59.999-01:00", 1) + `]}`,
		`{"events":[` + strings.Replace(event, "1,", `"`+strings.Repeat("x", maxLine)+`",`, 1) + `]}`,
		`{"events":[` + strings.Replace(event, `"data":1,`, ``, 1) + `]}`,
	} {
		f := files{formatFile: []byte(format), path("x"): []byte(older)}
		s, fs, err := f.open(Options{})
		is.NoErr(err)
		events, err := read(s, "x", 0)
		is.True(corrupt(err))
		is.Equal(len(events), 0)
		is.True(errors.Is(s.Append("x", events0(t)), streamlib.ErrUnavailable))
		is.Equal(string(fs.contents(path("x"))), older) // untouched
		is.NoErr(s.Delete("x"))
		is.NoErr(s.Append("x", events0(t)))
	}
}

// A file of the older form that is damaged keeps the events before the damage.
func TestRepairOlderForm(t *testing.T) {
	is := is.New(t)
	for _, name := range []string{"x", "X"} {
		older := fmt.Sprintf(`{"events":[{"offset":"0","data":"of %s","createdAt":"2024-01-08T00:00:00.000Z"},{"offset":"1","da`, name)
		raw := "streams/" + name + suffix
		s, fs, err := files{formatFile: []byte(format), raw: []byte(older)}.open(Options{})
		is.NoErr(err)
		_, err = read(s, name, 0)
		is.True(err != nil)
		fs.restart(kill)
		said, err := repairOn(fs, false)
		is.NoErr(err)
		is.True(len(said) > 0)
		kept := 0
		for _, b := range fs.files() {
			if string(b) == older {
				kept++
			}
		}
		is.Equal(kept, 1)
		s, err = openStore(fs, Options{})
		is.NoErr(err)
		events, err := read(s, name, 0)
		is.NoErr(err)
		is.Equal(len(events), 1)
		is.NoErr(s.Append(name, []streamlib.Event{event2024(t, name, 1)}))
	}
}

// A file that somebody moved to the stream's raw name is the stream, and not an older one's that is passed over.
func TestFileMovedToRawName(t *testing.T) {
	is := is.New(t)
	f, truth := write(t, Options{}, true, true, func(add func(string, int)) { add("Orders", 3) })
	for _, running := range []bool{true, false} {
		s, fs, err := f.open(Options{})
		is.NoErr(err)
		if running {
			is.NoErr(s.Append("Orders", []streamlib.Event{event(t, "Orders", 3)}))
		}
		is.NoErr(fs.rename(path("Orders"), "streams/Orders.json"))
		is.NoErr(fs.syncDir(streamsDir))
		if running {
			is.True(errors.Is(s.Append("Orders", []streamlib.Event{event(t, "Orders", 4)}), streamlib.ErrUnavailable))
		}
		fs.restart(power)
		s, err = openStore(fs, Options{})
		is.NoErr(err)
		events, err := read(s, "Orders", 0)
		is.NoErr(err)
		is.True(len(events) == map[bool]int{false: 3, true: 4}[running] && prefix(events[:3], truth["Orders"]))
		is.True(isConflict(s.Append("Orders", []streamlib.Event{event(t, "Orders", 0)})))
		is.NoErr(s.Append("Orders", []streamlib.Event{event(t, "Orders", len(events))}))
		names, err := s.List("", "", 0)
		is.NoErr(err)
		is.Equal(names, []string{"Orders"})
	}
	// What is under that name and no such file is not passed over either.
	s, _, err := files{formatFile: []byte(format), "streams/Orders.json": []byte("what is this?\n")}.open(Options{})
	is.NoErr(err)
	is.True(errors.Is(s.Append("Orders", []streamlib.Event{event(t, "Orders", 0)}), streamlib.ErrUnavailable))
}

// The sync of the folder after a conversion is one like all: where it fails nothing more is acknowledged, for the next one would say yes.
func TestConversionWhoseSyncFails(t *testing.T) {
	for _, name := range []string{"Older", "older"} {
		is := is.New(t)
		h := scripted(t, Options{})
		s := &truth{name: name, states: []*state{{}}}
		h.streams = append(h.streams[:2], s)
		h.plant(s, 3)
		is.NoErr(h.open())
		h.watch = func(o op) outcome {
			if o.kind == "syncDir" && o.path == streamsDir {
				return outcome{err: syscall.EIO}
			}
			return outcome{}
		}
		is.NoErr(h.read(s))
		h.watch = nil
		for _, s := range h.streams {
			is.NoErr(h.append(s, h.sends(1), nil))
			is.True(errors.Is(h.last, streamlib.ErrUnavailable))
		}
		is.NoErr(h.reopen(kill))
		is.NoErr(h.append(s, h.sends(1), nil))
		is.NoErr(h.last)
		is.NoErr(h.reopen(power))
	}
}

func events0(t *testing.T) []streamlib.Event { return []streamlib.Event{event(t, "x", 0)} }
