package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

// The scripts ask this program what can follow, so that they know what it knows, and need not change with it. What
// stands before the cursor comes as arguments, the word that is being typed last.
var completions = map[string]string{
	"bash": `_streamctl() {
	local IFS=$'\n'
	mapfile -t COMPREPLY < <(streamctl __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
	[ ${#COMPREPLY[@]} -gt 0 ] || compopt -o default
}
complete -F _streamctl streamctl
`,
	"zsh": `#compdef streamctl
_streamctl() {
	local -a found
	found=("${(@f)$(streamctl __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
	if [[ -n "${found[1]}" ]]; then compadd -Q -- "${found[@]}"; else _files; fi
}
if [ "$funcstack[1]" = _streamctl ]; then _streamctl; else compdef _streamctl streamctl; fi
`,
	"fish": `function __streamctl_complete
	set -l words (commandline -opc) (commandline -ct)
	streamctl __complete -- $words[2..-1] 2>/dev/null
end
complete -c streamctl -a '(__streamctl_complete)'
`,
}

func completion(_ context.Context, c *call) error {
	script, known := completions[c.word]
	if !known {
		return c.usageErr("%q: it is bash, zsh or fish", c.word)
	}
	_, err := fmt.Fprint(c.stdout, script)
	return err
}

// complete prints what the word can be that is being typed, one a line. Names of streams come from a server that runs;
// none is started for that.
func complete(ctx context.Context, args []string, c *call) error {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		args = []string{""}
	}
	typed, before := args[len(args)-1], args[:len(args)-1]
	words, given := typedSoFar(before)
	var values []string
	switch last := flagOf(before); {
	case last != nil && last.Value != "" && last.Name == "name":
		values = c.streamNames(ctx, given, typed)
	case last != nil && last.Value != "" && strings.Contains(last.Value, "|"):
		values = strings.Split(last.Value, "|")
	case last != nil && last.Value != "":
		return nil // the shell has files
	case strings.HasPrefix(typed, "-"):
		if of, err := findCommand(words, nil); err == nil {
			for _, name := range strings.Fields(of.flags + " help") {
				values = append(values, "--"+name)
			}
		} else {
			values = []string{"--help", "--version"}
		}
	default:
		for _, of := range commands {
			own := strings.Fields(of.name)
			if len(own) > len(words) && slices.Equal(own[:len(words)], words) {
				values = append(values, own[len(words)])
			}
		}
		if slices.Equal(words, []string{"completion"}) {
			values = []string{"bash", "zsh", "fish"}
		}
	}
	for _, v := range slices.Compact(values) {
		if strings.HasPrefix(v, typed) {
			fmt.Fprintln(c.stdout, v)
		}
	}
	return c.stdout.Flush()
}

// typedSoFar returns the words and flags of a line that may be wrong.
func typedSoFar(before []string) (words []string, given map[string][]string) {
	given = map[string][]string{}
	for i := 0; i < len(before); i++ {
		f := flagOf(before[:i+1])
		switch _, value, valued := strings.Cut(before[i], "="); {
		case f == nil && !strings.HasPrefix(before[i], "-"):
			words = append(words, before[i])
		case f != nil && valued:
			given[f.Name] = append(given[f.Name], value)
		case f != nil && f.Value != "" && i+1 < len(before):
			given[f.Name] = append(given[f.Name], before[i+1])
			i++
		}
	}
	return words, given
}

// flagOf returns the flag that the last of args is, nil where it is none or has its value already.
func flagOf(args []string) *daemon.Flag {
	if len(args) == 0 || !strings.HasPrefix(args[len(args)-1], "-") {
		return nil
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(args[len(args)-1][1:], "-"), "=")
	for i, f := range flags {
		if name != "" && (name == f.Name || name == f.Short) {
			return &flags[i]
		}
	}
	return nil
}

// streamNames returns the names that begin so, a thousand at most, of the server that the flags name.
func (c *call) streamNames(ctx context.Context, given map[string][]string, prefix string) (names []string) {
	ctx, cancel := context.WithTimeout(ctx, proofTime)
	defer cancel()
	list, err := findCommand([]string{"stream", "list"}, nil)
	if err != nil {
		return nil
	}
	asked := *c
	asked.command, asked.given = list, given
	url, f, err := asked.target()
	if err != nil {
		return nil
	}
	if url == "" {
		if _, answers, err := f.owner(ctx); err != nil || !answers {
			return nil
		}
	}
	client, err := asked.connect(ctx)
	if err != nil {
		return nil
	}
	page, _ := client.List(ctx, streamhttp.ListOptions{Prefix: prefix, Limit: 1000})
	for _, info := range page.Streams {
		if daemon.ShellWord(info.Name) == info.Name { // another could be taken for more than a word
			names = append(names, info.Name)
		}
	}
	return names
}
