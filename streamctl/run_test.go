package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// line returns the next line that a command prints.
func (f *follower) line() string {
	f.t.Helper()
	line, err := f.out.ReadString('\n')
	if err != nil {
		f.c.Wait()
		f.t.Fatalf("%v after %q: %s", err, line, f.stderr.String())
	}
	return strings.TrimRight(line, "\r\n")
}

// TestRunPassesThroughAtOnce what has no line's end yet, too, and appends each line while the command runs.
func TestRunPassesThroughAtOnce(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	subscriber := p.follow("streamctl stream subscribe -n x -o -1")
	command := p.follow(`streamctl run -n x -- sh -c 'printf "name? "; read name; echo "hello $name"; read end; exit 3'`)
	prompt := make([]byte, len("name? "))
	_, err := io.ReadFull(command.out, prompt)
	is.NoErr(err)
	is.Equal(string(prompt), "name? ")
	fmt.Fprintln(command.in, "you")
	is.Equal(command.line(), "hello you")
	is.Equal(subscriber.texts(1), []string{"name? hello you"})
	fmt.Fprintln(command.in)
	is.Equal(exitCodeOf(command.c.Wait()), 3)
	is.Equal(command.stderr.String(), "")
}

// TestSignalsAreTheCommands: it handles them or dies of them, and streamctl tells of both.
func TestSignalsAreTheCommands(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.start()
	for name, sent := range map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM,
		"HUP": syscall.SIGHUP, "QUIT": syscall.SIGQUIT} {
		for _, handled := range []bool{true, false} {
			t.Run(fmt.Sprint(name, " ", handled), func(t *testing.T) {
				t.Parallel()
				is := is.New(t)
				trap, code, last := "", 128+int(sent), fmt.Sprintf(`{"type":"exit","code":%d,"signal":"SIG%s"}`, 128+sent, name)
				if handled {
					trap, code, last = fmt.Sprintf(`trap "exit 5" %s;`, name), 5, `{"type":"exit","code":5}`
				}
				stream := fmt.Sprint(name, handled)
				// In a session of its own: in that of a terminal Ctrl-C is no signal to streamctl alone.
				command := p.follow(`setsid streamctl run -n %s -- sh -c '%s echo ready; while read word; do :; done'`, stream,
					trap)
				is.Equal(command.line(), "ready")
				is.NoErr(command.c.Process.Signal(sent))
				is.Equal(exitCodeOf(command.c.Wait()), code)
				is.Equal(command.stderr.String(), "")
				is.Equal(p.ok("streamctl stream get -n %s --data --last 1", stream), last+"\n")
			})
		}
	}
}

// countInterrupts is a command that tells how often it was interrupted before it was terminated.
func countInterrupts() {
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	fmt.Println("child of", os.Getppid())
	n := 0
	for <-signals == os.Interrupt {
		n++
		fmt.Println("interrupts:", n)
	}
	fmt.Println("all interrupts:", n)
}

// TestCtrlCReachesTheCommandOnce: the terminal sends it to both, so streamctl does not send it again.
func TestCtrlCReachesTheCommandOnce(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	command := p.follow("env COUNT_INTERRUPTS=yes script -qec 'streamctl run -n x -- %s' /dev/null", os.Args[0])
	behind := func(words string) string {
		for {
			if _, rest, ok := strings.Cut(command.line(), words); ok {
				return rest
			}
		}
	}
	streamctl := behind("child of ")
	fmt.Fprint(command.in, "\x03")
	is.Equal(behind("interrupts: "), "1")
	p.ok("for i in $(seq 20); do kill -INT %s; done; kill -TERM %s", streamctl, streamctl) // some would come before that
	is.Equal(behind("all interrupts: "), "1")
	if err := command.c.Wait(); err != nil { // the last of them may have been seen behind the command's end
		is.Equal(command.c.ProcessState.ExitCode(), 130)
	}
}

// TestRunGoesOnOverARestart: what is printed while there is no server waits for the next one, and the command does not
// wait for it.
func TestRunGoesOnOverARestart(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	port := p.port()
	command := p.follow("streamctl run -n x -- cat")
	say := func(text string) {
		fmt.Fprintln(command.in, text)
		is.Equal(command.line(), text)
	}
	say("a")
	p.ok("streamctl stream wait -n x --text")
	p.ok("streamctl server stop")
	say("b")
	say("c")
	p.ok("streamctl server start --port %d", port)
	is.NoErr(command.in.(io.Closer).Close())
	is.NoErr(command.c.Wait())
	is.Equal(p.texts("x"), []string{"a", "b", "c"})
	is.Equal(p.ok("streamctl stream get -n x --last 1 --data"), `{"type":"exit","code":0}`+"\n")
}

// TestOutputBehindTheEndIsRead, for a script's helper may print its last lines, but not for ever.
func TestOutputBehindTheEndIsRead(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	is.Equal(p.ok(`mkfifo f; streamctl run -n x -- sh -c '(cat f; echo late) & exec > f; echo last'`), "last\nlate\n")
	is.Equal(p.texts("x"), []string{"last", "late"})
	pid := p.ok(`streamctl run -n y -- sh -c 'sleep 1000 & echo $!'`)
	p.ok("kill %s", pid) // it still runs
	is.Equal(p.texts("y"), []string{strings.TrimSpace(pid)})
}

