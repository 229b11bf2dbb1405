// Package bench puts load on a server and measures what it does with it: how fast it acknowledges events, how soon
// subscribers have them, and whether they have all of them, once and in order. "streamctl bench" is this package with
// flags; internal/floors compares a server by it with what the machine allows.
package bench

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Each event's data begins with when it was sent, in microseconds since 1970: a number that every JSON reader holds,
	// of one length until 2286.
	stampMark = `{"t":`
	stampLen  = 16

	// MinSize is the least size of an event's data.
	MinSize = len(stampMark) + stampLen + len(`,"pad":""}`)
)

// A Dial connects to a server, in its own way.
type Dial func(context.Context) (net.Conn, error)

// A Load is what Run puts on a server.
type Load struct {
	URL         string        // of the server, such as http://127.0.0.1:3000
	Token       string        // sent as a bearer token, unless it is empty
	Dial        Dial          // nil goes where the URL says
	Conns       int           // connections to append over, each with one request at a time; 0 is 1
	Streams     int           // to append to, shared out among the connections; 0 is 1
	Size        int           // of an event's data in bytes, at least MinSize
	Subscribers int           // to the streams, in turn
	Batch       int           // events a request, as NDJSON where they are several; 0 is 1
	Rate        int           // events a second over all connections; 0 is as fast as the answers come
	Warmup      time.Duration // at the beginning, not counted
	Duration    time.Duration // after it; 0 is until Events are sent
	Events      int           // how many to send, rounded up to a whole batch; 0 is no limit
	Keep        bool          // the streams, when done
	Protocol    bool          // append over the Durable Streams protocol, each connection as a producer
	Patience    time.Duration // for an answer, or anything of what subscribers lack, when the time is over; 0 is 10 s

	Progress func(Progress) // where not nil, called twice a second
	Settled  func()         // where not nil, called when subscribers have what they get and are still connected
}

// Progress is how far a run is, in the time that counts.
type Progress struct {
	Elapsed                     time.Duration
	Appended, Failed, Delivered int64
}

// A Result is what came out. Times of deliveries are from the start of an event's request to the read at a subscriber.
type Result struct {
	Streams      []string // their names
	Appended     int64    // events acknowledged
	AppendRate   float64  // of them a second
	Append       Summary  // of the requests that were
	Delivered    int64    // events, over all subscribers
	DeliveryRate float64
	Delivery     Summary
	Failed       int64 // requests, subscriptions that broke among them
	Err          error // the first of these failures
	Missing      int64 // acknowledged events that subscribers did not get
	Duplicate    int64
	OutOfOrder   int64
}

// A run is a load and its state. Times are durations from base.
type run struct {
	Load
	at    *target
	names []string
	base  time.Time
	tails []atomic.Int64 // by stream: behind the last acknowledged event

	sent, appended, failed, delivered atomic.Int64
	lastAppend, lastDelivery          atomic.Int64
	appends, deliveries               Histogram
	failure                           atomic.Pointer[error]
}

