package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

// streamdFlags are the names of the flags that are streamd's, too.
var streamdFlags = func() string {
	var names []string
	for _, f := range daemon.Flags {
		names = append(names, f.Name)
	}
	return strings.Join(names, " ")
}()

// folder is that of --dir.
func (c *call) folder() (folder, error) {
	dir := ".iterate"
	if c.has("dir") {
		dir = c.value("dir")
	}
	if dir == "" {
		return folder{}, c.usageErr("--dir is empty")
	}
	dir, err := filepath.Abs(dir)
	if info, errStat := os.Stat(dir); err == nil && errStat == nil && !info.IsDir() {
		err = fmt.Errorf("%s is no folder", daemon.Word(dir))
	}
	return folder{dir, c.stderr}, err
}

// served returns the folder whose server is meant: where that was named by its URL, the one that it says, as it does
// through the folder's own socket alone. Else dir is "" and health all that is known.
func (c *call) served(ctx context.Context) (f folder, health streamhttp.Health, url string, err error) {
	url, f, err = c.target()
	if err != nil || url == "" {
		return f, health, url, err
	}
	client, err := c.remote(url) // whose token a proxy may want
	if err != nil {
		return f, health, url, err
	}
	if health, err = client.Health(ctx); err != nil {
		if err = nobodyThere(err); unreachable(err) && !untrusted(err) {
			err = fmt.Errorf("%w: no server answers at %s", errNotRunning, url)
		}
		return f, health, url, err
	}
	if health.Dir != "" {
		f = folder{health.Dir, c.stderr}
		if s, answers, err := f.owner(ctx); err == nil && answers && s.StartedAt.Equal(health.StartedAt) {
			return f, health, url, nil
		}
	}
	return folder{"", c.stderr}, health, url, nil
}

// local is served, of a server that can be ended from here.
func (c *call) local(ctx context.Context) (folder, error) {
	f, _, url, err := c.served(ctx)
	if err == nil && f.dir == "" {
		err = hintError{fmt.Errorf("which folder the server at %s has it tells only through the folder's own socket", url),
			"streamctl " + c.name + " --dir DIR, on its machine"}
	}
	return f, err
}

// streamdArgs returns what was given of streamd's flags.
func streamdArgs(given map[string][]string) (args []string) {
	for _, name := range append(strings.Fields(streamdFlags), "port-fallback") {
		for _, value := range given[name] {
			if path, err := filepath.Abs(value); slices.Contains(daemon.Paths, name) && value != "" && err == nil {
				value = path // of this folder, which is not the daemon's
			}
			args = append(args, strings.TrimSuffix("--"+name+"="+value, "=true"))
		}
	}
	return args
}

// serverRun becomes streamd.
func serverRun(ctx context.Context, c *call) error {
	f, err := c.folder()
	if err != nil {
		return err
	}
	if err := f.isFree(ctx); err != nil {
		return err
	}
	path, err := streamd()
	if err != nil {
		return err
	}
	err = become(path, append([]string{"--dir=" + f.dir}, streamdArgs(c.given)...))
	return fmt.Errorf("run %s: %w", daemon.Word(path), err)
}

// isFree returns why no server can be started for the folder, where that is known already.
func (f folder) isFree(ctx context.Context) error {
	s, answers, err := f.owner(ctx)
	if answers {
		return running(f, s)
	} else if errors.Is(err, errUnseen) {
		return err
	}
	return nil
}

var errRunning = errors.New("already running")

func running(f folder, s server) error {
	err := fmt.Errorf("%w: pid %d serves %v at %s", errRunning, s.PID, f, s.url())
	return hintError{err, f.restart(s)}
}

func serverStart(ctx context.Context, c *call) error {
	f, err := c.folder()
	if err != nil {
		return err
	}
	return c.startNew(ctx, f, c.given)
}

// startNew starts a server where there is none.
func (c *call) startNew(ctx context.Context, f folder, given map[string][]string) error {
	if err := f.isFree(ctx); err != nil {
		return err
	}
	if len(given["port"]) == 0 {
		given["port-fallback"] = []string{"true"}
	}
	return c.startAndSay(ctx, f, given)
}

func (c *call) startAndSay(ctx context.Context, f folder, given map[string][]string) error {
	conn, s, err := f.start(ctx, given)
	if errors.Is(err, errTaken) {
		if s, answers, _ := f.owner(ctx); answers {
			return running(f, s)
		}
		err, _ := f.hung()
		return err
	} else if err != nil {
		return err
	}
	conn.Close()
	if c.has("json") {
		return c.printJSON(struct {
			PID     int    `json:"pid"`
			URL     string `json:"url"`
			Storage string `json:"storage"`
			Dir     string `json:"dir"`
			Log     string `json:"log"`
		}{s.PID, s.url(), s.Storage, f.dir, f.logOf(s.PID)})
	}
	return c.table([][2]string{{"pid", strconv.Itoa(s.PID)}, {"url", s.url()}, {"storage", s.Storage},
		{"dir", f.dir}, {"log", f.logOf(s.PID)}})
}

