package main

import (
	"slices"
	"testing"

	"github.com/matryer/is"
)

// TestMountIn: of the mounts above a folder the nearest counts, and of two on one place the later.
func TestMountIn(t *testing.T) {
	is := is.New(t)
	const mountinfo = `22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
23 22 8:2 / /data rw shared:1 - xfs /dev/sdb1 rw,nobarrier
24 23 0:30 / /data/my\040tmp rw - tmpfs none rw
25 22 0:31 / /srv rw - nfs4 there:/srv rw
26 22 8:3 / /srv rw master:2 - ext4 /dev/sdc1 rw,barrier=0
`
	for dir, want := range map[string]string{"/x": "/ ext4", "/data": "/data xfs", "/data2": "/ ext4",
		"/data/my tmp/a": "/data/my tmp tmpfs", "/srv/a": "/srv ext4"} {
		m, err := mountIn(mountinfo, dir)
		is.NoErr(err)
		is.Equal(m.point+" "+m.kind, want)
		is.Equal(slices.Contains(m.options, "nobarrier"), dir == "/data")
		is.Equal(slices.Contains(m.options, "barrier=0"), dir == "/srv/a")
	}
	_, err := mountIn("", "/x")
	is.True(err != nil)
}
