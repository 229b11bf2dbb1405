package main

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	rt "runtime/metrics"
	"strings"
	"sync/atomic"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/budget"
	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/iterate/durable-streams/streamlib/disk"
	"github.com/iterate/durable-streams/streamlib/follower"
	"github.com/iterate/durable-streams/streamlib/metrics"
	"github.com/iterate/durable-streams/streamlib/retention"
)

// figures are what /metrics tells beside what the routes count.
type figures struct {
	started              time.Time
	changes, bytes       metrics.Counter // that the storage made
	failed               metrics.Counter
	took, syncs, batches *metrics.Histogram
	lastSync             atomic.Int64 // in nanoseconds since 1970, 0 where there was none
	store                *disk.Store  // nil where the storage is another one
	memory               *budget.Budget
}

func newFigures() *figures {
	return &figures{started: time.Now(), took: metrics.NewHistogram(metrics.Seconds()),
		syncs: metrics.NewHistogram(metrics.Seconds()), batches: metrics.NewHistogram(metrics.Sizes())}
}

// synced notes a sync that took so long.
func (f *figures) synced(took time.Duration) {
	f.syncs.Observe(took.Seconds())
	f.lastSync.Store(time.Now().UnixNano())
}

// whenSynced is when the last sync was, the zero time where there was none.
func (f *figures) whenSynced() (at time.Time) {
	if last := f.lastSync.Load(); last != 0 {
		at = time.Unix(0, last).UTC()
	}
	return at
}

// counted is a storage whose commits are counted.
type counted struct {
	streamlib.Storage
	f *figures
}

func (c counted) Commit(ctx context.Context, name string, change streamlib.Change) error {
	begun := time.Now()
	err := c.Storage.Commit(ctx, name, change)
	if err != nil {
		c.f.failed.Add(1)
		return err
	}
	c.f.took.Observe(time.Since(begun).Seconds())
	c.f.changes.Add(1)
	if n := len(change.Events); n > 0 {
		c.f.batches.Observe(float64(n))
		bytes := 0
		for _, e := range change.Events {
			bytes += len(e.Record())
		}
		c.f.bytes.Add(bytes)
	}
	return nil
}

// write writes them. Names of what the process has are those of Prometheus' client libraries.
func (f *figures) write(p *metrics.Page) {
	p.Gauge("streamd_build_info", "Which build this is.", 1, "version", daemon.Version(), "go", runtime.Version())
	p.Counter("streamd_commits_total", "Changes of a stream that were made durable: appends that came at once share one.",
		f.changes.Value())
	p.Counter("streamd_failed_commits_total", "Changes that were not made, or whose outcome is open.", f.failed.Value())
	p.Counter("streamd_stored_bytes_total", "Bytes of the events that were made durable, as they are stored.",
		f.bytes.Value())
	p.Histogram("streamd_commit_duration_seconds", "From a change's events to their durability.", f.took)
	p.Histogram("streamd_commit_events", "Events in a change.", f.batches)
	if f.store != nil {
		s := f.store.Figures()
		p.Histogram("streamd_sync_duration_seconds", "Syncs of the journal that appends waited for.", f.syncs)
		p.Gauge("streamd_open_streams", "Streams that are kept ready.", float64(s.Streams))
		p.Gauge("streamd_journals", "Journals that wait for a checkpoint, and the one that is written.", float64(s.Journals))
		p.Gauge("streamd_journal_bytes", "What these have.", float64(s.JournalBytes))
		p.Gauge("streamd_replay_seconds", "What the start took to make good what the former process left.",
			s.Replay.Seconds())
		p.Gauge("streamd_sync_failed", "1 where a sync has failed: there are no more appends until the next start.",
			b2f(s.Failed))
	}
	p.Gauge("streamd_memory_held_bytes", "What requests, readers and key windows hold of --memory, as estimated.",
		float64(f.memory.Held()))
	p.Gauge("streamd_memory_bound_bytes", "--memory.", float64(f.memory.Bound()))
	p.Gauge("process_start_time_seconds", "When the process began, in seconds since 1970.",
		float64(f.started.UnixMilli())/1000)
	writeProcess(p)
	writeGo(p)
}

