package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

// flags are all of them. A flag means the same wherever it is taken.
var flags = func() (flags []daemon.Flag) {
	for _, f := range [][4]string{
		{"name", "n", "NAME", "the stream"},
		{"message", "m", "TEXT", `append {"type":"message","text":TEXT}`},
		{"event", "e", "JSON", "append this JSON value"},
		{"text", "", "", `a line is the text of a {"type":"message","text":TEXT}`},
		{"data", "", "", "print the data of events alone"},
		{"key", "", "KEY", "append once: a repeat with the same key gives the first one's event"},
		{"if-tail", "", "OFFSET", "only if this is the offset that the next event will get"},
		{"close", "", "", "close the stream behind the last event, in one with it: no event can follow"},
		{"before", "", "OFFSET", "drop the events before this offset; now drops all"},
		{"keep", "", "N", "drop all events but the last N; 0 drops all"},
		{"offset", "o", "OFFSET", "where to begin: a number, -1 for the first event, now for the next one"},
		{"since", "", "TIME", "begin with the first event since then: 90m or 7d ago, or a time as 2026-01-31T09:00:00Z"},
		{"limit", "l", "N", "print no more than N events"},
		{"last", "", "N", "begin with the last N events"},
		{"type", "", "TYPE", `only events whose data's "type" or "_type" is this; may be repeated`},
		{"cursor", "", "FILE", "keep in FILE what comes next, and begin with that where there is a FILE"},
		{"until-caught-up", "", "", "end with the last event that there is"},
		{"all", "", "", "print the new events of every stream"},
		{"prefix", "", "PREFIX", "only streams whose names begin with this"},
		{"details", "", "", "print offsets, sizes, ages, and what is closed too"},
		{"timeout", "", "TIME", "a time such as 30s or 2m"},
		{"json", "", "", "print JSON"},
		{"pretty", "", "", "print what a terminal gets: time, offset, type and the rest, in a line that fits"},
		{"full", "", "", "leave nothing of a long line out"},
		{"token-file", "", "FILE", "the file with the token to send (DURABLE_STREAMS_TOKEN has the token itself)"},
		{"can", "", "RIGHT", "what the token allows: read, write or admin"},
		{"expires", "", "TIME", "when the token ends, such as 30d, 12h or 2027-01-31T00:00:00Z (never)"},
		{"file", "", "FILE", "the server's file of tokens to add it to, made where there is none"},
		{"server", "s", "URL", "the server, or unix:PATH (DURABLE_STREAMS_URL, else the folder's)"},
		{"cacert", "", "FILE", "trust the certificates of this file for https, and not the system's"},
		{"conns", "", "N", "connections to append over (16)"},
		{"streams", "", "N", "streams to append to (1)"},
		{"size", "", "BYTES", "of an event's data (200)"},
		{"batch", "", "N", "events a request (1)"},
		{"rate", "", "N", "events a second, 0 for as many as are acknowledged (0)"},
		{"subscribers", "", "N", "subscribers to the streams, in turn (0)"},
		{"duration", "", "TIME", "how long to measure, such as 10s or 1m (10s)"},
		{"quiet", "q", "", "print nothing where all is well"},
		{"user", "", "", "as a service of yours, and not of the machine"},
		{"check", "", "", "look at what a server needs, and say of each that it is ok, or what to type"},
		{"print", "", "", "print what would be written, and change nothing"},
		{"help", "h", "", "print this"},
		{"version", "", "", "print the version"},
	} {
		flags = append(flags, daemon.Flag{Name: f[0], Short: f[1], Value: f[2], Help: f[3]})
	}
	return slices.Concat(flags, []daemon.Flag{daemon.Dir, portFallback}, daemon.Flags)
}()

// portFallback is a flag that streamctl gives to streamd by itself.
var portFallback = daemon.Own[0]

// A command is one of streamctl's.
type command struct {
	name   string // its words
	usage  string // what follows them
	does   string // in a few words
	manual string
	flags  string            // the long names of those it takes, in the order of its help
	many   string            // those of them that may be repeated
	also   map[string]string // what the help of some of them says here beside what it says everywhere
	word   bool              // it takes one word more
	args   bool              // and behind "--" a command to run
	reads  bool              // it starts no server where there are no streams
	run    func(context.Context, *call) error
}

