package hooks

import (
	"encoding/binary"
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/matryer/is"
)

// TestWhoIsInAnAccessList of the folder, of one above it or of a program can write there, too.
func TestWhoIsInAnAccessList(t *testing.T) {
	for _, at := range []string{".", "..", "before-append"} {
		is := is.New(t)
		dir := folder(t, map[string]string{"before-append": "true"})
		set := func(other uint16) {
			t.Helper()
			acl := binary.LittleEndian.AppendUint32(nil, 2) // acl(5), as struct posix_acl_xattr_entry has it
			const none = ^uint32(0)
			for _, e := range []struct {
				tag, may uint16
				id       uint32
			}{{0x01, 7, none}, {0x02, other, 12345}, {0x04, 5, none}, {0x10, other | 5, none}, {0x20, 5, none}} {
				acl = binary.LittleEndian.AppendUint16(acl, e.tag)
				acl = binary.LittleEndian.AppendUint16(acl, e.may)
				acl = binary.LittleEndian.AppendUint32(acl, e.id)
			}
			if err := syscall.Setxattr(filepath.Join(dir, at), "system.posix_acl_access", acl, 0); err != nil {
				t.Skipf("there are no access lists here: %v", err)
			}
		}
		set(5)
		_, err := Open(dir, t.TempDir(), 1, slog.New(slog.DiscardHandler))
		is.NoErr(err)
		set(7)
		_, err = Open(dir, t.TempDir(), 1, slog.New(slog.DiscardHandler))
		is.True(err != nil && strings.Contains(err.Error(), "others than the server's user can write"))
	}
}
