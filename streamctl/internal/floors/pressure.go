//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/iterate/durable-streams/streamctl/internal/bench"
	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/disk"
)

const (
	bound     = 512 << 20 // --memory of the servers under pressure
	groupSize = 300 << 20 // what a control group has, of which a server takes half
	tiny      = "1\n"
)

// A pressure is what is put on a server, beside a client that behaves well.
type pressure struct {
	what  string
	setup func(dir string) // makes what is in the folder; nil is nothing
	put   func(s *server)
}

// pressures are what took gigabytes.
func (l *list) pressures() []pressure {
	return []pressure{
		{"12 POSTs at once of 1 MB of tiny events", nil, func(s *server) {
			l.atOnce(12, func(int) { l.send(s, strings.Repeat(tiny, 1e6/len(tiny)), 0) })
		}},
		{"12 POSTs at once of 8.4 MB of tiny events", nil, func(s *server) {
			l.atOnce(12, func(int) { l.send(s, strings.Repeat(tiny, 84e5/len(tiny)), 0) })
		}},
		{"100 bodies of 8.3 MB that stop 10 bytes short", nil, func(s *server) {
			line := `"` + strings.Repeat("x", 99_997) + "\"\n"
			l.atOnce(100, func(int) { l.send(s, strings.Repeat(line, 83), 10) })
		}},
		{"1,000 subscribers, a batch of 50 events of 160 KB", nil, func(s *server) {
			l.put(s, bench.Load{Subscribers: 1000, Batch: 50, Events: 50, Size: 160_000, Patience: time.Minute})
		}},
		{"200 clients that never read", l.longStream, func(s *server) { l.silent(s, 200) }},
		{"2,000 clients that never read", l.longStream, func(s *server) { l.silent(s, 2000) }},
		{"16 lists at once of 1,000,000 streams", func(dir string) { manyStreams(dir, 1_000_000) }, func(s *server) {
			l.atOnce(16, func(int) { l.get("GET", s.url+"/streams") })
		}},
		{"1,024 streams with full key windows", func(dir string) { manyKeys(dir, 1024) }, func(s *server) {
			l.atOnce(8, func(i int) {
				for n := i; n < 1024; n += 8 {
					l.keyed(s, fmt.Sprintf("keyed-%d", n))
				}
			})
		}},
	}
}

// pressure measures the peak memory of servers that are sent, or asked for, much at once.
func (l *list) pressure() {
	l.section("Most memory, with --memory 512M, and the p99 of a client that behaves well beside it; floor: 512 MiB")
	for _, p := range l.pressures() {
		l.under(p, "p-", start, "--memory", strconv.Itoa(bound))
	}
	group, err := newGroup(groupSize)
	if err != nil {
		l.section("  Under a control group of 300 MB: skipped, for there can be none: %v.", err)
		return
	}
	defer os.Remove(group)
	l.section("The same within a control group of 300 MB")
	for _, p := range l.pressures() {
		l.under(p, "g-", func(ctx context.Context, path string, args ...string) *server {
			script := `echo $$ > "$0/cgroup.procs" && exec "$@"`
			return start(ctx, "/bin/sh", append([]string{"-c", script, group, path}, args...)...)
		})
	}
}

// under puts a pressure on a new server and says what that took.
func (l *list) under(p pressure, folder string, start func(context.Context, string, ...string) *server, flags ...string) {
	dir := filepath.Join(l.dir, folder+"pressed")
	defer os.RemoveAll(dir)
	if p.setup != nil {
		p.setup(dir)
	}
	s := start(l.ctx, filepath.Join(l.bin, "streamd"), append(flags, "--port=0", "--dir="+dir)...)
	defer s.stop()
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	var beside bench.Result
	var wait sync.WaitGroup
	wait.Go(func() {
		beside, _ = bench.Run(ctx, bench.Load{URL: s.url, Conns: 2, Rate: 100, Size: size, Patience: time.Minute})
	})
	time.Sleep(time.Second)
	p.put(s)
	time.Sleep(time.Second)
	cancel()
	wait.Wait()
	if beside.Err != nil {
		fmt.Printf("  beside %s: %v\n", p.what, beside.Err)
	}
	if folder == "p-" {
		l.add(p.what, "MB", s.memory("VmHWM")/1e6, bound/1e6, atMost(1))
	} else {
		l.add(p.what, "MB", s.memory("VmHWM")/1e6, groupSize/1e6, atMost(1)) // it is still there
	}
	l.add("  p99 beside it", "ms", ms(beside.Append.P99), 0, aim{})
	l.add("  requests that failed beside it", "", float64(beside.Failed), 0, atMost(0.5))
}

// newGroup makes a control group with so much memory, of either version.
func newGroup(size int) (string, error) {
	for _, root := range []struct{ dir, file string }{{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
		{"/sys/fs/cgroup", "memory.max"}} {
		dir, err := os.MkdirTemp(root.dir, "streams-bench-")
		if err != nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, root.file), []byte(strconv.Itoa(size)), 0o600); err == nil {
			return dir, nil
		}
		os.Remove(dir)
	}
	return "", errors.New("none can be made in /sys/fs/cgroup")
}