// A call is a command with its flags and its surroundings.
type call struct {
	*command
	given  map[string][]string // by long name
	word   string              // that followed the command
	args   []string            // what stood behind "--", of a command that takes it
	getenv func(string) string
	stdin  io.Reader
	stdout output // flushed at the end; commands that go on flush it themselves
	stderr io.Writer

	viewed   bool          // events are printed for a person
	patience time.Duration // how long an append is tried again, 0 is retryTime
}

// run is streamctl, with all that a process has around it in the arguments.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout,
	stderr io.Writer) error {
	if len(args) > 0 && args[0] == "__complete" {
		out := output{bufio.NewWriter(readerGone{stdout}), stdout}
		return complete(ctx, args[1:], &call{getenv: getenv, stdin: stdin, stdout: out, stderr: io.Discard})
	}
	words, behind, given, twice, err := splitArgs(args)
	if err != nil {
		return err
	}
	if named, err := findCommand(words, nil); err != nil || !named.args {
		words, behind = append(words, behind...), nil
	}
	out := output{bufio.NewWriter(readerGone{stdout}), stdout}
	c := &call{given: given, args: behind, getenv: getenv, stdin: stdin, stdout: out, stderr: stderr}
	if len(words) > 0 && words[0] == "help" {
		words, given["help"] = words[1:], []string{"true"}
	}
	switch {
	case c.has("version"):
		fmt.Fprintln(out, "streamctl", daemon.Version())
		return out.Flush()
	case c.has("help"):
		text, err := help(words)
		if err != nil {
			return err
		}
		out.WriteString(text)
		return out.Flush()
	}
	if c.command, err = findCommand(words, given); err != nil {
		return err
	}
	c.word = strings.Join(words[len(strings.Fields(c.name)):], "")
	for name := range given {
		if !slices.Contains(strings.Fields(c.flags), name) {
			return c.usageErr("it takes no --%s", name)
		}
	}
	for _, name := range twice {
		if !slices.Contains(strings.Fields(c.many), name) {
			return c.usageErr("--%s is given twice", name)
		}
	}
	err = c.run(ctx, c)
	return outcome(err, out.Flush()) // what was printed before an error stands before its message
}

// parseFlags is splitArgs where what stands behind "--" is words, too.
func parseFlags(args []string) (words []string, given map[string][]string, twice []string, err error) {
	words, behind, given, twice, err := splitArgs(args)
	return append(words, behind...), given, twice, err
}

// splitArgs takes args apart. Flags may stand anywhere, as -x, --x, --x=v; "--" ends them, and behind is what stands
// there. Twice are those that are given more than once.
func splitArgs(args []string) (words, behind []string, given map[string][]string, twice []string, err error) {
	given = map[string][]string{}
	seen := map[string]bool{}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			return words, args, given, twice, nil
		}
		if len(arg) < 2 || arg[0] != '-' {
			words = append(words, arg)
			continue
		}
		name, value, valued := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
		i := slices.IndexFunc(flags, func(f daemon.Flag) bool { return name != "" && (name == f.Name || name == f.Short) })
		if i < 0 {
			return nil, nil, nil, nil, unknownFlag(arg, name, words)
		}
		f := flags[i]
		if seen[f.Name] {
			twice = append(twice, f.Name)
		}
		seen[f.Name] = true
		if f.Value == "" {
			on, err := strconv.ParseBool(cmp.Or(value, "true"))
			if err != nil || valued && value == "" {
				return nil, nil, nil, nil, usageError{fmt.Errorf("--%s is given or not: %q is no value for it", f.Name, value), ""}
			}
			if delete(given, f.Name); on {
				given[f.Name] = []string{"true"}
			}
			continue
		}
		if !valued {
			if len(args) == 0 {
				return nil, nil, nil, nil, usageError{fmt.Errorf("%s needs a value: %s %s", arg, arg, f.Value), ""}
			}
			value, args = args[0], args[1:]
		}
		given[f.Name] = append(given[f.Name], value)
	}
	return words, nil, given, twice, nil
}

