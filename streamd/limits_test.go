//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/matryer/is"
)

// TestMaxConns: one connection too many is answered, and takes the place of one that has ended.
func TestMaxConns(t *testing.T) {
	is := is.New(t)
	url, end := inProcess(t, t.TempDir(), "--max-conns", "3")
	address := strings.TrimPrefix(url, "http://")
	connect := func() (net.Conn, *http.Response) {
		conn, err := net.Dial("tcp", address)
		is.NoErr(err)
		t.Cleanup(func() { conn.Close() })
		_, err = fmt.Fprint(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
		is.NoErr(err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		is.NoErr(err)
		return conn, resp
	}
	var conns []net.Conn
	for range 3 {
		conn, resp := connect()
		is.Equal(resp.StatusCode, 200)
		conns = append(conns, conn)
	}
	for range refusing / 2 {
		_, resp := connect()
		is.Equal(resp.StatusCode, 503)
		is.Equal(resp.Header.Get("Retry-After"), "1")
		body, err := io.ReadAll(resp.Body)
		is.NoErr(err)
		is.Equal(string(body), `{"error":"there are 3 connections, and no more at once"}`+"\n")
	}
	is.NoErr(conns[0].Close())
	for { // those who were refused took no place
		conn, resp := connect()
		if resp.StatusCode == 200 {
			break
		}
		conn.Close()
	}
	log, err := end()
	is.NoErr(err)
	is.Equal(strings.Count(log, "--max-conns"), 1)
}

// TestMaxSubscribers: whoever follows leaves connections to those who append.
func TestMaxSubscribers(t *testing.T) {
	is := is.New(t)
	url, end := inProcess(t, t.TempDir(), "--max-subscribers", "2")
	follow := func(path string) *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), "GET", url+path, nil)
		is.NoErr(err)
		r.Header.Set("Accept", "text/event-stream")
		resp, err := http.DefaultClient.Do(r)
		is.NoErr(err)
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	first := follow("/streams/a")
	is.Equal(first.StatusCode, 200)
	is.Equal(follow("/streams").StatusCode, 200)
	for _, path := range []string{"/streams/a", "/streams", "/streams/b"} {
		resp := follow(path)
		is.Equal(resp.StatusCode, 429)
		is.Equal(resp.Header.Get("Retry-After"), "1")
	}
	status, _, _ := request(t, "POST", url+"/streams/a", "Stream-Closed: true")
	is.Equal(status, 204)
	first.Body.Close()
	for follow("/streams").StatusCode != 200 {
	}
	_, err := end()
	is.NoErr(err)
}

// TestMaxStreams: the one too many is refused, also where many come at once and over a restart, and a deletion gives
// its place back.
func TestMaxStreams(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	url, end := inProcess(t, dir, "--max-streams", "10")
	make := func(name string) int {
		resp, err := http.Post(url+"/streams/"+name, "application/json", strings.NewReader(`{"data":1}`))
		if err != nil {
			t.Error(err)
			return 0
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	var all sync.WaitGroup
	statuses := [40]int{}
	for i := range statuses {
		all.Go(func() { statuses[i] = make(fmt.Sprint(i)) })
	}
	all.Wait()
	made, one := 0, ""
	for i, status := range statuses {
		if status == 201 {
			made++
			one = fmt.Sprint(i)
		} else {
			is.Equal(status, 503)
		}
	}
	is.Equal(made, 10)
	is.Equal(make(one), 201) // it is there
	_, err := end()
	is.NoErr(err)
	url, _ = inProcess(t, dir, "--max-streams", "10")
	is.Equal(make("new"), 503)
	status, _, _ := request(t, "DELETE", url+"/streams/"+one)
	is.Equal(status, 204)
	status, _, _ = request(t, "DELETE", url+"/streams/none")
	is.Equal(status, 204)
	is.Equal(make("new"), 201)
	is.Equal(make("newer"), 503)
}

// TestMinFree: appends are refused while there is too little room, and what makes room is not.
func TestMinFree(t *testing.T) {
	is := is.New(t)
	free := int64(100)
	var failed error
	l := &limits{minFree: 50}
	s := l.over(memory.New(), options{}).(*limited)
	s.free = func() (int64, error) { return free, failed }
	m := streamlib.NewManager(s, streamlib.Plain, streamlib.Options{})
	add := func() error {
		s.asked = s.asked.Add(-askEvery)
		_, err := m.Stream("a").Append(t.Context(), streamlib.Batch{Data: []json.RawMessage{json.RawMessage("1")}})
		return err
	}
	is.NoErr(add())
	free = 49
	is.True(errors.Is(add(), streamlib.ErrFull))
	is.True(errors.Is(s.roomy(), streamlib.ErrFull)) // what /readyz asks
	is.NoErr(m.Stream("a").Trim(t.Context(), 1))
	failed = errors.ErrUnsupported
	is.NoErr(add())
	failed = nil
	is.True(errors.Is(add(), streamlib.ErrFull))
	is.NoErr(m.Stream("a").Delete(t.Context()))
	free = 50
	is.NoErr(add())
	real, err := l.over(memory.New(), options{dir: t.TempDir()}).(*limited).free()
	is.True(err != nil && !slices.Contains([]string{"linux", "windows"}, runtime.GOOS) || err == nil && real > 0)
}
