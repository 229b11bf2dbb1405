package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/iterate/durable-streams/streamlib/daemon"
)

// owner returns the folder's server. Where that does not answer but its process can be known, s has its pid alone; the
// error is errNotRunning where there is none.
func (f folder) owner(ctx context.Context) (s server, answers bool, err error) {
	conn, s, err := f.find(ctx)
	if err == nil {
		conn.Close()
	}
	pid, known := f.holder()
	switch {
	case err == nil && (!known || pid == s.PID):
		return s, true, nil
	case err == nil && pid != 0 && slices.Contains(ports(pid), s.port):
		s.PID = pid // it said the one that it has in its container
		return s, true, nil
	case errors.Is(err, fs.ErrPermission) && pid == 0:
		return server{}, false, f.foreign(err)
	case err == nil:
		return s, true, fmt.Errorf("%v is served at %s by a process that cannot be seen from here", f, s.url())
	case pid == 0 && f.isUnseen():
		err, _ := f.hung()
		return server{}, false, err
	case pid == 0:
		return server{}, false, fmt.Errorf("%w: no server has %v", errNotRunning, f)
	}
	s = server{}
	s.PID = pid
	if !isStreamd(pid) {
		err, _ := f.hung()
		return s, false, err
	}
	s.Args = argsOf(pid)
	return s, false, nil
}

// isUnseen tells whether a server that cannot be seen from here has the folder, of which no holder is known. It asks
// only where there are traces of one, not to be in the way of those that start. One that is just being killed, or has
// just begun, is none.
func (f folder) isUnseen() bool {
	const moment = 500 * time.Millisecond
	_, errPID := os.Lstat(filepath.Join(f.dir, daemon.PIDFile))
	_, errPort := os.Lstat(filepath.Join(f.dir, daemon.PortFile))
	if errPID != nil && errPort != nil {
		return false
	}
	for began := time.Now(); isLocked(f.dir); time.Sleep(10 * time.Millisecond) {
		if pid, _ := f.holder(); pid != 0 {
			return false
		}
		if time.Since(began) > moment {
			return true
		}
	}
	return false
}

// stop ends the folder's server s: cleanly, or where that takes longer than patience by SIGKILL, which killed tells.
// It returns when the folder is free.
func (f folder) stop(s server, patience time.Duration) (killed bool, err error) {
	process, err := os.FindProcess(s.PID)
	if err != nil {
		return false, err
	}
	defer process.Release()
	for _, signal := range endings {
		// The process is held now, so its pid is not given to another between this look and the signal.
		if pid, known := f.holder(); known && pid != s.PID {
			return killed, nil
		}
		if err := process.Signal(signal); errors.Is(err, os.ErrProcessDone) {
			return killed, nil
		} else if err != nil {
			return false, fmt.Errorf("stop pid %d: %w", s.PID, err)
		}
		if killed = signal == os.Kill; killed {
			patience = max(patience, 10*time.Second) // it cannot refuse, but it takes a moment
		}
		deadline := time.Now().Add(patience)
		for wait := time.Millisecond; time.Now().Before(deadline); wait = min(2*wait, 50*time.Millisecond) {
			pid, known := f.holder()
			if hasEnded(process) && (!known || pid != s.PID) {
				return killed, nil
			}
			time.Sleep(wait)
		}
	}
	return false, fmt.Errorf("pid %d was killed and still has %v", s.PID, f)
}
