// Package hooks runs the programs before-append and after-append of a folder around appends, as git does with its own.
//
// Each append runs one process of each that there is, in the folder, with the stream's name as STREAM in its environment.
// On its standard input before-append has the data of the events, and after-append the events, one JSON value a line;
// they need not read it. The append is vetoed where before-append does not end with status 0 in time, with what it says
// on its standard error. After-append runs once the events are durable, behind the answer: of one stream one at a time
// and in the stream's order, of several streams at once. What of them fails is logged and not run again. Where a
// thousand appends, or 64 MiB of them, wait for it, it is not run for those that come, nor for what waits a second
// after the server was told to end; how many that were is logged. What must see every event is a subscriber, or a
// webhook.
//
// A process that takes longer than 5 seconds is ended with all that it has started, unless that has left its process
// group. Where it ends by itself, what it has started goes on; where that holds its standard error, it is waited for a
// second.
//
// Whoever can write there can run programs as the server's user. So the folder and the programs belong to that user and
// nobody else can write them, nor is the folder in the one with the data: that may be a copy of somebody else's.
package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/daemon"
)

const mostWords = 1000 // bytes of what a program says

// Hooks are the programs of a folder.
type Hooks struct {
	dir           string
	before, after string // their paths, "" where there is none
	log           *slog.Logger

	limit       time.Duration // for a process
	mostWaiting int           // appends whose after-append may wait
	mostBytes   int           // of their events

	running    chan struct{} // has a value for each before-append that runs
	afterwards chan struct{} // the same of after-append, which holds up no append
	behind     sync.WaitGroup
	ended      context.Context
	end        context.CancelCauseFunc

	mu      sync.Mutex                     // guards what follows
	waiting map[string][][]streamlib.Event // by stream, in order; the first of each is what runs
	count   int                            // appends that wait
	size    int                            // bytes of their events
	missed  int                            // appends that after-append was not run for since fewer waited
}

// Open looks at the folder. Data is the folder with the streams. At most atOnce processes run at once.
func Open(dir, data string, atOnce int, log *slog.Logger) (*Hooks, error) {
	h := &Hooks{log: log, limit: 5 * time.Second, mostWaiting: 1000, mostBytes: 64 << 20,
		running: make(chan struct{}, atOnce), afterwards: make(chan struct{}, atOnce),
		waiting: map[string][][]streamlib.Event{}}
	h.ended, h.end = context.WithCancelCause(context.Background())
	var err error
	if h.dir, err = filepath.EvalSymlinks(dir); err != nil { // what is looked at is what is used
		return nil, fmt.Errorf("--hooks: %w", err)
	}
	if within(h.dir, data) {
		return nil, fmt.Errorf("--hooks %s is in the folder with the streams, which may be a copy of somebody else's: "+
			"it must be outside", daemon.Word(dir))
	}
	if err := owned(h.dir, true); err != nil {
		return nil, fmt.Errorf("--hooks: %w", err)
	}
	for name, path := range map[string]*string{"before-append": &h.before, "after-append": &h.after} {
		if *path, err = find(h.dir, name); err != nil {
			return nil, fmt.Errorf("--hooks: %w", err)
		}
	}
	if h.before == "" && h.after == "" {
		return nil, fmt.Errorf("--hooks %s has neither before-append nor after-append", daemon.Word(dir))
	}
	return h, nil
}

// within tells whether a path is that of dir or of what is in it, whatever each is called.
func within(path, dir string) bool {
	of, err := os.Stat(dir)
	if err != nil {
		return false
	}
	for {
		if info, err := os.Stat(path); err == nil && os.SameFile(info, of) {
			return true
		}
		above := filepath.Dir(path)
		if above == path {
			return false
		}
		path = above
	}
}

// find returns the path of a program, "" where there is none.
func find(dir, name string) (string, error) {
	for _, ending := range endings {
		path := filepath.Join(dir, name+ending)
		info, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return "", err
		case !info.Mode().IsRegular():
			return "", fmt.Errorf("%s is no file", daemon.Word(path))
		case !executable(info):
			return "", fmt.Errorf("%s cannot be run: chmod 700 %s", daemon.Word(path), daemon.ShellWord(path))
		}
		return path, owned(path, false)
	}
	return "", nil
}

