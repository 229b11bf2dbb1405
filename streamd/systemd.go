package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

// A manager is what started this process and wants to know how it does, as systemd: sd_notify(3) says how it is told.
// The zero value is none, and told nothing.
type manager struct {
	socket   string        // where it listens, "" nowhere
	watchdog time.Duration // it ends who is not heard of for so long; 0 never
	sockets  int           // that it has opened, as descriptors from 3 on: sd_listen_fds(3)
}

// statusEvery is how often a manager is told how much there is.
const statusEvery = 10 * time.Second

// managerOf reads the environment. What is there for another process is not for this one.
func managerOf(getenv func(string) string) (m manager) {
	m.socket = getenv("NOTIFY_SOCKET")
	pid := strconv.Itoa(os.Getpid())
	if usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64); err == nil && m.socket != "" && usec > 0 {
		if owner := getenv("WATCHDOG_PID"); owner == "" || owner == pid {
			m.watchdog = time.Duration(usec) * time.Microsecond
		}
	}
	if getenv("LISTEN_PID") == pid {
		m.sockets, _ = strconv.Atoi(getenv("LISTEN_FDS"))
	}
	return m
}

// tell tells the manager lines such as READY=1. One that does not listen loses them: nothing here depends on it.
func (m manager) tell(lines ...string) {
	if m.socket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // its queue may be full
	_, _ = conn.Write([]byte(strings.Join(lines, "\n")))
}

// unit is what systemctl calls this process, where it is the main one of a service: the last of its control group's path
// in a file as /proc/self/cgroup, of either version. It is "" where it is none.
func (m manager) unit(file string) string {
	groups, err := os.ReadFile(file)
	if err != nil || m.socket == "" { // what a service has started on its own is told to nobody
		return ""
	}
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) < 3 || parts[1] != "" && parts[1] != "name=systemd" || !strings.HasSuffix(parts[2], ".service") {
			continue
		}
		name := path.Base(parts[2])
		if strings.Contains(parts[2], "/user@") {
			name = "--user " + name
		}
		return name
	}
	return ""
}

// onReload makes SIGHUP, which is how the manager says to reload, one that never ends the server.
func (m manager) onReload() {
	if m.socket == "" {
		return
	}
	had := onHangup.Load()
	reload := func() bool {
		m.tell("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", monotonic().Microseconds()))
		if had != nil {
			(*had)()
		}
		m.tell("READY=1")
		return true
	}
	onHangup.Store(&reload)
}

// beats is when the manager hears from the server's loop; nil never. With a watchdog that is twice in its time: what
// keeps the loop from it, as no disk can, is what it is there for.
func (m manager) beats() (beats <-chan time.Time, stop func()) {
	if m.socket == "" {
		return nil, func() {}
	}
	every := statusEvery
	if m.watchdog > 0 {
		every = min(every, max(m.watchdog/2, time.Millisecond))
	}
	t := time.NewTicker(every)
	return t.C, t.Stop
}

// beat tells the manager that the loop lives, and how much there is.
func (m manager) beat(f *figures) { m.tell("WATCHDOG=1", "STATUS="+f.status()) }

// status tells in a few words how much there is and was done.
func (f *figures) status() string {
	s := fmt.Sprintf("%.0f commits, %.0f failed", f.changes.Value(), f.failed.Value())
	if f.store != nil {
		had := f.store.Figures()
		s = fmt.Sprintf("%d streams open, %s, %d bytes in %d journals", had.Streams, s, had.JournalBytes, had.Journals)
		if had.Failed {
			s += "; a sync has failed, and nothing can be appended until the next start"
		}
	}
	return s
}

// listenOn opens the doors of serve for everybody: the sockets that the manager has opened, or else those of --host and
// --port.
func listenOn(ctx context.Context, o options, ip *net.IPAddr, log *slog.Logger) (_ *doors, err error) {
	if o.manager.sockets == 0 {
		return listen(ctx, ip, o)
	}
	d := &doors{}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	for i := range o.manager.sockets {
		l, err := inherited(uintptr(3 + i))
		if err != nil {
			return nil, fmt.Errorf("socket %d of %d that are in LISTEN_FDS: %w", i+1, o.manager.sockets, err)
		}
		d.all = append(d.all, &door{l, public})
		addr, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			d.url = cmp.Or(d.url, "unix:"+l.Addr().String())
			continue
		}
		if err := allowed(o, addr.IP, "the socket "+addr.String()); err != nil {
			return nil, err
		}
		local := addr.IP.IsUnspecified() || addr.IP.Equal(net.IPv4(127, 0, 0, 1))
		if d.port != 0 || !local && strings.HasPrefix(d.url, "http") {
			continue
		}
		host := addr.IP.String()
		if local {
			host, d.port = "127.0.0.1", addr.Port
		}
		d.url = o.scheme() + net.JoinHostPort(host, strconv.Itoa(addr.Port))
	}
	log.Info("listening on sockets that were given: --host and --port do not count", "sockets", o.manager.sockets)
	return d, nil
}

// inherited returns the listener that is the descriptor.
func inherited(fd uintptr) (net.Listener, error) {
	f := os.NewFile(fd, "")
	if f == nil {
		return nil, errors.New("there is none")
	}
	defer f.Close() // the listener has its own of it
	if !listens(fd) {
		return nil, errors.New("it does not listen: the unit of a socket needs Accept=no and ListenStream=")
	}
	return net.FileListener(f)
}
