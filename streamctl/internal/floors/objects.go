//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iterate/durable-streams/streamctl/internal/bench"
	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/object"
)

// storeTime is what is added to each answer of the store, which is on this machine: S3 takes some 30 to 60 ms.
const storeTime = 40 * time.Millisecond

// A store is versitygw behind a proxy that counts requests and takes its time.
type store struct {
	requests atomic.Int64
	url      string
}

func (l *list) store(program string) (s *store, stop func()) {
	s = &store{}
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	s.url = "http://" + listener.Addr().String()
	folder := filepath.Join(l.dir, "store")
	check(os.MkdirAll(filepath.Join(folder, "bucket"), 0o700))
	port := must(net.Listen("tcp", "127.0.0.1:0"))
	addr := port.Addr().String()
	port.Close()
	versitygw := newServer(l.ctx, program, "--quiet", "--keep-alive", "--port", addr, "--access", "bench", "--secret",
		"benchmark", "posix", folder)
	check(versitygw.cmd.Start())
	for try := 0; ; try++ {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			break
		}
		if try == 500 {
			check(fmt.Errorf("versitygw does not listen: %w", err))
		}
		check(l.ctx.Err())
		time.Sleep(20 * time.Millisecond)
	}
	to := &url.URL{Scheme: "http", Host: addr}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host }, // which is signed
		Transport: &http.Transport{MaxIdleConnsPerHost: 256},
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		time.Sleep(storeTime)
		proxy.ServeHTTP(w, r)
	})}
	go server.Serve(listener) // until stop closes it
	os.Setenv("AWS_ACCESS_KEY_ID", "bench")
	os.Setenv("AWS_SECRET_ACCESS_KEY", "benchmark")
	return s, func() { server.Close(); versitygw.stop() }
}

// on starts a streamd on a place of the store, with a folder of its own.
func (l *list) on(s *store, place, folder string) *server {
	return l.streamd(folder, "--storage=s3://bucket/"+place, "--s3-endpoint="+s.url)
}

// objects measures streams on an object store. It is left out where VERSITYGW does not name one.
func (l *list) objects() {
	program := os.Getenv("VERSITYGW")
	if program == "" {
		return
	}
	s, stop := l.store(program)
	defer stop()
	on, disk := l.on(s, "appends", "on"), l.streamd("beside")
	defer on.stop()
	defer disk.stop()
	l.section("On an object store that takes %v; floor: its PUTs, with nothing around them", storeTime)
	for _, conns := range []int{1, 16, 64} {
		for _, streams := range []int{1, 64} {
			load := bench.Load{Conns: conns, Streams: streams, Size: size, Warmup: span / 2, Duration: span, Keep: true}
			if conns < streams { // each is to be known before
				load.Warmup = time.Duration(streams/conns) * 3 * storeTime
			}
			var events, requests [2]int64 // at the first count and at the last
			load.Progress = func(p bench.Progress) {
				i := min(events[0], 1)
				events[i], requests[i] = p.Appended, s.requests.Load()
			}
			m := l.put(on, load)
			load.Progress, load.Warmup = nil, 0
			bare, p50 := l.bareStore(s, conns)
			beside := l.put(disk, load)
			label := fmt.Sprintf("conns %d, streams %d: ", conns, streams)
			l.add(label+"events a second", "/s", m.AppendRate, bare, aim{})
			l.add(label+"p50", "ms", ms(m.Append.P50), p50, aim{})
			l.add(label+"p50, floor: on the disk", "ms", ms(m.Append.P50), ms(beside.Append.P50), aim{})
			l.add(label+"the store's requests an event", "", float64(requests[1]-requests[0])/float64(events[1]-events[0]),
				0, aim{})
		}
	}
	l.caughtUp(s)
	l.followed(s)
}

// bareStore returns how many objects of one event a second the store takes over so many connections, and the median
// time.
func (l *list) bareStore(s *store, conns int) (rate, p50 float64) {
	to := must(object.Open(l.ctx, object.Options{Bucket: "bucket", Prefix: "bare", Endpoint: s.url,
		Keys: object.Environment(os.Getenv)}))
	defer to.Close()
	from := memory.New()
	data := streamlib.JSON(`"` + strings.Repeat("x", size-2) + `"`)
	m := streamlib.NewManager(from, streamlib.Plain, streamlib.Options{})
	var all sync.WaitGroup
	var mu sync.Mutex // guards what follows
	var took []float64
	begin := time.Now()
	for i := range conns {
		all.Go(func() {
			name := fmt.Sprintf("%d-%d", begin.UnixNano(), i)
			for time.Since(begin) < span && l.ctx.Err() == nil {
				receipt, err := m.Stream(name).Append(l.ctx, streamlib.Batch{Data: data})
				sent := time.Now()
				if err == nil {
					err = to.Commit(l.ctx, name, streamlib.Change{Events: receipt.Events})
				}
				if err != nil {
					return
				}
				mu.Lock()
				took = append(took, ms(time.Since(sent)))
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if len(took) == 0 {
		check(fmt.Errorf("the store took nothing"))
	}
	return float64(len(took)) / time.Since(begin).Seconds(), median(took)
}

// caughtUp measures how fast a stream is read that has small objects, and one that has large ones, as collecting makes
// them.
func (l *list) caughtUp(s *store) {
	const events = 50_000
	on := l.on(s, "reading", "writer")
	defer on.stop()
	for _, batch := range []int{50, 10_000} {
		load := bench.Load{Events: events, Size: size, Batch: batch, Conns: 1, Keep: true}
		name := l.put(on, load).Streams[0]
		other := l.on(s, "reading", "reader") // which knows nothing yet
		before, begin := s.requests.Load(), time.Now()
		l.get(http.MethodGet, fmt.Sprintf("%s/streams/%s/events?limit=%d", other.url, name, events))
		took := time.Since(begin).Seconds()
		requests := s.requests.Load() - before
		other.stop()
		label := fmt.Sprintf("catch-up of 50,000 events in objects of %d: ", batch)
		l.add(label+"events", "/s", events/took, 0, aim{})
		l.add(label+"requests", "", float64(requests), 0, aim{})
	}
}

// followed measures what it costs to follow a stream to which nobody appends.
func (l *list) followed(s *store) {
	on := l.on(s, "idle", "follower")
	defer on.stop()
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	r := must(http.NewRequestWithContext(ctx, http.MethodGet, on.url+"/streams/idle?offset=-1", nil))
	answer := must(http.DefaultClient.Do(r))
	defer answer.Body.Close()
	time.Sleep(15 * time.Second) // it asks ever less often
	before := s.requests.Load()
	time.Sleep(20 * time.Second)
	l.add("an idle stream that is followed: requests a minute", "", 3*float64(s.requests.Load()-before), 0, aim{})
}
