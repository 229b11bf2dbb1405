//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// newBucket returns a store, which the environment names, and where it is.
func newBucket(t *testing.T) (*bucketServer, string) {
	store := &bucketServer{objects: map[string][]byte{}}
	server := httptest.NewServer(store)
	t.Cleanup(server.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "someone")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "the-secret-of-someone")
	t.Setenv("AWS_ENDPOINT_URL_S3", server.URL)
	return store, server.URL
}

// streamd runs a command of the program's in this process, and returns what it printed.
func streamd(args ...string) (string, error) {
	var out, log bytes.Buffer
	err := run(context.Background(), args, noEnv, nil, &out, &log)
	return out.String() + log.String(), err
}

// mirrorAll starts and ends the folder's server until its end has left nothing behind, as the log of the one before may
// say that it did: a slow machine may take longer than an end waits.
func mirrorAll(t *testing.T, dir, place, log string) {
	t.Helper()
	for strings.Contains(log, "the mirror lacks some") {
		_, end := inProcess(t, dir, "--mirror", place)
		var err error
		if log, err = end(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMirror: the mirror of a server's folder has all that was done by the time of a clean end, is served itself, and
// becomes a folder with the same streams; it is no other folder's.
func TestMirror(t *testing.T) {
	is := is.New(t)
	store, _ := newBucket(t)
	dir, restored := t.TempDir(), filepath.Join(t.TempDir(), "restored")
	const place = "s3://bucket/copy"
	url, end := inProcess(t, dir, "--mirror", place)
	client := &streamhttp.Client{URL: url}
	add := func(name string, b streamlib.Batch) {
		t.Helper()
		_, err := client.Stream(name).Append(t.Context(), b)
		is.NoErr(err)
	}
	for i := range 40 {
		name := fmt.Sprint("s", i)
		add(name, streamlib.Batch{Data: streamlib.JSON(`1`, `2`, `3`), Key: "k"})
		switch i % 4 {
		case 1:
			is.NoErr(client.Stream(name).Trim(t.Context(), 2))
		case 2:
			add(name, streamlib.Batch{Close: true})
		case 3:
			is.NoErr(client.Stream(name).Delete(t.Context()))
			if i%8 == 3 {
				add(name, streamlib.Batch{Data: streamlib.JSON(`"again"`)})
			}
		}
	}
	_, health, err := ask(t.Context(), dir)
	is.NoErr(err)
	is.Equal(len(health.Followers), 1)
	is.Equal(health.Followers[0].To, place)
	answer, err := http.Get(url + "/metrics")
	is.NoErr(err)
	defer answer.Body.Close()
	var metrics bytes.Buffer
	_, err = metrics.ReadFrom(answer.Body)
	is.NoErr(err)
	is.True(strings.Contains(metrics.String(),
		`streamd_follower_lag_seconds{streams="*",to="s3://bucket/copy",id="mirror"} `))
	log, err := end()
	is.NoErr(err)
	mirrorAll(t, dir, place, log)
	want, err := streamd("export", "--dir", dir)
	is.NoErr(err)

	out, err := streamd("restore", "--from", place, "--dir", restored)
	is.NoErr(err)
	is.Equal(out, "35 streams, 75 events, 75 new\n")
	have, err := streamd("export", "--dir", restored)
	is.NoErr(err)
	is.Equal(have, want)
	_, err = streamd("restore", "--from", place, "--dir", restored)
	is.True(strings.Contains(err.Error(), "has streams"))
	objects := store.count()
	_, err = streamd("restore", "--from", place+"s", "--dir", t.TempDir()) // a slip
	is.True(err != nil)
	is.Equal(store.count(), objects)

	url, endSecond := inProcess(t, restored, "--mirror", place) // another folder's
	_, err = (&streamhttp.Client{URL: url}).Stream("s0").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(`4`)})
	is.NoErr(err)
	log, err = endSecond()
	is.NoErr(err)
	is.True(strings.Contains(log, "choose another prefix"))
	is.True(strings.Contains(log, "the mirror lacks some"))
	is.Equal(store.count(), objects)

	url, endThird := inProcess(t, t.TempDir(), "--storage", place)
	for _, name := range []string{"s0", "s1", "s2", "s11"} {
		for _, from := range []string{url} {
			answer, err := http.Get(from + "/streams/" + name + "/events")
			is.NoErr(err)
			var body bytes.Buffer
			_, err = body.ReadFrom(answer.Body)
			answer.Body.Close()
			is.NoErr(err)
			is.True(strings.Contains(body.String(), `"eventStreamId":"`+name+`"`))
		}
	}
	third, err := endThird()
	is.NoErr(err)
	is.True(strings.Contains(third, "this place is the mirror of a folder"))
	is.True(!strings.Contains(log+third, "the-secret-of-someone"))
}

// TestMirrorAway: a store that cannot be reached keeps no server from starting, serving and ending.
func TestMirrorAway(t *testing.T) {
	is := is.New(t)
	newBucket(t)
	t.Setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
	dir := t.TempDir()
	url, end := inProcess(t, dir, "--mirror", "s3://bucket/copy")
	client := &streamhttp.Client{URL: url}
	_, err := client.Stream("s").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(`1`)})
	is.NoErr(err)
	log, err := end()
	is.NoErr(err)
	is.True(strings.Contains(log, "the mirror lacks some"))
	_, endAgain := func() (string, func() (string, error)) {
		newBucket(t)
		return inProcess(t, dir, "--mirror", "s3://bucket/copy")
	}()
	log, err = endAgain()
	is.NoErr(err)
	mirrorAll(t, dir, "s3://bucket/copy", log)
	out, err := streamd("restore", "--from", "s3://bucket/copy", "--dir", t.TempDir())
	is.NoErr(err)
	is.Equal(out, "1 stream, 1 event, 1 new\n")
}

