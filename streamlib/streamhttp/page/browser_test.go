package page_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/memory"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/iterate/durable-streams/streamlib/streamhttp/page"
	"github.com/iterate/durable-streams/streamlib/streamhttp/tokens"
	"github.com/matryer/is"
)

// A site is a server with a page, which can be stopped and started again at its address.
type site struct {
	t       testing.TB
	addr    string
	m       *streamlib.Manager
	config  streamhttp.Config
	end     context.CancelFunc
	server  *http.Server
	serving sync.WaitGroup
	active  atomic.Int64 // requests
	live    atomic.Int64 // subscriptions among them
}

func newSite(t testing.TB, c streamhttp.Config) *site {
	c.Page = page.Handler()
	s := &site{t: t, addr: "127.0.0.1:0", config: c,
		m: streamlib.NewManager(memory.New(), streamlib.Plain, streamlib.Options{})}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *site) url() string { return "http://" + s.addr + "/" }

func (s *site) start() {
	s.t.Helper()
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.addr = l.Addr().String()
	var ctx context.Context
	ctx, s.end = context.WithCancel(context.Background())
	routes := streamhttp.NewHandler(s.m, s.config)
	counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.active.Add(1)
		defer s.active.Add(-1)
		if r.Header.Get("Accept") == "text/event-stream" {
			s.live.Add(1)
			defer s.live.Add(-1)
		}
		routes.ServeHTTP(w, r)
	})
	s.server = streamhttp.NewServer(ctx, counted, nil)
	server := s.server
	s.serving.Go(func() { _ = server.Serve(l) })
}

func (s *site) stop() {
	s.end()
	s.server.Close()
	s.serving.Wait()
}

func (s *site) append(name string, data ...string) {
	s.t.Helper()
	for len(data) > 0 {
		n := min(len(data), 5000)
		if _, err := s.m.Stream(name).Append(context.Background(), streamlib.Batch{Data: streamlib.JSON(data[:n]...)}); err != nil {
			s.t.Fatal(err)
		}
		data = data[n:]
	}
}

// keepsOne returns when the page has one connection in use, its subscription's: what was shown before may just be
// ending, and what is asked beside it.
func (s *site) keepsOne(p *tab) {
	s.t.Helper()
	for end := time.Now().Add(patience); s.live.Load() != 1 || s.active.Load() != 1; {
		if time.Now().After(end) {
			s.t.Fatalf("the page has %d subscriptions, and %d connections in use", s.live.Load(), s.active.Load())
		}
		p.eval(`new Promise(requestAnimationFrame)`)
	}
}

// offsets is an expression of the offsets that the page shows.
const offsets = `[...document.querySelectorAll(".event .offset")].map((e) => Number(e.textContent))`

const caughtUp = `document.querySelector("#status").dataset.state === "caughtup"`

// TestPage tries the page in a browser, one for all, for its start takes a second.
func TestPage(t *testing.T) {
	if testing.Short() {
		t.Skip("a browser takes its time")
	}
	b := startBrowser(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *browser)
	}{
		{"what is appended appears", appears}, {"a restart is survived", survives}, {"hostile content is text", hostile},
		{"a million events", million}, {"a hundred thousand streams", manyStreams}, {"what can be done", acts},
		{"a token is the tab's", asksForToken}, {"the end and what was dropped are told", tellsEnds},
		{"barriers", barriers},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, b) })
	}
}

