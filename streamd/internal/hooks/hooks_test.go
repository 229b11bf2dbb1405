//go:build unix

package hooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/matryer/is"
)

type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// folder makes one with programs for the shell, by their names.
func folder(t *testing.T, programs map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "hooks")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func open(t *testing.T, dir string) (*Hooks, *logged) {
	t.Helper()
	log := &logged{}
	h, err := Open(dir, t.TempDir(), 2, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h, log
}

func manager(h *Hooks) *streamlib.Manager {
	f := streamlib.Factory(streamlib.Plain).WithHooks(h.Hooks())
	return streamlib.NewManager(memory.New(), f, streamlib.Options{})
}

func stream(h *Hooks) streamlib.Stream { return manager(h).Stream("a b/ä") }

func content(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestOneProcessAnAppend: with what is appended on its input, and the stream's name.
func TestOneProcessAnAppend(t *testing.T) {
	is := is.New(t)
	dir := folder(t, map[string]string{
		"before-append": `{ echo "$STREAM"; cat; } >> before`, "after-append": `{ echo "$STREAM"; cat; } >> after`,
	})
	h, log := open(t, dir)
	t.Setenv("DURABLE_STREAMS_TOKEN", "s3cret")
	receipt, err := stream(h).Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1", "{\n\"two\": 2}"), Key: "k"})
	is.NoErr(err)
	h.behind.Wait()
	is.Equal(content(t, dir, "before"), "a b/ä\n1\n{\"two\":2}\n")
	is.Equal(content(t, dir, "after"), fmt.Sprintf("a b/ä\n%s\n%s\n", receipt.Events[0], receipt.Events[1]))
	is.Equal(log.String(), "")
	is.True(!strings.Contains(strings.Join(environment(), " "), "s3cret"))
}

func TestAVetoIsWhatItSays(t *testing.T) {
	is := is.New(t)
	h, log := open(t, folder(t, map[string]string{
		"before-append": `grep -q no && { echo "no is not wanted" >&2; exit 3; }; exit 0`, "after-append": "echo oh >&2; exit 1",
	}))
	s := stream(h)
	_, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(`"yes"`, `"no"`)})
	veto, ok := errors.AsType[*streamlib.HookError](err)
	is.True(ok)
	is.Equal(*veto, streamlib.HookError{HookID: "before-append", Message: "no is not wanted"})
	info, err := s.Stat(t.Context())
	is.NoErr(err)
	is.Equal(info.Tail, streamlib.Offset(0))
	_, err = s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(`"yes"`)})
	is.NoErr(err)
	h.behind.Wait()
	is.Equal(strings.Count(log.String(), `msg="after-append failed"`), 1)
	is.True(strings.Contains(log.String(), "error=oh"))
	_, err = s.Append(t.Context(), streamlib.Batch{Close: true}) // has no data
	is.NoErr(err)
}

// TestTheTimeIsLimited: what has not ended is a veto, and is ended with all that it has started.
func TestTheTimeIsLimited(t *testing.T) {
	is := is.New(t)
	dir := folder(t, map[string]string{"before-append": "sleep 1000 & echo $! > child; sleep 1000"})
	h, _ := open(t, dir)
	h.limit = 2 * time.Second
	_, err := stream(h).Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})
	veto, ok := errors.AsType[*streamlib.HookError](err)
	is.True(ok)
	is.Equal(veto.Message, "it did not end in 2s")
	for { // it may be about to go
		state, err := os.ReadFile("/proc/" + strings.TrimSpace(content(t, dir, "child")) + "/stat")
		if err != nil || strings.Contains(string(state), ") Z") {
			break
		}
		time.Sleep(time.Millisecond)
	}
}

// TestNoMoreRunAtOnce than two, as it was opened.
func TestNoMoreRunAtOnce(t *testing.T) {
	is := is.New(t)
	program := `mkdir running.$$; ls -d running.* | wc -l >> NAME; sleep 0.05; rmdir running.$$`
	dir := folder(t, map[string]string{"before-append": strings.ReplaceAll(program, "NAME", "counts")})
	h, _ := open(t, dir)
	s := stream(h)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			_, err := s.Append(context.Background(), streamlib.Batch{Data: streamlib.JSON("1")})
			is.NoErr(err)
		})
	}
	wg.Wait()
	counts := content(t, dir, "counts")
	is.Equal(len(strings.Fields(counts)), 10)
	for n := range strings.FieldsSeq(counts) {
		is.True(n == "1" || n == "2")
	}
}

