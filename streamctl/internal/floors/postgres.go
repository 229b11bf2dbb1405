//go:build linux

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/iterate/durable-streams/streamctl/internal/bench"
)

// A reader of one stream goes by the primary key. The type json checks what streamd checks, and keeps the text.
const (
	createTable = "CREATE TABLE events (id bigserial, stream text, data json NOT NULL, PRIMARY KEY (stream, id))\n"
	insertEvent = "INSERT INTO events (stream, data) VALUES ($1, $2) RETURNING id"
)

// startPostgres starts a PostgreSQL as initdb leaves it: fsync and synchronous_commit are on.
func startPostgres(ctx context.Context, dir string) *server {
	initdb := must(filepath.EvalSymlinks(must(lookInitdb()))) // a link may have no postgres beside it
	postgres := filepath.Join(filepath.Dir(initdb), "postgres")
	owner := postgresOwner(dir)
	command := func(path string, args ...string) *server {
		s := newServer(ctx, path, args...)
		s.cmd.Dir, s.cmd.SysProcAttr.Credential = dir, owner
		return s
	}
	run := func(stdin, path string, args ...string) {
		s := command(path, args...)
		s.cmd.Stdin = strings.NewReader(stdin)
		if out, err := s.cmd.CombinedOutput(); err != nil {
			check(fmt.Errorf("%w: %s", err, lastLine(out)))
		}
	}
	run("", initdb, "-D", ".", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale")
	run(createTable, postgres, "--single", "-D", ".", "postgres")
	address, port := freeAddress()
	s := command(postgres, "-D", ".", "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200")
	return s.await(ctx, "PostgreSQL", address, helloPostgres)
}

// lookInitdb finds initdb on PATH, or where Debian has it, for each version: then it is the newest.
func lookInitdb() (string, error) {
	path, err := exec.LookPath("initdb")
	if all, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb"); err != nil && len(all) > 0 {
		version := func(path string) float64 {
			v, _ := strconv.ParseFloat(strings.Split(path, "/")[4], 64)
			return v
		}
		return slices.MaxFunc(all, func(a, b string) int { return cmp.Compare(version(a), version(b)) }), nil
	}
	return path, err
}

// postgresOwner gives dir to the user postgres where this process is root's, as whom PostgreSQL does not run, and lets that
// user pass the two folders above, which are the run's own.
func postgresOwner(dir string) *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	u := must(user.Lookup("postgres"))
	uid, gid := must(strconv.Atoi(u.Uid)), must(strconv.Atoi(u.Gid))
	check(os.Chown(dir, uid, gid))
	for range 2 {
		dir = filepath.Dir(dir)
		check(os.Chmod(dir, must(os.Stat(dir)).Mode()|0o001))
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// postgres inserts one event a request, by a prepared statement, in version 3 of PostgreSQL's protocol.
type postgres struct{}

// helloPostgres also inserts a first event, over which a new process of PostgreSQL's takes its time.
func helloPostgres(w io.Writer, r *bufio.Reader) (bench.Wire, error) {
	startup := message(nil, 0, "\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00")[1:] // the one without a type
	prepare := message(nil, 'P', "append\x00", insertEvent, "\x00\x00\x00")
	for _, request := range [][]byte{startup, postgres{}.Request(prepare, "hello", []byte("{}"))} {
		if _, err := w.Write(request); err != nil {
			return nil, err
		}
		if _, err := (postgres{}).Answer(r); err != nil {
			return nil, err
		}
	}
	return postgres{}, nil
}

// message appends a message: its type, a length that counts itself, and its parts.
func message(b []byte, kind byte, parts ...string) []byte {
	start := len(b)
	b = append(b, kind, 0, 0, 0, 0)
	for _, p := range parts {
		b = append(b, p...)
	}
	binary.BigEndian.PutUint32(b[start+1:], uint32(len(b)-start-1))
	return b
}

func (postgres) Request(b []byte, stream string, events []byte) []byte {
	length := func(s string) string { return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) }
	data := string(bytes.TrimSuffix(events, []byte("\n")))
	b = message(b, 'B', "\x00append\x00", "\x00\x00", "\x00\x02", length(stream), stream, length(data), data, "\x00\x00")
	b = message(b, 'E', "\x00\x00\x00\x00\x00")
	return message(b, 'S')
}

// Answer reads until the server is ready for the next request. It returns 0: an id is not an offset in its stream.
func (postgres) Answer(r *bufio.Reader) (first int64, err error) {
	var refused error
	for {
		var head [5]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if refused != nil { // for good
				err = fmt.Errorf("%w: %v", err, refused)
			}
			return 0, err
		}
		body := make([]byte, max(binary.BigEndian.Uint32(head[1:]), 4)-4)
		if _, err := io.ReadFull(r, body); err != nil {
			return 0, err
		}
		switch head[0] {
		case 'E': // fields of a letter and a text; M is the message
			_, text, _ := bytes.Cut(body, []byte("\x00M"))
			text, _, _ = bytes.Cut(text, []byte("\x00"))
			refused = &bench.RefusedError{Text: string(text)}
		case 'Z':
			return 0, refused
		}
	}
}
