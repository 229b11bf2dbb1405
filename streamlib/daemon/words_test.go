package daemon_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/iterate/durable-streams/streamlib/daemon"
	"github.com/matryer/is"
)

// TestMessagesDoNoHarm: a path is one word of a message, and none speaks to the terminal.
func TestMessagesDoNoHarm(t *testing.T) {
	is := is.New(t)
	for s, word := range map[string]string{
		"/data/x": "/data/x", "/ä/ß😀": "/ä/ß😀", "": `""`, "/my data": `"/my data"`, "/a\nb": `"/a\nb"`,
		"/\x1b[2J": `"/\x1b[2J"`, "/\u202edata": `"/\u202edata"`, "/\xff": `"/\xff"`,
	} {
		is.Equal(daemon.Word(s), word)
	}
	inner := &fs.PathError{Op: "write", Path: "/my data/format", Err: errors.New("no room\x1b[1m")}
	err := fmt.Errorf("start: %w", errors.Join(&fs.PathError{Op: "open", Path: "/my data", Err: inner}))
	is.Equal(daemon.Message(err), `start: open "/my data": write "/my data/format": no room\x1b[1m`)
	err = &os.LinkError{Op: "rename", Old: "/a\nb", New: "/c", Err: errors.New("no")}
	is.Equal(daemon.Message(err), `rename "/a\nb" /c: no`)
	is.Equal(daemon.Message(errors.New("which?\n\nUsage: it's \"so\"")), "which?\n\nUsage: it's \"so\"")
}

// TestShellWords: what somebody is to type is what is meant.
func TestShellWords(t *testing.T) {
	is := is.New(t)
	if runtime.GOOS == "windows" { // whose shells are others
		for s, word := range map[string]string{
			"": `""`, `C:\data\x`: `C:\data\x`, "--port=0": "--port=0", `C:\my data`: `"C:\my data"`, "*": `"*"`,
			`a"b`: `"a\"b"`, "it's": `"it's"`, "user/ä": "user/ä",
		} {
			is.Equal(daemon.ShellWord(s), word)
		}
		return
	}
	for s, word := range map[string]string{
		"": "''", "/data/x": "/data/x", "user/ä": "user/ä", "--port=0": "--port=0", "/my data": "'/my data'", "it's": `'it'\''s'`,
		"$(rm)": "'$(rm)'", "*": "'*'", "\xff": `$'\377'`, "~x": "'~x'", "a\nb'\\\x1b": `$'a\012b\047\134\033'`,
	} {
		is.Equal(daemon.ShellWord(s), word)
		if _, err := exec.LookPath("bash"); err == nil {
			out, err := exec.Command("bash", "-c", "printf %s "+word).Output()
			is.NoErr(err)
			is.Equal(string(out), s)
		}
	}
}
