package streamlib

import (
	"context"
	"errors"
	"time"
)

// Since returns the offset of the first event of s, of those that are kept, that was created at t or later, the tail
// where there is none. Times never go back along a stream, so it is a search, which reads one event for each halving of
// the stream, and no scan.
func Since(ctx context.Context, s Stream, t time.Time) (Offset, error) {
again:
	for {
		info, err := s.Stat(ctx)
		if err != nil {
			return 0, err
		}
		low, high := info.First, info.Tail // what is before low was created before t, what is from high on was not
		for low < high {
			mid := low + (high-low)/2
			switch created, found, err := createdAt(ctx, s, mid); {
			case err != nil:
				return 0, err
			case !found: // it was deleted meanwhile, and what is there now is another stream; or it was trimmed
				continue again
			case created.Before(t):
				low = mid + 1
			default:
				high = mid
			}
		}
		return low, nil
	}
}

// createdAt returns when the event at o was created, where there is one.
func createdAt(ctx context.Context, s Stream, o Offset) (t time.Time, found bool, err error) {
	for events, err := range s.Read(ctx, o, o+1) {
		_, gone := errors.AsType[*GoneError](err)
		switch {
		case gone, errors.Is(err, ErrDeleted):
			return t, false, nil
		case err != nil:
			return t, false, err
		}
		return events[0].CreatedAt(), true, nil
	}
	return t, false, nil
}