func unknownFlag(arg, name string, words []string) error {
	var names []string
	for _, f := range flags {
		names = append(names, f.Name)
	}
	hint := "streamctl --help"
	if c, err := findCommand(words, nil); err == nil {
		names = strings.Fields(c.flags)
		hint = "streamctl " + c.name + " --help"
	}
	arg, _, _ = strings.Cut(arg, "=")
	if len(words) > 1 {
		if c, err := findCommand(words[:1], nil); err == nil && c.args {
			return usageError{fmt.Errorf("unknown flag %s; the command to run stands behind --", arg),
				"streamctl " + c.name + " " + c.usage}
		}
	}
	if near := nearest(name, names); near != "" {
		return usageError{fmt.Errorf("unknown flag %s; did you mean --%s?", arg, near), hint}
	}
	return usageError{fmt.Errorf("unknown flag %s", arg), hint}
}

// findCommand returns the command that words are; with given, the flags, its error knows better what was meant.
func findCommand(words []string, given map[string][]string) (*command, error) {
	if len(words) == 0 {
		return nil, usageError{errors.New("which command?\n\n" + groupHelp("")), ""}
	}
	var names []string
	for i, c := range commands {
		own := strings.Fields(c.name)
		n := len(own)
		if len(words) >= n && slices.Equal(words[:n], own) {
			if c.word {
				n++
			}
			if len(words) <= n {
				return &commands[i], nil
			}
			hint := "streamctl " + c.name + " --help"
			switch {
			case len(given["message"]) > 0:
				hint = fmt.Sprintf("quotes around the text: -m %q", strings.Join(append(given["message"][:1:1], words[n:]...), " "))
			case c.args:
				hint = "streamctl " + c.name + " " + c.usage
			case strings.Contains(c.flags, "name") && len(given["name"]) == 0:
				hint = "streamctl " + c.name + " -n " + daemon.ShellWord(words[n])
			}
			return nil, usageError{fmt.Errorf("%s: unexpected argument %q", c.name, words[n]), hint}
		}
		names = append(names, c.name)
		if own[n-1] == words[0] {
			return nil, usageError{fmt.Errorf("unknown command %q", words[0]), "streamctl " + c.name}
		}
	}
	if len(words) == 1 && isGroup(words[0]) {
		return nil, usageError{fmt.Errorf("%s: which of its commands?\n\n%s", words[0], groupHelp(words[0])), ""}
	}
	words = words[:min(2, len(words))]
	hint := "streamctl --help"
	if near := nearest(strings.Join(words, " "), names); near != "" {
		hint = "streamctl " + near
	}
	return nil, usageError{fmt.Errorf("unknown command %q", strings.Join(words, " ")), hint}
}

// nearest returns the one of names that a typing error may have turned into s, "" where none is near.
func nearest(s string, names []string) string {
	best, near := 3, ""
	for _, name := range names {
		if d := distance(s, name); d < best && d < len(name) {
			best, near = d, name
		}
	}
	return near
}

// distance is the number of insertions, deletions and replacements of bytes between a and b (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// isGroup tells whether a word is the first of several commands.
func isGroup(word string) bool {
	return slices.Contains([]string{"server", "service", "stream", "token"}, word)
}

// help returns the help for the command, or the group of commands, that words name.
func help(words []string) (string, error) {
	group := strings.Join(words, " ")
	if group == "" || isGroup(group) {
		return groupHelp(group), nil
	}
	c, err := findCommand(words, nil)
	if err != nil {
		return "", err
	}
	return c.help(), nil
}

