package follower

import (
	"fmt"
	"time"

	"github.com/iterate/durable-streams/streamlib/daemon"
)

// A Status is how far a follower is.
type Status struct {
	Waiting  int           // streams that have something, as far as is known
	Behind   time.Duration // how long that waits which waits longest; 0 where nothing does
	Events   int64         // that were handed over since Open
	Batches  int64         // likewise
	Failures int64         // of tries, likewise
	Dropped  int64         // events that were trimmed before they could be handed over, likewise
	Failing  string        // why the last try failed, "" where it did not
	NextTry  time.Time     // when it is tried again, where it is Failing
	Streams  int           // that are kept track of
	Failed   int           // of these, such as have failed by themselves, and wait for another try
}

// A Report is a Status for who asks a server; what the follower does not know is set by who has it.
type Report struct {
	Streams  string  `json:"streams"`          // PREFIX* or NAME
	To       string  `json:"to"`               // without what may be secret in it
	Secret   string  `json:"secret,omitempty"` // a webhook's file
	Ended    bool    `json:"ended,omitempty"`  // nothing more is wanted
	Waiting  int     `json:"waiting"`          // streams that have something
	Behind   float64 `json:"behindSeconds"`    // how long that waits which waits longest
	Events   int64   `json:"events"`           // this and the next four count since the start
	Batches  int64   `json:"batches"`
	Failures int64   `json:"failures"`
	Dropped  int64   `json:"dropped"`
	Failing  string  `json:"failing,omitempty"` // why the last try failed
	Failed   int     `json:"failed,omitempty"`  // streams that have failed by themselves, which the log names
}

// Report returns what the status says of a report.
func (s Status) Report() Report {
	return Report{Waiting: s.Waiting, Behind: s.Behind.Seconds(), Events: s.Events, Batches: s.Batches,
		Failures: s.Failures, Dropped: s.Dropped, Failing: s.Failing, Failed: s.Failed}
}

// String is the report for a person.
func (r Report) String() string {
	said := "up to date"
	switch {
	case r.Ended:
		said = "ended, as nothing more is wanted"
	case r.Waiting > 0:
		said = fmt.Sprintf("streams waiting: %d, the longest for %v", r.Waiting,
			time.Duration(r.Behind*float64(time.Second)).Round(time.Second))
	}
	if r.Failed > 0 {
		said += fmt.Sprintf("; of these, such as have failed by themselves: %d (the log names them)", r.Failed)
	}
	if r.Failing != "" {
		said += "; " + r.Failing
	}
	return daemon.Message(fmt.Errorf("%s to %s: %s", r.Streams, r.To, said))
}

// Status tells how far it is.
func (f *Follower) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.status
	if !f.since.IsZero() {
		s.Behind = max(time.Since(f.since), 0)
	}
	return s
}

// tell makes the status what it is, where b is being delivered.
func (f *Follower) tell(b []part) {
	since, waiting := f.oldest, len(f.waiting)+f.resting
	for _, p := range b {
		if _, again := f.waiting[p.Stream]; !again {
			waiting++
		}
		if since = earlier(since, p.since); len(p.Events) > 0 {
			since = earlier(since, p.Events[0].CreatedAt())
		}
	}
	if len(f.order) > 0 {
		since = earlier(since, f.waiting[f.order[0]])
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.since = since
	f.status.Waiting, f.status.Failed = waiting, f.resting
	f.status.Streams = len(f.cursor.streams)
}

// earlier returns the earlier one of two times, of which the zero one is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