// appears: new streams, and new events, without a reload; sent by curl where there is one.
func appears(t *testing.T, b *browser) {
	is := is.New(t)
	s := newSite(t, streamhttp.Config{})
	p := b.open(t, s.url())
	p.wait(`document.querySelector(".none h2")?.checkVisibility() && ` + caughtUp)
	send := func(name, body string) {
		t.Helper()
		target := s.url() + "streams/" + url.PathEscape(name)
		if curl, err := exec.LookPath("curl"); err == nil {
			if out, err := exec.CommandContext(t.Context(), curl, "-sSf", "-d", body, target).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			return
		}
		resp, err := http.Post(target, "application/json", strings.NewReader(body))
		is.NoErr(err)
		resp.Body.Close()
	}
	send("greetings", `{"data":{"type":"message","text":"hello"}}`)
	p.wait(`document.querySelector(".rows .name a")?.textContent === "greetings"`)
	p.wait(`document.querySelector(".rows .events").textContent === "1" && document.querySelector(".rows path[d]")`)
	p.eval(`document.querySelector(".rows .name a").click()`)
	p.wait(offsets + `.length === 1 && ` + caughtUp)
	send("greetings", `{"data":{"type":"message","text":"again","n":12345678901234567890}}`)
	p.wait(`document.querySelectorAll(".event").length === 2`)
	p.wait(`document.querySelector(".bars .some")`)
	p.eval(`document.querySelectorAll(".event .line")[1].click()`)
	is.Equal(p.eval(`document.querySelector(".json .number").textContent`), "12345678901234567890")
	is.True(strings.Contains(fmt.Sprint(p.eval(`document.querySelector(".json").innerText`)), `"text": "again"`))
	// While an event is looked at, nothing moves; then all that came is there.
	send("greetings", `{"data":3}`)
	p.wait(`document.querySelector("#status").textContent === "Paused · 1 newer"`)
	is.Equal(p.eval(offsets+`.join()`), "0,1")
	p.eval(`document.querySelector(".tools .main").click()`)
	p.wait(offsets + `.join() === "0,1,2"`)

	// Data folds, and is copied as it was sent.
	send("greetings", `{"data":{"a":{"b":{"c":[1.50,{"d":null}]}},"a":2}}`)
	p.wait(offsets + `.join() === "0,1,2,3"`)
	p.eval(`navigator.clipboard.writeText = async (text) => { window.copied = text; };
		document.querySelectorAll(".event .line")[3].click()`)
	folds := `[...document.querySelectorAll(".event:last-child .json details")]`
	is.Equal(p.eval(folds+`.map((fold) => fold.open).join()`), "true,true,false")
	p.eval(folds + `.at(-1).querySelector("summary").click()`)
	p.wait(folds + `.length === 4`)
	p.eval(folds + `.at(-1).querySelector("summary").click()`)
	p.wait(folds + `.length === 5`)
	p.eval(folds + `.at(-1).querySelector("summary").click()`)
	p.wait(`document.querySelector(".event:last-child .json").innerText.includes('"d": null')`)
	p.eval(folds + `[0].querySelector("summary").click()`)
	p.wait(`!document.querySelector(".event:last-child .json").innerText.includes('"a"')`)
	copied := func(label string) any {
		t.Helper()
		p.eval(fmt.Sprintf(`window.copied = ""; [...document.querySelectorAll(".event:last-child .do button")].find(
			(b) => b.textContent === %q).click()`, label))
		p.wait(`window.copied`)
		return p.eval(`window.copied`)
	}
	is.Equal(copied("Copy data"), `{
  "a": {
    "b": {
      "c": [
        1.50,
        {
          "d": null
        }
      ]
    }
  },
  "a": 2
}`)
	event := fmt.Sprint(copied("Copy event"))
	is.True(strings.HasPrefix(event, `{"offset":"0000000000000003","eventStreamId":"greetings","data":{"a":{"b":`))
	is.True(strings.HasSuffix(event, `Z"}`))
	p.do("Page.navigate", map[string]any{"url": copied("Copy link")})
	p.wait(`document.querySelector(".target .offset")?.textContent === "3"`)
	s.keepsOne(p)
	p.faultless(false)
}

// survives: after a restart the page goes on where it was, with no gap and no repeat.
func survives(t *testing.T, b *browser) {
	s := newSite(t, streamhttp.Config{})
	s.append("s", "0", "1", "2")
	p := b.open(t, s.url()+"#/stream/s")
	list := b.open(t, s.url())
	list.wait(`document.querySelector(".rows .events")?.textContent === "3"`)
	p.wait(offsets + `.length === 3 && ` + caughtUp)
	for round := range 3 {
		s.stop()
		p.wait(`document.querySelector("#status").dataset.state === "lost"`)
		s.append("s", "3", "4", "5", "6") // as another server would
		s.start()
		s.append("s", "7")
		want := fmt.Sprintf(`Array.from({length: %d}, (_, i) => i).join()`, 3+5*(round+1))
		p.wait(offsets + `.join() === ` + want)
	}
	p.wait(caughtUp)
	s.append("s2", "1") // which was made while the list was connected again
	list.wait(`[...document.querySelectorAll(".rows .events")].map((e) => e.textContent).join() === "18,1"`)
	p.faultless(true)
	list.faultless(true)
}

