package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/matryer/is"
)

// A post is a request that a receiver got.
type post struct {
	http.Header
	length int64
	body   string
}

// receiver is a server that takes posts, which come through the channel, and answers with the next one of statuses, 204
// behind the last.
func receiver(t *testing.T, statuses ...int) (url string, posts <-chan post) {
	got, next := make(chan post, 100), make(chan int, len(statuses))
	for _, status := range statuses {
		next <- status
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		status := 204
		select {
		case status = <-next:
		default:
		}
		if status/100 == 3 {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
		got <- post{r.Header, r.ContentLength, body2(r, body)}
	}))
	t.Cleanup(server.Close)
	return server.URL, got
}

func body2(r *http.Request, body []byte) string {
	if r.URL.Path == "/elsewhere" {
		return "it followed"
	}
	return string(body)
}

// lab is a manager with a webhook.
type lab struct {
	t       *testing.T
	manager *streamlib.Manager
	rule    Rule
	o       Options
	log     logged
	w       *Webhook
	stop    func()
}

type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newLab(t *testing.T, rule string) *lab {
	r, err := ParseRule(rule)
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, rule: r, stop: func() {}}
	l.manager = streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})
	l.o = Options{Manager: l.manager, Dir: filepath.Join(t.TempDir(), "webhooks"), AllowPrivate: true,
		Log: slog.New(slog.NewTextHandler(&l.log, nil)), UserAgent: "streamd/test"}
	t.Cleanup(func() { l.stop() })
	return l
}

// start starts the webhook in the place of the one there was.
func (l *lab) start() {
	l.t.Helper()
	l.stop()
	ctx, cancel := context.WithCancel(context.Background())
	w, err := Open(ctx, l.rule, l.o)
	if err != nil {
		cancel()
		l.t.Fatal(err)
	}
	l.w = w
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	l.stop = func() { cancel(); running.Wait() }
}

func (l *lab) append(name string, data ...string) (lines string) {
	l.t.Helper()
	receipt, err := l.manager.Stream(name).Append(context.Background(), streamlib.Batch{Data: streamlib.JSON(data...)})
	if err != nil {
		l.t.Fatal(err)
	}
	for _, e := range receipt.Events {
		lines += e.String() + "\n"
	}
	return lines
}

func take(t *testing.T, posts <-chan post) post {
	t.Helper()
	select {
	case p := <-posts:
		return p
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was posted")
		return post{}
	}
}

