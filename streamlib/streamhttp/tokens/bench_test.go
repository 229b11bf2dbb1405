package tokens_test

import (
	"net/http/httptest"
	"testing"

	"github.com/iterate/durable-streams/streamlib/streamhttp"
)

// BenchmarkGrant is what a request costs more.
func BenchmarkGrant(b *testing.B) {
	s := newServer(b, line("a", "write prefix=jobs/"), streamhttp.Config{})
	r := httptest.NewRequest("POST", "/streams/s", nil)
	r.Header.Set("Authorization", "Bearer secret-a")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.file.Grant(r); err != nil {
			b.Fatal(err)
		}
	}
}
