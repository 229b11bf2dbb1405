package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

// connect returns a client of the server that is meant. Only for a folder's a server is started; a command that reads
// starts none where the folder has no streams: its error is errNoStreams.
func (c *call) connect(ctx context.Context) (*streamhttp.Client, error) {
	url, f, err := c.target()
	if err != nil {
		return nil, err
	}
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	if url != "" {
		return &streamhttp.Client{URL: url, Token: token}, nil
	}
	client, err := f.client(ctx, c.reads)
	if client != nil {
		client.Token = token
	}
	return client, err
}

// target returns the URL of the server that is meant, or where that is "" the folder whose server it is. A flag beats
// the environment.
func (c *call) target() (server string, f folder, err error) {
	given := c.getenv("DURABLE_STREAMS_URL")
	switch {
	case c.has("server") && c.has("dir"):
		return "", f, c.usageErr("--server and --dir contradict each other: each says which server")
	case c.has("server"):
		given = c.value("server")
	case c.has("dir") || given == "":
		f, err = c.folder()
		return "", f, err
	}
	full := given
	if !strings.Contains(full, "://") {
		full = "http://" + full
	}
	u, err := url.Parse(full)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", f, usageError{fmt.Errorf("%q is no server's URL", given),
			"streamctl " + c.name + " --server http://127.0.0.1:3000"}
	}
	return strings.TrimSuffix(full, "/"), f, nil
}

// noStreams says on stderr that the folder has no streams, where err does; any other err it returns.
func (c *call) noStreams(err error) error {
	if !errors.Is(err, errNoStreams) {
		return err
	}
	_, err = fmt.Fprintf(c.stderr, "streamctl: %s: %v\n", strings.TrimPrefix(c.name, "stream "), err)
	return err
}

// explain makes of the error of an operation on a stream one that names both, and says what to type next where that
// is known.
func (c *call) explain(name string, err error) error {
	if err == nil || errors.Is(err, errReaderGone) {
		return err
	}
	operation := strings.TrimPrefix(c.name, "stream ")
	err = nobodyThere(err)
	if quoted := strconv.Quote(name); name != "" && !strings.Contains(err.Error(), quoted) {
		err = fmt.Errorf("%s %s: %w", operation, quoted, err)
	} else if name == "" {
		err = fmt.Errorf("%s: %w", operation, err)
	}
	if refusal, ok := errors.AsType[*streamhttp.Error](err); ok && refusal.Status == http.StatusUnauthorized {
		return hintError{err, c.tokenHint(name)}
	}
	_, gone := errors.AsType[*streamlib.GoneError](err)
	_, open := errors.AsType[openError](err)
	_, damaged := errors.AsType[*streamlib.CorruptError](err)
	switch {
	case damaged:
		return hintError{err, c.repairHint(name)}
	case gone || errors.Is(err, streamlib.ErrDeleted):
		return hintError{err, fmt.Sprintf("streamctl %s -n %s --offset -1, which begins again", c.name, name)}
	case open && c.has("key"):
		return hintError{err, "the same again, which appends nothing twice"}
	case open:
		return hintError{err, fmt.Sprintf("streamctl stream get -n %s --last 1, which tells", name)}
	}
	return err
}

// repairHint is what to type where a stream is damaged.
func (c *call) repairHint(name string) string {
	dir := ".iterate"
	if c.has("dir") {
		dir = c.value("dir")
	}
	stop := "streamctl server stop --dir " + shellWord(dir)
	if c.has("server") || !c.has("dir") && c.getenv("DURABLE_STREAMS_URL") != "" {
		stop, dir = "with the server stopped", "DIR"
	}
	return fmt.Sprintf("%s, then streamd repair --dir %s %s; --salvage keeps what is whole behind the damage", stop,
		shellWord(dir), shellWord(name))
}

// nobodyThere says in fewer words that no connection could be made, where that is the error.
func nobodyThere(err error) error {
	if !unreachable(err) {
		return err
	}
	refused, _ := errors.AsType[*net.OpError](err)
	where := fmt.Sprint(refused.Addr)
	if request, ok := errors.AsType[*url.Error](err); ok {
		where, _, _ = strings.Cut(request.URL, "/streams")
	}
	return hintError{fmt.Errorf("no server answers at %s: %w", where, refused.Err),
		"streamctl server start, then the same without --server and DURABLE_STREAMS_URL"}
}

// lasting tells whether err is an answer of the server that trying again does not change.
func lasting(err error) bool {
	answer, ok := errors.AsType[*streamhttp.Error](err)
	switch {
	case !ok:
		return false
	case answer.Status == http.StatusRequestTimeout, answer.Status == http.StatusTooManyRequests: // a proxy's
		return false
	}
	return answer.Status < 500 || answer.Status == http.StatusInsufficientStorage
}

// bare returns err without the request that it was met with.
func bare(err error) error {
	if request, ok := errors.AsType[*url.Error](err); ok {
		return request.Err
	}
	return err
}

// unreachable tells whether nobody was there to take a connection.
func unreachable(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "dial"
}

