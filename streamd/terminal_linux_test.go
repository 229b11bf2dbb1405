package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/matryer/is"
)

// terminal returns both ends of a new one (pty(7)).
func terminal(t *testing.T) (outside, inside *os.File) {
	t.Helper()
	outside, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	var unlocked, number int32
	for request, value := range map[uintptr]*int32{syscall.TIOCSPTLCK: &unlocked, syscall.TIOCGPTN: &number} {
		if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, outside.Fd(), request, uintptr(unsafe.Pointer(value))); e != 0 {
			t.Fatal(e)
		}
	}
	if inside, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return outside, inside
}

// TestTerminalThatCloses ends the server, though SIGHUP reads the tokens again while there is one.
func TestTerminalThatCloses(t *testing.T) {
	is := is.New(t)
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "tokens")
	tokensFile(t, path, "a read")
	outside, inside := terminal(t)
	c := exec.Command(streamdBinary(t), "--dir", dir, "--port", "0", "--tokens", path)
	c.Stdin, c.Stdout = inside, inside
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true} // of stdin
	log, err := c.StderrPipe()
	is.NoErr(err)
	is.NoErr(c.Start())
	t.Cleanup(func() { c.Process.Kill() })
	inside.Close()
	lines := bufio.NewScanner(log)
	is.True(lines.Scan()) // it serves
	tokensFile(t, path, "b read")
	is.NoErr(c.Process.Signal(syscall.SIGHUP))
	is.True(lines.Scan())
	is.True(strings.Contains(lines.Text(), "tokens read again"))
	outside.Close()
	is.True(lines.Scan())
	is.True(strings.Contains(lines.Text(), "hangup"))
	for lines.Scan() {
	}
	is.NoErr(c.Wait())
}
