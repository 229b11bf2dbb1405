package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/disk"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/iterate/durable-streams/streamlib/streamhttp/tokens"
)

const (
	// drainTime is how long the end waits for requests that have begun; the storage's end comes after it, within 5 s.
	drainTime = 4 * time.Second
	// ownerTime is how long a server that finds its folder taken waits for the owner to say who it is.
	ownerTime = 8 * time.Second
)

// run is streamd, with all that a process has around it in the arguments. It returns when ctx is done and all has
// ended.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	out := &output{Writer: stdout}
	if len(args) > 0 && (args[0] == "verify" || args[0] == "repair") {
		return out.outcome(offline(ctx, args[0], args[1:], out, stderr))
	}
	o, err := parse(args, out)
	if err != nil {
		return out.outcome(err)
	}
	return serve(ctx, o, stdout, slog.New(slog.NewTextHandler(bounded(stderr, o.dir), nil)))
}

// serve is flags → storage → manager → routes → listener.
func serve(ctx context.Context, o options, stdout io.Writer, log *slog.Logger) (err error) {
	ip, err := address(o)
	if err == nil && o.tokens != "" {
		_, err = tokens.Read(o.tokens)
	}
	if err != nil || o.check {
		return err
	}
	failed := make(chan error, 1)
	storage, ready, err := openStorage(o, failed, log)
	if errors.Is(err, disk.ErrLocked) {
		return taken(ctx, o.dir)
	} else if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, storage.Close()) }()

	var access *tokens.File
	if o.tokens != "" {
		if access, err = openTokens(o, log); err != nil {
			return err
		}
		defer access.Close()
	}
	listeners, url, err := listen(ctx, ip, o.port, o.portFallback)
	if err != nil {
		return err
	}
	health := streamhttp.Health{
		Status: "ok", PID: os.Getpid(), Dir: o.dir, Version: daemon.Version(), Storage: o.storage,
		StartedAt: time.Now().UTC(), Args: o.args,
	}
	manager := streamlib.NewManager(storage, o.factory, streamlib.Options{MaxEvent: o.maxEvent, Log: log})
	config := streamhttp.Config{
		MaxEvent: o.maxEvent, Log: log, Health: health, Ready: ready,
		AllowHosts: append(o.allowHosts, o.host), AllowOrigins: o.allowOrigins,
	}
	files := pidFiles(o.dir, listeners[0])
	if access != nil {
		files.secret = rand.Text()
		config.Access, config.Local = access, func(r *http.Request) bool { return hasSecret(r, files.secret) }
	}
	handler := streamhttp.NewHandler(manager, config)
	base, endSubscriptions := context.WithCancel(context.Background())
	defer endSubscriptions()
	server := streamhttp.NewServer(base, handler, log)
	ended := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { ended <- server.Serve(l) }()
	}

	if err := files.write(); err != nil {
		log.Warn("streamctl will not find this server by its folder", "error", err)
	}
	defer files.remove()
	if err := keepArgs(o.dir, o.own); err != nil {
		log.Warn("streamctl will not start this server again with its flags", "error", err)
	}
	log.Info("serving", "dir", o.dir, "url", url, "storage", o.storage, "sync", o.sync, "pid", health.PID, "version",
		health.Version)
	warn(log, o, listeners[0])
	if _, err := fmt.Fprintln(stdout, url); err != nil {
		log.Warn("the URL was not printed", "error", err)
	}

	select {
	case err = <-ended:
		err = fmt.Errorf("serve %s: %w", url, err)
	case err = <-failed:
		log.Error("ending, to be started again: --exit-on-failure", "error", err)
	case <-ctx.Done():
		log.Info("ending", "cause", context.Cause(ctx))
	}
	endSubscriptions()
	drain, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if late := server.Shutdown(drain); late != nil {
		log.Warn("requests were cut off", "error", late)
		server.Close()
	}
	return err
}

// openStorage takes the folder, and opens what is in it unless the storage is memory. Where it fails later, and is to
// end the server, that comes through failed.
func openStorage(o options, failed chan<- error, log *slog.Logger) (storage streamlib.Storage, ready func() error,
	err error) {
	if o.storage == "fs" {
		options := disk.Options{NoSync: o.sync == "none", Log: log}
		if o.exits {
			options.Failed = func(err error) { failed <- err }
		}
		store, err := disk.Open(o.dir, options)
		if err != nil {
			return nil, nil, err
		}
		return store, store.Ready, nil
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return nil, nil, err
	}
	lock, err := disk.Lock(o.dir)
	return locked{memory.New(), lock}, nil, err
}

// locked is a storage that gives the folder back when it is closed.
type locked struct {
	streamlib.Storage
	lock io.Closer
}

