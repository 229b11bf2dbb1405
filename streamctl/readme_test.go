package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matryer/is"
)

// blocks returns what the README has between ``` and ``` in a language, with what follows each block.
func blocks(t *testing.T, language string) (blocks, after []string) {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(readme), "\n```"+language+"\n")
	for _, part := range parts[1:] {
		block, rest, ok := strings.Cut(part, "\n```\n")
		if !ok {
			t.Fatalf("a block without its end: %.80s", part)
		}
		blocks, after = append(blocks, block+"\n"), append(after, rest)
	}
	if len(blocks) == 0 {
		t.Fatalf("the README has no %s", language)
	}
	return blocks, after
}

// The README's sessions are one session, and its terminal shows what it shows there, but for times, the pid, the port and the folder.
func TestReadmeSessions(t *testing.T) {
	for _, tool := range []string{"curl", "jq"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: scripts/tools does it", tool)
		}
	}
	p := newPlace(t)
	sessions, _ := blocks(t, "console")
	url := "http://127.0.0.1:3000"
	var got strings.Builder
	for line := range strings.Lines(strings.Join(sessions, "")) {
		command, ok := strings.CutPrefix(line, "$ ")
		if !ok {
			continue
		}
		r := p.run("{ %s } 2>&1", strings.ReplaceAll(command, "http://127.0.0.1:3000", url))
		got.WriteString(line + r.stdout)
		if !strings.HasSuffix(r.stdout, "\n") && r.stdout != "" {
			fmt.Fprintln(&got)
		}
		if b, err := os.ReadFile(filepath.Join(p.dir, ".iterate", "daemon.port")); err == nil {
			url = "http://127.0.0.1:" + strings.TrimSpace(string(b))
		}
	}
	want := p.normal(strings.ReplaceAll(strings.Join(sessions, ""), "/home/you", p.dir))
	if got := p.normal(got.String()); got != want {
		t.Error(firstDifference(want, got))
	}
}

// The README's programs are complete; what the hooks print stands behind theirs, and the first is as short as is said.
func TestReadmePrograms(t *testing.T) {
	is := is.New(t)
	programs, after := blocks(t, "go")
	is.Equal(len(programs), 2)
	is.True(strings.Count(programs[0], "\n") <= 15)
	library, err := filepath.Abs("../streamlib")
	is.NoErr(err)
	run := func(program string) string {
		dir := t.TempDir()
		is.NoErr(os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600))
		is.NoErr(os.WriteFile(filepath.Join(dir, "go.mod"), fmt.Appendf(nil, "module example\n\ngo 1.26\n\n"+
			"require github.com/iterate/durable-streams/streamlib v0.0.0\n\nreplace github.com/iterate/durable-streams/streamlib => %q\n", library), 0o600))
		c := exec.Command("go", "run", ".")
		c.Dir, c.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	is.True(strings.Contains(run(programs[0]), `"eventStreamId":"orders","data":{"n":1}`))
	_, printed, _ := strings.Cut(after[1], "\n```\n")
	printed, _, _ = strings.Cut(printed, "```\n")
	is.Equal(run(programs[1]), printed)
}
