package follower_test

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib/follower"
	"github.com/matryer/is"
)

// TestTheCursorIsBounded: by the streams that there are, and not by what was appended, also where many come and go.
func TestTheCursorIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t, follower.Options{})
		l.start()
		most := 0
		for i := range 6_000 {
			l.append("a", "1")
			name := fmt.Sprint("new", i)
			l.append(name, "1")
			time.Sleep(25 * time.Millisecond)
			if i%2 == 0 {
				is.NoErr(l.manager.Stream(name).Delete(t.Context()))
			} else if i >= 100 {
				is.NoErr(l.manager.Stream(fmt.Sprint("new", i-100)).Delete(t.Context()))
			}
			if i%500 == 0 {
				b, err := os.ReadFile(l.o.Path)
				is.NoErr(err)
				most = max(most, bytes.Count(b, []byte("\n")))
			}
		}
		is.True(most > 3000)
		is.True(most <= 4096+2*150)
		is.NoErr(l.stop())
		l.took()
		l.start()
		time.Sleep(time.Minute)
		is.Equal(l.took(), "")
		info, err := os.Stat(l.o.Path)
		is.NoErr(err)
		is.True(info.Mode().Perm() == 0o600 || runtime.GOOS == "windows")
	})
}

// TestADamagedCursor: where a line of it is not what was written, nothing is left out.
func TestADamagedCursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t, follower.Options{})
		l.append("a", "1")
		l.append("b", "1")
		l.start()
		l.append("a", "2")
		time.Sleep(time.Second)
		l.append("a", "3")
		time.Sleep(time.Second)
		is.Equal(l.took(), "a/1=2 a/2=3")
		is.NoErr(l.stop())
		whole, err := os.ReadFile(l.o.Path)
		is.NoErr(err)
		lines := strings.SplitAfter(string(whole), "\n")
		is.Equal(len(lines), 6) // what it is, two streams, two deliveries, nothing
		for i, want := range []string{"", "", "", "", "a/2=3"} {
			if i < 3 {
				continue
			}
			damaged := append([]string{}, lines...)
			damaged[i] = strings.Replace(damaged[i], `"next":"`, `"next":"1`, 1)
			is.NoErr(os.WriteFile(l.o.Path, []byte(strings.Join(damaged, "")), 0o600))
			l.start()
			time.Sleep(time.Second)
			is.Equal(l.took(), want)
			is.NoErr(l.stop())
		}
		for cut := len(lines[0]); cut < len(whole); cut++ { // torn anywhere
			is.NoErr(os.WriteFile(l.o.Path, whole[:cut], 0o600))
			l.start()
			time.Sleep(time.Second)
			if got := l.took(); cut < len(whole)-len(lines[4]) {
				is.True(strings.HasSuffix(got, "a/1=2 a/2=3") || strings.Contains(got, "a/1=2 a/2=3 "))
			} else {
				is.Equal(got, "a/2=3")
			}
			is.NoErr(l.stop())
			l.start()
			time.Sleep(time.Second)
			is.Equal(l.took(), "")
			is.NoErr(l.stop())
		}
		for _, content := range []string{"", "x", lines[0][:len(lines[0])-1], strings.Replace(string(whole), "streams 1", "streams 2", 1)} {
			is.NoErr(os.WriteFile(l.o.Path, []byte(content), 0o600))
			_, err := follower.Open(t.Context(), l.o)
			is.True(err != nil && strings.Contains(err.Error(), l.o.Path))
		}
	})
}

// TestACursorThatCannotBeWritten: events are handed over all the same, and it is written when it can be.
func TestACursorThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab(t, follower.Options{})
		l.start()
		for i := range 5000 { // it is to be written anew on the way
			if i == 3000 {
				is.NoErr(os.Mkdir(l.o.Path+".new", 0o700))
				is.NoErr(os.Mkdir(l.o.Path+".new/x", 0o700))
			}
			l.append("a", "1")
			time.Sleep(25 * time.Millisecond)
		}
		is.True(strings.HasPrefix(l.took(), "a/0=1 a/1=1"))
		is.Equal(strings.Count(l.log.String(), "level=ERROR"), 1)
		is.NoErr(os.RemoveAll(l.o.Path + ".new"))
		time.Sleep(10 * time.Second)
		is.Equal(strings.Count(l.log.String(), "is noted again"), 1)
		is.NoErr(l.stop())
		l.start()
		time.Sleep(10 * time.Second)
		is.Equal(l.took(), "")
	})
}
