package disk

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/matryer/is"
)

// TestAnotherProgramHasTheFile: while another program has a stream's file and does not share it, what needs that is to
// be tried again; it is not damaged.
func TestAnotherProgramHasTheFile(t *testing.T) {
	is := is.New(t)
	dir := t.TempDir()
	s := openFolder(t, dir, Options{})
	is.NoErr(appendOne(s, "a", 0))
	is.NoErr(s.Close())
	name, err := syscall.UTF16PtrFromString(filepath.Join(dir, path("a")))
	is.NoErr(err)
	held, err := syscall.CreateFile(name, syscall.GENERIC_READ, 0, nil, syscall.OPEN_EXISTING, 0, 0)
	is.NoErr(err)
	s = openFolder(t, dir, Options{})
	is.True(errors.Is(appendOne(s, "a", 1), streamlib.ErrUnavailable))
	_, err = read(s, "a", 0)
	is.True(err != nil && !isCorrupt(err))
	is.Equal(len(s.Damaged()), 0)
	is.NoErr(appendOne(s, "b", 0)) // others are not concerned
	is.NoErr(syscall.CloseHandle(held))
	is.NoErr(appendOne(s, "a", 1))
	is.NoErr(expect(s, "a", 2))
}
