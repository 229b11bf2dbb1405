package daemon

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

func TestBytes(t *testing.T) {
	is := is.New(t)
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1.0 MiB", 1 << 30: "1.0 GiB", 1 << 62: "4096.0 PiB",
	} {
		is.Equal(Bytes(n), want)
	}
}

// TestMeter: it shows what has passed a few times a second, and nothing where there is no terminal.
func TestMeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var out bytes.Buffer
		m := Meter{Progress: &Progress{w: &out}, Of: 100 << 10}
		r := m.Reader(strings.NewReader(strings.Repeat("x", 100<<10)))
		for range 10 {
			time.Sleep(100 * time.Millisecond)
			_, err := io.ReadFull(r, make([]byte, 10<<10))
			is.NoErr(err)
		}
		m.Clear()
		shown := strings.NewReplacer("\x1b[?7l\r\x1b[K", "\n", "\r\x1b[K", "\n", "\x1b[?7h", "")
		is.Equal(shown.Replace(out.String()), `
10.0 KiB of 100.0 KiB, 100.0 KiB/s, 1s left
40.0 KiB of 100.0 KiB, 100.0 KiB/s, 1s left
70.0 KiB of 100.0 KiB, 100.0 KiB/s, 0s left
100.0 KiB of 100.0 KiB, 100.0 KiB/s
`)
		out.Reset()
		m = Meter{Progress: &Progress{w: &out}}
		time.Sleep(time.Second)
		_, err := io.Copy(io.Discard, m.Reader(strings.NewReader("xxxx")))
		is.NoErr(err)
		is.Equal(out.String(), "\x1b[?7l\r\x1b[K4 B\x1b[?7h") // in a narrow window it stays one line

		m = Meter{Progress: NewProgress(&out)}
		is.True(m.Progress == nil)
		in := strings.NewReader("x")
		is.Equal(m.Reader(in), in)
		m.Show(nil)
		m.Clear()
	})
}
