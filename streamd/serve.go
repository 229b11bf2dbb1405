package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/iterate/durable-streams/streamd/internal/hooks"
	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/budget"
	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/disk"
	"github.com/iterate/durable-streams/streamlib/follower"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/metrics"
	"github.com/iterate/durable-streams/streamlib/retention"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/iterate/durable-streams/streamlib/streamhttp/page"
	"github.com/iterate/durable-streams/streamlib/streamhttp/protocol"
	"github.com/iterate/durable-streams/streamlib/streamhttp/tokens"
)

const (
	// drainTime is how long the end waits for requests that have begun; the storage's end comes after it, within 5 s.
	drainTime = 4 * time.Second
	// ownerTime is how long a server that finds its folder taken waits for the owner to say who it is, or to end.
	ownerTime = 8 * time.Second
	// adminConns is how many connections operators may have beside the others.
	adminConns = 64
	// hooksAtOnce is how many processes of each of --hooks run at once.
	hooksAtOnce = 8
)

// run is streamd, with all that a process has around it in the arguments. It returns when ctx is done and all has
// ended.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader,
	stdout, stderr io.Writer) error {
	out := &output{Writer: stdout}
	if len(args) > 0 && args[0] == "config" {
		return out.outcome(config(args[1:], getenv, out))
	}
	if len(args) > 0 && jobs[args[0]].run != nil {
		return out.outcome(job{stdin: stdin, stdout: out, stderr: stderr, dumb: getenv("TERM") == "dumb"}.do(ctx, args[0], args[1:]))
	}
	o, err := parse(args, getenv, out)
	if err != nil {
		return out.outcome(err)
	}
	o.manager = managerOf(getenv)
	file, _ := stderr.(*os.File)
	journal := file != nil && isJournal(file, getenv("JOURNAL_STREAM"))
	to := bounded(stderr, o.dir)
	log := newLog(o, to, journal)
	if l, ok := to.(*boundedLog); ok {
		reloads(func() {
			if err := l.reopen(); err != nil {
				log.Error("the log goes on where it was", "error", err)
			} else {
				log.Info("the log was opened again", "file", l.path)
			}
		})
	}
	return serve(ctx, o, stdout, log)
}

