package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/matryer/is"
)

// noEnv is an empty environment.
func noEnv(string) string { return "" }

// environment is one with these variables: NAME=VALUE.
func environment(variables ...string) func(string) string {
	return func(name string) string {
		for _, v := range variables {
			if value, ok := strings.CutPrefix(v, name+"="); ok {
				return value
			}
		}
		return ""
	}
}

// TestSettings: a flag wins over the environment, which wins over the default, and each is told with where it is from.
func TestSettings(t *testing.T) {
	is := is.New(t)
	env := environment("STREAMD_PORT=8001", "STREAMD_MAX_EVENT=1000", "STREAMD_ALLOW_HOST=a.example b.example",
		"STREAMD_INSECURE_NO_AUTH=true", "STREAMD_SYNC=", "STREAMD_CHECK=true", "STREAMD_DIR=/somewhere")
	var out bytes.Buffer
	is.NoErr(run(t.Context(), []string{"config", "--port", "0", "--retain", "a b=7d"}, env, nil, &out, io.Discard))
	lines := map[string]bool{}
	for line := range strings.Lines(out.String()) {
		lines[strings.Join(strings.Fields(line), " ")] = true
	}
	for _, want := range []string{"--port=0 # flag", "--max-event=1000 # STREAMD_MAX_EVENT",
		"--allow-host=a.example # STREAMD_ALLOW_HOST", "--allow-host=b.example # STREAMD_ALLOW_HOST",
		"--insecure-no-auth=true # STREAMD_INSECURE_NO_AUTH", "--sync=always # default", "--retain='a b=7d' # flag",
		"--dir=/somewhere # STREAMD_DIR"} {
		if !lines[want] {
			t.Errorf("no line %s in\n%s", want, out.String())
		}
	}
	o, err := parse([]string{"--sync", "none"}, env, io.Discard)
	is.NoErr(err)
	is.Equal(o.own, []string{"--sync=none"}) // the environment is there at the next start too
	is.Equal(o.port, 8001)
}

func TestWrongEnvironment(t *testing.T) {
	for variable, says := range map[string]string{
		"STREAMD_PORT=tcp://10.0.0.1:80":     `STREAMD_PORT "tcp://10.0.0.1:80": a port is a number`,
		"STREAMD_MAX_EVENT=much":             `STREAMD_MAX_EVENT: "much"`,
		"STREAMD_INSECURE_NO_AUTH=perhaps":   `STREAMD_INSECURE_NO_AUTH: "perhaps"`,
		"STREAMD_SYNC=often":                 `STREAMD_SYNC "often": it is always or none`,
		"STREAMD_RETAIN=*=7d *=8d":           `STREAMD_RETAIN "*=8d": there is another rule`,
		"STREAMD_ALLOW_HOST=a.example a/b":   `STREAMD_ALLOW_HOST: "a/b"`,
		"STREAMD_TOKENS=/nowhere/of/a/token": "/nowhere/of/a/token",
	} {
		t.Run(variable, func(t *testing.T) {
			is := is.New(t)
			err := run(t.Context(), []string{"--check", "--dir", t.TempDir()}, environment(variable), nil, io.Discard,
				io.Discard)
			is.True(err != nil)
			if !strings.Contains(err.Error(), says) {
				t.Errorf("%v does not say %s", err, says)
			}
		})
	}
}
