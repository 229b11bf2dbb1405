//go:build linux

package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/iterate/durable-streams/streamctl/internal/bench"
)

const (
	rounds = 3               // of which the median counts
	span   = 2 * time.Second // of a round
	size   = 200             // of an event's data in bytes
)

// A list is what is to be measured.
type list struct {
	table
	ctx      context.Context
	bin, dir string  // the programs, the data
	writing  float64 // bytes a second, of the disk
}

// measure goes through the list, or those parts of it that are named.
func measure(ctx context.Context, bin string, only ...string) error {
	os.Unsetenv("DURABLE_STREAMS_URL") // streamctl shall start a server
	dir, err := os.MkdirTemp(bin, "data-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l := &list{ctx: ctx, bin: bin, dir: dir}
	l.head()
	for _, part := range []struct {
		name string
		do   func()
	}{
		{"disk", l.disk}, {"creating", l.creating}, {"appends", l.appends}, {"hot", l.hot},
		{"protocol", l.protocol}, {"keeping", l.keeping}, {"batches", l.batches}, {"live", l.live}, {"reading", l.reading},
		{"starting", l.starting}, {"memory", l.memory}, {"listing", l.listing}, {"pressure", l.pressure},
		{"commands", l.commands}, {"objects", l.objects}, {"collected", l.collected},
	} {
		if len(only) > 0 && !slices.Contains(only, part.name) {
			continue
		}
		if err := cmp.Or(attempt(part.do), ctx.Err()); err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
	}
	l.section("%d of %d aims met", l.met, l.aims)
	return nil
}

// streamd starts one on a folder of the list's.
func (l *list) streamd(folder string, flags ...string) *server {
	return start(l.ctx, filepath.Join(l.bin, "streamd"),
		append(flags, "--port=0", "--dir="+filepath.Join(l.dir, folder))...)
}

// floor starts this program as a server.
func (l *list) floor(args ...string) *server {
	return start(l.ctx, filepath.Join(l.bin, "floors"), args...)
}

// A measured is what a load came to on a server.
type measured struct {
	bench.Result
	cpu float64 // of the server, microseconds an event
}

// put puts a load on a server. Where a request fails, or a subscriber does not get each event once and in order,
// there is no figure.
func (l *list) put(s *server, load bench.Load) measured {
	load.URL = s.url
	before := s.cpu()
	r := must(bench.Run(l.ctx, load))
	if r.Failed > 0 {
		check(fmt.Errorf("%s: %d requests failed, the first: %w", s.cmd.Path, r.Failed, r.Err))
	}
	if r.Missing+r.Duplicate+r.OutOfOrder > 0 {
		check(fmt.Errorf("%s: subscribers missed %d events, got %d twice and %d out of order", s.cmd.Path, r.Missing,
			r.Duplicate, r.OutOfOrder))
	}
	return measured{r, float64((s.cpu() - before).Microseconds()) / float64(max(r.Appended, 1))}
}

// compare puts a load on each server in turn, a few times, and returns for each the round that is the median by a key.
func (l *list) compare(load bench.Load, by func(measured) float64, servers ...*server) (medians []measured) {
	all := make([][]measured, len(servers))
	for range rounds {
		for i, s := range servers {
			all[i] = append(all[i], l.put(s, load))
		}
	}
	for _, m := range all {
		slices.SortFunc(m, func(a, b measured) int { return cmp.Compare(by(a), by(b)) })
		medians = append(medians, m[len(m)/2])
	}
	return medians
}

func byRate(m measured) float64     { return m.AppendRate }
func byDelivery(m measured) float64 { return ms(m.Delivery.P50) }

func ms(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func (l *list) disk() {
	sync, writing := must(appendAndSync(l.dir, size, span)), must(sequentialWrite(l.dir))
	l.writing = writing
	l.section("The disk")
	l.add("append 200 bytes and fdatasync, p50", "ms", ms(sync.P50), 0, aim{})
	l.add("append 200 bytes and fdatasync, p99", "ms", ms(sync.P99), 0, aim{})
	l.add("sequential write", "MB/s", l.writing/1e6, 0, aim{})
}

func (l *list) appends() {
	streamd, bare, memory := l.streamd("appends"), l.floor("bare"), l.streamd("none", "--storage=memory")
	defer streamd.stop()
	defer bare.stop()
	defer memory.stop()
	l.section("Durable appends, one event of %d bytes a request; floor: bare net/http", size)
	for _, conns := range []int{1, 16, 64} {
		for _, streams := range []int{1, 64} {
			load := bench.Load{Conns: conns, Streams: streams, Size: size, Duration: span}
			m := l.compare(load, byRate, streamd, bare, memory)
			var rate, p99, cpu aim
			if conns == 64 {
				rate, p99, cpu = atLeast(map[int]float64{1: 0.8, 64: 0.75}[streams]), atMost(2), atMost(2)
			}
			label := fmt.Sprintf("conns %d, streams %d: ", conns, streams)
			l.add(label+"events a second", "/s", m[0].AppendRate, m[1].AppendRate, rate)
			l.add(label+"p50", "ms", ms(m[0].Append.P50), ms(m[1].Append.P50), aim{})
			if conns == 1 {
				sync := must(appendAndSync(l.dir, size, span)) // again, for others may use the disk
				l.add(label+"p50, floor: sync", "ms", ms(m[0].Append.P50), ms(sync.P50), atMost(1.3))
			}
			l.add(label+"p99", "ms", ms(m[0].Append.P99), ms(m[1].Append.P99), p99)
			l.add(label+"server CPU an event", "µs", m[0].cpu, m[1].cpu, cpu)
			l.add(label+"events a second, beside: no disk", "/s", m[0].AppendRate, m[2].AppendRate, aim{})
			l.add(label+"p99, beside: no disk", "ms", ms(m[0].Append.P99), ms(m[2].Append.P99), aim{})
		}
	}
}

// creating measures what new streams cost. It comes before anything is deleted: for five minutes an ext4 without a
// journal, as some virtual machines have, looks at each inode that a deletion has left, and passes it over, whenever a
// file is made near them (recently_deleted in fs/ext4/ialloc.c), and a fourth of the rate is left.
func (l *list) creating() {
	const streams, conns = 10_000, 16
	streamd := l.streamd("creating")
	l.section("Streams that are new with each event, 16 connections; floor: 16 streams that exist")
	var made, existing, gone []float64
	for range rounds {
		existing = append(existing, l.put(streamd, bench.Load{Conns: conns, Streams: conns, Size: size, Duration: span,
			Keep: true}).AppendRate)
		made = append(made, l.put(streamd, bench.Load{Conns: conns, Streams: streams, Events: streams, Size: size,
			Keep: true}).AppendRate)
	}
	begin := time.Now()
	streamd.stop()
	ended := ms(time.Since(begin))
	streamd = l.streamd("creating")
	defer streamd.stop()
	for range rounds {
		load := bench.Load{Conns: conns, Streams: streams / 4, Events: streams / 4, Size: size}
		var settled time.Time
		load.Settled = func() { settled = time.Now() }
		l.put(streamd, load)
		gone = append(gone, streams/4/time.Since(settled).Seconds())
	}
	l.add("10,000 streams: new ones a second", "/s", median(made), median(existing), atLeast(0.5))
	l.add("2,500 streams: deleted a second", "/s", median(gone), median(existing), aim{})
	l.add("the end of a server that made 30,000", "ms", ended, 0, aim{})
}

// hot appends to many streams beside few, and to more in turn than anybody reads at once.
func (l *list) hot() {
	streamd := l.streamd("hot")
	defer streamd.stop()
	l.section("Durable appends to many streams beside few")
	for _, pair := range []struct {
		conns, few, many int
		warmup           time.Duration // in which the many are made
		rate, cpu        aim
	}{
		{64, 1, 64, 0, atLeast(0.9), atMost(1.15)},
		{32, 64, 2_000, span, atLeast(0.8), aim{}},
		{32, 64, 10_000, 5 * span, atLeast(0.6), aim{}},
	} {
		many := bench.Load{Conns: pair.conns, Streams: pair.many, Size: size, Warmup: pair.warmup, Duration: span,
			Keep: true}
		few := many
		few.Streams, few.Warmup = pair.few, min(pair.warmup, span/2)
		var rates, cpus [2][]float64
		for range rounds {
			for i, load := range []bench.Load{few, many} {
				m := l.put(streamd, load)
				rates[i], cpus[i] = append(rates[i], m.AppendRate), append(cpus[i], m.cpu)
			}
		}
		label := fmt.Sprintf("conns %d, %d streams; floor: %d: ", pair.conns, pair.many, pair.few)
		l.add(label+"events a second", "/s", median(rates[1]), median(rates[0]), pair.rate)
		if pair.cpu != (aim{}) {
			l.add(label+"server CPU an event", "µs", median(cpus[1]), median(cpus[0]), pair.cpu)
		}
	}
	for _, streams := range []int{1, 16, 64} {
		l.add(fmt.Sprintf("conns 64, streams %d: events a sync; floor: connections", streams), "", l.gathered(64, streams),
			64, map[int]aim{64: atLeast(55. / 64)}[streams])
	}
}

// protocol appends as producers of the Durable Streams protocol do, beside native appends to a stream of its own.
func (l *list) protocol() {
	streamd := l.streamd("protocol")
	defer streamd.stop()
	l.section("Durable appends of the Durable Streams protocol, each connection a producer; floor: the native route")
	for _, load := range []bench.Load{{Conns: 1, Streams: 1}, {Conns: 64, Streams: 1}, {Conns: 64, Streams: 64}} {
		load.Size, load.Duration = size, span
		var rates, p99s, cpus [2][]float64
		for range rounds {
			for i := range 2 {
				load.Protocol = i == 1
				m := l.put(streamd, load)
				rates[i], cpus[i] = append(rates[i], m.AppendRate), append(cpus[i], m.cpu)
				p99s[i] = append(p99s[i], ms(m.Append.P99))
			}
		}
		var rate aim
		if load.Conns == 64 && load.Streams == 1 {
			rate = atLeast(0.8)
		}
		label := fmt.Sprintf("conns %d, streams %d: ", load.Conns, load.Streams)
		l.add(label+"events a second", "/s", median(rates[1]), median(rates[0]), rate)
		l.add(label+"p99", "ms", median(p99s[1]), median(p99s[0]), aim{})
		l.add(label+"server CPU an event", "µs", median(cpus[1]), median(cpus[0]), aim{})
	}
}

// gathered returns how many events a sync of the journal is for.
func (l *list) gathered(conns, streams int) float64 {
	folder := fmt.Sprintf("gathered-%d", streams)
	streamd := l.streamd(folder)
	defer streamd.stop()
	l.put(streamd, bench.Load{Conns: conns, Streams: streams, Size: size, Duration: span / 2, Keep: true})
	// So little fits into the first journal, which a clean end would remove.
	journal := must(os.ReadFile(filepath.Join(l.dir, folder, "journal", "0000000000000001.journal")))
	events, frames := bytes.Count(journal, []byte(`{"offset":"`)), bytes.Count(journal, []byte(`{"generation":"`))
	return float64(events) / float64(max(frames-1, 1)) // less the one that begins it
}

// keeping measures what it costs to keep 4 MB of a stream that is fed as fast as can be.
func (l *list) keeping() {
	const bound = 4_000_000
	all, kept := l.streamd("all"), l.streamd("kept", fmt.Sprintf("--retain=*=%dB", bound))
	defer all.stop()
	defer kept.stop()
	l.section("Durable appends, 64 connections, 1 stream of which 4 MB are kept; floor: all of it")
	largest, measured := make(chan int64), make(chan struct{})
	go func() {
		most := int64(0)
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-tick.C:
				most = max(most, filesIn(filepath.Join(l.dir, "kept", "streams")))
			case <-measured:
				largest <- most
				return
			}
		}
	}()
	m := l.compare(bench.Load{Conns: 64, Streams: 1, Size: size, Duration: 2 * span}, byRate, kept, all)
	close(measured)
	l.add("events a second", "/s", m[0].AppendRate, m[1].AppendRate, aim{})
	l.add("p99", "ms", ms(m[0].Append.P99), ms(m[1].Append.P99), atMost(2))
	l.add("most that it took on the disk; floor: 4 MB", "MB", float64(<-largest)/1e6, bound/1e6, atMost(6))
}