// recorderOf returns a recorder that appends to s.
func recorderOf(s streamlib.Stream) (*recorder, *bytes.Buffer) {
	var stderr bytes.Buffer
	r := newRecorder(&call{command: &command{name: "run"}, stderr: &stderr}, "x")
	r.stream = s
	return r, &stderr
}

// TestCommandIsHeldUpForSoLong while the server takes nothing, and what then has no room is counted.
func TestCommandIsHeldUpForSoLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		r, _ := recorderOf(nil)
		began, printed := time.Now(), 0
		put := func(n, size int) {
			r.put(numbered(1, n, size))
			printed += n
		}
		for range 100 {
			put(2, 100_000)
		}
		is.Equal(time.Since(began), heldTime)
		is.True(r.queue.size > heldBytes/2 && r.queue.size <= heldBytes)
		got, err := r.queue.take(t.Context()) // now there is some room, which is used, though not for all
		is.NoErr(err)
		put(1, 1)
		put(100, 100_000)
		r.end()
		is.Equal(time.Since(began), heldTime)
		for err == nil {
			var lines []line
			lines, err = r.queue.take(t.Context())
			got = append(got, lines...)
		}
		is.Equal(err, io.EOF)
		found, gaps := 0, 0
		for i, l := range got {
			is.Equal(l.number > 0 && (i == 0 || l.number > got[i-1].number), true) // each has a number of its own
			if l.lost > 0 {
				gaps++
				is.Equal(string(l.data), fmt.Sprintf(`{"type":"lost","lines":%d}`, l.lost))
			}
			found += max(1, l.lost)
		}
		is.Equal(found, printed)
		is.Equal(gaps, 2) // each where its lines would be
		is.True(got[len(got)-1].lost > 0)
	})
}

// mute is a stream that does not answer.
type mute struct{ streamlib.Stream }

func (mute) Append(ctx context.Context, _ streamlib.Batch) (streamlib.Receipt, error) {
	<-ctx.Done()
	return streamlib.Receipt{}, ctx.Err()
}

// TestRunEndsWhereTheServerDoesNotAnswer, tells how much is open, and fails where the command did not.
func TestRunEndsWhereTheServerDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		for code, want := range map[int]int{0: 1, 7: 7} {
			r, stderr := recorderOf(mute{})
			r.put(numbered(1, 5, 10))
			r.end()
			ctx, cancel := context.WithTimeoutCause(t.Context(), lastTime, errors.New("too late"))
			r.record(ctx)
			r.recordExit(ctx, anExit{Code: code})
			cancel()
			err := r.outcome(anExit{Code: code})
			is.Equal(exitCode(err), want)
			is.Equal(err.Error(), `run "x": the stream lacks the end of the command, and up to so many lines: 5`)
			is.Equal(strings.Count(stderr.String(), "too late"), 1)
		}
	})
}

// TestRunWaitsOutAnOutage for as long as its command runs.
func TestRunWaitsOutAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		began := time.Now()
		r, _ := recorderOf(&failing{times: 10_000, err: io.ErrUnexpectedEOF})
		r.put(numbered(1, 5, 10))
		r.end()
		r.record(t.Context())
		is.NoErr(r.failed)
		is.Equal(r.missing, 0)
		is.True(time.Since(began) > time.Hour)
	})
}

// TestSignalBehindTheEnd ends what is still to do for a command that has ended, as does the time for that.
func TestSignalBehindTheEnd(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"signal", "time"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			if by == "time" && testing.Short() {
				t.Skip("it takes 30 seconds")
			}
			is := is.New(t)
			p := newPlace(t)
			asked := make(chan bool, 10)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				asked <- true
				<-r.Context().Done()
			}))
			defer server.Close()
			command := p.follow("setsid streamctl run -n x -s %s -- sh -c 'exit 4'", server.URL)
			<-asked // for the end, as nothing was printed
			why := "the server did not take it in 30s"
			if by == "signal" {
				is.NoErr(command.c.Process.Signal(syscall.SIGTERM))
				why = "interrupted"
			}
			is.Equal(exitCodeOf(command.c.Wait()), 4)
			is.Equal(command.stderr.String(), `streamctl: run "x": `+why+", which leaves open whether the event was appended\n"+
				"Try: streamctl stream get -n x --last 1, which tells\n"+
				`streamctl: run "x": the stream lacks the end of the command`+"\n")
		})
	}
}

// TestRunLosesNoLineTwice: answers that are lost neither double a line nor leave one out.
func TestRunLosesNoLineTwice(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	through := cutter(t, fmt.Sprintf("http://127.0.0.1:%d", p.port()))
	p.ok("seq 2500 > lines; streamctl run -n x -s %s -- cat lines | cmp - lines", through)
	p.ok("streamctl stream get -n x --text --type message | cmp - lines")
	is.Equal(p.ok("streamctl stream get -n x --data --type exit"), `{"type":"exit","code":0}`+"\n")
}
