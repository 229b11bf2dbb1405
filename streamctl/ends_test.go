//go:build unix

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/matryer/is"
)

// TestFollowersEndWithTheirStream: each has all events and then ends well; who follows all streams goes on.
func TestFollowersEndWithTheirStream(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	p.ok("streamctl stream append -n x -m first")
	all := p.follow("streamctl stream subscribe --all")
	begun := make(chan error, 1)
	go func() {
		_, err := all.out.Peek(1)
		begun <- err
	}()
	for len(begun) == 0 { // it begins when it does
		p.ok("streamctl stream append -n begun -m more")
	}
	is.NoErr(<-begun)
	whole, filtered := p.follow("streamctl stream subscribe -n x -o -1"), p.follow("streamctl stream subscribe -n x --type no")
	waiter := p.follow("streamctl stream wait -n x --type no --timeout 1h")
	is.Equal(whole.texts(1), []string{"first"})
	p.ok("streamctl stream append -n x -m last --close")
	is.Equal(whole.texts(1), []string{"last"})
	for _, f := range []*follower{whole, filtered} {
		is.NoErr(f.c.Wait())
		is.Equal(f.stderr.String(), "")
	}
	is.Equal(exitCodeOf(waiter.c.Wait()), 1)
	is.Equal(waiter.stderr.String(), "streamctl: wait \"x\": there was no such event, and the stream is closed\n")
	p.ok("streamctl stream append -n y -m other")
	for {
		if got := all.texts(1); got[0] == "other" {
			break
		}
	}
}

// TestSubscriberFindsTheEndOverARestart: the stream was closed while nobody could tell it.
func TestSubscriberFindsTheEndOverARestart(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	for ending, rest := range map[string][]string{"close": nil, "append -m last --close": {"last"}} {
		p.ok("streamctl stream append -n x -m first")
		subscriber := p.follow("streamctl stream subscribe -n x -o -1")
		is.Equal(subscriber.texts(1), []string{"first"})
		is.NoErr(subscriber.c.Process.Signal(syscall.SIGSTOP))
		p.ok("streamctl server restart --port 0")
		p.ok("streamctl stream %s -n x", ending)
		is.NoErr(subscriber.c.Process.Signal(syscall.SIGCONT))
		is.Equal(subscriber.texts(len(rest)), rest)
		is.NoErr(subscriber.c.Wait())
		p.ok("streamctl stream delete -n x")
	}
}

// TestLostAnswersCloseOnce: the connection is cut behind every second commit, and closing goes on to its answer.
func TestLostAnswersCloseOnce(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	through := cutter(t, fmt.Sprintf("http://127.0.0.1:%d", p.port()))
	p.ok("streamctl stream append -n x -m a")
	p.ok("streamctl stream close -n x --if-tail 1 -s %s", through)
	p.ok("seq 2500 | streamctl stream append -n lines --close -s %s > appended", through)
	is.Equal(p.ok("streamctl stream subscribe -n lines -o -1 | cmp - appended && wc -l < appended"), "2500\n")
	p.ok("streamctl stream append -n y -m b --close --key k -s %s", through)
	is.Equal(texts(p.ok("streamctl stream subscribe -n y -o -1")), []string{"b"})
}

// TestCtrlCTellsThatClosingIsOpen: the server was asked to close it and does not answer.
func TestCtrlCTellsThatClosingIsOpen(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	asked := make(chan bool, 1)
	mute := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		asked <- true
		<-r.Context().Done()
	}))
	defer mute.Close()
	appender := newPlace(t).follow("streamctl stream append -n x --close -s %s < /dev/null", mute.URL)
	<-asked
	is.NoErr(appender.c.Process.Signal(syscall.SIGINT))
	is.True(appender.c.Wait() != nil)
	is.Equal(appender.stderr.String(), "streamctl: append \"x\": interrupted, which leaves open whether the stream was "+
		"closed; nothing was appended\nTry: streamctl stream close -n x, which changes nothing where it is closed\n")
}

// TestCtrlCLeavesTheStreamOpen, and so does a line that cannot be appended, in whatever batch it is: what is missing
// can still come.
func TestCtrlCLeavesTheStreamOpen(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.ok("streamctl server start --port 0 --factory validated")
	appender := p.follow("streamctl stream append -n x --close")
	fmt.Fprint(appender.in, `{"_type":"t","text":"a"}`+"\n")
	_, err := appender.out.ReadString('\n')
	is.NoErr(err)
	is.NoErr(appender.c.Process.Signal(syscall.SIGINT))
	err = appender.c.Wait()
	is.Equal(err.(*exec.ExitError).Sys().(syscall.WaitStatus).Signal(), syscall.SIGINT)
	is.Equal(appender.stderr.String(), "streamctl: append \"x\": interrupted; events appended before it: 1, and the "+
		"stream was not closed\nTry: tail -n +2 FILE | streamctl stream append -n x --close\n")
	p.ok(`printf '{"_type":"t","text":"%%s"}\n' b c d > lines; sed 's/_type\(.*d\)/type\1/' lines > bad`)
	r := p.run("streamctl stream append -n x --close < bad")
	is.Equal(r.code, 1)
	is.True(strings.Contains(r.stderr, "line 3: hook validate-type"))
	is.True(strings.HasSuffix(r.stderr, "events appended before it: 2, and the stream was not closed\n"+
		"Try: tail -n +3 FILE | streamctl stream append -n x --close, with line 3 mended\n"))
	p.ok("tail -n +3 lines | streamctl stream append -n x --close")
	is.Equal(texts(p.ok("streamctl stream subscribe -n x -o -1")), []string{"a", "b", "c", "d"})
}

// TestSubscriberIsToldWhatItMissed: events that it had not read were dropped, and it does not go on behind them.
func TestSubscriberIsToldWhatItMissed(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	p.ok("streamctl stream append -n x -m first")
	subscriber := p.follow("streamctl stream subscribe -n x -o -1")
	is.Equal(subscriber.texts(1), []string{"first"})
	is.NoErr(subscriber.c.Process.Signal(syscall.SIGSTOP))
	p.ok("streamctl server restart --port 0")
	p.ok("seq 5 | streamctl stream append -n x")
	p.ok("streamctl stream trim -n x --keep 2")
	is.NoErr(subscriber.c.Process.Signal(syscall.SIGCONT))
	is.Equal(exitCodeOf(subscriber.c.Wait()), 1)
	is.Equal(subscriber.stderr.String(), "streamctl: read \"x\" from 1: the events before 4 were dropped\n"+
		"Try: streamctl stream subscribe -n x --offset 4, which is the first event that is kept\n")
}

// TestTrimKeepsTheLastEventsOfAnotherLife: what was counted is no longer there, and what is there was not counted.
func TestTrimKeepsTheLastEventsOfAnotherLife(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	p.ok("seq 5 | streamctl stream append -n x")
	target, err := url.Parse(fmt.Sprintf("http://127.0.0.1:%d", p.port()))
	is.NoErr(err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(r *http.Response) error {
		if r.Request.Method == "HEAD" {
			p.ok("streamctl stream delete -n x; seq 4 | streamctl stream append -n x")
		}
		return nil
	}
	between := httptest.NewServer(proxy)
	defer between.Close()
	is.Equal(p.run("streamctl stream trim -n x --keep 1 -s %s", between.URL), result{"",
		"streamctl: trim \"x\": the stream was deleted since, and begun again; tail is 4\n", 1})
	is.Equal(p.ok("streamctl stream get -n x | wc -l"), "4\n")
}