// hostile: whatever names and events have is shown as text, and runs nothing.
func hostile(t *testing.T, b *browser) {
	is := is.New(t)
	s := newSite(t, streamhttp.Config{})
	evil := `<img src=x onerror="window.ran=1"><script>window.ran=1</script>`
	names := []string{evil, "javascript:window.ran=1", "a\u202eb", "it's $(id) `id`", ".", "..", "x/../y", "</title>",
		"%2e%2e", "%2E", "%2F", "/", "//", "a//b", "../..", "/.", "?", "#", "a?b#c", "&name=x", "a\\b", " ", "+", "...",
		"__proto__", "constructor", "\u200b"}
	for _, name := range names {
		quoted, err := json.Marshal(name)
		is.NoErr(err)
		s.append(name, string(quoted), `{"type":`+string(quoted)+`,"__proto__":{"ran":1},"</script>":[`+string(quoted)+`]}`,
			`"\u001b[31m\u0000\u202e\ud800"`, `{"a":{"toString":1,"constructor":[[[]]]}}`)
	}
	p := b.open(t, s.url())
	p.size(1280, 2000, false) // so that all are in view
	p.wait(fmt.Sprintf(`document.querySelectorAll(".rows .row").length === %d`, len(names)))
	shown := fmt.Sprint(p.eval(`[...document.querySelectorAll(".rows .name a")].map((e) => e.textContent).join("\n")`))
	is.True(strings.Contains(shown, evil))
	is.True(strings.Contains(shown, `a\u202eb`) && strings.Contains(shown, `\u200b`))
	is.True(!strings.ContainsAny(shown, "\u202e\u200b"))
	for _, name := range names {
		p.do("Page.navigate", map[string]any{"url": s.url() + "#/stream/" + strings.ReplaceAll(url.PathEscape(name), ".", "%2E")})
		want, err := json.Marshal(strings.NewReplacer("\u202e", `\u202e`, "\u200b", `\u200b`).Replace(name))
		is.NoErr(err)
		p.wait(`document.querySelector("h1 bdi").textContent === ` + string(want) +
			` && document.querySelectorAll(".event").length === 4`)
		p.eval(`for (const line of document.querySelectorAll(".event .line")) line.click()`)
		p.wait(`document.querySelectorAll(".event .json").length === 4`)
		p.eval(`document.querySelector(".ways button:last-child").click()`)
		p.wait(`document.querySelector("dialog .name").textContent === ` + string(want))
		p.eval(`document.querySelector("dialog button").click()`)
		p.wait(`!document.querySelector("dialog")`)
	}
	is.Equal(p.eval(`window.ran === undefined && ({}).ran === undefined`), true)
	is.Equal(p.eval(`document.querySelectorAll("main img, main script, main iframe, main [onerror]").length`), 0.0)
	is.Equal(p.eval(`/[\u202e\u0000\u001b]/.test(document.body.innerText)`), false)
	p.faultless(false)

	// What is copied for a shell is one word there, and asks for the same.
	p.eval(`navigator.clipboard.writeText = async (text) => { window.copied = text; }`)
	for _, name := range []string{"it's $(id) `id`", "..", "/"} {
		quoted, err := json.Marshal(name)
		is.NoErr(err)
		p.do("Page.navigate", map[string]any{"url": s.url() + "#/stream/" + url.PathEscape(name)})
		p.wait(`document.querySelector("h1 bdi").textContent === ` + string(quoted) +
			` && document.querySelectorAll(".event").length === 4`)
		p.eval(`window.copied = ""; document.querySelectorAll(".event .line")[1].click();
			[...document.querySelectorAll(".do button")].find((b) => b.textContent === "Copy as curl").click()`)
		p.wait(`window.copied`)
		command := fmt.Sprint(p.eval(`window.copied`))
		if _, err := exec.LookPath("curl"); err == nil {
			out, err := exec.CommandContext(t.Context(), "sh", "-c", command).Output()
			is.NoErr(err)
			want := `{"events":[{"offset":"0000000000000001","eventStreamId":` + string(quoted)
			is.True(strings.HasPrefix(string(out), want))
		}
	}
	// And no page of another origin may show this one, or run something in it.
	is.Equal(p.eval(`(() => { try { document.body.innerHTML = "<b>"; return "done" } catch { return "refused" } })()`), "refused")
}

