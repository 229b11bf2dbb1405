package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/iterate/durable-streams/streamlib/daemon"
)

// hints are the pid and port files of this process. Whoever writes or removes them has the folder's lock.
type hints struct {
	dir    string
	pid    int
	port   int    // 0 is none
	secret []byte // what SecretFile has; nil is that there is none
}

// write makes the files, each by a rename, the port before the pid: where there is a pid there is a port.
func (h hints) write() (err error) {
	if h.secret == nil {
		os.Remove(filepath.Join(h.dir, daemon.SecretFile)) // of one before that crashed
	} else {
		err = replace(h.dir, daemon.SecretFile, h.secret)
	}
	if h.port == 0 {
		os.Remove(filepath.Join(h.dir, daemon.PortFile))
	} else {
		err = errors.Join(err, writeNumber(h.dir, daemon.PortFile, h.port))
	}
	return errors.Join(err, writeNumber(h.dir, daemon.PIDFile, h.pid))
}

// remove removes the files unless they name another process: the folder may have been replaced under this one.
func (h hints) remove() {
	if pid, err := readNumber(h.dir, daemon.PIDFile); err == nil && pid == h.pid {
		os.Remove(filepath.Join(h.dir, daemon.PIDFile))
		os.Remove(filepath.Join(h.dir, daemon.PortFile))
		os.Remove(filepath.Join(h.dir, daemon.SecretFile))
	}
}

func writeNumber(dir, name string, n int) error { return replace(dir, name, fmt.Appendln(nil, n)) }

func readNumber(dir, name string) (int, error) {
	b, _, err := daemon.Read(dir, name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// ignored is for a folder that is in a repository of git.
const ignored = `# What the server of this folder keeps for itself. The events are in streams.
/daemon.*
/journal/
/mirror/
/session.key
`

// ignore makes .gitignore where there is none. Nothing depends on it.
func ignore(dir string) {
	f, err := os.OpenFile(filepath.Join(dir, ".gitignore"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return
	}
	daemon.Give(f, dir)
	_, _ = f.WriteString(ignored)
	f.Close()
}

// keepArgs keeps the flags that the server was started with for who starts it next, or that there were none.
func keepArgs(dir string, args []string) error {
	if len(args) == 0 {
		if err := os.Remove(filepath.Join(dir, daemon.ArgsFile)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	b, err := json.Marshal(args)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if had, _, err := daemon.Read(dir, daemon.ArgsFile); err == nil && bytes.Equal(had, b) {
		return nil // also where there is no room to write it again
	}
	if err = replace(dir, daemon.ArgsFile, b); err != nil { // others than these must not come back
		err = errors.Join(err, os.Remove(filepath.Join(dir, daemon.ArgsFile)))
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
	if name != daemon.ArgsFile { // nobody else's server takes root's word for how it is to be
		daemon.Give(f, dir)
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = daemon.Rename(path+".new", path)
	}
	if err != nil {
		os.Remove(path + ".new") // a full disk leaves it empty
	}
	return err
}
