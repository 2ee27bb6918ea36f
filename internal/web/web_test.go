package web

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// ask sends one request to the page's server, changed by change.
func ask(t *testing.T, ctx context.Context, s *Server, path string, change func(*http.Request)) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.listener.Addr().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func withCookie(s *Server) func(*http.Request) {
	return func(r *http.Request) { r.AddCookie(&http.Cookie{Name: s.cookie, Value: s.token}) }
}

func TestOnlyThePageIsAnswered(t *testing.T) {
	_, s := serve(t)
	good := withCookie(s)
	for _, c := range []struct {
		name, path string
		change     func(*http.Request)
		want       int
	}{
		{"no token", "/", nil, http.StatusUnauthorized},
		{"a wrong token", "/?token=" + strings.Repeat("A", len(s.token)), nil, http.StatusUnauthorized},
		{"an empty token", "/?token=", nil, http.StatusUnauthorized},
		{"a wrong cookie", "/live", func(r *http.Request) { r.AddCookie(&http.Cookie{Name: s.cookie, Value: "x"}) }, http.StatusUnauthorized},
		{"no token, the API", "/live", nil, http.StatusUnauthorized},
		{"no token, the map", "/map.svg", nil, http.StatusUnauthorized},
		{"the token", "/?token=" + s.token, nil, http.StatusOK},
		{"the token, from elsewhere", "/?token=" + s.token, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, http.StatusOK},
		{"the cookie", "/app.js", good, http.StatusOK},
		{"the cookie, forwarded port", "/app.js", func(r *http.Request) { good(r); r.Host = "localhost:8080" }, http.StatusOK},
		{"the cookie, IPv6 forward", "/app.js", func(r *http.Request) { good(r); r.Host = "[::1]:8080" }, http.StatusOK},
		{"a name that leads here", "/app.js", func(r *http.Request) { good(r); r.Host = "evil.example:80" }, http.StatusMisdirectedRequest},
		{"a name that begins like it", "/?token=" + s.token, func(r *http.Request) { r.Host = "127.0.0.1.evil.example" }, http.StatusMisdirectedRequest},
		{"another port's page", "/app.js", func(r *http.Request) { good(r); r.Header.Set("Sec-Fetch-Site", "same-site") }, http.StatusUnauthorized},
		{"a change", "/", func(r *http.Request) { good(r); r.Method = http.MethodPost }, http.StatusMethodNotAllowed},
		{"an object's name that is none", "/object?kind=Workload&name=../x", good, http.StatusBadRequest},
		{"a kind that is none", "/object?kind=Pod&name=x", good, http.StatusBadRequest},
		{"a map that is none", "/map.svg?version=x", good, http.StatusNotFound},
	} {
		resp := ask(t, t.Context(), s, c.path, c.change)
		if resp.StatusCode != c.want {
			t.Errorf("%s: got %d, want %d", c.name, resp.StatusCode, c.want)
		}
		if got := resp.Header.Get("Content-Security-Policy"); got != policy {
			t.Errorf("%s: the policy is %q", c.name, got)
		}
		if got := resp.Header.Get("Access-Control-Allow-Origin"); got != "" {
			t.Errorf("%s: others may read it: %q", c.name, got)
		}
		if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK && strings.Contains(string(body), s.token) {
			t.Errorf("%s: the answer holds the token", c.name)
		}
	}
	set := ask(t, t.Context(), s, "/?token="+s.token, nil).Cookies()
	if len(set) != 1 || !set[0].HttpOnly || set[0].SameSite != http.SameSiteStrictMode {
		t.Errorf("the cookie: %v", set)
	}
}

// told reads the stream until each of the events has come, and returns the
// data of the first of each.
func told(t *testing.T, r io.Reader, events ...string) map[string]string {
	t.Helper()
	got := map[string]string{}
	event := ""
	for lines := bufio.NewScanner(r); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			event = name
		}
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if ok && got[event] == "" && !(event == "problem" && strings.Contains(data, `"reason":""`)) {
			got[event] = data
		}
		missing := 0
		for _, e := range events {
			if got[e] == "" {
				missing++
			}
		}
		if missing == 0 {
			return got
		}
	}
	t.Fatalf("the stream ended with %v, want %v", got, events)
	return nil
}

