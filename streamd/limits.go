package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/daemon"
)

// limits are what a server takes no more of. Zero is no limit, but for connections, which have descriptors.
type limits struct {
	conns, subscribers, streams int
	minFree                     int64 // bytes that stay free on the disk

	there *atomic.Int64 // streams, where these are limited
}

// fit lets connections leave to the streams' files the half of the descriptors that these may have, and subscriptions,
// which last, leave connections to who appends.
func (l *limits) fit() {
	if most := maxConns(); l.conns == 0 || l.conns > most {
		l.conns = most
	}
	if most := max(l.conns*3/4, 1); l.subscribers == 0 || l.subscribers > most {
		l.subscribers = most
	}
}

// count counts the streams, where they are limited.
func (l *limits) count(ctx context.Context, s streamlib.Storage) error {
	if l.streams == 0 {
		return nil
	}
	l.there = &atomic.Int64{}
	for after := ""; ; {
		names, err := s.List(ctx, "", after, 10_000)
		if err != nil || len(names) == 0 {
			return err
		}
		l.there.Add(int64(len(names)))
		after = names[len(names)-1]
	}
}

// over returns the storage within the limits.
func (l *limits) over(s streamlib.Storage, o options) streamlib.Storage {
	if l.streams == 0 && l.minFree == 0 {
		return s
	}
	return &limited{Storage: s, limits: l, free: func() (int64, error) {
		free, _, err := daemon.Free(o.dir)
		return free, err
	}}
}

// limited is a storage that takes no more than its limits.
type limited struct {
	streamlib.Storage
	*limits
	free func() (int64, error)

	mu    sync.Mutex // guards what follows
	asked time.Time
	room  error // what was found out then
}

func (s *limited) Commit(ctx context.Context, name string, c streamlib.Change) error {
	if len(c.Events) > 0 {
		if err := s.roomy(); err != nil {
			return err
		}
	}
	if s.streams == 0 || !c.Delete && !makes(c) {
		return s.Storage.Commit(ctx, name, c)
	}
	info, err := s.Stat(ctx, name)
	there := err != nil || info.Exists() // what is damaged is there
	switch {
	case !c.Delete && there, c.Delete && !there:
		return s.Storage.Commit(ctx, name, c)
	case c.Delete:
		err := s.Storage.Commit(ctx, name, c)
		if err == nil {
			s.there.Add(-1)
		}
		return err
	}
	if s.there.Add(1) > int64(s.streams) {
		s.there.Add(-1)
		return fmt.Errorf("%w: there are %d streams, and --max-streams allows no more", streamlib.ErrUnavailable, s.streams)
	}
	err = s.Storage.Commit(ctx, name, c)
	if err != nil {
		s.there.Add(-1)
	}
	return err
}

// makes tells whether a change may make a stream.
func makes(c streamlib.Change) bool {
	return len(c.Events) > 0 && c.Events[0].Offset == 0 || c.State != nil
}

// askEvery is how long what the disk said of its room is believed.
const askEvery = 100 * time.Millisecond

// roomy fails where less of the disk is free than there should be. Where the system does not tell it finds nothing.
func (s *limited) roomy() error {
	if s.minFree == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.asked) >= askEvery {
		s.asked, s.room = time.Now(), nil
		if free, err := s.free(); err == nil && free < s.minFree {
			s.room = fmt.Errorf("%w: %d bytes are free on the disk, and --min-free keeps %d", streamlib.ErrFull, free, s.minFree)
		}
	}
	return s.room
}

// connections are those that there are.
type connections struct {
	most int64
	log  *slog.Logger
	n    atomic.Int64
	told atomic.Int64 // when the log was told last that there were too many, in seconds
}

// limit returns l, whose connections are answered 503 where there are too many already; with config, over TLS.
func (c *connections) limit(l net.Listener, config *tls.Config) net.Listener {
	if c.most <= 0 {
		return l
	}
	return limitedListener{l, c, config}
}

type limitedListener struct {
	net.Listener
	c      *connections
	config *tls.Config
}

const tooMany = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" +
	"Retry-After: 1\r\nConnection: close\r\n\r\n%s"

func (l limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		n := l.c.n.Add(1)
		counted := &countedConn{Conn: conn, c: l.c}
		if n <= l.c.most {
			return counted, nil
		}
		if now := time.Now().Unix(); now-l.c.told.Swap(now) > 60 {
			l.c.log.Warn("there are too many connections: --max-conns", "connections", l.c.most)
		}
		if n > l.c.most+refusing { // those who are told it are a few
			counted.Close()
			continue
		}
		go counted.refuse(l.config) // for a second at most
	}
}

// refusing is how many connections may wait for their refusal to be read, for a second.
const refusing = 32

type countedConn struct {
	net.Conn
	c    *connections
	once sync.Once
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.c.n.Add(-1) })
	return c.Conn.Close()
}

// NetConn is for who looks for the connection of the system.
func (c *countedConn) NetConn() net.Conn { return c.Conn }

// refuse answers, and reads what the other side sends until that has the answer: else a reset could take it away.
func (c *countedConn) refuse(config *tls.Config) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	conn := c.Conn
	if config != nil {
		conn = tls.Server(conn, config)
	}
	body := fmt.Sprintf(`{"error":"there are %d connections, and no more at once"}`+"\n", c.c.most)
	_, err := fmt.Fprintf(conn, tooMany, len(body), body)
	half, ok := conn.(interface{ CloseWrite() error })
	if err != nil || !ok || half.CloseWrite() != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, conn, 1<<20)
}
