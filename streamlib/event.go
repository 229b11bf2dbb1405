package streamlib

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/iterate/durable-streams/streamlib/internal/compact"
)

// An Offset is the place of an event in its stream. A stream's offsets are contiguous and start at 0.
type Offset int64

const (
	Beginning Offset = -1        // where to read from: the first event
	Now       Offset = -2        // where to read from: the tail at the time of the call
	MaxOffset Offset = 1<<53 - 1 // the largest integer that every JSON reader holds exactly (RFC 8259, section 6)
)

// MaxEvent is the default limit for one event's data, and MaxBatch the limit for the data of one batch, in bytes.
const (
	MaxEvent = 1 << 20
	MaxBatch = 8 << 20
)

const maxName = 255

// String returns the form that events and URLs have: 16 digits, "-1" or "now".
func (o Offset) String() string {
	switch {
	case o == Now:
		return "now"
	case o < 0: // Beginning, or none
		return strconv.FormatInt(int64(o), 10)
	}
	return string(appendOffset(nil, o))
}

// ParseOffset reads "-1", "now", or a number of at most MaxOffset with or without leading zeros. The error is
// ErrInvalid.
func ParseOffset(s string) (Offset, error) {
	switch s {
	case "-1":
		return Beginning, nil
	case "now":
		return Now, nil
	}
	n, err := strconv.ParseUint(s, 10, 64) // takes digits alone, no sign
	if err != nil || n > uint64(MaxOffset) {
		return 0, fmt.Errorf("%w offset %q: it is -1, now, or a number of at most %d", ErrInvalid, s, MaxOffset)
	}
	return Offset(n), nil
}

// CheckName returns an ErrInvalid for what cannot be a stream's name: names are 1 to 255 bytes of UTF-8 without
// control characters. Everything else is a name and never a path, "..", "a/b" and "CON" too.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w stream name: it is empty", ErrInvalid)
	case len(name) > maxName:
		return fmt.Errorf("%w stream name: %d bytes, the limit is %d", ErrInvalid, len(name), maxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w stream name %q: not UTF-8", ErrInvalid, name)
	case strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("%w stream name %q: it has a control character", ErrInvalid, name)
	}
	return nil
}

// An Event is one record of a stream. It is immutable, and holds its encoded form, made once when it was appended:
//
//	{"offset":"0000000000000042","eventStreamId":"my-stream","data":…,"createdAt":"2024-01-08T00:00:00.000Z"}
//
// The slices that its methods return share that memory and must not be changed.
type Event struct {
	Offset Offset
	// public is the public form without the closing brace, and up to its capacity what Record returns. So an event has
	// four words, which is what the compiler keeps in registers.
	public []byte
}

const (
	timeLayout = "2006-01-02T15:04:05.000Z"

	beforeOffset = `{"offset":"`
	beforeName   = `","eventStreamId":`
	beforeData   = `,"data":`
	beforeTime   = `,"createdAt":"`
	beforeKey    = `,"key":`

	nameAt  = len(beforeOffset) + 16 + len(beforeName)
	timeLen = len(beforeTime) + len(timeLayout) + len(`"`)
)

// Stream returns the name of the event's stream.
func (e Event) Stream() string { return unquote(e.public[nameAt:e.nameEnd()]) }

// Data returns the event's value: compact JSON, otherwise as the sender wrote it.
func (e Event) Data() json.RawMessage {
	end := len(e.public) - timeLen
	return json.RawMessage(e.public[e.nameEnd()+len(beforeData) : end : end])
}

// CreatedAt returns when the event was appended: UTC milliseconds, never below its predecessor's.
func (e Event) CreatedAt() time.Time {
	t, _ := time.Parse(time.RFC3339, string(e.public[len(e.public)-timeLen+len(beforeTime):len(e.public)-1]))
	return t
}

