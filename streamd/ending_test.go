//go:build unix

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/matryer/is"
)

// TestEnding: /readyz says so first, also to who had connected before and had not asked yet; subscriptions end with
// the word when to come back, which differs from one to the other.
func TestEnding(t *testing.T) {
	is := is.New(t)
	newTime = 3 * time.Second
	defer func() { newTime = time.Second }()
	url, end := inProcess(t, t.TempDir())
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	is.NoErr(err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET /readyz HTTP/1.1\r\n")
	is.NoErr(err)
	var subscriptions []io.Reader
	for range 20 { // which are taken after conn
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, "GET", url+"/streams/s", nil)
		is.NoErr(err)
		answer, err := http.DefaultClient.Do(r)
		is.NoErr(err)
		subscriptions = append(subscriptions, answer.Body)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := end()
		ended <- err
	}()
	times := map[string]bool{}
	for _, s := range subscriptions {
		b, err := io.ReadAll(s)
		is.NoErr(err)
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		var ms int
		_, err = fmt.Sscanf(lines[len(lines)-1], "retry: %d", &ms)
		is.NoErr(err)
		is.True(ms >= 1000 && ms < 5000)
		times[lines[len(lines)-1]] = true
	}
	is.True(len(times) > 10)
	_, err = io.WriteString(conn, "Host: localhost\r\n\r\n")
	is.NoErr(err)
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	is.NoErr(err)
	b, err := io.ReadAll(answer.Body)
	is.NoErr(err)
	is.Equal(answer.StatusCode, http.StatusServiceUnavailable)
	is.True(strings.Contains(string(b), "the server is ending"))
	is.NoErr(<-ended)
}

// TestEndUnderLoad: streams that never end, requests that never finish, a hook and a receiver that hang, and appends
// that come without a pause: the server ends all the same, as told, and has all that it acknowledged. Nothing of this
// would end by itself within a minute.
func TestEndUnderLoad(t *testing.T) {
	is := is.New(t)
	is.True(drainTime < 5*time.Second)
	folder := t.TempDir()
	is.NoErr(os.Chmod(folder, 0o700))
	is.NoErr(os.WriteFile(filepath.Join(folder, "before-append"),
		[]byte("#!/bin/sh\n[ \"$STREAM\" != hangs ] || exec sleep 1000\n"), 0o700))
	hung := make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hung }))
	defer receiver.Close()
	defer close(hung)
	dir := t.TempDir()
	server := start(t, dir, "sh", "-c", fmt.Sprintf(`exec "$0" "$@" --hooks %s --webhook 's*=%s' --webhook-allow-private`,
		folder, receiver.URL))
	server.client.Timeout = 0
	killed := time.AfterFunc(time.Minute, func() { server.signal(syscall.SIGKILL) })
	defer killed.Stop()

	var others sync.WaitGroup
	for i := range 50 {
		for _, path := range []string{"/streams/s%d", "/streams?prefix=s%d", "/streams/none%d/events?wait=10m&offset=0",
			"/v1/stream/s%d?live=sse&offset=-1"} {
			r, err := http.NewRequest("GET", server.url+fmt.Sprintf(path, i), nil)
			is.NoErr(err)
			if strings.HasPrefix(path, "/streams?") {
				r.Header.Set("Accept", "text/event-stream")
			}
			others.Go(func() {
				if answer, err := server.client.Do(r); err == nil {
					_, _ = io.Copy(io.Discard, answer.Body)
					answer.Body.Close()
				}
			})
		}
	}
	// Of each of these it has read a part.
	for _, part := range []string{
		"POST /streams/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n",
		"POST /import HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n",
		"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(server.url, "http://"))
		is.NoErr(err)
		defer conn.Close()
		_, err = io.WriteString(conn, part)
		is.NoErr(err)
		_, err = bufio.NewReader(conn).ReadString('\n')
		is.NoErr(err)
	}
	others.Go(func() { server.append("hangs", "", "1") })

	const appenders = 4
	acknowledged, begun := make([]int, appenders), make(chan struct{}, appenders)
	var appending sync.WaitGroup
	for i := range appenders {
		appending.Go(func() {
			for {
				answer, err := server.client.Post(fmt.Sprintf("%s/streams/s%d", server.url, i), "application/json",
					strings.NewReader(`{"data":1}`))
				if err != nil {
					return
				}
				answer.Body.Close()
				if answer.StatusCode != http.StatusCreated {
					return
				}
				if acknowledged[i]++; acknowledged[i] == 5 {
					begun <- struct{}{}
				}
			}
		})
	}
	for range appenders {
		<-begun
	}
	server.signal(syscall.SIGTERM)
	if err := server.wait(); err != nil {
		t.Fatalf("%v: %s", err, server.stderr.String())
	}
	appending.Wait()
	others.Wait()
	is.True(strings.Contains(server.stderr.String(), "requests were cut off"))
	journals, err := os.ReadDir(filepath.Join(dir, "journal"))
	is.NoErr(err)
	is.Equal(len(journals), 0)
	for i, n := range acknowledged {
		stored := strings.Count(readFile(t, dir, fmt.Sprintf("streams/s%d.json", i)), "\n")
		is.True(stored == n || stored == n+1) // one may have lost its answer
	}
}
