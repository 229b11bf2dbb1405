package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/matryer/is"
)

// TestService: the units are what systemd takes, they keep a server from what it does not need, and go again.
func TestService(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	printed := p.ok("streamctl service install --print --port 3999 --retain 'a b/*=7d' --tokens '100%%.tokens'")
	for _, want := range []string{"ListenStream=127.0.0.1:3999\n", "Type=notify\n", "StateDirectory=streamd\n", "User=streamd\n",
		"\nStartLimitIntervalSec=0\n", // else the fifth failure within ten seconds closes the socket, too, for good
		` --dir=%S/streamd "--retain=a b/*=7d" --tokens=` + p.dir + "/100%%.tokens --exit-on-failure\n"} {
		if !strings.Contains(printed, want) {
			t.Errorf("there is no %q in\n%s", want, printed)
		}
	}
	is.True(!strings.Contains(printed, "--port"))
	is.Equal(p.run("streamctl service install --port 0").code, 2)

	// The socket of --unix is the server's user's alone, and systemd replaces whatever stands there.
	is.True(!strings.Contains(printed, "SocketMode="))
	printed = p.ok("streamctl service install --print --unix 'run/100%% of'")
	is.True(strings.Contains(printed, "\nListenStream=127.0.0.1:3000\nListenStream="+p.dir+"/run/100%% of\n"+
		"SocketMode=0600\nRemoveOnStop=yes\nSocketUser=streamd\n\n"))
	is.True(!strings.Contains(printed, "--unix"))
	printed = p.ok("streamctl service install --print --user --unix /run/s")
	is.True(strings.Contains(printed, "\nSocketMode=0600\n") && !strings.Contains(printed, "User="))
	for _, path := range []string{"''", "\"$(printf 'a\nb')\"", `'a\'`, "'a '", strings.Repeat("x", 108)} {
		is.Equal(p.run("streamctl service install --print --unix %s", path).code, 2) // path
	}
	is.True(strings.Contains(p.run("touch precious; streamctl service install --print --unix precious").stderr,
		"/precious is there and no socket, and systemd would remove it\n"))

	said := p.run("XDG_CONFIG_HOME=%s streamctl service install --user --port 3999", p.dir)
	is.Equal(said.code, 0)
	is.True(strings.Contains(said.stderr, "systemctl --user enable --now streamd.socket streamd.service"))
	is.Equal(p.ok("ls systemd/user"), "streamd.service\nstreamd.socket\n")
	is.True(!strings.Contains(said.stderr, "restart"))
	for flags, next := range map[string]string{ // what was installed before may run
		"--port 3999 --tokens t": "restart streamd.service", "--port 3998": "restart streamd.socket streamd.service"} {
		said := p.run("XDG_CONFIG_HOME=%s streamctl service install --user --port 3999; "+
			"XDG_CONFIG_HOME=%[1]s streamctl service install --user %s", p.dir, flags)
		is.Equal(said.code, 0)
		is.True(strings.HasSuffix(said.stderr, "  systemctl --user "+next+"\n"))
	}
	if _, err := exec.LookPath("systemd-analyze"); err == nil {
		// Units of systemd go by their file's name.
		p.ok(`mkdir system && streamctl service install --print --port 3999 --unix '/run/a b%%' | ` +
			`awk '/^# \// {f = $2; sub(".*/", "system/", f); next} {print > f}'`)
		verified := p.run("systemd-analyze verify ./system/streamd.service ./system/streamd.socket")
		is.Equal(verified.stderr+verified.stdout, "")
		out := p.run("systemd-analyze security --offline=true ./system/streamd.service").stdout
		m := regexp.MustCompile(`streamd.service: (\d+\.\d)`).FindStringSubmatch(out)
		if m == nil {
			t.Errorf("systemd-analyze security gives no score: %s", out)
		} else if score, err := strconv.ParseFloat(m[1], 64); err != nil || score >= 3 {
			t.Errorf("systemd-analyze security: %s", m[1])
		}
	} else {
		t.Log("there is no systemd-analyze: the units were not verified")
	}
	// What systemctl of 252 says.
	p.ok(`mkdir bin && cat > bin/systemctl << 'E' && chmod +x bin/systemctl
#!/bin/sh
test "$1 $2" = "--user show" || exit 1
case "$4" in
streamd.service) printf 'MainPID=118\nStatusText=2 streams open\nActiveState=active\nUnitFileState=enabled\n' ;;
streamd.socket) printf 'Listen=127.0.0.1:3999 (Stream)\nListen=/run/s (Stream)\n' ;;
esac
E`)
	is.Equal(p.ok(`XDG_CONFIG_HOME=%s PATH="$PWD/bin:$PATH" streamctl service status --user`, p.dir), "unit     "+p.dir+
		"/systemd/user/streamd.service\npid      118\nsays     2 streams open\nstate    active\nat boot  enabled\n"+
		"listens  127.0.0.1:3999\nlistens  /run/s\n")
	// As systemctl enable does.
	p.ok("cd systemd/user; mkdir sockets.target.wants default.target.wants; ln -s $PWD/streamd.socket $PWD/other.socket " +
		"sockets.target.wants; ln -s $PWD/streamd.service default.target.wants")
	is.Equal(p.run("XDG_CONFIG_HOME=%s streamctl service uninstall --user", p.dir).code, 0)
	is.Equal(p.ok("find systemd ! -type d | sort"), "systemd/user/sockets.target.wants/other.socket\n")
	is.Equal(p.run("XDG_CONFIG_HOME=%s streamctl service uninstall --user", p.dir).code, 3)
	is.Equal(p.run("XDG_CONFIG_HOME=%s streamctl service status --user", p.dir).code, 3)
}

