//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/iterate/durable-streams/streamlib/streamtest"
	"github.com/matryer/is"
)

// startVersitygw starts the server that VERSITYGW names, with a bucket, and lets the environment name it.
func startVersitygw(t *testing.T) {
	program := os.Getenv("VERSITYGW")
	if program == "" {
		t.Skip("VERSITYGW does not say where versitygw is: scripts/objects does")
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bucket"), 0o700); err != nil {
		t.Fatal(err)
	}
	for try := 0; ; try++ {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String() // free now; where another is faster it ends, and is tried again
		l.Close()
		cmd := exec.Command(program, "--quiet", "--keep-alive", "--port", addr, "--access", "someone", "--secret",
			"the-secret-of-someone", "posix", dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		for up := true; up; {
			response, err := http.Get("http://" + addr)
			if err == nil {
				_, _ = io.Copy(io.Discard, response.Body)
				response.Body.Close()
				t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
				t.Setenv("AWS_ACCESS_KEY_ID", "someone")
				t.Setenv("AWS_SECRET_ACCESS_KEY", "the-secret-of-someone")
				t.Setenv("AWS_ENDPOINT_URL_S3", "http://"+addr)
				return
			}
			select {
			case <-ended:
				up = false
			default:
			}
		}
		if try == 5 {
			t.Fatal("versitygw does not start")
		}
	}
}

// TestVersitygwServersThatAreKilled: four servers on one place of a real store, of which any is killed again and again
// while 32 writers append to 8 streams, each through any of the servers and again through another one where it gets no
// answer. The journals of the writers, and what subscribers saw, are the judge.
func TestVersitygwServersThatAreKilled(t *testing.T) {
	startVersitygw(t)
	is := is.New(t)
	const servers, writers, streams, kills, between = 4, 32, 8, 12, 40
	var mu sync.Mutex // guards what follows
	var running [servers]*server
	var follow [servers]context.CancelFunc // ends who follows through it: a client goes on by itself
	histories := map[string][]streamtest.Append{}
	runs := map[string][]streamtest.Run{}
	acknowledged, killed := 0, 0
	var clock atomic.Int64
	var following sync.WaitGroup

	begin := func(i int) {
		s := start(t, t.TempDir(), "sh", "-c", `exec "$0" "$@" --storage s3://bucket/streams`)
		name := fmt.Sprint("s", rand.IntN(streams))
		ctx, cancel := context.WithCancel(t.Context())
		mu.Lock()
		running[i], follow[i] = s, cancel
		mu.Unlock()
		following.Go(func() {
			r := streamtest.Run{From: streamlib.Beginning}
			client := &streamhttp.Client{URL: s.url}
			for events, err := range client.Stream(name).Subscribe(ctx, streamlib.Beginning) {
				if err != nil {
					break
				}
				r.Events = append(r.Events, events...)
			}
			mu.Lock()
			defer mu.Unlock()
			runs[name] = append(runs[name], r)
		})
	}
	for i := range servers {
		begin(i)
	}
	due := make(chan int, kills) // servers that are to be killed
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for n := 0; ; n++ {
				name := fmt.Sprint("s", rand.IntN(streams))
				a := streamtest.Append{Data: []json.RawMessage{fmt.Appendf(nil, `"%d-%d"`, w, n)}}
				if n%3 == 0 {
					a.Data = append(a.Data, fmt.Appendf(nil, `"%d-%d more"`, w, n))
				}
				if n%2 == 0 {
					a.Key = fmt.Sprintf("%d-%d", w, n)
				}
				for again := true; again; {
					mu.Lock()
					url, over := running[rand.IntN(servers)].url, killed == kills
					mu.Unlock()
					b := streamlib.Batch{Key: a.Key}
					for _, d := range a.Data {
						b.Data = append(b.Data, streamlib.JSON(string(d))...)
					}
					a.Sent = clock.Add(1)
					receipt, err := (&streamhttp.Client{URL: url}).Stream(name).Append(context.Background(), b)
					a.Answered, a.Events, a.Err = clock.Add(1), receipt.Events, err
					again = err != nil && a.Key != ""
					mu.Lock()
					histories[name] = append(histories[name], a)
					if err == nil {
						if acknowledged++; acknowledged%between == 0 && acknowledged/between <= kills {
							due <- rand.IntN(servers)
						}
					}
					mu.Unlock()
					if over {
						return
					}
				}
			}
		})
	}
	kill := func(i int) {
		running[i].signal(syscall.SIGKILL)
		_ = running[i].wait()
		follow[i]()
	}
	for range kills {
		i := <-due
		kill(i)
		begin(i)
		mu.Lock()
		killed++
		mu.Unlock()
	}
	writing.Wait()
	for i := range servers {
		kill(i)
	}
	following.Wait()
	begin(0)
	stored := map[string][]streamlib.Event{}
	for i := range streams {
		name := fmt.Sprint("s", i)
		client := &streamhttp.Client{URL: running[0].url}
		for events, err := range client.Stream(name).Read(t.Context(), streamlib.Beginning, streamlib.MaxOffset) {
			is.NoErr(err)
			stored[name] = append(stored[name], events...)
		}
	}
	follow[0]()
	is.NoErr(running[0].end(syscall.SIGTERM))
	following.Wait()
	events := 0
	for name, history := range histories {
		if err := streamtest.Check(stored[name], history, runs[name]...); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		events += len(stored[name])
	}
	t.Logf("%d kills, %d appends acknowledged, %d events in %d streams", kills, acknowledged, events, len(histories))
	is.True(acknowledged >= kills*between)
}
