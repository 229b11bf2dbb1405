package page_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what must come: a machine may be busy.
const patience = 2 * time.Minute

// A browser is a Chromium without a window, which is spoken to in the DevTools protocol over two pipes, a JSON text
// with a NUL behind it each (--remote-debugging-pipe; chromedevtools.github.io/devtools-protocol).
type browser struct {
	t  testing.TB
	to *os.File

	mu      sync.Mutex // guards what follows
	id      int
	answers map[int]chan message
	tabs    map[string]*tab // by session
	gone    error
}

type message struct {
	ID        int                       `json:"id,omitempty"`
	SessionID string                    `json:"sessionId,omitempty"`
	Method    string                    `json:"method,omitempty"`
	Params    json.RawMessage           `json:"params,omitempty"`
	Result    json.RawMessage           `json:"result,omitempty"`
	Error     *struct{ Message string } `json:"error,omitempty"`
}

// startBrowser starts one that ends with the test, with flags beside its own, and skips where there is none.
func startBrowser(t testing.TB, flags ...string) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil && path == "" {
			path = found
		}
	}
	if path == "" || runtime.GOOS == "windows" { // where a child gets no more files than three
		t.Skip("there is no chromium (scripts/tools)")
	}
	inRead, inWrite, err := os.Pipe()
	outRead, outWrite, err2 := os.Pipe()
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	home := t.TempDir()
	cmd := exec.CommandContext(context.Background(), path, append(flags, "--headless=new",
		"--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking",
		"--disable-component-update", "--disable-extensions", "--no-proxy-server", "--hide-scrollbars",
		"--user-data-dir="+home, "about:blank")...)
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home)
	cmd.ExtraFiles = []*os.File{inRead, outWrite}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	inRead.Close()
	outWrite.Close()
	b := &browser{t: t, to: inWrite, answers: map[int]chan message{}, tabs: map[string]*tab{}}
	var reading sync.WaitGroup
	reading.Go(func() { b.read(outRead) })
	t.Cleanup(func() {
		inWrite.Close() // which ends it
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		outRead.Close()
		reading.Wait()
	})
	return b
}

func (b *browser) read(from io.Reader) {
	r := bufio.NewReader(from)
	for {
		text, err := r.ReadBytes(0)
		var m message
		if err == nil {
			err = json.Unmarshal(text[:len(text)-1], &m)
		}
		b.mu.Lock()
		if err != nil {
			b.gone = fmt.Errorf("the browser is gone: %w", err)
			for _, c := range b.answers {
				close(c)
			}
			b.answers = nil
			b.mu.Unlock()
			return
		}
		if c := b.answers[m.ID]; m.ID > 0 && c != nil {
			delete(b.answers, m.ID)
			c <- m
		} else if t := b.tabs[m.SessionID]; t != nil {
			t.note(m)
		}
		b.mu.Unlock()
	}
}

// call calls a method and takes its result.
func (b *browser) call(session, method string, params, result any) error {
	raw, err := json.Marshal(params)
	if err != nil {
		return err
	}
	answer := make(chan message, 1)
	b.mu.Lock()
	if b.gone != nil {
		b.mu.Unlock()
		return b.gone
	}
	b.id++
	text, err := json.Marshal(message{ID: b.id, SessionID: session, Method: method, Params: raw})
	b.answers[b.id] = answer
	if err == nil {
		_, err = b.to.Write(append(text, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case m, ok := <-answer:
		switch {
		case !ok:
			return fmt.Errorf("%s: the browser is gone", method)
		case m.Error != nil:
			return fmt.Errorf("%s: %s", method, m.Error.Message)
		case result != nil:
			return json.Unmarshal(m.Result, result)
		}
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%s: no answer", method)
	}
}

// A tab is a page in a context of its own: what it stores is no other tab's.
type tab struct {
	t       testing.TB
	b       *browser
	session string

	mu     sync.Mutex
	faults []string // that the console told, or that were thrown
	lost   []string // requests that failed, which a console tells too
}

func (b *browser) open(t testing.TB, url string) *tab {
	t.Helper()
	var made struct{ BrowserContextID string }
	b.must(t, "", "Target.createBrowserContext", map[string]any{}, &made)
	var target struct{ TargetID string }
	b.must(t, "", "Target.createTarget", map[string]any{"url": "about:blank", "browserContextId": made.BrowserContextID},
		&target)
	var attached struct{ SessionID string }
	b.must(t, "", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	p := &tab{t: t, b: b, session: attached.SessionID}
	b.mu.Lock()
	b.tabs[p.session] = p
	b.mu.Unlock()
	t.Cleanup(func() { _ = b.call("", "Target.disposeBrowserContext", made, nil) })
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		p.do(domain+".enable", nil)
	}
	p.size(1280, 860, false)
	p.do("Page.navigate", map[string]any{"url": url})
	return p
}

func (b *browser) must(t testing.TB, session, method string, params, result any) {
	t.Helper()
	if params == nil {
		params = struct{}{}
	}
	if err := b.call(session, method, params, result); err != nil {
		t.Fatal(err)
	}
}

func (p *tab) do(method string, params any) {
	p.t.Helper()
	p.b.must(p.t, p.session, method, params, nil)
}

// note takes what the tab tells by itself.
func (p *tab) note(m message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch m.Method {
	case "Runtime.exceptionThrown":
		p.faults = append(p.faults, string(m.Params))
	case "Runtime.consoleAPICalled":
		if strings.Contains(string(m.Params), `"type":"error"`) || strings.Contains(string(m.Params), `"type":"warning"`) {
			p.faults = append(p.faults, string(m.Params))
		}
	case "Log.entryAdded":
		var told struct {
			Entry struct{ Source, Level, Text, URL string }
		}
		_ = json.Unmarshal(m.Params, &told)
		switch e := told.Entry; {
		case e.Level != "error" && e.Level != "warning":
		case e.Source == "network":
			p.lost = append(p.lost, e.URL+": "+e.Text)
		default:
			p.faults = append(p.faults, e.Source+": "+e.Text)
		}
	}
}

// faultless fails the test where the page's scripts, its policy or its files had a fault; where lost is not, requests
// may have failed.
func (p *tab) faultless(lost bool) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.faults) > 0 || !lost && len(p.lost) > 0 {
		p.t.Errorf("the console has %q, and of the network %q", p.faults, p.lost)
	}
}

