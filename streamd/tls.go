package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iterate/durable-streams/streamlib/metrics"
)

// lookEvery is how often, at most, the files of a certificate are looked at.
const lookEvery = time.Second

// A certificate is the pair of --tls-cert and --tls-key. It is read again when it is wanted and its files have changed;
// a bad one changes nothing.
type certificate struct {
	cert, key string
	log       *slog.Logger

	use    atomic.Pointer[tls.Certificate]
	looked atomic.Int64 // when the files were looked at last, in nanoseconds since 1970

	mu   sync.Mutex     // held while the files are read; guards what follows
	seen [2]os.FileInfo // what they were then; nil is unknown
	said string         // the error that was logged of them
}

// openCertificate reads the pair that the flags name; nil where they name none.
func openCertificate(o options, log *slog.Logger) (*certificate, error) {
	if o.tlsCert == "" {
		return nil, nil
	}
	c := &certificate{cert: o.tlsCert, key: o.tlsKey, log: log}
	return c, c.load(true)
}

// config is for who serves by the certificate; what it speaks is in protocols.
func (c *certificate) config(protocols ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			now := time.Now().UnixNano()
			if last := c.looked.Load(); now-last >= int64(lookEvery) && c.looked.CompareAndSwap(last, now) {
				_ = c.load(false) // which logs
			}
			return c.use.Load(), nil
		}}
}

// load reads the files, where they are not what they were, or again is so.
func (c *certificate) load(again bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var now [2]os.FileInfo
	for i, path := range [...]string{c.cert, c.key} {
		now[i], _ = os.Stat(path) // which reading it will tell, too
	}
	if !again && isSame(now[0], c.seen[0]) && isSame(now[1], c.seen[1]) {
		return nil
	}
	for i, info := range now {
		// One that was just written may be written again within a tick of the clock.
		if c.seen[i] = info; info != nil && time.Since(info.ModTime()) < 2*time.Second {
			c.seen[i] = nil
		}
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	had := c.use.Load()
	switch {
	case err != nil:
		err = fmt.Errorf("--tls-cert and --tls-key: %w", err)
		if had != nil && c.said != err.Error() {
			c.said = err.Error()
			c.log.Error("the certificate from before stays in force", "error", err)
		}
		return err
	case had != nil && bytes.Equal(had.Certificate[0], pair.Certificate[0]) && c.said == "":
		return nil
	}
	c.said = ""
	c.use.Store(&pair)
	level, until := slog.LevelInfo, pair.Leaf.NotAfter
	if time.Now().After(until) {
		level = slog.LevelWarn
	}
	c.log.Log(context.Background(), level, "certificate read", "file", c.cert, "names", pair.Leaf.DNSNames, "until", until)
	return nil
}

func isSame(a, b os.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// write writes when the certificate ends; c may be nil.
func (c *certificate) write(p *metrics.Page) {
	if c != nil {
		p.Gauge("streamd_tls_certificate_end_seconds", "When the certificate of --tls-cert ends, in seconds since 1970.",
			float64(c.use.Load().Leaf.NotAfter.Unix()))
	}
}