// TestAfterAppendIsInOrder of a stream, one after the other, while those of another stream go on.
func TestAfterAppendIsInOrder(t *testing.T) {
	is := is.New(t)
	dir := folder(t, map[string]string{"after-append": `
if [ "$STREAM" = b ]; then touch b; exit; fi
while ! [ -e b ]; do sleep 0.01; done
echo begin $(cut -c12-27) >> log
echo end >> log`})
	h, log := open(t, dir)
	m := manager(h)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, err := m.Stream("a").Append(context.Background(), streamlib.Batch{Data: streamlib.JSON("1")})
			is.NoErr(err)
		})
	}
	wg.Wait()
	_, err := m.Stream("b").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("1")})
	is.NoErr(err)
	h.behind.Wait()
	want := ""
	for i := range 20 {
		want += fmt.Sprintf("begin %016d\nend\n", i)
	}
	is.Equal(content(t, dir, "log"), want)
	is.Equal(log.String(), "")
	is.Equal(h.count+h.size+len(h.waiting), 0)
}

// TestWhatWaitsIsBounded in number and in bytes, and what was not run for is counted.
func TestWhatWaitsIsBounded(t *testing.T) {
	is := is.New(t)
	dir := folder(t, map[string]string{"after-append": `
touch begun; while ! [ -e go ]; do sleep 0.01; done; wc -l >> log`})
	h, log := open(t, dir)
	h.limit, h.mostWaiting = time.Minute, 20
	s := stream(h)
	add := func(data ...string) {
		t.Helper()
		_, err := s.Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(data...)})
		is.NoErr(err)
	}
	for range 12 { // the last three of them have too many bytes
		add(slices.Repeat([]string{`"` + strings.Repeat("x", 50) + `"`}, 7)...)
		h.mu.Lock()
		h.mostBytes = 9 * h.size / h.count
		h.mu.Unlock()
	}
	is.Equal(strings.Count(log.String(), "too many appends wait"), 1)
	is.Equal(h.count, 9)
	is.NoErr(os.WriteFile(filepath.Join(dir, "go"), nil, 0o600))
	h.behind.Wait()
	is.Equal(content(t, dir, "log"), strings.Repeat("7\n", 9))
	is.NoErr(os.Remove(filepath.Join(dir, "go")))
	is.NoErr(os.Remove(filepath.Join(dir, "begun")))
	for range h.mostWaiting + 5 {
		add("1")
	}
	is.True(strings.Contains(log.String(), "is run again, and was not for some appends\" hook=after-append appends=3"))
	for _, err := os.Stat(filepath.Join(dir, "begun")); err != nil; _, err = os.Stat(filepath.Join(dir, "begun")) {
		time.Sleep(time.Millisecond)
	}
	h.end(errors.New("the server ends")) // as Close does, after a second
	h.Close()
	is.True(strings.Contains(log.String(),
		`msg="after-append failed" hook=after-append stream="a b/ä" offset=0000000000000084`))
	is.True(strings.Contains(log.String(), `error="the server ends"`))
	is.True(strings.Contains(log.String(), "was not run for some appends\" hook=after-append appends=24"))
}

