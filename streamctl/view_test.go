package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

func eventOf(t *testing.T, data string) streamlib.Event {
	t.Helper()
	record, err := streamlib.NewRecord(7, "s", json.RawMessage(data), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	e, err := streamlib.ParseRecord(record)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestALineForAPerson(t *testing.T) {
	is := is.New(t)
	now := time.Now().Format("15:04:")
	for data, want := range map[string]string{
		`{"type":"message","text":"hello"}`:        "message  hello",
		`{"type":"message","text":"a","from":"b"}`: `message  {"text":"a","from":"b"}`,
		`{"amount":12.50,"type":"paid","x":"é"}`:   `paid  {"amount":12.50,"x":"é"}`,
		`{"_type":"agent:x","type":5}`:             `agent:x  {"type":5}`,
		`[1,2]`:                                    "[1,2]",
		`"text"`:                                   `"text"`,
	} {
		line := string((&view{}).line(nil, eventOf(t, data)))
		is.True(strings.HasPrefix(line, now))
		is.True(strings.HasSuffix(line, "     7  "+want))
	}
	for width := 1; width < 60; width++ {
		for _, text := range []string{strings.Repeat("x", 100), strings.Repeat("漢", 100), strings.Repeat("é😀", 50)} {
			line := string((&view{width: width}).line(nil, eventOf(t, fmt.Sprintf(`{"type":"message","text":"%s"}`, text))))
			is.True(widthOf(line) <= width)
			is.True(widthOf(line) >= width-1)
		}
	}
	is.Equal(widthOf("漢e\u0301😀x"), 6)
	is.True(strings.Contains(string((&view{colours: true}).line(nil, eventOf(t, `{"type":"paid"}`))), "mpaid"+plain))
}

// TestNothingMovesTheCursor: whatever stands in an event, or a stream's name, a line of it is one line of what is seen.
func TestNothingMovesTheCursor(t *testing.T) {
	is := is.New(t)
	for r := rune(0); r < 0x110000; r++ {
		if r >= 0xD800 && r < 0xE000 {
			continue
		}
		shown := harmless(string(r))
		bad := r < 0x20 || r >= 0x7F && r < 0xA0 || r >= 0x202A && r <= 0x202E || r >= 0x2066 && r <= 0x2069 ||
			r == 0x200E || r == 0x200F || r == 0x061C || r == 0x2028 || r == 0x2029 || r == 0xFEFF
		if bad && strings.ContainsRune(shown, r) {
			t.Errorf("%U stands as it is", r)
		}
	}
	is.Equal(harmless("a\x1b[2J\r\n\u202e\u009b\U000E0001é漢"), `a\u001b[2J\r\n\u202e\u009b\udb40\udc01é漢`)
	is.Equal(string(visible([]byte("{\"a\":\"\u202e\"}"))), `{"a":"\u202e"}`)
	evil := eventOf(t, `{"type":"\u001b[31m\nforged","text":"\u001b]0;x\u0007\r\u0085\u2028"}`)
	for _, v := range []*view{{}, {width: 200}} {
		line := string(v.line(nil, evil))
		is.True(!strings.ContainsFunc(line, harmful))
	}
	record, err := streamlib.NewRecord(0, "rtl\u202egpj", json.RawMessage("1"), time.Now())
	is.NoErr(err)
	named, err := streamlib.ParseRecord(record)
	is.NoErr(err)
	is.True(strings.HasSuffix(string((&view{streams: true}).line(nil, named)), `  rtl\u202egpj     0  1`)) // of --all
}

// onTerminal runs a command line on a terminal of 60 columns, and returns what is on it.
func (p place) onTerminal(env, command string) string {
	p.t.Helper()
	if _, err := exec.LookPath("script"); err != nil {
		p.t.Skip("there is no script(1)")
	}
	shown := p.run("%s script -qec 'stty cols 60 2> /dev/null; %s' /dev/null < /dev/null", env, command).stdout
	return strings.ReplaceAll(shown, "\r\n", "\n")
}

func TestATerminalGetsTheView(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	p.ok(`streamctl stream append -n orders -m "first order"`)
	p.ok(`streamctl stream append -n orders -e '{"type":"paid","text":"\u001b[31m%s"}'`, strings.Repeat("x", 100))
	got := p.onTerminal("TERM=xterm", "streamctl stream get -n orders")
	lines := regexp.MustCompile(`^\x1b\[2m\d\d:\d\d:\d\d\.\d{3}  \x1b\[0m\x1b\[2m   0  \x1b\[0m\x1b\[3\dmmessage\x1b\[0m  first order
\x1b\[2m.*   1  \x1b\[0m\x1b\[3\dmpaid\x1b\[0m  \{"text":"\\u001b\[31mx+…
$`)
	is.True(lines.MatchString(got))
	for _, env := range []string{"TERM=dumb", "NO_COLOR=1 TERM=xterm"} {
		got = p.onTerminal(env, "streamctl stream get -n orders")
		is.True(!strings.Contains(got, "\x1b"))
		for line := range strings.Lines(got) {
			is.True(widthOf(strings.TrimSpace(line)) <= 60)
		}
	}
	is.True(strings.Contains(p.onTerminal("TERM=dumb", "streamctl stream get -n orders --full"), strings.Repeat("x", 100)+`"}`))
	is.Equal(p.onTerminal("TERM=xterm", "streamctl stream get -n orders --json"), p.ok("streamctl stream get -n orders"))
	is.True(strings.Contains(p.ok("COLUMNS=60 streamctl stream get -n orders --pretty --last 1"), "  paid  {"))
	got = p.onTerminal("TERM=xterm", "streamctl stream list")
	is.True(regexp.MustCompile(`^NAME    EVENTS  SIZE +UPDATED\norders  2       \d+ B +(now|\ds ago)\n$`).MatchString(got))
	is.Equal(p.ok("streamctl stream list"), "orders\n")
	long := strings.Repeat("long/", 20)
	names := []string{"漢字", "$(printf 'b\\342\\200\\256')", long}
	for _, name := range names {
		p.ok(`streamctl stream append -n "%s" -e 1`, name)
	}
	for line := range strings.Lines(p.onTerminal("TERM=xterm", "streamctl stream list")) {
		name, rest, _ := strings.Cut(line, "  ")
		column := widthOf(strings.TrimSuffix(line, strings.TrimLeft(rest, " ")))
		if name == long { // which pushes nobody else's cells aside
			is.Equal(column, len(long)+2)
		} else {
			is.Equal(column, 38)
			is.True(widthOf(line) <= 60+1)
		}
		is.True(!strings.ContainsFunc(name, harmful))
	}
	for _, name := range names {
		p.ok(`streamctl stream delete -n "%s"`, name)
	}
	got = p.onTerminal("TERM=dumb", "streamctl stream subscribe -n orders --until-caught-up")
	is.True(strings.HasPrefix(got, `streamctl: subscribe "orders": from the first event on, at http://127.0.0.1:`))
	got = p.onTerminal("TERM=dumb", "seq 1000 > numbers; streamctl stream append -n numbers < numbers; seq 1 | streamctl stream append -n one")
	is.True(regexp.MustCompile(`^streamctl: append "numbers": 1000 events, from offset 0 to 999, in [0-9.]+m?s
\{"offset":"0000000000000000","eventStreamId":"one","data":1,"createdAt":"[^"]+"\}
$`).MatchString(got))
	got = p.onTerminal("TERM=xterm", "seq 3 | streamctl stream append --json -n numbers > out; streamctl export > exported; streamctl import < exported")
	is.True(strings.Contains(got, "0 new"))

	got = p.onTerminal("TERM=xterm", "streamctl stream append -n numbers < numbers")
	is.True(regexp.MustCompile(`^\x1b\[\?7l\r\x1b\[K\d+ events appended, .*B of 3\.8 KiB, .*/s`).MatchString(got))
	p.ok("streamctl server stop")
	for command, shows := range map[string]string{"verify": "of 3 streams", "repair": "of 3 streams", "backup copy": "iB",
		"export > exported": " of ", "import < exported": " of "} {
		is.True(strings.Contains(p.onTerminal("TERM=xterm", "streamd "+command), shows))
		is.True(strings.Contains(p.onTerminal("TERM=xterm", "streamd "+command), "\r\x1b[K"))
		is.True(!strings.Contains(p.onTerminal("TERM=dumb", "streamd "+command), "\x1b"))
	}
}