func (l *list) atOnce(n int, do func(i int)) {
	var all sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		all.Go(func() { errs[i] = attempt(func() { do(i) }) })
	}
	all.Wait()
	check(errors.Join(errs...))
}

// dial connects to s, for as long as the list goes on.
func (l *list) dial(s *server) net.Conn {
	c := must(net.Dial("tcp", strings.TrimPrefix(s.url, "http://")))
	context.AfterFunc(l.ctx, func() { c.Close() })
	return c
}

// send sends lines, but for the last bytes of them, and waits for whatever the answer is.
func (l *list) send(s *server, lines string, short int) {
	c := l.dial(s)
	defer c.Close()
	go func() {
		fmt.Fprintf(c, "POST /streams/s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"+
			"Connection: close\r\nContent-Length: %d\r\n\r\n", len(lines))
		io.WriteString(c, lines[:len(lines)-short]) // it may be refused before all was sent
	}()
	check(c.SetReadDeadline(time.Now().Add(2 * time.Minute)))
	must(bufio.NewReader(c).ReadString('\n'))
}

// silent connects clients that ask for all of a stream and read nothing.
func (l *list) silent(s *server, n int) {
	for i := range n {
		c := l.dial(s)
		defer c.Close()
		fmt.Fprintf(c, "GET /streams/%s HTTP/1.1\r\nHost: localhost\r\n\r\n",
			[]string{"long?offset=0", "long/events"}[i%2])
	}
	time.Sleep(5 * time.Second)
}

// stored opens a folder for what stores something in it.
func stored(dir string, do func(m *streamlib.Manager)) {
	store := must(disk.Open(dir, disk.Options{NoSync: true}))
	do(streamlib.NewManager(store, streamlib.Plain, streamlib.Options{}))
	check(store.Close())
}

func (l *list) longStream(dir string) {
	stored(dir, func(m *streamlib.Manager) {
		data := slices.Repeat(streamlib.JSON(`"`+strings.Repeat("x", 1000)+`"`), 1000)
		for range 40 {
			must(m.Stream("long").Append(l.ctx, streamlib.Batch{Data: data}))
		}
	})
}

// manyStreams makes streams without events.
func manyStreams(dir string, n int) {
	stored(dir, func(*streamlib.Manager) {})
	for i := range n {
		check(os.WriteFile(fmt.Sprintf("%s/streams/stream-%07d.json", dir, i), nil, 0o600))
	}
}

// manyKeys makes streams each of whose events has a key of its own, as many as are remembered.
func manyKeys(dir string, n int) {
	stored(dir, func(m *streamlib.Manager) {
		for i := range n {
			name := fmt.Sprintf("keyed-%d", i)
			events := make([]streamlib.Event, 10_000)
			for o := range events {
				record := fmt.Appendf(nil, `{"offset":"%016d","eventStreamId":"%s","data":1,`+
					`"createdAt":"2024-01-08T00:00:00.000Z","key":"%d"`, o, name, o)
				events[o] = must(streamlib.ParseRecord(record))
			}
			check(m.Import(context.Background(), name, streamlib.Change{Events: events}))
		}
	})
}

// keyed appends with a key, for which the server reads those that there are.
func (l *list) keyed(s *server, stream string) {
	c := l.dial(s)
	defer c.Close()
	fmt.Fprintf(c, "POST /streams/%s HTTP/1.0\r\nHost: localhost\r\nIdempotency-Key: new\r\nContent-Length: 10\r\n\r\n"+
		`{"data":1}`, stream)
	answer := must(io.ReadAll(c))
	if !bytes.Contains(answer, []byte(" 201 ")) {
		check(fmt.Errorf("%s: %s", stream, answer))
	}
}

// listing measures the pages of a list, and a scan for a type that no event has.
func (l *list) listing() {
	const streams, events = 1_000_000, 2_000_000
	l.section("Pages of 1,000 of a list of 1,000,000 streams, and a type that none of 2,000,000 events has")
	dir := filepath.Join(l.dir, "listing")
	defer os.RemoveAll(dir)
	manyStreams(dir, streams)
	stored(dir, func(m *streamlib.Manager) {
		data := slices.Repeat(streamlib.JSON(`{"type":"message","text":"`+strings.Repeat("x", size-30)+`"}`), 10_000)
		for range events / len(data) {
			must(m.Stream("typed").Append(l.ctx, streamlib.Batch{Data: data}))
		}
	})
	s := l.streamd("listing")
	defer s.stop()
	begun := time.Now()
	l.get("GET", s.url+"/streams?limit=1000")
	l.add("the first page", "ms", ms(time.Since(begun)), 0, aim{})
	var later []float64
	for n := range 999 {
		begun := time.Now()
		l.get("GET", fmt.Sprintf("%s/streams?limit=1000&after=stream-%07d", s.url, n*1000+999))
		later = append(later, ms(time.Since(begun)))
	}
	l.add("the pages after it, p50", "ms", median(later), 0, atMost(2))
	begun = time.Now()
	l.get("GET", s.url+"/streams/typed/events?type=other")
	l.add("a type that nothing has", "ms", ms(time.Since(begun)), 0, atMost(1000))
}
