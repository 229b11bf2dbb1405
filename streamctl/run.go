package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/daemon"
)

const (
	// heldBytes is how much of a command's output waits for the server. With more the command is held up.
	heldBytes = 8 << 20
	// heldTime is for how long it is held up, in all. After that, lines for which there is no room are left out.
	heldTime = 30 * time.Second
	// lastTime is how long the server may take, after the end of the command, for what it has not got yet.
	lastTime = 30 * time.Second
	// openTime is how long the output of a command is read after its end, where other processes hold it open.
	openTime = time.Second
)

type (
	anExit struct {
		Type   string `json:"type"`
		Code   int    `json:"code"`
		Signal string `json:"signal,omitempty"`
	}
	aLoss struct {
		Type  string `json:"type"`
		Lines int    `json:"lines"`
	}
)

// runCommand runs a command and appends what it prints. The command never waits for the server longer than heldTime.
func runCommand(ctx context.Context, c *call) error {
	name, err := c.streamName()
	if err == nil && len(c.args) == 0 {
		err = usageError{fmt.Errorf("%s: which command? It stands behind --", c.name), "streamctl " + c.name + " " + c.usage}
	}
	if err == nil { // what is typed wrong is said before anything runs
		_, _, err = c.target()
	}
	if err == nil {
		_, err = c.token()
	}
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 8)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		if !signal.Ignored(s) { // which the command inherits
			signal.Notify(signals, s)
		}
	}
	defer signal.Stop(signals)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // and this it should not: it is no longer ignored, but caught
	child, outputs, err := c.start()
	if err != nil {
		return err
	}

	ctx, cancel := context.WithCancelCause(ctx)
	r := newRecorder(c, name)
	var reading, all sync.WaitGroup
	for _, o := range outputs {
		reading.Go(func() { r.read(o) })
	}
	ended := make(chan struct{})
	all.Go(func() { passOn(ctx, signals, child.Process, ended, cancel) })
	all.Go(func() {
		child.Wait() // whose error is the exit status
		close(ended)
		time.AfterFunc(lastTime, func() { cancel(fmt.Errorf("the server did not take it in %v", lastTime)) })
		for _, o := range outputs {
			o.from.SetReadDeadline(time.Now().Add(openTime)) // a system that cannot do that reads to the end
		}
		reading.Wait()
		r.end()
	})
	r.record(ctx)
	exit := exitOf(child.ProcessState)
	r.recordExit(ctx, exit)
	cancel(nil)
	all.Wait()
	r.tellReplaced()
	return outcome(r.outcome(exit), cmp.Or(outputs[0].err, outputs[1].err))
}

// start starts the command, and returns what it prints.
func (c *call) start() (*exec.Cmd, []*outflow, error) {
	path, err := exec.LookPath(c.args[0])
	switch {
	case errors.Is(err, exec.ErrDot): // whose PATH has the working directory is obeyed, as by a shell
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return nil, nil, c.notRun(err, 127)
	case err != nil:
		return nil, nil, c.notRun(err, 126)
	}
	outputs := []*outflow{{name: "stdout", to: c.stdout.under}, {name: "stderr", to: c.stderr}}
	var ends []*os.File
	for _, o := range outputs {
		from, end, errPipe := os.Pipe()
		if errPipe != nil {
			err = errPipe
			break
		}
		defer end.Close()
		o.from, ends = from, append(ends, end)
	}
	child := &exec.Cmd{Path: path, Args: c.args, Stdin: c.stdin}
	if len(ends) == len(outputs) {
		child.Stdout, child.Stderr = ends[0], ends[1]
		err = child.Start()
	}
	if err != nil {
		for _, o := range outputs {
			o.from.Close()
		}
		return nil, nil, c.notRun(err, 126)
	}
	return child, outputs, nil
}

// notRun is the error of a command that could not be started, with the status that shells have for it.
func (c *call) notRun(err error, status int) error {
	if e, ok := errors.AsType[*exec.Error](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return statusError{fmt.Errorf("%s: %s: %w", c.name, daemon.Word(c.args[0]), err), status}
}

// passOn passes signals on to the command until that has ended, and then ends what is still to do. Those of the
// keyboard the terminal has sent to the command, too: twice, they would be taken for impatience.
func passOn(ctx context.Context, signals <-chan os.Signal, to *os.Process, ended <-chan struct{},
	cancel context.CancelCauseFunc) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-signals:
			select {
			case <-ended:
				cancel(interruption{s})
			default:
				if keyboard := s == os.Interrupt || s == syscall.SIGQUIT; !keyboard || !inForeground() {
					to.Signal(s) // which fails where it has ended
				}
			}
		}
	}
}

// exitOf is the event of a command's end.
func exitOf(state *os.ProcessState) anExit {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return anExit{"exit", 128 + int(status.Signal()), signalName(status.Signal())}
	}
	return anExit{"exit", state.ExitCode(), ""}
}

// An outflow is what a command prints on stdout or stderr. Reading it passes it on.
type outflow struct {
	name string
	from *os.File
	to   io.Writer
	err  error // why it is passed on no longer
	late bool  // the time to read is over
}