// TestSignature: the example of Standard Webhooks' own libraries.
func TestSignature(t *testing.T) {
	is := is.New(t)
	key, err := parseSecret("", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
	is.NoErr(err)
	h := http.Header{}
	(&Webhook{key: key}).sign(h, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 5), []byte(`{"test": 2432232314}`))
	is.Equal(h.Get("webhook-id"), "msg_p5jXN8AQM9LWM0D4loKWxJek")
	is.Equal(h.Get("webhook-timestamp"), "1614265330")
	is.Equal(h.Get("webhook-signature"), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
}

func TestPostsWhatIsAppended(t *testing.T) {
	is := is.New(t)
	url, posts := receiver(t, 204, 500, 302)
	l := newLab(t, "a*="+url+"/hook?secret=s3cret")
	l.append("a", `"before"`)
	l.start()
	want := l.append("a", "1", `{"text":"\u2028<>"}`)
	l.append("b", "1")
	p := take(t, posts)
	is.Equal(p.body, want)
	is.Equal(p.length, int64(len(want)))
	is.Equal(p.Get("Content-Type"), "application/x-ndjson")
	is.Equal(p.Get("User-Agent"), "streamd/test")
	is.True(strings.HasPrefix(p.Get("webhook-id"), "msg_"))
	secret, err := os.ReadFile(l.w.Report().Secret)
	is.NoErr(err)
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(strings.TrimPrefix(string(secret), "whsec_")))
	is.NoErr(err)
	signature := func(p post) string {
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s.%s.%s", p.Get("webhook-id"), p.Get("webhook-timestamp"), p.body)
		return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	is.Equal(p.Get("webhook-signature"), signature(p))

	want = l.append("ab", "2") // is answered 500, then with a redirect
	first, second, third := take(t, posts), take(t, posts), take(t, posts)
	for _, p := range []post{first, second, third} {
		is.Equal(p.body, want)
		is.Equal(p.Get("webhook-id"), first.Get("webhook-id"))
		is.Equal(p.Get("webhook-signature"), signature(p))
	}
	is.True(first.Get("webhook-id") != p.Get("webhook-id"))

	want = l.append("ab", "3")
	is.Equal(take(t, posts).body, want)
	l.start() // another time
	want = l.append("ab", "4")
	is.Equal(take(t, posts).body, want)
	l.stop()
	s := l.w.Report()
	is.Equal(s.To, url+"/hook")
	is.Equal(s.Events, int64(1))
	is.True(!strings.Contains(l.log.String(), "s3cret"))
	again, err := os.ReadFile(s.Secret)
	is.NoErr(err)
	is.Equal(string(again), string(secret))
}

// TestGone: 410 ends it, also for those who start the server again.
func TestGone(t *testing.T) {
	is := is.New(t)
	url, posts := receiver(t, 410)
	l := newLab(t, "*="+url)
	l.start()
	l.append("a", "1")
	take(t, posts)
	ended := l.w.path + ".ended"
	for range 2 {
		for !l.w.Report().Ended || !exists(ended) {
			time.Sleep(time.Millisecond)
		}
		l.append("a", "2")
		l.start()
		is.True(l.w.Report().Ended)
	}
	is.Equal(len(posts), 0)
	is.True(strings.Contains(l.log.String(), ended))
	l.stop()
	is.NoErr(os.Remove(ended))
	l.start()
	p := take(t, posts)
	is.Equal(strings.Count(p.body, "\n"), 3) // where it was
	is.True(!l.w.Report().Ended)
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func TestTheSecretIsItsOwnersAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a file's mode does not say who may read it")
	}
	is := is.New(t)
	l := newLab(t, "*=http://127.0.0.1:1/")
	l.start()
	path := l.w.Report().Secret
	info, err := os.Stat(path)
	is.NoErr(err)
	is.Equal(info.Mode().Perm(), os.FileMode(0o600))
	dir, err := os.Stat(l.o.Dir)
	is.NoErr(err)
	is.Equal(dir.Mode().Perm(), os.FileMode(0o700))
	is.True(strings.Contains(l.log.String(), path)) // it is said where it is
	l.stop()
	is.NoErr(os.Chmod(path, 0o640))
	_, err = Open(t.Context(), l.rule, l.o)
	is.True(err != nil && strings.Contains(err.Error(), "chmod 600"))
	is.NoErr(os.Chmod(path, 0o600))
	for _, wrong := range []string{"", "whsec_", "whsec_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_%"} {
		is.NoErr(os.WriteFile(path, []byte(wrong), 0o600))
		_, err = Open(t.Context(), l.rule, l.o)
		is.True(err != nil && strings.Contains(err.Error(), "is no secret"))
	}
}

