//go:build unix && !linux

package daemon

import (
	"io/fs"
	"net"
	"os"
	"syscall"
)

// descriptors is where a folder is found by the number of its descriptor: nowhere.
const descriptors = ""

// bind makes a socket that nobody else can connect to.
func bind(path string) (net.Listener, error) {
	had := syscall.Umask(0o077) // which takes nothing from what streamd makes beside: that is its owner's alone, too
	defer syscall.Umask(had)
	return net.Listen("unix", path)
}

func keepToOwner(path string, info os.FileInfo) error {
	if info.Mode().Type() != fs.ModeSocket { // it was replaced
		return nil
	}
	return os.Chmod(path, 0o600)
}

// giveSocket does nothing: here a link, that stands in the socket's place meanwhile, could be what is given.
func giveSocket(string) {}