func groupHelp(group string) string {
	var b strings.Builder
	if group == "" {
		b.WriteString("Appends events to durable streams and reads them, and runs the server that keeps them.\n\n")
	}
	fmt.Fprintf(&b, "Usage: streamctl %s [flags]\n\n", strings.TrimSpace(group+" COMMAND"))
	for _, c := range commands {
		if strings.HasPrefix(c.name, group) {
			fmt.Fprintf(&b, "  %-18s %s\n", c.name, c.does)
		}
	}
	b.WriteString("\nEach has its own --help. ")
	if group == "token" {
		b.WriteString("No server is asked.\n\nTry:  streamctl token create ci --can write --file tokens\n      " +
			"streamctl server start --tokens tokens\n")
		return b.String()
	}
	if group == "service" {
		b.WriteString("No server is asked.\n\nTry:  streamctl service install --print\n")
		return b.String()
	}
	if group == "server" {
		b.WriteString("Run and start are for the folder of --dir, or .iterate; the others\n" +
			"for the server of --server, of --dir, of DURABLE_STREAMS_URL, or of .iterate, in this order.\n")
	} else {
		b.WriteString("The server is the one of --server, of --dir, of DURABLE_STREAMS_URL,\n" +
			"or that of the folder .iterate, in this order. A folder's is started when it is needed.\n")
	}
	if group != "server" {
		b.WriteString("\nTry:  streamctl stream append -n greetings -m hello\n      streamctl stream get -n greetings\n")
	}
	return b.String()
}

func (c *command) help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: streamctl %s %s\n\n%s\n\n", c.name, c.usage, strings.TrimSpace(c.manual))
	for _, name := range strings.Fields(c.flags) {
		i := slices.IndexFunc(flags, func(f daemon.Flag) bool { return f.Name == name })
		b.WriteString(flags[i].Line(c.also[name]))
	}
	b.WriteString(daemon.Flag{Name: "help", Short: "h", Help: "print this"}.Line(""))
	return b.String()
}

func (c *call) usageErr(format string, args ...any) error {
	return usageError{fmt.Errorf(c.name+": "+format, args...), "streamctl " + c.name + " --help"}
}

func (c *call) has(flag string) bool { return len(c.given[flag]) > 0 }

// value returns what was given last, "" where nothing was.
func (c *call) value(flag string) string {
	if v := c.given[flag]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// number sets n to the flag's value, a number of 1 or more, where it was given.
func (c *call) number(flag string, n *int) (err error) {
	if !c.has(flag) {
		return nil
	}
	if *n, err = strconv.Atoi(c.value(flag)); err != nil || *n < 1 {
		return c.usageErr("--%s %q: it takes a number, 1 or more", flag, c.value(flag))
	}
	return nil
}

// duration sets d to the flag's value where it was given.
func (c *call) duration(flag string, d *time.Duration) (err error) {
	if !c.has(flag) {
		return nil
	}
	if *d, err = time.ParseDuration(c.value(flag)); err != nil || *d < 0 {
		return c.usageErr("--%s %q: it takes a time such as 30s or 2m", flag, c.value(flag))
	}
	return nil
}

// offset sets o to the value of --offset, and to preset where it was not given.
func (c *call) offset(o *streamlib.Offset, preset streamlib.Offset) (err error) {
	if *o = preset; !c.has("offset") {
		return nil
	}
	if *o, err = streamlib.ParseOffset(c.value("offset")); err != nil {
		return c.usageErr("--offset %q: it takes a number, -1 for the first event, or now", c.value("offset"))
	}
	return nil
}

// since sets s to the value of --since where it was given. How long ago that is, is for the server's clock to say.
func (c *call) since(s *string) error {
	if !c.has("since") {
		return nil
	}
	*s = c.value("since")
	if _, err := streamhttp.ParseSince(*s, time.Now()); err != nil {
		return c.usageErr("%w", err)
	}
	return c.contradicting("since", "offset", "last")
}

// streamName returns the value of --name.
func (c *call) streamName() (string, error) {
	if !c.has("name") {
		return "", usageError{fmt.Errorf("%s: -n NAME is missing: which stream?", c.name),
			"streamctl " + c.name + " " + c.usage}
	}
	if err := streamlib.CheckName(c.value("name")); err != nil {
		return "", c.usageErr("%w", err)
	}
	return c.value("name"), nil
}

// contradicting refuses flag together with any of others.
func (c *call) contradicting(flag string, others ...string) error {
	for _, other := range others {
		if c.has(flag) && c.has(other) {
			return c.usageErr("--%s and --%s contradict each other", flag, other)
		}
	}
	return nil
}

// clip shortens s for a message.
func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	for most := most; ; most-- {
		if utf8.RuneStart(s[most]) {
			return s[:most] + "…"
		}
	}
}