// filesIn is how large the files in a folder are; those that go meanwhile are none.
func filesIn(dir string) (size int64) {
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil {
			size += info.Size()
		}
	}
	return size
}

func (l *list) batches() {
	streamd := l.streamd("batches")
	defer streamd.stop()
	l.section("NDJSON, 1,000 events of %d bytes a request, 4 connections", size)
	for _, streams := range []int{1, 4} {
		m := l.compare(bench.Load{Conns: 4, Streams: streams, Size: size, Batch: 1000, Duration: span}, byRate, streamd)
		const line = size + 155 // of the file: what stands around the data is about so long
		l.add(fmt.Sprintf("streams %d: events a second", streams), "/s", m[0].AppendRate, 0,
			atLeast(min(500_000, l.writing/line/2)))
	}
}

func (l *list) live() {
	streamd, bare := l.streamd("live"), l.floor("bare")
	defer streamd.stop()
	defer bare.stop()
	l.section("Live delivery by SSE; floor: bare writer")
	for _, rate := range []int{100, 20} {
		for _, subscribers := range []int{1, 100, 1000} {
			load := bench.Load{Size: size, Subscribers: subscribers, Rate: rate, Duration: span}
			m := l.compare(load, byDelivery, streamd, bare)
			var delivered, p50 aim
			if subscribers == 1000 && rate == 100 {
				delivered, p50 = atLeast(0.7), atMost(1.4)
			}
			label := fmt.Sprintf("subscribers %d, events/s %d: ", subscribers, rate)
			l.add(label+"delivered", "/s", m[0].DeliveryRate, m[1].DeliveryRate, delivered)
			l.add(label+"p50", "ms", ms(m[0].Delivery.P50), ms(m[1].Delivery.P50), p50)
			l.add(label+"p99", "ms", ms(m[0].Delivery.P99), ms(m[1].Delivery.P99), aim{})
			if subscribers == 100 && rate == 100 {
				l.add(label+"p50, in itself", "ms", ms(m[0].Delivery.P50), 0, atMost(2))
			}
		}
	}
}

