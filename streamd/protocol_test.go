//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/matryer/is"
)

// ask sends a request, whose headers stand in lines; without an answer the status is 0.
func (s *server) ask(method, path, headers, body string) (status int, answer string) {
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Error(err)
		return 0, ""
	}
	for line := range strings.SplitSeq(headers, "\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			req.Header.Set(name, value)
		}
	}
	status, b := s.do(req)
	return status, string(b)
}

// A sentBy is one client's request that must take place once, however often it is sent.
type sentBy struct{ path, headers, body string }

// TestKilledWhileItSpeaksTheProtocol kills the server with SIGKILL while producers append to streams, close some, and
// make and delete forks, beside native appends. What had no answer is sent again after the start.
func TestKilledWhileItSpeaksTheProtocol(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	const rounds, clients, streams = 4, 6, 2
	const js = "Content-Type: application/json\n"
	var mu sync.Mutex
	seqs := map[string]int{}         // stream and producer → the next number
	values := map[string][]string{}  // stream → values of acknowledged appends, in no order
	unanswered := map[int][]sentBy{} // by client
	closed := map[string]sentBy{}    // what has closed a stream
	forks := map[string]string{}     // what an acknowledged fork has
	server := start(t, dir)
	for i := range streams {
		status, _ := server.ask("PUT", fmt.Sprintf("/v1/stream/p%d", i), js, "")
		is.Equal(status, 201)
	}
	for round := range rounds {
		if round > 0 {
			server = start(t, dir)
		}
		for client, sent := range unanswered { // once, whether or not the first came through
			for _, again := range sent {
				status, answer := server.ask("POST", again.path, again.headers, again.body)
				if status != 200 && status != 204 {
					t.Fatalf("client %d: %+v was answered %d %s", client, again, status, answer)
				}
			}
		}
		clear(unanswered)
		for stream, last := range closed {
			status, _ := server.ask("POST", stream, last.headers, last.body)
			is.Equal(status, 204) // it stays a duplicate
			status, _ = server.ask("POST", stream, js, "1")
			is.Equal(status, 409) // it stays closed
		}
		for fork, was := range forks {
			status, body := server.ask("GET", fork, "", "")
			is.Equal(status, 200)
			is.Equal(body, was) // it reads as before
		}
		limit := 50 + rand.IntN(150)
		acknowledged := func() {
			if limit--; limit == 0 {
				server.signal(syscall.SIGKILL)
			}
		}
		var all sync.WaitGroup
		for client := range clients {
			all.Go(func() {
				for i := 0; ; i++ {
					id := fmt.Sprintf("%d-%d-%d", round, client, i)
					stream := fmt.Sprintf("/v1/stream/p%d", i%streams)
					by := fmt.Sprintf("%s %d", stream, client)
					mu.Lock()
					seq := seqs[by]
					seqs[by]++
					mu.Unlock()
					sent := sentBy{stream, fmt.Sprintf("%sProducer-Id: %d\nProducer-Epoch: 0\nProducer-Seq: %d", js, client, seq),
						fmt.Sprintf(`[[%d,%d,%q,0],[%[1]d,%[2]d,%[3]q,1]]`, client, seq, id)}
					last := sentBy{"/v1/stream/c" + id, js + "Producer-Id: a\nProducer-Epoch: 2\nProducer-Seq: 0\n" +
						"Stream-Closed: true", `"last"`}
					fork := "/v1/stream/f" + id
					status, _ := server.ask("POST", sent.path, sent.headers, sent.body)
					mu.Lock()
					values[stream] = append(values[stream], fmt.Sprintf(`[%d,%d,%q,0]`, client, seq, id))
					if status == 0 {
						unanswered[client] = append(unanswered[client], sent)
					} else {
						acknowledged()
					}
					mu.Unlock()
					if status == 0 {
						return
					} else if status != 200 {
						t.Errorf("append answered %d", status)
						return
					}
					switch i % 4 {
					case 0:
						status, _ = server.append(fmt.Sprint("p", i%streams), "", fmt.Sprintf("%q", id))
						mu.Lock()
						if status == 201 {
							values[stream] = append(values[stream], fmt.Sprintf("%q", id))
						}
						mu.Unlock()
					case 1:
						if status, _ = server.ask("PUT", last.path, js, `["first"]`); status != 201 {
							break
						}
						status, _ = server.ask("POST", last.path, last.headers, last.body)
						mu.Lock()
						if status == 200 {
							closed[last.path] = last
						}
						mu.Unlock()
					case 2:
						if status, _ = server.ask("PUT", fork, "Stream-Forked-From: "+stream, `["fork"]`); status != 201 {
							break
						}
						status, body := server.ask("GET", fork, "", "")
						mu.Lock()
						if status == 200 {
							forks[fork] = body
						}
						mu.Unlock()
						if i%3 == 0 && status == 200 {
							mu.Lock()
							delete(forks, fork) // it may be gone from now on
							mu.Unlock()
							server.ask("DELETE", fork, "", "")
						}
					}
				}
			})
		}
		all.Wait()
		_ = server.wait()
	}
	server = start(t, dir)
	for _, sent := range unanswered {
		for _, again := range sent {
			status, _ := server.ask("POST", again.path, again.headers, again.body)
			is.True(status == 200 || status == 204)
		}
	}
	for stream, sent := range values {
		var all []json.RawMessage
		for offset := "-1"; ; {
			req, _ := http.NewRequest("GET", server.url+stream+"?offset="+offset, nil)
			resp, err := server.client.Do(req)
			is.NoErr(err)
			var page []json.RawMessage
			is.NoErr(json.NewDecoder(resp.Body).Decode(&page))
			resp.Body.Close()
			all, offset = append(all, page...), resp.Header.Get("Stream-Next-Offset")
			if resp.Header.Get("Stream-Up-To-Date") == "true" {
				break
			}
		}
		found, next := map[string]int{}, map[string]int{}
		for i, value := range all {
			found[string(value)]++
			if first, ok := strings.CutSuffix(string(value), ",0]"); ok { // a batch is whole, and in its producer's order
				is.True(i+1 < len(all))
				is.Equal(string(all[i+1]), first+",1]")
				part := strings.SplitN(strings.TrimPrefix(first, "["), ",", 3)
				is.Equal(part[1], fmt.Sprint(next[part[0]]))
				next[part[0]]++
			}
		}
		for _, value := range sent {
			if found[value] != 1 {
				t.Errorf("%s is %d times in %s", value, found[value], stream)
			}
		}
	}
	is.True(len(closed) > 0 && len(forks) > 0)

	// Forks that were not made, or are gone, hold nothing.
	_, body := server.get("/streams")
	var list struct{ Streams []string }
	is.NoErr(json.Unmarshal([]byte(body), &list))
	for _, name := range list.Streams {
		if strings.HasPrefix(name, "f") {
			status, _ := server.ask("DELETE", "/v1/stream/"+name, "", "")
			is.Equal(status, 204)
		}
	}
	for i := range streams { // as soon as the sweeper has looked at what there was at the start
		is.True(eventually(func() bool { return server.delete(fmt.Sprint("p", i)) == 204 }))
	}
	_, body = server.get("/streams")
	is.NoErr(json.Unmarshal([]byte(body), &list))
	is.True(!slices.ContainsFunc(list.Streams, func(name string) bool { return name[0] == 'f' || name[0] == 'p' }))
	is.NoErr(server.end(syscall.SIGTERM))
}

