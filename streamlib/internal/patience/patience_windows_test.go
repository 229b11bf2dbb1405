package patience_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/iterate/durable-streams/streamlib/internal/patience"
	"github.com/matryer/is"
)

// TestWaitsForOtherPrograms: what another program has open for a moment is opened, replaced and removed behind that,
// and what never goes is told at once.
func TestWaitsForOtherPrograms(t *testing.T) {
	is := is.New(t)
	made, path := filepath.Join(t.TempDir(), "made"), filepath.Join(t.TempDir(), "file")
	for _, p := range []string{made, path} {
		is.NoErr(os.WriteFile(p, nil, 0o600))
	}
	behind := func(how func(func() error) error, sharing uint32, do func() error) {
		name, err := syscall.UTF16PtrFromString(path)
		is.NoErr(err)
		held, err := syscall.CreateFile(name, syscall.GENERIC_READ, sharing, nil, syscall.OPEN_EXISTING, 0, 0)
		is.NoErr(err)
		tries := 0
		is.NoErr(how(func() error {
			if tries++; tries == 2 {
				syscall.CloseHandle(held)
			}
			return do()
		}))
		is.Equal(tries, 2)
	}
	const reader = syscall.FILE_SHARE_READ | syscall.FILE_SHARE_WRITE // as Go's own os.Open shares
	behind(patience.Open, 0, func() error {
		f, err := os.Open(path)
		if err == nil {
			f.Close()
		}
		return err
	})
	behind(patience.Replace, reader, func() error { return os.Rename(made, path) })
	behind(patience.Replace, reader, func() error { return os.Remove(path) })
	tries := 0
	is.True(os.IsNotExist(patience.Replace(func() error { tries++; return os.Remove(path) })))
	is.Equal(tries, 1)
}