// printEvents prints events, one a line, at once.
func (c *call) printEvents(events []streamlib.Event) error {
	for _, e := range events {
		c.stdout.Write(append(e.AppendJSON(c.stdout.AvailableBuffer()), '\n'))
	}
	return c.stdout.Flush()
}

func streamGet(ctx context.Context, c *call) error {
	var q streamhttp.Query
	name, err := c.streamName()
	err = cmp.Or(err, c.contradicting("last", "offset", "limit"),
		c.number("limit", &q.Limit), c.number("last", &q.Last), c.offset(&q.From, 0))
	if err != nil {
		return err
	}
	q.Types = c.given["type"]
	client, err := c.connect(ctx)
	if err != nil {
		return c.noStreams(err)
	}
	stream, next := client.Stream(name), streamlib.Offset(0)
	for events, err := range stream.Query(ctx, q) {
		if err != nil {
			return c.explain(name, brokenOff(err, next))
		}
		if err := c.printEvents(events); err != nil {
			return c.explain(name, err)
		}
		next = events[len(events)-1].Offset + 1
	}
	if next == 0 && absent(ctx, stream) {
		c.noStream(name, "")
	}
	return nil
}

// brokenOff says how to go on where the connection was lost behind what was printed. What the server answered is no
// such error.
func brokenOff(err error, next streamlib.Offset) error {
	_, answer := errors.AsType[*streamhttp.Error](err)
	_, corrupt := errors.AsType[*streamlib.CorruptError](err)
	if next == 0 || answer || corrupt {
		return err
	}
	return hintError{err, fmt.Sprintf("the same from --offset %d on, which is behind what was printed", next)}
}

// absent tells whether there is no such stream, where the server can say it.
func absent(ctx context.Context, s streamlib.Stream) bool {
	info, err := s.Stat(ctx)
	return err == nil && info.Tail == 0
}

// noStream says on stderr that there is none, which is no error.
func (c *call) noStream(name, yet string) {
	fmt.Fprintf(c.stderr, "streamctl: %s %q: there is no such stream%s\n", strings.TrimPrefix(c.name, "stream "),
		name, yet)
}

func streamSubscribe(ctx context.Context, c *call) error {
	if c.has("all") || c.has("prefix") {
		return subscribeAll(ctx, c)
	}
	f := streamhttp.Follow{Types: c.given["type"]}
	name, err := c.streamName()
	err = cmp.Or(err, c.contradicting("last", "offset"), c.number("last", &f.Last), c.offset(&f.From, streamlib.Now))
	if err != nil {
		return err
	}
	ctx, cancel := untilReaderGone(ctx, c.stdout.under)
	defer cancel(nil)
	client, err := c.connect(ctx)
	if err != nil {
		return err
	}
	stream := client.Stream(name)
	if daemon.IsTerminal(c.stderr) && absent(ctx, stream) { // a script may well be there before its stream
		c.noStream(name, " yet")
	}
	return c.follow(ctx, stream, f, func(events []streamlib.Event) (done bool, err error) {
		return false, c.printEvents(events)
	})
}

// follow hands the events of a subscription to show, until that is done.
func (c *call) follow(ctx context.Context, s *streamhttp.Remote, f streamhttp.Follow,
	show func([]streamlib.Event) (done bool, err error)) error {
	told := false
	f.Reconnecting = func(err error) {
		if !told { // not again and again
			told = true
			fmt.Fprintf(c.stderr, "streamctl: %s %q: the connection was lost: %v; connecting again\n",
				strings.TrimPrefix(c.name, "stream "), s.Name(), bare(err))
		}
	}
	for events, err := range s.Follow(ctx, f) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		told = false
		done := false
		if err == nil {
			done, err = show(events)
		}
		if err != nil || done {
			return c.explain(s.Name(), err)
		}
	}
	return nil
}

