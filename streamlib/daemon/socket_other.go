//go:build !unix

package daemon

import (
	"errors"
	"fmt"
	"net"
)

// listenSocket is not here: who may use a socket's file is not for its mode to say.
func listenSocket(path string, _ bool) (net.Listener, error) {
	return nil, fmt.Errorf("%s: %w: sockets of files", Word(path), errors.ErrUnsupported)
}

func throughFolder(path string, _ func(string) error) error { return tooLong(path) }