// reading measures catch-up, and opening and seeking in a short and in a long stream.
func (l *list) reading() {
	const few, short, long = 200_000, 10, 5_000_000
	defer os.RemoveAll(filepath.Join(l.dir, "reading"))
	var names [4]string
	func() {
		streamd := l.streamd("reading", "--sync=none")
		defer streamd.stop()
		for i, load := range []bench.Load{{Events: short, Size: size / 2}, {Events: long, Size: size / 2},
			{Events: few, Size: size}, {Events: 1, Size: size}} {
			load.Batch, load.Keep = min(load.Events, 1000), true
			names[i] = l.put(streamd, load).Streams[0]
		}
	}()
	var opened, warm, seek [2]bench.Histogram // of the short stream, and of the long one
	for round := range 11 {
		func() {
			streamd := l.streamd("reading")
			defer streamd.stop()
			l.last(streamd, names[3])
			for i := range 2 {
				i ^= round % 2
				opened[i].Add(l.last(streamd, names[i]))
			}
		}()
	}
	streamd, bare := l.streamd("reading"), l.floor("bare")
	defer streamd.stop()
	defer bare.stop()
	for n := range 300 {
		for i, length := range []int{short, long} {
			warm[i].Add(l.last(streamd, names[i]))
			begin := time.Now()
			l.get(http.MethodGet, fmt.Sprintf("%s/streams/%s/events?offset=%d&limit=1", streamd.url, names[i], n*7919%length))
			seek[i].Add(time.Since(begin))
		}
	}
	var sse, events, copied []float64
	for range rounds {
		sse = append(sse, few/must(bench.Catchup(l.ctx, streamd.url, names[2], few)).Seconds())
		events = append(events, few/l.count(streamd.url+"/streams/"+names[2]+"/events", few).Seconds())
		copied = append(copied, few/l.count(bare.url+"/copy?file="+filepath.Join(l.dir, "reading", "streams",
			names[2]+".json"), few).Seconds())
	}
	check(os.WriteFile(streamd.proc("clear_refs"), []byte("5"), 0)) // makes VmHWM what it is now: proc_pid_clear_refs(5)
	before := streamd.memory("VmRSS")
	l.count(streamd.url+"/streams/"+names[1]+"/events", long)
	peak := streamd.memory("VmHWM")

	l.section("Catch-up of 200,000 events of %d bytes by one reader; floor: copy", size)
	for _, f := range []struct {
		what string
		rate float64
	}{{"by SSE", median(sse)}, {"by /events", median(events)}} {
		l.add(f.what, "/s", f.rate, median(copied), atLeast(0.5))
		l.add(f.what+", in itself", "/s", f.rate, 0, atLeast(2_000_000))
	}
	l.add("most memory that reading 5,000,000 events takes", "MB", max(peak-before, 0)/1e6, 0, aim{})
	l.section("A stream of 5,000,000 events of %d bytes; floor: one of 10; p50", size/2)
	p50 := func(what string, h *[2]bench.Histogram, a aim) {
		l.add(what, "ms", ms(h[1].Summary().P50), ms(h[0].Summary().P50), a)
	}
	p50("open it after a start and read the last event", &opened, atMost(2))
	p50("read the last event, warm", &warm, atMost(2))
	l.add("read the last event, warm, in itself", "ms", ms(warm[1].Summary().P50), 0, atMost(1))
	p50("read one event in its midst, warm", &seek, aim{})
}