func (o *outflow) Read(b []byte) (int, error) {
	n, err := o.from.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) && !o.late { // what stands in the pipe is to be read all the same
		o.late = true
		o.from.SetReadDeadline(time.Now().Add(openTime / 10))
		n, err = o.from.Read(b)
	}
	if n > 0 && o.err == nil {
		if _, err := o.to.Write(b[:n]); isReaderGone(err) {
			o.err = errReaderGone
			o.from.Close() // so that the command finds out with its next write, as it would by itself
		} else if err != nil {
			o.err = fmt.Errorf("write to %s: %w", o.name, err)
		}
	}
	if err != nil {
		err = io.EOF
	}
	return n, err
}

// A recorder appends what a command prints.
type recorder struct {
	*appender
	queue   queue
	failed  error // why no more is appended
	missing int   // lines that are not in the stream

	mu     sync.Mutex // above what follows; held while lines wait for room, for others would wait as well
	number int        // of the last line
	held   time.Duration
	lost   int // lines for which there was no room, since the last that had some
}

func newRecorder(c *call, name string) *recorder {
	r := &recorder{
		appender: &appender{call: c, name: name, run: "streamctl-" + rand.Text(), quiet: true},
		queue:    queue{most: heldBytes},
	}
	r.tooLong = r.leaveOut
	r.patience = 1 << 62 // as long as a context lasts
	return r
}

// read reads the lines of an output.
func (r *recorder) read(o *outflow) {
	defer o.from.Close()
	within := false // a line that is too long
	for lines := range readBatches(o, func(data []byte, _ int) (line, error) {
		rest := within
		if within = !bytes.HasSuffix(data, []byte("\n")); rest {
			return line{}, nil
		}
		l, err := messageLine(data, 0, o.name)
		if err != nil {
			l = lossOf(1)
		}
		return l, nil
	}, false) {
		r.put(lines)
	}
}

// lossOf returns what stands in the place of lines.
func lossOf(lines int) line { return line{data: asEvent(aLoss{"lost", lines}), lost: lines} }

// put puts lines into the queue. Where there is no room it waits, as long as there is time for that.
func (r *recorder) put(lines []line) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost > 0 {
		lines = slices.Insert(lines, 0, lossOf(r.lost))
	}
	if len(lines) == 0 {
		return
	}
	for i := range lines {
		r.number++
		lines[i].number = r.number
	}
	if !r.queue.put(atOnce, lines...) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), heldTime-r.held)
		defer cancel()
		room := r.queue.put(ctx, lines...)
		if r.held += time.Since(began); !room {
			r.lost = 0
			for _, l := range lines {
				r.lost += max(1, l.lost)
			}
			return
		}
	}
	r.lost = 0
}

// atOnce is a context that has ended.
var atOnce = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// end says that no more lines come.
func (r *recorder) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost > 0 {
		r.number++
		l := lossOf(r.lost)
		l.number = r.number
		r.queue.put(context.Background(), l) // record takes until the end
	}
	r.queue.close(io.EOF)
}

// record appends the lines until there are no more. Where that fails it takes them all the same.
func (r *recorder) record(ctx context.Context) {
	for {
		lines, end := r.queue.take(context.Background()) // the last ones come with the end
		if len(lines) > 0 && r.failed == nil {
			r.fail(r.send(ctx, lines, false))
		}
		for _, l := range lines {
			if r.missing += l.lost; l.lost == 0 && l.number > r.last {
				r.missing++
			}
		}
		if end != nil {
			return
		}
	}
}

// recordExit appends the end of the command, which closes the stream.
func (r *recorder) recordExit(ctx context.Context, exit anExit) {
	if r.failed == nil {
		l := line{number: r.number + 1, data: asEvent(exit)}
		r.fail(r.sendWhole(ctx, []line{l}, streamlib.Batch{Key: r.run + "-exit", Close: true}))
	}
}

// leaveOut appends that a line is left out, for err.
func (r *recorder) leaveOut(ctx context.Context, l line, err error) error {
	if l.lost > 0 {
		return err
	}
	if r.missing++; r.missing == 1 {
		fmt.Fprintf(r.stderr, "streamctl: %s %q: a line is left out: %v\n", r.call.name, r.name, err)
	}
	loss := lossOf(1)
	loss.number = l.number
	return r.sendWhole(ctx, []line{loss}, streamlib.Batch{Key: fmt.Sprintf("%s-%d-lost", r.run, l.number)})
}

// fail tells why no more is appended, where that is so.
func (r *recorder) fail(err error) {
	if r.failed = err; err != nil {
		tell(r.stderr, r.explain(r.name, err))
	}
}

// outcome is nil where the command succeeded and the stream has all of it.
func (r *recorder) outcome(exit anExit) error {
	var err error
	switch {
	case r.failed != nil && r.missing == 0:
		err = fmt.Errorf("%s %q: the stream lacks the end of the command", r.call.name, r.name)
	case r.failed != nil: // some of them may be there: the outcome of the last append may be open
		err = fmt.Errorf("%s %q: the stream lacks the end of the command, and up to so many lines: %d", r.call.name, r.name,
			r.missing)
	case r.missing > 0:
		err = fmt.Errorf("%s %q: lines that were left out: %d", r.call.name, r.name, r.missing)
	case exit.Code != 0:
		return toldError{statusError{fmt.Errorf("the command ended with status %d", exit.Code), exit.Code}}
	default:
		return nil
	}
	return statusError{err, cmp.Or(exit.Code, 1)}
}
