package streamlib_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"
)

// layers are the files of this package, inside out.
var layers = [][]string{
	{"doc.go"},
	{"event.go", "typed.go", "errors.go"},
	{"storage.go"},
	{"stream.go", "core.go", "commit.go", "import.go", "follow.go", "feed.go", "watch.go", "keys.go", "dropped.go", "since.go",
		"others.go"},
	{"hooks.go"},
	{"factory.go"},
	{"manager.go", "hear.go"},
}

// TestLayers: what a file names is declared in its own layer or in one further in.
func TestLayers(t *testing.T) {
	is := is.New(t)
	layer := map[string]int{}
	for i, files := range layers {
		for _, f := range files {
			layer[f] = i
		}
	}
	names, err := filepath.Glob("*.go")
	is.NoErr(err)
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		if _, ok := layer[name]; !ok {
			t.Errorf("%s is in no layer", name)
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		is.NoErr(err)
		files = append(files, f)
	}
	is.Equal(len(files), len(layer))

	// What is imported does not matter, so it is not looked at, and what cannot be resolved for that is no error.
	info := types.Info{Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: hollow{}, Error: func(error) {}}
	p, _ := config.Check("streamlib", fset, files, &info)
	found := 0
	for ident, used := range info.Uses {
		if used.Pkg() != p || !used.Pos().IsValid() {
			continue
		}
		user, declared := fset.Position(ident.Pos()), fset.Position(used.Pos())
		if user.Filename != declared.Filename {
			found++
		}
		if layer[declared.Filename] > layer[user.Filename] {
			t.Errorf("%v: %s is further out, in %s", user, ident.Name, declared.Filename)
		}
	}
	is.True(found > 100) // the test sees what files name of each other
}

// hollow imports every package as one in which nothing is declared.
type hollow struct{}

func (hollow) Import(name string) (*types.Package, error) {
	p := types.NewPackage(name, path.Base(name))
	p.MarkComplete()
	return p, nil
}

const (
	workspace = "github.com/iterate/durable-streams/"
	assertion = "github.com/matryer/is"
)

// TestImports: net/http comes in with streamhttp and object, and no further in, and nothing comes from elsewhere.
func TestImports(t *testing.T) {
	is := is.New(t)
	if _, err := os.Stat("../go.work"); err != nil {
		t.Skip("this is not the workspace")
	}
	list := exec.Command("go", "list", "-json=ImportPath,Deps,TestImports,XTestImports", "work")
	list.Dir, list.Stderr = "..", os.Stderr
	list.Env = append(os.Environ(), "GOWORK=") // the one there, also where the test was told to ignore it
	out, err := list.Output()
	is.NoErr(err)
	type listed struct {
		ImportPath                      string
		Deps, TestImports, XTestImports []string
	}
	seen := map[string]bool{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, workspace)
		seen[name] = true
		module, _, _ := strings.Cut(name, "/")
		forTests := name == "streamlib/streamtest"
		for _, dep := range p.Deps {
			switch {
			case dep == "net/http" && module != "streamd" && module != "streamctl" &&
				!strings.HasPrefix(name, "streamlib/streamhttp") && name != "streamlib/object":
				t.Errorf("%s reaches net/http", name)
			case (dep == "testing" || dep == assertion) && !forTests:
				t.Errorf("%s reaches %s, which is for tests", name, dep)
			case dep == workspace+"streamlib/streamtest":
				t.Errorf("%s reaches streamtest, which is for tests", name)
			case !allowed(dep):
				t.Errorf("%s reaches %s", name, dep)
			}
		}
		for _, dep := range slices.Concat(p.TestImports, p.XTestImports) {
			if !allowed(dep) {
				t.Errorf("the tests of %s import %s", name, dep)
			}
		}
	}
	for _, name := range []string{"streamlib", "streamlib/budget", "streamlib/daemon", "streamlib/disk", "streamlib/follower",
		"streamlib/memory", "streamlib/metrics", "streamlib/mirror", "streamlib/object", "streamlib/retention",
		"streamlib/streamhttp", "streamlib/streamhttp/page", "streamlib/streamhttp/protocol",
		"streamlib/streamhttp/tokens", "streamlib/streamtest",
		"streamlib/transfer", "streamlib/internal/commit", "streamlib/internal/names", "streamlib/internal/seal",
		"streamd", "streamd/internal/hooks", "streamd/internal/webhook", "streamctl"} {
		if !seen[name] {
			t.Errorf("%s was not looked at", name)
		}
	}
}

// allowed: the standard library, whose paths begin without a dot, this workspace, and the one package for tests.
func allowed(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".") || strings.HasPrefix(importPath, workspace) || importPath == assertion
}

// TestDocumentedExample: the program in the package's documentation is the one that runs as its Example.
func TestDocumentedExample(t *testing.T) {
	is := is.New(t)
	doc, err := os.ReadFile("doc.go")
	is.NoErr(err)
	example, err := os.ReadFile("example_test.go")
	is.NoErr(err)
	program, _, _ := strings.Cut(string(doc), "// Each layer")
	lines := 0
	at := string(example)
	for line := range strings.Lines(program) {
		code, ok := strings.CutPrefix(line, "//\t")
		if !ok {
			continue
		}
		lines++
		var found bool
		if _, at, found = strings.Cut(at, "\t"+strings.TrimSpace(code)+"\n"); !found {
			t.Errorf("doc.go has %q, the example has not, or not there", strings.TrimSpace(code))
			break
		}
	}
	is.True(lines > 10)
}
