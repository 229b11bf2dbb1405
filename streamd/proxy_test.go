//go:build unix

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"
)

// readmeBlock is the first block of the README in a language.
func readmeBlock(t *testing.T, language string) string {
	t.Helper()
	_, rest, _ := strings.Cut(readFile(t, ".", "README.md"), "\n```"+language+"\n")
	block, _, ok := strings.Cut(rest, "\n```\n")
	if !ok {
		t.Fatalf("the README has no %s", language)
	}
	return block + "\n"
}

// behind starts a proxy with a configuration in a file, and returns when it listens.
func behind(t *testing.T, port, config string, command ...string) {
	t.Helper()
	if _, err := exec.LookPath(command[0]); err != nil {
		t.Skipf("%s is not installed", command[0])
	}
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer // read when it has ended
	proxy := exec.Command(command[0], append(command[1:], file)...)
	proxy.Stdout, proxy.Stderr = &said, &said
	home := t.TempDir()
	proxy.Env = append(os.Environ(), "HOME="+home, "XDG_DATA_HOME="+home, "XDG_CONFIG_HOME="+home)
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = proxy.Wait(); close(ended) }()
	t.Cleanup(func() { _ = proxy.Process.Kill(); <-ended })
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s: %s", command[0], said.String())
		default:
		}
		if time.Since(begun) > time.Minute {
			t.Fatal(err)
		}
	}
}

// TestProxies: the README's configurations, in the real nginx and Caddy, pass on names, hosts, origins and large
// bodies, and events as they come; and they let nobody know what is the folder's.
func TestProxies(t *testing.T) {
	for _, name := range []string{"nginx", "caddy"} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			dir, port := t.TempDir(), freePort(t)
			url, _ := inProcess(t, dir, "--allow-host", "example.com")
			tmp := t.TempDir()
			switch name {
			case "nginx":
				user := ""
				if os.Geteuid() == 0 {
					user = "user root;"
				}
				location := strings.Replace(readmeBlock(t, "nginx"), "http://127.0.0.1:3000", url, 1)
				behind(t, port, fmt.Sprintf(`%s daemon off; master_process off; pid %[2]s/pid; error_log stderr; events {}
http { access_log off; client_body_temp_path %[2]s/b; proxy_temp_path %[2]s/p; fastcgi_temp_path %[2]s/f;
uwsgi_temp_path %[2]s/u; scgi_temp_path %[2]s/s; server { listen 127.0.0.1:%s; %s } }`, user, tmp, port, location),
					"nginx", "-p", tmp, "-c")
			case "caddy":
				site := strings.Replace(readmeBlock(t, "caddyfile"), "127.0.0.1:3000", strings.TrimPrefix(url, "http://"), 1)
				site = strings.Replace(site, "example.com", "http://example.com:"+port+", http://other.example:"+port, 1)
				behind(t, port, "{\n\tadmin off\n\tauto_https off\n}\n"+site, "caddy", "run", "--adapter", "caddyfile", "--config")
			}
			client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
			do := func(host, method, path, body string, header ...string) *http.Response {
				t.Helper()
				r, err := http.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:"+port+path, strings.NewReader(body))
				is.NoErr(err)
				r.Host = host + ":" + port
				for _, h := range header {
					name, value, _ := strings.Cut(h, ": ")
					r.Header.Set(name, value)
				}
				resp, err := client.Do(r)
				is.NoErr(err)
				t.Cleanup(func() { resp.Body.Close() })
				return resp
			}
			body := func(resp *http.Response) string {
				b, err := io.ReadAll(resp.Body)
				is.NoErr(err)
				return string(b)
			}
			const own = "example.com"
			follower := do(own, "GET", "/streams/a%2Fb?offset=-1", "")
			is.Equal(follower.StatusCode, 200)
			lines := bufio.NewReader(follower.Body)
			for range 3 { // each comes before the next is appended
				appended := do(own, "POST", "/streams/a%2Fb", `{"data":1}`, "Origin: http://example.com:"+port)
				is.Equal(appended.StatusCode, 201)
				want := "data: " + body(appended)
				for line := ""; line != want; {
					var err error
					line, err = lines.ReadString('\n')
					is.NoErr(err)
				}
			}
			is.Equal(body(do(own, "GET", "/streams", "")), `{"streams":["a/b"]}`+"\n")
			is.Equal(do(own, "POST", "/streams/s", `{"data":1}`, "Origin: http://evil.example").StatusCode, 403)
			is.Equal(do("other.example", "GET", "/streams", "").StatusCode, 403)
			large := strings.Repeat(`"`+strings.Repeat("x", 1<<20-200)+"\"\n", 8) // less than 8 MiB as stored
			is.Equal(do(own, "POST", "/streams/large", large, "Content-Type: application/x-ndjson").StatusCode, 201)
			health := body(do(own, "GET", "/healthz", ""))
			is.True(strings.Contains(health, `"status":"ok"`))
			is.True(!strings.Contains(health, "pid") && !strings.Contains(health, dir))
		})
	}
}
