package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// Who has a folder's lock, Linux tells: the server is found, or what is the matter with it is said, whatever became
// of the files that name it.

// asRoot skips the test where it cannot mount or be somebody else.
func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root mounts and becomes other users")
	}
}

// pid is the server's, whatever its files say.
func (p place) pid(dir string) int {
	p.t.Helper()
	pid, known := folder{dir: filepath.Join(p.dir, dir)}.holder()
	if !known || pid == 0 {
		p.t.Fatalf("nobody has %s", dir)
	}
	return pid
}

func (p place) kill(dir string) {
	p.t.Helper()
	if err := syscall.Kill(p.pid(dir), syscall.SIGKILL); err != nil {
		p.t.Fatal(err)
	}
	for pid := 1; pid != 0; {
		pid, _ = folder{dir: filepath.Join(p.dir, dir)}.holder()
	}
}

func TestServerWithoutItsFiles(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	p.ok("streamctl stream append -n x -m one")
	pid := p.pid(".iterate")
	p.ok("rm .iterate/daemon.p*")
	is.Equal(p.texts("x"), []string{"one"})
	p.ok("mkfifo .iterate/daemon.port") // which nobody writes to
	p.ok("streamctl stream append -n x -m two")
	is.True(strings.Contains(p.ok("streamctl server status"), fmt.Sprintf("pid      %d\n", pid)))
	r := p.run("streamctl server start --port 0")
	is.True(strings.Contains(r.stderr, fmt.Sprintf("already running: pid %d", pid)))
	p.ok("streamctl server restart") // which makes them again
	p.ok("grep -q . .iterate/daemon.port")
	p.ok("rm .iterate/daemon.p*")
	is.Equal(p.texts("x"), []string{"one", "two"})
	p.ok("streamctl server stop")
}

// TestServerOnAFullDisk: it is found without the files that there is no room for, so that one can delete to make room.
func TestServerOnAFullDisk(t *testing.T) {
	asRoot(t)
	for lack, options := range map[string]string{"bytes": "size=1m", "names": "nr_inodes=14"} {
		t.Run(lack, func(t *testing.T) {
			is := is.New(t)
			p := newPlace(t)
			mount := filepath.Join(p.dir, "disk")
			p.ok("mkdir disk && mount -t tmpfs -o %s none disk", options)
			t.Cleanup(func() { syscall.Unmount(mount, syscall.MNT_DETACH) })
			t.Cleanup(func() { p.run("streamctl server stop --dir disk/d") })
			p.run("streamctl stream append --dir disk/d -n x -m kept")
			p.ok("streamctl server stop --dir disk/d")
			if lack == "names" {
				p.ok("rm disk/d/daemon.log; i=0; while touch disk/f$i 2> /dev/null; do i=$((i+1)); done")
			} else {
				p.run("cat /dev/zero > disk/ballast")
			}
			r := p.run("streamctl stream get --dir disk/d -n x")
			is.Equal(texts(r.stdout), []string{"kept"})
			is.True(strings.Contains(r.stderr, "started streamd"))
			is.Equal(p.texts("x", "--dir disk/d"), []string{"kept"}) // and found again
			status := p.run("streamctl server status --dir disk/d")
			is.Equal(status.code, 0)
			is.True(strings.Contains(status.stdout, "storage  fs\n"))
			is.True(strings.Contains(status.stdout, "\nappends  refused: storage is full: "))
			checked := p.run("streamctl server status --check --dir disk/d")
			is.Equal(checked.code, 1)
			is.True(regexp.MustCompile(`(?m)^disk +not ok `).MatchString(checked.stdout))
			is.True(strings.Contains(checked.stdout, "is in memory (tmpfs)"))
			p.ok("streamctl stream delete --dir disk/d -n x")
			p.ok("streamctl server stop --dir disk/d")
		})
	}
}