// million: of many events those in view are kept, and all can be reached.
func million(t *testing.T, b *browser) {
	is := is.New(t)
	s := newSite(t, streamhttp.Config{})
	const n = 1_000_000
	data := make([]string, 5000)
	for from := 0; from < n; from += len(data) {
		for i := range data {
			data[i] = `{"type":"t` + strconv.Itoa((from+i)%7) + `","n":` + strconv.Itoa(from+i) + `}`
		}
		s.append("s", data...)
	}
	p := b.open(t, s.url()+"#/stream/s")
	p.wait(offsets + `.at(-1) === 999999 && ` + caughtUp)
	bounded := func() {
		t.Helper()
		is.True(p.eval(`document.querySelectorAll(".event").length`).(float64) <= 400)
	}
	run := func(from, to string) { // what is shown is without a gap
		t.Helper()
		is.Equal(p.eval(`(() => { const o = `+offsets+`; return o.every((n, i) => i === 0 || n === o[i - 1] + 1); })()`), true)
		is.Equal(p.eval(fmt.Sprintf(`(() => { const o = %s; return o[0] <= %s && o.at(-1) >= %s; })()`, offsets, from, to)), true)
		bounded()
	}
	jump := func(where string) {
		t.Helper()
		p.eval(fmt.Sprintf(`(() => { const input = document.querySelector("[aria-describedby=jump-help]"); input.value = %q;
			input.form.requestSubmit(); })()`, where))
	}
	jump("500000")
	p.wait(`document.querySelector(".target .offset")?.textContent === "500000"`)
	run("500000", "500050")
	is.Equal(p.eval(`(() => { const e = document.querySelector(".target"), a = e.getBoundingClientRect(),
		b = document.querySelector(".log").getBoundingClientRect(); return a.top >= b.top && a.bottom <= b.bottom; })()`), true)
	for range 6 { // up
		p.eval(`document.querySelector(".log").scrollTop = 0`)
		first := p.eval(offsets + `[0]`)
		p.wait(fmt.Sprintf(`%s[0] < %v`, offsets, first))
		bounded()
	}
	run("499500", "499600")
	for range 9 { // and down
		p.eval(`document.querySelector(".log").scrollTop = 1e9`)
		last := p.eval(offsets + `.at(-1)`)
		p.wait(fmt.Sprintf(`%s.at(-1) > %v`, offsets, last))
		bounded()
	}
	jump("123456")
	p.wait(`document.querySelector(".target .offset")?.textContent === "123456"`)
	jump("1h") // all of them
	p.wait(`document.querySelector(".target .offset")?.textContent === "0"`)
	p.eval(`document.querySelector(".tools .main").click()`) // follow
	p.wait(offsets + `.at(-1) === 999999`)

	// By type, and then by text as well, of which the last that matches is far away.
	p.eval(`(() => { const input = document.querySelector("input[list]"); input.value = "t3";
		input.dispatchEvent(new Event("input")); })()`)
	p.wait(`document.querySelectorAll(".event").length > 20 && ` + offsets + `.every((n) => n % 7 === 3)`)
	s.append("s", `{"type":"t3","n":1}`, `{"type":"t4","n":1}`)
	p.wait(offsets + `.at(-1) === 1000000 && ` + caughtUp)
	p.eval(`(() => { const input = document.querySelector("input[type=search]"); input.value = '"N":98012';
		input.dispatchEvent(new Event("input")); })()`)
	p.wait(offsets + `.includes(980122) && ` + offsets + `.every((n) => String(n).startsWith("98012"))`)
	p.eval(`for (const input of document.querySelectorAll("input[list], input[type=search]")) {
		input.value = ""; input.dispatchEvent(new Event("input")); }`)
	p.wait(offsets + `.at(-1) === 1000001`)

	// Much that comes at once does not grow what is kept, and the end is shown.
	for range 20 {
		s.append("s", data...)
	}
	p.wait(offsets + `.at(-1) === 1100001 && ` + caughtUp)
	run("1100000", "1100001")
	p.faultless(false)
}