// serve is flags → storage → manager → routes → listener.
func serve(ctx context.Context, o options, stdout io.Writer, log *slog.Logger) (err error) {
	var ip *net.IPAddr
	if o.manager.sockets == 0 {
		ip, err = address(o)
	}
	if err == nil && o.tokens != "" {
		_, err = tokens.Read(o.tokens)
	}
	if err == nil && o.admin != "" {
		_, err = adminAddress(o)
	}
	var cert *certificate
	if err == nil {
		cert, err = openCertificate(o, log)
	}
	if err == nil && o.hooks != "" {
		var programs *hooks.Hooks
		if programs, err = hooks.Open(o.hooks, o.dir, hooksAtOnce, log); err == nil {
			defer programs.Close()
			o.factory = o.factory.WithHooks(programs.Hooks())
		}
	}
	if err != nil || o.check {
		return err
	}
	o.manager.tell("STATUS=opening the folder")
	if o.admin == "" {
		sampleNothing()
	}
	failed, figures := make(chan error, 1), newFigures()
	var storage streamlib.Storage
	var ready func() error
	var ends ending
	err = whenFree(ctx, o.dir, func() (err error) {
		storage, ready, err = openStorage(ctx, o, failed, figures, log)
		return err
	})
	if err != nil {
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
	if cert != nil {
		reloads(func() { _ = cert.load(true) }) // which logs
	}
	doors, err := listenOn(ctx, o, ip, log)
	if err != nil {
		return err
	}
	defer doors.close()
	if o.unix != "" {
		if err := doors.openUnix(o.unix); err != nil {
			return err
		}
	}
	if o.admin != "" {
		if err := doors.openAdmin(ctx, o); err != nil {
			return err
		}
	}
	if err := o.limits.count(ctx, storage); err != nil {
		return err
	}
	health := streamhttp.Health{
		Status: "ok", PID: os.Getpid(), Dir: o.dir, URL: doors.url, Version: daemon.Version(), Storage: o.storage,
		StartedAt: time.Now().UTC(), Args: o.args, Unit: o.manager.unit("/proc/self/cgroup"),
	}
	o.limits.fit()
	memory := cmp.Or(o.memory, machineMemory("/", totalMemory()))
	limitMemory(memory, os.Getenv("GOMEMLIMIT"))
	figures.memory = budget.New(memory)
	within := o.limits.over(counted{storage, figures}, o)
	if l, ok := within.(*limited); ok {
		ready = both(l.roomy, ready)
	}
	manager := streamlib.NewManager(sharing(within, storage), o.factory, streamlib.Options{
		MaxEvent: o.maxEvent, Log: log, Budget: figures.memory,
	})
	var mirror mirroring
	webhooks, err := openWebhooks(ctx, o, manager, log)
	if err == nil {
		mirror, err = openMirror(ctx, o, manager, log)
	}
	if err != nil {
		return err
	}
	followers := func() []follower.Report { return append(webhooks.reports(), mirror.reports()...) }
	sweeper := &retention.Sweeper{Manager: manager, Retain: o.retain, Expire: o.expire, Log: log}
	config := streamhttp.Config{
		MaxEvent: o.maxEvent, Log: log, Health: health, Ready: ends.unless(ready),
		Metrics: func(p *metrics.Page) {
			figures.write(p)
			cert.write(p)
			writeRetention(p, sweeper.Totals())
			writeFollowers(p, followers())
		},
		Followers: followers, Synced: figures.whenSynced,
		AccessLog: o.accessLog, AllowHosts: append(o.allowHosts, o.host), AllowOrigins: o.allowOrigins,
		Page: page.Handler(), MaxSubscribers: o.limits.subscribers, Local: doors.isOwn, Debug: http.HandlerFunc(profiles),
	}
	if o.admin != "" {
		config.AllowHosts = append(config.AllowHosts, o.admin)
	}
	if access != nil {
		config.Access = trusting{access, doors}
	}
	if err := doors.openOwn(o.dir, log); err != nil {
		return err
	}
	_, shared := storage.(streamlib.Shared)
	speaks := protocol.Config{Access: config.Access, Shared: shared, Log: log}
	if figures.store != nil {
		speaks.Names = figures.store.Stated
	}
	durable := protocol.NewHandler(manager, speaks)
	config.Protocol, sweeper.Keeper = durable.Serve, durable
	handler := doors.guard(streamhttp.NewHandler(manager, config))
	base, endSubscriptions := context.WithCancel(context.Background())
	defer endSubscriptions()
	server := streamhttp.NewServer(base, handler, log)
	ends.watch(server)
	doors.tell(server)
	ended, conns := make(chan error, len(doors.all)), &connections{most: int64(o.limits.conns), log: log}
	var accepting sync.WaitGroup
	for _, d := range doors.all {
		conns := conns
		if d.kind == admin { // operators get in where nobody else does
			conns = &connections{most: adminConns, log: log}
		}
		if cert != nil && d.encrypts() {
			limited := conns.limit(d.Listener, cert.config("http/1.1"))
			d.Listener = tls.NewListener(limited, cert.config("h2", "http/1.1"))
		} else {
			d.Listener = conns.limit(d.Listener, nil)
		}
		accepting.Go(func() { ended <- server.Serve(d) })
	}

	sweep, endSweep := context.WithCancel(context.Background())
	var sweeping sync.WaitGroup
	sweeping.Go(func() { sweeper.Run(sweep) })
	defer sweeping.Wait()
	defer endSweep()

	endWebhooks := sync.OnceFunc(webhooks.start())
	defer endWebhooks()
	endMirror := mirror.start()
	defer func() { done, cancel := context.WithCancel(context.Background()); cancel(); endMirror(done) }()

	files := hints{dir: o.dir, pid: os.Getpid(), port: doors.port, secret: doors.hint}
	if err := files.write(); err != nil {
		log.Warn("streamctl will not find this server by its folder", "error", err)
	}
	defer files.remove()
	ignore(o.dir)
	if err := keepArgs(o.dir, o.own); err != nil {
		log.Warn("streamctl will not start this server again with its flags", "error", err)
	}
	log.Info("serving", "dir", o.dir, "url", doors.url, "storage", o.storage, "sync", o.sync, "pid", health.PID, "version",
		health.Version)
	for _, d := range doors.all {
		warnOf(log, o, d)
	}
	warn(log, o)
	if _, err := fmt.Fprintln(stdout, doors.url); err != nil {
		log.Warn("the URL was not printed", "error", err)
	}
	o.manager.onReload()
	o.manager.tell("READY=1", "STATUS="+figures.status())
	beats, endBeats := o.manager.beats()
	defer endBeats()

	for serving := true; serving; {
		select {
		case err = <-ended:
			err, serving = fmt.Errorf("serve %s: %w", doors.url, err), false
		case err = <-failed:
			log.Error("ending, to be started again: --exit-on-failure", "error", err)
			serving = false
		case <-ctx.Done():
			log.Info("ending", "cause", context.Cause(ctx))
			serving = false
		case <-beats:
			o.manager.beat(figures)
		}
	}
	o.manager.tell("STOPPING=1")
	ends.begin(doors)
	accepting.Wait() // so that it is known of each connection that was taken
	endSubscriptions()
	var ending sync.WaitGroup
	defer ending.Wait()
	ending.Go(endWebhooks) // which waits a little for their receivers, and goes on where it was with the next start
	drain, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	ends.await(drain)
	if late := server.Shutdown(drain); late != nil {
		log.Warn("requests were cut off", "error", late)
		server.Close()
	}
	endMirror(drain) // what was acknowledged is in it
	return err
}

// openStorage takes the folder, and opens what is in it unless the storage is memory or a bucket. Where it fails later, and is to
// end the server, that comes through failed.
func openStorage(ctx context.Context, o options, failed chan<- error, f *figures,
	log *slog.Logger) (storage streamlib.Storage, ready func() error, err error) {
	if o.storage == "fs" {
		options := disk.Options{NoSync: o.sync == "none", Log: log, Synced: f.synced}
		if o.exits {
			options.Failed = func(err error) { failed <- err }
		}
		store, err := disk.Open(o.dir, options)
		if err != nil {
			return nil, nil, err
		}
		if err := whole(o.dir); err != nil {
			return nil, nil, errors.Join(err, store.Close())
		}
		f.store = store
		return store, store.Ready, nil
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return nil, nil, err
	}
	lock, err := disk.Lock(o.dir)
	if err == nil && isBucket(o.storage) {
		store, err := openBucket(ctx, o, log)
		if err != nil {
			return nil, nil, errors.Join(err, lock.Close())
		}
		return lockedShared{store, lock}, nil, nil
	}
	return locked{memory.New(), lock}, nil, err
}

// both is what the first of two finds, or the second, which may be nil.
func both(first, second func() error) func() error {
	return func() error {
		if err := first(); err != nil || second == nil {
			return err
		}
		return second()
	}
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
	return ip, allowed(o, ip.IP, "--host "+host)
}

// allowed refuses an address that other machines reach, unless it was said how they are let in. What is it for a
// person.
func allowed(o options, ip net.IP, what string) error {
	switch {
	case ip.IsLoopback():
	case o.tokens == "" && !o.insecure:
		return usageError{fmt.Errorf("%s can be reached by other machines, and whoever reaches it could "+
			"read, write and delete: "+
			"make a token with streamctl token create NAME --can write --file FILE, and start it with --tokens FILE; "+
			"or if that is meant, add --insecure-no-auth", what)}
	case o.tokens != "" && o.tlsCert == "" && !o.plain:
		return usageError{fmt.Errorf("%s can be reached by other machines, and tokens would cross the "+
			"network as they are: give it --tls-cert and --tls-key; or put a proxy with TLS in front, and add "+
			"--insecure-no-tls; one on this machine needs no --host", what)}
	}
	return nil
}

// listen opens a door on ip, and where that does not take connections to 127.0.0.1 and does not encrypt one there too,
// on the same port. Where the port is taken, it is another one if fallback says so.
func listen(ctx context.Context, ip *net.IPAddr, o options) (*doors, error) {
	var lc net.ListenConfig
	port := strconv.Itoa(o.port)
	first, err := lc.Listen(ctx, "tcp", net.JoinHostPort(ip.String(), port))
	if errors.Is(err, portTaken) && o.portFallback {
		first, err = lc.Listen(ctx, "tcp", net.JoinHostPort(ip.String(), "0"))
	}
	if errors.Is(err, portTaken) {
		return nil, fmt.Errorf("port %s of %s is taken by another program; choose one with --port, or a free one "+
			"with --port 0", port, ip)
	} else if err != nil {
		return nil, err
	}
	d := &doors{all: []*door{{first, public}}, port: first.Addr().(*net.TCPAddr).Port}
	port = strconv.Itoa(d.port)
	local := net.JoinHostPort("127.0.0.1", port)
	if d.url = o.scheme() + local; ip.IP.IsUnspecified() || ip.IP.Equal(net.IPv4(127, 0, 0, 1)) {
		return d, nil
	}
	if d.url = o.scheme() + net.JoinHostPort(ip.String(), port); o.tlsCert != "" {
		d.port = 0
		return d, nil
	}
	second, err := lc.Listen(ctx, "tcp", local)
	if err != nil {
		first.Close()
		return nil, fmt.Errorf("%w (streamd listens on 127.0.0.1 too, where programs of this machine look for it)", err)
	}
	d.all = append(d.all, &door{second, public})
	return d, nil
}

// warnOf says at the start who reaches a listener beside this machine.
func warnOf(log *slog.Logger, o options, l net.Listener) {
	if addr, ok := l.Addr().(*net.TCPAddr); ok && !addr.IP.IsLoopback() {
		if o.tokens == "" {
			log.Warn("whoever reaches this address can read, write and delete: --insecure-no-auth", "address", addr.String())
		} else if o.tlsCert == "" {
			log.Warn("tokens cross the network as they are, unless a proxy encrypts: --insecure-no-tls", "address",
				addr.String())
		}
	}
}

// warn says at the start what was chosen that the default promises do not cover.
func warn(log *slog.Logger, o options) {
	if len(o.retains)+len(o.expires) > 0 {
		log.Info("old events go", "retain", o.retains, "expire", o.expires)
	}
	switch {
	case o.storage == "memory":
		log.Warn("events are lost when this server ends: --storage memory")
	case o.sync == "none":
		log.Warn("acknowledged events may be lost when the machine fails: --sync none")
	}
}

// whenFree calls take until that does not find the folder taken. Where another server has it, the error names that
// one, which may just be starting. It may be ending, too, or somebody only looks whether the folder is taken.
func whenFree(ctx context.Context, dir string, take func() error) error {
	ctx, cancel := context.WithTimeout(ctx, ownerTime)
	defer cancel()
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		if err := take(); !errors.Is(err, disk.ErrLocked) {
			return err
		}
		if _, health, err := ask(ctx, dir); err == nil {
			return fmt.Errorf("%w: %s belongs to the server with pid %d at %s", disk.ErrLocked, daemon.Word(dir), health.PID,
				health.URL)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%w: %s belongs to a server that is not found; streamctl server status --dir %s says more",
				disk.ErrLocked, daemon.Word(dir), daemon.ShellWord(dir))
		}
	}
}
