//go:build unix

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// listenSocket is ListenSocket; shared is where others may want the path at the same time.
func listenSocket(path string, shared bool) (net.Listener, error) {
	s := &socket{path: path, shared: shared}
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := s.clear(); err != nil {
		return nil, err
	}
	err = shortly(path, func(short string) error {
		l, err := bind(short)
		if err == nil {
			s.UnixListener = l.(*net.UnixListener)
			s.SetUnlinkOnClose(false) // its path need not be this one
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if s.info, err = os.Lstat(path); err == nil {
		err = keepToOwner(path, s.info)
	}
	if err != nil {
		s.UnixListener.Close()
		return nil, err
	}
	if !shared {
		giveSocket(path)
	}
	return s, nil
}

// A socket is a listener that removes its file.
type socket struct {
	*net.UnixListener
	path   string
	shared bool
	info   os.FileInfo

	once sync.Once
	err  error
}

// Close removes the file first: while somebody listens nobody takes it for a stale one, and its inode is not another's.
func (s *socket) Close() error {
	s.once.Do(func() {
		unlock, err := s.lock()
		if err == nil {
			defer unlock()
		}
		if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.info) {
			os.Remove(s.path)
		}
		s.err = s.UnixListener.Close()
	})
	return s.err
}

// clear removes a stale socket.
func (s *socket) clear() error {
	info, err := os.Lstat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and no socket: it is left as it is", Word(s.path))
	case s.shared && info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()):
		return fmt.Errorf("%s is another user's socket: it is left as it is", Word(s.path))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := DialSocket(ctx, s.path)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("%s: %w", Word(s.path), ErrTaken)
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(s.path)
	case errors.Is(err, syscall.EAGAIN): // more wait there than it takes
		return fmt.Errorf("%s: %w", Word(s.path), ErrTaken)
	}
	return err
}

// lock keeps others, who want the path too, out between the look at it and what is done then. Its file goes with it, so
// one that got another file's lock tries again.
func (s *socket) lock() (unlock func(), err error) {
	if !s.shared {
		return func() {}, nil
	}
	const patience = 5 * time.Second
	path := s.path + ".lock"
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		f, err := OpenPlain(path, os.O_RDWR|os.O_CREATE)
		if err != nil {
			return nil, err
		}
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			ours, err := f.Stat()
			there, errThere := os.Lstat(path)
			if err == nil && errThere == nil && os.SameFile(ours, there) {
				return func() { os.Remove(path); f.Close() }, nil
			}
		}
		f.Close()
		if time.Since(began) > patience {
			return nil, fmt.Errorf("somebody has locked %s for %v", Word(path), patience)
		}
	}
}

// throughFolder is for the paths that are too long for the system: where that lets a folder be named by its descriptor.
func throughFolder(path string, f func(short string) error) error {
	dir, name := filepath.Split(path)
	folder, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	defer folder.Close()
	short := filepath.Join(descriptors, fmt.Sprint(folder.Fd()), name)
	if descriptors == "" || len(short) > shortPath {
		return tooLong(path)
	}
	return f(short)
}