// last asks for a stream's tail and reads its last event.
func (l *list) last(s *server, stream string) time.Duration {
	url := s.url + "/streams/" + stream
	begin := time.Now()
	tail := must(strconv.Atoi(l.get(http.MethodHead, url).Header.Get("Stream-Next-Offset")))
	l.get(http.MethodGet, url+"/events?offset="+strconv.Itoa(tail-1))
	return time.Since(begin)
}

// get returns an answer that was read to its end.
func (l *list) get(method, url string) *http.Response {
	response := must(http.DefaultClient.Do(must(http.NewRequestWithContext(l.ctx, method, url, nil))))
	defer response.Body.Close()
	must(io.Copy(io.Discard, response.Body))
	if response.StatusCode != http.StatusOK {
		check(fmt.Errorf("%s %s: %s", method, url, response.Status))
	}
	return response
}

// count reads an answer with n events and returns how long that took.
func (l *list) count(url string, n int) time.Duration {
	const mark = `{"offset":"`
	begin := time.Now()
	response := must(http.DefaultClient.Do(must(http.NewRequestWithContext(l.ctx, http.MethodGet, url, nil))))
	defer response.Body.Close()
	buffer, kept, found := make([]byte, 64<<10), 0, 0
	for {
		m, err := response.Body.Read(buffer[kept:])
		text := buffer[:kept+m]
		found += bytes.Count(text, []byte(mark))
		kept = copy(buffer, text[max(0, len(text)-len(mark)+1):])
		if err == io.EOF {
			break
		}
		check(err)
	}
	if found != n {
		check(fmt.Errorf("%s: %d events and not %d", url, found, n))
	}
	return time.Since(begin)
}

