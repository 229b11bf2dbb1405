package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/iterate/durable-streams/streamlib"
)

// A view is what a person gets of events, a line each: when, where, of which type, and the rest.
type view struct {
	width   int  // columns that a line has; 0 for as many as it takes
	colours bool // by type
	streams bool // with the streams' names
}

// pretty returns the view that a command which reads prints, and nil where it prints lines of JSON or another form.
func (c *call) pretty() (*view, error) {
	if err := c.contradicting("pretty", "json", "text", "data"); err != nil {
		return nil, err
	}
	if err := c.contradicting("json", "text", "data", "full"); err != nil {
		return nil, err
	}
	terminal := c.onTerminal()
	if c.has("json") || c.has("text") || c.has("data") || !terminal && !c.has("pretty") {
		return nil, nil
	}
	v := &view{width: c.width(), colours: terminal && c.colours(), streams: c.has("all")}
	if c.has("full") {
		v.width = 0
	}
	return v, nil
}

// onTerminal tells whether stdout is a terminal, with somebody before it.
func (c *call) onTerminal() bool {
	f, ok := c.stdout.under.(*os.File)
	if !ok {
		return false
	}
	_, terminal := columns(f)
	return terminal
}

// colours tells whether the person wants some (no-color.org), and the terminal has them.
func (c *call) colours() bool { return c.getenv("NO_COLOR") == "" && !c.dumb() }

// dumb tells whether the terminal can do no more than print.
func (c *call) dumb() bool { return c.getenv("TERM") == "dumb" }

// width returns how many columns the terminal has.
func (c *call) width() int {
	if f, ok := c.stdout.under.(*os.File); ok {
		if n, _ := columns(f); n > 0 {
			return n
		}
	}
	if n, err := strconv.Atoi(c.getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	return 80
}

const (
	dim   = "\x1b[2m"
	plain = "\x1b[0m"
)

// hues are those that are told apart on a light and on a dark ground.
var hues = [...]string{"\x1b[32m", "\x1b[33m", "\x1b[34m", "\x1b[35m", "\x1b[36m", "\x1b[31m"}

// line is the form of the view.
func (v *view) line(b []byte, e streamlib.Event) []byte {
	kind, rest := apart(e.Data())
	column := 0
	add := func(text, colour string) {
		if v.width > 0 {
			text = fitting(text, v.width-column)
		}
		column += widthOf(text)
		if colour != "" && v.colours && text != "" {
			text = colour + text + plain
		}
		b = append(b, text...)
	}
	add(whenText(e.CreatedAt())+"  ", dim)
	if v.streams {
		add(harmless(e.Stream())+"  ", "")
	}
	add(fmt.Sprintf("%4d  ", e.Offset), dim)
	if kind != "" {
		h := fnv.New32a()
		h.Write([]byte(kind))
		add(harmless(kind), hues[h.Sum32()%uint32(len(hues))])
		add("  ", "")
	}
	add(harmless(rest), "")
	return b
}

// whenText is a time of this place, with the day where that is another one.
func whenText(t time.Time) string {
	t = t.Local()
	if now := time.Now(); t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04:05.000")
	}
	return t.Format("2006-01-02 15:04:05")
}

