package page_test

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/iterate/durable-streams/streamlib"
	"github.com/iterate/durable-streams/streamlib/streamhttp"
	"github.com/iterate/durable-streams/streamlib/streamhttp/protocol"
	"github.com/iterate/durable-streams/streamlib/streamhttp/tokens"
	"github.com/matryer/is"
)

// attacks are what a page may try on the server at TARGET. Each ends with what the page got to know, "" nothing.
var attacks = map[string]string{
	"read":              `fetch(TARGET + "/streams/s/events").then((r) => r.text())`,
	"read with cookies": `fetch(TARGET + "/streams/s/events", { credentials: "include" }).then((r) => r.text())`,
	"read without cors": `fetch(TARGET + "/streams/s/events", { mode: "no-cors", credentials: "include" })
		.then((r) => r.text())`,
	"list":                `fetch(TARGET + "/streams", { credentials: "include" }).then((r) => r.text())`,
	"export":              `fetch(TARGET + "/export", { credentials: "include" }).then((r) => r.text())`,
	"metrics":             `fetch(TARGET + "/metrics", { credentials: "include" }).then((r) => r.text())`,
	"health":              `fetch(TARGET + "/healthz").then((r) => r.text())`,
	"follow":              follow(`"/streams/s?offset=-1"`, false),
	"follow with cookies": follow(`"/streams/s?offset=-1"`, true),
	"follow all":          follow(`"/streams?prefix="`, true),
	"follow, protocol":    follow(`"/v1/stream/s?offset=-1&live=sse"`, true),
	"script": `new Promise((done) => {
		const s = document.createElement("script");
		window.onerror = (text) => done(String(text).includes("Script error") ? "" : text);
		s.onload = s.onerror = () => done("");
		s.src = TARGET + "/streams/s/events"; document.head.append(s);
	})`,
	"append simply":      send("POST", "/streams/s", "text/plain", `{"data":"stolen"}`),
	"append as a form":   send("POST", "/streams/s", "application/x-www-form-urlencoded", `{"data":"stolen"}`),
	"append JSON":        send("POST", "/streams/s", "application/json", `{"data":"stolen"}`),
	"append lines":       send("POST", "/streams/s", "application/x-ndjson", `"stolen"`),
	"append, protocol":   send("POST", "/v1/stream/s", "text/plain", `"stolen"`),
	"make, protocol":     send("PUT", "/v1/stream/stolen", "application/json", ``),
	"close":              send("POST", "/v1/stream/s", "text/plain", ``),
	"delete":             send("DELETE", "/streams/s", "text/plain", ``),
	"trim":               send("DELETE", "/streams/s/events?before=now", "text/plain", ``),
	"delete by override": send("POST", "/streams/s?_method=DELETE", "text/plain", `{"data":"stolen"}`),
	"import":             send("POST", "/import", "text/plain", `{"stream":"stolen"}`),
	"beacon":             `(navigator.sendBeacon(TARGET + "/streams/s", '{"data":"stolen"}'), "")`,
	"form": `new Promise((done) => {
		const f = document.createElement("form"), i = document.createElement("iframe");
		i.name = "into" + Math.random(); i.onload = () => done(""); document.body.append(i, f);
		f.action = TARGET + "/streams/s"; f.method = "post"; f.enctype = "text/plain"; f.target = i.name;
		const v = document.createElement("input"); v.name = '{"data":"stolen'; v.value = '"}'; f.append(v);
		f.submit();
	})`,
	"frame": `new Promise((done) => {
		const i = document.createElement("iframe");
		i.onload = () => { try { done(i.contentDocument?.body?.innerText ?? ""); } catch { done(""); } };
		i.src = TARGET + "/"; document.body.append(i);
	})`,
}

func send(method, path, kind, body string) string {
	mode := "cors"
	if kind == "text/plain" && method == "POST" { // which is sent without asking before
		mode = "no-cors"
	}
	return fmt.Sprintf(`fetch(TARGET + %q, { method: %q, body: %q || undefined, mode: %q, credentials: "include",
		headers: { "Content-Type": %q } }).then((r) => r.text())`, path, method, body, mode, kind)
}

func follow(path string, cookies bool) string {
	return fmt.Sprintf(`new Promise((done) => {
		const s = new EventSource(TARGET + %s, { withCredentials: %t });
		const end = (said) => { s.close(); done(said); };
		s.onopen = () => end("it is open"); s.onmessage = (e) => end(e.data); s.onerror = () => end("");
	})`, path, cookies)
}

