package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// offsets returns those of the events that a command has printed; a line that was cut off is none.
func offsets(t *testing.T, printed []byte) (offsets []streamlib.Offset) {
	t.Helper()
	lines := bytes.Split(printed, []byte("\n"))
	for _, line := range lines[:len(lines)-1] {
		var e streamlib.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		offsets = append(offsets, e.Offset)
	}
	return offsets
}

// TestCursorGoesOnOverKill9 while nobody takes what the subscriber prints, so that it ends in the middle of some events.
// The runs together print all of them: each goes on at the cursor, which is not ahead of what was printed.
func TestCursorGoesOnOverKill9(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	const count = 5000 // which pipes do not hold
	p := newPlace(t)
	p.start()
	p.ok("seq %d | streamctl stream append -n x > /dev/null", count)
	at := func() streamlib.Offset {
		c, err := openCursor(filepath.Join(p.dir, "c"), "x")
		is.NoErr(err) // it is whole at any time
		return max(c.next, 0)
	}
	next := streamlib.Offset(0) // what no run has printed
	for run := range 4 {
		begin := at()
		f := p.follow("streamctl stream subscribe -n x --cursor c")
		for written, last := 0, begin; written <= run%2; { // at once, and a little later
			if now := at(); now != last {
				written, last = written+1, now
			}
		}
		is.NoErr(f.c.Process.Kill())
		printed, err := io.ReadAll(f.out)
		is.NoErr(err)
		f.c.Wait()
		is.Equal(f.stderr.String(), "")
		got := offsets(t, printed)
		for i, o := range got {
			is.Equal(o, begin+streamlib.Offset(i)) // of what comes next
		}
		next = max(next, begin+streamlib.Offset(len(got)))
		is.True(begin < at() && at() <= next)
	}
	is.True(next < count)
	for i, o := range offsets(t, []byte(p.ok("streamctl stream subscribe -n x --cursor c --until-caught-up"))) {
		if i == 0 {
			is.True(o <= next)
			next = o
		}
		is.Equal(o, next+streamlib.Offset(i))
	}
	is.Equal(at(), streamlib.Offset(count))
	is.Equal(p.ok("streamctl stream subscribe -n x --cursor c --until-caught-up"), "")
}

// TestCursorStaysBehindWhatWasNotPrinted where nobody takes it, or the disk is full.
func TestCursorStaysBehindWhatWasNotPrinted(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	p.ok("seq 3 | streamctl stream append -n x > /dev/null")
	p.ok("streamctl stream subscribe -n x --cursor c --until-caught-up > /dev/null")
	kept := p.ok("cat c")
	p.ok("seq 3 | streamctl stream append -n x > /dev/null")
	r := p.run("streamctl stream subscribe -n x --cursor c --until-caught-up > /dev/full")
	is.Equal(r.code, 1)
	is.Equal(p.ok("cat c"), kept)
	read, write, err := os.Pipe()
	is.NoErr(err)
	is.NoErr(read.Close())
	c := p.command("exec streamctl stream subscribe -n x --cursor c --until-caught-up")
	c.Stdout = write
	is.NoErr(c.Run())
	is.NoErr(write.Close())
	is.Equal(p.ok("cat c"), kept)
	is.Equal(p.ok("streamctl stream subscribe -n x --cursor c --until-caught-up | jq .data"), "1\n2\n3\n")
}

// TestSignalsEndASubscriberBehindItsCursor by themselves and without a word, as without one.
func TestSignalsEndASubscriberBehindItsCursor(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(s.String(), func(t *testing.T) {
			is := is.New(t)
			p := newPlace(t)
			p.start()
			run := p.follow("streamctl stream subscribe -n x --cursor c")
			for i := range 5 { // faster than the file is written
				p.ok("streamctl stream append -n x -m %d", i)
				is.Equal(run.texts(1), []string{fmt.Sprint(i)})
			}
			is.NoErr(run.c.Process.Signal(s))
			err := run.c.Wait()
			is.Equal(err.(*exec.ExitError).Sys().(syscall.WaitStatus).Signal(), s)
			is.Equal(run.stderr.String(), "")
			is.Equal(p.ok("cat c; ls | grep -c ^c"), `{"stream":"x","next":"0000000000000005"}`+"\n1\n")
		})
	}
}