// Key returns the idempotency key that the event was appended with, "" where there was none.
func (e Event) Key() string {
	if cap(e.public) == len(e.public) {
		return ""
	}
	return unquote(e.Record()[len(e.public)+len(beforeKey):])
}

// AppendJSON appends the event's public form, one line without its end, to b.
func (e Event) AppendJSON(b []byte) []byte { return append(append(b, e.public...), '}') }

// MarshalJSON is AppendJSON for encoding/json, which escapes <, >, &, U+2028 and U+2029 in what it returns unless an
// Encoder is told not to.
func (e Event) MarshalJSON() ([]byte, error) { return e.AppendJSON(nil), nil }

// UnmarshalJSON takes the public form however an encoder wrote it: with white space, with escapes, in another
// order. The name is then what it was, and the data as it stands there, compact. Members that are not the public
// form's are passed over.
func (e *Event) UnmarshalJSON(b []byte) error {
	var p struct {
		Offset        string          `json:"offset"`
		EventStreamID string          `json:"eventStreamId"`
		Data          json.RawMessage `json:"data"`
		CreatedAt     string          `json:"createdAt"`
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	o, errOffset := ParseOffset(p.Offset)
	t, errTime := time.Parse(timeLayout, p.CreatedAt)
	if err := cmp.Or(errOffset, errTime); err != nil {
		return fmt.Errorf("%w: %w", errNoEvent, err)
	}
	record, err := NewRecord(o, p.EventStreamID, p.Data, t)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoEvent, err)
	}
	*e, err = ParseRecord(record)
	return err
}

func (e Event) String() string { return string(e.AppendJSON(nil)) }

// Record returns the form that a Storage keeps: the public members, after them the key where there is one, and no
// closing brace, so that the storage can add members of its own.
func (e Event) Record() []byte { return e.public[:cap(e.public)] }

// NewRecord makes the record of an event from elsewhere, such as a file of another form. The error is ErrInvalid.
func NewRecord(o Offset, name string, data json.RawMessage, createdAt time.Time) ([]byte, error) {
	data, err := compact.All(nil, data)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w data: %w", ErrInvalid, err)
	case o < 0 || o > MaxOffset:
		return nil, fmt.Errorf("%w offset %d", ErrInvalid, o)
	case !writable(createdAt):
		return nil, fmt.Errorf("%w time %v: its year has no four digits", ErrInvalid, createdAt)
	}
	return appendRecord(nil, o, appendQuoted(nil, name), data, appendTime(nil, createdAt.UTC()), ""), CheckName(name)
}

// ParseRecord makes an event of a record that Record returned; it keeps the slice. It checks the record's shape and
// not its data, for which a Storage has a checksum.
func ParseRecord(record []byte) (Event, error) {
	if len(record) < nameAt+timeLen || string(record[:len(beforeOffset)]) != beforeOffset ||
		string(record[nameAt-len(beforeName):nameAt]) != beforeName {
		return Event{}, errNoEvent
	}
	high, ok := digits(record[len(beforeOffset):])
	low, okLow := digits(record[len(beforeOffset)+8:])
	offset := Offset(high)*1e8 + Offset(low)
	if !ok || !okLow || offset > MaxOffset {
		return Event{}, errNoEvent
	}
	public := len(record)
	if !timed(record) { // then a key stands behind the time; no quote within it is bare, so this is the last
		if public = bytes.LastIndex(record, []byte(beforeKey)); public < nameAt+timeLen || !timed(record[:public]) {
			return Event{}, errNoEvent
		}
		if quotedEnd(record, public+len(beforeKey)) != len(record) {
			return Event{}, errNoEvent
		}
	}
	end := quotedEnd(record, nameAt)
	if end < 0 || end+len(beforeData)+timeLen >= public || string(record[end:end+len(beforeData)]) != beforeData {
		return Event{}, errNoEvent
	}
	return Event{offset, record[:public:len(record)]}, nil
}

