//go:build unix

package main

import (
	"bufio"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/matryer/is"
)

// atOnce runs a command n times at once; "%d" in it is the number of the run.
func (p place) atOnce(n int, line string) []result {
	results := make([]result, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { results[i] = p.run("%s", strings.ReplaceAll(line, "%d", strconv.Itoa(i))) })
	}
	wg.Wait()
	return results
}

func TestRacingAppendsStartOneServer(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	const racers = 20
	started := 0
	for _, r := range p.atOnce(racers, "streamctl stream append -n race -m m%d") {
		is.Equal(r.code, 0) // every racer's append succeeds
		started += strings.Count(r.stderr, "started streamd")
	}
	is.Equal(started, 1)
	is.Equal(len(slices.Compact(slices.Sorted(slices.Values(p.texts("race"))))), racers)
}

func TestRacingServerStartsHaveOneWinner(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	won := 0
	for _, r := range p.atOnce(8, "streamctl server start --port 0") {
		if r.code == 0 {
			won++
			continue
		}
		is.Equal(r.code, 1)
		is.True(strings.Contains(r.stderr, "already running: pid "))
	}
	is.Equal(won, 1)
}

// bystander is a process whose pid a stale file names.
func bystander(t *testing.T) (pid int, alive func() bool) {
	t.Helper()
	c := exec.Command("sleep", "600")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { c.Wait(); close(done) }()
	t.Cleanup(func() { c.Process.Kill(); <-done })
	return c.Process.Pid, func() bool {
		select {
		case <-done:
			return false
		default:
			return c.Process.Signal(syscall.Signal(0)) == nil
		}
	}
}

func (p place) plant(dir string, pid, port int) {
	p.t.Helper()
	is := is.New(p.t)
	is.NoErr(os.MkdirAll(filepath.Join(p.dir, dir), 0o700))
	is.NoErr(os.WriteFile(filepath.Join(p.dir, dir, "daemon.pid"), fmt.Appendln(nil, pid), 0o600))
	is.NoErr(os.WriteFile(filepath.Join(p.dir, dir, "daemon.port"), fmt.Appendln(nil, port), 0o600))
}

// TestStaleFilesAreNotBelieved plants files that name a living process which is no server, and a port where nobody,
// somebody else, or another folder's server listens.
func TestStaleFilesAreNotBelieved(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter,
		r *http.Request) {
		fmt.Fprint(w, `{"status":"ok"}`)
	}))
	defer stranger.Close()
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	is.NoErr(err)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	is.NoErr(err)
	closed.Close()
	defer mute.Close()
	other := newPlace(t)
	other.start()
	others, err := strconv.Atoi(strings.TrimSpace(other.ok("cat .iterate/daemon.port")))
	is.NoErr(err)

	for name, port := range map[string]int{
		"nobody":         closed.Addr().(*net.TCPAddr).Port,
		"somebody else":  stranger.Listener.Addr().(*net.TCPAddr).Port,
		"silence":        mute.Addr().(*net.TCPAddr).Port,
		"another server": others,
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			pid, alive := bystander(t)
			p := newPlace(t)
			p.plant(".iterate", pid, port)
			for _, command := range []string{"status", "stop"} {
				is.Equal(p.run("streamctl server %s", command).code, 3)
				is.True(alive()) // whom the pid file names
			}
			r := p.run("streamctl stream append -n x -m mine")
			is.Equal(r.code, 0)
			is.True(strings.Contains(r.stderr, "started streamd"))
			is.Equal(p.texts("x"), []string{"mine"})
			p.plant(".iterate", pid, p.port())
			p.ok("streamctl server stop")
			is.True(alive())
		})
	}
	is.Equal(other.ok("streamctl stream list"), "") // nothing went to the other folder's server
}

