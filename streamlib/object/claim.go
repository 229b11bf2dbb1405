package object

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

// claimed is the object that says whose mirror the place is.
const claimed = "mirror"

// Owner returns who has claimed the place, "" where nobody has.
func (s *Storage) Owner(ctx context.Context) (string, error) {
	r, err := s.c.get(ctx, s.c.o.Prefix+claimed)
	if err == errNone {
		return "", nil
	}
	return strings.TrimSpace(string(r.body)), err
}

// Claim makes the place that of the owner, a line of text, whose mirror it is to be, and tells whether it is, and
// whether only now: nothing is there then. It is not where it is another one's already, or nobody's and has streams.
// Of several who claim it at once one gets it.
func (s *Storage) Claim(ctx context.Context, owner string) (ours, first bool, err error) {
	is, err := s.Owner(ctx)
	if err != nil || is != "" {
		return is == owner, false, err
	}
	names, err := s.List(ctx, "", "", 1)
	if err != nil || len(names) > 0 {
		return false, false, err
	}
	r, err := s.c.do(ctx, http.MethodPut, s.c.o.Prefix+claimed, nil, []byte(owner+"\n"), ifAbsent, time.Time{})
	switch {
	case err != nil && !errors.Is(err, streamlib.ErrUnavailable):
		return false, false, fmt.Errorf("%w: put: %w", streamlib.ErrUnavailable, err)
	case err != nil:
		return false, false, err
	case r.status >= 300 && r.status != http.StatusPreconditionFailed && r.status != http.StatusConflict:
		return false, false, s.c.failed("put", r)
	}
	is, err = s.Owner(ctx)
	return is == owner, true, err
}
