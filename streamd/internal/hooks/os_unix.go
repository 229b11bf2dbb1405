//go:build unix

package hooks

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/iterate/durable-streams/streamlib/daemon"
)

// endings are what a program's name may end with.
var endings = []string{""}

func executable(info fs.FileInfo) bool { return info.Mode()&0o100 != 0 }

// owned fails where somebody else than this process's user can write what is at a path, or put something in its place.
func owned(path string, above bool) error {
	for first := true; first || above; first = false {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		owner := info.Sys().(*syscall.Stat_t).Uid
		sticky := info.Mode()&fs.ModeSticky != 0
		switch {
		case owner != uint32(os.Geteuid()) && (first || owner != 0):
			return fmt.Errorf("%s belongs to another user than the server's", daemon.Word(path))
		case info.Mode().Perm()&0o022 != 0 && (first || !sticky):
			return fmt.Errorf("others than the server's user can write %s: chmod go-w %s", daemon.Word(path),
				daemon.ShellWord(path))
		}
		if filepath.Dir(path) == path {
			break
		}
		path = filepath.Dir(path)
	}
	return nil
}

// alone lets a process be ended with all that it has started.
func alone(p *exec.Cmd) {
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.Cancel = func() error { return syscall.Kill(-p.Process.Pid, syscall.SIGKILL) }
}
