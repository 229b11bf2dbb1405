package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/iterate/durable-streams/streamlib/daemon"
)

const configUsage = `Usage: streamd config [flags]

Prints the settings that a server with these flags would have, in this environment, as flags, and where each is from:
a flag, the environment or the default. Each flag --some-flag of streamd can be set by STREAMD_SOME_FLAG instead, one
without a value by true or false, and what may be repeated by several values with blanks between them. A flag wins.
`

// variable is the name of the environment's variable for a flag.
func variable(flag string) string {
	return "STREAMD_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// fromEnvironment sets the flags that were not given and that the environment has. It returns their names.
func fromEnvironment(f *flag.FlagSet, getenv func(string) string, repeatable []string) (set []string, err error) {
	given := map[string]bool{}
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	f.VisitAll(func(each *flag.Flag) {
		value := getenv(variable(each.Name))
		if err != nil || given[each.Name] || value == "" || each.Name == "check" || each.Name == "version" {
			return
		}
		values := []string{value}
		if slices.Contains(repeatable, each.Name) {
			values = strings.Fields(value)
		}
		for _, v := range values {
			if bad := f.Set(each.Name, v); bad != nil && err == nil {
				err = fmt.Errorf("%s: %q: %w", variable(each.Name), v, bad)
			}
		}
		set = append(set, each.Name)
	})
	return set, err
}

// inEnvironment makes an error about a flag one about the variable that set it.
func inEnvironment(err error, set []string) error {
	for _, name := range set {
		if rest, ok := strings.CutPrefix(err.Error(), "--"+name+" "); ok {
			return errors.New(variable(name) + " " + rest)
		}
	}
	return err
}

// config is streamd config.
func config(args []string, getenv func(string) string, stdout io.Writer) error {
	if slices.ContainsFunc(args, func(arg string) bool { return slices.Contains([]string{"-h", "-help", "--help"}, arg) }) {
		fmt.Fprint(stdout, configUsage)
		return nil
	}
	o, err := parse(args, getenv, stdout)
	if err != nil {
		return err
	}
	for _, s := range o.settings {
		fmt.Fprintf(stdout, "%-40s # %s\n", s.flag, s.from)
	}
	return nil
}

// A setting is a flag as it is in force.
type setting struct{ flag, from string }

// settingsOf returns what is in force, in the order of the flags' names.
func settingsOf(f *flag.FlagSet, o options, fromEnv []string) (all []setting) {
	given := map[string]bool{}
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	f.VisitAll(func(f *flag.Flag) {
		from, values := "default", []string{f.Value.String()}
		if many := o.repeatable()[f.Name]; many != nil {
			values = *many
		}
		switch {
		case f.Name == "check" || f.Name == "version":
			return
		case slices.Contains(fromEnv, f.Name):
			from = variable(f.Name)
		case given[f.Name]:
			from = "flag"
		}
		for _, value := range values {
			all = append(all, setting{"--" + f.Name + "=" + daemon.ShellWord(value), from})
		}
	})
	return all
}