// table prints one member a line, the values below each other.
func (c *call) table(members [][2]string) error {
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	for _, m := range members {
		fmt.Fprintf(w, "%s\t%s\n", m[0], m[1])
	}
	return w.Flush()
}

func (c *call) printJSON(v any) error {
	encoder := json.NewEncoder(c.stdout)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

func serverStop(ctx context.Context, c *call) error {
	f, err := c.local(ctx)
	if err != nil {
		return err
	}
	patience := 10 * time.Second
	if err := c.duration("timeout", &patience); err != nil {
		return err
	}
	s, _, err := f.owner(ctx)
	if err != nil {
		return err
	}
	killed, err := f.stop(s, patience)
	if err != nil {
		return err
	}
	if killed && endings[0] != os.Kill {
		fmt.Fprintf(c.stderr, "streamctl: pid %d did not end by itself in %v and was killed\n", s.PID, patience)
	}
	if stop := s.systemctl("stop"); stop != "" {
		if strings.HasSuffix(stop, " "+serviceName+".service") {
			stop += " " + serviceName + ".socket"
		}
		tell(c.stderr, hintError{errors.New("systemd starts it again when somebody comes"), stop})
	}
	if c.has("json") {
		return c.printJSON(map[string]any{"pid": s.PID, "killed": killed})
	}
	return nil
}

// serverRestart starts the server again with the flags it had, except for those given now. One that had no port of
// its own choice tries to get the same again, for those who know its URL. Where it does not start, it is started
// again as it was.
func serverRestart(ctx context.Context, c *call) error {
	f, err := c.local(ctx)
	if err != nil {
		return err
	}
	s, answers, err := f.owner(ctx)
	if again := s.systemctl("restart"); answers && again != "" {
		return hintError{fmt.Errorf("systemd has started the server of %v, as %s, and would not look after another one", f,
			strings.TrimPrefix(s.Unit, "--user ")), again}
	}
	if errors.Is(err, errNotRunning) {
		given, err := f.kept()
		if err == nil && !c.has("hooks") {
			err = f.withoutHooks(given)
		}
		if err != nil {
			return err
		}
		if flags := streamdArgs(given); len(flags) > 0 {
			fmt.Fprintf(c.stderr, "streamctl: it was started last with %s\n", shellWords(flags))
		}
		c.override(given)
		return c.startNew(ctx, f, given)
	} else if err != nil {
		return err
	}
	_, given, _, err := parseFlags(s.Args)
	if err != nil {
		return hintError{fmt.Errorf("pid %d has flags that this streamctl does not know: %w", s.PID, err),
			"streamctl server stop"}
	}
	if port := given["port"]; len(given["port-fallback"]) > 0 || len(port) > 0 && port[len(port)-1] == "0" {
		given["port-fallback"] = []string{"true"}
		if s.port != 0 {
			given["port"] = []string{strconv.Itoa(s.port)}
		}
	}
	former := maps.Clone(given)
	c.override(given)
	if err := f.check(ctx, given); err != nil {
		return err
	}
	if _, err := f.stop(s, 10*time.Second); err != nil {
		return err
	}
	err = c.startAndSay(ctx, f, given)
	if err == nil || errors.Is(err, errRunning) {
		return err
	}
	conn, s, again := f.start(ctx, former)
	if again != nil {
		return fmt.Errorf("%w; nor does it start as it was: %w", err, again)
	}
	conn.Close()
	return fmt.Errorf("%w; it runs again as it was, with pid %d at %s", err, s.PID, s.url())
}

// override puts the flags given now in the place of former ones.
func (c *call) override(former map[string][]string) {
	if c.has("port") {
		delete(former, "port-fallback")
	}
	maps.Copy(former, c.given)
}

// check returns why streamd does not take the flags.
func (f folder) check(ctx context.Context, given map[string][]string) error {
	path, err := streamd()
	if err != nil {
		return err
	}
	args := append([]string{"--check", "--dir=" + f.dir}, streamdArgs(given)...)
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err == nil {
		return nil
	}
	said, _, _ := strings.Cut(strings.TrimPrefix(string(out), "streamd: "), "\n")
	refusal := fmt.Errorf("streamd would not start, so the server was left as it is: %s", cmp.Or(said, err.Error()))
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 2 {
		return usageError{refusal, "streamctl server restart --help"}
	}
	return refusal
}
