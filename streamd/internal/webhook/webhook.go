// Package webhook posts what is appended to streams to URLs, with the signatures of Standard Webhooks
// (github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md, version 1.0.0).
//
// A request has events of one or more streams, one a line (application/x-ndjson), in the order of each stream, and with
// a Content-Length. Any status from 200 to 299 takes them; all else, no answer in 30 seconds or a redirect among it, has
// them sent again, for as long as it takes: what a follower.Follower promises holds. 410 ends the webhook for good.
//
//	webhook-id         the same for the same events, also when they are sent again
//	webhook-timestamp  when the request was made, in seconds since 1970
//	webhook-signature  v1, and the HMAC-SHA256 of id.timestamp.body with the secret, in base64
//
// In the folder it has ID.secret, which is made at first use, is its owner's alone and may be replaced by another one
// while no server runs; ID.cursor; and, where the receiver has ended it, ID.ended. ID is of the streams and the URL.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/follower"
)

const (
	secretPrefix = "whsec_"
	answerTime   = 30 * time.Second // for a request, all in all
	graceTime    = time.Second      // for one that is under way when the server ends: without an answer it is made again
)

// A Rule says which streams' events go where.
type Rule struct {
	Streams string // NAME or PREFIX*
	URL     *url.URL
}

// ParseRule reads PREFIX*=URL or NAME=URL.
func ParseRule(text string) (r Rule, err error) {
	i := strings.Index(text, "=http://")
	if j := strings.Index(text, "=https://"); i < 0 || j >= 0 && j < i {
		i = j
	}
	if i < 0 {
		return r, fmt.Errorf("%q: a rule is PREFIX*=URL or NAME=URL, and a URL begins with http:// or https://", text)
	}
	r.Streams = text[:i]
	name, many := strings.CutSuffix(r.Streams, "*")
	switch {
	case r.Streams == "":
		return r, fmt.Errorf("%q: no stream is named; * is for all of them", text)
	case strings.Contains(name, "*"):
		return r, fmt.Errorf("%q: a * stands at the end of a prefix, and nowhere else", text)
	case !many || name != "":
		if err := streamlib.CheckName(name); err != nil {
			return r, fmt.Errorf("%q: %w", text, err)
		}
	}
	if r.URL, err = url.Parse(text[i+1:]); err != nil || r.URL.Hostname() == "" {
		return r, fmt.Errorf("%q: %q is no URL", text, text[i+1:])
	}
	return r, nil
}

// String is the rule without what may be secret in it.
func (r Rule) String() string {
	public := url.URL{Scheme: r.URL.Scheme, Host: r.URL.Host, Path: r.URL.Path}
	return r.Streams + "=" + public.String()
}

// id is of the rule alone, and is a file's name.
func (r Rule) id() string {
	sum := sha256.Sum256([]byte(r.Streams + "=" + r.URL.String()))
	host := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-' {
			return c
		}
		return -1
	}, strings.ToLower(r.URL.Hostname()))
	return strings.Trim(host[:min(len(host), 60)], ".-") + "-" + hex.EncodeToString(sum[:6])
}

// Options are what webhooks need to know.
type Options struct {
	Manager      *streamlib.Manager
	Dir          string // for their files, made where it is missing
	Fresh        bool   // the streams are new at each start: they begin anew
	AllowPrivate bool   // addresses of this machine and of private networks
	Log          *slog.Logger
	UserAgent    string
	Resolver     *net.Resolver // nil is the system's
}

// A Webhook posts the events of one rule.
type Webhook struct {
	Rule
	o        Options
	path     string // of its files, without what they end with
	key      []byte
	client   *http.Client
	follower *follower.Follower // nil where it has ended
	ended    atomic.Bool
}

// Open makes what it needs in the folder. What is appended from then on is posted once it runs.
func Open(ctx context.Context, r Rule, o Options) (*Webhook, error) {
	w := &Webhook{Rule: r, o: o, path: filepath.Join(o.Dir, r.id())}
	if err := w.open(ctx); err != nil {
		return nil, fmt.Errorf("webhook %s: %w", r, err)
	}
	return w, nil
}

