package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The files in the folder that say where its server is, and how it was started. The folder may be somebody else's, so
// no link that stands there is followed, and what is no file is not opened.
const (
	pidFile    = "daemon.pid"
	portFile   = "daemon.port"
	argsFile   = "daemon.args"
	secretFile = "daemon.secret"
)

// hints are the pid and port files of this process. Whoever writes or removes them has the folder's lock.
type hints struct {
	dir       string
	pid, port int
	secret    string // of who may use the folder; "" where no such is needed
}

func pidFiles(dir string, l net.Listener) hints {
	return hints{dir: dir, pid: os.Getpid(), port: l.Addr().(*net.TCPAddr).Port}
}

// write makes the files, each by a rename, the port before the pid: where there is a pid there is a port.
func (h hints) write() (err error) {
	if h.secret == "" {
		os.Remove(filepath.Join(h.dir, secretFile)) // of one before that crashed
	} else {
		err = replace(h.dir, secretFile, []byte(h.secret+"\n"))
	}
	return errors.Join(err, writeNumber(h.dir, portFile, h.port), writeNumber(h.dir, pidFile, h.pid))
}

// remove removes the files unless they name another process: the folder may have been replaced under this one.
func (h hints) remove() {
	if pid, err := readNumber(h.dir, pidFile); err == nil && pid == h.pid {
		os.Remove(filepath.Join(h.dir, pidFile))
		os.Remove(filepath.Join(h.dir, portFile))
		os.Remove(filepath.Join(h.dir, secretFile))
	}
}

func writeNumber(dir, name string, n int) error { return replace(dir, name, fmt.Appendln(nil, n)) }

func readNumber(dir, name string) (int, error) {
	b, err := read(dir, name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// keepArgs keeps the flags that the server was started with for who starts it next, or that there were none.
func keepArgs(dir string, args []string) error {
	if len(args) == 0 {
		if err := os.Remove(filepath.Join(dir, argsFile)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	b, err := json.Marshal(args)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if had, err := read(dir, argsFile); err == nil && bytes.Equal(had, b) {
		return nil // also where there is no room to write it again
	}
	if err = replace(dir, argsFile, b); err != nil { // others than these must not come back
		err = errors.Join(err, os.Remove(filepath.Join(dir, argsFile)))
	}
	return err
}

// replace writes a file under another name and gives it its own then.
func replace(dir, name string, content []byte) error {
	path := filepath.Join(dir, name)
	if err := os.Remove(path + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		os.Remove(path + ".new") // a full disk leaves it empty
	}
	return err
}

// read returns what is in a small file.
func read(dir, name string) ([]byte, error) {
	f, err := openPlain(filepath.Join(dir, name), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 64<<10))
}

// openPlain opens what is a file by itself: no link, and nothing that hangs.
func openPlain(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|noFollow, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, cmp.Or(err, fmt.Errorf("%s is no file", path))
	}
	return f, nil
}
