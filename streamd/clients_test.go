//go:build unix

package main

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/matryer/is"
)

// TestClientsOfTheProtocol drives the clients that others made, as they come from npm, over SIGKILL and a new start.
func TestClientsOfTheProtocol(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes long")
	}
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("there is no %s: scripts/tools installs it", tool)
		}
	}
	is := is.New(t)
	dir := t.TempDir()
	is.NoErr(os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"private":true}`), 0o600))
	install, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	npm := exec.CommandContext(install, "npm", "install", "--no-audit", "--no-fund", "--silent",
		"@durable-streams/client@0.2.7", "@durable-streams/state@0.3.1", "@durable-streams/tanstack-ai-transport@0.0.9",
		"@tanstack/db@0.6.0")
	npm.Dir = dir
	npm.WaitDelay = time.Second
	if out, err := npm.CombinedOutput(); err != nil {
		t.Skipf("npm does not install the clients: %v: %s", err, out)
	}
	script, err := os.ReadFile("testdata/clients.mjs")
	is.NoErr(err)
	is.NoErr(os.WriteFile(filepath.Join(dir, "clients.mjs"), script, 0o600))

	data := t.TempDir()
	server := start(t, data)
	_, port, _ := strings.Cut(strings.TrimPrefix(server.url, "http://"), ":")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	node := exec.CommandContext(ctx, "node", "clients.mjs", server.url)
	node.Dir = dir
	node.WaitDelay = time.Second
	var said strings.Builder
	node.Stderr = &said
	out, err := node.StdoutPipe()
	is.NoErr(err)
	is.NoErr(node.Start())
	kills, done := 0, false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		switch lines.Text() {
		case "kill":
			kills++
			is.True(server.end(syscall.SIGKILL) != nil)
			server = startOn(t, data, port)
		case "done":
			done = true
		default:
			said.WriteString(lines.Text() + "\n")
		}
	}
	if err := node.Wait(); err != nil || !done || kills != 4 {
		t.Fatalf("%v after %d kills: %s", err, kills, said.String())
	}

	// So do the lines of the README.
	readme, err := os.ReadFile("../README.md")
	is.NoErr(err)
	_, lines, found := strings.Cut(string(readme), "```js\nimport { stream,")
	is.True(found)
	lines, _, _ = strings.Cut(lines, "```")
	lines = strings.Replace("import { stream,"+lines, "http://127.0.0.1:3000", server.url, 1)
	is.NoErr(os.WriteFile(filepath.Join(dir, "readme.mjs"), []byte(lines), 0o600))
	is.Equal(server.delete("orders"), 204) // which the script had
	shown := exec.CommandContext(ctx, "node", "readme.mjs")
	shown.Dir = dir
	printed, err := shown.CombinedOutput()
	is.NoErr(err)
	is.Equal(string(printed), "[ { type: 'paid' } ]\n")
	is.NoErr(server.end(syscall.SIGTERM))
}
