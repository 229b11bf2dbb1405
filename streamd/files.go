package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The files in the folder that say where its server is.
const (
	pidFile  = "daemon.pid"
	portFile = "daemon.port"
)

// hints are the pid and port files of this process. Whoever writes or removes them has the folder's lock.
type hints struct {
	dir       string
	pid, port int
}

func pidFiles(dir string, l net.Listener) hints {
	return hints{dir, os.Getpid(), l.Addr().(*net.TCPAddr).Port}
}

// write makes both files, each by a rename, the port first: where there is a pid there is a port.
func (h hints) write() error {
	return errors.Join(writeNumber(h.dir, portFile, h.port), writeNumber(h.dir, pidFile, h.pid))
}

// remove removes the files unless they name another process: the folder may have been replaced under this one.
func (h hints) remove() {
	if pid, err := readNumber(h.dir, pidFile); err == nil && pid == h.pid {
		os.Remove(filepath.Join(h.dir, pidFile))
		os.Remove(filepath.Join(h.dir, portFile))
	}
}

func writeNumber(dir, name string, n int) error {
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path+".new", fmt.Appendln(nil, n), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func readNumber(dir, name string) (int, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}
