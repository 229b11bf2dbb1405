//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"sync"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/disk"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/iterate/durable-streams/streamlib/streamhttp/protocol"
)

// bare answers what streamd would, with net/http as it is, and stores nothing: the floor of appends and of live
// delivery. It also sends files, for catch-up.
type bare struct {
	mu      sync.Mutex
	streams map[string]*bareStream
}

type bareStream struct {
	mu       sync.Mutex // guards what follows
	tail     int64
	last     *link // the one to come
	followed bool
}

// A link is an event's frame; who waits for it waits for ready.
type link struct {
	frame []byte
	next  *link
	ready chan struct{}
}

func (b *bare) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /streams/{name}", b.append)
	mux.HandleFunc("GET /streams/{name}", b.follow)
	mux.HandleFunc("DELETE /streams/{name}", b.remove)
	mux.HandleFunc("GET /copy", copyFile)
	mux.HandleFunc("GET /rss", rss)
	return mux
}

func (b *bare) stream(name string) *bareStream {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.streams[name]
	if s == nil {
		s = &bareStream{last: &link{ready: make(chan struct{})}}
		b.streams[name] = s
	}
	return s
}

func (b *bare) append(w http.ResponseWriter, r *http.Request) {
	body := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	name, data := r.PathValue("name"), body[len(`{"data":`):len(body)-len("}")]
	s := b.stream(name)
	s.mu.Lock()
	offset := digits(s.tail)
	s.tail++
	tail := digits(s.tail)
	event := append(make([]byte, 0, len(data)+256), `{"offset":"`+offset+`","eventStreamId":"`+name+`","data":`...)
	event = append(append(event, data...), `,"createdAt":"2024-01-08T00:00:00.000Z"}`+"\n"...)
	if s.followed {
		l := s.last
		s.last = &link{ready: make(chan struct{})}
		l.next = s.last
		l.frame = append(append([]byte("id: "+offset+"\ndata: "), event...), '\n')
		close(l.ready)
	}
	s.mu.Unlock()
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(event))}
	h["Etag"] = []string{`"` + tail + `"`}
	h["Stream-Next-Offset"] = []string{tail}
	w.WriteHeader(http.StatusCreated)
	w.Write(event)
}

// digits returns n with 16 digits.
func digits(n int64) string { return strconv.FormatInt(1e16+n, 10)[1:] }

func (b *bare) follow(w http.ResponseWriter, r *http.Request) {
	s := b.stream(r.PathValue("name"))
	s.mu.Lock()
	l := s.last
	s.followed = true
	s.mu.Unlock()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	io.WriteString(w, "retry: 1000\nevent: position\nid: -1\ndata: {\"tail\":\"0000000000000000\"}\n\n: tail 0000000000000000\n")
	for flusher := http.NewResponseController(w); flusher.Flush() == nil; {
		select {
		case <-l.ready:
		case <-r.Context().Done():
			return
		}
		for more := true; more; {
			w.Write(l.frame)
			l = l.next
			select {
			case <-l.ready:
			default:
				more = false
			}
		}
	}
}

func (b *bare) remove(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.streams, r.PathValue("name"))
	w.WriteHeader(http.StatusNoContent)
}

// copyFile sends a file through user space: neither side of the copy can be asked to use sendfile(2).
func copyFile(w http.ResponseWriter, r *http.Request) {
	f, err := os.Open(r.FormValue("file"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	defer f.Close()
	io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{f}, make([]byte, 64<<10))
}

// rss answers with the memory in use after a forced collection, in bytes.
func rss(w http.ResponseWriter, r *http.Request) {
	debug.FreeOSMemory()
	var size, resident int64 // in pages: proc(5)
	statm, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		_, err = fmt.Sscan(string(statm), &size, &resident)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	io.WriteString(w, strconv.FormatInt(resident*int64(os.Getpagesize()), 10))
}

// host serves what streamd does, and rss.
func host(ctx context.Context, dir string) error {
	store, err := disk.Open(dir, disk.Options{})
	if err != nil {
		return err
	}
	m := streamlib.NewManager(store, streamlib.Plain, streamlib.Options{})
	routes := streamhttp.NewHandler(m, streamhttp.Config{Protocol: protocol.NewHandler(m, protocol.Config{}).Serve})
	mux := http.NewServeMux()
	mux.Handle("/", routes)
	mux.HandleFunc("GET /rss", rss)
	return serve(ctx, mux)
}

// serve prints its URL and serves until ctx is done.
func serve(ctx context.Context, h http.Handler) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	fmt.Println("http://" + l.Addr().String())
	err = http.Serve(l, h)
	if ctx.Err() != nil {
		return nil
	}
	return err
}