// manyStreams: of many streams those in view are shown, pages are asked for as needed, and any column orders them.
func manyStreams(t *testing.T, b *browser) {
	is := is.New(t)
	s := newSite(t, streamhttp.Config{})
	const n = 100_000
	for i := range n {
		s.append(fmt.Sprintf("s%06d", i), "1")
	}
	s.append("s054321", "1", "2", "3")
	p := b.open(t, s.url())
	p.wait(`document.querySelectorAll(".rows .row").length > 5`)
	is.Equal(p.eval(`document.querySelector(".count").textContent`), "200 streams and more") // as needed
	rows := func() { is.True(p.eval(`document.querySelectorAll(".rows .row").length`).(float64) < 60) }
	rows()
	p.eval(`document.querySelector(".headers .events button").click()`) // the most first
	p.wait(`document.querySelector(".rows .name a").textContent === "s054321"`)
	p.wait(`document.querySelector(".count").textContent === "100,000 streams"`)
	is.Equal(p.eval(`document.querySelector(".headers .events").ariaSort`), "descending")
	p.eval(`document.querySelector(".headers .name button").click()`)
	p.eval(`document.querySelector(".scroll").scrollTop = 1e9`)
	p.wait(`[...document.querySelectorAll(".rows .name a")].at(-1).textContent === "s099999"`)
	rows()
	s.append("s099999x", "1") // a new one, in its place
	p.wait(`document.querySelector(".count").textContent === "100,001 streams"`)
	p.eval(`document.querySelector(".scroll").scrollTop = 1e9`)
	p.wait(`[...document.querySelectorAll(".rows .name a")].at(-1).textContent === "s099999x"`)
	is.NoErr(s.m.Stream("s099999x").Delete(t.Context()))
	p.wait(`document.querySelector(".count").textContent === "100,000 streams"`)
	p.eval(`(() => { const input = document.querySelector("input[type=search]"); input.value = "s05432";
		input.dispatchEvent(new Event("input")); })()`)
	p.wait(`document.querySelector(".count").textContent === "10 streams"`)
	s.append("s06", "1") // which the filter leaves out
	s.append("s05432/new", "1")
	p.wait(`document.querySelector(".count").textContent === "11 streams"`)
	s.keepsOne(p)
	p.faultless(false)
}

// acts: append with checking, key and condition; close, trim and delete behind a question that names the stream.
func acts(t *testing.T, b *browser) {
	is := is.New(t)
	s := newSite(t, streamhttp.Config{})
	p := b.open(t, s.url()+"#/stream/orders")
	p.wait(`document.querySelector(".empty")?.checkVisibility() && ` + caughtUp)
	toast := func(text string) {
		t.Helper()
		p.wait(fmt.Sprintf(`[...document.querySelectorAll(".toast")].some((e) => e.textContent.includes(%q))`, text))
		p.eval(`document.querySelector(".toasts").replaceChildren()`)
	}
	enter := func(data string) {
		t.Helper()
		p.eval(`(() => { const area = document.querySelector("textarea"); area.value = ""; area.focus(); })()`)
		p.write(data)
	}
	button := func(label string) {
		t.Helper()
		p.eval(fmt.Sprintf(`[...document.querySelectorAll("button")].filter((b) => b.textContent === %q).at(-1).click()`, label))
	}
	enter(`{"a":`)
	p.wait(`document.querySelector(".checked").dataset.state === "bad"`)
	button("Append")
	enter(`1}, "data":{"b":2`) // which would be another body
	p.wait(`document.querySelector(".checked").dataset.state === "bad"`)
	button("Append")
	enter(`{"type":"first","n":1.50}`)
	p.wait(`document.querySelector(".checked").dataset.state === "good"`)
	button("Append")
	toast("Appended at 0")
	p.wait(offsets + `.join() === "0"`)
	is.Equal(p.eval(`document.querySelector(".event .data").textContent`), `{"type":"first","n":1.50}`)
	set := func(selector, value string) {
		t.Helper()
		p.eval(fmt.Sprintf(`document.querySelector(%q).value = %q`, selector, value))
	}
	set(".append details input", "key-1")
	enter(`2`)
	button("Append")
	toast("Appended at 1")
	enter(`2`)
	button("Append")
	toast("It was there already, at 1")
	enter(`3`)
	button("Append")
	toast("key")
	set(".append details input", "")
	set(".append select", "empty")
	button("Append")
	toast("tail is 2, not 0")
	set(".append select", "seen")
	button("Append")
	toast("Appended at 2")
	p.wait(offsets + `.join() === "0,1,2"`)

	button("Trim…")
	p.wait(`document.querySelector("dialog h2").textContent === "Trim the stream orders?"`)
	set("dialog input", "x")
	button("Trim")
	p.wait(`document.querySelector("dialog .notice").checkVisibility()`)
	set("dialog input", "2")
	button("Trim")
	toast("Trimmed: orders")
	p.wait(`document.querySelector(".badges").textContent.includes("begins at 2")`)
	button("Close…")
	p.wait(`document.querySelector("dialog h2").textContent === "Close the stream orders?"`)
	is.Equal(p.eval(`document.activeElement.textContent`), "Cancel")
	p.key("Escape")
	p.wait(`!document.querySelector("dialog")`)
	button("Close…")
	button("Close")
	toast("Closed: orders")
	p.wait(`document.querySelector("#status").textContent === "Closed"`)
	button("Delete…")
	p.wait(`document.querySelector("dialog h2").textContent === "Delete the stream orders?"`)
	button("Delete")
	toast("Deleted: orders")
	info, err := s.m.Stream("orders").Stat(t.Context())
	is.NoErr(err)
	is.Equal(info.Tail, streamlib.Offset(0))
}