// TestStartOnAFullDisk tells what could not be written, though there is no room to log it.
func TestStartOnAFullDisk(t *testing.T) {
	asRoot(t)
	is := is.New(t)
	p := newPlace(t)
	mount := filepath.Join(p.dir, "disk")
	p.ok("mkdir disk && mount -t tmpfs -o size=1m none disk")
	t.Cleanup(func() { syscall.Unmount(mount, syscall.MNT_DETACH) })
	p.run("cat /dev/zero > disk/ballast")
	for _, command := range []string{"server start --port 0", "stream append -n x -m a"} {
		r := p.run("streamctl %s --dir disk/d", command)
		is.Equal(r.code, 1)
		is.Equal(p.normal(r.stderr), "streamctl: streamd did not start: open DIR/disk/d: "+
			"write DIR/disk/d/format.new: no space left on device\n")
	}
}

// TestServerOnAReadOnlyDisk has no log and writes nothing, and streams are read. Where it cannot start its words are
// told.
func TestServerOnAReadOnlyDisk(t *testing.T) {
	asRoot(t)
	is := is.New(t)
	p := newPlace(t)
	p.start()
	p.ok("streamctl stream append -n x -m kept")
	p.ok("streamctl server stop && rm .iterate/daemon.log")
	dir := filepath.Join(p.dir, ".iterate")
	is.NoErr(syscall.Mount(dir, dir, "", syscall.MS_BIND, ""))
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	is.NoErr(syscall.Mount("", dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	r := p.run("streamctl stream get -n x")
	is.Equal(texts(r.stdout), []string{"kept"})
	is.True(strings.Contains(r.stderr, "will have no log") && strings.Contains(r.stderr, "started streamd"))
	is.Equal(p.texts("x"), []string{"kept"}) // and found again
	p.ok("streamctl server stop")
	is.True(strings.Contains(p.run("streamctl server start --port %s", port).stderr,
		"port "+port+" of 127.0.0.1 is taken"))
}

func TestMovedFolder(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.ok("mkdir a")
	p.ok("streamctl server start --port 0 --dir a/d")
	p.ok("streamctl stream append -n x -m kept --dir a/d")
	p.ok("mv a b")
	for _, command := range []string{"append -n x -m lost", "get -n x", "list"} {
		r := p.run("streamctl stream %s --dir b/d", command)
		is.Equal(r.code, 1)
		is.Equal(p.normal(r.stderr), "streamctl: DIR/b/d was moved while pid PID serves it as DIR/a/d\n"+
			"Try: streamctl server restart --dir DIR/b/d\n")
	}
	r := p.run("streamctl server status --dir b/d")
	is.Equal(r.code, 0)
	is.True(strings.Contains(r.stderr, "was moved"))
	p.ok("streamctl server restart --dir 'b/d'")
	is.Equal(p.texts("x", "--dir b/d"), []string{"kept"})
}

// inContainer starts a server below unshare(1) on the folder that is here as .iterate.
func (p place) inContainer(unshare, dir string) {
	p.t.Helper()
	asRoot(p.t)
	if _, err := exec.LookPath("unshare"); err != nil {
		p.t.Skip("unshare is not installed")
	}
	p.ok("mkdir -p .iterate mnt")
	c := p.command(fmt.Sprintf("exec unshare %s sh -c 'mount -t tmpfs none mnt; mkdir mnt/d; mount --bind "+
		".iterate mnt/d; "+
		"ip link set lo up 2> /dev/null; exec streamd --dir %s --port 0'", unshare, dir))
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if pid, _ := (folder{dir: filepath.Join(p.dir, ".iterate")}).holder(); pid != 0 {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		c.Process.Kill()
		c.Wait()
	})
	if _, err := out.Read(make([]byte, 1)); err != nil {
		p.t.Skip("there is no container here: ", unshare)
	}
}

// TestServerInAContainer has other pids, and another path for the folder, and does not stand in the way.
func TestServerInAContainer(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.inContainer("-m -p -f --mount-proc", "mnt/d")
	p.ok("streamctl stream append -n x -m here")
	is.Equal(p.texts("x"), []string{"here"})
	is.True(strings.Contains(p.ok("streamctl server status"), fmt.Sprintf("pid      %d\n", p.pid(".iterate"))))
	p.ok("streamctl server stop")
	is.Equal(p.run("streamctl server status").code, 3)
}

// TestServerInAnotherNetwork is reached by its socket. Without that it cannot be from here, which is said at once.
func TestServerInAnotherNetwork(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.inContainer("-m -n", ".iterate")
	pid := p.pid(".iterate")
	p.ok("streamctl stream append -n x -m here")
	is.Equal(p.texts("x"), []string{"here"})
	is.True(strings.Contains(p.ok("streamctl server status"), fmt.Sprintf("pid      %d\n", pid)))
	p.ok("rm .iterate/daemon.sock")
	for _, command := range []string{"stream append -n x -m a", "stream get -n x", "server status"} {
		r := p.run("streamctl %s", command)
		is.Equal(r.code, 1)
		is.True(strings.Contains(r.stderr, fmt.Sprintf("pid %d has %s/.iterate in a network of its own", pid, p.dir)))
		is.True(strings.Contains(r.stderr, "Try: the same with --server "))
	}
}

// TestServerThatCannotBeSeen from a container is reached from there by its socket, and not ended. Without the socket it
// is in the way of those there, and of nobody else, which is said soon.
func TestServerThatCannotBeSeen(t *testing.T) {
	t.Parallel()
	asRoot(t)
	is := is.New(t)
	p := newPlace(t)
	p.start()
	p.ok("streamctl stream append -n x -m kept")
	const inside = "unshare -m -n -p -f --mount-proc "
	if out, err := p.command(inside + "true").CombinedOutput(); err != nil {
		t.Skipf("there is no container here: %s", out)
	}
	is.Equal(texts(p.ok(inside+"streamctl stream get -n x")), []string{"kept"})
	p.ok(inside + "streamctl stream append -n y -m 'from inside'")
	checked := p.run(inside + "streamctl server status --check").stdout
	is.True(regexp.MustCompile(`(?m)^server +ok +it takes appends`).MatchString(checked))
	is.True(regexp.MustCompile(`(?m)^lock +ok +a server that cannot be seen from here has it$`).MatchString(checked))
	for command, says := range map[string]string{"stop": "by a process that cannot be seen from here",
		"restart": "by a process that cannot be seen from here", "start --port 0": "already running: pid "} {
		r := p.run(inside+"streamctl server %s", command)
		is.Equal(r.code, 1)
		is.True(strings.Contains(r.stderr, says))
	}
	p.ok("rm .iterate/daemon.sock")
	for _, command := range []string{"server status", "server stop", "server restart", "server start --port 0",
		"server run --port 0", "stream append -n x -m a", "stream get -n x"} {
		r := p.run(inside+"timeout 7 streamctl %s", command) // streamd alone would wait for 8 s for who has it
		is.Equal(r.code, 1)
		is.Equal(p.normal(r.stderr), "streamctl: DIR/.iterate is in use by a process that cannot be seen from here: in "+
			"another container, of another user, or on another machine\nTry: "+withURL+"\n")
	}
	is.Equal(p.texts("x"), []string{"kept"})
	p.kill(".iterate")
	is.Equal(p.run(inside+"streamctl server status").code, 3) // its files are no proof
}

// TestFolderOfAnotherUser is not read, not started on, and named.
func TestFolderOfAnotherUser(t *testing.T) {
	t.Parallel()
	asRoot(t)
	is := is.New(t)
	p := newPlace(t)
	p.start()
	p.ok("streamctl stream append -n x -m kept")
	open := newPlace(t) // whose way the other user can go
	p.ok("chmod 711 . .. && cp %s/stream* %s && chmod 755 %[2]s %[2]s/..", bin, open.dir)
	if out, err := p.command("setpriv --reuid=65534 --regid=65534 --clear-groups true").CombinedOutput(); err != nil {
		t.Skipf("nobody else can be here: %s", out)
	}
	for _, command := range []string{"stream append -n x -m a", "stream get -n x", "stream list",
		"server status", "server stop", "server start --port 0"} {
		r := p.run("setpriv --reuid=65534 --regid=65534 --clear-groups %s/streamctl %s", open.dir, command)
		is.Equal(r.code, 1)
		is.True(strings.Contains(r.stderr, "belongs to another user") &&
			strings.Contains(r.stderr, "Try: the same with --server "))
	}
	// What is the matter is said, and neither to take the folder away from who has it nor to start another server.
	checked := p.run("setpriv --reuid=65534 --regid=65534 --clear-groups %s/streamctl server status --check", open.dir).stdout
	is.True(regexp.MustCompile(`(?m)^folder +not ok .* belongs to another user\n +Try: +the same command as its user`).
		MatchString(checked))
	is.True(!strings.Contains(checked, "chown") && !strings.Contains(checked, "server start"))
	is.Equal(p.texts("x"), []string{"kept"})

	// Nor is its socket where the folder is open to others.
	p.ok("chmod 755 .iterate; streamctl server restart --unix %s/s", open.dir)
	for _, socket := range []string{p.dir + "/.iterate/daemon.sock", open.dir + "/s"} {
		is.True(strings.Contains(p.ok("streamctl stream list -s unix:%s", socket), "x\n"))
		r := p.run("setpriv --reuid=65534 --regid=65534 --clear-groups %s/streamctl stream list -s unix:%s", open.dir, socket)
		is.Equal(r.code, 1)
		is.True(strings.Contains(r.stderr, "permission denied"))
	}
}

// TestRootInAnotherUsersFolder leaves it so that who has it can go on, also after a crash.
func TestRootInAnotherUsersFolder(t *testing.T) {
	t.Parallel()
	asRoot(t)
	is := is.New(t)
	p := newPlace(t)
	p.ok("chmod 711 . .. && cp %s/stream* . && mkdir home && chown 65534:65533 home && chmod 755 . stream*", bin)
	nobody := func(command string) string {
		return "cd home && setpriv --reuid=65534 --regid=65533 --clear-groups ../streamctl " + command
	}
	if out, err := p.command("setpriv --reuid=65534 --regid=65533 --clear-groups true").CombinedOutput(); err != nil {
		t.Skipf("nobody else can be here: %s", out)
	}
	p.ok("mkdir -m 700 home/.iterate && chown 65534:65533 home/.iterate")
	p.ok("cd home && streamctl server start --port 0 --max-event 1000")
	p.ok("cd home && streamctl stream append -n root -m one")
	checked := p.run("cd home && streamctl server status --check").stdout
	is.True(regexp.MustCompile(`(?m)^folder +ok .* is its user's alone$`).MatchString(checked))
	is.Equal(p.ok("cd home && find .iterate -not -uid 65534 -o -not -gid 65533"), ".iterate/daemon.args\n")
	p.kill("home/.iterate")
	r := p.run("%s", nobody("stream get -n root"))
	is.True(strings.Contains(r.stderr, "Try: streamctl server start with the flags ")) // root's are not taken
	p.ok("%s", nobody("server start --port 0"))
	p.ok("%s", nobody("stream append -n root -m two"))
	is.Equal(texts(p.ok("%s", nobody("stream get -n root"))), []string{"one", "two"})
	p.ok("%s", nobody("server stop"))
	is.True(strings.Contains(p.ok("cat home/.iterate/daemon.log"), "msg=ending"))
}

// TestLogOfAForegroundServer is where its stderr goes.
func TestLogOfAForegroundServer(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	c := p.command("exec streamctl server run --port 0 2> mine.log")
	out, err := c.StdoutPipe()
	is.NoErr(err)
	is.NoErr(c.Start())
	defer c.Wait()
	defer c.Process.Signal(syscall.SIGTERM)
	_, err = out.Read(make([]byte, 1))
	is.NoErr(err)
	is.True(strings.Contains(p.ok("streamctl server status"), "log      "+p.dir+"/mine.log\n"))
}

// TestNothingIsInherited: a server outlives who has started it, and must not keep what that has open.
func TestNothingIsInherited(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	const open = "exec 8> lock 9> lock; umask 777; export DURABLE_STREAMS_TOKEN=secret; "
	p.ok(open + "streamctl server start --port 0 --dir start")
	p.run(open + "streamctl stream append -n x -m a --dir append")
	c := p.command(open + "exec streamctl server run --port 0 --dir run")
	out, err := c.StdoutPipe()
	is.NoErr(err)
	is.NoErr(c.Start())
	defer c.Wait()
	defer c.Process.Signal(syscall.SIGTERM)
	_, err = out.Read(make([]byte, 1))
	is.NoErr(err)
	for _, dir := range []string{"start", "append", "run"} {
		pid := strconv.Itoa(p.pid(dir))
		is.True(!strings.Contains(p.ok("ls -l /proc/%s/fd", pid), p.dir+"/lock"))
		is.True(!strings.Contains(p.ok("cat /proc/%s/environ", pid), "secret"))
		is.Equal(p.ok("stat -c %%a %s %[1]s/daemon.port", dir), "700\n600\n")
	}
}

// TestServerOfSystemd is not started again out of systemd's hands, and what to type instead is said wherever a server
// is to be started again; but nothing that a server makes up.
func TestServerOfSystemd(t *testing.T) {
	is := is.New(t)
	p := newPlace(t)
	p.ok("mkdir -m 700 .iterate")
	dir := filepath.Join(p.dir, ".iterate")
	lock, err := os.Open(dir)
	is.NoErr(err)
	defer lock.Close()
	is.NoErr(syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	l, err := daemon.ListenFolder(dir)
	is.NoErr(err)
	defer l.Close()
	var unit atomic.Value
	begun := time.Now().UTC()
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(streamhttp.Health{Status: "ok", PID: os.Getpid(), Dir: dir, URL: "http://127.0.0.1:1",
			Version: "v0", Storage: "fs", StartedAt: begun, Args: []string{"--no-such-flag"}, Unit: unit.Load().(string)})
	}))
	for name, want := range map[string]string{"streamd.service": "sudo systemctl restart streamd.service",
		"--user s@a.service": "systemctl --user restart s@a.service", "": "", "x;reboot.service": "", "-f.service": ""} {
		unit.Store(name)
		for _, command := range []string{"restart", "restart --port 3999", "start", "status"} {
			r := p.run("streamctl server %s", command)
			is.True(r.code != 0 || command == "status")
			is.Equal(strings.Contains(r.stderr, "\nTry: "+want+"\n"), want != "")
			is.True(!strings.Contains(r.stderr, "reboot"))
		}
	}
}

// TestManagerOfTheCaller: what a manager such as systemd has for the caller is not for the server that this starts.
func TestManagerOfTheCaller(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.ok("NOTIFY_SOCKET=/run/x LISTEN_PID=1 LISTEN_FDS=1 LISTEN_FDNAMES=x WATCHDOG_USEC=1 WATCHDOG_PID=1 KEPT=1 " +
		"streamctl server start --port 0")
	environ := p.ok("cat /proc/$(cat .iterate/daemon.pid)/environ")
	is.True(strings.Contains(environ, "\x00KEPT=1\x00"))
	for _, name := range []string{"NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_"} {
		is.True(!strings.Contains(environ, "\x00"+name))
	}
}