// eval returns what an expression is, which may be a promise.
func (p *tab) eval(expression string) any {
	p.t.Helper()
	value, err := p.try(expression)
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

func (p *tab) try(expression string) (any, error) {
	var result struct {
		Result           struct{ Value any }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	err := p.b.call(p.session, "Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true,
		"returnByValue": true, "userGesture": true}, &result)
	if err == nil && result.ExceptionDetails != nil {
		err = fmt.Errorf("%s %s", result.ExceptionDetails.Text, result.ExceptionDetails.Exception.Description)
	}
	return result.Result.Value, err
}

// wait returns when an expression is true. What is said where that does not come is what the page shows.
func (p *tab) wait(expression string) {
	p.t.Helper()
	var value any
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); {
		// In the page itself, so that a busy machine is not asked more often than it can answer.
		value, err = p.try(`new Promise((done) => {
			const end = performance.now() + 5000;
			const look = () => {
				let is = false;
				try { is = Boolean(` + expression + `); } catch { }
				if (is || performance.now() > end) done(is); else setTimeout(look, 20);
			};
			look();
		})`)
		if value == true {
			return
		}
	}
	shown, _ := p.try("document.body?.innerText")
	p.t.Fatalf("it did not come: %s (%v)\nthe page shows: %v\nits console has: %q %q", expression, err, shown, p.faults, p.lost)
}

func (p *tab) size(width, height int, mobile bool) {
	p.t.Helper()
	p.do("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1,
		"mobile": mobile})
}

// prefer sets a media feature, such as prefers-color-scheme.
func (p *tab) prefer(features ...string) {
	p.t.Helper()
	var list []map[string]string
	for i := 0; i < len(features); i += 2 {
		list = append(list, map[string]string{"name": features[i], "value": features[i+1]})
	}
	p.do("Emulation.setEmulatedMedia", map[string]any{"features": list})
}

// key presses and releases a key, such as "Tab", "Enter" or "j".
func (p *tab) key(keys ...string) {
	p.t.Helper()
	for _, key := range keys {
		params := map[string]any{"type": "keyDown", "key": key, "code": key}
		switch key {
		case "Enter":
			params["text"], params["windowsVirtualKeyCode"] = "\r", 13
		case "Tab":
			params["windowsVirtualKeyCode"] = 9
		case "Escape":
			params["windowsVirtualKeyCode"] = 27
		default:
			if len(key) == 1 {
				params["text"] = key
			}
		}
		p.do("Input.dispatchKeyEvent", params)
		params["type"] = "keyUp"
		delete(params, "text")
		p.do("Input.dispatchKeyEvent", params)
	}
}

// write types text into what has the focus.
func (p *tab) write(text string) {
	p.t.Helper()
	p.do("Input.insertText", map[string]any{"text": text})
}

// picture returns a PNG of what is in view.
func (p *tab) picture() []byte {
	p.t.Helper()
	var shot struct{ Data string }
	p.b.must(p.t, p.session, "Page.captureScreenshot", map[string]any{"format": "png"}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		p.t.Fatal(err)
	}
	return png
}