// asksForToken: where the server wants one, and it is in this tab alone.
func asksForToken(t *testing.T, b *browser) {
	is := is.New(t)
	file := filepath.Join(t.TempDir(), "tokens")
	line := fmt.Sprintf("reader %x read prefix=jobs/\n", sha256.Sum256([]byte("a-secret-of-some-length")))
	is.NoErr(os.WriteFile(file, []byte(line), 0o600))
	access, err := tokens.Open(file, tokens.Options{})
	is.NoErr(err)
	t.Cleanup(func() { access.Close() })
	s := newSite(t, streamhttp.Config{Access: access})
	s.append("jobs/1", "1")
	s.append("other", "1")
	p := b.open(t, s.url())
	give := func(secret string) {
		t.Helper()
		p.wait(`document.activeElement.matches("dialog input[type=password]")`)
		p.write(secret)
		p.key("Enter")
	}
	give("wrong")
	p.wait(`document.querySelector("dialog .notice")?.checkVisibility()`)
	give("a-secret-of-some-length")
	p.wait(`document.querySelector(".rows .name a")?.textContent === "jobs/1"`)
	is.Equal(p.eval(`document.querySelectorAll(".rows .row").length`), 1.0)
	p.do("Page.reload", nil)
	p.wait(`document.querySelector(".rows .name a")?.textContent === "jobs/1"`) // it is not asked for again
	is.Equal(p.eval(`document.cookie + localStorage.length`), "0")
	p.eval(`document.querySelector(".rows .name a").click()`)
	p.wait(offsets + `.join() === "0" && ` + caughtUp)
	p.eval(`[...document.querySelectorAll("button")].find((b) => b.textContent === "Delete…").click()`)
	p.eval(`[...document.querySelectorAll("dialog button")].at(-1).click()`)
	p.wait(`document.querySelector("dialog .notice").textContent.includes("needs the right to admin")`)
	p.key("Escape")
	p.eval(`document.querySelector("#forget").click()`)
	p.wait(`document.querySelector("dialog input[type=password]")`)
	is.Equal(p.eval(`sessionStorage.length`), 0.0)
}

// tellsEnds: closed, trimmed and deleted streams are told of.
func tellsEnds(t *testing.T, b *browser) {
	is := is.New(t)
	s := newSite(t, streamhttp.Config{})
	s.append("s", "0", "1", "2", "3")
	p := b.open(t, s.url()+"#/stream/s/2")
	p.wait(`document.querySelector(".target .offset")?.textContent === "2"`)
	p.eval(`document.querySelector(".tools .main").click()`)
	is.NoErr(s.m.Stream("s").Trim(t.Context(), 2))
	p.do("Page.reload", nil)
	p.wait(offsets + `.join() === "2,3" && document.querySelector(".edge").textContent === "The events before 2 were dropped"`)
	p.wait(`document.querySelector(".badges").textContent.includes("begins at 2")`)
	is.NoErr(s.m.Stream("s").Delete(t.Context()))
	p.wait(`document.querySelector(".toast.bad")?.textContent.includes("was deleted")`)
	p.wait(offsets + `.length === 0`)
	s.append("s", `"new"`)
	p.wait(offsets + `.join() === "0"`)
	_, err := s.m.Stream("s").Append(t.Context(), streamlib.Batch{Data: streamlib.JSON("2"), Close: true})
	is.NoErr(err)
	p.wait(`document.querySelector("#status").textContent === "Closed" && ` + offsets + `.join() === "0,1"`)
	p.do("Page.reload", nil) // which is answered 204
	p.wait(`document.querySelector("#status").textContent === "Closed" && ` + offsets + `.join() === "0,1"`)
	p.wait(`document.querySelector(".badge.closed")`)
	p.faultless(false)
}

