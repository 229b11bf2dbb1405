package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/iterate/durable-streams/streamd/internal/webhook"
	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/budget"
	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/retention"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

// defaultPort is a variable so that tests can build a streamd that leaves port 3000 alone.
var defaultPort = "3000"

// usage is what --help prints.
var usage = func() string {
	text := `Usage: streamd [flags]
       streamd config [flags]
       streamd verify [--dir DIR | --storage s3://BUCKET/PREFIX]
       streamd repair [--dir DIR] [--salvage] [NAME ...]
       streamd export [--dir DIR] [--prefix PREFIX | --name NAME] > FILE
       streamd import [--dir DIR] < FILE
       streamd backup [--dir DIR] TO
       streamd restore --from s3://BUCKET/PREFIX [--dir DIR]

Serves the event streams of one folder over HTTP until SIGTERM, SIGHUP or Ctrl-C; with --tokens SIGHUP reads the
tokens again, and where it logs to daemon.log in the folder it opens that again. While no server has the folder,
verify reads all that is in it, repair cuts off what is damaged, export prints its streams, and import adds what was
exported. Backup copies it, also while a server has it, and restore makes one of what an object store has. Config
prints the settings that flags and the environment make. Each of these has its own --help.

`
	for _, f := range slices.Concat([]daemon.Flag{daemon.Dir}, daemon.Flags, daemon.Own) {
		f.Short = ""
		text += f.Line("")
	}
	return text + `
Each flag --some-flag can be set by STREAMD_SOME_FLAG in the environment, too; a flag wins.
Once it listens it prints its URL. It logs to stderr.
Try:  streamctl stream append -n greetings -m hello
`
}()

// options are what the flags say.
type options struct {
	args         []string // as they were given
	settings     []setting
	manager      manager  // what started the process
	own          []string // what was chosen of the server, in the form --flag=value: what to start it with again
	check        bool
	version      bool
	dir          string // absolute
	host         string
	portText     string
	port         int // of portText
	portFallback bool
	unix         string // absolute, "" where none is wanted
	admin        string // host:port, "" where none is wanted
	tlsCert      string // absolute, "" where it speaks no TLS
	tlsKey       string
	storage      string
	s3Endpoint   string // "" is AWS_ENDPOINT_URL, or AWS
	mirror       string // the place of the copy, "" where none is wanted
	factoryName  string
	factory      streamlib.Factory
	sync         string
	maxEvent     int
	limits       limits
	memory       int64 // 0 is what machineMemory says
	retains      []string
	retain       retention.Rules // of retains
	expires      []string
	expire       retention.Rules
	webhookTexts []string
	webhooks     []webhook.Rule // of webhookTexts
	webhookLocal bool           // to private addresses, too
	hooks        string         // absolute, "" where none are wanted
	allowHosts   []string
	allowOrigins []string
	tokens       string // absolute, "" where none are wanted
	insecure     bool   // without tokens
	logFormat    string
	logLevel     slog.Level
	accessLog    bool
	exits        bool // when a sync has failed
	plain        bool // without TLS
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
	f.StringVar(&o.s3Endpoint, "s3-endpoint", "", "")
	f.StringVar(&o.mirror, "mirror", "", "")
	f.StringVar(&o.factoryName, "factory", "", "")
	f.StringVar(&o.sync, "sync", "always", "")
	f.IntVar(&o.maxEvent, "max-event", streamlib.MaxEvent, "")
	f.Var(&sizeValue{&o.memory, budget.Least, ""}, "memory", "")
	f.Var(&sizeValue{&o.limits.minFree, 1 << 20, ""}, "min-free", "")
	f.IntVar(&o.limits.conns, "max-conns", 0, "")
	f.IntVar(&o.limits.subscribers, "max-subscribers", 0, "")
	f.IntVar(&o.limits.streams, "max-streams", 0, "")
	f.StringVar(&o.admin, "admin", "", "")
	for name, path := range o.paths() {
		f.StringVar(path, name, "", "")
	}
	for name, values := range o.repeatable() {
		f.Func(name, "", func(value string) error {
			if name == "allow-host" && !isHost(value) {
				return errors.New("it is a host's name or address, such as streams.example.com")
			}
			*values = append(*values, value)
			return nil
		})
	}
	f.BoolVar(&o.plain, "insecure-no-tls", false, "")
	f.BoolVar(&o.insecure, "insecure-no-auth", false, "")
	f.StringVar(&o.logFormat, "log-format", "text", "")
	f.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "")
	f.BoolVar(&o.accessLog, "access-log", false, "")
	f.BoolVar(&o.exits, "exit-on-failure", false, "")
	f.BoolVar(&o.webhookLocal, "webhook-allow-private", false, "")
	f.BoolVar(&o.check, "check", false, "")
	f.BoolVar(&o.version, "version", false, "")
	return f
}

// repeatable are the flags that may be given more than once, and where their values go.
func (o *options) repeatable() map[string]*[]string {
	return map[string]*[]string{
		"retain": &o.retains, "expire": &o.expires, "allow-host": &o.allowHosts, "allow-origin": &o.allowOrigins,
		"webhook": &o.webhookTexts,
	}
}

// scheme begins the URLs of the server.
func (o *options) scheme() string {
	if o.tlsCert != "" {
		return "https://"
	}
	return "http://"
}

