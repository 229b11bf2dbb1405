package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib/streamhttp/tokens"
	"github.com/matryer/is"
)

// TestTokensFromMakingToUse, as an operator would.
func TestTokensFromMakingToUse(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	secret := strings.TrimSpace(p.ok("streamctl token create ci --can write --prefix jobs/ --expires 30d --file tokens"))
	is.True(len(secret) >= 26 && !strings.ContainsAny(secret, " \n"))
	text, err := os.ReadFile(filepath.Join(p.dir, "tokens"))
	is.NoErr(err)
	is.True(!strings.Contains(string(text), secret))
	info, err := os.Stat(filepath.Join(p.dir, "tokens"))
	is.NoErr(err)
	is.Equal(info.Mode().Perm(), os.FileMode(0o600))
	list, err := tokens.Parse(text)
	is.NoErr(err)
	is.True(len(list) == 1 && list[0].Prefixes[0] == "jobs/" &&
		time.Until(list[0].Expires).Round(time.Hour) == 30*24*time.Hour)

	p.ok("streamctl server start --port 0 --tokens tokens") // the path is of this folder, not of the daemon's
	is.NoErr(os.WriteFile(filepath.Join(p.dir, "mine"), []byte("\ufeff"+secret+"\r\n"), 0o600))
	p.ok("DURABLE_STREAMS_TOKEN=%s streamctl stream append -n jobs/1 -m one", secret)
	p.ok("streamctl stream append -n jobs/2 -m 'needs none'") // whoever may use the folder
	p.ok("streamctl stream delete -n jobs/2")
	p.ok("export DURABLE_STREAMS_TOKEN=wrong; streamctl stream get -n jobs/1; streamctl bench --conns 1 --duration 10ms")

	url := fmt.Sprintf("export DURABLE_STREAMS_URL=http://127.0.0.1:%d; ", p.port())
	// A flag beats the environment.
	p.ok("%sDURABLE_STREAMS_TOKEN=wrong streamctl stream append -n jobs/1 -m two --token-file mine", url)
	is.Equal(texts(p.ok("%sstreamctl stream get -n jobs/1 --token-file mine", url)), []string{"one", "two"})
	is.Equal(p.ok("%sstreamctl stream list --token-file mine", url), "jobs/1\n")

	for _, test := range []struct{ line, says, try string }{
		{"streamctl stream get -n jobs/1", "a token is needed",
			"streamctl stream get -n jobs/1 --token-file FILE, where FILE has the token; or set DURABLE_STREAMS_TOKEN to it"},
		{"streamctl stream list", "a token is needed", "streamctl stream list --token-file FILE"},
		{"streamctl stream subscribe --all", "a token is needed", "streamctl stream subscribe --token-file FILE"},
		{"echo 1 | streamctl stream append -n jobs/1", "a token is needed", "--token-file FILE"},
		{"DURABLE_STREAMS_TOKEN=wrong streamctl stream get -n jobs/1", "is not known here", "streamctl token create NAME"},
		{"streamctl stream get -n other --token-file mine",
			`the right to read on stream "other", and "ci" has write on streams that begin with ["jobs/"]`, ""},
		{"streamctl stream delete -n jobs/1 --token-file mine", "the right to admin", ""},
		{"streamctl stream get -n jobs/1 --token-file none", "--token-file: open none: no such file", ""},
		{"streamctl stream get -n jobs/1 --token-file /dev/null", "is empty", ""},
		{"DURABLE_STREAMS_TOKEN='a b' streamctl stream get -n jobs/1", "more than a token", ""},
	} {
		r := p.run("%s", url+test.line)
		if r.code != 1 || r.stdout != "" || !strings.Contains(r.stderr, test.says) ||
			!strings.Contains(r.stderr, test.try) || strings.Contains(r.stderr, secret) {
			t.Errorf("$ %s\nexit %d\n%s%s", test.line, r.code, r.stdout, r.stderr)
		}
	}

	// Who may use the folder ends its server and starts it again without a token; nothing of the token is to be seen.
	status := p.ok("DURABLE_STREAMS_TOKEN=%s streamctl server status", secret)
	is.True(strings.Contains(status, "--tokens="+filepath.Join(p.dir, "tokens")) && !strings.Contains(status, secret))
	p.ok("cd / && DURABLE_STREAMS_TOKEN=%s streamctl server restart --dir %s/.iterate", secret, p.dir)
	is.Equal(p.texts("jobs/1", "--token-file mine"), []string{"one", "two"})
	log, err := os.ReadFile(filepath.Join(p.dir, ".iterate", "daemon.log"))
	is.NoErr(err)
	is.True(!strings.Contains(string(log), secret))
	if pid := strings.TrimSpace(p.ok("cat .iterate/daemon.pid")); p.run("test -r /proc/%s/environ", pid).code == 0 {
		is.True(!strings.Contains(p.ok("cat /proc/%s/environ /proc/%[1]s/cmdline", pid), secret))
	}
	p.ok("streamctl server stop")
}

