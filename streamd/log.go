package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/iterate/durable-streams/streamlib/daemon"
)

const (
	maxLog  = 8 << 20 // the size at which the log is cut
	keptLog = 1 << 20 // what stays of it
)

// boundedLog is the folder's daemon.log, to which this process's stderr goes. Where it has grown too large it keeps
// its end. It is cut in place, so that the runtime's own words, which go by, find their place in it as well.
type boundedLog struct {
	stderr *os.File
	path   string

	mu    sync.Mutex // guards what follows, and the place in the file
	limit int64
}

// bounded returns what to log to: where stderr is the daemon.log of the folder it is held to a size.
func bounded(stderr io.Writer, dir string) io.Writer {
	l := &boundedLog{path: filepath.Join(dir, daemon.LogFile), limit: maxLog}
	var ok bool
	if l.stderr, ok = stderr.(*os.File); !ok {
		return stderr
	}
	ours, err := l.stderr.Stat()
	if err != nil {
		return stderr
	}
	if named, err := os.Lstat(l.path); err != nil || !os.SameFile(ours, named) {
		return stderr
	}
	return l
}

func (l *boundedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if info, err := l.stderr.Stat(); err == nil && info.Size() > l.limit {
		if l.limit = maxLog; l.cut(info) != nil { // it was renamed, for example
			l.limit = info.Size() + maxLog
		}
	}
	return l.stderr.Write(b)
}

// reopen goes on in the file that has the path now, or a new one: the former was renamed, as logrotate(8) does. In the
// folder of somebody else what stands there may be a name of any file: only an empty one is taken.
func (l *boundedLog) reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, err := daemon.OpenPlain(l.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND)
	if err == nil {
		daemon.Give(f, filepath.Dir(l.path))
	} else if errors.Is(err, fs.ErrExist) {
		f, err = daemon.OpenPlain(l.path, os.O_WRONLY|os.O_APPEND)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	ours, err := l.stderr.Stat()
	named, errNamed := f.Stat()
	switch {
	case err != nil || errNamed != nil:
		return cmp.Or(err, errNamed)
	case os.SameFile(ours, named):
		return nil
	case named.Size() > 0:
		return fmt.Errorf("%s is another file, and not empty", daemon.Word(l.path))
	}
	l.limit = maxLog
	return redirect(l.stderr, f) // so that the runtime's own words go there, too
}

// cut cuts all but the last lines off.
func (l *boundedLog) cut(info os.FileInfo) error {
	f, err := daemon.OpenPlain(l.path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	if named, err := f.Stat(); err != nil || !os.SameFile(named, info) {
		return fmt.Errorf("%s is another file now", daemon.Word(l.path))
	}
	end := make([]byte, keptLog)
	n, err := f.ReadAt(end, info.Size()-keptLog)
	if err != nil && err != io.EOF {
		return err
	}
	_, end, _ = bytes.Cut(end[:n], []byte("\n"))
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, _ = l.stderr.Seek(0, io.SeekStart) // where it was not opened to append
	_, err = l.stderr.Write(append([]byte("level=INFO msg=\"what stood before was cut off\"\n"), end...))
	return err
}

// newLog returns the log that the flags ask for. To the journal of systemd it tells each line's priority instead of the
// time, which that notes itself (sd-daemon(3), JOURNAL_STREAM in systemd.exec(5)).
func newLog(o options, to io.Writer, journal bool) *slog.Logger {
	options := &slog.HandlerOptions{Level: o.logLevel}
	handler := func(to io.Writer) slog.Handler {
		if o.logFormat == "json" {
			return slog.NewJSONHandler(to, options)
		}
		return slog.NewTextHandler(to, options)
	}
	if !journal {
		return slog.New(handler(to))
	}
	options.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	var h prioritized
	for i, priority := range [...]string{"<7>", "<6>", "<4>", "<3>"} { // debug, info, warning, error
		h[i] = handler(prefixed{to, priority})
	}
	return slog.New(h)
}

// prioritized are handlers for debug, info, warning and error.
type prioritized [4]slog.Handler

func (h prioritized) of(level slog.Level) slog.Handler {
	return h[min(max(int(level-slog.LevelDebug)/int(slog.LevelInfo-slog.LevelDebug), 0), len(h)-1)]
}

func (h prioritized) Enabled(ctx context.Context, level slog.Level) bool {
	return h[0].Enabled(ctx, level)
}

func (h prioritized) Handle(ctx context.Context, r slog.Record) error {
	return h.of(r.Level).Handle(ctx, r)
}

func (h prioritized) WithAttrs(attrs []slog.Attr) slog.Handler {
	for i := range h {
		h[i] = h[i].WithAttrs(attrs)
	}
	return h
}

func (h prioritized) WithGroup(name string) slog.Handler {
	for i := range h {
		h[i] = h[i].WithGroup(name)
	}
	return h
}

// prefixed writes a prefix before what is written at once.
type prefixed struct {
	to     io.Writer
	prefix string
}

func (p prefixed) Write(b []byte) (int, error) {
	_, err := p.to.Write(append([]byte(p.prefix), b...))
	return len(b), err
}
