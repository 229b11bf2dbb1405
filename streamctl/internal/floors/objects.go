//go:build linux

package main

import (
	"context"
	"fmt"
	"io/fs"
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
	quick    atomic.Bool // it takes no more time than it needs
	url      string
	folder   string // of the bucket
}

func (l *list) store(program string) (s *store, stop func()) {
	s = &store{}
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	s.url = "http://" + listener.Addr().String()
	folder := must(os.MkdirTemp(l.dir, "store-"))
	s.folder = filepath.Join(folder, "bucket")
	check(os.Mkdir(s.folder, 0o700))
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
		if !s.quick.Load() {
			time.Sleep(storeTime)
		}
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

// collected measures how fast a stream is read before and after its objects are collected. What comes before takes no
// more time than it needs, and an hour passes at once: that is not what is measured.
func (l *list) collected() {
	program := os.Getenv("VERSITYGW")
	if program == "" {
		return
	}
	s, stop := l.store(program)
	defer stop()
	const events, batch = 1_000_000, 64 // a million objects would take this machine hours
	l.section("Catch-up of %d events, in batches of %d, on an object store that takes %v", events, batch, storeTime)
	s.quick.Store(true)
	on := l.on(s, "reading", "writer")
	name := l.put(on, bench.Load{Events: events, Size: size, Batch: batch, Conns: 1, Keep: true}).Streams[0]
	on.stop()
	l.caughtUp(s, "before it is collected", name, events)
	l.pass(s, 2*time.Hour)
	s.quick.Store(true)
	to := must(object.Open(l.ctx, object.Options{Bucket: "bucket", Prefix: "reading", Endpoint: s.url,
		Keys: object.Environment(os.Getenv)}))
	defer to.Close()
	before := s.requests.Load()
	written, removed, err := to.Collect(l.ctx)
	check(err)
	if removed == 0 {
		check(fmt.Errorf("nothing was collected"))
	}
	l.add("collecting: objects written", "", float64(written), 0, aim{})
	l.add("collecting: requests", "", float64(s.requests.Load()-before), 0, aim{})
	l.caughtUp(s, "once it is collected", name, events)
}

// pass lets time pass for all that is in the store.
func (l *list) pass(s *store, d time.Duration) {
	check(filepath.WalkDir(s.folder, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		return os.Chtimes(path, time.Time{}, info.ModTime().Add(-d))
	}))
	check(os.RemoveAll(filepath.Join(s.folder, "reading", "collector"))) // which tells of passes, if there were some
}

// caughtUp measures how fast a server that knows nothing of a stream reads it.
func (l *list) caughtUp(s *store, when, name string, events int) {
	s.quick.Store(false)
	on := l.on(s, "reading", "reader")
	defer on.stop()
	objects, before := 0, s.requests.Load()
	took := l.count(fmt.Sprintf("%s/streams/%s/events?limit=%d", on.url, name, events), events)
	requests := s.requests.Load() - before
	check(filepath.WalkDir(filepath.Join(s.folder, "reading", "s"), func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			objects++
		}
		return err
	}))
	l.add(when+": objects", "", float64(objects), 0, aim{})
	l.add(when+": events", "/s", float64(events)/took.Seconds(), 0, aim{})
	l.add(when+": requests", "", float64(requests), 0, aim{})
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
