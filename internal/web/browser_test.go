package web

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// -screenshots writes pictures of the page, light and dark, for people.
var screenshots = flag.String("screenshots", "", "folder for pictures of the page")

// browser is a page in a headless Chromium, driven over its pipe (Chrome
// DevTools Protocol, --remote-debugging-pipe).
type browser struct {
	t       *testing.T
	in      io.Writer
	out     *bufio.Reader
	session string
	last    int
}

func openBrowser(t *testing.T) *browser {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		t.Skip("needs chromium, which loads the page: apt install chromium")
	}
	toRead, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, toWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	// No sandbox: Chromium refuses one to root, and the page is our own. The
	// proxy keeps it from asking its maker for anything.
	command := exec.CommandContext(t.Context(), program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--proxy-server=127.0.0.1:9", "--proxy-bypass-list=127.0.0.1", "--user-data-dir="+t.TempDir(), "--remote-debugging-pipe", "about:blank")
	command.ExtraFiles = []*os.File{toRead, toWrite} // 3 and 4
	command.WaitDelay = 5 * time.Second
	var stderr bytes.Buffer
	command.Stderr = &stderr
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	toRead.Close()
	toWrite.Close()
	if err := out.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, in: in, out: bufio.NewReader(out)}
	t.Cleanup(func() {
		_, _ = io.WriteString(in, `{"id":0,"method":"Browser.close"}`+"\x00") // it may have ended already, and then by a signal
		in.Close()
		_ = command.Wait()
		out.Close()
		if t.Failed() {
			t.Log(stderr.String())
		}
	})
	var target struct{ TargetID, SessionID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &target)
	b.session = target.SessionID
	return b
}

// call sends a command and decodes its answer into result, nil for none.
func (b *browser) call(method string, params, result any) {
	b.t.Helper()
	b.last++
	raw, err := json.Marshal(map[string]any{"id": b.last, "method": method, "params": params, "sessionId": b.session})
	if b.session == "" {
		raw, err = json.Marshal(map[string]any{"id": b.last, "method": method, "params": params})
	}
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.in.Write(append(raw, 0)); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	for {
		raw, err := b.out.ReadBytes(0)
		if err != nil {
			b.t.Fatalf("%s: %v", method, err)
		}
		var answer struct {
			ID     int
			Result json.RawMessage
			Error  *struct{ Message string }
		}
		if err := json.Unmarshal(bytes.TrimRight(raw, "\x00"), &answer); err != nil {
			b.t.Fatal(err)
		}
		if answer.ID != b.last {
			continue // an event
		}
		if answer.Error != nil {
			b.t.Fatalf("%s: %s", method, answer.Error.Message)
		}
		if result != nil {
			if err := json.Unmarshal(answer.Result, result); err != nil {
				b.t.Fatal(err)
			}
		}
		return
	}
}

func (b *browser) load(url string) {
	b.t.Helper()
	b.call("Page.navigate", map[string]any{"url": url}, nil)
}

// eval returns the value of an expression as text.
func (b *browser) eval(expression string) string {
	b.t.Helper()
	var got struct{ Result struct{ Value any } }
	b.call("Runtime.evaluate", map[string]any{"expression": "String(" + expression + ")"}, &got)
	text, _ := got.Result.Value.(string)
	return text
}

// await waits until the page's DOM holds all the texts, and returns it.
func (b *browser) await(want ...string) string {
	b.t.Helper()
	for until := time.Now().Add(40 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		dom := b.eval("document.documentElement.outerHTML")
		missing := ""
		for _, w := range want {
			if !strings.Contains(dom, w) {
				missing = w
			}
		}
		if missing == "" {
			return dom
		}
		if time.Now().After(until) {
			b.t.Fatalf("the page never held %s:\n%s", missing, dom)
		}
	}
}

func (b *browser) resize(width, height int) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
}

// picture writes a screenshot, where the person asked for them.
func (b *browser) picture(name, scheme string, width, height int) {
	b.t.Helper()
	if *screenshots == "" {
		return
	}
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	b.resize(width, height)
	time.Sleep(time.Second) // until it is drawn
	var shot struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"format": "png"}, &shot)
	raw, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*screenshots, name+".png"), raw, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// A real browser runs the page under its policy, and shows what the node
// tells; text from outside stays text.
func TestBrowserShowsTheNode(t *testing.T) {
	_, s := serve(t)
	b := openBrowser(t)
	b.load(s.URL())
	dom := b.await(
		`<h1 id="node">edge1</h1>`, "Oscine 0.1.0 (hosted)",
		`<a href="#Workload/web">web</a>`, `<a href="#Model/digits">digits</a>`,
		`data-label="Placement" role="cell">node 0, exclusive, gpu0</td>`,
		`src="map.svg?version=`, "CPUs busy", "half within", `gpu3: 12 corrected memory errors &lt;img src=x`,
		`<div id="banner" role="status" hidden="">`,
	)
	for _, never := range []string{`<img src="x"`, "<title>taken", s.token} {
		if strings.Contains(dom, never) {
			t.Errorf("the page holds %s", never)
		}
	}
	if got := b.eval("document.title + ' ' + location.search + document.cookie"); got != "edge1 · Oscine " {
		t.Errorf("the title, and what scripts see of the token: %q", got)
	}
	b.picture("dark", "dark", 1400, 2300)
	b.picture("light", "light", 1400, 2300)
	b.picture("narrow", "light", 400, 3600)
	b.resize(400, 1000)
	if got := b.eval("document.documentElement.scrollWidth <= 400"); got != "true" {
		t.Errorf("the page is wider than 400 pixels")
	}
	b.eval("document.querySelector('[href=\"#Workload/web\"]').click()")
	b.await(`<dialog id="details" aria-labelledby="details-title" open="">`, `upstream timed out\x1b[0m &lt;img src=x onerror=`, "image: docker.io/library/nginx:1.29")
	b.picture("details-dark", "dark", 1400, 1200)
	b.picture("details-narrow", "light", 400, 1600)
	b.eval("document.getElementById('close').click()")
	b.await(`<dialog id="details" aria-labelledby="details-title">`)
}

// A page whose node goes away says so and why.
func TestBrowserTellsOfALostNode(t *testing.T) {
	_, s := serve(t)
	s.node = unreachable(t)
	b := openBrowser(t)
	b.load(s.URL())
	b.await("Not up to date; trying again.", "nothing listens there")
	b.picture("lost-dark", "dark", 1400, 500)
}