// paths are where the values of daemon.Paths go.
func (o *options) paths() map[string]*string {
	return map[string]*string{
		"unix": &o.unix, "tls-cert": &o.tlsCert, "tls-key": &o.tlsKey, "tokens": &o.tokens, "hooks": &o.hooks,
	}
}

// parse reads the flags. Its error is flag.ErrHelp where --help or --version was asked for and printed.
// What they leave out the environment may have; that is not kept for the next start, which has it too.
func parse(args []string, getenv func(string) string, stdout io.Writer) (options, error) {
	o := options{args: args}
	f := flagSet(&o)
	repeatable := slices.Collect(maps.Keys(o.repeatable()))
	once(f, repeatable...)
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
	var set []string
	if err == nil {
		set, err = fromEnvironment(f, getenv, repeatable)
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
	case !slices.Contains([]string{"fs", "memory"}, o.storage) && !isBucket(o.storage):
		err = fmt.Errorf("--storage %q: it is fs, memory or s3://BUCKET/PREFIX", o.storage)
	case o.mirror != "" && !isBucket(o.mirror):
		err = fmt.Errorf("--mirror %q: it is s3://BUCKET/PREFIX", o.mirror)
	case o.mirror != "" && o.storage != "fs":
		err = errors.New("--mirror is the copy of a folder: it goes with --storage fs alone")
	case o.s3Endpoint != "" && !isBucket(o.storage) && o.mirror == "":
		err = errors.New("--s3-endpoint goes with --storage s3://BUCKET/PREFIX, or --mirror, alone")
	case !slices.Contains([]string{"always", "none"}, o.sync):
		err = fmt.Errorf("--sync %q: it is always or none", o.sync)
	case !slices.Contains([]string{"text", "json"}, o.logFormat):
		err = fmt.Errorf("--log-format %q: it is text or json", o.logFormat)
	case min(o.limits.conns, o.limits.subscribers, o.limits.streams) < 0:
		err = errors.New("--max-conns, --max-subscribers and --max-streams are numbers from 1, or 0 for what holds without them")
	case (o.tlsCert == "") != (o.tlsKey == ""):
		err = errors.New("--tls-cert and --tls-key go together: one is the certificate, the other its key")
	case !known:
		err = fmt.Errorf("--factory %q: it is plain, validated or agent", o.factoryName)
	case o.maxEvent < 1 || o.maxEvent > streamlib.MaxBatch:
		err = fmt.Errorf("--max-event %d: it is a number of bytes from 1 to %d", o.maxEvent, streamlib.MaxBatch)
	}
	if err == nil {
		err = checkOrigins(o)
	}
	if err == nil {
		err = o.checkAdmin()
	}
	if err == nil {
		err = o.readRules()
	}
	f.Visit(func(f *flag.Flag) {
		if path := o.paths()[f.Name]; err == nil && path != nil {
			err = o.absolute(f.Name, path)
		}
	})
	if err != nil {
		return o, usageError{inEnvironment(err, set)}
	}
	o.own = chosen(f, o, set)
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return o, err
	}
	o.settings = settingsOf(f, o, set)
	return o, nil
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

// absolute makes the path of a flag one that holds for who starts this server again, from another folder.
func (o *options) absolute(name string, path *string) (err error) {
	if *path == "" {
		return fmt.Errorf("--%s is empty", name)
	}
	if *path, err = filepath.Abs(*path); err != nil {
		return err
	}
	o.args = slices.Clone(o.args)
	for i, arg := range o.args {
		is, _, valued := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"), "=")
		switch {
		case is != name || arg[0] != '-':
		case valued:
			o.args[i] = "--" + name + "=" + *path
		case i+1 < len(o.args):
			o.args[i+1] = *path
		}
	}
	return nil
}

// isHost tells whether a request can be for s: a name as DNS has it, or an address, perhaps with a port.
func isHost(s string) bool {
	if host, port, err := net.SplitHostPort(s); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return false
		}
		s = host
	}
	if _, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		return true
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || strings.ContainsFunc(label, func(r rune) bool {
			return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '-' && r != '_'
		}) {
			return false
		}
	}
	return true
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

func (o *options) readRules() (err error) {
	if o.retain, err = retention.Retain(o.retains...); err != nil {
		return fmt.Errorf("--retain %w", err)
	}
	if o.expire, err = retention.Expire(o.expires...); err != nil {
		return fmt.Errorf("--expire %w", err)
	}
	return o.readWebhooks()
}

// chosen returns the flags that were given, without those that say nothing of how the server is.
func chosen(f *flag.FlagSet, o options, fromEnv []string) (args []string) {
	ported := false
	f.Visit(func(f *flag.Flag) { // in the order of their names
		values := []string{f.Value.String()} // that of tokens is absolute by now
		if many := o.repeatable()[f.Name]; many != nil {
			values = *many
		}
		if slices.Contains(fromEnv, f.Name) {
			return
		}
		switch f.Name {
		case "dir", "check", "version", "port-fallback":
			return
		case "port":
			ported = true
		}
		for _, value := range values {
			args = append(args, "--"+f.Name+"="+value)
		}
	})
	if ported && o.portFallback {
		args = append(args, "--port-fallback")
	}
	return args
}