// apart takes an event's data apart: its type, "" where it has none, and the rest for a person, which of a message is its
// text.
func apart(data json.RawMessage) (kind, rest string) {
	if text, ok := messageText(data); ok {
		var members map[string]json.RawMessage
		if json.Unmarshal(data, &members) == nil && len(members) == 2 {
			return "message", text
		}
	}
	if len(data) == 0 || data[0] != '{' {
		return "", string(data)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if _, err := d.Token(); err != nil {
		return "", string(data)
	}
	b := []byte("{")
	for d.More() {
		name, err := d.Token()
		var value json.RawMessage
		if err != nil || d.Decode(&value) != nil {
			return "", string(data)
		}
		if s, ok := jsonString(value); ok && kind == "" && s != "" && (name == "type" || name == "_type") {
			kind = s
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(append(b, asEvent(name)...), ':'), value...)
	}
	return kind, string(append(b, '}'))
}

// harmless returns s, which others may have written, as it can stand in a line of a terminal: what moves the cursor,
// turns the direction of writing or is not seen stands as in JSON, and a tab is a space.
func harmless(s string) string {
	if !strings.ContainsFunc(s, harmful) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\t':
			b.WriteByte(' ')
		case harmful(r):
			b.WriteString(escaped(r))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// harmful tells what a terminal may obey: the controls C0, DEL and C1, those of bidirectional writing, ends of lines and
// paragraphs, and what nobody sees.
func harmful(r rune) bool {
	return !unicode.IsPrint(r) && !unicode.Is(unicode.Zs, r)
}

// escaped is a rune as JSON escapes it.
func escaped(r rune) string {
	switch {
	case r == '\n':
		return `\n`
	case r == '\r':
		return `\r`
	case r > 0xFFFF:
		r -= 0x10000
		return fmt.Sprintf(`\u%04x\u%04x`, 0xD800+r>>10, 0xDC00+r&0x3FF)
	}
	return fmt.Sprintf(`\u%04x`, r)
}

// fitting is s where it takes at most width columns, else what of it does with an ellipsis.
func fitting(s string, width int) string {
	if len(s) <= width || widthOf(s) <= width {
		return s
	}
	if width < 1 {
		return ""
	}
	column := 0
	for i, r := range s {
		if column += runeWidth(r); column > width-1 {
			return s[:i] + "…"
		}
	}
	return s
}

// A table is rows of as many cells each.
type table [][]string

// printTable prints a table. On a terminal the first column is no wider than what fits; a longer cell there is whole,
// and its row alone is longer.
func (c *call) printTable(t table) error {
	widths := make([]int, len(t[0]))
	for _, row := range t {
		for i, cell := range row {
			widths[i] = max(widths[i], widthOf(cell)+2)
		}
	}
	if c.onTerminal() {
		rest := 0
		for _, w := range widths[1:] {
			rest += w
		}
		widths[0] = min(widths[0], max(12, c.width()-rest+2)) // nothing stands behind the last one
	}
	for _, row := range t {
		for i, cell := range row {
			c.stdout.WriteString(cell)
			if i < len(row)-1 {
				c.stdout.WriteString(strings.Repeat(" ", max(2, widths[i]-widthOf(cell))))
			}
		}
		c.stdout.WriteByte('\n')
	}
	return c.stdout.Flush()
}

func widthOf(s string) (width int) {
	for _, r := range s {
		width += runeWidth(r)
	}
	return width
}

// wide are the runes that most terminals give two columns: Unicode's East Asian Width W and F, about.
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x1100, 0x115F, 1}, {0x231A, 0x231B, 1}, {0x23E9, 0x23EC, 1}, {0x2614, 0x2615, 1}, {0x26A1, 0x26A1, 1},
		{0x2705, 0x2705, 1}, {0x274C, 0x274C, 1}, {0x2728, 0x2728, 1}, {0x2B50, 0x2B50, 1}, {0x2E80, 0x303E, 1},
		{0x3041, 0x33FF, 1}, {0x3400, 0x4DBF, 1}, {0x4E00, 0x9FFF, 1}, {0xA000, 0xA4CF, 1}, {0xAC00, 0xD7A3, 1},
		{0xF900, 0xFAFF, 1}, {0xFE30, 0xFE6F, 1}, {0xFF00, 0xFF60, 1}, {0xFFE0, 0xFFE6, 1},
	},
	R32: []unicode.Range32{{0x1F300, 0x1F64F, 1}, {0x1F680, 0x1F6FF, 1}, {0x1F900, 0x1F9FF, 1}, {0x20000, 0x3FFFD, 1}},
}

func runeWidth(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case unicode.Is(wide, r):
		return 2
	}
	return 1
}