// attack runs those of them that are named at once, in the page, and returns what each got to know.
func (p *tab) attack(target string, names ...string) map[string]any {
	p.t.Helper()
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "%q: async () => { return await (%s); },\n", name, attacks[name])
	}
	said := p.eval(`(async () => {
		const TARGET = "` + target + `", said = {};
		await Promise.all(Object.entries({` + b.String() + `}).map(async ([name, attack]) => {
			try { said[name] = await attack(); } catch { said[name] = ""; }
		}));
		return said;
	})()`)
	return said.(map[string]any)
}

// TestPagesOfOthers: from a page of another site, of another port of this machine, and of a name that was made to lead
// here, a browser gets to know nothing of the server and changes nothing, with tokens off, and with tokens on where the
// browser has a session. The server's own page can do all of it, so that the attacks are known to be ones.
func TestPagesOfOthers(t *testing.T) {
	if testing.Short() {
		t.Skip("a browser takes its time")
	}
	b := startBrowser(t, "--host-resolver-rules=MAP *.example 127.0.0.1")
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>evil</title><body>evil")
	}))
	defer evil.Close()
	_, evilPort, _ := net.SplitHostPort(evil.Listener.Addr().String())
	for _, on := range []bool{false, true} {
		t.Run(fmt.Sprintf("tokens %t", on), func(t *testing.T) {
			is := is.New(t)
			var config streamhttp.Config
			if on {
				file := filepath.Join(t.TempDir(), "tokens")
				is.NoErr(os.WriteFile(file, fmt.Appendf(nil, "victim %x admin\n", sha256.Sum256([]byte("a-secret-of-some-length"))),
					0o600))
				access, err := tokens.Open(file, tokens.Options{})
				is.NoErr(err)
				t.Cleanup(func() { access.Close() })
				config.Access = access
			}
			s := newSite(t, config)
			s.stop()
			s.config.Protocol = protocol.NewHandler(s.m, protocol.Config{Access: config.Access}).Serve
			s.start()
			_, port, _ := net.SplitHostPort(s.addr)
			s.append("s", `"private"`)
			p := b.open(t, s.url())
			p.wait(`document.querySelector(".rows .row") || document.querySelector("dialog")`)
			if on { // in the whole browser: cookies know no ports
				is.Equal(p.eval(`fetch("/session", { method: "POST",
					headers: { Authorization: "Bearer a-secret-of-some-length" } }).then((r) => r.status)`), 204.0)
			}
			own := "http://" + s.addr
			state := func() string {
				names, err := s.m.List(t.Context(), "", "", 10)
				is.NoErr(err)
				info, err := s.m.Stream("s").Stat(t.Context())
				is.NoErr(err)
				return fmt.Sprint(names, info.Tail, info.First, info.Closed, info.Life)
			}
			before := state()
			for _, from := range []string{"http://localhost:" + evilPort, "http://127.0.0.1:" + evilPort,
				"http://evil.example:" + evilPort} {
				p.do("Page.navigate", map[string]any{"url": from})
				p.wait(`document.title === "evil"`)
				for name, said := range p.attack(own, slices.Collect(maps.Keys(attacks))...) {
					if said != "" {
						t.Errorf("%s from %s got to know %q", name, from, said)
					}
				}
				is.Equal(state(), before)
			}
			// A name that led elsewhere when the page came from it, and leads here now: the page is of the origin that it asks.
			rebound := "http://rebound.example:" + port
			p.do("Page.navigate", map[string]any{"url": rebound + "/streams"})
			p.wait(`document.body.innerText.includes("rebound.example")`)
			for name, said := range p.attack(rebound, slices.Collect(maps.Keys(attacks))...) {
				if said := fmt.Sprint(said); said != "" && !strings.Contains(said, "is not allowed") {
					t.Errorf("%s from a name that leads here got to know %q", name, said)
				}
			}
			is.Equal(state(), before)

			p.do("Page.navigate", map[string]any{"url": s.url()})
			p.wait(`document.title !== "evil" && location.port === "` + port + `"`)
			reads := []string{"read", "list", "export", "health", "follow", "follow all", "follow, protocol"}
			for name, said := range p.attack(own, reads...) {
				if said == "" {
					t.Errorf("the page of the server cannot %s", name)
				}
			}
			for _, name := range []string{"append simply", "append as a form", "append JSON", "append lines", "beacon"} {
				had, err := s.m.Stream("s").Stat(t.Context())
				is.NoErr(err)
				p.attack(own, name)
				for end := had.Tail; end == had.Tail; { // a beacon is not waited for
					info, err := s.m.Stream("s").Stat(t.Context())
					is.NoErr(err)
					end = info.Tail
					is.NoErr(t.Context().Err())
				}
			}
			p.attack(own, "delete")
			info, err := s.m.Stream("s").Stat(t.Context())
			is.NoErr(err)
			is.Equal(info.Tail, streamlib.Offset(0))
		})
	}
}
