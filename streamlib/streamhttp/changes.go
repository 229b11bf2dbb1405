package streamhttp

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/iterate/durable-streams/streamlib"
)

const (
	changesEvery = 250 * time.Millisecond // at most: what changes more often is told once
	changesShare = 4                      // and so many times what telling took
)

// followChanges tells which streams with a prefix change, and how they are then, instead of all their events: what it
// costs depends on how many streams change, and not on how much is appended to them.
func (h *handler) followChanges(w http.ResponseWriter, r *http.Request, prefix string) {
	r, cancel := UntilEnd(r)
	defer cancel()
	watch := h.streams.Watch(1, 0) // before the client hears of it
	defer watch.Close()
	f := openFrames(w, r, 0, untold, []byte(retry))
	defer f.close()
	defer h.counted.subscribed(f, "")()
	for {
		select {
		case <-watch.Much:
		case <-time.After(time.Second): // of the end of a stream, or of what it drops, nobody is woken
		case <-r.Context().Done():
			return
		}
		began := time.Now()
		if f.changes(r, h, watch.Streams(), prefix) != nil {
			return
		}
		select {
		case <-time.After(max(changesEvery, changesShare*time.Since(began))):
		case <-r.Context().Done():
			return
		}
	}
}

// changes writes how the streams are that names names, in chunks.
func (f *frames) changes(r *http.Request, h *handler, names []string, prefix string) error {
	grant := leased(r)
	var told []detail
	for i, name := range names {
		if strings.HasPrefix(name, prefix) && (grant == nil || grant.covers(name)) {
			d, found := h.detail(r.Context(), name)
			d.Deleted = !found
			told = append(told, d)
		}
		if last := i == len(names)-1; len(told) == chunk>>8 || last && len(told) > 0 {
			b, err := json.Marshal(map[string][]detail{"streams": told})
			if err != nil {
				return err
			}
			if err := f.write(append(append([]byte("data: "), b...), "\n\n"...), last); err != nil {
				return err
			}
			told = told[:0]
		}
	}
	return r.Context().Err()
}

// maxBuckets is how many counts times answers with at most.
const maxBuckets = 1000

// times answers with how many events were created when: counts for parts of the same length of the time from the first
// event that is kept, or from ?since=, until the last.
func (h *handler) times(w http.ResponseWriter, r *http.Request, name string) error {
	q, err := parameters(r, "since", "buckets")
	if err != nil {
		return err
	}
	since, err := q.since("since")
	if err != nil {
		return err
	}
	n, err := q.count("buckets")
	if err != nil {
		return err
	}
	if n = min(n, maxBuckets); n == 0 {
		n = 60
	}
	stream := h.streams.Stream(name)
	info, err := stream.Stat(r.Context())
	if err != nil {
		return err
	}
	answer := struct {
		First  string  `json:"first"` // the offset of the first event that is counted
		Next   string  `json:"next"`  // the one behind the last
		From   string  `json:"from,omitempty"`
		To     string  `json:"to,omitempty"`
		Counts []int64 `json:"counts"`
	}{First: info.First.String(), Next: info.Tail.String(), Counts: []int64{}}
	if info.First < info.Tail {
		from, to := info.CreatedAt, info.UpdatedAt.Add(time.Millisecond)
		if since != nil && since.After(from) {
			from = since.Truncate(time.Millisecond)
		}
		parts := time.Duration(n) * time.Millisecond
		width := max(1, (to.Sub(from)+parts-1)/parts) * time.Millisecond
		offsets, err := startsOf(r.Context(), stream, info, from, width, n)
		if err != nil {
			return err
		}
		answer.First, answer.From, answer.To = offsets[0].String(), timeText(from), timeText(from.Add(width*time.Duration(n)))
		for i, o := range offsets[1:] {
			answer.Counts = append(answer.Counts, int64(o-offsets[i]))
		}
	}
	answerJSON(w, http.StatusOK, answer)
	return nil
}

// startsOf returns the offsets of the first events of n parts of the time from from on, and the one behind the last.
func startsOf(ctx context.Context, s streamlib.Stream, info streamlib.Info, from time.Time, width time.Duration,
	n int) ([]streamlib.Offset, error) {
	offsets := make([]streamlib.Offset, 1, n+1)
	offsets[0] = info.First
	if from.After(info.CreatedAt) {
		var err error
		if offsets[0], err = startOfSince(ctx, s, info.Tail, from); err != nil {
			return nil, err
		}
	}
	for i := 1; i <= n; i++ {
		o := info.Tail
		if i < n && offsets[i-1] < info.Tail {
			var err error
			if o, err = startOfSince(ctx, s, info.Tail, from.Add(width*time.Duration(i))); err != nil {
				return nil, err
			}
		}
		offsets = append(offsets, max(o, offsets[i-1]))
	}
	return offsets, nil
}
