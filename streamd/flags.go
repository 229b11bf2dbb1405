package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

// defaultPort is a variable so that tests can build a streamd that leaves port 3000 alone.
var defaultPort = "3000"

// usage is what --help prints.
var usage = func() string {
	text := `Usage: streamd [flags]
       streamd verify [--dir DIR]
       streamd repair [--dir DIR] [--salvage] [NAME ...]

Serves the event streams of one folder over HTTP until SIGTERM, SIGHUP or Ctrl-C; with --tokens SIGHUP reads the
tokens again. While no server has the folder, verify reads all that is in it, and repair cuts off what is damaged.
Each of these two has its own --help.

`
	for _, f := range slices.Concat([]daemon.Flag{daemon.Dir}, daemon.Flags, daemon.Own) {
		f.Short = ""
		text += f.Line("")
	}
	return text + `
Once it listens it prints its URL. It logs to stderr.
Try:  streamctl stream append -n greetings -m hello
`
}()

// options are what the flags say.
type options struct {
	args         []string // as they were given
	own          []string // what was chosen of the server, in the form --flag=value: what to start it with again
	check        bool
	version      bool
	dir          string // absolute
	host         string
	portText     string
	port         int // of portText
	portFallback bool
	storage      string
	factoryName  string
	factory      streamlib.Factory
	sync         string
	maxEvent     int
	allowHosts   []string
	allowOrigins []string
	tokens       string // absolute, "" where none are wanted
	insecure     bool   // without tokens
	exits        bool   // when a sync has failed
	plain        bool   // without TLS
}

// factories are what --factory can name.
var factories = map[string]streamlib.Factory{
	"":          streamlib.Active,
	"plain":     streamlib.Plain,
	"validated": streamlib.Validated,
	"agent":     streamlib.EmbryonicAgent,
}

// flagSet returns the flags that streamd takes, which set o.
func flagSet(o *options) *flag.FlagSet {
	f := flag.NewFlagSet("streamd", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.dir, "dir", ".iterate", "")
	f.StringVar(&o.host, "host", "127.0.0.1", "")
	f.StringVar(&o.portText, "port", defaultPort, "")
	f.BoolVar(&o.portFallback, "port-fallback", false, "")
	f.StringVar(&o.storage, "storage", "fs", "")
	f.StringVar(&o.factoryName, "factory", "", "")
	f.StringVar(&o.sync, "sync", "always", "")
	f.IntVar(&o.maxEvent, "max-event", streamlib.MaxEvent, "")
	f.Func("allow-host", "", func(name string) error {
		o.allowHosts = append(o.allowHosts, name)
		return nil
	})
	f.Func("allow-origin", "", func(origin string) error {
		o.allowOrigins = append(o.allowOrigins, origin)
		return nil
	})
	f.StringVar(&o.tokens, "tokens", "", "")
	f.BoolVar(&o.plain, "insecure-no-tls", false, "")
	f.BoolVar(&o.insecure, "insecure-no-auth", false, "")
	f.BoolVar(&o.exits, "exit-on-failure", false, "")
	f.BoolVar(&o.check, "check", false, "")
	f.BoolVar(&o.version, "version", false, "")
	return f
}

// parse reads the flags. Its error is flag.ErrHelp where --help or --version was asked for and printed.
func parse(args []string, stdout io.Writer) (options, error) {
	o := options{args: args}
	f := flagSet(&o)
	once(f, "allow-host", "allow-origin")
	err := f.Parse(args)
	if err == nil && o.version {
		fmt.Fprintln(stdout, "streamd", daemon.Version())
		return o, flag.ErrHelp
	}
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		return o, err
	}
	if err == nil && f.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if err == nil {
		_, err = fmt.Sscanf(o.portText+"\n", "%d\n", &o.port)
		if err != nil || o.port < 0 || o.port > 65535 {
			err = fmt.Errorf("--port %q: a port is a number from 0 to 65535", o.portText)
		}
	}
	var known bool
	o.factory, known = factories[o.factoryName]
	switch {
	case err != nil:
	case o.dir == "":
		err = errors.New("--dir is empty")
	case !slices.Contains([]string{"fs", "memory"}, o.storage):
		err = fmt.Errorf("--storage %q: it is fs or memory", o.storage)
	case !slices.Contains([]string{"always", "none"}, o.sync):
		err = fmt.Errorf("--sync %q: it is always or none", o.sync)
	case !known:
		err = fmt.Errorf("--factory %q: it is plain, validated or agent", o.factoryName)
	case o.maxEvent < 1 || o.maxEvent > streamlib.MaxBatch:
		err = fmt.Errorf("--max-event %d: it is a number of bytes from 1 to %d", o.maxEvent, streamlib.MaxBatch)
	}
	if err == nil {
		err = checkOrigins(o)
	}
	f.Visit(func(f *flag.Flag) {
		if err == nil && f.Name == "tokens" {
			err = o.absTokens()
		}
	})
	if err != nil {
		return o, usageError{err}
	}
	o.own = chosen(f, o)
	o.dir, err = filepath.Abs(o.dir)
	return o, err
}

// once makes the flags with a value refuse a second one, but for those that may be repeated.
func once(f *flag.FlagSet, repeatable ...string) {
	f.VisitAll(func(f *flag.Flag) {
		if _, bool := f.Value.(interface{ IsBoolFlag() bool }); !bool && !slices.Contains(repeatable, f.Name) {
			f.Value = &onceValue{Value: f.Value}
		}
	})
}

type onceValue struct {
	flag.Value
	given bool
}

func (v *onceValue) Set(s string) error {
	if v.given {
		return errors.New("it is given twice")
	}
	v.given = true
	return v.Value.Set(s)
}

// absTokens makes the path of the tokens one that holds for who starts this server again, from another folder.
func (o *options) absTokens() (err error) {
	if o.tokens == "" {
		return errors.New("--tokens is empty")
	}
	if o.tokens, err = filepath.Abs(o.tokens); err != nil {
		return err
	}
	o.args = slices.Clone(o.args)
	for i, arg := range o.args {
		name, _, valued := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"), "=")
		switch {
		case name != "tokens" || arg[0] != '-':
		case valued:
			o.args[i] = "--tokens=" + o.tokens
		case i+1 < len(o.args):
			o.args[i+1] = o.tokens
		}
	}
	return nil
}

func checkOrigins(o options) error {
	for _, origin := range o.allowOrigins {
		if origin == "*" && o.tokens == "" {
			return errors.New("--allow-origin * would let every web page read and write; it goes with --tokens alone")
		}
		if _, err := streamhttp.Origin(origin); err != nil && origin != "*" {
			return fmt.Errorf("--allow-origin: %w", err)
		}
	}
	return nil
}

// chosen returns the flags that were given, without those that say nothing of how the server is.
func chosen(f *flag.FlagSet, o options) (args []string) {
	ported := false
	f.Visit(func(f *flag.Flag) { // in the order of their names
		switch f.Name {
		case "dir", "check", "version", "port-fallback":
		case "allow-host":
			for _, host := range o.allowHosts {
				args = append(args, "--allow-host="+host)
			}
		case "allow-origin":
			for _, origin := range o.allowOrigins {
				args = append(args, "--allow-origin="+origin)
			}
		default:
			ported = ported || f.Name == "port"
			args = append(args, "--"+f.Name+"="+f.Value.String()) // that of tokens is absolute by now
		}
	})
	if ported && o.portFallback {
		args = append(args, "--port-fallback")
	}
	return args
}
