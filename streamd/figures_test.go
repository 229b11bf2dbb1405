//go:build unix

package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/matryer/is"
)

// TestMetrics: what a scrape gets is what Prometheus takes, and with tokens it needs one that may read all streams.
func TestMetrics(t *testing.T) {
	is := is.New(t)
	path := filepath.Join(t.TempDir(), "tokens")
	tokensFile(t, path, "all read", "some write prefix=jobs/", "writer write")
	url, end := inProcess(t, t.TempDir(), "--tokens", path)
	for _, header := range []string{"X: y", "Authorization: Bearer no"} {
		status, _, _ := request(t, "GET", url+"/metrics", header)
		is.Equal(status, 401)
	}
	status, _, _ := request(t, "GET", url+"/metrics", "Authorization: Bearer secret-some")
	is.Equal(status, 403)
	for range 3 {
		status, _, _ := request(t, "POST", url+"/streams/a", "Authorization: Bearer secret-writer", "Stream-Closed: true")
		is.Equal(status, 204)
	}
	status, page, _ := request(t, "GET", url+"/metrics", "Authorization: Bearer secret-all")
	is.Equal(status, 200)
	for _, line := range []string{`streamd_appends_total 3`, `streamd_commits_total 1`, `streamd_rejected_requests_total 3`,
		`streamd_sync_duration_seconds_count 1`, `streamd_sync_failed 0`, `streamd_journals 1`,
		`streamd_memory_held_bytes 0`, `streamd_retention_trims_total 0`, `streamd_retention_failing_streams 0`,
		`streamd_http_requests_total{route="/metrics",method="GET",code="401"} 2`} {
		if !strings.Contains(page, "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	is.True(regexp.MustCompile(`\nstreamd_journal_bytes [1-9]`).MatchString(page))
	is.True(!strings.Contains(page, "secret") && !strings.Contains(page, path))
	if promtool, err := exec.LookPath("promtool"); err == nil {
		check := exec.CommandContext(t.Context(), promtool, "check", "metrics")
		check.Stdin = strings.NewReader(page)
		out, err := check.CombinedOutput()
		is.Equal(string(out), "")
		is.NoErr(err)
	} else {
		t.Log("there is no promtool: names and units were not checked")
	}
	_, err := end()
	is.NoErr(err)
}