// TestTokenCreate: what it takes, and what it prints.
func TestTokenCreate(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	out := p.ok("streamctl token create ci --can read --prefix 'a b%%/' --prefix=c")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	is.Equal(len(lines), 2)
	secret, line := strings.Fields(lines[0])[1], strings.TrimSpace(strings.TrimPrefix(lines[1], "line"))
	list, err := tokens.Parse([]byte(line))
	is.NoErr(err)
	is.Equal(list[0].Prefixes, []string{"a b%/", "c"})
	is.True(!strings.Contains(line, secret))
	var told struct{ Name, Secret, Line, File string }
	is.NoErr(json.Unmarshal([]byte(p.ok("streamctl token create --can=admin ops --expires "+
		"2030-01-01T00:00:00+01:00 --json --file t")), &told))
	is.Equal(p.ok("tail -1 t"), told.Line+"\n")
	is.True(told.Name == "ops" && told.File == "t" && strings.HasSuffix(told.Line, " admin expires=2029-12-31T23:00:00Z"))

	for _, test := range []struct {
		line string
		code int
		says string
	}{
		{"streamctl token create", 2, "NAME is missing"},
		{"streamctl token create a", 2, "--can read, --can write or --can admin"},
		{"streamctl token create a --can delete", 2, "--can read, --can write or --can admin"},
		{"streamctl token create a b --can read", 2, `unexpected argument "b"`},
		{"streamctl token create 'a b' --can read", 2, "white space"},
		{"streamctl token create '#a' --can read", 2, "does not begin with #"},
		{"streamctl token create a --can read --prefix ''", 2, "a prefix is the beginning"},
		{"streamctl token create a --can read --expires 0d", 2, "a time to come"},
		{"streamctl token create a --can read --expires -1h", 2, "a time to come"},
		{"streamctl token create a --can read --expires 2020-01-01T00:00:00Z", 2, "a time to come"},
		{"streamctl token create a --can read --expires soon", 2, "a time to come"},
		{"streamctl token create a --can read --expires 99999999d", 2, "before the year 10000"},
		{"streamctl token create ops --can read --file t", 1, `it has a token "ops" already`},
		{"chmod 644 t; streamctl token create a --can read --file t", 1, "chmod 600 t"},
		{"streamctl token create a --can read --file none/t", 1, "none/t: no such file"},
		{"streamctl token create a --can read --file ''", 2, "--file is empty"},
		{"streamctl token create a --can read --server http://127.0.0.1:1", 2, "takes no --server"},
		{"streamctl token", 2, "which of its commands?"},
		{"streamctl token make", 2, "unknown command"},
	} {
		r := p.run("%s", test.line)
		if r.code != test.code || r.stdout != "" || !strings.Contains(r.stderr, test.says) {
			t.Errorf("$ %s\nexit %d\n%s%s", test.line, r.code, r.stdout, r.stderr)
		}
	}
	is.True(strings.Contains(p.ok("streamctl token --help"), "token create"))
}
