//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/iterate/durable-streams/streamctl/internal/bench"
)

// startNATS starts a NATS with JetStream, which syncs each event where it can: version 2.9 cannot, and answers before
// the disk has the event.
func startNATS(ctx context.Context, dir string) *server {
	program := must(exec.LookPath("nats-server"))
	address, _ := freeAddress()
	config := filepath.Join(dir, "config")
	write := func(sync string) {
		// The wire answers no pings, so none shall be missed.
		const format = "listen: %q\nping_interval: \"1h\"\njetstream { store_dir: %q%s }\n"
		check(os.WriteFile(config, fmt.Appendf(nil, format, address, dir, sync), 0o600))
	}
	name := "NATS"
	write(", sync_interval: always")
	if _, refused := errors.AsType[*exec.ExitError](exec.CommandContext(ctx, program, "-t", "-c", config).Run()); refused {
		name = "NATS, unsynced"
		write("")
	}
	return newServer(ctx, program, "-c", config).await(ctx, name, address, helloNATS)
}

// nats publishes one event a request to JetStream, in NATS's protocol, and reads JetStream's answer from an inbox.
type nats struct{ inbox string }

// helloNATS also makes the JetStream stream that takes all subjects of the load, unless there is one.
func helloNATS(w io.Writer, r *bufio.Reader) (bench.Wire, error) {
	n := nats{"_INBOX." + rand.Text()}
	b := fmt.Appendf(nil, "CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB %s 1\r\n", n.inbox)
	b = n.publish(b, "$JS.API.STREAM.CREATE.bench", []byte(`{"name":"bench","subjects":["b.*"],"storage":"file"}`))
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	_, err := n.Answer(r)
	return n, err
}

func (n nats) publish(b []byte, subject string, data []byte) []byte {
	return fmt.Appendf(b, "PUB %s %s %d\r\n%s\r\n", subject, n.inbox, len(data), data)
}

func (n nats) Request(b []byte, stream string, events []byte) []byte {
	return n.publish(b, "b."+stream, bytes.TrimSuffix(events, []byte("\n")))
}

// Answer returns 0: a sequence number is JetStream's, over all subjects.
func (nats) Answer(r *bufio.Reader) (first int64, err error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return 0, err
		}
		switch {
		case strings.HasPrefix(line, "-ERR"):
			return 0, errors.New(strings.TrimSpace(line))
		case strings.HasPrefix(line, "MSG "): // its last field is the length of what follows
			length, err := strconv.Atoi(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]))
			if err != nil {
				return 0, err
			}
			body := make([]byte, length+len("\r\n"))
			if _, err := io.ReadFull(r, body); err != nil {
				return 0, err
			}
			if bytes.Contains(body, []byte(`"error":`)) {
				return 0, &bench.RefusedError{Text: string(bytes.TrimSpace(body))}
			}
			return 0, nil
		} // or INFO, or PING
	}
}
