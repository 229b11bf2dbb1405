package streamhttp_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

var benchBody = []byte(`{"data":{"type":"message","text":"` + strings.Repeat("x", 160) + `"}}`)

// BenchmarkAppend is one event a request over 64 connections, beside a bare handler that reads and answers the same
// bytes.
func BenchmarkAppend(b *testing.B) {
	client, _ := serve(b, streamhttp.Config{})
	b.Run("streams", func(b *testing.B) { benchPosts(b, client.URL+"/streams/s") })
	bare := serveHandler(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		answer := fmt.Appendf(nil, `{"offset":"0000000000000000","eventStreamId":"s",%s,"createdAt":"2024-01-08T00:00:00.000Z"}`+"\n", body[1:len(body)-1])
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(answer)
	}))
	b.Run("bare", func(b *testing.B) { benchPosts(b, bare.URL+"/streams/s") })
}

// benchPosts writes requests and reads answers as cheaply as can be.
func benchPosts(b *testing.B, url string) {
	const conns = 64
	host, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	request := fmt.Appendf(nil, "POST /%s HTTP/1.1\r\nHost: %s\r\nContent-Type: "+
		"application/json\r\nContent-Length: %d\r\n\r\n%s", path, host, len(benchBody), benchBody)
	var left atomic.Int64
	left.Store(int64(b.N))
	var wait sync.WaitGroup
	for range conns {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		wait.Go(func() {
			r := bufio.NewReader(conn)
			for left.Add(-1) >= 0 {
				if _, err := conn.Write(request); err != nil {
					b.Error(err)
					return
				}
				length := 0
				for {
					line, err := r.ReadSlice('\n')
					if err != nil {
						b.Error(err)
						return
					}
					if n, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
						length, _ = strconv.Atoi(string(bytes.TrimSpace(n)))
					}
					if len(line) == 2 {
						break
					}
				}
				_, _ = r.Discard(length)
			}
		})
	}
	wait.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkBatch appends 1,000 events a request through the client.
func BenchmarkBatch(b *testing.B) {
	client, _ := serve(b, streamhttp.Config{})
	batch := streamlib.Batch{}
	for range 1000 {
		batch.Data = append(batch.Data, json.RawMessage(benchBody[len(`{"data":`):len(benchBody)-1]))
	}
	for b.Loop() {
		if _, err := client.Stream("s").Append(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(1000*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkCatchUp reads 200,000 events: the bytes alone, then with the client's parsing, by SSE and as lines and
// array.
func BenchmarkCatchUp(b *testing.B) {
	const n = 200_000
	client, m := serve(b, streamhttp.Config{})
	batch := streamlib.Batch{}
	for range n / 100 {
		batch.Data = append(batch.Data, json.RawMessage(benchBody[len(`{"data":`):len(benchBody)-1]))
	}
	for range 100 {
		if _, err := m.Stream("s").Append(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	for _, way := range []struct{ name, path, accept string }{
		{"sse", "/streams/s?offset=-1", ""},
		{"events", "/streams/s/events", ""},
		{"lines", "/streams/s/events", "application/x-ndjson"},
	} {
		b.Run(way.name+"/bytes", func(b *testing.B) {
			buf := make([]byte, 256<<10)
			for b.Loop() {
				ctx, cancel := context.WithCancel(b.Context())
				req, _ := http.NewRequestWithContext(ctx, "GET", client.URL+way.path, nil)
				if way.accept != "" {
					req.Header.Set("Accept", way.accept)
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					b.Fatal(err)
				}
				for lines := 0; lines < n; {
					read, err := resp.Body.Read(buf)
					lines += bytes.Count(buf[:read], []byte(`"eventStreamId"`)) // one across two reads is made up for by the end
					if err != nil {
						break
					}
					if way.name == "sse" && lines > n-1000 &&
						bytes.Contains(buf[:read], []byte(`data: {"offset":"0000000000199999"`)) {
						break
					}
				}
				cancel()
				resp.Body.Close()
			}
			b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
	b.Run("sse/client", func(b *testing.B) {
		for b.Loop() {
			got := 0
			for events, err := range client.Stream("s").Subscribe(b.Context(), 0) {
				if err != nil {
					b.Fatal(err)
				}
				if got += len(events); got == n {
					break
				}
			}
		}
		b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "events/s")
	})
	b.Run("lines/client", func(b *testing.B) {
		for b.Loop() {
			got := 0
			for events, err := range client.Stream("s").Read(b.Context(), 0, streamlib.MaxOffset) {
				if err != nil {
					b.Fatal(err)
				}
				got += len(events)
			}
			if got != n {
				b.Fatal(got)
			}
		}
		b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "events/s")
	})
}

// BenchmarkLive is an event to 1,000 subscribers, beside a bare handler that writes the same frames, and tells what a
// subscriber costs in memory, the client's end included.
func BenchmarkLive(b *testing.B) {
	const subscribers = 1000
	client, m := serve(b, streamhttp.Config{})
	data := streamlib.JSON(string(benchBody[len(`{"data":`) : len(benchBody)-1]))
	b.Run("streams", func(b *testing.B) {
		benchLive(b, client.URL+"/streams/s", subscribers, func() {
			if _, err := m.Stream("s").Append(b.Context(), streamlib.Batch{Data: data}); err != nil {
				b.Fatal(err)
			}
		})
	})
	var mu sync.Mutex
	changed := make(chan struct{})
	frame := fmt.Appendf(nil, "id: 0000000000000000\ndata: {\"offset\":\"0000000000000000\",\"eventStreamId\":\"s\",\"data\":%s,\"createdAt\":\"2024-01-08T00:00:00.000Z\"}\n\n", data[0])
	bare := serveHandler(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "retry: 1000\nevent: position\nid: -1\ndata: {}\n\n")
		mu.Lock()
		wake := changed
		mu.Unlock()
		for w.(http.Flusher).Flush(); ; w.(http.Flusher).Flush() {
			select {
			case <-wake:
			case <-r.Context().Done():
				return
			}
			mu.Lock()
			wake = changed
			mu.Unlock()
			_, _ = w.Write(frame)
		}
	}))
	b.Run("bare", func(b *testing.B) {
		benchLive(b, bare.URL+"/", subscribers, func() {
			mu.Lock()
			close(changed)
			changed = make(chan struct{})
			mu.Unlock()
		})
	})
}

func benchLive(b *testing.B, url string, subscribers int, send func()) {
	host, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var wait sync.WaitGroup
	defer wait.Wait()
	got := make(chan struct{}, subscribers)
	for range subscribers {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: %s\r\n\r\n", path, host)
		wait.Go(func() {
			var mem [1024]byte // an event is less, and comes whole
			for {
				n, err := conn.Read(mem[:])
				if err != nil {
					return
				}
				for range bytes.Count(mem[:n], []byte("id: ")) {
					got <- struct{}{}
				}
			}
		})
	}
	for range subscribers {
		<-got
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportAllocs()
	start := time.Now()
	for b.Loop() {
		send()
		for range subscribers {
			<-got
		}
	}
	b.ReportMetric(float64(subscribers)*float64(b.N)/time.Since(start).Seconds(), "deliveries/s")
	b.ReportMetric(float64(after.HeapAlloc+after.StackInuse-before.HeapAlloc-before.StackInuse)/float64(subscribers),
		"bytes/subscriber")
}
