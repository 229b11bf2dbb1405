//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/iterate/durable-streams/streamctl/internal/bench"
)

// startRedis starts a Redis that syncs each append.
func startRedis(ctx context.Context, dir string) *server {
	address, port := freeAddress()
	s := newServer(ctx, must(exec.LookPath("redis-server")), "--bind", "127.0.0.1", "--port", port, "--dir", dir,
		"--appendonly", "yes", "--appendfsync", "always", "--save", "", "--auto-aof-rewrite-percentage", "0")
	return s.await(ctx, "Redis", address, helloRedis)
}

// redis appends one event a request with XADD, in Redis's protocol (RESP 2).
type redis struct{}

func helloRedis(io.Writer, *bufio.Reader) (bench.Wire, error) { return redis{}, nil }

func (redis) Request(b []byte, stream string, events []byte) []byte {
	data := bytes.TrimSuffix(events, []byte("\n"))
	return fmt.Appendf(b, "*5\r\n$4\r\nXADD\r\n$%d\r\n%s\r\n$1\r\n*\r\n$4\r\ndata\r\n$%d\r\n%s\r\n", len(stream), stream, len(data), data)
}

// Answer returns 0: Redis's ids are no offsets.
func (redis) Answer(r *bufio.Reader) (first int64, err error) {
	line, err := r.ReadString('\n') // $LENGTH, then the id
	if err != nil {
		return 0, err
	}
	if !strings.HasPrefix(line, "$") {
		return 0, &bench.RefusedError{Text: strings.TrimSpace(line)}
	}
	_, err = r.ReadSlice('\n')
	return 0, err
}
