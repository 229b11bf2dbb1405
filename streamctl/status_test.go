//go:build unix

package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"
)

// TestStatusExplains: it says how much there is, and where a server is not well also what its log said last.
func TestStatusExplains(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	logged := "streamctl: the last lines of " + p.dir + "/.iterate/daemon.log:\n"
	p.ok("streamctl server start --port 0 --min-free 100000TB")
	is.Equal(p.run("streamctl stream append -n a -m x").code, 1)
	said := p.run("streamctl server status")
	is.Equal(said.code, 0)
	is.True(strings.Contains(said.stdout, "appends  refused: storage is full: "))
	is.True(strings.HasPrefix(said.stderr, logged))
	is.True(strings.Contains(said.stderr, "msg=serving"))
	var status struct {
		Ready            bool
		Unready          string
		Streams          *int
		DiskUsed         *int64
		Synced           time.Time
		Version          string
		StreamctlVersion string `json:"streamctl"`
	}
	is.NoErr(json.Unmarshal([]byte(p.ok("streamctl server status --json")), &status))
	is.True(!status.Ready && strings.Contains(status.Unready, "--min-free"))
	is.True(status.Synced.IsZero())
	checked := p.run("streamctl server status --check")
	is.Equal(checked.code, 1)
	is.True(strings.Contains(checked.stdout, "server       not ok  it takes no appends: "))

	p.ok("streamctl server restart --min-free 2MB")
	p.ok("for s in a b c; do streamctl stream append -q -n $s -m x; done")
	status.Unready = ""
	is.NoErr(json.Unmarshal([]byte(p.ok("streamctl server status --json")), &status))
	is.True(status.Ready && status.Unready == "" && !status.Synced.IsZero())
	is.Equal(*status.Streams, 3)
	is.True(*status.DiskUsed > 300)
	is.Equal(status.Version, status.StreamctlVersion)

	pid := strings.TrimSpace(p.ok("cat .iterate/daemon.pid"))
	p.ok("kill -STOP %s", pid)
	for said.code = 0; said.code == 0; { // its threads stop one after the other
		said = p.run("streamctl server status")
	}
	p.ok("kill -CONT %s", pid)
	is.Equal(said.code, 1)
	is.True(strings.HasPrefix(said.stderr, logged))
	p.ok("kill -9 %s", pid)
	for said.code != 3 { // it is just ending
		said = p.run("streamctl server status")
	}
	is.Equal(said.code, 3)
	is.Equal(said.stdout, "Not running\n")
	is.True(strings.Contains(said.stderr, "did not end cleanly"))
	is.True(strings.Contains(said.stderr, logged))
}

// TestServerCheck: what is not ok is said with what to type.
func TestServerCheck(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	// found returns what is said of one thing, and what to type.
	found := func(name string) (says, try string) {
		t.Helper()
		said := p.run("streamctl server status --check --json")
		var all struct {
			OK     bool
			Checks []finding
		}
		is.NoErr(json.Unmarshal([]byte(said.stdout), &all))
		if good := p.run("streamctl server status --check"); good.code != said.code || (good.code == 0) != all.OK {
			t.Errorf("exit %d and %d where all being ok is %t", said.code, good.code, all.OK)
		}
		for _, f := range all.Checks {
			if f.OK != (f.Try == "") && f.Name != "server" {
				t.Errorf("%+v", f)
			}
			if f.Name == name && f.OK {
				return "ok", ""
			} else if f.Name == name {
				return f.Says, f.Try
			}
		}
		return "", ""
	}
	says, try := found("server")
	is.Equal(says, "not running")
	is.Equal(try, "streamctl server start")
	is.Equal(p.run("streamctl server status --check").code, 3)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	is.NoErr(err)
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	p.ok("ulimit -n 200; streamctl server start --port %d", port)
	says, _ = found("server")
	is.Equal(says, "ok")
	says, _ = found("lock")
	is.Equal(says, "ok")
	if runtime.GOOS == "linux" {
		says, try = found("descriptors")
		is.Equal(says, "it may have 200, and it should be 4096 or more")
		is.True(strings.Contains(try, "ulimit -n 65536"))
	}
	says, _ = found("folder")
	is.Equal(says, "ok")
	is.NoErr(os.Chmod(filepath.Join(p.dir, ".iterate"), 0o755))
	_, try = found("folder")
	p.ok("%s", try) // which is what mends it
	says, _ = found("folder")
	is.Equal(says, "ok")

	hour := time.Now().Add(time.Hour)
	is.NoErr(os.Chtimes(filepath.Join(p.dir, ".iterate", "daemon.log"), hour, hour))
	says, _ = found("clock")
	is.True(strings.Contains(says, "it was set back: "))
	p.ok("streamctl server stop")
	l, err = net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
	is.NoErr(err)
	defer l.Close()
	says, _ = found("port")
	is.True(strings.HasPrefix(says, strconv.Itoa(port)+", which the last server had, cannot be had"))
}

// TestMending: what differs is what is to be changed.
func TestMending(t *testing.T) {
	is := is.New(t)
	for _, c := range []struct{ server, own, would, says, mend string }{
		{"v1", "v2", "v2", "the server is still of version v1, while streamd is v2 now", ""},
		{"v1", "v2", "v1", "streamctl is of version v2, and streamd of v1", "scripts/build"},
		{"v1", "v2", "", "streamctl is of version v2, and the server of v1", "scripts/build"},
		{"v1", "v2", "v3", "streamctl is of version v2, streamd of v3, and the server of v1", "scripts/build"},
	} {
		says, mend := mending(c.server, c.own, c.would)
		is.True(strings.HasPrefix(says, c.says))
		is.True(mend == c.mend || c.mend != "" && strings.HasPrefix(mend, c.mend))
	}
}
