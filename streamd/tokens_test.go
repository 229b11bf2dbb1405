//go:build unix

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/disk"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// tokensFile makes a file of tokens whose secrets are "secret-" and their names.
func tokensFile(t *testing.T, path string, lines ...string) {
	t.Helper()
	var b strings.Builder
	for _, line := range lines {
		name, rest, _ := strings.Cut(line, " ")
		fmt.Fprintf(&b, "%s %x %s\n", name, sha256.Sum256([]byte("secret-"+name)), rest)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// request returns the status, the body and the cookies of an answer.
func request(t *testing.T, method, url string, header ...string) (int, string, []*http.Cookie) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Cookies()
}

// throughFolder is request through the folder's own socket.
func throughFolder(t *testing.T, dir, method, path string) (int, string) {
	t.Helper()
	return throughSocket(t, filepath.Join(dir, daemon.SocketFile), method, path)
}

func throughSocket(t *testing.T, socket, method, path string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return daemon.DialSocket(ctx, socket)
		}}}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// TestTokens: nobody gets in without one, from this machine neither, but through the folder's own socket. Who the
// server is only they know who come there.
func TestTokens(t *testing.T) {
	is := is.New(t)
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "tokens")
	tokensFile(t, path, "a read")
	url, end := inProcess(t, dir, "--tokens", path)
	status, _, _ := request(t, "GET", url+"/streams")
	is.Equal(status, 401)
	status, _, _ = request(t, "GET", url+"/streams", "Authorization: Bearer secret-a")
	is.Equal(status, 200)
	for _, header := range []string{"X: y", "Authorization: Bearer secret-a", "Authorization: Bearer "} {
		_, body, _ := request(t, "GET", url+"/healthz", header)
		is.True(strings.Contains(body, `"status":"ok"`))
		is.True(!strings.Contains(body, "pid") && !strings.Contains(body, dir) && !strings.Contains(body, path))
	}

	for _, each := range []string{"GET /streams", "GET /metrics", "GET /export", "GET /streams/s/events",
		"DELETE /streams/s", "GET /v1/stream/s?offset=-1"} {
		method, at, _ := strings.Cut(each, " ")
		status, _ := throughFolder(t, dir, method, at)
		is.True(status/100 == 2 || status == 404)
	}
	_, body := throughFolder(t, dir, "GET", "/healthz")
	is.True(strings.Contains(body, fmt.Sprintf(`"pid":%d,"dir":%q,"url":%q`, os.Getpid(), dir, url)))
	for name, mode := range map[string]os.FileMode{keyFile: 0o600, daemon.SocketFile: os.ModeSocket | 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		is.NoErr(err)
		is.Equal(info.Mode(), mode)
	}
	out, err := exec.Command(streamdBinary(t), "--dir", dir, "--port", "0").CombinedOutput()
	is.Equal(exitStatus(err), 4)
	is.Equal(string(out), fmt.Sprintf("streamd: %v: %s belongs to the server with pid %d at %s\n", disk.ErrLocked,
		dir, os.Getpid(), url))

	_, _, cookies := request(t, "POST", url+"/session", "Authorization: Bearer secret-a")
	log, err := end()
	is.NoErr(err)
	is.True(!strings.Contains(log, "secret"))
	for _, name := range []string{daemon.SecretFile, daemon.SocketFile} {
		_, err = os.Lstat(filepath.Join(dir, name))
		is.True(os.IsNotExist(err))
	}

	url, _ = inProcess(t, dir, "--tokens", path)
	status, _, _ = request(t, "GET", url+"/streams", "Cookie: "+cookies[0].Name+"="+cookies[0].Value)
	is.Equal(status, 200) // a page goes on reading over the restart
}

// TestWithoutTokens nothing of them is in the folder, and who the server is is told through its socket alone all the
// same.
func TestWithoutTokens(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	is.NoErr(os.WriteFile(filepath.Join(dir, daemon.SecretFile), []byte("of one that crashed\n"), 0o600))
	url, _ := inProcess(t, dir)
	for _, name := range []string{daemon.SecretFile, keyFile} {
		_, err := os.Stat(filepath.Join(dir, name))
		is.True(os.IsNotExist(err))
	}
	_, body, _ := request(t, "GET", url+"/healthz")
	is.True(!strings.Contains(body, "pid") && !strings.Contains(body, dir))
	_, body = throughFolder(t, dir, "GET", "/healthz")
	is.True(strings.Contains(body, `"pid":`))
	status, _, _ := request(t, "POST", url+"/session")
	is.Equal(status, 404)
}

