package disk

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
)

// TestCrashRepair damages folders at random and repairs them, with crashes on the way, and again. However that goes,
// a whole line of a stream's file is in some file afterwards, a copy that was made stays what it is, and every stream
// goes on.
func TestCrashRepair(t *testing.T) {
	histories(t, 1500, func(seed uint64, trace func(string, ...any)) error {
		h := newHistory(seed, trace)
		copies := files{}
		for range 1 + h.rng.IntN(3) {
			if err := h.damageAndRepair(copies); err != nil {
				return err
			}
		}
		return nil
	})
}

func (h *history) damageAndRepair(copies files) error {
	store, err := openStore(h.fs, h.options)
	if err != nil {
		return err
	}
	h.store, h.manager = store, streamlib.NewManager(store, streamlib.Plain, streamlib.Options{Now: h.now})
	h.closing = true
	for range 1 + h.rng.IntN(25) {
		if err := errors.Join(h.step(), h.err); err != nil {
			return err
		}
	}
	if h.rng.IntN(3) == 0 {
		if err := store.Close(); err != nil {
			return err
		}
	}
	h.store, h.manager = nil, nil
	h.fs.restart([]crash{kill, cold}[h.rng.IntN(2)])
	h.damage()
	if err := h.fs.syncAll(); err != nil { // what the journal had lost, the loss of power would take as well
		return err
	}
	before := h.fs.files()
	salvage := h.rng.IntN(2) == 0
	if h.rng.IntN(3) == 0 { // what a start finds, and marks, before
		if s, err := openStore(h.fs, h.options); err == nil {
			for _, t := range h.streams {
				_, _ = read(s, t.name, 0)
			}
		}
		h.fs.restart(power)
	}
	for tries := 0; ; tries++ {
		h.crashAt = 0
		if tries < 4 && h.rng.IntN(2) == 0 {
			h.crashAt = h.fs.ops + 1 + h.rng.IntN(150)
		}
		said, err := repairOn(h.fs, salvage)
		h.trace("repair: %q, %v", said, err)
		h.crashAt = 0
		down := h.fs.down
		h.fs.restart([]crash{kill, cold, power}[h.rng.IntN(3)])
		if err := kept(copies, h.fs.files()); err != nil {
			return err
		}
		if !down {
			if err != nil {
				return fmt.Errorf("repair: %w", err)
			}
			break
		}
	}
	after := h.fs.files()
	for p, b := range before {
		for _, line := range bytes.SplitAfter(b, []byte("\n")) {
			if _, bad := unseal(line); strings.HasPrefix(p, streamsDir) && strings.HasSuffix(p, suffix) &&
				bad == nil && !after.have(line) {
				return fmt.Errorf("%s had a line that is nowhere now: %s", p, line)
			}
		}
	}
	for p, b := range after {
		if strings.HasPrefix(p, streamsDir) && !strings.HasSuffix(p, suffix) || strings.Contains(p, ".torn-") {
			copies[p] = b
		}
	}
	store, err = openStore(h.fs, h.options)
	if err != nil {
		return fmt.Errorf("after the repair: %w", err)
	}
	if d := store.Damaged(); len(d) > 0 {
		return fmt.Errorf("after the repair there is damage: %v", d[0].Damage)
	}
	m := streamlib.NewManager(store, streamlib.Plain, streamlib.Options{Now: h.now})
	for _, t := range h.streams {
		events, err := readAll(m.Stream(t.name))
		if err != nil {
			return fmt.Errorf("after the repair: %w", err)
		}
		info, err := stat(store, t.name)
		if err != nil {
			return fmt.Errorf("after the repair: %w", err)
		}
		s := &state{life: t.states[0].life + 1, facts: make([]fact, info.First), first: int(info.First),
			closed: info.Closed, note: info.Note}
		for _, e := range events {
			s.facts = append(s.facts, fact{-1, string(e.Data()), e.String()})
		}
		t.states, t.keyed, t.lives = []*state{s}, nil, nil
	}
	h.fs.restart(kill)
	return kept(copies, h.fs.files())
}

// damage changes some of the files, durably.
func (h *history) damage() {
	f := h.fs.files()
	paths := slices.Sorted(maps.Keys(f))
	paths = slices.DeleteFunc(paths, func(p string) bool {
		return !strings.HasSuffix(p, journalSuffix) &&
			!((strings.HasPrefix(p, streamsDir) || strings.HasPrefix(p, stateDir)) && strings.HasSuffix(p, suffix))
	})
	for range h.rng.IntN(4) {
		if len(paths) == 0 {
			return
		}
		p := paths[h.rng.IntN(len(paths))]
		b := bytes.Clone(h.fs.contents(p))
		if len(b) == 0 {
			continue
		}
		i, kind := h.rng.IntN(len(b)), h.rng.IntN(5)
		if strings.HasSuffix(p, journalSuffix) {
			i = h.rng.IntN(max(1, len(bytes.TrimRight(b, "\x00"))))
		}
		n := min(1+h.rng.IntN(300), len(b)-i)
		switch kind {
		case 0, 1:
			b[i] ^= 1 << h.rng.IntN(8)
		case 2:
			b = b[:i]
		case 3:
			clear(b[i : i+n])
		case 4:
			b = slices.Delete(b, i, i+n)
		}
		h.trace("damage %d: %s from %d", kind, p, i)
		h.fs.plant(p, b)
	}
}

func (f files) have(line []byte) bool {
	for _, b := range f {
		if bytes.Contains(b, line) {
			return true
		}
	}
	return false
}

// kept tells of a copy that is no longer what it was.
func kept(copies, f files) error {
	for p, b := range copies {
		if !bytes.Equal(f[p], b) {
			return fmt.Errorf("%s was a copy of %d bytes, and is now of %d", p, len(b), len(f[p]))
		}
	}
	return nil
}
