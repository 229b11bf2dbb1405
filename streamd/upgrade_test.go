//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/matryer/is"
)

// firstForm is a line of a stream's file as the first format has it, and secondForm as the later ones have.
var (
	firstForm  = regexp.MustCompile(strings.Replace(secondForm.String(), `(,"life":"\d{16}")?`, "", 1))
	secondForm = regexp.MustCompile(`^\{"offset":"\d{16}","eventStreamId":"[^"]+","data":.*,"createdAt":"[^"]{24}"` +
		`(,"key":"([^"\\]|\\.)*")?(,"life":"\d{16}")?,"crc32c":"[0-9a-f]{8}"\}$`)
)

// TestUpgrade: a server starts on what former versions have left, and where nothing is used that they do not know, it
// leaves what they can go on with. The folders in testdata/upgrade are those of streamd at 0bc50b2 (format 1),
// 9fa3f89 (2) and b7a17c4 (3), killed, without the line that the journal has for the stream orders.
func TestUpgrade(t *testing.T) {
	events := map[string]string{
		"orders": `{"type":"message","text":"<é \u2028 😀>"} 1.0 1e400 "three" "in the journal"`,
		"Ü/x":    `"of another name"`, "gone": "2 3", "done": `"all"`, "trimmed": "2", "noted": `{"a":1}`,
	}
	for version, streams := range map[string]string{"1": "orders Ü/x gone", "2": "orders Ü/x gone done trimmed",
		"3": "orders Ü/x gone done trimmed noted"} {
		t.Run(version, func(t *testing.T) {
			is := is.New(t)
			form, golden, dir := secondForm, filepath.Join("testdata", "upgrade", version), t.TempDir()
			if version == "1" {
				form = firstForm
			}
			is.NoErr(os.CopyFS(dir, os.DirFS(golden)))
			format := readFile(t, golden, "format")
			at, end := inProcess(t, dir)
			data := func(stream string) string {
				answer, err := http.Get(at + "/streams/" + url.PathEscape(stream) + "/events")
				is.NoErr(err)
				defer answer.Body.Close()
				var all struct {
					Events []struct{ Data json.RawMessage }
				}
				is.NoErr(json.NewDecoder(answer.Body).Decode(&all))
				var said []string
				for _, e := range all.Events {
					said = append(said, string(e.Data))
				}
				return strings.Join(said, " ")
			}
			append1 := func(stream, body, key string) (int, string) {
				r, err := http.NewRequest("POST", at+"/streams/"+url.PathEscape(stream), strings.NewReader(body))
				is.NoErr(err)
				r.Header.Set("Content-Type", "application/x-ndjson")
				r.Header.Set("Idempotency-Key", key)
				answer, err := http.DefaultClient.Do(r)
				is.NoErr(err)
				defer answer.Body.Close()
				b, err := io.ReadAll(answer.Body)
				is.NoErr(err)
				return answer.StatusCode, string(b)
			}
			for _, stream := range strings.Fields(streams) {
				is.Equal(data(stream), events[stream])
			}
			status, said := append1("orders", "1.0\n1e400\n\"three\"\n", `k "1"`) // which was appended by the former version
			is.Equal(status, 200)
			is.True(strings.Contains(said, `"offset":"0000000000000001"`))
			status, said = append1("orders", "{\"b\":2}\n", `new "key" \`)
			is.Equal(status, 201)
			is.True(strings.Contains(said, `"offset":"0000000000000005"`))
			status, _ = append1("new", "1\n", "k")
			is.Equal(status, 201)
			if version != "1" {
				status, _ = append1("done", "1\n", "k")
				is.Equal(status, 409)
				is.Equal(data("trimmed"), "2")
			}
			_, err := end()
			is.NoErr(err)
			is.NoErr(run(t.Context(), []string{"verify", "--dir", dir}, noEnv, nil, io.Discard, io.Discard))

			// And back.
			is.Equal(readFile(t, dir, "format"), format)
			is.NoErr(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				name, _ := filepath.Rel(dir, path)
				there, _ := os.ReadFile(filepath.Join(golden, name))
				switch kind, _, _ := strings.Cut(filepath.ToSlash(name), "/"); {
				case err != nil || d.IsDir() || name == "format":
				case kind == "journal":
					t.Errorf("%s is left", name)
				case kind == "streams" && len(there) == 0 && name != filepath.Join("streams", "new.json"):
					t.Errorf("%s is new", name)
				case kind == "streams":
					b := []byte(readFile(t, dir, name))
					is.True(bytes.HasPrefix(b, there))
					for line := range strings.Lines(string(b[len(there):])) {
						if !form.MatchString(strings.TrimSpace(line)) {
							t.Errorf("%s has %s", name, line)
						}
					}
				case name == ".gitignore", strings.HasPrefix(name, "daemon."): // which no version reads as its own
				case name == "deletions" && version == "1": // nor does the first read this
					is.True(strings.HasPrefix(readFile(t, dir, name), `{"deletions":"0000000000000000",`))
				case readFile(t, dir, name) != string(there):
					t.Errorf("%s is\n%s\nnot\n%s", name, readFile(t, dir, name), there)
				}
				return nil
			}))
		})
	}
}