// TestFolderWithoutASocket: where there can be none, a port and a secret from the folder take its place. What stands in
// the socket's place stays there.
func TestFolderWithoutASocket(t *testing.T) {
	is := is.New(t)
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "tokens")
	tokensFile(t, path, "a read")
	is.NoErr(os.WriteFile(filepath.Join(dir, daemon.SocketFile), []byte("mine"), 0o600))
	url, end := inProcess(t, dir, "--tokens", path)
	client, health, err := ask(t.Context(), dir)
	is.NoErr(err)
	is.Equal(health.URL, url)
	_, err = client.List(t.Context(), streamhttp.ListOptions{})
	is.NoErr(err)
	info, err := os.Stat(filepath.Join(dir, daemon.SecretFile))
	is.NoErr(err)
	is.Equal(info.Mode(), os.FileMode(0o600))
	port, secret, _ := strings.Cut(strings.TrimSpace(readFile(t, dir, daemon.SecretFile)), " ")
	for _, at := range []string{"/streams", "/healthz", "/", "/metrics"} {
		for _, header := range []string{"X: y", "Authorization: Bearer secret-a", "Authorization: " + secret} {
			status, body, _ := request(t, "GET", "http://127.0.0.1:"+port+at, header)
			is.Equal(status, 401)
			is.True(!strings.Contains(body, "pid"))
		}
	}
	status, _, _ := request(t, "GET", url+"/streams", "Authorization: Bearer "+secret)
	is.Equal(status, 401) // it is for that port alone
	log, err := end()
	is.NoErr(err)
	is.True(strings.Contains(log, "the folder has no socket") && !strings.Contains(log, secret))
	is.Equal(readFile(t, dir, daemon.SocketFile), "mine")
	_, err = os.Lstat(filepath.Join(dir, daemon.SecretFile))
	is.True(os.IsNotExist(err))
}

// TestSocketOfAKilledServer is no obstacle, and leads to nobody until the next one has it.
func TestSocketOfAKilledServer(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	unix := filepath.Join(t.TempDir(), "s")
	for i := range 20 {
		server := start(t, dir, "sh", "-c", `exec "$0" "$@" --unix `+unix)
		status, events := server.append("s", "", "1\n")
		is.Equal(status, 201)
		is.Equal(events[0].offset(), i)
		_, health, err := ask(t.Context(), dir)
		is.NoErr(err)
		is.Equal(health.PID, server.cmd.Process.Pid)
		server.client.CloseIdleConnections()
		server.signal(syscall.SIGKILL)
		is.True(server.wait() != nil)
		for _, path := range []string{filepath.Join(dir, daemon.SocketFile), unix} {
			_, err = daemon.DialSocket(t.Context(), path)
			is.True(errors.Is(err, syscall.ECONNREFUSED))
		}
	}
}

// TestSecretsFollowNoLinks, for the folder may be somebody else's.
func TestSecretsFollowNoLinks(t *testing.T) {
	is := is.New(t)
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "tokens")
	tokensFile(t, path, "a read")
	victim := filepath.Join(t.TempDir(), "victim")
	text := strings.Repeat("known to somebody ", 10)
	is.NoErr(os.WriteFile(victim, []byte(text), 0o600))
	for _, name := range []string{keyFile, daemon.SecretFile, keyFile + ".new", daemon.SecretFile + ".new"} {
		is.NoErr(os.Symlink(victim, filepath.Join(dir, name)))
	}
	_, end := inProcess(t, dir, "--tokens", path)
	is.True(readFile(t, dir, keyFile) != text)
	_, err := end()
	is.NoErr(err)
	is.Equal(readFile(t, filepath.Dir(victim), "victim"), text)
}

// TestSIGHUPReadsTheTokens, and a bad file changes nothing.
func TestSIGHUPReadsTheTokens(t *testing.T) {
	is := is.New(t)
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "tokens")
	tokensFile(t, path, "a read")
	server := start(t, dir, "sh", "-c", `exec "$0" "$@" --tokens `+path)
	opened := func(name string) bool {
		status, _, _ := request(t, "GET", server.url+"/streams", "Authorization: Bearer secret-"+name)
		return status == 200
	}
	is.True(opened("a") && !opened("b"))
	tokensFile(t, path, "b read")
	server.signal(syscall.SIGHUP)
	begun := time.Now()
	for !opened("b") {
		is.True(time.Since(begun) < time.Minute)
	}
	is.True(!opened("a"))
	is.NoErr(os.WriteFile(path, []byte("c secret-c read\n"), 0o600))
	server.signal(syscall.SIGHUP)
	is.NoErr(os.Chmod(path, 0o644))
	server.signal(syscall.SIGHUP)
	is.True(opened("b"))
	is.NoErr(server.end(syscall.SIGTERM))
	log := server.stderr.String()
	is.True(strings.Contains(log, "tokens read again"))
	is.True(!strings.Contains(log, "secret-"))
}

