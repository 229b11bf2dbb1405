package transfer

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/internal/compact"
	"github.com/iterate/durable-streams/streamlib/internal/seal"
)

const (
	format     = "durable-streams 1"
	timeLayout = "2006-01-02T15:04:05.000Z"

	// maxLine is the longest line that can be: data of one batch, a name and a key with every byte escaped, and the
	// rest.
	maxLine = streamlib.MaxBatch + 2<<10

	eventStart = `{"offset":"`
	nameAt     = len(eventStart + `0000000000000000","eventStreamId":`)
)

// A head stands before a stream's events: the stream as of one moment, and where its lines begin.
type head struct {
	name   string
	quoted []byte // the name, as it stands in the stream's events
	streamlib.State
	from, tail streamlib.Offset
}

// A foot stands behind a stream's events: that they are all, up to the tail, or why there are no more.
type foot struct {
	name  string
	tail  streamlib.Offset
	cause string // "" where they are all
}

// A total stands at the end.
type total struct {
	streams int
	events  int64
}

// line is any line that is not an event's.
type line struct {
	Export *string `json:"export,omitempty"`

	Stream    *string `json:"stream,omitempty"`
	End       *string `json:"end,omitempty"`
	Broken    *string `json:"broken,omitempty"`
	Life      int64   `json:"life,omitempty"`
	First     string  `json:"first,omitempty"`
	From      string  `json:"from,omitempty"`
	Closed    bool    `json:"closed,omitempty"`
	Tail      string  `json:"tail,omitempty"`
	UpdatedAt string  `json:"updatedAt,omitempty"`
	Keys      string  `json:"keys,omitempty"`
	Note      string  `json:"note,omitempty"`
	Held      bool    `json:"held,omitempty"`
	Cause     string  `json:"cause,omitempty"`

	Exported *int  `json:"exported,omitempty"`
	Events   int64 `json:"events,omitempty"`
}

func (l line) append(b []byte) []byte {
	var record bytes.Buffer
	e := json.NewEncoder(&record)
	e.SetEscapeHTML(false)
	if err := e.Encode(l); err != nil {
		panic(err) // our own type
	}
	return seal.Append(b, bytes.TrimSuffix(record.Bytes(), []byte("}\n")))
}

func appendStart(b []byte) []byte { return line{Export: new(format)}.append(b) }

func (h head) append(b []byte) []byte {
	l := line{Stream: &h.name, Life: h.Life, First: offsetText(h.First), Closed: h.Closed, Tail: offsetText(h.tail),
		Keys: h.Keys, Note: h.Note, Held: h.Held}
	if h.from != h.First {
		l.From = h.from.String()
	}
	if !h.UpdatedAt.IsZero() {
		l.UpdatedAt = h.UpdatedAt.UTC().Format(timeLayout)
	}
	return l.append(b)
}

func appendEvent(b []byte, e streamlib.Event) []byte {
	from := len(b)
	return seal.End(append(b, e.Record()...), from)
}

func (f foot) append(b []byte) []byte {
	if f.cause != "" {
		return line{Broken: &f.name, Tail: offsetText(f.tail), Cause: f.cause}.append(b)
	}
	return line{End: &f.name, Tail: offsetText(f.tail)}.append(b)
}

func (t total) append(b []byte) []byte { return line{Exported: &t.streams, Events: t.events}.append(b) }

// offsetText is "" for 0, which a line leaves out.
func offsetText(o streamlib.Offset) string {
	if o == 0 {
		return ""
	}
	return o.String()
}

// unseal returns the record of a line. One without a checksum is taken as it is, for a person may have changed it.
func unseal(b []byte) ([]byte, error) {
	if seal.Sealed(b) {
		return seal.Open(b)
	}
	if n := len(b) - len("}\n"); n > 0 && string(b[n:]) == "}\n" {
		return b[:n:n], nil
	}
	return nil, errors.New("it does not end as a line of an export does")
}

