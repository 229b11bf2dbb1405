package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
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
	if url != "" {
		return c.remote(url)
	}
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	client, err := f.client(ctx, c.reads)
	if client != nil {
		client.Token, client.Patience = token, answerTime
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
		if f, err = c.folder(); err == nil && c.has("cacert") {
			err = c.usageErr("--cacert is for a server with an https URL: a folder's needs no certificate")
		}
		return "", f, err
	}
	if path, ok := strings.CutPrefix(given, socketScheme); ok {
		path, _ = strings.CutPrefix(path, "//")
		if path == "" || c.has("cacert") {
			return "", f, c.usageErr("--server %q: it is unix: and the path of a socket, without --cacert", given)
		}
		return socketScheme + path, f, nil
	}
	full := given
	if !strings.Contains(full, "://") {
		full = "http://" + full
	}
	u, err := url.Parse(full)
	usual := "http://localhost:3000"
	if err == nil && u.Hostname() == "" && u.Port() != "" { // which would be this machine, for Go alone
		usual = "http://localhost:" + u.Port()
	}
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", f, usageError{fmt.Errorf("%q is no server's URL", given), "streamctl " + c.name + " --server " + usual}
	}
	if c.has("cacert") && u.Scheme != "https" {
		return "", f, c.usageErr("--cacert is for a server with an https URL, and %s is none", given)
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
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errReaderGone): // in whatever it was met
		return errReaderGone
	}
	operation := strings.TrimPrefix(c.name, "stream ")
	err = nobodyThere(err)
	if quoted := strconv.Quote(name); name != "" && !strings.Contains(err.Error(), quoted) {
		err = fmt.Errorf("%s %s: %w", operation, quoted, err)
	} else if said := err.Error(); name == "" && !strings.HasPrefix(said, operation+" ") &&
		!strings.HasPrefix(said, operation+":") {
		err = fmt.Errorf("%s: %w", operation, err)
	}
	if refusal, ok := errors.AsType[*streamhttp.Error](err); ok && refusal.Status == http.StatusUnauthorized {
		return hintError{err, c.tokenHint(name)}
	}
	word := daemon.ShellWord(name)
	gone, isGone := errors.AsType[*streamlib.GoneError](err)
	open, isOpen := errors.AsType[openError](err)
	_, damaged := errors.AsType[*streamlib.CorruptError](err)
	switch {
	case damaged:
		return hintError{err, c.repairHint(name)}
	case (isGone || errors.Is(err, streamlib.ErrDeleted)) && c.has("cursor"):
		return hintError{err, fmt.Sprintf("rm %s, then the same, which begins again", daemon.ShellWord(c.value("cursor")))}
	case isGone && gone.First > gone.After+1:
		return hintError{err, fmt.Sprintf("streamctl %s -n %s --offset %d, which is the first event that is kept", c.name,
			word, gone.First)}
	case isGone || errors.Is(err, streamlib.ErrDeleted):
		return hintError{err, fmt.Sprintf("streamctl %s -n %s --offset -1, which begins again", c.name, word)}
	case isOpen && open.events == 0:
		return hintError{err, fmt.Sprintf("streamctl stream close -n %s, which changes nothing where it is closed", word)}
	case isOpen && c.has("key"):
		return hintError{err, "the same again, which appends nothing twice"}
	case isOpen:
		return hintError{err, fmt.Sprintf("streamctl stream get -n %s --last 1, which tells", word)}
	}
	return err
}

// repairHint is what to type where a stream is damaged.
func (c *call) repairHint(name string) string {
	dir := ".iterate"
	if c.has("dir") {
		dir = c.value("dir")
	}
	stop := "streamctl server stop --dir " + daemon.ShellWord(dir)
	if c.has("server") || !c.has("dir") && c.getenv("DURABLE_STREAMS_URL") != "" {
		stop, dir = "with the server stopped", "DIR"
	}
	return fmt.Sprintf("%s, then streamd repair --dir %s %s; --salvage keeps what is whole behind the damage", stop,
		daemon.ShellWord(dir), daemon.ShellWord(name))
}

