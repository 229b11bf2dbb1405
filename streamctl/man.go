package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"unicode/utf8"

	"github.com/iterate/durable-streams/streamlib/daemon"
)

// streamdCommands are the words whose --help streamd has.
var streamdCommands = []string{"", "config", "verify", "repair", "export", "import", "backup"}

// man prints a man page, made of what --help says.
func man(ctx context.Context, c *call) error {
	var sections [][2]string
	switch c.word {
	case "", "streamctl":
		c.word = "streamctl"
		sections = append(sections, [2]string{"DESCRIPTION", groupHelp("")})
		for _, of := range commands {
			sections = append(sections, [2]string{"streamctl " + of.name, of.help()})
		}
	case "streamd":
		path, err := streamd()
		if err != nil {
			return err
		}
		for _, command := range streamdCommands {
			text, err := exec.CommandContext(ctx, path, strings.Fields(command+" --help")...).Output()
			if err != nil {
				return fmt.Errorf("%s %s --help: %w", daemon.Word(path), command, err)
			}
			title := "DESCRIPTION"
			if command != "" {
				title = "streamd " + command
			}
			sections = append(sections, [2]string{title, string(text)})
		}
	default:
		return c.usageErr("%q: it is streamctl or streamd", c.word)
	}
	_, err := c.stdout.WriteString(manPage(c.word, sections))
	return err
}

// manPage is a page for man(1). A help text is for a width that every terminal has, so its lines stay as they are.
func manPage(name string, sections [][2]string) string {
	does := map[string]string{"streamctl": "append events to durable streams, and read them",
		"streamd": "serve the event streams of a folder"}[name]
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1\n.SH NAME\n%s \\- %s\n", strings.ToUpper(name), name, does)
	for _, s := range sections {
		fmt.Fprintf(&b, ".SH \"%s\"\n.nf\n", s[0])
		for line := range strings.Lines(strings.TrimSpace(s[1]) + "\n") {
			line = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(line)
			if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
				line = `\&` + line
			}
			for _, r := range line { // roff(7) has no UTF-8
				if r < utf8.RuneSelf {
					b.WriteRune(r)
				} else {
					fmt.Fprintf(&b, `\[u%04X]`, r)
				}
			}
		}
		b.WriteString(".fi\n")
	}
	return b.String()
}

func printVersion(_ context.Context, c *call) error {
	_, err := fmt.Fprintln(c.stdout, "streamctl", daemon.Version())
	return err
}
