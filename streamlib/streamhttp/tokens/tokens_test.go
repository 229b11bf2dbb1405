package tokens_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/iterate/durable-streams/streamlib/streamhttp/tokens"
	"github.com/matryer/is"
)

// digest is that of a secret in a file.
func digest(secret string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(secret))) }

func TestLines(t *testing.T) {
	d, e := digest("d"), digest("e")
	// The tokens as lines, or where it begins with ~ a part of the error.
	for _, test := range []struct{ file, want string }{
		{"a " + d + " read", "a " + d + " read"},
		{"\ufeffa " + strings.ToUpper(d) + " write\r\n\r\nb\t" + e + "  admin", "a " + d + " write\nb " + e + " admin"},
		{"# all\n  # of them\na " + d + " read # she left\n#", "a " + d + " read"},
		{"a " + d + " read prefix=jobs/ prefix=a%20b%25#c", "a " + d + " read prefix=jobs/ prefix=a%20b%25#c"},
		{"a " + d + " read prefix=caf%C3%A9/😀%2Fx", "a " + d + " read prefix=café/😀/x"},
		{"a " + d + " read expires=2027-01-31T02:00:00+02:00 prefix=x",
			"a " + d + " read prefix=x expires=2027-01-31T00:00:00Z"},
		{"é😀 " + d + " read", "é😀 " + d + " read"},
		{"", ""},
		{"a " + d, "~line 1: a line is NAME"},
		{"\n\na secret read", "~line 3: the second word"},
		{"a " + d + "00 read", "~the second word"},
		{"a " + d[:62] + " read", "~the second word"},
		{"a " + d[:63] + "g read", "~the second word"},
		{"a " + d + " Read", "~the third word"},
		{"a " + d + " secret", "~the third word"},
		{"a " + d + " read secret", "~neither prefix=P nor expires=TIME"},
		{"a " + d + " read prefix", "~1 to 255 bytes"},
		{"a " + d + " read prefix=", "~1 to 255 bytes"},
		{"a " + d + " read prefix=100%", "~% is written %25"},
		{"a " + d + " read prefix=%0A", "~control characters"},
		{"a " + d + " read expires=secret", "~expires= wants a time"},
		{"a " + d + " read expires=2027-01-31", "~expires= wants a time"},
		{"a " + d + " read expires=2027-01-31T00:00:00Z expires=2028-01-31T00:00:00Z", "~twice"},
		{"a " + d + " read\nb " + e + " read\na " + digest("f") + " read", "~lines 1 and 3 have the same name"},
		{"a " + d + " read\n\nb " + strings.ToUpper(d) + " read", "~lines 1 and 3 have the same digest"},
		{"a\x1b[31m " + d + " read", "~a token's name"},
		{"a\x00 " + d + " read", "~a token's name"},
		{"\xff " + d + " read", "~line 1: a token's name is 1 to 255 bytes of UTF-8"},
		{"a " + d + " read prefix=\xff", "~line 1: a prefix is"},
		{"# caf\xe9\na " + d + " read # \x00", "a " + d + " read"},
	} {
		t.Run(test.file, func(t *testing.T) {
			is := is.New(t)
			list, err := tokens.Parse([]byte(test.file))
			if part, bad := strings.CutPrefix(test.want, "~"); bad {
				if err == nil || !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "secret") ||
					strings.Contains(err.Error(), d[:8]) {
					t.Errorf("the error is %v, and should say %q and nothing of what stands there", err, part)
				}
				return
			}
			is.NoErr(err)
			var lines []string
			for _, token := range list {
				lines = append(lines, token.String())
			}
			is.Equal(strings.Join(lines, "\n"), test.want)
			again, err := tokens.Parse([]byte(test.want))
			is.NoErr(err)
			is.Equal(again, list)
		})
	}
}