// writeFollowers writes the figures of webhooks and the mirror.
func writeFollowers(p *metrics.Page, reports []follower.Report) {
	for _, f := range []struct {
		name, help string
		counts     bool
		value      func(follower.Report) float64
	}{
		{"streamd_follower_events_total", "Events that a webhook's receiver, or the mirror, has taken.", true,
			func(r follower.Report) float64 { return float64(r.Events) }},
		{"streamd_follower_batches_total", "Requests in which these were; of the mirror, rounds.", true,
			func(r follower.Report) float64 { return float64(r.Batches) }},
		{"streamd_follower_failures_total", "Requests that failed, and were made again.", true,
			func(r follower.Report) float64 { return float64(r.Failures) }},
		{"streamd_follower_dropped_events_total", "Events that were trimmed before they could be handed over.", true,
			func(r follower.Report) float64 { return float64(r.Dropped) }},
		{"streamd_follower_waiting_streams", "Streams that have events to hand over.", false,
			func(r follower.Report) float64 { return float64(r.Waiting) }},
		{"streamd_follower_failed_streams", "Of these, such as have failed by themselves; the log names them.", false,
			func(r follower.Report) float64 { return float64(r.Failed) }},
		{"streamd_follower_lag_seconds", "How long that waits which waits longest.", false,
			func(r follower.Report) float64 { return r.Behind }},
		{"streamd_follower_ended", "1 where the receiver has ended it.", false,
			func(r follower.Report) float64 { return b2f(r.Ended) }},
	} {
		for _, r := range reports {
			write := p.Gauge
			if f.counts {
				write = p.Counter
			}
			id := "mirror"
			if r.Secret != "" { // two may differ in what is secret of a URL alone
				id = strings.TrimSuffix(filepath.Base(r.Secret), ".secret")
			}
			write(f.name, f.help, f.value(r), "streams", r.Streams, "to", r.To, "id", id)
		}
	}
}

// writeRetention writes what the rules of --retain and --expire have done.
func writeRetention(p *metrics.Page, t retention.Totals) {
	p.Counter("streamd_retention_trims_total", "How often --retain has dropped the oldest events of a stream.",
		float64(t.Trims))
	p.Counter("streamd_retention_dropped_events_total", "Events that went so.", float64(t.Events))
	p.Counter("streamd_retention_deleted_streams_total", "Streams that --expire has deleted.", float64(t.Deleted))
	p.Gauge("streamd_retention_failing_streams", "Streams for which that failed, and is tried again.", float64(t.Failing))
}

func b2f(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func writeGo(p *metrics.Page) {
	samples := []rt.Sample{{Name: "/sched/goroutines:goroutines"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
		{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/cpu/classes/gc/total:cpu-seconds"}}
	rt.Read(samples)
	value := func(i int) float64 {
		switch v := samples[i].Value; v.Kind() {
		case rt.KindUint64:
			return float64(v.Uint64())
		case rt.KindFloat64:
			return v.Float64()
		}
		return math.NaN()
	}
	p.Gauge("go_goroutines", "Goroutines that there are.", value(0))
	p.Gauge("go_heap_objects_bytes", "Memory of objects that are in use, or were and are not collected yet.", value(1))
	p.Gauge("go_memory_bytes", "Memory that the Go runtime has from the operating system.", value(2)-value(3))
	p.Gauge("go_memory_limit_bytes", "GOMEMLIMIT.", float64(debug.SetMemoryLimit(-1)))
	p.Counter("go_gc_cycles_total", "Collections that were completed.", value(4))
	p.Counter("go_gc_cpu_seconds_total", "CPU time of the collections, as estimated.", value(5))
}

// openFiles is how many descriptors the process has, -1 where the system does not tell.
func openFiles() int {
	for _, dir := range [...]string{"/proc/self/fd", "/dev/fd"} {
		if files, err := os.ReadDir(dir); err == nil {
			return len(files) - 1 // the one that reads it
		}
	}
	return -1
}