// TestFoldersHaveServersOfTheirOwn is for the original's fault: a second folder's append went into the first one's
// data.
func TestFoldersHaveServersOfTheirOwn(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.run("streamctl stream append -n x -m first --dir one")
	p.run("streamctl stream append -n x -m second --dir two")
	p.ok("cp -r one three") // with the files that name its server
	r := p.run("streamctl stream append -n x -m third --dir three")
	is.True(strings.Contains(r.stderr, "started streamd"))
	is.Equal(p.texts("x", "--dir one"), []string{"first"})
	is.Equal(p.texts("x", "--dir two"), []string{"second"})
	is.Equal(p.texts("x", "--dir three"), []string{"first", "third"})
	is.Equal(p.texts("x", "--dir two/../one"), []string{"first"})
	p.ok("ln -s one link")
	is.Equal(p.texts("x", "--dir link"), []string{"first"}) // one folder, whatever it is called
}

// TestServerFlagIsObeyed is for the original's fault: --server and DURABLE_STREAMS_URL were ignored.
func TestServerFlagIsObeyed(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	elsewhere := newPlace(t)
	url := fmt.Sprintf("http://127.0.0.1:%d", p.port())
	elsewhere.ok("streamctl stream append -n x -m flag --server %s", url)
	elsewhere.ok("streamctl -s=%s/ stream append -n x -m short", url)
	elsewhere.ok("DURABLE_STREAMS_URL=%s streamctl stream append -n x -m environment", url)
	elsewhere.ok("DURABLE_STREAMS_URL=http://127.0.0.1:1 streamctl stream append -n x -m 'the flag wins' -s %s",
		strings.TrimPrefix(url, "http://"))
	is.Equal(p.texts("x"), []string{"flag", "short", "environment", "the flag wins"})

	p.ok("streamctl server stop")
	for command, says := range map[string]string{"stream append -n x -m a": `append "x"`,
		"stream get -n x": `get "x"`, "stream subscribe -n x": `subscribe "x"`, "stream subscribe --all": "subscribe",
		"stream wait -n x": `wait "x"`, "stream list": "list", "stream delete -n x": `delete "x"`, "bench": "bench"} {
		r := elsewhere.run("streamctl %s --server %s", command, url)
		is.Equal(r.code, 1)
		is.Equal(r.stderr, "streamctl: "+says+": no answer from "+url+": connection refused\n"+
			"Try: streamctl server start, then the same without --server and DURABLE_STREAMS_URL\n")
	}
	is.Equal(elsewhere.ok("ls -A"), "") // no folder was made and no server started
}

// TestFlagsBeatTheEnvironment, for every command that goes to a server: --dir is that folder's, whatever
// DURABLE_STREAMS_URL says.
func TestFlagsBeatTheEnvironment(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.ok("streamctl server start --port 0 --dir one")
	p.ok("streamctl server start --port 0 --dir two")
	url := "http://127.0.0.1:" + strings.TrimSpace(p.ok("cat one/daemon.port"))
	p.ok("streamctl stream append -n x -m one -s %s", url)
	p.ok("DURABLE_STREAMS_URL=%s streamctl stream append -n x -m two --dir two", url)
	is.Equal(p.texts("x", "--dir one"), []string{"one"})
	is.Equal(p.texts("x", "--dir two"), []string{"two"})
	p.ok("DURABLE_STREAMS_URL=%s streamctl stream delete -n x --dir two", url)
	is.Equal(p.texts("x", "--dir one"), []string{"one"})
	is.True(!strings.Contains(p.ok("DURABLE_STREAMS_URL=%s streamctl server status", url), p.dir)) // it tells no stranger
	socket := "unix:" + p.dir + "/one/daemon.sock"
	is.True(strings.Contains(p.ok("DURABLE_STREAMS_URL=%s streamctl server status", socket), p.dir+"/one\n"))
	is.True(strings.Contains(p.ok("DURABLE_STREAMS_URL=%s streamctl server status --dir two", url), p.dir+"/two\n"))

	for _, command := range []string{"stream get -n x", "stream append -n x -m a", "stream subscribe -n x",
		"stream wait -n x", "stream list",
		"stream delete -n x", "server status", "server stop", "server restart", "bench"} {
		for _, flags := range []string{"--server " + url + " --dir two", "-s ''"} {
			r := p.run("DURABLE_STREAMS_URL=%s streamctl %s %s", url, command, flags)
			is.Equal(r.code, 2)
			is.True(strings.Contains(r.stderr, "\nTry: streamctl "))
		}
	}
	p.ok("DURABLE_STREAMS_URL=%s streamctl server stop --dir two", url)
	r := p.run("DURABLE_STREAMS_URL=%s streamctl server stop", url)
	is.Equal(r.code, 1)
	is.True(strings.Contains(r.stderr, "Try: streamctl server stop --dir DIR, on its machine"))
	p.ok("DURABLE_STREAMS_URL=%s streamctl server stop", socket)
	r = p.run("DURABLE_STREAMS_URL=%s streamctl server status", url)
	is.Equal(r.code, 3)
	is.Equal(r.stdout, "Not running\n")
	is.Equal(p.run("streamctl server stop -s %s", url).code, 3)
	is.Equal(p.run("streamctl server status --dir one").code, 3)
}

