package metrics_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/iterate/durable-streams/streamlib/metrics"
	"github.com/matryer/is"
)

func TestPage(t *testing.T) {
	is := is.New(t)
	var c metrics.Counter
	h := metrics.NewHistogram([]float64{0.5, 2})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				c.Add(2)
				h.Observe(0.25)
				h.Observe(0.5) // a bound is in its bucket
				h.Observe(1)
				h.Observe(3)
			}
		})
	}
	all.Wait()
	var p metrics.Page
	p.Counter("a_total", "What.\nEver \\.", c.Value(), "name", "a \"b\"\\\n\xff", "code", "200")
	p.Counter("a_total", "What.\nEver \\.", 0, "name", "b", "code", "200")
	p.Gauge("b", "B.", 1.5)
	p.Histogram("c_seconds", "C.", h, "route", "/")
	is.Equal(strings.Split(strings.TrimSuffix(string(p.Bytes()), "\n"), "\n"), []string{
		`# HELP a_total What.\nEver \\.`,
		`# TYPE a_total counter`,
		`a_total{name="a \"b\"\\\n` + "\uFFFD" + `",code="200"} 16000`,
		`a_total{name="b",code="200"} 0`,
		`# HELP b B.`,
		`# TYPE b gauge`,
		`b 1.5`,
		`# HELP c_seconds C.`,
		`# TYPE c_seconds histogram`,
		`c_seconds_bucket{route="/",le="0.5"} 16000`,
		`c_seconds_bucket{route="/",le="2"} 24000`,
		`c_seconds_bucket{route="/",le="+Inf"} 32000`,
		`c_seconds_sum{route="/"} 38000`,
		`c_seconds_count{route="/"} 32000`,
	})
}

func BenchmarkObserve(b *testing.B) {
	h := metrics.NewHistogram(metrics.Seconds())
	for b.Loop() {
		h.Observe(0.003)
	}
}