// TestTokensArePathsForLater: who starts the server again does it from another folder.
func TestTokensArePathsForLater(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tokens")
	tokensFile(t, path, "a read")
	t.Chdir(dir)
	for _, args := range [][]string{{"--tokens", "tokens"}, {"-tokens=./tokens"}, {"--tokens", path}} {
		is := is.New(t)
		o, err := parse(args, noEnv, io.Discard)
		is.NoErr(err)
		is.Equal(o.tokens, path)
		is.Equal(o.own, []string{"--tokens=" + path})
		again, err := parse(o.args, noEnv, io.Discard)
		is.NoErr(err)
		is.True(again.tokens == path && strings.Contains(strings.Join(o.args, " "), path))
	}
}

// TestFlagsOfAccess: what would let in who does not belong is refused, with what to do.
func TestFlagsOfAccess(t *testing.T) {
	dir := t.TempDir()
	good, bad, others := filepath.Join(dir, "good"), filepath.Join(dir, "bad"), filepath.Join(dir, "others")
	tokensFile(t, good, "a read")
	tokensFile(t, others, "a read")
	for _, err := range []error{os.WriteFile(bad, []byte("a secret read"), 0o600), os.Chmod(others, 0o644)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		args string
		code int
		says string
	}{
		{"--tokens " + good, 0, ""},
		{"--tokens " + good + " --allow-origin * --allow-origin https://app.example.com", 0, ""},
		{"--allow-origin https://app.example.com", 0, ""},
		{"--tokens " + good + " --host 0.0.0.0 --insecure-no-tls", 0, ""},
		{"--tokens " + good + " --host 127.0.0.2", 0, ""},
		{"--host 0.0.0.0 --insecure-no-auth", 0, ""},
		{"--tokens " + good + " --host 0.0.0.0", 2, "add --insecure-no-tls"},
		{"--tokens " + good + " --host 0.0.0.0 --insecure-no-auth", 2, "add --insecure-no-tls"},
		{"--host 0.0.0.0 --insecure-no-tls", 2, "streamctl token create NAME --can write --file FILE"},
		{"--host 0.0.0.0", 2, "add --insecure-no-auth"},
		{"--tokens=", 2, "--tokens is empty"},
		{"--tokens " + bad, 1, "line 1: the second word is no SHA-256 digest"},
		{"--tokens " + others, 1, "chmod 600 " + others},
		{"--tokens " + dir + "/none", 1, dir + "/none: no such file"},
		{"--allow-origin *", 2, "goes with --tokens alone"},
		{"--allow-origin app.example.com", 2, `"app.example.com" is no origin`},
		{"--allow-origin http://localhost:8080/ --tokens " + good, 2, "is no origin"},
	} {
		t.Run(test.args, func(t *testing.T) {
			is := is.New(t)
			err := run(t.Context(), append(strings.Fields(test.args), "--check", "--dir", t.TempDir()), noEnv, nil, io.Discard,
				io.Discard)
			is.Equal(exitCode(err), test.code)
			if err == nil {
				return
			}
			is.True(strings.Contains(err.Error(), test.says))
			is.True(!strings.Contains(err.Error(), "secret"))
		})
	}
}

// TestAllowOrigin is the flag's way to the handler.
func TestAllowOrigin(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	url, _ := inProcess(t, dir, "--allow-origin", "https://app.example.com", "--allow-origin=http://localhost:8080")
	status, _, _ := request(t, "OPTIONS", url+"/streams/s", "Origin: http://localhost:8080",
		"Access-Control-Request-Method: POST")
	is.Equal(status, 204)
	status, _, _ = request(t, "OPTIONS", url+"/streams/s", "Origin: http://localhost:8081",
		"Access-Control-Request-Method: POST")
	is.Equal(status, 405)
	is.Equal(readFile(t, dir, daemon.ArgsFile), `["--allow-origin=https://app.example.com","--allow-origin=http://localhost:8080","--port=0"]`+"\n")
}
