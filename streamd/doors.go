package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

// A door is a listener, and what whoever comes through it is taken for.
type door struct {
	net.Listener
	kind doorKind
}

type doorKind int

const (
	public doorKind = iota // for everybody who can reach it: needs a token, where there are any
	own                    // the folder's: whoever may use that needs none, and is told all
	admin                  // for operators: health, figures and profiles, and nothing else
)

// encrypts tells whether the door speaks TLS, where there is a certificate.
func (d *door) encrypts() bool {
	addr, tcp := d.Addr().(*net.TCPAddr)
	return tcp && (d.kind == public || d.kind == admin && !addr.IP.IsLoopback())
}

// doors are those of a server.
type doors struct {
	all    []*door
	url    string // of the first
	port   int    // at 127.0.0.1, 0 where there is none
	secret string // that each request through the folder's door is to have; "" where that is a socket
	hint   []byte // what says in the folder where that door is; nil is that its socket does
}

// openOwn opens the folder's door: its socket, or where there can be none a port of this machine, with a secret that
// stands in the folder.
func (d *doors) openOwn(dir string, log *slog.Logger) error {
	l, err := daemon.ListenFolder(dir)
	if err == nil {
		d.all = append(d.all, &door{l, own})
		return nil
	}
	if !errors.Is(err, errors.ErrUnsupported) {
		log.Warn("the folder has no socket; streamctl comes by a port, with a secret from the folder", "error", err)
	}
	if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	d.all, d.secret = append(d.all, &door{l, own}), rand.Text()
	d.hint = daemon.Secret(l.Addr().(*net.TCPAddr).Port, d.secret)
	return nil
}

// openUnix opens the door of --unix, for everybody who may use that socket.
func (d *doors) openUnix(path string) error {
	l, err := daemon.ListenSocket(path)
	if err != nil {
		return fmt.Errorf("--unix: %w", err)
	}
	d.all = append(d.all, &door{l, public})
	return nil
}

// openAdmin opens the door of --admin.
func (d *doors) openAdmin(ctx context.Context, o options) error {
	ip, err := adminAddress(o)
	if err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(o.admin)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(ip.String(), port))
	if err != nil {
		return fmt.Errorf("--admin: %w", err)
	}
	d.all = append(d.all, &door{l, admin})
	return nil
}

// adminAddress returns what the host of --admin stands for, unless that wants a word more.
func adminAddress(o options) (*net.IPAddr, error) {
	host, _, _ := net.SplitHostPort(o.admin)
	ip, err := net.ResolveIPAddr("ip", cmp.Or(host, "0.0.0.0"))
	if err != nil {
		return nil, fmt.Errorf("--admin %q: %w", o.admin, err)
	}
	return ip, allowed(o, ip.IP, "--admin "+o.admin)
}

// checkAdmin makes a port alone one of this machine.
func (o *options) checkAdmin() error {
	if o.admin == "" {
		return nil
	}
	if !strings.Contains(o.admin, ":") {
		o.admin = "127.0.0.1:" + o.admin
	}
	_, port, err := net.SplitHostPort(o.admin)
	if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil {
		return fmt.Errorf("--admin %q: it is a port, or an address and a port, such as 127.0.0.1:3001", o.admin)
	} else if n == uint64(o.port) && n != 0 && o.port != 0 {
		return fmt.Errorf("--admin %q: it has the port of --port", o.admin)
	}
	return nil
}

func (d *doors) close() {
	for _, door := range d.all {
		door.Close()
	}
}

type doorKey struct{}

// tell lets a server's handler know through which door each request comes. It is called before the server serves.
func (d *doors) tell(server *http.Server) {
	had := server.BaseContext
	server.BaseContext = func(l net.Listener) context.Context {
		return context.WithValue(had(l), doorKey{}, l.(*door).kind)
	}
}

func kindOf(r *http.Request) doorKind {
	kind, _ := r.Context().Value(doorKey{}).(doorKind)
	return kind
}

// isOwn tells whether r comes from who may use the folder.
func (d *doors) isOwn(r *http.Request) bool {
	return kindOf(r) == own && (d.secret == "" || hasSecret(r, d.secret))
}

// hasSecret tells whether r has a secret as its bearer token.
func hasSecret(r *http.Request, secret string) bool {
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return ok && subtle.ConstantTimeCompare([]byte(given), []byte(secret)) == 1
}

// guard is the handler for all doors: through the folder's, where that is a port, nobody comes without its secret.
func (d *doors) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if kindOf(r) == own && !d.isOwn(r) {
			http.Error(w, "this port is the folder's own", http.StatusUnauthorized)
			return
		}
		if !opens(kindOf(r), r) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"error":"there is no such path here"}`+"\n")
			return
		}
		h.ServeHTTP(w, r)
	})
}

// opens tells whether a door leads where r wants to go: profiles are behind that of operators alone, and no page of
// another site gets them.
func opens(kind doorKind, r *http.Request) bool {
	path := r.URL.Path
	debug := path == "/debug" || strings.HasPrefix(path, "/debug/")
	if kind != admin {
		return !debug
	}
	from := r.Header.Get("Sec-Fetch-Site")
	return debug && (from == "" || from == "none" || from == "same-origin") ||
		path == "/healthz" || path == "/readyz" || path == "/metrics"
}

// trusting is access for who may use the folder, and for whoever else has it.
type trusting struct {
	streamhttp.Access
	doors *doors
}

func (t trusting) Grant(r *http.Request) (streamhttp.Grant, error) {
	if t.doors.isOwn(r) {
		return streamhttp.Grant{Name: "who may use the folder", Right: streamhttp.Admin}, nil
	}
	return t.Access.Grant(r)
}

// ask asks who has the folder, by its own door, and returns a client of that server too.
func ask(ctx context.Context, dir string) (*streamhttp.Client, streamhttp.Health, error) {
	conn, secret, err := daemon.DialFolder(ctx, dir)
	if err != nil {
		return nil, streamhttp.Health{}, err
	}
	conn.Close()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, _, err := daemon.DialFolder(ctx, dir)
		return conn, err
	}
	client := &streamhttp.Client{URL: "http://localhost", Token: secret,
		HTTP: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
	health, err := client.Health(ctx)
	if err != nil {
		return nil, health, err
	}
	ours, err := os.Stat(dir)
	if err != nil {
		return nil, health, err
	}
	theirs, err := os.Stat(health.Dir)
	if err != nil || !os.SameFile(ours, theirs) { // the files of a copy lead there, too
		return nil, health, errors.New("another folder's server")
	}
	return client, health, nil
}
