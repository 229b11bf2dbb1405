package streamhttp_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// TestChangesAreTold: who follows the list with details hears how each stream is, and of those with the prefix alone.
func TestChangesAreTold(t *testing.T) {
	is := is.New(t)
	m := streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	add(t, m.Stream("jobs/old"), "1")
	server := httptest.NewServer(streamhttp.NewHandler(m, streamhttp.Config{}))
	defer server.Close()
	client := &streamhttp.Client{URL: server.URL}
	s := subscribe(t, client, "/streams?details=true&prefix=jobs", "Accept: text/event-stream")
	defer s.resp.Body.Close()
	is.Equal(s.line(), "retry: 1000\n")

	// until reads on until a stream is told to be as want, and returns what was told of others.
	until := func(name, want string) (others []string) {
		for {
			text, ok := strings.CutPrefix(s.block(), "data: ")
			is.True(ok)
			var told struct{ Streams []map[string]any }
			is.NoErr(json.Unmarshal([]byte(text), &told))
			for _, stream := range told.Streams {
				if stream["name"] != name {
					others = append(others, fmt.Sprint(stream["name"]))
				} else if strings.Contains(text, want) {
					return others
				}
			}
		}
	}
	add(t, m.Stream("other"), "1")
	add(t, m.Stream("jobs/new"), "1", "2")
	is.Equal(len(until("jobs/new", `"nextOffset":"0000000000000002","size":`)), 0)
	is.NoErr(m.Stream("jobs/old").Delete(t.Context()))
	until("jobs/old", `"deleted":true`)
	is.NoErr(m.Stream("jobs/new").Trim(t.Context(), 1))
	until("jobs/new", `"first":"0000000000000001"`)
	_, err := m.Stream("jobs/new").Append(t.Context(), streamlib.Batch{Close: true})
	is.NoErr(err)
	until("jobs/new", `"closed":true`)
}

// TestChangesAreGathered: what changes a thousand times a second is told four times.
func TestChangesAreGathered(t *testing.T) {
	bubble(t, func(t *testing.T, client *streamhttp.Client, m *streamlib.Manager, _ func() net.Conn) {
		is := is.New(t)
		s := subscribe(t, client, "/streams?details=true", "Accept: text/event-stream")
		is.Equal(s.line(), "retry: 1000\n")
		var adding sync.WaitGroup
		defer adding.Wait()
		adding.Go(func() {
			for range 1000 {
				add(t, m.Stream("s"), "1")
				time.Sleep(time.Millisecond)
			}
		})
		told := 0
		for !strings.Contains(s.block(), `"nextOffset":"0000000000001000"`) {
			told++
		}
		is.True(told >= 3 && told <= 5)
		s.resp.Body.Close()
	})
}

// TestTimes: each event is in the part of the time in which it was created.
func TestTimes(t *testing.T) {
	bubble(t, func(t *testing.T, client *streamhttp.Client, m *streamlib.Manager, _ func() net.Conn) {
		is := is.New(t)
		begin := time.Now()
		for _, n := range []int{3, 0, 1, 2} { // a second each, at its begin
			for range n {
				add(t, m.Stream("s"), "1")
			}
			time.Sleep(time.Second)
		}
		counts := func(query string) (told struct {
			First, Next string
			From, To    time.Time
			Counts      []int
		}) {
			resp, err := client.HTTP.Get(client.URL + "/streams/s/times" + query)
			is.NoErr(err)
			is.NoErr(json.NewDecoder(resp.Body).Decode(&told))
			is.NoErr(resp.Body.Close())
			return told
		}
		is.Equal(counts("?buckets=3").Counts, []int{3, 1, 2}) // of 1001 ms each
		is.Equal(counts("?buckets=4").Counts, []int{3, 0, 1, 2})
		is.Equal(len(counts("").Counts), 60)
		is.Equal(len(counts("?buckets=123456").Counts), 1000)
		is.NoErr(m.Stream("s").Trim(t.Context(), 2))
		told := counts("?buckets=4")
		is.Equal(told.Counts, []int{1, 0, 1, 2})
		is.Equal(told.First, "0000000000000002")
		since := begin.Add(time.Second).UTC().Format(time.RFC3339)
		told = counts("?buckets=2&since=" + since)
		is.Equal(told.Counts, []int{1, 2})
		is.Equal(told.First, "0000000000000003")
		is.True(slices.Equal(counts("?buckets=1&since=1d").Counts, []int{4}))
	})
}
