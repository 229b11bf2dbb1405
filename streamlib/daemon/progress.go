package daemon

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// A Progress is a line on a terminal that changes a few times a second. A nil one shows nothing.
type Progress struct {
	w    io.Writer
	last time.Time
}

// NewProgress returns one on w, nil where that is no terminal.
func NewProgress(w io.Writer) *Progress {
	if !IsTerminal(w) {
		return nil
	}
	return &Progress{w: w}
}

// Show shows what text returns, unless it is too soon.
func (p *Progress) Show(text func() string) {
	if p == nil {
		return
	}
	if now := time.Now(); now.Sub(p.last) > 200*time.Millisecond {
		p.last = now
		fmt.Fprint(p.w, "\x1b[?7l\r\x1b[K", text(), "\x1b[?7h") // what does not fit is not shown on another line
	}
}

// Clear leaves the line empty.
func (p *Progress) Clear() {
	if p != nil && !p.last.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// A Meter shows how many bytes have passed it, how fast, and how long the rest takes. What it is on may be used by many
// goroutines at once.
type Meter struct {
	*Progress
	Of int64 // bytes there are, 0 where that is not known

	// Before, where not nil, returns what stands before the bytes. It is called by whoever uses what the meter is on.
	Before func() string

	mu    sync.Mutex // guards what follows, and the progress
	begun time.Time
	done  int64
	ended bool
}

// Clear leaves the line empty, for good.
func (m *Meter) Clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = true
	m.Progress.Clear()
}

// Reader returns r with the meter on it.
func (m *Meter) Reader(r io.Reader) io.Reader {
	if m.Progress == nil {
		return r
	}
	m.begin()
	return io.TeeReader(r, m)
}

// Writer returns w with the meter on it.
func (m *Meter) Writer(w io.Writer) io.Writer {
	if m.Progress == nil {
		return w
	}
	m.begin()
	return io.MultiWriter(w, m)
}

func (m *Meter) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.begun.IsZero() {
		m.begun = time.Now()
	}
}

// Write counts b.
func (m *Meter) Write(b []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done += int64(len(b))
	if !m.ended {
		m.Show(m.text)
	}
	return len(b), nil
}

func (m *Meter) text() string {
	text := ""
	if m.Before != nil {
		text = m.Before()
	}
	text += Bytes(m.done)
	if m.Of > 0 {
		text += " of " + Bytes(m.Of)
	}
	took := time.Since(m.begun).Seconds()
	if took == 0 || m.done == 0 {
		return text
	}
	rate := float64(m.done) / took
	text += fmt.Sprintf(", %s/s", Bytes(int64(rate)))
	if left := m.Of - m.done; left > 0 {
		text += fmt.Sprintf(", %v left", time.Duration(float64(left)/rate*float64(time.Second)).Round(time.Second))
	}
	return text
}

// Left is how fast work goes that has done so many of what there is, and how long the rest takes.
func Left(begun time.Time, done, of int) string {
	took := time.Since(begun).Seconds()
	if took == 0 || done == 0 {
		return ""
	}
	rate := float64(done) / took
	return fmt.Sprintf(", %.0f/s, %v left", rate, time.Duration(float64(of-done)/rate*float64(time.Second)).Round(time.Second))
}

// Remaining is how many bytes are left to read of a file, 0 where v is none.
func Remaining(v any) int64 {
	f, ok := v.(*os.File)
	if !ok {
		return 0
	}
	info, err := f.Stat()
	at, errSeek := f.Seek(0, io.SeekCurrent)
	if err != nil || errSeek != nil || !info.Mode().IsRegular() {
		return 0
	}
	return info.Size() - at
}

// Bytes is a size for a person.
func Bytes(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	size, unit := float64(n)/1024, 0
	for size >= 1023.95 && unit < 4 {
		size, unit = size/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", size, "KMGTP"[unit])
}