// TestMirrorThatIsKilled: a server with a mirror is killed at any time, again and again, and so is the restoring of
// what it mirrored; in the end both have the same.
func TestMirrorThatIsKilled(t *testing.T) {
	is := is.New(t)
	store, _ := newBucket(t)
	dir := t.TempDir()
	mirrored := func() *server {
		return start(t, dir, "sh", "-c", `exec "$0" "$@" --mirror s3://bucket/copy`)
	}
	for range 5 {
		s := mirrored()
		puts := int64(store.puts.Load())
		limit := puts + 10 + rand.Int64N(40)
		var clients sync.WaitGroup
		for client := range 6 {
			clients.Go(func() {
				for i := 0; ; i++ {
					name := fmt.Sprint("s", (client+i)%12)
					status := 0
					switch i % 16 {
					case 7:
						status = s.delete(name)
					case 11:
						req, _ := http.NewRequest("DELETE", s.url+"/streams/"+name+"/events?before=2", nil)
						status, _ = s.do(req)
					default:
						status, _ = s.append(name, "", fmt.Sprintf("%d\n%q\n", i, strings.Repeat("x", rand.IntN(2000))))
					}
					if status == 0 {
						return
					}
					if store.puts.Load() >= limit {
						s.signal(syscall.SIGKILL)
					}
				}
			})
		}
		clients.Wait()
		_ = s.wait()
	}
	for tries, whole := 0, false; !whole; tries++ { // an end waits only so long for the copy
		s := mirrored()
		is.NoErr(s.end(syscall.SIGTERM))
		if whole = !strings.Contains(s.stderr.String(), "lacks"); !whole && tries == 50 {
			t.Fatal(s.stderr.String())
		}
	}
	want, err := streamd("export", "--dir", dir)
	is.NoErr(err)

	restored := filepath.Join(t.TempDir(), "restored")
	words := []string{"restore", "--from", "s3://bucket/copy", "--dir", restored}
	for n := range 6 {
		cmd := exec.Command(streamdBinary(t), words...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		started := make(chan struct{})
		store.killAt(5+7*n, func() {
			<-started
			_ = cmd.Process.Kill()
		})
		is.NoErr(cmd.Start())
		close(started)
		err := cmd.Wait()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != -1 {
			t.Fatalf("it was not killed: %v %s", err, &out)
		}
		if _, err := os.Stat(filepath.Join(restored, "restoring")); err == nil {
			_, err := streamd("--dir", restored, "--port", "0")
			is.True(strings.Contains(err.Error(), "its restoring was interrupted"))
		}
	}
	_, err = streamd(words...)
	is.NoErr(err)
	have, err := streamd("export", "--dir", restored)
	is.NoErr(err)
	if have != want {
		t.Fatalf("restored:\n%.3000s\nis:\n%.3000s", have, want)
	}
}
