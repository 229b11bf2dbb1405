package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/follower"
	"github.com/iterate/durable-streams/streamlib/mirror"
	"github.com/iterate/durable-streams/streamlib/object"
)

const (
	// mirrorDir is the folder's folder with what a mirror keeps, and mirrorID the file there that tells folders apart.
	mirrorDir, mirrorID = "mirror", "id"
	// mirrorEnd is how long the end waits for what the mirror is in the middle of.
	mirrorEnd = 500 * time.Millisecond
)

// A mirroring is the mirror of --mirror; the zero value is none.
type mirroring struct {
	*mirror.Mirror
	to  string
	log *slog.Logger
}

// openMirror opens that of the flags: what there is, and what is appended from then on, is copied once it runs. The
// store may be away.
func openMirror(ctx context.Context, o options, m *streamlib.Manager, log *slog.Logger) (mirroring, error) {
	if o.mirror == "" {
		return mirroring{}, nil
	}
	id, err := folderID(o.dir)
	if err != nil {
		return mirroring{}, fmt.Errorf("--mirror %s: %w", o.mirror, err)
	}
	bucket, _, _ := strings.Cut(strings.TrimPrefix(o.mirror, bucketScheme), "/")
	sum := sha256.Sum256([]byte(endpoint(o.s3Endpoint) + " " + o.mirror))
	c, err := mirror.Open(ctx, mirror.Options{
		Manager: m, Log: log, Path: filepath.Join(o.dir, mirrorDir, bucket+"-"+hex.EncodeToString(sum[:6])+".cursor"),
		Target: func(ctx context.Context) (streamlib.Storage, bool, error) {
			return openClaimed(ctx, o.mirror, o.s3Endpoint, o.dir, id, log)
		},
	})
	if err != nil {
		return mirroring{}, fmt.Errorf("--mirror %s: %w", o.mirror, err)
	}
	log.Info("copying what is appended", "mirror", o.mirror)
	return mirroring{c, o.mirror, log}, nil
}

// openClaimed opens the place of a mirror, which must be this folder's, and tells whether it had nothing.
func openClaimed(ctx context.Context, place, s3Endpoint, dir, id string,
	log *slog.Logger) (to streamlib.Storage, fresh bool, err error) {
	o := bucketOptions(place, s3Endpoint)
	o.Patience, o.Log = slowPatience, log
	s, err := object.Open(ctx, o)
	if err != nil {
		return nil, false, err
	}
	ours, fresh, err := s.Claim(ctx, id)
	if err == nil && !ours {
		place = strings.TrimSuffix(place, "/")
		err = fmt.Errorf("%s has streams that are not of this folder, or is another folder's mirror: choose another "+
			"prefix; or where that folder is gone for good, and this one was restored from there, copy %s to %s/mirror",
			place, daemon.Word(filepath.Join(dir, mirrorDir, mirrorID)), place)
	}
	if err != nil {
		return nil, false, errors.Join(err, s.Close())
	}
	return s, fresh, nil
}

// folderID returns what tells the folder from others, which it makes where there is none.
func folderID(dir string) (string, error) {
	in := filepath.Join(dir, mirrorDir)
	if err := os.Mkdir(in, 0o700); err == nil {
		if f, err := os.Open(in); err == nil {
			daemon.Give(f, dir)
			f.Close()
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	b, _, err := daemon.Read(in, mirrorID)
	if id := strings.TrimSpace(string(b)); err == nil && id != "" {
		return id, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	id := rand.Text()
	return id, replace(in, mirrorID, []byte(id+"\n"))
}

// start lets it copy until the function that it returns is called, which waits for what was appended before, as long
// as ctx lets it.
func (m mirroring) start() (stop func(ctx context.Context)) {
	if m.Mirror == nil {
		return func(context.Context) {}
	}
	running, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { // which stop waits for
		defer close(ended)
		m.Run(running)
	}()
	var once sync.Once
	return func(ctx context.Context) {
		once.Do(func() {
			err := m.Flush(ctx)
			if s := m.Status(); err != nil || s.Failed > 0 {
				m.log.Warn("the mirror lacks some of what was appended, and will get it after the next start", "mirror", m.to,
					"streams", max(s.Waiting, s.Failed))
			}
			cancel()
			select {
			case <-ended:
			case <-time.After(mirrorEnd): // it waits for the store, and ends with the process
			}
		})
	}
}

// reports tells how far it is.
func (m mirroring) reports() []follower.Report {
	if m.Mirror == nil {
		return nil
	}
	r := m.Status().Report()
	r.Streams, r.To = "*", m.to
	return []follower.Report{r}
}
