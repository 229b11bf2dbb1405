package object

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/streamtest"
)

// startVersitygw starts the server that VERSITYGW names, and returns what opens an empty place of its. It listens on a
// socket of its own, so that nobody else can have its port.
func startVersitygw(t *testing.T) func() Options {
	program := os.Getenv("VERSITYGW")
	if program == "" {
		t.Skip("VERSITYGW does not say where versitygw is: scripts/objects does")
	}
	dir, err := os.MkdirTemp("", "vgw") // a socket's path may have some 100 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.MkdirAll(filepath.Join(dir, "data", "bucket"), 0o700); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(program, "--quiet", "--keep-alive", "--port", socket, "--access", testKeys.ID, "--secret",
		testKeys.Secret, "posix", filepath.Join(dir, "data"))
	cmd.Env = append(os.Environ(), "HOME="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DialContext: dial}
	for {
		response, err := (&http.Client{Transport: transport}).Get("http://store.example/")
		if err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
			break
		}
		select {
		case <-ended:
			t.Fatal("versitygw has ended")
		default:
		}
	}
	var places atomic.Int64
	return func() Options {
		return Options{Bucket: "bucket", Prefix: fmt.Sprint(places.Add(1)), Endpoint: "http://store.example",
			Transport: transport, Keys: func(context.Context) (Keys, error) { return testKeys, nil }}
	}
}

// TestVersitygw runs the contracts at a real store.
func TestVersitygw(t *testing.T) {
	place := startVersitygw(t)
	at := func(t *testing.T, o Options) *Storage {
		t.Helper()
		s, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	streamtest.Storage(t, func(t *testing.T) streamlib.Storage { return at(t, place()) })
	var mu sync.Mutex
	places := map[string]Options{} // by the folder of the test
	streamtest.Durable(t, func(t *testing.T, dir string) streamlib.Storage {
		mu.Lock()
		defer mu.Unlock()
		if _, there := places[dir]; !there {
			places[dir] = place()
		}
		return at(t, places[dir])
	})
	// It has all of streamtest.Stream, too.
	streamtest.Shared(t, func(t *testing.T) func() streamlib.Shared {
		o := place()
		return func() streamlib.Shared { return at(t, o) }
	})
}
