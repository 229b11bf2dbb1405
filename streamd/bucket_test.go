//go:build unix

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/xml"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// bucketServer is a store with one bucket that keeps what it is sent, and looks at no signature: package object tries
// the protocol at one that does.
type bucketServer struct {
	mu      sync.Mutex
	objects map[string][]byte
	auth    string // the last
	puts    atomic.Int64
	kill    func() // is called at so many reads more
	at      int
}

func (b *bucketServer) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.objects)
}

// killAt has what kills a process called when that reads for the n-th time from now on.
func (b *bucketServer) killAt(n int, kill func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kill, b.at = kill, n
}

func (b *bucketServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil { // who sends it was killed: a store takes all of an object or nothing
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.auth = r.Header.Get("Authorization")
	key := strings.TrimPrefix(r.URL.Path, "/bucket/")
	is, there := b.objects[key]
	if r.Method == http.MethodPut {
		b.puts.Add(1)
	} else if b.kill != nil {
		if b.at--; b.at == 0 {
			b.kill()
			b.kill = nil
		}
	}
	switch {
	case r.Method == http.MethodPut && there && r.Header.Get("If-None-Match") == "*":
		w.WriteHeader(http.StatusPreconditionFailed)
	case r.Header.Get("If-Match") != "" && r.Header.Get("If-Match") != etag(is):
		w.WriteHeader(http.StatusPreconditionFailed)
	case r.Method == http.MethodPut:
		w.Header().Set("ETag", etag(body))
		b.objects[key] = body
	case r.Method == http.MethodDelete:
		delete(b.objects, key)
		w.WriteHeader(http.StatusNoContent)
	case key == "":
		b.list(w, r)
	case !there:
		w.WriteHeader(http.StatusNotFound)
	default:
		w.Header().Set("ETag", etag(is))
		_, _ = w.Write(is)
	}
}

func etag(body []byte) string { return fmt.Sprintf(`"%x"`, sha256.Sum256(body)) }

func (b *bucketServer) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit, _ := strconv.Atoi(q.Get("max-keys"))
	type contents struct{ Key string }
	type common struct{ Prefix string }
	var out struct {
		XMLName        xml.Name `xml:"ListBucketResult"`
		Contents       []contents
		CommonPrefixes []common
		IsTruncated    bool
	}
	for _, key := range slices.Sorted(maps.Keys(b.objects)) {
		rest, ok := strings.CutPrefix(key, q.Get("prefix"))
		if !ok || key <= q.Get("start-after") {
			continue
		}
		prefix := ""
		if before, _, cut := strings.Cut(rest, q.Get("delimiter")); q.Get("delimiter") != "" && cut {
			prefix = q.Get("prefix") + before + q.Get("delimiter")
		}
		n := len(out.CommonPrefixes)
		switch {
		case prefix != "" && n > 0 && out.CommonPrefixes[n-1].Prefix == prefix:
		case n+len(out.Contents) == limit:
			out.IsTruncated = true
		case prefix != "":
			out.CommonPrefixes = append(out.CommonPrefixes, common{prefix})
		default:
			out.Contents = append(out.Contents, contents{key})
		}
	}
	_ = xml.NewEncoder(w).Encode(out)
}

// TestBucket has two servers on one place of a bucket: what one takes the other's followers see, and when the first has
// ended the second goes on with its streams.
func TestBucket(t *testing.T) {
	is := is.New(t)
	store := &bucketServer{objects: map[string][]byte{}}
	server := httptest.NewServer(store)
	defer server.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "someone")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "the-secret-of-someone")
	place := []string{"--storage", "s3://bucket/streams", "--s3-endpoint", server.URL}
	first, endFirst := inProcess(t, t.TempDir(), place...)
	second, endSecond := inProcess(t, t.TempDir(), place...)
	add := func(url, data string, tail int) {
		t.Helper()
		receipt, err := (&streamhttp.Client{URL: url}).Stream("orders").Append(t.Context(),
			streamlib.Batch{Data: streamlib.JSON(data), Key: data})
		is.NoErr(err)
		is.Equal(receipt.Tail, streamlib.Offset(tail))
	}
	add(first, "1", 1)
	next, stop := iter.Pull2((&streamhttp.Client{URL: second}).Stream("orders").Subscribe(t.Context(), streamlib.Beginning))
	defer stop()
	follows := func(want int) {
		t.Helper()
		events, err, ok := next()
		is.True(ok)
		is.NoErr(err)
		is.Equal(len(events), 1)
		is.Equal(events[0].Offset, streamlib.Offset(want))
	}
	follows(0)
	add(first, "2", 2)
	follows(1)
	add(second, "3", 3)
	follows(2)
	add(second, "1", 1) // was appended by the other
	log, err := endFirst()
	is.NoErr(err)
	is.True(!strings.Contains(log, "the-secret-of-someone"))
	add(second, "4", 4)
	follows(3)
	stop()
	var out bytes.Buffer
	verify := []string{"verify", "--storage", "s3://bucket/streams", "--s3-endpoint", server.URL}
	is.NoErr(run(t.Context(), verify, os.Getenv, strings.NewReader(""), &out, io.Discard))
	is.True(strings.HasPrefix(out.String(), "1 streams, 4 events, "))
	is.True(strings.HasSuffix(out.String(), " in 4 objects, 0 overlap, 0 damaged\n"))
	_, err = endSecond()
	is.NoErr(err)
	is.True(strings.HasPrefix(store.auth, "AWS4-HMAC-SHA256 Credential=someone/"))
	is.True(len(store.objects) == 5) // the format, and an object an append
	for _, body := range store.objects {
		is.True(!bytes.Contains(body, []byte("the-secret-of-someone")))
	}
}