// TestItsPipesAreItsOwn: what a program does with them changes nothing of what it decides.
func TestItsPipesAreItsOwn(t *testing.T) {
	const much = "head -c 1000000 /dev/zero | tr '\\0' x"
	for what, test := range map[string]struct{ program, veto string }{
		"reads nothing":                {"exit 0", ""},
		"closes its input":             {"exec <&-; exit 0", ""},
		"reads nothing, and vetoes":    {"echo no >&2; exit 1", "no"},
		"says much":                    {much + "; " + much + " >&2", ""},
		"says much, and vetoes":        {much + " >&2; exit 1", strings.Repeat("x", mostWords)},
		"says nothing, and vetoes":     {"exit 7", "exit status 7"},
		"says what is no text":         {`printf 'a\377\033[2J\n' >&2; exit 1`, "a\uFFFD\x1b[2J"},
		"leaves a child":               {"sleep 1000 & echo $! > child; exit 0", ""},
		"leaves a child, and vetoes":   {"sleep 1000 & echo $! > child; echo no >&2; exit 1", "no"},
		"is ended":                     {"kill -9 $$", "signal: killed"},
		"cannot be run":                {"#", "exec format error"},
		"is of an interpreter not had": {"#!/nonexistent/sh", "no such file or directory"},
	} {
		t.Run(what, func(t *testing.T) {
			is := is.New(t)
			dir := folder(t, map[string]string{"before-append": test.program})
			if strings.HasPrefix(test.program, "#") {
				is.NoErr(os.WriteFile(filepath.Join(dir, "before-append"), []byte(test.program+"\n"), 0o700))
			}
			t.Parallel() // once it is written: what others start meanwhile would have the file open, too
			h, _ := open(t, dir)
			h.limit = time.Minute
			large := `"` + strings.Repeat("x", 300_000) + `"` // more than a pipe holds
			_, err := stream(h).Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(large)})
			if child, err := os.ReadFile(filepath.Join(dir, "child")); err == nil {
				var pid int
				_, err := fmt.Sscan(string(child), &pid)
				is.NoErr(err)
				is.NoErr(syscall.Kill(pid, syscall.SIGKILL)) // which lives
			}
			if test.veto == "" {
				is.NoErr(err)
				return
			}
			veto, ok := errors.AsType[*streamlib.HookError](err)
			is.True(ok)
			is.True(strings.HasSuffix(veto.Message, test.veto))
		})
	}
}

// TestWhoCanWriteThere: a folder that others could change is refused, and one in the folder with the data.
func TestWhoCanWriteThere(t *testing.T) {
	is := is.New(t)
	refused := func(dir, data, why string) {
		t.Helper()
		_, err := Open(dir, data, 1, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%v, want %s", err, why)
		}
	}
	dir, data := folder(t, map[string]string{"before-append": "true"}), t.TempDir()
	program := filepath.Join(dir, "before-append")
	refused(dir, dir, "is in the folder with the streams")
	refused(dir, filepath.Dir(dir), "is in the folder with the streams")
	link := filepath.Join(data, "link")
	is.NoErr(os.Symlink(filepath.Dir(dir), link))
	refused(dir, link, "is in the folder with the streams")
	inside := filepath.Join(data, "hooks")
	is.NoErr(os.Mkdir(inside, 0o700))
	is.NoErr(os.Symlink(inside, filepath.Join(dir, "to")))
	refused(filepath.Join(dir, "to"), data, "is in the folder with the streams")
	refused(filepath.Join(dir, "none"), data, "no such file")
	is.NoErr(os.Chmod(dir, 0o770))
	refused(dir, data, "chmod go-w")
	is.NoErr(os.Chmod(dir, 0o755))
	is.NoErr(os.Chmod(filepath.Dir(dir), 0o777))
	refused(dir, data, "chmod go-w")
	is.NoErr(os.Chmod(filepath.Dir(dir), 0o700))
	is.NoErr(os.Chmod(program, 0o757))
	refused(dir, data, "chmod go-w")
	is.NoErr(os.Chmod(program, 0o600))
	refused(dir, data, "chmod 700")
	is.NoErr(os.Rename(program, program+".sh"))
	refused(dir, data, "neither before-append nor after-append")
	is.NoErr(os.Symlink(program+".sh", program))
	refused(dir, data, "is no file")
	if os.Geteuid() == 0 {
		is.NoErr(os.Remove(program))
		is.NoErr(os.WriteFile(program, nil, 0o700))
		is.NoErr(os.Chown(program, 12345, 12345))
		refused(dir, data, "belongs to another user")
	} else {
		t.Log("that of another user's program takes root")
	}
}
