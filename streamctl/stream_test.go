package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// A follower is a command that goes on printing.
type follower struct {
	t      *testing.T
	c      *exec.Cmd
	in     io.Writer // goes on, too
	out    *bufio.Reader
	stderr bytes.Buffer
}

func (p place) follow(line string, args ...any) *follower {
	p.t.Helper()
	f := &follower{t: p.t, c: p.command("exec " + fmt.Sprintf(line, args...))}
	f.c.Stderr = &f.stderr
	in, errIn := f.c.StdinPipe()
	out, err := f.c.StdoutPipe()
	if err = cmp.Or(err, errIn); err == nil {
		err = f.c.Start()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	f.in, f.out = in, bufio.NewReader(out)
	p.t.Cleanup(func() { f.c.Process.Kill(); f.c.Wait() })
	return f
}

// texts returns the texts of the next n events that it prints.
func (f *follower) texts(n int) []string {
	f.t.Helper()
	var lines strings.Builder
	for range n {
		line, err := f.out.ReadString('\n')
		if err != nil {
			f.c.Wait()
			f.t.Fatalf("%v after %q: %s", err, lines.String(), f.stderr.String())
		}
		lines.WriteString(line)
	}
	return texts(lines.String())
}

// TestSubscriberSurvivesRestarts: with no gap and no repeat, whatever port the next server has.
func TestSubscriberSurvivesRestarts(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	subscriber := p.follow("streamctl stream subscribe -n x -o -1")
	var want []string
	for i := range 4 {
		for j := range 3 {
			text := fmt.Sprint(i, ".", j)
			p.ok("streamctl stream append -n x -m %s", text)
			want = append(want, text)
		}
		if i%2 == 0 {
			p.ok("streamctl server restart --port 0")
		} else {
			p.ok("kill -9 $(cat .iterate/daemon.pid)")
			p.run("streamctl stream append -n y -m 'starts the server'")
		}
	}
	is.Equal(subscriber.texts(len(want)), want)
	p.ok("streamctl stream delete -n x")
	is.Equal(exitCodeOf(subscriber.c.Wait()), 1) // the stream is gone, and it can tell
	is.True(strings.Contains(subscriber.stderr.String(), `"x"`))
}

func exitCodeOf(err error) int {
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode()
	} else if err != nil {
		return -1
	}
	return 0
}

// TestSubscriberStartsAServerOnce: where none runs it starts one; when that is stopped it waits for the next.
func TestSubscriberStartsAServerOnce(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	subscriber := p.follow("streamctl stream subscribe -n x -o -1")
	p.ok("until streamctl server status > /dev/null; do :; done")
	p.ok("streamctl stream append -n x -m a")
	is.Equal(subscriber.texts(1), []string{"a"})
	p.ok("streamctl server stop")
	is.Equal(p.run("streamctl server status").code, 3) // and stays stopped
	p.start()
	p.ok("streamctl stream append -n x -m b")
	is.Equal(subscriber.texts(1), []string{"b"})
}

// TestCtrlCEndsASubscriber as it ends tail -f: by the signal, without a word.
func TestCtrlCEndsASubscriber(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	subscriber := p.follow("streamctl stream subscribe -n x -o -1")
	p.ok("streamctl stream append -n x -m a")
	subscriber.texts(1)
	is.NoErr(subscriber.c.Process.Signal(syscall.SIGINT))
	err := subscriber.c.Wait()
	is.Equal(err.(*exec.ExitError).Sys().(syscall.WaitStatus).Signal(), syscall.SIGINT)
	is.Equal(subscriber.stderr.String(), "")
}

// TestClosedPipeEndsAWaitingSubscriber: not only the next event tells it that nobody reads.
func TestClosedPipeEndsAWaitingSubscriber(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	p.ok("streamctl stream append -n x -m a")
	is.Equal(texts(p.ok("streamctl stream subscribe -n x -o -1 | head -1")), []string{"a"})
	is.Equal(p.ok("streamctl stream subscribe --all | head -c 0"), "")
	is.Equal(p.ok("streamctl stream wait -n none | head -c 0"), "")
	c := &call{command: &commands[0]}
	is.Equal(c.explain("x", fmt.Errorf("read: %w", errReaderGone)), errReaderGone) // in whatever it was met
}