// Run puts l on its server until it is over or ctx is done, deletes the streams, and returns what it saw. The error
// is for a load that could not begin, or streams that could not be deleted.
func Run(ctx context.Context, l Load) (result Result, err error) {
	l.Conns, l.Streams, l.Batch = max(l.Conns, 1), max(l.Streams, 1), max(l.Batch, 1)
	r := &run{Load: l, tails: make([]atomic.Int64, l.Streams)}
	if r.at, err = newTarget(l.URL, l.Token, l.Batch > 1, l.Protocol); err != nil {
		return result, err
	}
	r.at.dialed = l.Dial
	r.Patience = cmp.Or(l.Patience, 10*time.Second)
	prefix := "bench-" + strings.ToLower(rand.Text()[:8]) + "-"
	for i := range l.Streams {
		r.names = append(r.names, prefix+strconv.Itoa(i))
	}

	// Connections outlive ctx by what it takes to see the end of what is under way.
	live, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	answers, giveUp := context.WithCancel(live)
	defer giveUp()
	if l.Protocol { // first, for a connection that is not used meanwhile would be closed
		if err := r.create(answers); err != nil {
			return result, err
		}
	}
	conns := make([]*conn, l.Conns)
	for i := range conns {
		if conns[i], err = r.at.dial(answers); err != nil {
			return result, err
		}
	}
	if !l.Keep {
		defer func() { err = cmp.Or(err, r.clean(ctx)) }()
	}
	subscriptions, err := r.subscribe(ctx, live)
	if err != nil {
		return result, err
	}

	sending, stop := context.WithCancel(ctx)
	defer stop()
	if l.Duration > 0 {
		sending, stop = context.WithTimeout(ctx, l.Warmup+l.Duration)
		defer stop()
	}
	defer context.AfterFunc(sending, func() { time.AfterFunc(r.Patience, giveUp) })()
	r.base = time.Now()
	var readers, appenders, reporter sync.WaitGroup
	for _, s := range subscriptions {
		s.event = r.deliver
		readers.Go(func() {
			if err := s.read(1 << 62); live.Err() == nil {
				r.fail(fmt.Errorf("subscription: %w", err))
			}
		})
	}
	for i, c := range conns {
		appenders.Go(func() { r.append(sending, answers, i, c) })
	}
	done := make(chan struct{})
	reporter.Go(func() { r.report(done) })
	appenders.Wait()
	r.settle(ctx, subscriptions)
	close(done)
	reporter.Wait()
	if l.Settled != nil {
		l.Settled()
	}
	hangUp()
	readers.Wait()
	return r.result(subscriptions), nil
}

func (r *run) now() time.Duration { return time.Since(r.base) }

func (r *run) fail(err error) {
	r.failed.Add(1)
	r.failure.CompareAndSwap(nil, &err)
}

// subscribe returns the subscriptions, each answered by the server.
func (r *run) subscribe(ctx, live context.Context) ([]*subscription, error) {
	subscriptions, errs := make([]*subscription, r.Subscribers), make([]error, r.Subscribers)
	turns := make(chan struct{}, 64) // fewer at once than a server's backlog
	var all sync.WaitGroup
	for i := range subscriptions {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			if errs[i] = ctx.Err(); errs[i] == nil {
				subscriptions[i], errs[i] = r.at.subscribe(live, r.names[i%r.Streams], 4<<10)
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("subscribe: %w", err)
		}
	}
	return subscriptions, nil
}

// append sends requests over c, and when that breaks over another, until sending is done or all events are sent. The
// first one is sent whenever this comes to run: a short load on a busy machine has an outcome too.
func (r *run) append(sending, answers context.Context, i int, c *conn) {
	event := stampMark + strings.Repeat("0", stampLen) + `,"pad":"` + strings.Repeat("x", r.Size-MinSize) + "\"}\n"
	events := bytes.Repeat([]byte(event), r.Batch)
	var request []byte
	numbers := map[int]int{} // by stream: of the next append as a producer
	for n := i; n == i || sending.Err() == nil; n += r.Conns {
		if r.Rate > 0 {
			due := time.Duration(float64(n*r.Batch) / float64(r.Rate) * float64(time.Second))
			if !sleep(sending, due-r.now()) {
				return
			}
		}
		if before := r.sent.Add(int64(r.Batch)) - int64(r.Batch); r.Events > 0 && before >= int64(r.Events) {
			return
		}
		sent := r.now()
		r.stamp(events, sent)
		stream := n % r.Streams
		request = r.at.request(request[:0], r.names[stream], events, i, numbers[stream])
		first, alive, err := c.exchange(r.at, request, r.Batch)
		if at := r.now(); err != nil {
			r.fail(fmt.Errorf("append: %w", err))
		} else {
			numbers[stream]++
			raise(&r.tails[stream], first+int64(r.Batch))
			if sent >= r.Warmup {
				r.appends.Add(at - sent)
				r.appended.Add(int64(r.Batch))
				raise(&r.lastAppend, int64(at))
			}
		}
		if !alive {
			c.Close()
			if c, err = r.at.dial(answers); err != nil {
				r.fail(err)
				return
			}
		}
	}
}