// TestPrivateAddressesAreRefused: where the connection is made, and whatever the name says.
func TestPrivateAddressesAreRefused(t *testing.T) {
	is := is.New(t)
	url, posts := receiver(t)
	_, port, _ := strings.Cut(strings.TrimPrefix(url, "http://"), ":")
	dns := newNames(t, netip.MustParseAddr("127.0.0.1"))
	for _, to := range []string{url, "http://localhost:" + port, "http://[::ffff:127.0.0.1]:" + port,
		"http://hooks.example:" + port, "http://0.0.0.0:" + port} {
		l := newLab(t, "*="+to+"/?secret=s3cret")
		l.o.AllowPrivate, l.o.Resolver = false, dns.resolver
		l.start()
		l.append("a", "1")
		for l.w.Report().Failing == "" && len(posts) == 0 {
			time.Sleep(time.Millisecond)
		}
		is.True(strings.Contains(l.w.Report().Failing, "--webhook-allow-private"))
		l.stop()
		is.True(!strings.Contains(l.log.String()+l.w.Report().Failing, "s3cret"))
	}
	is.Equal(len(posts), 0)

	for addr, want := range map[string]bool{
		"1.1.1.1": true, "93.184.215.14": true, "2606:4700::1111": true, "172.32.0.1": true,
		"127.8.9.1": false, "10.0.0.1": false, "172.16.0.1": false, "192.168.1.1": false, "169.254.169.254": false,
		"100.64.0.1": false, "0.0.0.0": false, "0.1.2.3": false, "224.0.0.1": false, "255.255.255.255": false,
		"198.18.0.1": false, "::1": false, "::": false, "fe80::1%eth0": false, "fd00::1": false, "ff02::1": false,
		"::ffff:10.0.0.1": false, "::ffff:100.64.0.1": false, "::ffff:1.1.1.1": true,
		"64:ff9b::7f00:1": false, "2002:7f00:1::": false, "::7f00:1": false,
	} {
		if public(netip.MustParseAddr(addr)) != want {
			t.Errorf("%s: %t", addr, !want)
		}
	}
}

// TestANameIsResolvedOnceForAConnection: so it cannot be another address that is connected to than that was looked at.
func TestANameIsResolvedOnceForAConnection(t *testing.T) {
	is := is.New(t)
	url, posts := receiver(t)
	_, port, _ := strings.Cut(strings.TrimPrefix(url, "http://"), ":")
	dns := newNames(t, netip.MustParseAddr("127.0.0.1"))
	l := newLab(t, "*=http://hooks.example:"+port)
	l.o.Resolver = dns.resolver
	l.start()
	for range 3 {
		want := l.append("a", "1")
		is.Equal(take(t, posts).body, want)
	}
	is.Equal(dns.asked.Load(), int64(1))
}

// names is a server of names that has one address for all of them.
type names struct {
	resolver *net.Resolver
	asked    atomic.Int64 // for IPv4 addresses
}

func newNames(t *testing.T, addr netip.Addr) *names {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &names{resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", c.LocalAddr().String())
	}}}
	var running sync.WaitGroup
	running.Go(func() {
		b := make([]byte, 1500)
		for {
			size, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			end := 12 // of the question, whose name is a list of labels
			for b[end] != 0 {
				end += int(b[end]) + 1
			}
			kind := binary.BigEndian.Uint16(b[end+1:])
			end += 5
			answer := append([]byte{}, b[:end]...)
			answer[2], answer[3] = 0x84, 0               // RFC 1035, section 4.1.1: an answer, without an error
			copy(answer[6:12], []byte{0, 0, 0, 0, 0, 0}) // nothing behind the question
			if size > 0 && kind == 1 {
				n.asked.Add(1)
				answer[7] = 1
				answer = append(answer, 0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
				answer = append(answer, addr.AsSlice()...)
			}
			_, _ = c.WriteTo(answer, from)
		}
	})
	t.Cleanup(func() { c.Close(); running.Wait() })
	return n
}

func TestRules(t *testing.T) {
	is := is.New(t)
	for text, want := range map[string]string{
		"*=http://h/": "* http://h/", "jobs/*=https://u:p@h:1/x?y=http://z": "jobs/* https://u:p@h:1/x?y=http://z",
		"a=b=http://h": "a=b http://h",
	} {
		r, err := ParseRule(text)
		is.NoErr(err)
		is.Equal(r.Streams+" "+r.URL.String(), want)
	}
	for _, text := range []string{"", "*", "http://h/", "=http://h/", "*=ftp://h/", "*=http://", "a*b=http://h/", "\n=http://h/",
		"*=http://h:x/"} {
		_, err := ParseRule(text)
		is.True(err != nil)
	}
	r, err := ParseRule("*=https://user:pass@Hooks.Example:8443/x?token=1")
	is.NoErr(err)
	is.Equal(r.String(), "*=https://Hooks.Example:8443/x")
	is.True(strings.HasPrefix(r.id(), "hooks.example-"))
}