// TestLinesAreAppendedAsTheyCome: an input that pauses has nothing kept back, and whoever follows the stream has its
// lines.
func TestLinesAreAppendedAsTheyCome(t *testing.T) {
	t.Parallel()
	for flag, line := range map[string]string{"": `{"text":"line %d"}`, "--text": "line %d"} {
		t.Run(flag, func(t *testing.T) {
			is := is.New(t)
			p := newPlace(t)
			p.start()
			subscriber := p.follow("streamctl stream subscribe -n x -o -1")
			appender := p.follow("streamctl stream append -n x %s", flag)
			seen := func(n int) {
				want := []string{fmt.Sprint("line ", n)}
				is.Equal(appender.texts(1), want)
				is.Equal(subscriber.texts(1), want)
			}
			for i := range 3 {
				whole, halved := fmt.Sprintf(line, 2*i), fmt.Sprintf(line, 2*i+1)
				fmt.Fprintf(appender.in, "%s\n%s", whole, halved[:3])
				seen(2 * i)
				fmt.Fprintf(appender.in, "%s\n", halved[3:])
				seen(2*i + 1)
			}
		})
	}
}

// TestCtrlCTellsWhatWasAppended of an input that goes on, and ends the append by the signal, so that the shell's loop
// ends, too.
func TestCtrlCTellsWhatWasAppended(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(s.String(), func(t *testing.T) {
			is := is.New(t)
			p := newPlace(t)
			p.start()
			appender := p.follow("streamctl stream append -n x")
			fmt.Fprint(appender.in, "1\n\n2\n")
			for range 2 {
				_, err := appender.out.ReadString('\n')
				is.NoErr(err)
			}
			is.NoErr(appender.c.Process.Signal(s))
			err := appender.c.Wait()
			is.Equal(err.(*exec.ExitError).Sys().(syscall.WaitStatus).Signal(), s)
			is.Equal(appender.stderr.String(), "streamctl: append \"x\": interrupted; events appended before it: 2\n"+
				"Try: tail -n +4 FILE | streamctl stream append -n x\n")
		})
	}
}

// TestCtrlCTellsWhatIsOpen: the server has taken lines and does not answer.
func TestCtrlCTellsWhatIsOpen(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	asked := make(chan bool, 1)
	mute := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		asked <- true
		<-r.Context().Done()
	}))
	defer mute.Close()
	appender := p.follow("streamctl stream append -n x -s %s", mute.URL)
	fmt.Fprint(appender.in, "1\n")
	<-asked
	is.NoErr(appender.c.Process.Signal(syscall.SIGINT))
	is.True(appender.c.Wait() != nil)
	is.Equal(appender.stderr.String(), "streamctl: append \"x\": interrupted, which leaves open whether the event "+
		"was appended; "+
		"nothing else was appended\nTry: streamctl stream get -n x --last 1, which tells\n")
}

// TestWaitPassesOverWhatThereIs and takes the first event that comes with the type.
func TestWaitPassesOverWhatThereIs(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	p.ok("seq 2000 | streamctl stream append -n x > /dev/null")
	waiter := p.follow("streamctl stream wait -n x --type done --timeout 1m")
	p.ok("streamctl stream append -n x -m other")
	p.ok(`streamctl stream append -n x -e '{"type":"done","text":"first"}'`)
	p.ok(`streamctl stream append -n x -e '{"type":"done","text":"second"}'`)
	is.Equal(waiter.texts(1), []string{"first"})
	is.NoErr(waiter.c.Wait())
	is.Equal(waiter.stderr.String(), "")
}

