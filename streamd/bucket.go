package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/object"
)

const bucketScheme = "s3://"

// isBucket tells whether --storage names a place on an object store.
func isBucket(storage string) bool {
	bucket, _, _ := strings.Cut(strings.TrimPrefix(storage, bucketScheme), "/")
	return strings.HasPrefix(storage, bucketScheme) && bucket != ""
}

// slowPatience is for what nobody waits for, and large objects over a slow line.
const slowPatience = 30 * time.Second

// bucketOptions are those of a place as --storage names it. Who asks the store, and where it is, is in the
// environment as for all that speaks to one.
func bucketOptions(place, s3Endpoint string) object.Options {
	bucket, prefix, _ := strings.Cut(strings.TrimPrefix(place, bucketScheme), "/")
	return object.Options{
		Bucket: bucket, Prefix: prefix, Keys: object.Environment(os.Getenv), Endpoint: endpoint(s3Endpoint),
		Region: object.Region(os.Getenv),
	}
}

// endpoint is the store's URL, "" for AWS.
func endpoint(s3Endpoint string) string {
	return cmp.Or(s3Endpoint, os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL"))
}

// openBucket opens the place that --storage names.
func openBucket(ctx context.Context, o options, log *slog.Logger) (streamlib.Shared, error) {
	options := bucketOptions(o.storage, o.s3Endpoint)
	options.Log = log
	s, err := object.Open(ctx, options)
	if err != nil {
		return nil, err
	}
	switch owner, err := s.Owner(ctx); {
	case err != nil:
		return nil, errors.Join(err, s.Close())
	case owner != "":
		log.Warn("this place is the mirror of a folder: a stream that is appended to here is copied no longer. End the "+
			"folder's server first, or start it without --mirror", "place", o.storage, "folder", owner)
	}
	return s, nil
}

// verifyBucket is verify of a place on an object store.
func (j job) verifyBucket(ctx context.Context) error {
	if !isBucket(j.storage) {
		return usageError{fmt.Errorf("verify: --storage %q: it is s3://BUCKET/PREFIX", j.storage)}
	}
	o := bucketOptions(j.storage, j.s3Endpoint)
	o.Existing, o.Patience = true, slowPatience
	s, err := object.Open(ctx, o)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	defer s.Close()
	var show func(object.Summary)
	if p := j.progress(); p != nil {
		show = func(sum object.Summary) {
			p.Show(func() string { return fmt.Sprintf("%d streams, %d events", sum.Streams, sum.Events) })
		}
		defer p.Clear()
	}
	sum, err := s.Verify(ctx, show)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	for _, damage := range sum.Damage {
		fmt.Fprintln(j.stdout, daemon.Message(damage))
	}
	for _, err := range sum.Unread {
		fmt.Fprintln(j.stdout, daemon.Message(err))
	}
	fmt.Fprintf(j.stdout, "%d streams, %d events, %d bytes in %d objects, %d overlap, %d damaged\n", sum.Streams,
		sum.Events, sum.Bytes, sum.Objects, sum.Overlaps, len(sum.Damage))
	switch {
	case len(sum.Damage) > 0:
		return fmt.Errorf("%s is damaged", j.storage)
	case len(sum.Unread) > 0:
		return fmt.Errorf("of %s could not be read: %d streams", j.storage, len(sum.Unread))
	}
	return nil
}

// lockedShared is locked for a storage that others have, too.
type lockedShared struct {
	streamlib.Shared
	lock io.Closer
}

func (s lockedShared) Close() error { return errors.Join(s.Shared.Close(), s.lock.Close()) }

// sharing is over, which hides that the storage below it has other writers, as one that has them.
func sharing(over, storage streamlib.Storage) streamlib.Storage {
	if shared, ok := storage.(streamlib.Shared); ok {
		return sharingStorage{over, shared}
	}
	return over
}

type sharingStorage struct {
	streamlib.Storage
	shared streamlib.Shared
}

func (s sharingStorage) ReadLife(ctx context.Context, name string, life int64, from,
	to streamlib.Offset) iter.Seq2[[]streamlib.Event, error] {
	return s.shared.ReadLife(ctx, name, life, from, to)
}

func (s sharingStorage) Changed(ctx context.Context, name string) error {
	return s.shared.Changed(ctx, name)
}
