package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// SocketFile is the folder's own socket, on which its server listens for whoever may use the folder. Where there can be
// none, SecretFile has a port of this machine and the secret that each request there is to have as its bearer token.
const SocketFile = "daemon.sock"

// ErrTaken is that somebody listens on a socket already.
var ErrTaken = errors.New("another server listens there")

// ListenSocket listens on a socket of this process's user alone. A stale one of his, on which nobody listens, is
// replaced; whatever else stands there stays, and is an error. Of several that race for a path one gets it. Close
// removes the socket, unless another one has taken its place.
func ListenSocket(path string) (net.Listener, error) { return listenSocket(path, true) }

// ListenFolder listens on the folder's own socket, for who has its lock.
func ListenFolder(dir string) (net.Listener, error) {
	return listenSocket(filepath.Join(dir, SocketFile), false)
}

// DialSocket connects to a socket, also where its path is longer than the system takes for one.
func DialSocket(ctx context.Context, path string) (conn net.Conn, err error) {
	err = shortly(path, func(short string) (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "unix", short)
		return err
	})
	return conn, err
}

// Secret is what SecretFile has of a port and a secret.
func Secret(port int, secret string) []byte { return fmt.Appendf(nil, "%d %s\n", port, secret) }

// DialFolder connects to the server of the folder by its socket, or else by its port; then a secret goes with each
// request. Whether that server is the folder's it has to say itself.
func DialFolder(ctx context.Context, dir string) (conn net.Conn, secret string, err error) {
	path := filepath.Join(dir, SocketFile)
	info, err := os.Lstat(path)
	if err == nil && info.Mode().Type() != fs.ModeSocket { // nor is a link followed
		err = fmt.Errorf("%s is no socket", path)
	}
	if err == nil {
		if conn, err = DialSocket(ctx, path); err == nil {
			return conn, "", nil
		}
	}
	port, secret := secretOf(dir)
	if secret == "" {
		return nil, "", err
	}
	conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+port)
	return conn, secret, err
}

// SecretOf returns the secret that the folder's SecretFile has at present, "" where it has none.
func SecretOf(dir string) string {
	_, secret := secretOf(dir)
	return secret
}

// secretOf returns what SecretFile has. The folder may be somebody else's, and what is said may go to anybody: nothing
// of another form is sent, five digits at most and 26 of base32.
func secretOf(dir string) (port, secret string) {
	b, _, err := Read(dir, SecretFile)
	port, secret, _ = strings.Cut(strings.TrimSpace(string(b)), " ")
	if err != nil || port == "" || len(port) > 5 || strings.Trim(port, "0123456789") != "" ||
		len(secret) != 26 || strings.Trim(secret, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return "", ""
	}
	return port, secret
}

// shortPath is how long the path of a socket may be on every system: sockaddr_un has 104 bytes on some, and a NUL.
const shortPath = 103

// shortly calls f with a path of the socket that the system takes.
func shortly(path string, f func(short string) error) error {
	if len(path) <= shortPath {
		return f(path)
	}
	err := throughFolder(path, f)
	if e, ok := errors.AsType[*net.OpError](err); ok { // which names the other path
		e.Source, e.Addr = nil, &net.UnixAddr{Name: path, Net: "unix"}
	}
	return err
}

// tooLong is the error for a path that this system does not take.
func tooLong(path string) error {
	return fmt.Errorf("%s: the path of a socket has at most %d bytes here, and this one has %d", Word(path), shortPath,
		len(path))
}