// parseEvent reads the line of an event among those of h, and keeps it. It returns the scratch that it was given.
func parseEvent(b []byte, h *head, scratch []byte) (streamlib.Event, []byte, error) {
	record, err := unseal(b)
	if err != nil {
		return streamlib.Event{}, scratch, err
	}
	e, err := streamlib.ParseRecord(record)
	if err != nil {
		return e, scratch, err
	}
	if !bytes.HasPrefix(record[nameAt:], h.quoted) {
		return e, scratch, fmt.Errorf("an event of stream %q among those of %q", e.Stream(), h.name)
	}
	data := e.Data()
	switch scratch, err = compact.All(scratch[:0], data); {
	case err != nil:
		return e, scratch, fmt.Errorf("its data: %w", err)
	case len(scratch) != len(data):
		return e, scratch, errors.New("its data has white space around a value")
	case len(data) > streamlib.MaxBatch:
		return e, scratch, fmt.Errorf("%w: its data has %d bytes, the limit is %d", streamlib.ErrTooLarge, len(data),
			streamlib.MaxBatch)
	}
	if key := e.Key(); key != "" && streamlib.CheckName(key) != nil {
		return e, scratch, fmt.Errorf("key %q: it is 1 to 255 bytes of UTF-8 without control characters", key)
	}
	return e, scratch, nil
}

// parseOther reads any other line: a head, a foot, a total, or the start, for which it returns nil.
func parseOther(b []byte) (any, error) {
	record, err := unseal(b)
	if err != nil {
		return nil, err
	}
	var l line
	d := json.NewDecoder(bytes.NewReader(append(record, '}')))
	d.DisallowUnknownFields() // what a newer version has put there would be lost
	if err := d.Decode(&l); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnknown, err)
	}
	switch {
	case l.Export != nil && *l.Export != format:
		return nil, fmt.Errorf("the export's format is %q, this version knows %q", *l.Export, format)
	case l.Export != nil:
		return nil, nil
	case l.Stream != nil:
		return l.head()
	case l.Exported != nil:
		return total{*l.Exported, l.Events}, nil
	case l.End == nil && l.Broken == nil:
		return nil, errUnknown
	}
	tail, err := parseOffset(l.Tail, 0)
	if l.End != nil {
		return foot{*l.End, tail, ""}, err
	}
	return foot{*l.Broken, tail, cmp.Or(l.Cause, "its export did not say why")}, err
}

var errUnknown = errors.New("not a line of an export that this version knows")

func (l line) head() (h head, err error) {
	h.name, h.Life, h.Closed, h.Keys = *l.Stream, l.Life, l.Closed, l.Keys
	h.Note, h.Held = l.Note, l.Held
	if err := streamlib.CheckName(h.name); err != nil {
		return h, err
	}
	h.quoted = quote(h.name)
	if l.UpdatedAt != "" {
		if h.UpdatedAt, err = time.Parse(timeLayout, l.UpdatedAt); err != nil {
			return h, err
		}
	}
	var errFrom, errTail error
	h.First, err = parseOffset(l.First, 0)
	h.from, errFrom = parseOffset(l.From, h.First)
	h.tail, errTail = parseOffset(l.Tail, 0)
	if err := cmp.Or(err, errFrom, errTail); err != nil {
		return h, err
	}
	if h.Life < 0 || h.First > h.from || h.from > h.tail {
		return h, fmt.Errorf("there is no stream of life %d with the offsets from %d to %d, from %d on", h.Life, h.First,
			h.tail, h.from)
	}
	return h, nil
}

func parseOffset(s string, otherwise streamlib.Offset) (streamlib.Offset, error) {
	if s == "" {
		return otherwise, nil
	}
	o, err := streamlib.ParseOffset(s)
	if err == nil && o < 0 {
		err = fmt.Errorf("%w offset %q", streamlib.ErrInvalid, s)
	}
	return o, err
}

// quote is the name as it stands in a record.
func quote(name string) []byte {
	b := []byte{'"'}
	for i := range len(name) {
		if name[i] == '"' || name[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, name[i])
	}
	return append(b, '"')
}