// create makes the streams.
func (r *run) create(ctx context.Context) error {
	c, err := r.at.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, name := range r.names {
		if err := r.at.create(c, name); err != nil {
			return fmt.Errorf("create %q: %w", name, err)
		}
	}
	return nil
}

// stamp writes when they are sent into events.
func (r *run) stamp(events []byte, sent time.Duration) {
	var digits [stampLen]byte
	strconv.AppendInt(digits[:0], r.base.UnixMicro()+sent.Microseconds(), 10)
	for at := len(stampMark); at < len(events); at += r.Size + 1 {
		copy(events[at:], digits[:])
	}
}

// deliver counts an event that a subscriber got.
func (r *run) deliver(line []byte) {
	const mark = `"data":` + stampMark
	at, i := r.now(), bytes.Index(line, []byte(mark))
	if i < 0 {
		return
	}
	sent := time.Duration(number(line[i+len(mark):])-r.base.UnixMicro()) * time.Microsecond
	if sent >= r.Warmup {
		r.deliveries.Add(at - sent)
		r.delivered.Add(1)
		raise(&r.lastDelivery, int64(at))
	}
}

// settle returns when the subscriptions have what was acknowledged, or when nothing comes for a while; when ctx is
// done, after that while at the latest.
func (r *run) settle(ctx context.Context, subscriptions []*subscription) {
	lacking := func() (n int64) {
		for i, s := range subscriptions {
			n += max(r.tails[i%r.Streams].Load()-s.next.Load(), 0)
		}
		return n
	}
	since, least := time.Now(), lacking()
	for n := least; n > 0 && time.Since(since) < r.Patience; n = lacking() {
		if n < least && ctx.Err() == nil {
			since, least = time.Now(), n
		}
		time.Sleep(time.Millisecond)
	}
}

// report tells the progress until done is closed.
func (r *run) report(done <-chan struct{}) {
	if r.Progress == nil {
		return
	}
	tick := time.NewTicker(time.Second / 2)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			r.Progress(Progress{max(r.now()-r.Warmup, 0), r.appended.Load(), r.failed.Load(), r.delivered.Load()})
		}
	}
}

func (r *run) result(subscriptions []*subscription) Result {
	perSecond := func(n, last *atomic.Int64) float64 {
		return float64(n.Load()) / max(time.Duration(last.Load())-r.Warmup, time.Microsecond).Seconds()
	}
	result := Result{
		Streams: r.names, Failed: r.failed.Load(),
		Appended: r.appended.Load(), AppendRate: perSecond(&r.appended, &r.lastAppend), Append: r.appends.Summary(),
		Delivered: r.delivered.Load(), DeliveryRate: perSecond(&r.delivered,
			&r.lastDelivery), Delivery: r.deliveries.Summary(),
	}
	if err := r.failure.Load(); err != nil {
		result.Err = *err
	}
	for i, s := range subscriptions {
		result.Missing += s.missing(r.tails[i%r.Streams].Load())
		result.Duplicate += s.duplicate
		result.OutOfOrder += s.late
	}
	return result
}

// clean deletes the streams, also when ctx is done.
func (r *run) clean(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	errs := make([]error, min(r.Conns, r.Streams))
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			var c *conn
			c, errs[i] = r.at.dial(ctx)
			for n := i; n < r.Streams && errs[i] == nil; n += len(errs) {
				if _, errs[i] = c.Write(append(r.at.head(nil, "DELETE", r.names[n]), "\r\n"...)); errs[i] == nil {
					_, _, errs[i] = answer(c.r, 204, nil)
				}
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("delete the streams %s* of this run: %w", strings.TrimRight(r.names[0], "0"), err)
	}
	return nil
}

// raise makes v at least n.
func raise(v *atomic.Int64, n int64) {
	for old := v.Load(); n > old && !v.CompareAndSwap(old, n); old = v.Load() {
	}
}

// sleep tells whether the time has passed and ctx was not done before.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
