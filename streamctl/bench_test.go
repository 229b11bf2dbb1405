//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// benchHere runs "streamctl bench" in this process, against a server in this process.
func benchHere(t *testing.T, args ...string) (stdout string, names []string, err error) {
	manager := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	server := httptest.NewServer(streamhttp.NewHandler(manager, streamhttp.Config{}))
	defer server.Close()
	var out, errs bytes.Buffer
	err = run(t.Context(), append([]string{"bench", "--server", server.URL}, args...),
		func(string) string { return "" }, nil, &out, &errs)
	if errs.Len() > 0 {
		t.Errorf("stderr: %s", &errs) // progress is for terminals
	}
	names, _ = manager.List(t.Context(), "", "", 0)
	return out.String(), names, err
}

func TestBenchPrintsWhatItMeasuredAndDeletesItsStreams(t *testing.T) {
	is := is.New(t)
	out, names, err := benchHere(t, "--duration=100ms", "--conns=4", "--streams=2", "--subscribers=3", "--json")
	is.NoErr(err)
	is.Equal(len(names), 0)
	var result struct {
		Conns, Streams, Size, Subscribers      int
		Append, Delivery                       benchTimes
		Failed, Missing, Duplicate, OutOfOrder *int
	}
	is.NoErr(json.Unmarshal([]byte(out), &result))
	is.Equal([]int{result.Conns, result.Streams, result.Size, result.Subscribers}, []int{4, 2, 200, 3})
	is.Equal([]int{*result.Failed, *result.Missing, *result.Duplicate, *result.OutOfOrder}, []int{0, 0, 0, 0})
	for _, times := range []benchTimes{result.Append, result.Delivery} {
		is.True(times.Events > 0 && times.Rate > 0)
		is.True(0 < times.P50 && times.P50 <= times.P90 && times.P90 <= times.P99 && times.P99 <= times.Max)
	}

	out, _, err = benchHere(t, "--duration=20ms", "--batch=10", "--rate=1000")
	is.NoErr(err)
	lines := strings.Split(out, "\n")
	is.Equal(strings.Fields(lines[0]), strings.Fields("events events/s p50 ms p90 ms p99 ms max ms"))
	is.True(strings.HasPrefix(strings.TrimSpace(lines[1]), "append "))
	is.Equal(lines[2:], []string{"0 requests failed", ""}) // and nothing of subscribers
}

func TestBenchFailsWhereRequestsFail(t *testing.T) {
	is := is.New(t)
	out, _, err := benchHere(t, "--duration=20ms", "--conns=1", "--size=1048577")
	is.True(err != nil)
	is.True(strings.Contains(err.Error(), "status 413"))
	is.True(strings.Contains(out, " requests failed"))
}

func TestBenchEndsWithCtrlC(t *testing.T) {
	is := is.New(t)
	var once sync.Once
	manager := streamlib.NewManager(memory.New(),
		func(name string, s streamlib.Storage, o streamlib.Options) streamlib.Stream {
			once.Do(func() { _ = syscall.Kill(os.Getpid(), syscall.SIGINT) })
			return streamlib.Plain(name, s, o)
		}, streamlib.Options{})
	server := httptest.NewServer(streamhttp.NewHandler(manager, streamhttp.Config{}))
	defer server.Close()
	var out bytes.Buffer
	err := run(t.Context(), []string{"bench", "--server", server.URL, "--duration=1h", "--conns=1"},
		func(string) string { return "" }, nil, &out, &out)
	is.NoErr(err)
	is.True(strings.Contains(out.String(), "0 requests failed"))
	names, err := manager.List(t.Context(), "", "", 0)
	is.NoErr(err)
	is.Equal(len(names), 0)
}

func TestBenchRefusesWhatItCannotMeasure(t *testing.T) {
	for _, args := range []string{"--conns=0", "--streams=x", "--size=30", "--batch=0", "--rate=-1",
		"--subscribers=1.5", "--duration=0", "--duration=10"} {
		t.Run(args, func(t *testing.T) {
			is := is.New(t)
			out, _, err := benchHere(t, args)
			is.Equal(exitCode(err), 2)
			is.Equal(out, "")
			flag, _, _ := strings.Cut(args, "=")
			is.True(strings.Contains(err.Error(), flag))
		})
	}
}