// TestServerElsewhere: of another machine's server, which does not say what is that machine's, status tells what
// there is.
func TestServerElsewhere(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"status":"ok","version":"v9","storage":"fs","startedAt":"2026-01-01T00:00:00Z"}`)
	}))
	defer s.Close()
	p := newPlace(t)
	status := p.run("streamctl server status -s %s", s.URL)
	is.Equal(status.code, 0)
	is.True(strings.HasPrefix(status.stdout, "url      "+s.URL+"\nversion  v9\nstorage  fs\nuptime   "))
	is.Equal(status.stderr, "streamctl: streamctl is of version devel, and the server of v9\n"+
		"Try: the same version on both machines\n")
	status = p.run("streamctl server status --check -s %s", s.URL)
	is.Equal(status.code, 1)
	is.Equal(status.stdout, "server    ok      it takes appends at "+s.URL+"\n"+
		"versions  not ok  streamctl is of version devel, and the server of v9\n"+
		"          Try:    the same version on both machines\n")
	for _, command := range []string{"stop", "restart"} {
		r := p.run("streamctl server %s -s %s", command, s.URL)
		is.Equal(r.code, 1)
		is.True(strings.Contains(r.stderr, "only through the folder's own socket"))
	}
	is.Equal(p.ok("ls -A"), "")
}

// TestReadingMakesNoServer: what can only read starts none where nothing is to be read, and says so.
func TestReadingMakesNoServer(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	for _, command := range []string{"get -n typo", "list", "list --details", "delete -n typo"} {
		r := p.run("streamctl stream %s", command)
		is.Equal(r.stdout, "")
		is.True(strings.Contains(r.stderr, p.dir+"/.iterate"))
		is.Equal(p.ok("ls -A"), "")
	}
	p.run("streamctl stream append -n x -m kept")
	p.ok("streamctl server stop")
	r := p.run("streamctl stream get -n x") // there is something: the server is started for it
	is.Equal(texts(r.stdout), []string{"kept"})
	is.True(strings.Contains(r.stderr, "started streamd"))
}

// TestCertificates: who signed the server's certificate is trusted by --cacert alone, and for the names that it has.
func TestCertificates(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	s := httptest.NewTLSServer(nil) // for the sake of its certificate
	s.Close()
	pair := s.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	is.NoErr(err)
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		"key.pem": {Type: "PRIVATE KEY", Bytes: key}} {
		is.NoErr(os.WriteFile(filepath.Join(p.dir, name), pem.EncodeToMemory(block), 0o600))
	}
	p.ok("streamctl server start --port 0 --tls-cert cert.pem --tls-key key.pem")
	url := fmt.Sprintf("https://127.0.0.1:%d", p.port())
	is.Equal(texts(p.ok("streamctl stream append -n x -m kept --server %s --cacert cert.pem", url)), []string{"kept"})
	is.Equal(texts(p.ok("streamctl stream get -n x --server %s --cacert cert.pem", url)), []string{"kept"})
	is.Equal(texts(p.ok("streamctl stream get -n x")), []string{"kept"}) // by the folder's own door
	named := strings.Replace(url, "127.0.0.1", "localhost", 1)           // which the certificate does not have
	for _, flags := range []string{"--server " + url, "--server " + named + " --cacert cert.pem"} {
		r := p.run("streamctl stream append -n x -m lost %s", flags)
		is.Equal(r.code, 1)
		is.Equal(r.stdout, "")
		is.True(strings.Contains(r.stderr, "failed to verify certificate"))
		is.True(strings.Contains(r.stderr, "\nTry: --cacert FILE"))
		is.True(!strings.Contains(r.stderr, "leaves open"))
		r = p.run("streamctl server status %s", flags)
		is.Equal(r.code, 1)
		is.True(strings.Contains(r.stderr, "\nTry: --cacert FILE"))
	}
	is.Equal(p.texts("x"), []string{"kept"})
}

func TestTokenIsSent(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	var got string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		w.WriteHeader(http.StatusNoContent)
	}))
	defer s.Close()
	newPlace(t).ok("DURABLE_STREAMS_TOKEN=secret streamctl stream delete -n x -s %s", s.URL)
	is.Equal(got, "Bearer secret")
}

func TestTakenPort(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	r := p.run("streamctl server start --port %s", port)
	is.Equal(r.code, 1)
	is.True(strings.Contains(r.stderr, "port "+port+" of 127.0.0.1 is taken"))
	is.Equal(p.run("streamctl server status").code, 3)

	out := p.ok("streamctl server start") // a free one instead, and said
	is.True(strings.Contains(out, fmt.Sprintf("http://127.0.0.1:%d\n", p.port())))
	is.True(strconv.Itoa(p.port()) != port)
	before := p.port()
	p.ok("streamctl server restart")
	is.Equal(p.port(), before) // for those who know the URL
	r = p.run("streamctl server restart --port %s", port)
	is.Equal(r.code, 1) // what is asked for is not replaced
	is.True(strings.Contains(r.stderr, "port "+port+" of 127.0.0.1 is taken"))
}

// TestHungServerIsStopped is for a server that holds its folder and answers nobody; its pid file may say what it
// likes.
func TestHungServerIsStopped(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	p.ok("pid=$(cat .iterate/daemon.pid); kill -STOP $pid; while grep State /proc/$pid/task/*/status | grep -qv " +
		"T; do :; done")
	pid, alive := bystander(t)
	p.plant(".iterate", pid, p.port())
	r := p.run("streamctl server status")
	is.Equal(r.code, 1)
	is.True(strings.Contains(r.stderr, "does not answer") && strings.Contains(r.stderr, "Try: streamctl server stop"))
	r = p.run("streamctl server stop --timeout 100ms")
	is.Equal(r.code, 0)
	is.True(strings.Contains(r.stderr, "was killed"))
	is.True(alive())
	is.Equal(p.run("streamctl server status").code, 3)
	p.start()
}

// TestLockOfAnotherProgramIsNoServer: who locks the folder and is no streamd is not signalled.
func TestLockOfAnotherProgramIsNoServer(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	if _, err := exec.LookPath("flock"); err != nil {
		t.Skip("flock is not installed")
	}
	p := newPlace(t)
	p.ok("mkdir .iterate")
	c := p.command("flock .iterate sh -c 'echo locked; exec sleep 600'")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := c.StdoutPipe()
	is.NoErr(err)
	is.NoErr(c.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	is.NoErr(err)
	r := p.run("streamctl server stop")
	is.Equal(r.code, 1)
	is.True(strings.Contains(r.stderr, "is no streamd"))
	is.NoErr(syscall.Kill(-c.Process.Pid, 0)) // alive
	is.NoErr(syscall.Kill(-c.Process.Pid, syscall.SIGKILL))
	c.Wait()
}

// TestStopEndsSubscriptions is for the original's fault: an open subscription kept the server from ending.
func TestStopEndsSubscriptions(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	subscriber := p.follow("streamctl stream subscribe -n x -o -1")
	p.ok("streamctl stream append -n x -m a")
	is.Equal(subscriber.texts(1), []string{"a"})
	p.ok("streamctl server stop") // and says nothing of killing
}

func TestServerRunIsStreamd(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	c := p.command("exec streamctl server run --port 0 --dir here")
	var log strings.Builder
	c.Stderr = &log
	out, err := c.StdoutPipe()
	is.NoErr(err)
	is.NoErr(c.Start())
	url, err := bufio.NewReader(out).ReadString('\n')
	is.NoErr(err)
	p.ok("streamctl stream append -n x -m a -s %s", strings.TrimSpace(url))
	is.Equal(strings.TrimSpace(p.ok("cat here/daemon.pid")), strconv.Itoa(c.Process.Pid)) // in the place of streamctl
	is.NoErr(c.Process.Signal(syscall.SIGTERM))
	is.NoErr(c.Wait())
	is.True(strings.Contains(log.String(), "level=INFO msg=serving dir="+p.dir+"/here"))
	is.Equal(p.ok("ls here"), "daemon.args\ndeletions\nformat\njournal\nstreams\n")
}

// TestAutostartWithoutStreamd is told with where it was looked for.
func TestAutostartWithoutStreamd(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.ok("cp %s/streamctl alone", bin)
	r := p.run("PATH=/usr/bin:/bin ./alone stream append -n x -m a")
	is.Equal(r.code, 1)
	is.True(regexp.MustCompile(`streamd is neither beside \S+/alone nor on PATH\nTry: `).MatchString(r.stderr))
}

// TestStartedAgainAsItWas: a server that starts by itself has the flags of the one before, or streams take what they
// must not.
func TestStartedAgainAsItWas(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.ok("streamctl server start --port 0 --factory validated")
	const crash = "kill -9 $(cat .iterate/daemon.pid); while streamctl server status; do :; done > /dev/null"
	for _, end := range []string{crash, "streamctl server stop"} {
		p.run("%s", end)
		r := p.run("streamctl stream append -n x -m forbidden")
		is.Equal(r.code, 1)
		is.True(strings.Contains(r.stderr, " with --port=0 --factory=validated, as it was started last\n"))
		is.True(strings.Contains(r.stderr, "hook validate-type"))
	}
	p.ok("streamctl server stop")
	p.ok("streamctl server start --port 0 --storage memory") // what is said now is what holds
	p.ok("streamctl stream append -n x -m kept")
	p.ok("streamctl server stop")
	r := p.run("streamctl stream append -n x -m kept")
	is.True(strings.Contains(r.stderr, " with --port=0 --storage=memory, as it was started last\n"))
	is.True(strings.Contains(p.ok("streamctl server status"), "storage  memory\n"))
	p.ok("streamctl server stop")
	p.ok("streamctl server start")
	p.ok("streamctl server stop")
	is.Equal(p.run("streamctl stream append -n x -m kept").code, 0)
	is.True(strings.Contains(p.ok("streamctl server status"), "storage  fs\n"))
}

// TestFlagsOfStreamd: with one that streamctl does not know no server could be started again or restarted.
func TestFlagsOfStreamd(t *testing.T) {
	is := is.New(t)
	known := strings.Fields(streamdFlags + " dir port-fallback check version help")
	for line := range strings.Lines(newPlace(t).ok("streamd --help")) {
		if flag, ok := strings.CutPrefix(strings.TrimSpace(line), "--"); ok {
			is.True(slices.Contains(known, strings.Fields(flag)[0]))
			_, _, _, err := parseFlags([]string{"--" + strings.Fields(flag)[0], "1"})
			is.True(err == nil || strings.Contains(flag, "check")) // which only streamctl gives
		}
	}
}

// TestProgramsAreNotRunByThemselves: a folder may be a copy of somebody else's, with what that one wants to be run.
func TestProgramsAreNotRunByThemselves(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.ok("mkdir -p .iterate/streams hooks; echo '[\"--hooks=/x\",\"--sync=none\"]' > .iterate/daemon.args")
	for _, command := range []string{"stream append -n x -m a", "server restart"} {
		r := p.run("streamctl %s", command)
		is.Equal(r.code, 1)
		is.True(strings.Contains(r.stderr, "was started last with --hooks /x, and what is in that folder is run only"))
		is.True(strings.Contains(r.stderr, "\nTry: streamctl server start --sync=none --hooks=/x"))
	}
	p.ok(`printf '#!/bin/sh\necho no >&2; exit 1\n' > hooks/before-append; chmod -R go-w . ; chmod 700 hooks/*`)
	is.Equal(p.run("streamctl server restart --hooks hooks --port 0").code, 0)
	r := p.run("streamctl stream append -n x -m a")
	is.True(strings.Contains(r.stderr, "hook before-append: no"))
	p.ok("streamctl server restart")
	is.Equal(p.run("streamctl stream append -n x -m a").code, 1)
	p.ok("streamctl server stop")
}

// TestPlantedFlags: what somebody else may have written is not obeyed.
func TestPlantedFlags(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.ok("mkdir -p .iterate/streams")
	for content, says := range map[string]string{
		"--port=0":                      "it is no JSON array of flags",
		`["--dir=/tmp","--port=0"]`:     "--dir is no flag for it",
		`["verify"]`:                    "verify is no flag for it",
		`["--prot=0"]`:                  "unknown flag --prot",
		`["--port=0","--storage=reel"]`: `--storage "reel": it is fs, memory or s3://BUCKET/PREFIX`,
	} {
		p.ok("echo '%s' > .iterate/daemon.args", content)
		for _, command := range []string{"append -n x -m a", "get -n x"} {
			r := p.run("streamctl stream %s", command)
			is.Equal(r.code, 1)
			is.True(strings.Contains(r.stderr, says))
			is.True(strings.Contains(r.stderr, "\nTry: streamctl server start with the flags"))
		}
	}
	for _, command := range []string{"mkfifo .iterate/daemon.args", "ln -s /etc/hostname .iterate/daemon.args"} {
		p.ok("rm .iterate/daemon.args; %s", command)
		is.Equal(p.run("streamctl stream get -n x").code, 1)
	}
	p.start()
}

// TestFileInTheFoldersPlace is named, by every command.
func TestFileInTheFoldersPlace(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	for _, make := range []string{"touch", "mkfifo"} {
		p.ok("rm -f .iterate; %s .iterate", make)
		for _, command := range []string{"stream append -n x -m a", "stream get -n x", "server start", "server status"} {
			r := p.run("streamctl %s", command)
			is.Equal(r.code, 1)
			is.Equal(p.normal(r.stderr), "streamctl: DIR/.iterate is no folder\n")
		}
	}
}

// TestFoldersOfAnyName are one word of a message, and of what it says to type.
func TestFoldersOfAnyName(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	for typed, shown := range map[string][2]string{
		`'my data'`:                 {`"DIR/my data"`, "'DIR/my data'"},
		`"$(printf 'a\nb\033[1m')"`: {`"DIR/a\nb\x1b[1m"`, `$'DIR/a\012b\033[1m'`},
	} {
		p := newPlace(t)
		p.ok("streamctl server start --port 0 --dir %s", typed)
		for _, program := range []string{"streamctl server start", "streamd --port 0"} {
			r := p.run("%s --dir %s", program, typed)
			is.True(r.code != 0)
			is.True(strings.Contains(p.normal(r.stderr), " "+shown[0]+" "))
		}
		is.True(strings.HasSuffix(p.normal(p.run("streamctl server start --dir %s", typed).stderr),
			"Try: streamctl server restart --dir "+shown[1]+"\n"))
		p.ok("streamctl server stop --dir %s", typed)
		is.Equal(p.normal(p.run("streamctl server stop --dir %s", typed).stderr),
			"streamctl: Not running: no server has "+shown[0]+"\n")
		p.ok("echo 'durable-streams 9' > %s/format", typed)
		r := p.run("streamctl server start --port 0 --dir %s", typed)
		is.True(strings.HasPrefix(p.normal(r.stderr), "streamctl: streamd did not start: open "+shown[0]+": "))
	}
}

// TestPlantedLog: the log of who types a command in somebody else's folder is not written through links.
func TestPlantedLog(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.ok("mkdir .iterate; echo precious > victim")
	for _, plant := range []string{"ln -s ../victim", "ln victim", "ln -s ../new", "mkfifo", "mkdir"} {
		p.ok("%s .iterate/daemon.log", plant)
		r := p.run("streamctl server start --port 0")
		is.Equal(r.code, 1)
		is.Equal(p.normal(r.stderr), "streamctl: DIR/.iterate/daemon.log is a link, or no file: nothing is written to it\n"+
			"Try: rm DIR/.iterate/daemon.log\n")
		p.ok("rm -r .iterate/daemon.log")
	}
	is.Equal(p.ok("cat victim; ls"), "precious\nvictim\n")
	p.start()
}

// TestCrashIsNoUsageError, though the status of both is 2.
func TestCrashIsNoUsageError(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.ok("mkdir bin; cp $(which streamctl) bin")
	for words, says := range map[string]string{
		"panic: out of luck\n\ngoroutine 1": "it crashed: out of luck; all it said is in DIR/.iterate/daemon.log",
		"":                                  "it said nothing; its log is DIR/.iterate/daemon.log",
	} {
		p.ok("printf '#!/bin/sh\nprintf \"%s\" >&2; exit 2\n' > bin/streamd; chmod +x bin/streamd", words)
		for _, command := range []string{"server start", "stream append -n x -m a"} {
			r := p.run("bin/streamctl %s", command)
			is.Equal(r.code, 1)
			is.Equal(p.normal(r.stderr), "streamctl: streamd did not start: "+says+"\n")
		}
	}
}

// TestFailedRestart leaves a server as it was.
func TestFailedRestart(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.ok("streamctl server start --port 0 --factory validated --storage memory")
	p.ok(`streamctl stream append -n x -e '{"_type":"a","text":"kept"}'`)
	for _, flags := range []string{"--storage reel", "--max-event 0", "--host 0.0.0.0", "--port 70000"} {
		r := p.run("streamctl server restart %s", flags)
		is.Equal(r.code, 2)
		is.True(strings.Contains(r.stderr, "the server was left as it is"))
		is.Equal(p.texts("x"), []string{"kept"})
	}
	before := p.port()
	r := p.run("streamctl server restart --factory plain --port %s", port) // which is taken
	is.Equal(r.code, 1)
	is.True(strings.Contains(r.stderr, "is taken by another program") &&
		strings.Contains(r.stderr, "it runs again as it was"))
	is.Equal(p.port(), before)
	is.Equal(p.run("streamctl stream append -n x -m forbidden").code, 1)
}

// TestKilledServerHasEnded when stop returns, also where that had no patience.
func TestKilledServerHasEnded(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	for range 5 {
		p.start()
		r := p.run("pid=$(cat .iterate/daemon.pid); kill -STOP $pid; streamctl server stop --timeout 0s && " +
			"! grep State /proc/$pid/status 2> /dev/null | grep -v Z")
		is.True(strings.Contains(r.stderr, "was killed"))
		is.Equal(r.code, 0)
	}
}

// TestRulesReachTheServer: those for what is kept, which may be repeated, and which a restart keeps or replaces.
func TestRulesReachTheServer(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.ok("streamctl server start --port 0 --storage memory --retain 'logs/*=7d,1GB' --retain '*=1000' --expire 'tmp/*=30d'")
	const rules = `"--retain=logs/*=7d,1GB","--retain=*=1000"`
	is.True(strings.Contains(p.ok("cat .iterate/daemon.args"), rules))
	p.ok("streamctl server restart --expire '*=1w'")
	is.True(strings.Contains(p.ok("cat .iterate/daemon.args"), rules))
	is.True(strings.Contains(p.ok("cat .iterate/daemon.args"), `["--expire=*=1w",`))
	is.True(strings.Contains(p.ok("cat .iterate/daemon.log"), `msg="old events go" retain="[logs/*=7d,1GB *=1000]"`))
	r := p.run("streamctl server restart --retain '*=5y'")
	is.Equal(r.code, 2)
	is.True(strings.Contains(r.stderr, `--retain "*=5y": "5y": there is no unit "y"`))
	p.ok("streamctl server restart --retain '*=5'")
	is.True(strings.Contains(p.ok("cat .iterate/daemon.args"), `"--retain=*=5",`))
	is.True(!strings.Contains(p.ok("cat .iterate/daemon.args"), "logs/"))
}
