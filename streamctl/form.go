package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/daemon"
)

// A form appends what is printed of an event, without the line's end, to b.
type form func(b []byte, e streamlib.Event) []byte

func asJSON(b []byte, e streamlib.Event) []byte { return e.AppendJSON(b) }

func asData(b []byte, e streamlib.Event) []byte { return append(b, e.Data()...) }

// asText is the form that what was appended with --text had.
func asText(b []byte, e streamlib.Event) []byte {
	if text, ok := messageText(e.Data()); ok {
		return append(b, text...)
	}
	return asJSON(b, e)
}

// messageText returns the text of a message, whose members have these very names.
func messageText(data json.RawMessage) (text string, ok bool) {
	var members map[string]json.RawMessage // a struct would take "Text" for "text"
	if data[0] != '{' || json.Unmarshal(data, &members) != nil {
		return "", false
	}
	if kind, _ := jsonString(members["type"]); kind != "message" {
		return "", false
	}
	return jsonString(members["text"])
}

// jsonString returns the string that data is, if it is one.
func jsonString(data json.RawMessage) (s string, ok bool) {
	return s, len(data) > 0 && data[0] == '"' && json.Unmarshal(data, &s) == nil
}

// form returns what a command that reads prints of an event, and the error of flags that contradict each other.
func (c *call) form() (form, error) {
	switch {
	case c.has("data"):
		return asData, c.contradicting("data", "text", "json", "pretty")
	case c.has("text"):
		return asText, c.contradicting("text", "json", "pretty")
	}
	if v, err := c.pretty(); v != nil || err != nil {
		if err != nil {
			return nil, err
		}
		c.viewed = true
		return v.line, nil
	}
	return asJSON, nil
}

// printEvents prints events, one a line, at once. On a terminal they cannot do more than stand there.
func (c *call) printEvents(events []streamlib.Event, as form) error {
	terminal := daemon.IsTerminal(c.stdout.under)
	terminal = terminal && !c.viewed // which is harmless, and has colours
	for _, e := range events {
		line := as(c.stdout.AvailableBuffer(), e)
		if terminal {
			line = visible(line)
		}
		c.stdout.Write(append(line, '\n'))
	}
	return c.stdout.Flush()
}

// visible returns a line in which control characters stand as in JSON, and tabs are spaces: whoever wrote an event may
// not move the reader's cursor.
func visible(line []byte) []byte {
	if !bytes.ContainsFunc(line, harmful) {
		return line
	}
	var b []byte
	column := 0
	for len(line) > 0 {
		r, size := utf8.DecodeRune(line)
		line = line[size:]
		shown := string(r)
		switch {
		case r == '\t':
			shown = strings.Repeat(" ", 8-column%8)
		case harmful(r):
			shown = escaped(r)
		}
		b = append(b, shown...)
		column += utf8.RuneCountInString(shown)
	}
	return b
}