// eventually tells whether it is so within a time that is too long for nobody.
func eventually(so func() bool) bool {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if so() {
			return true
		}
	}
	return false
}

// TestWhatIsOverGoes, whether it was made before the start or behind it, and nobody asks for it.
func TestWhatIsOverGoes(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	server := start(t, dir)
	make := func(name string) {
		status, _ := server.ask("PUT", "/v1/stream/"+name, "Stream-TTL: 1", "x")
		is.Equal(status, 201)
	}
	none := func() bool {
		_, body := server.get("/streams")
		return body == `{"streams":[]}`+"\n"
	}
	make("before")
	is.True(server.end(syscall.SIGKILL) != nil)
	server = start(t, dir)
	make("behind")
	is.True(eventually(none))
	is.NoErr(server.end(syscall.SIGTERM))
}

// TestFirstUseReadsLittle of a long stream after a start, whatever the sweeper does beside it.
func TestFirstUseReadsLittle(t *testing.T) {
	if _, err := os.ReadFile("/proc/self/io"); err != nil {
		t.Skipf("what a process reads cannot be told here: %v", err)
	}
	is := is.New(t)
	dir := t.TempDir()
	server := start(t, dir)
	const js = "Content-Type: application/json\n"
	status, _ := server.ask("PUT", "/v1/stream/s", js+"Stream-TTL: 1000", "")
	is.Equal(status, 201)
	by := func(seq int) string {
		return fmt.Sprintf("%sProducer-Id: p\nProducer-Epoch: 0\nProducer-Seq: %d", js, seq)
	}
	line := `"` + strings.Repeat("x", 1000) + `",`
	for seq := range 5 { // 35 MB
		status, _ = server.ask("POST", "/v1/stream/s", by(seq), "["+strings.Repeat(line, 6999)+`"end"]`)
		is.Equal(status, 200)
	}
	is.NoErr(server.end(syscall.SIGTERM))

	server = start(t, dir)
	before := server.hasRead(is)
	status, _ = server.ask("POST", "/v1/stream/s", by(4), "1")
	is.Equal(status, 204)
	status, _ = server.ask("POST", "/v1/stream/s", by(5), "1")
	is.Equal(status, 200)
	status, body := server.ask("GET", "/v1/stream/s?offset=0000000000035000", "", "")
	is.Equal(status, 200)
	is.Equal(body, "[1]")
	status, _ = server.ask("PUT", "/v1/stream/f", "Stream-Forked-From: /v1/stream/s", "")
	is.Equal(status, 201)
	is.True(server.hasRead(is)-before < 1_000_000)
	is.NoErr(server.end(syscall.SIGTERM))
}

// hasRead is how many bytes the server has read until now.
func (s *server) hasRead(is *is.I) (n int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", s.cmd.Process.Pid))
	is.NoErr(err)
	_, err = fmt.Sscanf(string(b), "rchar: %d", &n)
	is.NoErr(err)
	return n
}
