package streamlib

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"time"
)

// maxDropped bounds State.Keys in bytes.
const maxDropped = 48 << 10

// A dropped is an append with a key whose events were dropped. What is kept of it is enough to know a repeat again, and
// to answer it, for that brings the data.
type dropped struct {
	Key   string `json:"key"`
	Last  Offset `json:"last"`  // of its events
	Count int    `json:"count"` // of them; those that an earlier trim dropped are not told
	Sum   uint32 `json:"sum"`   // the CRC-32 (IEEE) of their data
	At    int64  `json:"at"`    // when they were created, in Unix milliseconds
}

// parseDropped reads State.Keys.
func parseDropped(keys string) (all []dropped) {
	if keys != "" {
		_ = json.Unmarshal([]byte(keys), &all) // another version's are forgotten
	}
	return all
}

// remembered returns what State.Keys is once the events before first are dropped, of a stream that had the state was and has
// the tail, among them those that are to be appended.
func (s *core) remembered(was State, first, tail Offset, appended []Event) (keys string, err error) {
	window := max(0, tail-keyEvents)
	var all []dropped
	for _, d := range parseDropped(was.Keys) {
		if d.Last >= window {
			all = append(all, d)
		}
	}
	add := func(events []Event) {
		for _, e := range events {
			key := e.Key()
			if key == "" || e.Offset < window || e.Offset >= first {
				continue
			}
			n := len(all)
			if n == 0 || all[n-1].Key != key || all[n-1].Last != e.Offset-1 {
				all, n = append(all, dropped{Key: key}), n+1
			}
			d := &all[n-1]
			d.Last, d.Count, d.At = e.Offset, d.Count+1, e.CreatedAt().UnixMilli()
			d.Sum = crc32.Update(d.Sum, crc32.IEEETable, e.Data())
		}
	}
	if from := max(was.First, window); from < min(first, tail-Offset(len(appended))) {
		for events, err := range s.storage.Read(context.Background(), s.name, from, first) {
			if err != nil {
				return "", err
			}
			add(events)
		}
	}
	for add(appended); ; all = all[(len(all)+3)/4:] { // the oldest are forgotten first
		if len(all) == 0 {
			return "", nil
		}
		b, err := json.Marshal(all)
		if err != nil || len(b) <= maxDropped {
			return string(b), err
		}
	}
}

// findDropped returns the append with the key among those whose events were dropped. The caller holds mu.
func (s *core) findDropped(key string) (found dropped, ok bool) {
	for _, d := range parseDropped(s.state.Keys) {
		if d.Key == key && d.Last >= s.tail-keyEvents {
			found, ok = d, true
		}
	}
	return found, ok
}

// repeats returns the events of d, made again of a's data, where a repeats them.
func (s *core) repeats(a *appending, d dropped) ([]Event, error) {
	sum, missing := uint32(0), len(a.data)-d.Count
	if missing >= 0 && Offset(len(a.data)) <= d.Last+1 {
		for _, data := range a.data[missing:] {
			sum = crc32.Update(sum, crc32.IEEETable, data)
		}
	}
	if missing < 0 || sum != d.Sum {
		return nil, fmt.Errorf("%w: %q", ErrKeyReused, a.key)
	}
	return s.again(a, d.Last+1, len(a.data), time.UnixMilli(d.At).UTC()), nil
}