// nobodyThere is err alone, with what to type next, where that is that no connection could be made.
func nobodyThere(err error) error {
	if !unreachable(err) {
		return err
	}
	if e, ok := errors.AsType[*streamhttp.NoAnswerError](err); ok {
		err = e
	}
	if untrusted(err) {
		return hintError{err, "--cacert FILE, with the certificate of who signed the server's, or a --server of its name"}
	}
	return hintError{err, "streamctl server start, then the same without --server and DURABLE_STREAMS_URL"}
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

// unreachable tells whether nobody was there to take a connection, or not who was to be.
func unreachable(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "dial" || untrusted(err)
}

// untrusted tells whether the server's certificate is not one for it that is trusted.
func untrusted(err error) bool {
	_, is := errors.AsType[*tls.CertificateVerificationError](err)
	return is
}

func streamGet(ctx context.Context, c *call) error {
	var q streamhttp.Query
	name, err := c.streamName()
	as, errForm := c.form()
	err = cmp.Or(err, errForm, c.contradicting("last", "offset", "limit"),
		c.number("limit", &q.Limit), c.number("last", &q.Last), c.offset(&q.From, streamlib.Beginning),
		c.since(&q.Since))
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
		if err := c.printEvents(events, as); err != nil {
			return c.explain(name, err)
		}
		next = events[len(events)-1].Offset + 1
	}
	if next == 0 {
		if none, _ := absent(ctx, stream); none {
			c.noStream(name, "")
		}
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

// absent tells whether there is no such stream, where the server can say it. An error is that it does not answer.
func absent(ctx context.Context, s streamlib.Stream) (bool, error) {
	info, err := s.Stat(ctx)
	if mute, ok := errors.AsType[*streamhttp.NoAnswerError](err); ok {
		return false, mute
	}
	return err == nil && none(info), nil
}

// none tells whether info is that of a stream that is not there. One without events may have been closed.
func none(info streamlib.Info) bool { return info.Tail == 0 && !info.Closed }

// noStream says on stderr that there is none, which is no error.
func (c *call) noStream(name, yet string) {
	fmt.Fprintf(c.stderr, "streamctl: %s %q: there is no such stream%s\n", strings.TrimPrefix(c.name, "stream "),
		name, yet)
}

func streamSubscribe(ctx context.Context, c *call) error {
	as, err := c.form()
	if err != nil {
		return err
	}
	if c.has("all") || c.has("prefix") {
		return subscribeAll(ctx, c, as)
	}
	f, begin := streamhttp.Follow{Types: c.given["type"]}, streamlib.Now
	if f.UntilTail = c.has("until-caught-up"); f.UntilTail || c.has("cursor") { // from now on that would be nothing
		begin = streamlib.Beginning
	}
	name, err := c.streamName()
	err = cmp.Or(err, c.contradicting("last", "offset"), c.number("last", &f.Last), c.offset(&f.From, begin),
		c.since(&f.Since))
	if err != nil {
		return err
	}
	var keep *cursor
	if c.has("cursor") {
		if c.value("cursor") == "" {
			return c.usageErr("--cursor is empty")
		}
		if keep, err = openCursor(c.value("cursor"), name); err != nil {
			return err
		}
	}
	ctx, cancel := untilReaderGone(ctx, c.stdout.under)
	defer cancel(nil)
	client, err := c.connect(ctx)
	if err != nil {
		return err
	}
	stream := client.Stream(name)
	if daemon.IsTerminal(c.stderr) { // a script may well be there before its stream
		none, err := absent(ctx, stream)
		if err != nil {
			return c.explain(name, err)
		}
		if none {
			c.noStream(name, " yet")
		}
		c.follows(ctx, stream, f, keep, client.URL)
	}
	if keep != nil {
		return c.followKept(ctx, stream, f, as, keep)
	}
	return c.follow(ctx, stream, f, func(events []streamlib.Event) (done bool, err error) {
		return false, c.printEvents(events, as)
	})
}

// follows tells a person what is followed from where.
func (c *call) follows(ctx context.Context, s streamlib.Stream, f streamhttp.Follow, keep *cursor, url string) {
	from := fmt.Sprintf("from offset %d on", f.From)
	switch {
	case keep != nil && keep.next >= 0:
		from = fmt.Sprintf("from offset %d on, as %s says", keep.next, daemon.Word(c.value("cursor")))
	case f.Since != "":
		from = "what came since " + daemon.Word(f.Since)
	case f.Last > 0:
		from = fmt.Sprintf("from the last %d events on", f.Last)
	case f.From == streamlib.Beginning:
		from = "from the first event on"
	case f.From == streamlib.Now:
		from = "from now on"
		if info, err := s.Stat(ctx); err == nil {
			from += fmt.Sprintf(", which is offset %d", info.Tail)
		}
	}
	fmt.Fprintf(c.stderr, "streamctl: subscribe %q: %s, at %s; Ctrl-C ends it\n", s.Name(), from, url)
}

// follow hands the events of a subscription to show, until that is done or the stream, which is closed, has no more.
func (c *call) follow(ctx context.Context, s *streamhttp.Remote, f streamhttp.Follow,
	show func([]streamlib.Event) (done bool, err error)) error {
	told := false
	f.Reconnecting = func(err error) {
		if !told { // not again and again
			told = true
			fmt.Fprintf(c.stderr, "streamctl: %s %q: the connection was lost: %v; connecting again\n",
				strings.TrimPrefix(c.name, "stream "), s.Name(), err)
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
func subscribeAll(ctx context.Context, c *call, as form) error {
	if !c.has("all") {
		return c.usageErr("--prefix goes with --all")
	}
	for _, flag := range []string{"name", "offset", "since", "last", "cursor", "until-caught-up"} {
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
	if daemon.IsTerminal(c.stderr) {
		which := "of all streams"
		if c.has("prefix") {
			which = fmt.Sprintf("of the streams whose names begin with %q", c.value("prefix"))
		}
		fmt.Fprintf(c.stderr, "streamctl: subscribe: what is appended from now on, %s, at %s; Ctrl-C ends it\n", which,
			client.URL)
	}
	for answered, told := false, false; ; {
		for events, err := range client.Subscribe(ctx, c.value("prefix"), c.given["type"]...) {
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case lasting(err), err != nil && !answered:
				return c.explain("", err)
			case err != nil && !told:
				told = true
				fmt.Fprintf(c.stderr, "streamctl: subscribe to all: the connection was lost: %v; connecting again, without "+
					"what is appended meanwhile\n", err)
			case err == nil:
				told, answered = false, true
				if err := c.printEvents(events, as); err != nil {
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
	as, errForm := c.form()
	if err = cmp.Or(err, errForm, c.offset(&f.From, streamlib.Beginning), c.since(&f.Since),
		c.duration("timeout", &timeout)); err != nil {
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
		for events, err := range stream.Query(ctx, streamhttp.Query{From: f.From, Since: f.Since, Limit: 1, Types: f.Types}) {
			return c.explain(name, cmp.Or(err, c.printEvents(events, as)))
		}
		if errStat == nil {
			f.From, f.Since = max(f.From, info.Tail), ""
		}
		if errStat == nil && none(info) {
			missed = "there was no such stream, and no event"
		}
	}
	ctx, stop := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("wait %q: %s in %v", name, missed, timeout))
	defer stop()
	found := false
	err = c.follow(ctx, stream, f, func(events []streamlib.Event) (done bool, err error) {
		found = len(events) > 0
		return found, c.printEvents(events[:min(1, len(events))], as)
	})
	if err == nil && !found {
		err = fmt.Errorf("wait %q: %s, and the stream is closed", name, missed)
	}
	return err
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
	missing, err := absent(ctx, stream)
	if err == nil {
		err = stream.Delete(ctx)
	}
	if err != nil {
		return c.explain(name, err)
	}
	if missing {
		c.noStream(name, "")
	}
	return nil
}

func streamList(ctx context.Context, c *call) error {
	if err := c.contradicting("pretty", "json", "details"); err != nil {
		return err
	}
	short := !c.has("json") && !c.has("details") && (c.has("pretty") || c.onTerminal())
	client, err := c.connect(ctx)
	if err != nil {
		return c.noStreams(err)
	}
	show, end := c.listNames()
	if c.has("json") {
		show, end = c.listJSON()
	} else if c.has("details") {
		show, end = c.listTable(time.Now())
	} else if short {
		show, end = c.listShort(time.Now())
	}
	o := streamhttp.ListOptions{Prefix: c.value("prefix"), Details: short || c.has("details"), Limit: 1000}
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

// shown is a name as it is printed: a terminal's is harmless.
func (c *call) shown(name string) string {
	if daemon.IsTerminal(c.stdout.under) {
		return harmless(name)
	}
	return name
}

func (c *call) listJSON() (lister, func() error) {
	type details struct {
		First      string `json:"first,omitempty"`
		NextOffset string `json:"nextOffset"`
		Size       int64  `json:"size"`
		CreatedAt  string `json:"createdAt,omitempty"`
		UpdatedAt  string `json:"updatedAt,omitempty"`
		Closed     bool   `json:"closed,omitempty"`
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
			v.details = &details{"", s.Tail.String(), s.Size, timeText(s.CreatedAt), timeText(s.UpdatedAt), s.Closed}
			if s.First > 0 {
				v.First = s.First.String()
			}
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
	t := table{{"NAME", "EVENTS", "FIRST", "STATE", "SIZE", "CREATED", "UPDATED"}}
	return func(s streamlib.Info) error {
		state := "open"
		if s.Closed {
			state = "closed"
		}
		t = append(t, []string{c.shown(s.Name), count(s), fmt.Sprintf("%d", s.First), state,
			daemon.Bytes(s.Size), ageText(now, s.CreatedAt), ageText(now, s.UpdatedAt)})
		return nil
	}, func() error { return c.printTable(t) }
}

// count is how many events a stream has.
func count(s streamlib.Info) string { return fmt.Sprintf("%d", max(0, s.Tail-s.First)) }

// listShort is the table that a person gets.
func (c *call) listShort(now time.Time) (lister, func() error) {
	t := table{{"NAME", "EVENTS", "SIZE", "UPDATED"}}
	return func(s streamlib.Info) error {
		closed := ""
		if s.Closed {
			closed = ", closed"
		}
		t = append(t, []string{harmless(s.Name), count(s), daemon.Bytes(s.Size),
			ageText(now, s.UpdatedAt) + closed})
		return nil
	}, func() error { return c.printTable(t) }
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