// FuzzLine: what can be written is read as it was written.
func FuzzLine(f *testing.F) {
	f.Add("a", "jobs/", int64(1))
	f.Add("#", "a b%\u00a0\u2028", int64(0))
	f.Add("é", "%2F#\u200b", int64(1<<40))
	f.Fuzz(func(t *testing.T, name, prefix string, seconds int64) {
		token := tokens.Token{Name: name, Digest: sha256.Sum256([]byte(name)), Right: streamhttp.Write,
			Prefixes: []string{prefix}, Expires: time.Unix(seconds, 0).UTC()}
		if token.Check() != nil {
			return
		}
		list, err := tokens.Parse([]byte(token.String()))
		if err != nil || len(list) != 1 || list[0].String() != token.String() || list[0].Prefixes[0] != prefix {
			t.Fatalf("%q was read as %v, %v", token, list, err)
		}
	})
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFilesThatAreRefused: each with what is wrong, never with what stands in it.
func TestFilesThatAreRefused(t *testing.T) {
	good := "a " + digest("secret") + " read\n"
	file := func(text string, mode os.FileMode) func(string) error {
		return func(path string) error {
			return errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)) // whatever the umask
		}
	}
	for _, test := range []struct {
		name string
		make func(path string) error
		want string // a part of the error, "" where there is none
	}{
		{"its owner's", file(good, 0o600), ""},
		{"its owner's to read", file(good, 0o400), ""},
		{"a link", func(path string) error {
			return errors.Join(file(good, 0o600)(path+".real"), os.Symlink(path+".real", path))
		}, ""},
		{"everybody's", file(good, 0o644), "mode 0644); chmod 600 "},
		{"all but the group's", file(good, 0o604), "mode 0604); chmod 600 "},
		{"the group's", file(good, 0o640), "mode 0640); chmod 600 "},
		{"missing", func(path string) error { return nil }, "no such file"},
		{"a folder", func(path string) error { return os.Mkdir(path, 0o700) }, "no regular file"},
		{"a pipe", makePipe, "no regular file"},
		{"empty", file("", 0o600), "it has no token"},
		{"comments", file("# a\n", 0o600), "it has no token"},
		{"huge", file(strings.Repeat("# a\n", 5<<20), 0o600), "larger than"},
		{"bad", file("a secret read", 0o600), "line 1: the second word"},
	} {
		t.Run(test.name, func(t *testing.T) {
			is := is.New(t)
			path := filepath.Join(t.TempDir(), "tokens")
			is.NoErr(test.make(path))
			f, err := tokens.Open(path, tokens.Options{})
			if test.want == "" {
				is.NoErr(err)
				is.Equal(f.Len(), 1)
				is.NoErr(f.Close())
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) ||
				strings.Contains(err.Error(), "secret") {
				t.Errorf("the error is %v, and should name the file and say %q", err, test.want)
			}
		})
	}
}

// TestAppendAtOnce: of those with the same name one.
func TestAppendAtOnce(t *testing.T) {
	is := is.New(t)
	path := filepath.Join(t.TempDir(), "tokens")
	const names, each = 100, 4
	var wait sync.WaitGroup
	won := make(chan struct{}, names*each)
	begin := make(chan struct{})
	for i := range names * each {
		wait.Go(func() {
			token := tokens.Token{Name: fmt.Sprint("t", i/each), Right: streamhttp.Read}
			_, token.Digest = tokens.New()
			<-begin
			if err := tokens.Append(path, token); err == nil {
				won <- struct{}{}
			} else if !strings.Contains(err.Error(), "it has a token \""+token.Name+"\" already") {
				t.Error(err)
			}
		})
	}
	close(begin)
	wait.Wait()
	is.Equal(len(won), names)
	f, err := tokens.Open(path, tokens.Options{}) // its mode is right
	is.NoErr(err)
	is.Equal(f.Len(), names)
	is.NoErr(f.Close())
}

func TestAppendKeepsWhatThereIs(t *testing.T) {
	is := is.New(t)
	path := filepath.Join(t.TempDir(), "tokens")
	token := tokens.Token{Name: "b", Digest: sha256.Sum256([]byte("b")), Right: streamhttp.Admin,
		Prefixes: []string{"a b"}}
	writeFile(t, path, "a "+digest("a")+" read") // without an end of the line
	is.NoErr(tokens.Append(path, token))
	text, err := os.ReadFile(path)
	is.NoErr(err)
	is.Equal(string(text), "a "+digest("a")+" read\nb "+digest("b")+" admin prefix=a%20b\n")

	for _, bad := range []string{"a secret read\n", string(text)} {
		writeFile(t, path, bad)
		is.True(tokens.Append(path, token) != nil)
		kept, err := os.ReadFile(path)
		is.NoErr(err)
		is.Equal(string(kept), bad)
	}
	is.NoErr(os.Chmod(path, 0o644))
	token.Name = "c"
	is.True(strings.Contains(fmt.Sprint(tokens.Append(path, token)), "chmod 600"))
	for _, place := range []string{os.DevNull, t.TempDir()} { // no mode makes these a file of tokens
		is.Equal(tokens.Append(place, token).Error(), "tokens file "+place+": it is no regular file")
	}
	token.Name = "c d"
	is.True(strings.Contains(fmt.Sprint(tokens.Append(path, token)), "white space"))
}

func TestSecretsDiffer(t *testing.T) {
	is := is.New(t)
	seen := map[string]bool{}
	for range 1000 {
		secret, d := tokens.New()
		is.Equal(fmt.Sprintf("%x", d), digest(secret))
		is.True(len(secret) >= 3+26) // 5 bits a letter
		seen[secret] = true
	}
	is.Equal(len(seen), 1000)
}
