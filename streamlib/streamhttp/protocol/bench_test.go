package protocol_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/disk"
)

// BenchmarkAppend is what the handler takes for appends to one stream at once, without a network, beside the native
// route.
func BenchmarkAppend(b *testing.B) {
	for _, native := range []bool{true, false} {
		b.Run(fmt.Sprintf("native=%v", native), func(b *testing.B) {
			store, err := disk.Open(b.TempDir(), disk.Options{NoSync: true})
			if err != nil {
				b.Fatal(err)
			}
			defer store.Close()
			h := handler(store, streamlib.Plain)
			do(h, "PUT /v1/stream/s", js, "")
			var left atomic.Int64
			left.Store(int64(b.N))
			body := `{"text":"` + strings.Repeat("x", 180) + `"}`
			var all sync.WaitGroup
			b.ReportAllocs()
			for client := range 64 {
				all.Go(func() {
					for seq := 0; left.Add(-1) >= 0; seq++ {
						r := httptest.NewRequest("POST", "http://localhost/v1/stream/s", strings.NewReader("["+body+"]"))
						if native {
							r = httptest.NewRequest("POST", "http://localhost/streams/s", strings.NewReader(`{"data":`+body+`}`))
						} else {
							r.Header["Producer-Id"] = []string{fmt.Sprint("bench-", client)}
							r.Header["Producer-Epoch"] = []string{"0"}
							r.Header["Producer-Seq"] = []string{fmt.Sprint(seq)}
						}
						r.Header["Content-Type"] = []string{"application/json"}
						w := httptest.NewRecorder()
						if h.ServeHTTP(w, r); w.Code/100 != 2 {
							b.Error(w.Code, w.Body)
							return
						}
					}
				})
			}
			all.Wait()
		})
	}
}
