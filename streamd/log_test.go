//go:build unix

package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/matryer/is"
)

// TestLogFlags: what a line is, which lines there are, and what the journal of systemd gets instead of the time.
func TestLogFlags(t *testing.T) {
	for _, c := range []struct {
		args    string
		journal bool
		want    []string
	}{
		{"", false, []string{`time=T level=INFO msg=i`, `time=T level=WARN msg=w`, `time=T level=ERROR msg="e\nx"`}},
		{"--log-level=error", false, []string{`time=T level=ERROR msg="e\nx"`}},
		{"--log-level=debug --log-format=json", false, []string{`{"time":"T","level":"DEBUG","msg":"d"}`,
			`{"time":"T","level":"INFO","msg":"i"}`, `{"time":"T","level":"WARN","msg":"w"}`,
			`{"time":"T","level":"ERROR","msg":"e\nx"}`}},
		{"--log-level=debug", true, []string{`<7>level=DEBUG msg=d`, `<6>level=INFO msg=i`, `<4>level=WARN msg=w`,
			`<3>level=ERROR msg="e\nx"`}},
	} {
		t.Run(c.args, func(t *testing.T) {
			is := is.New(t)
			o, err := parse(strings.Fields(c.args), noEnv, nil)
			is.NoErr(err)
			var out bytes.Buffer
			log := newLog(o, &out, c.journal)
			log.Debug("d")
			log.Info("i")
			log.Warn("w")
			log.Error("e\nx")
			var lines []string
			for line := range strings.Lines(out.String()) {
				for _, field := range []string{"time=", `"time":"`} {
					if before, after, ok := strings.Cut(line, field); ok {
						_, after, _ = strings.Cut(after, ":")
						_, after, _ = strings.Cut(after, ":")
						line = before + field + "T" + after[strings.IndexAny(after, "\" "):]
					}
				}
				lines = append(lines, strings.TrimSuffix(line, "\n"))
			}
			is.Equal(lines, c.want)
			is.Equal(log.Enabled(t.Context(), slog.LevelDebug), strings.Contains(c.args, "debug"))
		})
	}
}

// TestJournalStream: the variable names the stream that stderr was when the service was started.
func TestJournalStream(t *testing.T) {
	is := is.New(t)
	f, err := os.Create(t.TempDir() + "/f")
	is.NoErr(err)
	defer f.Close()
	info, err := f.Stat()
	is.NoErr(err)
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Skip("files have no inodes here")
	}
	is.True(isJournal(f, fmt.Sprintf("%d:%d", s.Dev, s.Ino)))
	is.True(!isJournal(f, fmt.Sprintf("%d:%d", s.Dev, s.Ino+1)))
	is.True(!isJournal(f, ""))
}
