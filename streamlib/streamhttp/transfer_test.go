package streamhttp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/iterate/durable-streams/streamlib/transfer"
	"github.com/matryer/is"
)

// exported is what a server exports.
func exported(t *testing.T, c *streamhttp.Client, q transfer.Query) string {
	t.Helper()
	body, err := c.Export(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// fillStreams makes streams of all kinds.
func fillStreams(t *testing.T, m *streamlib.Manager) {
	is := is.New(t)
	for i, name := range []string{"a/1", "a/2", `b "\ 😀`, "closed", "trimmed", "emptied"} {
		s := m.Stream(name)
		for n := range 10 * (i + 1) {
			b := streamlib.Batch{Data: streamlib.JSON(fmt.Sprint(n), `"<€>"`)}
			if n%3 == 0 {
				b.Key = fmt.Sprint("k", n)
			}
			_, err := s.Append(t.Context(), b)
			is.NoErr(err)
		}
	}
	_, err := m.Stream("closed").Append(t.Context(), streamlib.Batch{Close: true})
	is.NoErr(err)
	is.NoErr(m.Stream("trimmed").Trim(t.Context(), 33))
	is.NoErr(m.Stream("emptied").Trim(t.Context(), streamlib.Now))
}

func TestExportAndImport(t *testing.T) {
	is := is.New(t)
	from, m := serve(t, streamhttp.Config{})
	fillStreams(t, m)
	to, _ := serve(t, streamhttp.Config{})
	whole := exported(t, from, transfer.Query{})
	sum, err := to.Import(t.Context(), strings.NewReader(whole))
	is.NoErr(err)
	is.Equal(sum.Streams, 6)
	is.True(sum.Events > 0 && sum.Stored == sum.Events)
	is.Equal(exported(t, to, transfer.Query{}), whole)
	again, err := to.Import(t.Context(), strings.NewReader(whole))
	is.NoErr(err)
	is.Equal(again.Stored, int64(0))
	is.Equal(again.Events, sum.Events)

	for q, want := range map[transfer.Query]int{
		{Prefix: "a/"}: 2, {Name: "a/1"}: 1, {Name: "none"}: 0, {From: streamlib.Now}: 6, {Prefix: "a/", From: 3}: 2,
	} {
		var local bytes.Buffer
		sum, err := transfer.Export(t.Context(), transfer.Streams{Manager: m}, &local, q)
		is.NoErr(err)
		is.Equal(sum.Streams, want)
		is.Equal(exported(t, from, q), local.String())
	}
	receipt, err := to.Stream("a/1").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("3", `"<€>"`), Key: "k3"})
	is.NoErr(err)
	is.True(receipt.Repeated)
}

// TestImportOfMoreThanABatch: its size has no limit, and where the first stream is refused nobody waits for the rest.
func TestImportOfMoreThanABatch(t *testing.T) {
	is := is.New(t)
	from, m := serve(t, streamhttp.Config{})
	for range 40 {
		data := streamlib.JSON(`"` + strings.Repeat("x", 1<<20-2) + `"`)
		_, err := m.Stream("big").Append(t.Context(), streamlib.Batch{Data: data})
		is.NoErr(err)
	}
	whole := exported(t, from, transfer.Query{})
	to, _ := serve(t, streamhttp.Config{})
	_, err := to.Import(t.Context(), strings.NewReader(whole))
	is.NoErr(err)
	is.Equal(exported(t, to, transfer.Query{}), whole)

	to, m = serve(t, streamhttp.Config{})
	_, err = m.Stream("big").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON(`"other"`)})
	is.NoErr(err)
	endless := io.MultiReader(strings.NewReader(whole), endlessly{t})
	_, err = to.Import(t.Context(), endless)
	refused, ok := errors.AsType[*streamhttp.Error](err)
	is.True(ok)
	is.Equal(refused.Status, http.StatusConflict)
	is.Equal(refused.Message, `stream "big" is another one here, from offset 0 on: its event is not the one that was exported`)
}

// endlessly has more until the test ends.
type endlessly struct{ t *testing.T }

func (e endlessly) Read(b []byte) (int, error) { return len(b), e.t.Context().Err() }

func TestImportThatIsCutOff(t *testing.T) {
	is := is.New(t)
	from, m := serve(t, streamhttp.Config{})
	fillStreams(t, m)
	whole := exported(t, from, transfer.Query{})
	to, _ := serve(t, streamhttp.Config{})
	lost := errors.New("lost")
	for n := 0; n < len(whole); n += len(whole) / 20 {
		_, err := to.Import(t.Context(), io.MultiReader(strings.NewReader(whole[:n]), broken{lost}))
		is.True(errors.Is(err, lost))
		for { // the server may still store what came of the one that was cut off
			_, err = to.Import(t.Context(), strings.NewReader(whole[:n]))
			if err == nil || !strings.Contains(err.Error(), "it changed meanwhile") {
				break
			}
		}
		is.True(errors.Is(err, streamlib.ErrInvalid))
		is.True(strings.Contains(err.Error(), "it ends here and is not whole"))
	}
	_, err := to.Import(t.Context(), strings.NewReader(whole))
	is.NoErr(err)
	is.Equal(exported(t, to, transfer.Query{}), whole)
}

// broken is an input that cannot be read.
type broken struct{ error }

func (b broken) Read([]byte) (int, error) { return 0, b.error }

func TestExportIsRefused(t *testing.T) {
	is := is.New(t)
	c, _ := serve(t, streamhttp.Config{})
	for query, want := range map[string]string{
		"name=": "invalid stream name", "name=%00": "invalid stream name", "name=a&prefix=b": "contradict",
		"offset=x": "invalid offset", "limit=1": "taken here: prefix, name, offset",
	} {
		resp, err := http.Get(c.URL + "/export?" + query)
		is.NoErr(err)
		body, err := io.ReadAll(resp.Body)
		is.NoErr(err)
		resp.Body.Close()
		is.Equal(resp.StatusCode, http.StatusBadRequest)
		is.True(strings.Contains(string(body), want))
	}
	resp, err := http.Head(c.URL + "/export")
	is.NoErr(err)
	is.Equal(resp.Header.Get("Content-Type"), "application/x-ndjson")
	resp, err = http.Post(c.URL+"/import", "image/png", nil)
	is.NoErr(err)
	is.Equal(resp.StatusCode, http.StatusUnsupportedMediaType)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Export(gone, transfer.Query{})
	is.True(errors.Is(err, context.Canceled))
}
