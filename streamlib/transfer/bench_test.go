package transfer_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/disk"
	"github.com/iterate/durable-streams/streamlib/transfer"
)

// The benchmarks copy a million events with 200 bytes of data, in so many streams:
//
//	go test ./transfer -run '^$' -bench . -benchtime 1x
func BenchmarkExport(b *testing.B) { benchmark(b, true) }
func BenchmarkImport(b *testing.B) { benchmark(b, false) }

func benchmark(b *testing.B, exports bool) {
	const count = 1_000_000
	for _, streams := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			s := open(b, b.TempDir())
			data := fmt.Sprintf(`{"s":%q}`, strings.Repeat("x", 200-len(`{"s":""}`)))
			for i := range streams {
				name := fmt.Sprint("stream-", i)
				var list []streamlib.Event
				for o := range count / streams {
					list = append(list, event(name, streamlib.Offset(o), data, "", moment(o)))
					if len(list) == 20_000 || o == count/streams-1 {
						if err := s.Commit(b.Context(), name, streamlib.Change{Events: list}); err != nil {
							b.Fatal(err)
						}
						list = nil
					}
				}
			}
			var lines bytes.Buffer
			if !exports {
				if _, err := transfer.Export(b.Context(), s, &lines, transfer.Query{}); err != nil {
					b.Fatal(err)
				}
				s.Close()
			}
			for b.Loop() {
				var err error
				if exports {
					_, err = transfer.Export(b.Context(), s, io.Discard, transfer.Query{})
				} else {
					b.StopTimer()
					to := open(b, b.TempDir())
					b.StartTimer()
					_, err = transfer.Import(b.Context(), to, bytes.NewReader(lines.Bytes()))
					b.StopTimer()
					to.Close()
					b.StartTimer()
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(count*float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

func open(t testing.TB, dir string) streamlib.Storage {
	s, err := disk.Open(dir, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
