package protocol_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/retention"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/iterate/durable-streams/streamlib/streamhttp/protocol"
	"github.com/matryer/is"
)

// swept is handler with a sweeper, in a bubble of its own.
func swept(t *testing.T, sweeper *retention.Sweeper, test func(is *is.I, s *served)) {
	synctest.Test(t, func(t *testing.T) {
		storage := memory.New()
		m := streamlib.NewManager(storage, streamlib.Plain, streamlib.Options{})
		p := protocol.NewHandler(m, protocol.Config{})
		sweeper.Manager, sweeper.Keeper = m, p
		ctx, end := context.WithCancel(t.Context())
		var sweeping sync.WaitGroup
		sweeping.Go(func() { sweeper.Run(ctx) })
		test(is.New(t), &served{streamhttp.NewHandler(m, streamhttp.Config{Protocol: p.Serve}), storage})
		end()
		sweeping.Wait()
	})
}

// names are those of the streams that the storage has, whoever may see them.
func (s *served) names(is *is.I) string {
	names, err := s.storage.List(context.Background(), "", "", 0)
	is.NoErr(err)
	return strings.Join(names, " ")
}

// TestWhatIsOverGoes by itself: nobody asks for it again.
func TestWhatIsOverGoes(t *testing.T) {
	swept(t, &retention.Sweeper{}, func(is *is.I, s *served) {
		at := time.Now().Add(time.Hour).Format(time.RFC3339)
		do(s, "PUT /v1/stream/at", js+"Stream-Expires-At: "+at, "[1]")
		do(s, "PUT /v1/stream/read", js+"Stream-TTL: 60", "[1]")
		do(s, "PUT /v1/stream/appended", js+"Stream-TTL: 60", "[1]")
		do(s, "PUT /v1/stream/closed", js+"Stream-TTL: 60", "[1]")
		do(s, "PUT /v1/stream/looked-at", js+"Stream-TTL: 60", "[1]")
		do(s, "PUT /v1/stream/ever", js, "[1]")
		for range 3 {
			time.Sleep(40 * time.Second)
			resp, _ := do(s, "GET /v1/stream/read?offset=now", "", "")
			is.Equal(resp.StatusCode, 200)
			resp, _ = do(s, "POST /v1/stream/appended", js, "2")
			is.Equal(resp.StatusCode, 204)
			resp, _ = do(s, "POST /v1/stream/closed", "Stream-Closed: true", "")
			is.Equal(resp.StatusCode, 204)
			do(s, "HEAD /v1/stream/looked-at", "", "") // which does not count
		}
		is.Equal(s.names(is), "appended at closed ever read")
		time.Sleep(70 * time.Second)
		is.Equal(s.names(is), "at ever")
		time.Sleep(time.Hour)
		is.Equal(s.names(is), "ever")
		resp, _ := do(s, "PUT /v1/stream/at", "Content-Type: text/plain", "") // the name is free
		is.Equal(resp.StatusCode, 201)
	})
}

// TestALiveReaderKeepsAStream: who waits for more uses it, however long the window is.
func TestALiveReaderKeepsAStream(t *testing.T) {
	for _, ttl := range []int{0, 2, 20} {
		swept(t, &retention.Sweeper{}, func(is *is.I, s *served) {
			do(s, "PUT /v1/stream/s", fmt.Sprintf("%sStream-TTL: %d", js, ttl), "")
			time.Sleep(time.Duration(ttl) * time.Second / 2)
			if ttl == 0 {
				return // it is over at once
			}
			begun := time.Now()
			resp, body := do(s, "GET /v1/stream/s?offset=-1&live=sse", "", "")
			is.Equal(resp.StatusCode, 200)
			is.Equal(time.Since(begun), 55*time.Second)
			is.Equal(strings.Count(body, "event: control"), 1)
			is.Equal(s.names(is), "s")
			time.Sleep(time.Duration(ttl)*time.Second - 1)
			resp, _ = do(s, "GET /v1/stream/s?offset=-1&live=long-poll", "", "")
			is.Equal(resp.StatusCode, 204)
			time.Sleep(time.Duration(2*ttl+2) * time.Second)
			is.Equal(s.names(is), "")
		})
	}
}

// TestAStartSweepsWhatIsThere: streams that are over and claims that a crash left are not waited for.
func TestAStartSweepsWhatIsThere(t *testing.T) {
	swept(t, &retention.Sweeper{}, func(is *is.I, s *served) {
		do(s, "PUT /v1/stream/s", js+"Stream-TTL: 60", "[1]")
		do(s, "PUT /v1/stream/source", js, "[1]")
		do(s, "PUT /v1/stream/f", "Stream-Forked-From: /v1/stream/source", "")
		do(s, "DELETE /streams/f", "", "") // a native deletion does not tell the source
		resp, _ := do(s, "DELETE /streams/source", "", "")
		is.Equal(resp.StatusCode, 409)

		m := streamlib.NewManager(s.storage, streamlib.Plain, streamlib.Options{}) // another server
		sweeper := retention.Sweeper{Manager: m, Keeper: protocol.NewHandler(m, protocol.Config{})}
		ctx, end := context.WithTimeout(context.Background(), 30*time.Second)
		defer end()
		sweeper.Run(ctx)
		info, err := m.Stream("source").Stat(context.Background())
		is.NoErr(err)
		is.True(!info.Held)
		ctx, end = context.WithTimeout(context.Background(), 70*time.Second)
		defer end()
		sweeper.Run(ctx)
		is.Equal(s.names(is), "source")
	})
}

// TestAForkKeepsItsSourceFromRetention, until it goes.
func TestAForkKeepsItsSourceFromRetention(t *testing.T) {
	retain, err := retention.Retain("*=1")
	if err != nil {
		t.Fatal(err)
	}
	expire, err := retention.Expire("old=30s")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	sweeper := &retention.Sweeper{Retain: retain, Expire: expire, Log: slog.New(slog.NewTextHandler(&log, nil))}
	swept(t, sweeper, func(is *is.I, s *served) {
		for _, name := range []string{"s", "old"} {
			do(s, "PUT /v1/stream/"+name, js, "[1]") // within the bounds, for the sweeper may be fast
			do(s, "PUT /v1/stream/of-"+name, "Stream-Forked-From: /v1/stream/"+name, "")
			do(s, "POST /v1/stream/"+name, js, "[2,3]")
		}
		time.Sleep(time.Hour)
		for _, name := range []string{"s", "old"} {
			_, body := do(s, "GET /v1/stream/"+name, "", "")
			is.Equal(body, "[1,2,3]")
			_, body = do(s, "GET /v1/stream/of-"+name, "", "")
			is.Equal(body, "[1]")
		}
		is.Equal(log.String(), "") // nothing was tried, or is said to have gone
		do(s, "DELETE /v1/stream/of-s", "", "")
		do(s, "DELETE /v1/stream/of-old", "", "")
		time.Sleep(time.Minute)
		_, body := do(s, "GET /v1/stream/s", "", "")
		is.Equal(body, "[3]")
		is.Equal(s.names(is), "s")
	})
}