// TestPersonsAreToldWhoseStreamIsNotThere: at a terminal a wrong name is likelier than a stream that is to come.
func TestPersonsAreToldWhoseStreamIsNotThere(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	subscriber := p.follow("script -qec 'streamctl stream subscribe -n typo' /dev/null")
	line, err := subscriber.out.ReadString('\n')
	is.NoErr(err)
	is.Equal(line, "streamctl: subscribe \"typo\": there is no such stream yet\r\n")
}

// TestTimesAreTheServers: a list's times keep the digits that the server gave them.
func TestTimesAreTheServers(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	const details = `{"name":"a","nextOffset":"0000000000000001","size":9,"createdAt":"2026-01-02T03:04:05.500Z","updatedAt":"2026-01-02T03:04:06.000Z"}`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"streams":[%s]}`, details)
	}))
	defer server.Close()
	is.Equal(newPlace(t).ok("streamctl stream list --details --json -s %s", server.URL), details+"\n")
}

// TestSubscriberConnectsAgainWhereThatMayHelp and else ends, with a sentence.
func TestSubscriberConnectsAgainWhereThatMayHelp(t *testing.T) {
	t.Parallel()
	const event = `{"offset":"0000000000000000","eventStreamId":"x","data":{"text":"after"},"createdAt":"2026-01-02T03:04:05.500Z"}`
	for status, ends := range map[int]bool{
		200: true, // of a server that is none of ours
		301: true, 400: true, 401: true, 403: true, 404: true, 405: true, 410: true, 421: true, 507: true,
		408: false, 429: false, 500: false, 502: false, 503: false, 504: false,
	} {
		for _, what := range []string{"-n x", "--all"} {
			t.Run(fmt.Sprint(status, " ", what), func(t *testing.T) {
				t.Parallel()
				is := is.New(t)
				var asked atomic.Int32
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					n := asked.Add(1)
					if n == 2 {
						w.Header().Set("Content-Type", "text/html")
						w.WriteHeader(status)
						fmt.Fprintf(w, "<html>\n<body>%s</body>\n</html>", strings.Repeat("no ", 1000))
						return
					}
					w.Header().Set("Content-Type", "text/event-stream")
					fmt.Fprint(w, "retry: 1\nid: -1\n\n")
					if n > 2 {
						fmt.Fprintf(w, "id: 0\ndata: %s\n\n", event)
						w.(http.Flusher).Flush()
						<-r.Context().Done()
					}
				}))
				defer server.CloseClientConnections()
				subscriber := newPlace(t).follow("streamctl stream subscribe %s -s %s", what, server.URL)
				if !ends {
					is.Equal(subscriber.texts(1), []string{"after"})
					return
				}
				is.Equal(exitCodeOf(subscriber.c.Wait()), 1)
				lines := strings.Split(strings.TrimSpace(subscriber.stderr.String()), "\n")
				is.True(len(lines) <= 3 && len(lines[0]) < 200 && !strings.Contains(lines[0], "<")) // not a page
			})
		}
	}
}

// TestFirstConnectionIsNotTriedAgain: who subscribes where there is nothing to subscribe to hears of it.
func TestFirstConnectionIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	for _, answer := range []http.HandlerFunc{
		func(w http.ResponseWriter, r *http.Request) { http.Error(w, `{"error":"not now"}`, 503) },
		func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		server := httptest.NewServer(answer)
		defer server.Close()
		for _, what := range []string{"-n x", "--all"} {
			r := p.run("streamctl stream subscribe %s -s %s", what, server.URL)
			is.Equal(r.code, 1)
			is.Equal(strings.Count(r.stderr, "\n"), 1)
			is.True(strings.Contains(r.stderr, "not now") || strings.Contains(r.stderr, "no answer from "+server.URL+": it "))
		}
	}
}

// TestNoCommandWaitsForEver for a server that says nothing.
func TestNoCommandWaitsForEver(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	for flag, value := range map[string]string{"server": "http://127.0.0.1:1", "dir": p.dir + "/.iterate"} {
		c := &call{command: &commands[0], given: map[string][]string{flag: {value}}, stderr: io.Discard,
			getenv: func(string) string { return "" }}
		client, err := c.connect(t.Context())
		is.NoErr(err)
		is.Equal(client.Patience, 30*time.Second)
	}
}

// TestDamageIsTold by every command that meets it, with its place and what to do, and none tries again.
func TestDamageIsTold(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	p.ok("seq 5 | streamctl stream append -n x > before")
	p.ok("streamctl server stop; sed -i '3s/\"data\":3/\"data\":4/; 5s/\"data\":5/\"data\":6/' .iterate/streams/x.json")
	p.start()
	const told = `"x": streams/x.json is corrupt at byte `
	before := p.ok("head -2 before")
	for command, want := range map[string]result{
		"get -n x":                   {before, told, 1},
		"get -n x -o 2":              {"", told, 1},
		"get -n x --type none":       {"", told, 1},
		"subscribe -n x -o -1":       {before, told, 1},
		"subscribe -n x -o 2":        {"", told, 1},
		"wait -n x --type none":      {"", told, 1},
		"wait -n x -o 2 --timeout 0": {"", told, 1},
		"wait -n x":                  {p.ok("head -1 before"), "", 0},
		"get -n x -l 2":              {before, "", 0},
	} {
		r := p.run("streamctl stream %s", command)
		is.Equal(r.stdout, want.stdout)
		is.Equal(r.code, want.code)
		is.True(strings.Contains(r.stderr, want.stderr))
	}
	for _, command := range []string{"append -n x -m a", "append -n x -m a --key k", "append -n x < before", "close -n x",
		"trim -n x --keep 1"} {
		r := p.run("streamctl stream %s", command)
		is.Equal(r.code, 1)
		is.True(strings.Contains(r.stderr, "streams/x.json is corrupt at byte "))
		is.True(!strings.Contains(r.stderr, "trying again"))
	}
}

// TestBrokenReadTellsHowToGoOn: what was printed stands, and what comes behind it is named.
func TestBrokenReadTellsHowToGoOn(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	const event = `{"offset":"0000000000000006","eventStreamId":"x","data":1,"createdAt":"2026-01-02T03:04:05.500Z"}` + "\n"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		fmt.Fprint(w, event)
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	defer server.Close()
	r := newPlace(t).run("streamctl stream get -n x -o 6 -s %s", server.URL)
	is.Equal(r, result{event, "streamctl: read \"x\": unexpected EOF\nTry: the same from --offset 7 on, which is " +
		"behind what was printed\n", 1})
}

// TestSomeWebServerIsKnown for what it is, by every command, and its pages are not printed.
func TestSomeWebServerIsKnown(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.ok("echo 1 > lines")
	for _, status := range []int{200, 201, 204, 404, 500, 502} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(status)
			fmt.Fprint(w, "<html>\n<body>hello\x1b[31m</body>\n</html>\n")
		}))
		t.Cleanup(server.Close)
		for _, command := range []string{"get -n x", "get -n x --last 1", "list", "list --details", "delete -n x",
			"append -n x -m a", "append -n x < lines", "close -n x", "trim -n x --keep 1",
			"wait -n x --timeout 0", "wait -n x -o now", "subscribe -n x", "subscribe --all"} {
			if status == 204 && strings.HasPrefix(command, "delete") || status >= 500 &&
				(strings.Contains(command, "--all") || strings.Contains(command, "lines") || strings.Contains(command, "close")) {
				continue // it cannot be known, or tries again
			}
			t.Run(fmt.Sprint(status, " ", command), func(t *testing.T) {
				t.Parallel()
				is := is.New(t)
				r := p.run("streamctl stream %s -s %s", command, server.URL)
				is.Equal(r.code, 1)
				is.Equal(r.stdout, "")
				first, rest, _ := strings.Cut(r.stderr, "\n")
				is.True(strings.Contains(first, "not that of a durable-streams server"))
				is.True(rest == "" || strings.HasPrefix(rest, "Try: ") && strings.Count(rest, "\n") == 1)
			})
		}
	}
}

// cutter is a server's double that takes every second append to the server and cuts the connection instead of
// answering.
func cutter(t *testing.T, to string) string {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	var appends atomic.Int32
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(r *http.Response) error {
		if r.Request.Method == "POST" && appends.Add(1)%2 == 1 {
			panic(http.ErrAbortHandler)
		}
		return nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: proxy}
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return "http://" + l.Addr().String()
}

// TestLostAnswersDoubleNoLine cuts the connection behind every second commit.
func TestLostAnswersDoubleNoLine(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	through := cutter(t, fmt.Sprintf("http://127.0.0.1:%d", p.port()))
	p.ok("seq 2500 | streamctl stream append -n x -s %s > appended", through)
	is.Equal(p.ok("streamctl stream get -n x | cmp - appended && sed 's/.*\"data\"://; s/,.*//' appended | cmp - "+
		"/dev/stdin <<E\n$(seq 2500)\nE"), "")
	p.ok("streamctl stream append -n y -m a --key k -s %s", through)
	p.ok("streamctl stream append -n y -m b --key l -s %s", through)
	is.Equal(p.texts("y"), []string{"a", "b"})
}

// TestAppendGoesOnOverARestart: lines that come while there is no server wait for the next one.
func TestAppendGoesOnOverARestart(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"folder", "URL"} {
		t.Run(by, func(t *testing.T) {
			is := is.New(t)
			p := newPlace(t)
			p.start()
			port := p.port()
			r, w := io.Pipe()
			c := p.command("exec streamctl stream append -n x")
			if by == "URL" {
				c.Env = append(c.Env, fmt.Sprintf("DURABLE_STREAMS_URL=http://127.0.0.1:%d", port))
			}
			c.Stdin = r
			out, err := c.StdoutPipe()
			is.NoErr(err)
			is.NoErr(c.Start())
			answers := bufio.NewReader(out)
			var want []string
			for i := range 3 {
				fmt.Fprintf(w, `{"text":"%d"}`+"\n", i)
				_, err := answers.ReadString('\n')
				is.NoErr(err)
				p.ok("streamctl server stop")
				fmt.Fprintf(w, `{"text":"%d, without a server"}`+"\n", i)
				p.ok("streamctl server start --port %d", port)
				_, err = answers.ReadString('\n')
				is.NoErr(err)
				want = append(want, fmt.Sprint(i), fmt.Sprint(i, ", without a server"))
			}
			w.Close()
			is.NoErr(c.Wait())
			is.Equal(p.texts("x"), want)
		})
	}
}

// failing is a stream whose appends fail a number of times.
type failing struct {
	streamlib.Stream
	times int
	err   error
	tries int
}

func (f *failing) Append(context.Context, streamlib.Batch) (streamlib.Receipt, error) {
	if f.tries++; f.tries > f.times {
		return streamlib.Receipt{}, nil
	}
	return streamlib.Receipt{}, f.err
}

// TestAppendIsTriedAgain where that is safe and may help, and not for ever.
func TestAppendIsTriedAgain(t *testing.T) {
	nobody := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for _, c := range []struct {
		name     string
		err      error
		key      string
		answered bool
		times    int
		tries    int // -1 is until its time is over
	}{
		{"open outcome", io.ErrUnexpectedEOF, "k", false, 3, 4},
		{"open outcome without a key", io.ErrUnexpectedEOF, "", false, 3, 1},
		{"500", &streamhttp.Error{Status: 500}, "k", false, 3, 4},
		{"not now", streamlib.ErrUnavailable, "k", false, 3, 4},
		{"nobody there", nobody, "k", false, 3, 1},
		{"nobody there any more", nobody, "k", true, 3, 4},
		{"refused", streamlib.ErrInvalid, "k", true, 3, 1},
		{"veto", &streamlib.HookError{}, "k", true, 3, 1},
		{"conflict", &streamlib.ConflictError{}, "k", true, 3, 1},
		{"closed", &streamlib.ClosedError{}, "k", true, 3, 1},
		{"key reused", &streamhttp.Error{Status: 422}, "k", true, 3, 1},
		{"full", streamlib.ErrFull, "k", true, 3, 1},
		{"forbidden", &streamhttp.Error{Status: 403}, "k", true, 3, 1},
		{"open for ever", io.ErrUnexpectedEOF, "k", false, 1 << 20, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				began := time.Now()
				var stderr bytes.Buffer
				f := &failing{times: c.times, err: c.err}
				_, err := (&call{stderr: &stderr}).append(t.Context(), f, streamlib.Batch{Data: streamlib.JSON("1"), Key: c.key},
					c.answered)
				if c.tries < 0 {
					is.Equal(err, openError{c.err, 1})
					is.True(time.Since(began) >= retryTime)
					is.Equal(strings.Count(stderr.String(), "trying again"), 1) // told once
					return
				}
				is.Equal(f.tries, c.tries)
				is.Equal(err == nil, c.tries > c.times)
				is.Equal(stderr.String(), "")
			})
		})
	}
}

// TestRefusedLineIsNamed finds the one line among many that the server does not take.
func TestRefusedLineIsNamed(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.ok("streamctl server start --port 0 --max-event 10")
	r := p.run(`{ seq 600; echo '"far too long"'; seq 600; } | streamctl stream append -n x`)
	is.Equal(r.code, 1)
	is.True(strings.Contains(r.stderr, "line 601: ") && strings.Contains(r.stderr, "appended before it: 600\n"))
	is.Equal(strings.Count(r.stdout, "\n"), 600)
	is.Equal(p.ok("streamctl stream get -n x"), r.stdout)
}

// TestEveryConnectionIsProven: a client goes to the folder's next server, and never to another's that took its port.
func TestEveryConnectionIsProven(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p, other := newPlace(t), newPlace(t)
	p.start()
	f := folder{dir: p.dir + "/.iterate", stderr: io.Discard}
	client, err := f.client(context.Background(), false)
	is.NoErr(err)
	_, err = client.List(context.Background(), streamhttp.ListOptions{})
	is.NoErr(err)
	had := p.port()
	p.ok("kill -9 $(cat .iterate/daemon.pid)") // so that its files stay
	other.ok("streamctl server start --port %d", had)
	client.HTTP.CloseIdleConnections()
	_, err = client.List(context.Background(), streamhttp.ListOptions{})
	is.True(err != nil && strings.Contains(err.Error(), errOther.Error()))
	p.start()
	_, err = client.List(context.Background(), streamhttp.ListOptions{})
	is.NoErr(err)
}

// TestEveryFlagIsKnown: what a command takes is in the table, and each flag is taken by one.
func TestEveryFlagIsKnown(t *testing.T) {
	is := is.New(t)
	taken := []string{"help", "version", "port-fallback"}
	for _, c := range commands {
		for _, name := range strings.Fields(c.flags) {
			is.True(slices.ContainsFunc(flags, func(f daemon.Flag) bool { return f.Name == name })) // in the table
			taken = append(taken, name)
			i := slices.IndexFunc(flags, func(f daemon.Flag) bool { return f.Name == name })
			said := strings.Contains(flags[i].Help, "may be repeated") ||
				strings.Contains(c.manual, "--"+name+", which may be repeated")
			is.Equal(slices.Contains(strings.Fields(c.many), name), said)
		}
	}
	for _, f := range flags {
		is.True(slices.Contains(taken, f.Name)) // by a command
	}
}

func TestFlagForms(t *testing.T) {
	is := is.New(t)
	for _, args := range [][]string{
		{"stream", "get", "-n", "-x", "-o", "-1", "--details"},
		{"-n=-x", "stream", "--details=true", "get", "-offset=-1"},
		{"--name", "-x", "--offset", "-1", "-details", "--json", "--json=false", "--", "stream", "get"},
	} {
		words, given, _, err := parseFlags(args)
		is.NoErr(err)
		is.Equal(words, []string{"stream", "get"})
		is.Equal(given, map[string][]string{"name": {"-x"}, "offset": {"-1"}, "details": {"true"}})
	}
}
