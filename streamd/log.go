package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

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
	limit  int64
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

// Write is called by one at a time.
func (l *boundedLog) Write(b []byte) (int, error) {
	if info, err := l.stderr.Stat(); err == nil && info.Size() > l.limit {
		if l.limit = maxLog; l.cut(info) != nil { // it was renamed, for example
			l.limit = info.Size() + maxLog
		}
	}
	return l.stderr.Write(b)
}

// cut cuts all but the last lines off.
func (l *boundedLog) cut(info os.FileInfo) error {
	f, err := daemon.OpenPlain(l.path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	if named, err := f.Stat(); err != nil || !os.SameFile(named, info) {
		return fmt.Errorf("%s is another file now", l.path)
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
