package object

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/internal/seal"
)

// A head is the first line of an object: what the change is, and what the stream is with it.
type head struct {
	Nonce     string           `json:"nonce"` // of the request, by which a writer knows its own
	Stream    string           `json:"stream"`
	First     streamlib.Offset `json:"first"` // the offset that comes next before it
	Count     int              `json:"count"` // of its events
	Life      int64            `json:"life,omitempty"`
	Kept      streamlib.Offset `json:"kept,omitempty"` // the first event that is kept
	Closed    bool             `json:"closed,omitempty"`
	Keys      string           `json:"keys,omitempty"`
	Note      string           `json:"note,omitempty"`
	Held      bool             `json:"held,omitempty"`
	Bytes     int64            `json:"bytes"`             // of all events of the life
	Dropped   int64            `json:"dropped,omitempty"` // of these, of those before Kept
	CreatedAt time.Time        `json:"createdAt,omitzero"`
	UpdatedAt time.Time        `json:"updatedAt,omitzero"`
	Deleted   bool             `json:"deleted,omitempty"` // the stream; Life is the next one's

	// Merged says that a collector has put several changes together. Of what the stream was with them there are Bytes
	// alone, and First is behind what was trimmed.
	Merged bool `json:"merged,omitempty"`
}

func (h head) end() streamlib.Offset { return h.First + streamlib.Offset(h.Count) }

func (h head) state() streamlib.State {
	return streamlib.State{Life: h.Life, First: h.Kept, Closed: h.Closed, Keys: h.Keys, Note: h.Note, Held: h.Held,
		UpdatedAt: h.UpdatedAt}
}

// body is the object of a change.
func (h head) body(events []streamlib.Event) []byte {
	record, err := json.Marshal(struct {
		Batch head `json:"batch"`
	}{h})
	if err != nil {
		panic(err) // our own type
	}
	size := len(record) + seal.Len
	for _, e := range events {
		size += len(e.Record()) + seal.Len
	}
	b := seal.Append(make([]byte, 0, size), record[:len(record)-1])
	for _, e := range events {
		b = seal.Append(b, e.Record())
	}
	return b
}

// parse takes an object apart. The events share body's memory.
func parse(file string, body []byte) (h head, events []streamlib.Event, err error) {
	corrupt := func(at int, reason string) error {
		return &streamlib.CorruptError{File: file, Offset: int64(at), Reason: reason}
	}
	for at := 0; at < len(body) || at == 0; {
		n := bytes.IndexByte(body[at:], '\n') + 1
		if n == 0 {
			return h, nil, corrupt(at, "it ends within a line")
		}
		record, err := seal.Open(body[at : at+n])
		if err != nil {
			return h, nil, corrupt(at, err.Error())
		}
		if at == 0 {
			var line struct {
				Batch *head `json:"batch"`
			}
			if err := json.Unmarshal(append(bytes.Clone(record), '}'), &line); err != nil || line.Batch == nil {
				return h, nil, corrupt(at, "its first line is no batch's")
			}
			h = *line.Batch
		} else {
			e, err := streamlib.ParseRecord(record)
			if err != nil {
				return h, nil, corrupt(at, err.Error())
			}
			if e.Offset != h.First+streamlib.Offset(len(events)) {
				return h, nil, corrupt(at, fmt.Sprintf("event %d stands where %d should", e.Offset,
					h.First+streamlib.Offset(len(events))))
			}
			events = append(events, e)
		}
		at += n
	}
	if len(events) != h.Count {
		return h, nil, corrupt(len(body), fmt.Sprintf("it has %d events of %d", len(events), h.Count))
	}
	return h, events, nil
}