// subscribeAll goes on after the connection was lost, too, but what was appended meanwhile cannot be had this way.
func subscribeAll(ctx context.Context, c *call) error {
	if !c.has("all") {
		return c.usageErr("--prefix goes with --all")
	}
	for _, flag := range []string{"name", "offset", "last"} {
		if c.has(flag) {
			return c.usageErr("--all and --%s contradict each other: all streams are followed from now on", flag)
		}
	}
	client, err := c.connect(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := untilReaderGone(ctx, c.stdout.under)
	defer cancel(nil)
	for answered, told := false, false; ; answered = true {
		for events, err := range client.Subscribe(ctx, c.value("prefix"), c.given["type"]...) {
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case lasting(err), !answered && unreachable(err):
				return c.explain("", err)
			case err != nil && !told:
				told = true
				fmt.Fprintf(c.stderr, "streamctl: subscribe to all: the connection was lost: %v; connecting again, without "+
					"what is appended meanwhile\n", bare(err))
			case err == nil:
				told, answered = false, true
				if err := c.printEvents(events); err != nil {
					return err
				}
			}
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func streamWait(ctx context.Context, c *call) error {
	f := streamhttp.Follow{Types: c.given["type"]}
	timeout := 30 * time.Second
	name, err := c.streamName()
	if err = cmp.Or(err, c.offset(&f.From, streamlib.Beginning), c.duration("timeout", &timeout)); err != nil {
		return err
	}
	ctx, cancel := untilReaderGone(ctx, c.stdout.under)
	defer cancel(nil)
	client, err := c.connect(ctx)
	if err != nil {
		return err
	}
	stream, missed := client.Stream(name), "there was no such event"
	if f.From != streamlib.Now { // the time is for what comes: what is there is looked for however short it is
		ctx, stop := context.WithTimeoutCause(ctx, max(timeout, answerTime),
			fmt.Errorf("wait %q: the server did not answer in %v", name, max(timeout, answerTime)))
		defer stop()
		info, errStat := stream.Stat(ctx)
		for events, err := range stream.Query(ctx, streamhttp.Query{From: f.From, Limit: 1, Types: f.Types}) {
			return c.explain(name, cmp.Or(err, c.printEvents(events)))
		}
		if errStat == nil {
			f.From = max(f.From, info.Tail)
		}
		if errStat == nil && info.Tail == 0 {
			missed = "there was no such stream, and no event"
		}
	}
	ctx, stop := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("wait %q: %s in %v", name, missed, timeout))
	defer stop()
	return c.follow(ctx, stream, f, func(events []streamlib.Event) (done bool, err error) {
		return len(events) > 0, c.printEvents(events[:min(1, len(events))])
	})
}

func streamDelete(ctx context.Context, c *call) error {
	name, err := c.streamName()
	if err != nil {
		return err
	}
	client, err := c.connect(ctx)
	if err != nil {
		return c.noStreams(err)
	}
	stream := client.Stream(name)
	none := absent(ctx, stream)
	if err := stream.Delete(ctx); err != nil {
		return c.explain(name, err)
	}
	if none {
		c.noStream(name, "")
	}
	return nil
}

func streamList(ctx context.Context, c *call) error {
	client, err := c.connect(ctx)
	if err != nil {
		return c.noStreams(err)
	}
	show, end := c.listNames()
	if c.has("json") {
		show, end = c.listJSON()
	} else if c.has("details") {
		show, end = c.listTable(time.Now())
	}
	o := streamhttp.ListOptions{Prefix: c.value("prefix"), Details: c.has("details"), Limit: 1000}
	for {
		page, err := client.List(ctx, o)
		if err != nil {
			return c.explain("", err)
		}
		for _, info := range page.Streams {
			if err := show(info); err != nil {
				return err
			}
			if err := page.Errors[info.Name]; err != nil {
				fmt.Fprintf(c.stderr, "streamctl: %q: %v\n", info.Name, err)
			}
		}
		if o.After = page.Next; o.After == "" {
			return end()
		}
	}
}

// A lister shows one stream.
type lister func(streamlib.Info) error

func (c *call) listNames() (lister, func() error) {
	return func(s streamlib.Info) error {
		_, err := fmt.Fprintln(c.stdout, s.Name)
		return err
	}, c.stdout.Flush
}

func (c *call) listJSON() (lister, func() error) {
	type details struct {
		NextOffset string `json:"nextOffset"`
		Size       int64  `json:"size"`
		CreatedAt  string `json:"createdAt,omitempty"`
		UpdatedAt  string `json:"updatedAt,omitempty"`
	}
	type stream struct {
		Name string `json:"name"`
		*details
		Error string `json:"error,omitempty"`
	}
	return func(s streamlib.Info) error {
		v := stream{Name: s.Name}
		if s.Damage != nil {
			v.Error = s.Damage.Error()
		}
		if c.has("details") {
			v.details = &details{s.Tail.String(), s.Size, timeText(s.CreatedAt), timeText(s.UpdatedAt)}
		}
		return c.printJSON(v)
	}, c.stdout.Flush
}

// timeText is a time as servers write it, with all three digits of its milliseconds; "" where it is not known.
func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func (c *call) listTable(now time.Time) (lister, func() error) {
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tEVENTS\tSIZE\tCREATED\tUPDATED")
	return func(s streamlib.Info) error {
		_, err := fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", s.Name, s.Tail, bytesText(s.Size), ageText(now, s.CreatedAt),
			ageText(now, s.UpdatedAt))
		return err
	}, w.Flush
}

// bytesText is a size for a person.
func bytesText(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	size, unit := float64(n)/1024, 0
	for size >= 1023.95 && unit < 4 {
		size, unit = size/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", size, "KMGTP"[unit])
}

// ageText is how long ago t was, for a person.
func ageText(now, t time.Time) string {
	age := now.Sub(t)
	switch {
	case t.IsZero():
		return "-"
	case age < time.Second:
		return "now"
	case age < time.Minute:
		return fmt.Sprintf("%ds ago", age/time.Second)
	case age < time.Hour:
		return fmt.Sprintf("%dm ago", age/time.Minute)
	case age < 48*time.Hour:
		return fmt.Sprintf("%dh ago", age/time.Hour)
	}
	return fmt.Sprintf("%dd ago", age/(24*time.Hour))
}