func (s locked) Close() error { return errors.Join(s.Storage.Close(), s.lock.Close()) }

// address returns what --host stands for, unless that wants a word more.
func address(o options) (*net.IPAddr, error) {
	host := cmp.Or(o.host, "0.0.0.0")
	ip, err := net.ResolveIPAddr("ip", host)
	if err != nil {
		return nil, fmt.Errorf("--host %q: %w", host, err)
	}
	switch {
	case ip.IP.IsLoopback():
	case o.tokens == "" && !o.insecure:
		return nil, usageError{fmt.Errorf("--host %s can be reached by other machines, and whoever reaches it could "+
			"read, write and delete: "+
			"make a token with streamctl token create NAME --can write --file FILE, and start it with --tokens FILE; "+
			"or if that is meant, add --insecure-no-auth", host)}
	case o.tokens != "" && !o.plain:
		return nil, usageError{fmt.Errorf("--host %s can be reached by other machines, and tokens would cross the "+
			"network as they are: "+
			"put a proxy with TLS in front, and add --insecure-no-tls; one on this machine needs no --host", host)}
	}
	return ip, nil
}

// listen returns a listener on ip, and where that does not take connections to 127.0.0.1 one there too, on the same
// port. Where the port is taken, it is another one if fallback says so.
func listen(ctx context.Context, ip *net.IPAddr, number int, fallback bool) (listeners []net.Listener, url string,
	err error) {
	var lc net.ListenConfig
	port := strconv.Itoa(number)
	first, err := lc.Listen(ctx, "tcp", net.JoinHostPort(ip.String(), port))
	if errors.Is(err, portTaken) && fallback {
		first, err = lc.Listen(ctx, "tcp", net.JoinHostPort(ip.String(), "0"))
	}
	if errors.Is(err, portTaken) {
		return nil, "", fmt.Errorf("port %s of %s is taken by another program; choose one with --port, or a free one "+
			"with --port 0", port, ip)
	} else if err != nil {
		return nil, "", err
	}
	listeners = []net.Listener{first}
	_, port, _ = net.SplitHostPort(first.Addr().String())
	local := net.JoinHostPort("127.0.0.1", port)
	if ip.IP.IsUnspecified() || ip.IP.Equal(net.IPv4(127, 0, 0, 1)) {
		return listeners, "http://" + local, nil
	}
	second, err := lc.Listen(ctx, "tcp", local)
	if err != nil {
		first.Close()
		return nil, "", fmt.Errorf("%w (streamd listens on 127.0.0.1 too, where streamctl looks for it)", err)
	}
	return append(listeners, second), "http://" + net.JoinHostPort(ip.String(), port), nil
}

// warn says at the start what was chosen that the default promises do not cover.
func warn(log *slog.Logger, o options, l net.Listener) {
	if addr, ok := l.Addr().(*net.TCPAddr); ok && !addr.IP.IsLoopback() {
		if o.tokens == "" {
			log.Warn("whoever reaches this address can read, write and delete: --insecure-no-auth", "address", addr.String())
		} else {
			log.Warn("tokens cross the network as they are, unless a proxy encrypts: --insecure-no-tls", "address",
				addr.String())
		}
	}
	switch {
	case o.storage == "memory":
		log.Warn("events are lost when this server ends: --storage memory")
	case o.sync == "none":
		log.Warn("acknowledged events may be lost when the machine fails: --sync none")
	}
}

// taken is the error for a folder that another server has. It names that server, which may just be starting.
func taken(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, ownerTime)
	defer cancel()
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		if url, health, err := ask(ctx, dir); err == nil {
			return fmt.Errorf("%w: %s belongs to the server with pid %d at %s", disk.ErrLocked, dir, health.PID, url)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%w: %s belongs to a server that is not found; streamctl server status --dir %[2]s says more",
				disk.ErrLocked, dir)
		}
	}
}

// ask asks the server that the folder's files name whether the folder is its own.
func ask(ctx context.Context, dir string) (url string, health streamhttp.Health, err error) {
	port, err := readNumber(dir, daemon.PortFile)
	if err != nil {
		return "", health, err
	}
	url = fmt.Sprintf("http://127.0.0.1:%d", port)
	secret, _, _ := daemon.Read(dir, daemon.SecretFile)
	client := streamhttp.Client{URL: url, Token: strings.TrimSpace(string(secret)),
		HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	if health, err = client.Health(ctx); err != nil {
		return "", health, err
	}
	ours, err := os.Stat(dir)
	if err != nil {
		return "", health, err
	}
	theirs, err := os.Stat(health.Dir)
	if err != nil || !os.SameFile(ours, theirs) {
		return "", health, errors.New("another folder's server")
	}
	return url, health, nil
}
