package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/iterate/durable-streams/streamlib/daemon"
)

// serviceFlags are those of streamd that a service can have: its host, its port and its path are the socket unit's.
var serviceFlags = strings.Join(slices.DeleteFunc(strings.Fields(streamdFlags), func(name string) bool {
	return name == "exit-on-failure" // which the unit has by itself
}), " ")

// A unit is a file of systemd's.
type unit struct{ path, text string }

// serviceName is what the units are called.
const serviceName = "streamd"

// sandbox is what keeps a server that was broken into from all that it does not need. Systemd-analyze security counts
// it. A manager of a user's may not do the first of these.
const (
	sandboxOfSystem = `CapabilityBoundingSet=
AmbientCapabilities=
PrivateDevices=yes
PrivateTmp=yes
PrivateUsers=yes
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
`
	sandbox = `LockPersonality=yes
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
UMask=0077
`
)

// units returns the units that the flags ask for.
func (c *call) units() ([]unit, error) {
	folder, err := c.unitFolder()
	if err != nil {
		return nil, err
	}
	path, err := streamd()
	if err != nil {
		return nil, err
	}
	user := c.has("user")
	given := maps.Clone(c.given)
	port, host := cmp.Or(c.value("port"), "3000"), cmp.Or(c.value("host"), "127.0.0.1")
	if port == "0" {
		return nil, c.usageErr("--port 0: a socket of systemd has a port of its own")
	}
	unix, err := c.unixSocket()
	if err != nil {
		return nil, err
	}
	delete(given, "port")
	delete(given, "host")
	delete(given, "unix")
	args := []string{"--dir=%S/" + serviceName}
	var state, write string
	if state = "StateDirectory=" + serviceName + "\nStateDirectoryMode=0700\n"; c.has("dir") {
		f, err := c.folder()
		if err != nil {
			return nil, err
		}
		args[0], state = unitWord("--dir="+f.dir), ""
		write = "ReadWritePaths=" + unitWord(f.dir) + "\n"
	}
	for _, arg := range streamdArgs(given) {
		args = append(args, unitWord(arg))
	}
	var b strings.Builder
	fmt.Fprintf(&b, `[Unit]
Description=Event streams
Requires=%[1]s.socket
After=%[1]s.socket network.target
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=%[2]s %[3]s --exit-on-failure
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=1
TimeoutStartSec=10min
TimeoutStopSec=10
WatchdogSec=1min
LimitNOFILE=65536
%[4]s`, serviceName, unitWord(path), strings.Join(args, " "), state)
	if !user {
		home := "ProtectHome=yes\n"
		if slices.ContainsFunc(append(args, path), isOfHome) {
			home = "ProtectHome=read-only\n"
		}
		b.WriteString("User=" + serviceName + "\n" + write + home + sandboxOfSystem)
	}
	fmt.Fprintf(&b, "%s\n[Install]\nWantedBy=%s\n", sandbox, c.bootTarget())
	socket := fmt.Sprintf(`[Unit]
Description=Event streams, the socket

[Socket]
ListenStream=%s
%s
[Install]
WantedBy=sockets.target
`, net.JoinHostPort(host, port), unix)
	return []unit{{filepath.Join(folder, serviceName+".socket"), socket},
		{filepath.Join(folder, serviceName+".service"), b.String()}}, nil
}

