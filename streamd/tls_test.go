//go:build unix

package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/matryer/is"
)

// pairFiles are where a certificate of a test is.
type pairFiles struct{ cert, key string }

func (p pairFiles) flags() []string { return []string{"--tls-cert", p.cert, "--tls-key", p.key} }

// makePair makes a certificate for localhost that has signed itself, and returns it.
func makePair(t *testing.T, p pairFiles, name string) *x509.Certificate {
	t.Helper()
	is := is.New(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	is.NoErr(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	is.NoErr(err)
	bytes, err := x509.MarshalPKCS8PrivateKey(key)
	is.NoErr(err)
	for path, block := range map[string]*pem.Block{p.cert: {Type: "CERTIFICATE", Bytes: der},
		p.key: {Type: "PRIVATE KEY", Bytes: bytes}} {
		is.NoErr(os.WriteFile(path+".new", pem.EncodeToMemory(block), 0o600))
		is.NoErr(os.Rename(path+".new", path))
	}
	cert, err := x509.ParseCertificate(der)
	is.NoErr(err)
	return cert
}

func newPair(t *testing.T) (pairFiles, *x509.Certificate) {
	t.Helper()
	dir := t.TempDir()
	p := pairFiles{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	return p, makePair(t, p, "first")
}

// trustingIn returns a client that trusts a certificate alone.
func trustingIn(t *testing.T, cert *x509.Certificate, http2 bool) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	transport := &http.Transport{ForceAttemptHTTP2: http2, TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// TestTLS: the port speaks TLS 1.2 or later and HTTP/2, events come over both as they are appended, and the server ends
// cleanly while they are followed. The folder's socket and --unix want no certificate.
func TestTLS(t *testing.T) {
	is := is.New(t)
	pair, cert := newPair(t)
	dir, unix := t.TempDir(), filepath.Join(t.TempDir(), "s")
	url, end := inProcess(t, dir, append(pair.flags(), "--unix", unix)...)
	is.True(strings.HasPrefix(url, "https://127.0.0.1:"))
	var followers []*bufio.Reader
	for proto, http2 := range map[string]bool{"HTTP/2.0": true, "HTTP/1.1": false} {
		client := trustingIn(t, cert, http2)
		resp, err := client.Get(url + "/streams/s?offset=-1")
		is.NoErr(err)
		defer resp.Body.Close()
		is.Equal(resp.Proto, proto)
		followers = append(followers, bufio.NewReader(resp.Body))
	}
	for range 3 {
		resp, err := trustingIn(t, cert, true).Post(url+"/streams/s", "", strings.NewReader(`{"data":1}`))
		is.NoErr(err)
		b, err := io.ReadAll(resp.Body)
		is.NoErr(err)
		resp.Body.Close()
		is.Equal(resp.StatusCode, 201)
		for _, f := range followers {
			for line := ""; line != "data: "+string(b); {
				line, err = f.ReadString('\n')
				is.NoErr(err)
			}
		}
	}
	_, health, err := ask(t.Context(), dir)
	is.NoErr(err)
	is.Equal(health.URL, url)
	status, _ := throughSocket(t, unix, "GET", "/streams")
	is.Equal(status, 200)
	_, err = tls.Dial("tcp", strings.TrimPrefix(url, "https://"),
		&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	is.True(err != nil && strings.Contains(err.Error(), "protocol version"))
	_, figures := throughSocket(t, unix, "GET", "/metrics")
	_, figure, _ := strings.Cut(figures, "\nstreamd_tls_certificate_end_seconds ")
	figure, _, _ = strings.Cut(figure, "\n")
	at, err := strconv.ParseFloat(figure, 64)
	is.NoErr(err)
	is.Equal(int64(at), cert.NotAfter.Unix())
	_, err = end()
	is.NoErr(err)
	for _, f := range followers {
		_, err := io.ReadAll(f)
		is.NoErr(err) // ended, and not cut off
	}
}

// TestCertificateIsReadAgain, while a hundred connect at once, without one that fails, on SIGHUP or when it is seen. A
// bad pair changes nothing, and is told.
func TestCertificateIsReadAgain(t *testing.T) {
	is := is.New(t)
	pair, first := newPair(t)
	server := start(t, t.TempDir(), "sh", "-c", `exec "$0" "$@" `+strings.Join(pair.flags(), " "))
	address := strings.TrimPrefix(server.url, "https://")
	shown := func() (string, error) { // when the server has closed it
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return "", err
		}
		defer conn.Close()
		_, err = io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		if err == nil {
			_, err = io.ReadAll(conn)
		}
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName, err
	}
	name, err := shown()
	is.NoErr(err)
	is.Equal(name, first.Subject.CommonName)

	until := func(want string) {
		t.Helper()
		var connecting sync.WaitGroup
		for range 100 {
			connecting.Go(func() {
				if _, err := shown(); err != nil {
					t.Error(err)
				}
			})
		}
		for begun := time.Now(); ; {
			if name, err := shown(); err != nil || time.Since(begun) > time.Minute {
				t.Fatal(name, err)
			} else if name == want {
				break
			}
		}
		connecting.Wait()
	}
	makePair(t, pair, "second")
	server.signal(syscall.SIGHUP)
	until("second")
	makePair(t, pair, "third") // which is seen without a word
	until("third")
	is.NoErr(os.WriteFile(pair.key, []byte("no key"), 0o600))
	server.signal(syscall.SIGHUP)
	is.NoErr(os.Remove(pair.cert))
	server.signal(syscall.SIGHUP)
	until("third")
	makePair(t, pair, "fourth")
	until("fourth")
	is.NoErr(server.end(syscall.SIGTERM))
	log := server.stderr.String()
	is.True(strings.Contains(log, "the certificate from before stays in force"))
	is.True(!strings.Contains(log, "PRIVATE KEY"))
}

// TestMaxConnsOverTLS: one too many is answered there, too.
func TestMaxConnsOverTLS(t *testing.T) {
	is := is.New(t)
	pair, cert := newPair(t)
	url, _ := inProcess(t, t.TempDir(), append(pair.flags(), "--max-conns", "1")...)
	first := trustingIn(t, cert, true)
	resp, err := first.Get(url + "/streams/s")
	is.NoErr(err)
	defer resp.Body.Close()
	refused, err := trustingIn(t, cert, false).Get(url + "/healthz")
	is.NoErr(err)
	defer refused.Body.Close()
	is.Equal(refused.StatusCode, http.StatusServiceUnavailable)
	is.Equal(refused.Header.Get("Retry-After"), "1")
}

// TestFlagsOfTLS: what is half or does not fit is refused before anything begins.
func TestFlagsOfTLS(t *testing.T) {
	pair, _ := newPair(t)
	other, _ := newPair(t)
	tokens := filepath.Join(t.TempDir(), "tokens")
	tokensFile(t, tokens, "a read")
	for _, test := range []struct {
		args string
		code int
		says string
	}{
		{strings.Join(pair.flags(), " "), 0, ""},
		{"--host 0.0.0.0 --tokens " + tokens + " " + strings.Join(pair.flags(), " "), 0, ""},
		{"--host 0.0.0.0 " + strings.Join(pair.flags(), " "), 2, "streamctl token create"},
		{"--host 0.0.0.0 --tokens " + tokens, 2, "give it --tls-cert and --tls-key"},
		{"--tls-cert " + pair.cert, 2, "go together"},
		{"--tls-key " + pair.key, 2, "go together"},
		{"--tls-cert " + pair.cert + " --tls-key " + other.key, 1, "--tls-key: tls: private key does not match"},
		{"--tls-cert /none --tls-key " + pair.key, 1, "/none"},
	} {
		t.Run(test.args, func(t *testing.T) {
			is := is.New(t)
			err := run(t.Context(), append(strings.Fields(test.args), "--check", "--dir", t.TempDir()), noEnv, nil, io.Discard,
				io.Discard)
			is.Equal(exitCode(err), test.code)
			is.True(err == nil || strings.Contains(err.Error(), test.says))
		})
	}
}

// TestSubscriptionOverTLS resumes, over HTTP/2, where its server was killed.
func TestSubscriptionOverTLS(t *testing.T) {
	is := is.New(t)
	pair, cert := newPair(t)
	dir := t.TempDir()
	run := []string{"sh", "-c", `exec "$0" "$@" ` + strings.Join(pair.flags(), " ")}
	server := start(t, dir, run...)
	client := &streamhttp.Client{URL: server.url, HTTP: trustingIn(t, cert, true)}
	var address atomic.Value // of the present server
	address.Store(strings.TrimPrefix(server.url, "https://"))
	client.HTTP.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address.Load().(string))
	}
	n := 0
	appended := func() {
		is.NoErr(add(t.Context(), client.Stream("s"), "1"))
	}
	appended()
	for events, err := range client.Stream("s").Subscribe(t.Context(), 0) {
		is.NoErr(err)
		for _, e := range events {
			is.Equal(int(e.Offset), n)
			n++
		}
		if n == 3 {
			break
		}
		server.signal(syscall.SIGKILL)
		is.True(server.wait() != nil)
		server = start(t, dir, run...)
		address.Store(strings.TrimPrefix(server.url, "https://"))
		appended()
	}
	is.Equal(n, 3)
}

func add(ctx context.Context, s streamlib.Stream, data string) error {
	_, err := s.Append(ctx, streamlib.Batch{Data: streamlib.JSON(data), Key: rand.Text()}) // sent again where it is lost
	return err
}