// barriers: keyboard, screen reader, small and dark screens, and what axe-core finds.
func barriers(t *testing.T, b *browser) {
	is := is.New(t)
	s := newSite(t, streamhttp.Config{})
	for i := range 300 {
		s.append(fmt.Sprintf("s/%03d", i), `{"type":"a","n":[1,{"b":null}]}`, `"x"`)
	}
	p := b.open(t, s.url())
	p.prefer("prefers-reduced-motion", "reduce")
	p.wait(`document.querySelectorAll(".rows .row").length > 5`)

	// By keys alone: to the list, along it, into a stream, along its events, and open one.
	focus := func(expression string) {
		t.Helper()
		for range 40 {
			if p.eval(`Boolean(document.activeElement.matches(`+expression+`))`) == true {
				return
			}
			p.key("Tab")
		}
		t.Fatalf("nobody gets to %s with the key Tab", expression)
	}
	focus(`".rows a"`)
	p.key("ArrowDown", "ArrowDown", "End")
	p.wait(`document.activeElement.textContent === "s/199"`) // of the page that was asked for
	p.key("Home")
	p.wait(`document.activeElement.textContent === "s/000"`)
	p.key("Enter")
	p.wait(offsets + `.join() === "0,1" && document.activeElement.id === "main"`)
	focus(`".log"`)
	p.key("ArrowDown", "Enter")
	p.wait(`document.querySelector('.line[aria-expanded="true"]') === document.activeElement`)
	is.Equal(p.eval(`getComputedStyle(document.querySelector(".toasts")).animationName`), "none")
	s.append("s/000", "3")
	p.wait(`document.querySelector("#status").textContent.includes("1 newer") && document.querySelector("#status").role === "status"`)
	p.wait(`document.querySelector("#news").textContent === "1 new event"`)

	// On a phone nothing is wider than the screen.
	for _, hash := range []string{"#/", "#/stream/s%2F000"} {
		p.size(360, 740, true)
		p.do("Page.navigate", map[string]any{"url": s.url() + hash})
		p.wait(`document.querySelectorAll(".rows .row, .event").length > 2`)
		is.True(p.eval(`Math.max(document.documentElement.scrollWidth, document.querySelector("main").scrollWidth)`).(float64) <= 360)
	}
	p.size(1280, 860, false)
	p.faultless(false)

	axe := axeCore(t)
	for _, scheme := range []string{"light", "dark"} {
		p.prefer("prefers-reduced-motion", "reduce", "prefers-color-scheme", scheme)
		for _, hash := range []string{"#/", "#/stream/s%2F000/0"} {
			p.do("Page.navigate", map[string]any{"url": s.url() + hash})
			p.wait(`document.querySelectorAll(".rows .row, .event").length > 2 && ` +
				`["caughtup", "paused"].includes(document.querySelector("#status").dataset.state)`)
			if hash != "#/" {
				p.wait(`document.querySelector(".target") && document.querySelector(".bars .some")`)
				p.eval(`document.querySelector(".target button").click()`)
			}
			for _, dialog := range []string{"", "Trim…"} {
				if dialog != "" && hash != "#/" {
					p.eval(fmt.Sprintf(`[...document.querySelectorAll("button")].find((b) => b.textContent === %q).click()`, dialog))
				}
				p.eval(axe)
				found := p.eval(`axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations.map((v) =>
					v.impact + " " + v.id + ": " + v.nodes.map((n) => n.target + " " + n.any.map((a) => a.message)).join("; ")).join("\n"))`)
				if found != "" {
					t.Errorf("%s, %s %s: axe-core finds:\n%s", hash, scheme, dialog, found)
				}
			}
			p.eval(`document.querySelector("dialog")?.close()`)
		}
	}
}

// axeCore returns the script of axe-core, which finds barriers, and skips where npm does not bring it.
func axeCore(t *testing.T) string {
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("there is no npm, which brings axe-core (scripts/tools)")
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", dir, "axe-core@4")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("npm does not bring axe-core: %v: %s", err, out)
	}
	script, err := os.ReadFile(filepath.Join(dir, "node_modules/axe-core/axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	return string(script)
}
