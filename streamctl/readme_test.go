package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/matryer/is"
)

const (
	libraryPage = "../streamlib/README.md"
	httpPage    = "../streamlib/streamhttp/README.md"
)

// pages returns the READMEs of the workspace.
func pages(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "README.md" {
			return err
		}
		text, err := os.ReadFile(path)
		pages[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

// blocks returns what a page has between ``` and ``` in a language, with what follows each block.
func blocks(t *testing.T, page, language string) (blocks, after []string) {
	t.Helper()
	parts := strings.Split(page, "\n```"+language+"\n")
	for _, part := range parts[1:] {
		block, rest, ok := strings.Cut(part, "\n```\n")
		if !ok {
			t.Fatalf("a block without its end: %.80s", part)
		}
		blocks, after = append(blocks, block+"\n"), append(after, rest)
	}
	return blocks, after
}

// needTools skips the test where a tool is not there.
func needTools(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: scripts/tools does it", tool)
		}
	}
}

// A page's sessions are one session in a new folder, and its terminal shows what it shows there, but for times, the
// pid, the port and the folder.
func TestReadmeSessions(t *testing.T) {
	needTools(t, "curl", "jq")
	shown := 0
	for path, page := range pages(t) {
		sessions, _ := blocks(t, page, "console")
		if shown += len(sessions); len(sessions) == 0 {
			continue
		}
		t.Run(path, func(t *testing.T) {
			p := newPlace(t)
			if strings.HasPrefix(sessions[0], "$ curl") { // of a server that runs
				p.start()
			}
			url := "http://127.0.0.1:3000"
			var got strings.Builder
			for line := range strings.Lines(strings.Join(sessions, "")) {
				command, ok := strings.CutPrefix(line, "$ ")
				if !ok {
					continue
				}
				if b, err := os.ReadFile(filepath.Join(p.dir, ".iterate", "daemon.port")); err == nil {
					url = "http://127.0.0.1:" + strings.TrimSpace(string(b))
				}
				r := p.run("{ %s } 2>&1", strings.ReplaceAll(command, "http://127.0.0.1:3000", url))
				got.WriteString(line + r.stdout)
				if !strings.HasSuffix(r.stdout, "\n") && r.stdout != "" {
					fmt.Fprintln(&got)
				}
			}
			want := p.normal(strings.ReplaceAll(strings.Join(sessions, ""), "/home/you", p.dir))
			if got := p.normal(got.String()); got != want {
				t.Error(firstDifference(want, got))
			}
		})
	}
	is.New(t).True(shown >= 10) // the pages have some
}

// The library's programs are complete; what the hooks print stands behind theirs.
func TestReadmePrograms(t *testing.T) {
	is := is.New(t)
	programs, after := blocks(t, pages(t)[libraryPage], "go")
	is.Equal(len(programs), 2)
	library, err := filepath.Abs("../streamlib")
	is.NoErr(err)
	run := func(program string) string {
		dir := t.TempDir()
		is.NoErr(os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600))
		is.NoErr(os.WriteFile(filepath.Join(dir, "go.mod"), fmt.Appendf(nil, "module example\n\ngo 1.26\n\n"+
			"require github.com/iterate/durable-streams/streamlib v0.0.0\n\n"+
			"replace github.com/iterate/durable-streams/streamlib => %q\n", library), 0o600))
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

// What a page appends by fetch is what the EventSource of the page beside it is sent.
func TestReadmeJavaScript(t *testing.T) {
	needTools(t, "node", "curl")
	is := is.New(t)
	p := newPlace(t)
	p.start()
	examples, _ := blocks(t, pages(t)[httpPage], "js")
	is.Equal(len(examples), 2)
	program := fmt.Sprintf(`
const own = globalThis.fetch;
globalThis.fetch = (path, options) => own("http://127.0.0.1:%d" + path, options);
const made = [];
globalThis.EventSource = class extends EventTarget {
	static CLOSED = 2;
	constructor(url) { super(); this.url = url; made.push(this); }
	close() { console.log("closed"); }
};
%s
%s
const event = await append("a/b ✅", { type: "paid" });
made[0].onmessage({ data: JSON.stringify(event) });
made[0].dispatchEvent(new Event("end"));
made[0].readyState = 2;
made[0].onerror();
console.log(made[0].url, event.eventStreamId);
`, p.port(), examples[0], examples[1])
	is.NoErr(os.WriteFile(filepath.Join(p.dir, "example.mjs"), []byte(program), 0o600))
	r := p.run("node example.mjs 2>&1")
	is.Equal(r.stdout, "0000000000000000 { type: 'paid' }\nclosed\nthe stream was deleted, or the server refused\n"+
		"/streams/orders?offset=-1 a/b ✅\n")
}

func TestReadmePython(t *testing.T) {
	needTools(t, "python3")
	is := is.New(t)
	p := newPlace(t)
	p.start()
	examples, _ := blocks(t, pages(t)[httpPage], "python")
	is.Equal(len(examples), 1)
	program := strings.ReplaceAll(examples[0], "127.0.0.1:3000", fmt.Sprint("127.0.0.1:", p.port()))
	is.NoErr(os.WriteFile(filepath.Join(p.dir, "example.py"), []byte(program), 0o600))
	c := p.command("exec python3 -u example.py")
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.StdoutPipe()
	is.NoErr(err)
	is.NoErr(c.Start())
	defer c.Wait()
	defer c.Process.Kill()
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal(stderr.String())
	}
	is.True(strings.Contains(lines.Text(), `'offset': '0000000000000000'`))
	is.True(lines.Scan())
	is.Equal(lines.Text(), `{'type': 'paid'}`)
}

var (
	linkTo  = regexp.MustCompile(`\]\(([^)#:]*)(#[^)]*)?\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	code    = regexp.MustCompile("`--[a-z][^`]*`")
	aFlag   = regexp.MustCompile(`(?:^|[\s` + "`" + `])--([a-z][a-z-]+)`)
	ours    = regexp.MustCompile(`\bstream(ctl|d) .*`)

	anchor = strings.NewReplacer(" ", "-", "?", "", ",", "") // of a heading
)

// Every link of a page leads somewhere, and every flag that it names is one of the programs'.
func TestReadmesNameWhatThereIs(t *testing.T) {
	p := newPlace(t)
	known := p.ok("streamd --help") + p.ok("streamd repair --help")
	for _, f := range flags {
		known += " --" + f.Name + " "
	}
	all, links, named := pages(t), 0, 0
	for path, page := range all {
		for _, link := range linkTo.FindAllStringSubmatch(page, -1) {
			target := path
			if links++; link[1] != "" {
				target = filepath.Join(filepath.Dir(path), link[1])
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			found := link[2] == ""
			for _, h := range heading.FindAllStringSubmatch(all[target], -1) {
				found = found || link[2] == "#"+anchor.Replace(strings.ToLower(h[1]))
			}
			if !found {
				t.Errorf("%s: %s has no heading %s", path, target, link[2])
			}
		}
		texts := code.FindAllString(page, -1)
		for _, language := range []string{"sh", "console"} {
			commands, _ := blocks(t, page, language)
			for line := range strings.Lines(strings.Join(commands, "")) {
				texts = append(texts, ours.FindString(line))
			}
		}
		for _, flag := range aFlag.FindAllStringSubmatch(strings.Join(texts, "\n"), -1) {
			if named++; !strings.Contains(known, "--"+flag[1]+" ") {
				t.Errorf("%s: no program has --%s", path, flag[1])
			}
		}
	}
	is := is.New(t)
	is.True(links > 5)
	is.True(named > 20)
}