// digits reads 8 digits, all at once: every event that is read has 33 (Daniel Lemire, "Quickly parsing eight digits",
// 2018).
func digits(b []byte) (n uint64, ok bool) {
	n = binary.LittleEndian.Uint64(b)
	ok = isDigits(n)
	n = (n & 0x0f0f0f0f0f0f0f0f) * (1 + 10<<8) >> 8
	n = (n & 0x00ff00ff00ff00ff) * (1 + 100<<16) >> 16
	n = (n & 0x0000ffff0000ffff) * (1 + 10000<<32) >> 32
	return n, ok
}

// isDigits tells whether all 8 bytes are digits: what has a 3 above is none where 6 more makes that a 4.
func isDigits(n uint64) bool {
	const above = 0xf0f0f0f0f0f0f0f0
	return n&above == zeros && (n+0x0606060606060606)&above == zeros
}

const zeros = 0x3030303030303030 // '0', 8 times

// timed tells whether a time ends the record.
func timed(record []byte) bool {
	t := record[len(record)-timeLen:]
	if string(t[:len(beforeTime)]) != beforeTime || t[timeLen-1] != '"' {
		return false
	}
	for i, signs := range timeSigns {
		n := binary.LittleEndian.Uint64(t[len(beforeTime)+8*i:])
		if n&signs.mask != signs.want || !isDigits(n&^signs.mask|zeros&signs.mask) {
			return false
		}
	}
	return true
}

// timeSigns are the bytes of timeLayout that are no digits, 8 bytes each.
var timeSigns = func() (signs [len(timeLayout) / 8]struct{ mask, want uint64 }) {
	for i, c := range []byte(timeLayout) {
		if c < '0' || c > '9' {
			signs[i/8].mask |= 0xff << (i % 8 * 8)
			signs[i/8].want |= uint64(c) << (i % 8 * 8)
		}
	}
	return signs
}()

// nameEnd is where the quoted name ends.
func (e Event) nameEnd() int { return quotedEnd(e.public, nameAt) }

// quotedEnd is where what appendQuoted made of at least one byte ends that begins at from, -1 where there is none.
func quotedEnd(b []byte, from int) int {
	if from >= len(b) || b[from] != '"' {
		return -1
	}
	for i := from + 1; i < len(b); i++ {
		switch c := b[i]; {
		case c > '"' && c != '\\': // as nearly all are
		case c == '"' && i == from+1, c < ' ':
			return -1
		case c == '"':
			return i + 1
		case c == '\\':
			if i++; i == len(b) || b[i] != '"' && b[i] != '\\' {
				return -1
			}
		}
	}
	return -1
}

// appendRecord appends the record of an event to b. Name is quoted, data compact, time formatted.
func appendRecord(b []byte, o Offset, name, data, createdAt []byte, key string) []byte {
	b = append(appendOffset(append(b, beforeOffset...), o), beforeName...)
	b = append(append(append(b, name...), beforeData...), data...)
	b = append(append(append(b, beforeTime...), createdAt...), '"')
	if key != "" {
		b = appendQuoted(append(b, beforeKey...), key)
	}
	return b
}

// writable tells whether t has a form in timeLayout.
func writable(t time.Time) bool {
	year := t.UTC().Year()
	return 0 <= year && year <= 9999
}

// appendTime appends t, which is in UTC and writable, in timeLayout. Package time is four times as fast for RFC
// 3339, of which that is a form.
func appendTime(b []byte, t time.Time) []byte {
	b = t.AppendFormat(b, time.RFC3339)
	ms := t.Nanosecond() / int(time.Millisecond)
	return append(b[:len(b)-1], '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
}

func appendOffset(b []byte, o Offset) []byte {
	var digits [16]byte
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = byte('0' + o%10)
		o /= 10
	}
	return append(b, digits[:]...)
}

// appendQuoted appends s as a JSON string. S has no control characters.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

func unquote(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b[1 : len(b)-1])
	}
	var s string
	_ = json.Unmarshal(b, &s) // it was checked when it was made or parsed
	return s
}