// TestCursorOfWhatIsNoMore: what was printed was of a stream that was deleted, or what comes next was dropped.
func TestCursorOfWhatIsNoMore(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPlace(t)
	p.start()
	p.ok("seq 3 | streamctl stream append -n x > /dev/null")
	p.ok("streamctl stream subscribe -n x --cursor c --until-caught-up > /dev/null")
	refused := func(why string) {
		t.Helper()
		for _, flags := range []string{"", "--until-caught-up"} {
			r := p.run("streamctl stream subscribe -n x --cursor c %s", flags)
			is.Equal(r.code, 1)
			is.Equal(r.stderr, "streamctl: "+why+"\nTry: rm c, then the same, which begins again\n")
		}
	}
	p.ok("seq 3 | streamctl stream append -n x > /dev/null")
	p.ok("streamctl stream trim -n x --before 3")
	is.Equal(p.ok("streamctl stream subscribe -n x --cursor c -o 0 --until-caught-up --data | tail -1"), "3\n") // missed none
	p.ok(`echo '{"stream":"x","next":"0000000000000003"}' > c`)
	p.ok("streamctl stream trim -n x --before 5")
	refused(`read "x" from 3: the events before 5 were dropped`)
	p.ok("streamctl stream delete -n x")
	refused(`resume "x" after 2: tail is 0, the stream was deleted since`)
	p.ok("seq 9 | streamctl stream append -n x > /dev/null")
	refused(`resume "x" after 2: tail is 9, the stream was deleted since`) // another one is there, and longer
	p.ok("rm c; streamctl stream subscribe -n x --cursor c --until-caught-up > /dev/null")
	is.Equal(p.ok("cat c"), `{"stream":"x","next":"0000000000000009","life":1}`+"\n")
	p.ok("echo 10 | streamctl stream append -n x > /dev/null")
	is.Equal(p.ok("streamctl stream subscribe -n x --cursor c --until-caught-up --data"), "10\n")
}

func TestCursorIsWrittenAtOnceOrALittleLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		path := filepath.Join(t.TempDir(), "c")
		fails := 0
		c, err := openCursor(path, `a "<b>"`)
		is.NoErr(err)
		c.fail = func(error) { fails++ }
		is.Equal(c.next, streamlib.Offset(-1))
		has := func() streamlib.Offset {
			again, err := openCursor(path, `a "<b>"`)
			is.NoErr(err)
			return again.next
		}
		is.Equal(has(), streamlib.Offset(-1)) // that it can be written was tried, and left nothing
		is.NoErr(c.move(1))
		is.Equal(has(), streamlib.Offset(1))
		is.NoErr(c.move(2))
		is.NoErr(c.move(3))
		is.Equal(has(), streamlib.Offset(1))
		time.Sleep(cursorPause - time.Nanosecond)
		is.Equal(has(), streamlib.Offset(1))
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		is.Equal(has(), streamlib.Offset(3)) // nothing moved it
		time.Sleep(cursorPause)
		is.NoErr(c.move(4))
		is.Equal(has(), streamlib.Offset(4))
		is.NoErr(c.move(5))
		is.NoErr(c.close())
		is.Equal(has(), streamlib.Offset(5))
		is.NoErr(c.close())

		// What cannot be written is told by the next move, and ends what moves no more.
		is.NoErr(c.move(6))
		is.NoErr(os.RemoveAll(filepath.Dir(path)))
		time.Sleep(cursorPause)
		synctest.Wait()
		is.Equal(fails, 1)
		err = c.move(7)
		is.True(err != nil && strings.Contains(err.Error(), "--cursor: keep the place 0000000000000006"))
		is.Equal(c.close(), err)
	})
}

func TestWhatIsNoCursorIsLeftAsItIs(t *testing.T) {
	for _, test := range []struct{ text, err string }{
		{"", "it is empty"},
		{"hello\n", "invalid character"},
		{`{"stream":"x","next":"0000000000000003"`, "unexpected EOF"},
		{`{"stream":"x","next":"0000000000000003"}{}`, "is no cursor"},
		{`{"stream":"x","next":"-1"}`, "is no cursor"},
		{`{"stream":"x","next":"now"}`, "is no cursor"},
		{`{"stream":"x","next":3}`, "is no cursor"},
		{`{"stream":"x"}`, "is no cursor"},
		{`{"stream":"x","next":"3","more":1}`, "is no cursor"},
		{`{"stream":"y","next":"0000000000000003"}`, `is of the stream "y", not of "x"`},
		{strings.Repeat(" ", maxCursor) + `{"stream":"x","next":"3"}`, "bytes"},
	} {
		t.Run(fmt.Sprintf("%.50s", test.text), func(t *testing.T) {
			is := is.New(t)
			path := filepath.Join(t.TempDir(), "c")
			is.NoErr(os.WriteFile(path, []byte(test.text), 0o600))
			_, err := openCursor(path, "x")
			is.True(err != nil && strings.HasPrefix(err.Error(), "--cursor: "+path+" "))
			is.True(strings.Contains(err.Error(), test.err))
			text, err := os.ReadFile(path)
			is.NoErr(err)
			is.Equal(string(text), test.text)
			there, err := os.ReadDir(filepath.Dir(path))
			is.NoErr(err)
			is.Equal(len(there), 1)
		})
	}
}

// TestCursorBehindALink: the link stays one.
func TestCursorBehindALink(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	is.NoErr(os.Mkdir(filepath.Join(dir, "kept"), 0o700))
	file, link := filepath.Join(dir, "kept", "c"), filepath.Join(dir, "link")
	is.NoErr(os.WriteFile(file, []byte(`{"stream":"x","next":"3"}`), 0o600))
	is.NoErr(os.Symlink(file, link))
	c, err := openCursor(link, "x")
	is.NoErr(err)
	is.Equal(c.next, streamlib.Offset(3))
	is.NoErr(c.move(4))
	text, err := os.ReadFile(file)
	is.NoErr(err)
	is.Equal(string(text), `{"stream":"x","next":"0000000000000004"}`+"\n")
}