func (l *list) starting() {
	const streams = 100_000
	defer os.RemoveAll(filepath.Join(l.dir, "many"))
	func() {
		streamd := l.streamd("many", "--sync=none")
		defer streamd.stop()
		l.put(streamd, bench.Load{Conns: 4, Streams: streams, Events: streams, Size: size, Keep: true})
	}()
	times := map[string][]float64{}
	for range 9 {
		for _, folder := range []string{"empty", "many"} {
			streamd := l.streamd(folder)
			streamd.stop()
			times[folder] = append(times[folder], ms(streamd.ready))
		}
	}
	empty, many := median(times["empty"]), median(times["many"])
	l.section("Start-up, from exec to listening, p50")
	l.add("on an empty folder", "ms", empty, 0, aim{})
	l.add("on a folder of 100,000 streams", "ms", many, 0, aim{})
	l.add("the difference", "ms", max(many-empty, 0), 0, atMost(100))
}

func (l *list) memory() {
	const streams = 10_000
	l.section("Memory, growth of RSS after a forced collection; floor: bare writer")
	dir := filepath.Join(l.dir, "memory")
	defer os.RemoveAll(dir)
	used := bench.Load{Conns: 4, Streams: streams, Events: streams, Size: size, Keep: true}
	grown := l.growth(used, "host", dir)
	l.add("per stream that was used once, of 10,000", "KiB", grown/streams, 0, atMost(1))
	used.Protocol = true
	spoken := l.growth(used, "host", dir)
	l.add("the same by the Durable Streams protocol; floor: natively", "KiB", spoken/streams, grown/streams, aim{})
	for _, n := range []int{1_000, 10_000} {
		what := fmt.Sprintf("per SSE subscriber, of %d, nothing lost", n)
		var limit syscall.Rlimit
		check(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
		if limit.Max < uint64(n)+1000 {
			l.section("  %s: skipped, for the limit of open files is %d.", what, limit.Max)
			continue
		}
		load := bench.Load{Subscribers: n, Rate: 5, Duration: span, Size: size}
		grown, bare := l.growth(load, "host", dir), l.growth(load, "bare")
		l.add(what, "KiB", grown/float64(n), bare/float64(n), aim{})
		l.add(what+", in itself", "KiB", grown/float64(n), 0, atMost(24))
	}
}

// growth returns by how much the memory of one of this program's servers grows with a load, in KiB.
func (l *list) growth(load bench.Load, server ...string) float64 {
	host := l.floor(server...)
	defer host.stop()
	rss := func() (n float64) {
		response := must(http.Get(host.url + "/rss"))
		defer response.Body.Close()
		must(fmt.Fscan(response.Body, &n))
		return n / 1024
	}
	l.put(host, bench.Load{Conns: 4, Streams: 4, Subscribers: 4, Events: 2000, Size: size})
	before, after := rss(), 0.0
	load.Settled = func() { after = rss() }
	l.put(host, load)
	return after - before
}

func (l *list) commands() {
	streamctl, dir := filepath.Join(l.bin, "streamctl"), "--dir="+filepath.Join(l.dir, "commands")
	run := func(name string, args ...string) float64 {
		begin := time.Now()
		if out, err := exec.CommandContext(l.ctx, name, args...).CombinedOutput(); err != nil {
			check(fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out))
		}
		return ms(time.Since(begin))
	}
	stop := func() error { return exec.Command(streamctl, "server", "stop", dir).Run() }
	defer stop()
	var warm, cold, hello []float64
	once := []string{"stream", "append", "-n", "s", "-m", "hello", dir}
	for n := range 5 {
		if n > 0 {
			check(stop())
		}
		cold = append(cold, run(streamctl, once...))
	}
	for range 31 {
		warm, hello = append(warm, run(streamctl, once...)), append(hello, run(filepath.Join(l.bin, "hello")))
	}
	l.section("streamctl stream append, a whole process, p50; floor: a Go program that prints a line")
	l.add("warm", "ms", median(warm), median(hello), atMost(6))
	l.add("cold, the daemon's start with it", "ms", median(cold), 0, atMost(150))
	l.section("Binaries, stripped")
	for _, name := range []string{"streamd", "streamctl"} {
		l.add(name, "MB", float64(must(os.Stat(filepath.Join(l.bin, name))).Size())/1e6, 0, atMost(8))
	}
}
