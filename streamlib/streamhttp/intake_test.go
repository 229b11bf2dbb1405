package streamhttp_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/budget"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/iterate/durable-streams/streamlib/transfer"
	"github.com/matryer/is"
)

const mib = 1 << 20

// post sends the beginning of a body, as so many bytes, and returns what reads the answer.
func post(conn net.Conn, contentType string, length int, begin []byte) func() (*http.Response, error) {
	sent := make(chan struct{})
	go func() {
		fmt.Fprintf(conn, "POST /streams/s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n",
			contentType, length)
		_, _ = conn.Write(begin)
		close(sent)
	}()
	return func() (*http.Response, error) {
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		conn.Close()
		<-sent
		return resp, err
	}
}

// do asks over the client's own connections, and reads the answer.
func do(t *testing.T, c *streamhttp.Client, request, contentType string, body []byte) *http.Response {
	t.Helper()
	method, path, _ := strings.Cut(request, " ")
	req, err := http.NewRequestWithContext(t.Context(), method, c.URL+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := c.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp
}

func value(n int) []byte { return []byte(`{"data":"` + strings.Repeat("x", n-11) + `"}`) }

// TestRequestsWithoutRoomAreRefused: what is large waits a second, what is small has room left.
func TestRequestsWithoutRoomAreRefused(t *testing.T) {
	bubble(t, func(t *testing.T, c *streamhttp.Client, m *streamlib.Manager, connect func() net.Conn) {
		is := is.New(t)
		others := m.Budget().Requests.Hold()
		is.True(others.Grow(t.Context(), 448*mib, budget.Whole, 0)) // seven eighths of the default's share
		begun := time.Now()
		refused := do(t, c, "POST /streams/s", "application/json", value(200<<10))
		is.Equal(refused.StatusCode, http.StatusServiceUnavailable)
		is.Equal(refused.Header.Get("Retry-After"), "1")
		is.Equal(time.Since(begun), time.Second)
		is.Equal(do(t, c, "POST /streams/s", "application/json", value(200)).StatusCode, http.StatusCreated)
		is.Equal(time.Since(begun), time.Second)
		others.Release()
		is.Equal(do(t, c, "POST /streams/s", "application/json", value(200<<10)).StatusCode, http.StatusCreated)
		synctest.Wait()
		is.Equal(m.Budget().Held(), int64(0))
	})
}

// TestStalledBodiesLetGo: a large body that stops holds what has come of it, for a time, and nobody waits for it.
func TestStalledBodiesLetGo(t *testing.T) {
	bubble(t, func(t *testing.T, c *streamhttp.Client, m *streamlib.Manager, connect func() net.Conn) {
		is := is.New(t)
		body := value(mib)
		var answers []func() (*http.Response, error)
		for range 3 {
			answers = append(answers, post(connect(), "application/json", len(body), body[:len(body)-10]))
		}
		synctest.Wait()
		held := m.Budget().Held()
		is.True(3*mib < held && held < 4*mib)
		begun := time.Now()
		is.Equal(do(t, c, "POST /streams/s", "application/json", body).StatusCode, http.StatusCreated)
		is.Equal(time.Since(begun), time.Duration(0))
		for _, answer := range answers {
			resp, err := answer()
			is.NoErr(err)
			is.Equal(resp.StatusCode, http.StatusRequestTimeout)
		}
		is.Equal(time.Since(begun), 10*time.Second)
		synctest.Wait()
		is.Equal(m.Budget().Held(), int64(0))
	})
}

// TestManyTinyEventsAreRefusedEarly: what is too large as stored is answered when that is known, and not when all of
// it has come.
func TestManyTinyEventsAreRefusedEarly(t *testing.T) {
	bubble(t, func(t *testing.T, c *streamhttp.Client, m *streamlib.Manager, connect func() net.Conn) {
		is := is.New(t)
		resp, err := post(connect(), "application/x-ndjson", 8*mib, bytes.Repeat([]byte("1\n"), 3*mib/2))()
		is.NoErr(err)
		is.Equal(resp.StatusCode, http.StatusRequestEntityTooLarge)
		synctest.Wait()
		is.Equal(m.Budget().Held(), int64(0))
		blank := do(t, c, "POST /streams/s", "application/x-ndjson", append(bytes.Repeat([]byte("\n"), 7*mib), "1\n"...))
		is.Equal(blank.StatusCode, http.StatusCreated) // of which all but one are none
	})
}

// TestReadersTakeTurns: without room an answer that has not begun is refused, a subscription waits, and who has caught
// up needs none.
func TestReadersTakeTurns(t *testing.T) {
	bubble(t, func(t *testing.T, c *streamhttp.Client, m *streamlib.Manager, connect func() net.Conn) {
		is := is.New(t)
		add(t, m.Stream("s"), "0")
		follow := func(query string) *bufio.Reader {
			conn := connect()
			t.Cleanup(func() { conn.Close() })
			fmt.Fprintf(conn, "GET /streams/s%s HTTP/1.0\r\nHost: localhost\r\n\r\n", query)
			return bufio.NewReader(conn)
		}
		until := func(r *bufio.Reader, text string) {
			t.Helper()
			for line := ""; !strings.Contains(line, text); {
				var err error
				line, err = r.ReadString('\n')
				is.NoErr(err)
			}
		}
		live := follow("")
		until(live, ": tail")
		others := m.Budget().Readers.Hold()
		is.True(others.Grow(t.Context(), 448*mib, budget.Whole, 0))
		begun := time.Now()
		refused := do(t, c, "GET /streams/s/events", "", nil)
		is.Equal(refused.StatusCode, http.StatusServiceUnavailable)
		is.Equal(time.Since(begun), time.Second)
		add(t, m.Stream("s"), "1")
		until(live, `"data":1`)
		behind := follow("?offset=0")
		got := make(chan struct{})
		go func() {
			until(behind, `"data":1`)
			close(got)
		}()
		synctest.Wait()
		select {
		case <-got:
			t.Error("it read without room")
		default:
		}
		is.Equal(time.Since(begun), time.Second) // an append did not wait
		others.Release()
		<-got
	})
}

// TestCopiesTakeRoom: without room an import is refused before anything of it is read, and an export waits.
func TestCopiesTakeRoom(t *testing.T) {
	bubble(t, func(t *testing.T, c *streamhttp.Client, m *streamlib.Manager, _ func() net.Conn) {
		is := is.New(t)
		add(t, m.Stream("s"), "0")
		whole := exported(t, c, transfer.Query{})
		others := m.Budget().Requests.Hold()
		is.True(others.Grow(t.Context(), 256*mib-transfer.Held+1, budget.Whole, 0)) // a half of the default's share, nearly
		begun := time.Now()
		_, err := c.Import(t.Context(), strings.NewReader(whole))
		is.True(errors.Is(err, streamlib.ErrUnavailable))
		is.Equal(time.Since(begun), time.Second)
		others.Release()
		_, err = c.Import(t.Context(), strings.NewReader(whole))
		is.NoErr(err)
		is.Equal(m.Budget().Held(), int64(0))

		others = m.Budget().Readers.Hold()
		is.True(others.Grow(t.Context(), 448*mib, budget.Whole, 0))
		got := make(chan string, 1)
		go func() { got <- exported(t, c, transfer.Query{}) }()
		synctest.Wait()
		is.Equal(len(got), 0)
		others.Release()
		is.Equal(<-got, whole)
		synctest.Wait()
		is.Equal(m.Budget().Held(), int64(0))
	})
}
