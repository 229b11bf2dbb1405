package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamctl/internal/bench"
	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

// socketScheme stands before the path of a socket, where a server's URL is wanted.
const socketScheme = "unix:"

// remote returns a client of the server that target has returned.
func (c *call) remote(server string) (*streamhttp.Client, error) {
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	client := &streamhttp.Client{URL: server, Token: token, Patience: answerTime}
	if path, ok := strings.CutPrefix(server, socketScheme); ok {
		client.HTTP = &http.Client{Transport: &http.Transport{DisableCompression: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return daemon.DialSocket(ctx, path) }}}
	} else if c.has("cacert") {
		roots, err := c.roots()
		if err != nil {
			return nil, err
		}
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.DisableCompression, transport.TLSClientConfig = true, &tls.Config{RootCAs: roots}
		client.HTTP = &http.Client{Transport: transport}
	}
	return client, nil
}

// roots are the certificates of --cacert, nil for those of the system.
func (c *call) roots() (*x509.CertPool, error) {
	if !c.has("cacert") {
		return nil, nil
	}
	b, err := os.ReadFile(c.value("cacert"))
	if err != nil {
		return nil, fmt.Errorf("--cacert: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("--cacert: %s has no certificate", daemon.Word(c.value("cacert")))
	}
	return roots, nil
}

// bare has a load go the way that a client goes, without the client.
func (c *call) bare(ctx context.Context, l *bench.Load) error {
	server, f, err := c.target()
	if err != nil {
		return err
	}
	roots, err := c.roots()
	if err != nil {
		return err
	}
	path, bySocket := strings.CutPrefix(server, socketScheme)
	switch {
	case bySocket:
		l.Dial = func(ctx context.Context) (net.Conn, error) { return daemon.DialSocket(ctx, path) }
	case roots != nil:
		u, err := url.Parse(server)
		if err != nil {
			return err
		}
		l.Dial = func(ctx context.Context) (net.Conn, error) {
			return (&tls.Dialer{Config: &tls.Config{RootCAs: roots}}).DialContext(ctx, "tcp",
				net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")))
		}
	case server == "":
		conn, secret, err := daemon.DialFolder(ctx, f.dir)
		if err != nil { // it has no door of its own
			return nil
		}
		conn.Close()
		l.Token = cmp.Or(secret, l.Token)
		l.Dial = func(ctx context.Context) (net.Conn, error) {
			conn, _, err := daemon.DialFolder(ctx, f.dir)
			return conn, err
		}
	}
	return nil
}

// clientOver returns a client of the folder's server, which begins with a connection to it. The later ones are made,
// and proven, in the same way.
func (f folder) clientOver(conn net.Conn, s server) *streamhttp.Client {
	first := make(chan net.Conn, 1)
	first <- conn
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		select {
		case conn := <-first:
			return conn, nil
		default:
		}
		conn, _, err := f.find(ctx)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("no server has %v", f)
		}
		return conn, err
	}
	var transport http.RoundTripper = &http.Transport{DialContext: dial, DialTLSContext: dial, DisableCompression: true}
	if s.secret != "" {
		transport = &secretly{transport, f}
	}
	return &streamhttp.Client{URL: s.url(), HTTP: &http.Client{Transport: transport}}
}

// secretly sends with each request the secret that the folder has then: its next server has another one.
type secretly struct {
	http.RoundTripper
	folder
}

func (s *secretly) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+daemon.SecretOf(s.dir))
	return s.RoundTripper.RoundTrip(r)
}

func (s *secretly) CloseIdleConnections() { s.RoundTripper.(*http.Transport).CloseIdleConnections() }

// enter connects to the server of the folder by its own door, and asks it who it is. The error is errOther where
// somebody is behind it who is not the folder's server or does not answer.
func (f folder) enter(ctx context.Context) (net.Conn, server, error) {
	ctx, cancel := context.WithTimeout(ctx, proofTime)
	defer cancel()
	var s server
	conn, secret, err := daemon.DialFolder(ctx, f.dir)
	if err != nil {
		return nil, s, err
	}
	s.secret = secret
	err = s.ask(conn)
	pid, known := f.holder()
	if by, tcp := conn.RemoteAddr().(*net.TCPAddr); err == nil && tcp && !f.is(s.Dir) &&
		!slices.Contains(ports(pid), by.Port) { // it may be that of the folder of which this one is a copy
		err = errOther
	}
	switch {
	case err != nil:
	case s.PID == 0:
		err = errOther
	case pid != 0:
		s.PID, s.moved = pid, seesSame(pid) && !f.is(s.Dir)
	case !known:
		s.moved = !f.is(s.Dir)
	}
	if err != nil {
		conn.Close()
		if secret == "" {
			err = fmt.Errorf("%w: %w", errOther, err)
		} else {
			err = fmt.Errorf("%s: %v", conn.RemoteAddr(), err) // the port may be another program's by now
		}
		return nil, s, err
	}
	if u, err := url.Parse(s.URL); err == nil {
		s.port, _ = strconv.Atoi(u.Port())
	}
	return conn, s, nil
}

// ask sends GET /healthz and reads exactly its answer, so that conn can be used on.
func (s *server) ask(conn net.Conn) error {
	conn.SetDeadline(time.Now().Add(proofTime))
	authorization := ""
	if s.secret != "" {
		authorization = "Authorization: Bearer " + s.secret + "\r\n"
	}
	if _, err := fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n%s\r\n", authorization); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK || answer.Close || json.Unmarshal(body, &s.Health) != nil || s.Status == "" {
		return errOther
	}
	conn.SetDeadline(time.Time{})
	return nil
}
