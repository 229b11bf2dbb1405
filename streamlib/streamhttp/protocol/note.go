package protocol

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/iterate/durable-streams/streamlib"
)

// A note is what the protocol remembers of a stream: its streamlib.State has it, as JSON. A stream without one is
// native: application/json, and it never expires. Who changes a field calls change.
type note struct {
	ID       string    `json:"id,omitempty"` // of this incarnation; "" is of a native stream
	Type     string    `json:"type"`
	TTL      *int64    `json:"ttl,omitempty"` // in seconds
	Expires  string    `json:"expires,omitempty"`
	Fork     *fork     `json:"fork,omitempty"`
	Forks    []claim   `json:"forks,omitempty"`   // that stand on this stream
	Deleted  bool      `json:"deleted,omitempty"` // though forks need it
	Seq      *string   `json:"seq,omitempty"`     // the last Stream-Seq
	ClosedBy *producer `json:"closedBy,omitempty"`

	// The JSON itself has the producers as its last member, an array in which the one that was heard from last stands
	// last: a commit that has the appends of many changes that text for each of them, and reads or writes no more of it.
	text string
	head int // how long what stands before the producers is, or before the end
}

// A fork says on what a stream stands: the source's events before At.
type fork struct {
	Source string           `json:"source"`
	At     streamlib.Offset `json:"at"`
	Offset string           `json:"offset,omitempty"` // as it was asked for
	Sub    int              `json:"sub,omitempty"`
}

// A claim is a fork as its source knows it: it may be one that is being made, or was not made, or is gone.
type claim struct {
	Name string `json:"name"`
	ID   string `json:"id"`
	At   int64  `json:"at"` // when it was made, in seconds since 1970
}

type producer struct {
	ID    string `json:"id"`
	Epoch int64  `json:"epoch"`
	Seq   int64  `json:"seq"`

	mark string // what it begins with among a note's producers
}

const (
	jsonType        = "application/json"
	beforeProducers = `,"producers":[`
	beforeSeq       = `,"seq":`
	maxForks        = streamlib.MaxNote / 2 // bytes of a note that has forks; the rest is for producers
)

// parseNote reads what change and set have made. No quote within a JSON string is bare, so what is looked for is found
// where it is meant, whatever names and types there are.
func parseNote(text string) (n note) {
	if n.Type = jsonType; text != "" {
		n.text, n.head = text, strings.Index(text, beforeProducers)
		if n.head < 0 {
			n.head = len(text) - 1
		}
		_ = json.Unmarshal([]byte(text[:n.head]+"}"), &n) // a member of a later version is passed over
	}
	return n
}

// reread is parseNote of a text that may have n's head.
func (n *note) reread(text string) note {
	if n.head > 0 && len(text) > n.head && text[:n.head] == n.text[:n.head] {
		if rest := text[n.head:]; rest == "}" || strings.HasPrefix(rest, beforeProducers) {
			again := *n
			again.text = text
			return again
		}
	}
	return parseNote(text)
}

// change makes the text what the fields say.
func (n *note) change() {
	b, _ := json.Marshal(n)
	rest := "}"
	if n.text != "" {
		rest = n.text[n.head:]
	}
	n.head = len(b) - 1
	n.text = string(b[:n.head]) + rest
	n.fit()
}

// fit forgets the producers that were not heard from for longest where there are more than a note has room for.
func (n *note) fit() {
	for len(n.text) > streamlib.MaxNote && n.text[n.head:] != "}" {
		const between = `},{"id":`
		begin := n.head + len(beforeProducers)
		from := begin + (len(n.text)-begin)/8
		if next := strings.Index(n.text[from:], between); next >= 0 {
			n.text = n.text[:begin] + n.text[from+next+len("},"):]
		} else {
			n.text = n.text[:n.head] + "}"
		}
	}
}

func markOf(id string) string {
	quoted, _ := json.Marshal(id)
	return `{"id":` + string(quoted) + `,"epoch":`
}

// find returns what is known of the producer, and where in the text that stands.
func (n *note) find(p *producer) (was producer, from, to int, known bool) {
	if from = strings.Index(n.text[n.head:], p.mark); from < 0 {
		return was, 0, 0, false
	}
	from += n.head
	numbers := n.text[from+len(p.mark):]
	end := strings.IndexByte(numbers, '}')
	if end < 0 {
		return was, 0, 0, false
	}
	epoch, seq, _ := strings.Cut(numbers[:end], beforeSeq)
	was = producer{ID: p.ID, mark: p.mark}
	was.Epoch, _ = strconv.ParseInt(epoch, 10, 64)
	was.Seq, _ = strconv.ParseInt(seq, 10, 64)
	return was, from, from + len(p.mark) + end + 1, true
}

func (n *note) set(p *producer) {
	if n.text == "" {
		n.change()
	}
	end := strconv.FormatInt(p.Epoch, 10) + beforeSeq + strconv.FormatInt(p.Seq, 10) + "}]}"
	_, from, to, known := n.find(p)
	switch last := len(n.text) - len("]}"); {
	case n.text[n.head:] == "}":
		n.text = n.text[:n.head] + beforeProducers + p.mark + end
	case !known:
		n.text = n.text[:last] + "," + p.mark + end
	case to == last:
		n.text = n.text[:from] + p.mark + end
	default:
		n.text = n.text[:from] + n.text[to+len(","):last] + "," + p.mark + end
	}
	n.fit()
}

// mediaType is a content type without its parameters.
func mediaType(contentType string) string {
	name, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(name))
}

func (n *note) json() bool { return n.Type == jsonType || mediaType(n.Type) == jsonType }

// plain tells whether server-sent events carry the data as it is.
func (n *note) plain() bool { return n.json() || strings.HasPrefix(mediaType(n.Type), "text/") }

// encode is the event's data for bytes: a string where they are UTF-8 and that is no longer, else {"base64":…}.
func encode(b []byte) json.RawMessage {
	const open, end = `{"base64":"`, `"}`
	binary := len(open) + base64.StdEncoding.EncodedLen(len(b)) + len(end)
	if utf8.Valid(b) {
		var text bytes.Buffer
		e := json.NewEncoder(&text)
		e.SetEscapeHTML(false)
		_ = e.Encode(string(b))
		if data := bytes.TrimSuffix(text.Bytes(), []byte("\n")); len(data) <= max(binary, len(b)+2) {
			return data
		}
	}
	data := append(make([]byte, 0, binary), open...)
	return append(base64.StdEncoding.AppendEncode(data, b), end...)
}

// decode is encode backwards. Other data, which came over the native routes, is its JSON.
func decode(data json.RawMessage) []byte {
	var s string
	if data[0] == '"' && json.Unmarshal(data, &s) == nil {
		return []byte(s)
	}
	if rest, ok := bytes.CutPrefix(data, []byte(`{"base64":"`)); ok {
		if rest, ok = bytes.CutSuffix(rest, []byte(`"}`)); ok {
			if b, err := base64.StdEncoding.AppendDecode(nil, rest); err == nil {
				return b
			}
		}
	}
	return data
}

// expiry is when the stream is over that was used last at the time, zero where it never is.
func (n *note) expiry(used time.Time) time.Time {
	switch {
	case n.TTL != nil:
		return used.Add(time.Duration(min(*n.TTL, 1<<32)) * time.Second)
	case n.Expires != "":
		t, _ := time.Parse(time.RFC3339, n.Expires)
		return t
	}
	return time.Time{}
}