// Hooks returns them for a streamlib.Factory.
func (h *Hooks) Hooks() (hooks streamlib.Hooks) {
	if h.before != "" {
		hooks.Whole = &streamlib.BatchHook{ID: "before-append", Run: h.admit}
	}
	if h.after != "" {
		hooks.Tell = h.tell
	}
	hooks.Log = h.log
	return hooks
}

// admit runs before-append, whose failure is the veto.
func (h *Hooks) admit(ctx context.Context, name string, data []json.RawMessage) error {
	var lines []byte
	for _, d := range data {
		lines = append(append(lines, d...), '\n')
	}
	select {
	case h.running <- struct{}{}:
		defer func() { <-h.running }()
	case <-ctx.Done():
		return fmt.Errorf("none of %d that may run at once ended in time", cap(h.running))
	}
	return h.run(ctx, h.before, name, lines)
}

// tell lets after-append run behind the answer.
func (h *Hooks) tell(name string, events []streamlib.Event) {
	size := sizeOf(events)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.count > 0 && (h.count >= h.mostWaiting || h.size+size > h.mostBytes) {
		if h.missed++; h.missed == 1 {
			h.about(name, events).Error("after-append is not run: too many appends wait for it", "waiting", h.count)
		}
		return
	}
	if h.count == 0 && h.missed > 0 {
		h.log.Warn("after-append is run again, and was not for some appends", "hook", "after-append", "appends", h.missed)
		h.missed = 0
	}
	h.count++
	h.size += size
	queue, runs := h.waiting[name]
	if h.waiting[name] = append(queue, events); !runs {
		h.behind.Go(func() {
			for h.next(name) {
			}
		})
	}
}

// next runs after-append for what waits first of a stream, and tells whether there is more.
func (h *Hooks) next(name string) (more bool) {
	h.mu.Lock()
	events := h.waiting[name][0]
	h.mu.Unlock()
	select {
	case h.afterwards <- struct{}{}:
	case <-h.ended.Done():
	}
	late := h.ended.Err() != nil
	if !late {
		var lines []byte
		for _, e := range events {
			lines = append(e.AppendJSON(lines), '\n')
		}
		if err := h.run(h.ended, h.after, name, lines); err != nil {
			h.about(name, events).Error("after-append failed", "error", err)
		}
		<-h.afterwards
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count--
	h.size -= sizeOf(events)
	if late {
		h.missed++
	}
	if h.waiting[name] = h.waiting[name][1:]; len(h.waiting[name]) == 0 {
		delete(h.waiting, name)
	}
	return h.waiting[name] != nil
}

func sizeOf(events []streamlib.Event) (size int) {
	for _, e := range events {
		size += len(e.Record())
	}
	return size
}

func (h *Hooks) about(name string, events []streamlib.Event) *slog.Logger {
	return h.log.With("hook", "after-append", "stream", name, "offset", events[0].Offset.String(), "events", len(events))
}

// run runs a program, and returns what is wrong with it in its own words, where it has some.
func (h *Hooks) run(ctx context.Context, path, name string, input []byte) error {
	ctx, cancel := context.WithTimeoutCause(ctx, h.limit, fmt.Errorf("it did not end in %v", h.limit))
	defer cancel()
	said := words{}
	p := exec.CommandContext(ctx, path)
	p.Dir, p.Stdin, p.Stderr = h.dir, bytes.NewReader(input), &said
	p.Env = append(environment(), "STREAM="+name)
	p.WaitDelay = time.Second // for what it has started, and that holds its standard error
	alone(p)
	err := p.Run()
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay): // it has ended well
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil && len(said.text) > 0:
		return errors.New(strings.ToValidUTF8(strings.TrimSpace(string(said.text)), "\uFFFD"))
	}
	return err
}

// environment is this process's, without what is not for programs.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "DURABLE_STREAMS_") || strings.HasPrefix(v, "STREAM=")
	})
}

// words are the first bytes of what a program says.
type words struct{ text []byte }

func (w *words) Write(b []byte) (int, error) {
	w.text = append(w.text, b[:min(len(b), mostWords-len(w.text))]...)
	return len(b), nil
}

// Close ends what runs behind an answer, once it has had a moment. No append is under way.
func (h *Hooks) Close() {
	stop := time.AfterFunc(h.limit/5, func() { h.end(errors.New("the server ends")) })
	h.behind.Wait()
	stop.Stop()
	h.end(nil)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.missed > 0 {
		h.log.Error("after-append was not run for some appends", "hook", "after-append", "appends", h.missed)
	}
}
