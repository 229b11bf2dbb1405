// Package daemon is what streamd and streamctl have to agree on: the flags of a server, the small files in its folder
// by which it is found, and what each calls its version. It is for these two programs.
package daemon

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/iterate/durable-streams/streamlib/internal/patience"
)

// These are the files in a folder that say where its server is, how it was started, and what it says. They are hints:
// whoever has the folder's lock is the server.
const (
	PIDFile    = "daemon.pid"
	PortFile   = "daemon.port"
	ArgsFile   = "daemon.args"   // a JSON array of flags
	SecretFile = "daemon.secret" // in the place of SocketFile: a port, and a secret that shows that one may use the folder
	LogFile    = "daemon.log"
)

// Taken is streamd's exit status where another server has the folder.
const Taken = 4

// OpenPlain opens what is a file by itself. The folder may be somebody else's: no link that stands there is followed,
// and what would hang, as a named pipe does, is not opened. A file that it makes is its owner's alone.
func OpenPlain(path string, flag int) (f *os.File, err error) {
	err = patience.Open(func() error {
		f, err = os.OpenFile(path, flag|noFollow, 0o600)
		return err
	})
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, cmp.Or(err, fmt.Errorf("%s is no file", path))
	}
	return f, nil
}

// Rename is os.Rename, also on Windows, which replaces no file while somebody reads it: it waits for that a moment.
func Rename(from, to string) error {
	return patience.Replace(func() error { return os.Rename(from, to) })
}

// Read returns what is in a small file of the folder, and what kind of file it is.
func Read(dir, name string) ([]byte, os.FileInfo, error) {
	f, err := OpenPlain(filepath.Join(dir, name), os.O_RDONLY)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	return b, info, err
}

// Version returns what the go command stamped into the binary.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := strings.Trim(info.Main.Version, "()")
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			version += "-" + s.Value[:min(12, len(s.Value))]
		}
	}
	return version
}

// IsTerminal tells whether v is one, taking for one every character device but /dev/null.
func IsTerminal(v any) bool {
	f, ok := v.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}
