package hooks

import (
	"io/fs"
	"os/exec"
)

// endings are what a program's name may end with.
var endings = []string{".exe", ".cmd"}

func executable(fs.FileInfo) bool { return true }

// owned asks nothing: who may write a file is not in its mode there.
func owned(string, bool) error { return nil }

func alone(*exec.Cmd) {}
