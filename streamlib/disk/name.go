package disk

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

const (
	streamsDir = "streams"
	journalDir = "journal"
	damagedDir = "damaged"
	stateDir   = "state"
	formatFile = "format"
	probeFile  = streamsDir + "/.probe"

	deletionsFile = "deletions"
	deletedState  = stateDir + "/.deleted"   // of a stream that is deleted and no journal says so
	newState      = stateDir + "/.new"       // that is to take the place of another
	newTrimmed    = streamsDir + "/.trimmed" // what is kept of a stream

	suffix  = ".json"
	maxStem = 220 // of the 255 bytes of a file name, less room for the suffixes of what recovery keeps
)

// stem encodes a stream's name into the name of its file without suffix: lower-case letters, digits, '-', '_' and '.'
// stand for themselves, any other byte is '%' and two lower-case hex digits. So are a dot at the beginning, which
// would hide the file, and the first letter of what Windows takes for a device. No two names have the same stem,
// whether or not the file system tells upper from lower case or composes characters. A name whose stem would be too
// long has '~' and the SHA-256 of the name instead; its events tell the name.
func stem(name string) string {
	if plainName(name) {
		return name
	}
	var b strings.Builder
	device := isDevice(name)
	for i := range len(name) {
		c := name[i]
		switch {
		case i == 0 && (c == '.' || device), !plain(c):
			fmt.Fprintf(&b, "%%%02x", c)
		default:
			b.WriteByte(c)
		}
	}
	if b.Len() > maxStem {
		sum := sha256.Sum256([]byte(name))
		return "~" + hex.EncodeToString(sum[:])
	}
	return b.String()
}

// plainName tells whether the name is its own stem.
func plainName(name string) bool {
	for i := range len(name) {
		if !plain(name[i]) {
			return false
		}
	}
	return name != "" && name[0] != '.' && len(name) <= maxStem && !isDevice(name)
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.'
}

// isDevice tells whether Windows takes the name for a device: learn.microsoft.com/windows/win32/fileio/naming-a-file.
// Upper-case letters are encoded anyway.
func isDevice(name string) bool {
	base, _, _ := strings.Cut(name, ".")
	switch base {
	case "con", "prn", "aux", "nul":
		return true
	}
	return len(base) == 4 && (base[:3] == "com" || base[:3] == "lpt") && '0' <= base[3] && base[3] <= '9'
}

// unstem is the name whose stem s is. Where s is nobody's stem, it is the raw name of a stream whose file was moved
// there. Hashed tells that only the file itself can say.
func unstem(s string) (name string, hashed bool) {
	if strings.HasPrefix(s, "~") {
		return "", true
	}
	if name, err := url.PathUnescape(s); err == nil && stem(name) == s {
		return name, false
	}
	return s, false
}

// path is where the stream's events are.
func path(name string) string { return streamsDir + "/" + stem(name) + suffix }

// rawPath is where somebody may look for them, "" where that is the same, cannot be a file's name, or is another
// stream's path.
func rawPath(name string) string {
	if owner, hashed := unstem(name); owner != name || hashed {
		return ""
	}
	file := name + suffix
	if name == stem(name) || strings.ContainsAny(name, notInNames) || !filepath.IsLocal(file) || len(file) > 255 {
		return ""
	}
	return streamsDir + "/" + file
}