// unixSocket returns the lines of the socket unit for --unix. Systemd makes the socket, for the user that the server
// has, and removes it when it stops to listen.
func (c *call) unixSocket() (lines string, err error) {
	if !c.has("unix") {
		return "", nil
	}
	path := c.value("unix")
	if path == "" {
		return "", c.usageErr("--unix is empty")
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", err
	}
	const most = 107 // sockaddr_un(7), and a NUL
	switch info, err := os.Lstat(path); {
	case len(path) > most:
		return "", c.usageErr("--unix: the path of a socket has at most %d bytes, and this one has %d", most, len(path))
	case strings.ContainsFunc(path, unicode.IsControl), strings.HasSuffix(path, " "), strings.HasSuffix(path, `\`):
		return "", c.usageErr("--unix %q: a unit cannot have this path", path)
	case err == nil && info.Mode().Type() != fs.ModeSocket:
		return "", fmt.Errorf("--unix: %s is there and no socket, and systemd would remove it", daemon.Word(path))
	}
	lines = "ListenStream=" + strings.ReplaceAll(path, "%", "%%") + "\nSocketMode=0600\nRemoveOnStop=yes\n"
	if !c.has("user") {
		lines += "SocketUser=" + serviceName + "\n"
	}
	return lines, nil
}

// unitFolder is where the units go.
func (c *call) unitFolder() (string, error) {
	if !c.has("user") {
		return "/etc/systemd/system", nil
	}
	config := c.getenv("XDG_CONFIG_HOME")
	if config == "" {
		home := c.getenv("HOME")
		if home == "" {
			return "", errors.New("there is no HOME to put the units into")
		}
		config = filepath.Join(home, ".config")
	}
	return filepath.Join(config, "systemd", "user"), nil
}

// bootTarget is what wants the service at boot, or at the login of its user.
func (c *call) bootTarget() string {
	if c.has("user") {
		return "default.target"
	}
	return "multi-user.target"
}

// isOfHome tells whether a flag or a path has a file that ProtectHome= would hide.
func isOfHome(arg string) bool {
	_, path, found := strings.Cut(strings.Trim(arg, `"`), "=")
	if !found {
		path = arg
	}
	return slices.ContainsFunc([]string{"/home/", "/root/", "/run/user/"}, func(p string) bool {
		return strings.HasPrefix(path, p)
	})
}

// unitWord is s as one word of a unit's command: systemd.syntax(7).
func unitWord(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$", "\n", `\n`).Replace(s)
	if s == "" || strings.ContainsAny(s, " \t;'\"\\") {
		return `"` + s + `"`
	}
	return s
}

func serviceInstall(ctx context.Context, c *call) error {
	units, err := c.units()
	if err != nil {
		return err
	}
	if c.has("print") {
		for _, u := range units {
			fmt.Fprintf(c.stdout, "# %s\n%s\n", u.path, u.text)
		}
		return nil
	}
	var stale []string // what may run as it was installed before
	for i, u := range units {
		had, err := os.ReadFile(u.path)
		switch {
		case err != nil: // the first time
		case i == 0 && string(had) != u.text:
			stale = []string{".socket", ".service"}
		case stale == nil:
			stale = []string{".service"}
		}
		if err := os.MkdirAll(filepath.Dir(u.path), 0o755); err != nil {
			return c.needsRoot(err)
		}
		if err := os.WriteFile(u.path, []byte(u.text), 0o644); err != nil {
			return c.needsRoot(err)
		}
		fmt.Fprintf(c.stderr, "streamctl: wrote %s\n", daemon.Word(u.path))
	}
	return c.sayNext(c.afterInstall(stale)...)
}

// afterInstall is what to type then.
func (c *call) afterInstall(stale []string) (next []string) {
	if c.has("user") {
		next = []string{"loginctl enable-linger   # to run also while you are not logged in"}
	} else {
		next = []string{"id " + serviceName + " || sudo useradd --system --shell /usr/sbin/nologin --no-create-home " +
			serviceName}
	}
	if f, err := c.folder(); err == nil && c.has("dir") && !c.has("user") { // without it the sandbox cannot be made
		dir := daemon.ShellWord(f.dir)
		next = append(next, fmt.Sprintf("test -d %s || sudo install -d -m 700 -o %s -g %[2]s %[1]s", dir, serviceName))
	}
	next = append(next, c.systemctl("daemon-reload"), c.systemctl("enable --now", ".socket", ".service"))
	if stale != nil { // a socket that is the same as before keeps who comes meanwhile
		next = append(next, c.systemctl("restart", stale...))
	}
	return next
}

// systemctl is a command of its, about the units that end so.
func (c *call) systemctl(command string, ends ...string) string {
	s := "sudo systemctl " + command
	if c.has("user") {
		s = "systemctl --user " + command
	}
	for _, end := range ends {
		s += " " + serviceName + end
	}
	return s
}

// unitName is of a unit that a server says it is. The server may be anybody's, and what is said of it is to be typed.
var unitName = regexp.MustCompile(`^(--user )?[A-Za-z0-9_][A-Za-z0-9:_.@-]*\.service$`)

// systemctl is a command of its about the server, "" where systemd has not started that.
func (s server) systemctl(command string) string {
	switch {
	case !unitName.MatchString(s.Unit):
		return ""
	case strings.HasPrefix(s.Unit, "--user "):
		return "systemctl " + strings.Replace(s.Unit, " ", " "+command+" ", 1)
	}
	return "sudo systemctl " + command + " " + s.Unit
}

// restart is what to type for another start of the folder's server.
func (f folder) restart(s server) string {
	return cmp.Or(s.systemctl("restart"), f.command("server restart"))
}

// sayNext says what to type.
func (c *call) sayNext(commands ...string) error {
	fmt.Fprintln(c.stderr, "Next:")
	for _, command := range commands {
		fmt.Fprintln(c.stderr, " ", command)
	}
	return nil
}

// needsRoot is err, where that is for want of a right with what to type instead.
func (c *call) needsRoot(err error) error {
	if !errors.Is(err, fs.ErrPermission) || c.has("user") {
		return err
	}
	return hintError{err, "sudo streamctl " + c.name + ", or --user"}
}

func serviceUninstall(ctx context.Context, c *call) error {
	folder, err := c.unitFolder()
	if err != nil {
		return err
	}
	found := false
	for _, name := range []string{serviceName + ".service", serviceName + ".socket",
		filepath.Join(c.bootTarget()+".wants", serviceName+".service"), // a link of systemctl enable's, as the next one
		filepath.Join("sockets.target.wants", serviceName+".socket")} {
		path := filepath.Join(folder, name)
		if c.has("print") {
			fmt.Fprintln(c.stdout, path)
			continue
		}
		switch err := os.Remove(path); {
		case err == nil:
			found = true
			fmt.Fprintf(c.stderr, "streamctl: removed %s\n", daemon.Word(path))
		case !errors.Is(err, fs.ErrNotExist):
			return c.needsRoot(err)
		}
	}
	switch {
	case c.has("print"):
		return nil
	case !found:
		return fmt.Errorf("%w: there are no units in %s", errNotRunning, daemon.Word(folder))
	}
	return c.sayNext(c.systemctl("stop", ".socket", ".service"), c.systemctl("daemon-reload"))
}

func serviceStatus(ctx context.Context, c *call) error {
	folder, err := c.unitFolder()
	if err != nil {
		return err
	}
	path := filepath.Join(folder, serviceName+".service")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return hintError{fmt.Errorf("%w: there is no %s", errNotRunning, daemon.Word(path)), "streamctl service install"}
	} else if err != nil {
		return err
	}
	members := [][2]string{{"unit", path}}
	active := false
	for _, of := range [][2]string{{".service", "ActiveState,StatusText,MainPID,UnitFileState"}, {".socket", "Listen"}} {
		args := []string{"show", "--property=" + of[1], serviceName + of[0]}
		if c.has("user") {
			args = append([]string{"--user"}, args...)
		}
		out, err := exec.CommandContext(ctx, "systemctl", args...).Output()
		if err != nil {
			return fmt.Errorf("%s is there, but systemctl does not tell of it: %w", daemon.Word(path), err)
		}
		for line := range strings.Lines(string(bytes.TrimSpace(out))) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			active = active || name == "ActiveState" && value == "active"
			words := map[string]string{"ActiveState": "state", "StatusText": "says", "MainPID": "pid",
				"UnitFileState": "at boot", "Listen": "listens"}
			members = append(members, [2]string{cmp.Or(words[name], name), strings.TrimSuffix(value, " (Stream)")})
		}
	}
	err = c.table(members)
	if err == nil && !active {
		err = hintError{fmt.Errorf("%w: the unit is there and not active", errNotRunning),
			c.systemctl("start", ".service") + "; journalctl -u " + serviceName}
	}
	return err
}