func TestLiveTellsEverything(t *testing.T) {
	n, s := serve(t)
	ctx, leave := context.WithTimeout(t.Context(), 20*time.Second)
	defer leave()
	resp := ask(t, ctx, s, "/live", withCookie(s))
	got := told(t, resp.Body, "node", "map", "load", "objects", "object", "event", "latency")
	for event, want := range map[string]string{
		"node":    `"name":"edge1"`,
		"objects": `"kind":"Workload","name":"web","phase":"Running","placement":"node 0, exclusive, gpu0","cpus":"2-3","restarts":2`,
		"latency": `"model":"digits"`,
		"load":    `"cpus":[{"id":0,`,
	} {
		if !strings.Contains(got[event], want) {
			t.Errorf("%s: got %s, want %s", event, got[event], want)
		}
	}
	var drawn drawing
	if err := json.Unmarshal([]byte(got["map"]), &drawn); err != nil {
		t.Fatal(err)
	}
	picture := ask(t, ctx, s, "/map.svg?version="+drawn.Version, func(r *http.Request) { withCookie(s)(r); r.Method = http.MethodHead })
	if picture.StatusCode != http.StatusOK || picture.Header.Get("Content-Type") != "image/svg+xml" {
		t.Errorf("the map: %v", picture.Status)
	}
	// The node's streams end with the page's.
	if n.open() == 0 {
		t.Fatal("no stream of the node goes on")
	}
	leave()
	for until := time.Now().Add(10 * time.Second); n.open() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d streams of the node outlived the page", n.open())
		}
	}
}

func TestObjectTellsItsLog(t *testing.T) {
	_, s := serve(t)
	ctx, leave := context.WithTimeout(t.Context(), 20*time.Second)
	defer leave()
	got := told(t, ask(t, ctx, s, "/object?kind=Workload&name=web", withCookie(s)).Body, "details", "event", "line")
	if want := `image: docker.io/library/nginx:1.29\n`; !strings.Contains(got["details"], want) {
		t.Errorf("got %s, want %s", got["details"], want)
	}
	if !strings.Contains(got["line"], "GET /") {
		t.Errorf("the log: %s", got["line"])
	}
}

// A page of a node that is out of reach says so, and why.
func TestUnreachableNodeIsTold(t *testing.T) {
	_, s := serve(t)
	ctx, leave := context.WithTimeout(t.Context(), 20*time.Second)
	defer leave()
	s.node = unreachable(t)
	got := told(t, ask(t, ctx, s, "/live", withCookie(s)).Body, "problem")
	if !strings.Contains(got["problem"], "nothing listens there") {
		t.Errorf("got %s", got["problem"])
	}
}

func TestLatencies(t *testing.T) {
	const text = `# TYPE oscine_model_request_duration_seconds histogram
oscine_model_request_duration_seconds_bucket{model="b",le="0.001"} 0
oscine_model_request_duration_seconds_bucket{model="b",le="0.002"} 6
oscine_model_request_duration_seconds_bucket{model="b",le="0.003"} 6
oscine_model_request_duration_seconds_bucket{model="b",le="0.004"} 10
oscine_model_request_duration_seconds_bucket{model="b",le="+Inf"} 10
oscine_model_request_duration_seconds_sum{model="b"} 0.02
oscine_model_request_duration_seconds_count{model="b"} 10
`
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(readLatencies(families[durations]))
	if err != nil {
		t.Fatal(err)
	}
	if want := `[{"model":"b","count":10,"p50":0.002,"p99":0.004,"bars":[{"to":0.002,"count":6},{"to":0.003,"count":0},{"to":0.004,"count":4}]}]`; string(raw) != want {
		t.Errorf("got  %s\nwant %s", raw, want)
	}
	if got := readLatencies(families["absent"]); got == nil || len(got) != 0 { // a list for the page
		t.Errorf("without models: %v", got)
	}
}