func (w *Webhook) open(ctx context.Context) (err error) {
	if err = makeDir(w.o.Dir); err != nil {
		return err
	}
	if w.key, err = w.secret(); err != nil {
		return err
	}
	if _, err := os.Lstat(w.path + ".ended"); err == nil {
		w.ended.Store(true)
		w.o.Log.Warn("a webhook has ended, as its receiver said 410; without the file it begins again", "webhook", w.String(),
			"file", w.path+".ended")
		return nil
	}
	if w.o.Fresh {
		if err := os.Remove(w.path + ".cursor"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	w.client = newClient(w.o.AllowPrivate, w.o.Resolver)
	w.follower, err = follower.Open(ctx, follower.Options{
		Manager: w.o.Manager, Streams: w.Streams, Path: w.path + ".cursor", Deliver: w.deliver, Log: w.o.Log,
	})
	return err
}

// makeDir makes the folder, and gives it to whom its own folder belongs.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	daemon.Give(f, filepath.Dir(dir))
	return f.Close()
}

// secret returns the key of the signatures, which it makes where there is none.
func (w *Webhook) secret() ([]byte, error) {
	path := w.path + ".secret"
	text, info, err := daemon.Read(w.o.Dir, filepath.Base(path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if text, err = w.makeSecret(path); err != nil {
			return nil, err
		}
		w.o.Log.Info("a webhook's secret was made", "webhook", w.String(), "file", path)
	case err != nil:
		return nil, err
	case info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/':
		return nil, fmt.Errorf("%s has the mode %v, and others could read it: chmod 600 %s", daemon.Word(path),
			info.Mode().Perm(), daemon.ShellWord(path))
	}
	return parseSecret(path, string(text))
}

func parseSecret(path, text string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(strings.TrimSpace(text), secretPrefix)
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(key) < 24 || len(key) > 64 {
		return nil, fmt.Errorf("%s is no secret: that is %s and 24 to 64 bytes in base64", daemon.Word(path), secretPrefix)
	}
	return key, nil
}

func (w *Webhook) makeSecret(path string) ([]byte, error) {
	key := make([]byte, 32)
	rand.Read(key)
	text := []byte(secretPrefix + base64.StdEncoding.EncodeToString(key) + "\n")
	return text, writeFile(path, text, w.o.Dir)
}

// writeFile makes a file, whole or not at all, its owner's alone.
func writeFile(path string, content []byte, dir string) error {
	if err := os.Remove(path + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	daemon.Give(f, dir)
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = daemon.Rename(path+".new", path)
	}
	if err != nil {
		os.Remove(path + ".new")
	}
	return err
}

// Run posts until ctx is done, or the receiver wants no more.
func (w *Webhook) Run(ctx context.Context) {
	if w.follower == nil {
		return
	}
	defer w.client.CloseIdleConnections()
	if err := w.follower.Run(ctx); !errors.Is(err, follower.ErrEnd) {
		return
	}
	w.ended.Store(true)
	err := writeFile(w.path+".ended", []byte(time.Now().UTC().Format(time.RFC3339)+" the receiver said 410\n"), w.o.Dir)
	w.o.Log.Warn("a webhook has ended, as its receiver said 410; without the file it begins again", "webhook", w.String(),
		"file", w.path+".ended")
	if err != nil {
		w.o.Log.Error("that a webhook has ended could not be noted: it begins again with the next start", "error", err)
	}
}

// Report tells how far it is.
func (w *Webhook) Report() (r follower.Report) {
	if w.follower != nil {
		r = w.follower.Status().Report()
	}
	r.Streams, r.To = w.Streams, strings.TrimPrefix(w.String(), w.Streams+"=")
	r.Secret, r.Ended = w.path+".secret", w.ended.Load()
	return r
}

// deliver posts the events.
func (w *Webhook) deliver(ctx context.Context, changes []follower.Change) error {
	id := sha256.New()
	fmt.Fprint(id, w.id())
	var body []byte
	for _, c := range changes {
		for _, e := range c.Events {
			body = append(e.AppendJSON(body), '\n')
		}
		fmt.Fprintf(id, "\n%q %d %d %d", c.Stream, c.State.Life, c.Tail, len(c.Events))
	}
	ended := ctx
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), answerTime, fmt.Errorf("no answer in %v", answerTime))
	defer cancel()
	defer context.AfterFunc(ended, func() { time.AfterFunc(graceTime, cancel) })()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-ndjson")
	r.Header.Set("User-Agent", w.o.UserAgent)
	w.sign(r.Header, "msg_"+hex.EncodeToString(id.Sum(nil)[:16]), time.Now(), body)
	answer, err := w.client.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if inner, ok := errors.AsType[*url.Error](err); ok { // which names the URL, with what is secret in it
			err = inner.Err
		}
		return err
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, 64<<10) // so that the connection can be used again
	switch {
	case answer.StatusCode/100 == 2:
		return nil
	case answer.StatusCode == http.StatusGone:
		return fmt.Errorf("the receiver answered %d: %w", answer.StatusCode, follower.ErrEnd)
	case answer.StatusCode/100 == 3:
		return fmt.Errorf("the receiver answered %d: a redirect is not followed", answer.StatusCode)
	}
	return fmt.Errorf("the receiver answered %d", answer.StatusCode)
}

// sign sets the headers that say what the request is, and that it is from here.
func (w *Webhook) sign(h http.Header, id string, at time.Time, body []byte) {
	stamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, w.key)
	mac.Write([]byte(id + "." + stamp + "."))
	mac.Write(body)
	h.Set("webhook-id", id)
	h.Set("webhook-timestamp", stamp)
	h.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}