// TestAfterInstall: the service has a user, and a folder that its sandbox lets it write to is there.
func TestAfterInstall(t *testing.T) {
	is := is.New(t)
	c := &call{given: map[string][]string{"dir": {"/srv/a b"}}}
	is.Equal(c.afterInstall(nil), []string{
		"id streamd || sudo useradd --system --shell /usr/sbin/nologin --no-create-home streamd",
		"test -d '/srv/a b' || sudo install -d -m 700 -o streamd -g streamd '/srv/a b'",
		"sudo systemctl daemon-reload", "sudo systemctl enable --now streamd.socket streamd.service"})
	is.Equal(len((&call{given: map[string][]string{}}).afterInstall(nil)), 3) // systemd makes /var/lib/streamd
}

// TestUnitWord: systemd reads what was meant.
func TestUnitWord(t *testing.T) {
	is := is.New(t)
	for s, word := range map[string]string{"a": "a", "": `""`, "a b": `"a b"`, `"`: `"\""`, "100%": "100%%", "$HOME": "$$HOME",
		"it's": `"it's"`, `a\b`: `"a\\b"`} {
		is.Equal(unitWord(s), word)
	}
}

// TestCompletion: commands, flags, values and the names of streams; no server is started for them.
func TestCompletion(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	is.Equal(p.ok("streamctl __complete -- stream get -n ''"), "")
	p.ok("test ! -e .iterate")
	p.start()
	p.ok("for s in jobs/1 jobs/2 orders 'a b'; do streamctl stream append -q -n \"$s\" -m x; done")
	for line, want := range map[string]string{
		"ser":                              "server\nservice\n",
		"server st":                        "start\nstop\nstatus\n",
		"stream get -n jobs/":              "jobs/1\njobs/2\n",
		"stream get --name ''":             "jobs/1\njobs/2\norders\n",
		"stream get --dir elsewhere -n ''": "",
		"stream append --qu":               "--quiet\n",
		"token create x --can ''":          "",
		"server start --storage m":         "memory\n",
		"completion ''":                    "bash\nzsh\nfish\n",
		"stream get -n jobs/1 --la":        "--last\n",
	} {
		if got := p.ok("streamctl __complete -- %s", line); got != want {
			t.Errorf("%s: %q", line, got)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if _, err := exec.LookPath(shell); err != nil {
			t.Logf("there is no %s: its script was not read", shell)
			continue
		}
		p.ok("streamctl completion %s > script && %s -n script", shell, shell)
	}
	if _, err := exec.LookPath("zsh"); err == nil { // whose completion goes by functions of its own
		is.Equal(p.ok(`streamctl completion zsh > script; zsh -fc 'compdef() {}; compadd() { shift 2; print -l -- "$@" }; `+
			`. ./script; words=(streamctl stream get -n or); CURRENT=5; _streamctl'`), "orders\n")
	}
	if _, err := exec.LookPath("fish"); err == nil {
		is.Equal(p.ok(`streamctl completion fish > script; `+
			`HOME=. fish -c '. ./script; complete -C "streamctl stream get -n or"'`), "orders\n")
	}
	if _, err := exec.LookPath("bash"); err == nil {
		is.Equal(p.ok(`bash -c '. ./script 2>/dev/null; eval "$(streamctl completion bash)"; `+
			`COMP_WORDS=(streamctl stream get -n or); COMP_CWORD=4; _streamctl; echo "${COMPREPLY[@]}"'`), "orders\n")
	}
}

// TestManPages: they have every command and every flag, as the help has.
func TestManPages(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	page := strings.ReplaceAll(p.ok("streamctl man"), `\-`, "-")
	for _, c := range commands {
		is.True(strings.Contains(page, "Usage: streamctl "+c.name))
	}
	page = strings.ReplaceAll(p.ok("streamctl man streamd"), `\-`, "-")
	for _, f := range daemon.Flags {
		is.True(strings.Contains(page, "--"+f.Name))
	}
	for _, c := range streamdCommands {
		is.True(strings.Contains(page, strings.TrimSpace("Usage: streamd "+c)))
	}
	if _, err := exec.LookPath("groff"); err == nil {
		is.Equal(p.ok("streamctl man streamd | groff -man -Tutf8 -ww > /dev/null; streamctl man | groff -man -Tutf8 -ww | wc -c | "+
			"{ read n; test $n -gt 10000; }"), "")
	}
}

// TestQuiet: what is well is not told, and git is not told of what the server has for itself.
func TestQuiet(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	p.ok("streamctl stream append -n s -q -m hello")
	is.Equal(p.ok("printf '1\\n2\\n' | streamctl stream append -n s --quiet"), "")
	is.Equal(len(strings.Split(p.ok("streamctl stream get -n s --data"), "\n")), 4)
	is.Equal(p.run("streamctl stream append -q -n s -e '{'").code, 2)
	is.Equal(p.ok("streamctl version"), p.ok("streamctl --version"))
	if _, err := exec.LookPath("git"); err == nil {
		p.ok("touch .iterate/daemon.log .iterate/session.key && git init -q . && git add .")
		for name := range strings.SplitSeq(strings.TrimSpace(p.ok("git ls-files")), "\n") {
			switch dir, base := filepath.Split(name); {
			case dir == ".iterate/streams/", base == ".gitignore", base == "format", base == "deletions":
			default:
				t.Errorf("git is given %s", name)
			}
		}
		is.True(strings.Contains(p.ok("git ls-files"), ".iterate/streams/s.json"))
	}
}
