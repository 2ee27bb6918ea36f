package openai_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"oscine.dev/oscine/internal/gguf/gguftest"
	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
	"oscine.dev/oscine/internal/serve/front/openai"
	"oscine.dev/oscine/internal/serve/servetest"
)

func TestMain(m *testing.M) { servetest.Main(m) }

// rig serves tiny models through the real worker and the real server.
type rig struct {
	*servetest.Rig
	url string
}

func newRig(t *testing.T) *rig {
	r := &rig{Rig: servetest.New(t)}
	server := httptest.NewServer(front.Handler(r.Registry, front.Options{MaxBodyBytes: 1 << 20}, []front.Front{openai.Front()}))
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

// language serves a tiny language model under a name that is no object's.
func (r *rig) language(name string, model gguftest.Options, options map[string]string) *servetest.Exec {
	r.Helper()
	file := filepath.Join(r.TempDir(), "model.gguf")
	if err := os.WriteFile(file, gguftest.Tiny(model), 0o600); err != nil {
		r.Fatal(err)
	}
	starter := servetest.Llama(r, file, name, options)
	r.Serve(core.Model{Name: strings.ToLower(name), ServedAs: name, Instances: core.One(starter)})
	r.Wait(strings.ToLower(name))
	return starter
}

func (r *rig) request(ctx context.Context, method, path, body string, header ...string) *http.Response {
	r.Helper()
	q, err := http.NewRequestWithContext(ctx, method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		q.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

func (r *rig) ask(path, body string, header ...string) (int, string) {
	r.Helper()
	resp := r.request(r.Context(), http.MethodPost, path, body, header...)
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

const long = `{"model":"Tiny_1","prompt":"Hi","max_tokens":100000,"stream":true}`

func TestAnswers(t *testing.T) {
	r := newRig(t)
	r.language("Tiny_1", gguftest.Options{}, nil)
	r.language("vectors", gguftest.Options{Pooling: 1}, nil)
	r.language("ranks", gguftest.Options{Pooling: 4}, nil)
	r.Ready("numbers")
	for _, test := range []struct {
		path, body string
		status     int
		want       []string
	}{
		{"/v1/chat/completions", `{"model":"Tiny_1","messages":[{"role":"user","content":"Hi"}],"max_tokens":4}`, 200, []string{`"model":"Tiny_1"`, `"completion_tokens":4`, `"role":"assistant"`}},
		{"/v1/chat/completions", `{"model":"Tiny_1","messages":[{"role":"user","content":"Hi"}],"max_tokens":2,"logprobs":true,"top_logprobs":2}`, 200, []string{`"top_logprobs":[`}},
		{"/v1/completions", `{"model":"Tiny_1","prompt":"Hi","max_tokens":4}`, 200, []string{`"text":`, `"usage":`}},
		{"/v1/responses", `{"model":"Tiny_1","input":"Hi","max_output_tokens":4}`, 200, []string{`"output_text"`}},
		{"/v1/embeddings", `{"model":"vectors","input":["a","b"]}`, 200, []string{`"embedding":[`}},
		{"/v1/rerank", `{"model":"ranks","query":"a","documents":["b"]}`, 200, []string{`"relevance_score":`}},
		{"/tokenize", `{"model":"Tiny_1","content":"Hi"}`, 200, []string{`"tokens":[`}},
		{"/detokenize", `{"model":"Tiny_1","tokens":[75,108]}`, 200, []string{"Hi"}},

		{"/v1/chat/completions", `{"model":"none","messages":[]}`, 404, []string{`"code":"model_not_found"`, `"param":"model"`, `no model \"none\"`}},
		{"/v1/chat/completions", `{"messages":[]}`, 400, []string{`"param":"model"`, `"type":"invalid_request_error"`}},
		{"/v1/chat/completions", `{"model":7}`, 400, []string{`"param":"model"`}},
		{"/v1/chat/completions", `{"model":"Tiny_1","stream":"yes"}`, 400, []string{"must be true or false"}},
		{"/v1/chat/completions", `not JSON`, 400, []string{"not a JSON object"}},
		{"/v1/chat/completions", `{"model":"Tiny_1","messages":"none"}`, 400, []string{`"error":{"message":`, `"type":"invalid_request_error"`, `"code":null`}},
		{"/v1/chat/completions", `{"model":"Tiny_1","stream":true,"messages":"none"}`, 400, []string{`"type":"invalid_request_error"`}},
		{"/v1/completions", `{"model":"Tiny_1","prompt":"` + strings.Repeat("long ", 500) + `"}`, 400, []string{`"code":"context_length_exceeded"`}},
		{"/v1/completions", `{"model":"Tiny_1","prompt":"` + strings.Repeat("x", 1<<20) + `"}`, 413, []string{"too large"}},
		{"/v1/embeddings", `{"model":"Tiny_1","input":"a"}`, 400, []string{"task=embed"}},
		{"/v1/chat/completions", `{"model":"numbers","messages":[]}`, 400, []string{"numbers is not a language model"}},
	} {
		status, text := r.ask(test.path, test.body)
		if status != test.status || slices.ContainsFunc(test.want, func(w string) bool { return !strings.Contains(text, w) }) {
			t.Errorf("%s %.80s: got %d %.300s, want %d %q", test.path, test.body, status, text, test.status, test.want)
		}
	}
	for _, broken := range []string{"not compressed", "\x1f\x8b\x08\x00\x00"} {
		if status, text := r.ask("/v1/completions", broken, "Content-Encoding", "gzip"); status != http.StatusBadRequest || !strings.Contains(text, "cannot be read") {
			t.Errorf("gzip %q: got %d %s", broken, status, text)
		}
	}
	if status, text := r.ask("/v1/completions", `{"model":"Tiny_1","prompt":"Hi","max_tokens":100000}`, "X-Request-Timeout", "0.001"); status != http.StatusGatewayTimeout || !strings.Contains(text, "timeout_error") {
		t.Errorf("a deadline: got %d %s", status, text)
	}
	for _, bad := range []string{"never", "-1", "NaN", "1e9"} {
		if status, text := r.ask("/v1/completions", `{"model":"Tiny_1","prompt":"Hi"}`, "X-Request-Timeout", bad); status != http.StatusBadRequest {
			t.Errorf("a deadline of %s: got %d %s", bad, status, text)
		}
	}
}

// The two protocols that share /v1/models find what they look for.
func TestModels(t *testing.T) {
	r := newRig(t)
	r.Ready("b")
	r.Ready("a")
	r.Serve(core.Model{Name: "a-2", ServedAs: "a", Version: "2"}) // is no model of its own here
	r.Wait("a-2")
	get := func(path string, into any) int {
		resp := r.request(t.Context(), http.MethodGet, path, "")
		if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		return resp.StatusCode
	}
	var list struct {
		Object string
		Data   []struct{ ID, Object string }
		Models []string
	}
	if status := get("/v1/models", &list); status != 200 || list.Object != "list" || len(list.Data) != 2 || list.Data[0].ID != "a" || list.Data[0].Object != "model" || !slices.Equal(list.Models, []string{"a", "b"}) {
		t.Errorf("got %d %+v", status, list)
	}
	var one struct {
		ID, Object, Name string
		Ready            bool
	}
	if status := get("/v1/models/b", &one); status != 200 || one.ID != "b" || one.Object != "model" || one.Name != "b" || !one.Ready {
		t.Errorf("got %d %+v", status, one)
	}
	var failed struct{ Error struct{ Code string } }
	if status := get("/v1/models/c", &failed); status != 404 || failed.Error.Code != "model_not_found" {
		t.Errorf("got %d %+v", status, failed)
	}
	if status := get("/v1/nope", &failed); status != 404 || failed.Error.Code != "unknown_url" {
		t.Errorf("got %d %+v", status, failed)
	}
	if status := get("/v1/chat/completions", &failed); status != 405 {
		t.Errorf("got %d %+v", status, failed)
	}
}

// events reads the data of a stream of server-sent events until it ends.
func events(t *testing.T, body io.Reader, each func(string) bool) {
	t.Helper()
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok && !each(data) {
			return
		}
	}
	if err := lines.Err(); err != nil {
		t.Log(err)
	}
}

func TestStream(t *testing.T) {
	r := newRig(t)
	r.language("Tiny_1", gguftest.Options{}, nil)
	body := `{"model":"Tiny_1","prompt":"Hi","max_tokens":6,"temperature":0,"cache_prompt":false`
	_, whole := r.ask("/v1/completions", body+"}")
	var answer struct{ Choices []struct{ Text string } }
	if err := json.Unmarshal([]byte(whole), &answer); err != nil || len(answer.Choices) != 1 {
		t.Fatalf("%v: %s", err, whole)
	}
	resp := r.request(t.Context(), http.MethodPost, "/v1/completions", body+`,"stream":true,"stream_options":{"include_usage":true}}`)
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || got != "text/event-stream" {
		t.Fatalf("got %d %s", resp.StatusCode, got)
	}
	var text, last string
	pieces, usage := 0, 0
	events(t, resp.Body, func(data string) bool {
		var part struct {
			Choices []struct{ Text string }
			Usage   struct {
				Completion int `json:"completion_tokens"`
			}
		}
		if last = data; json.Unmarshal([]byte(data), &part) == nil {
			for _, c := range part.Choices {
				text += c.Text
				pieces++
			}
			usage += part.Usage.Completion
		}
		return true
	})
	if text != answer.Choices[0].Text || pieces < 6 || usage != 6 || last != "[DONE]" {
		t.Errorf("got %q in %d pieces, %d tokens, then %s, want %q", text, pieces, usage, last, answer.Choices[0].Text)
	}
}

// A client that vanishes in the middle of a stream frees its slot.
func TestClientVanishes(t *testing.T) {
	r := newRig(t)
	r.language("Tiny_1", gguftest.Options{Context: 1 << 17}, map[string]string{"slots": "1", "context": "110000"})
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	resp := r.request(ctx, http.MethodPost, "/v1/completions", long)
	events(t, resp.Body, func(string) bool { return false })
	busy, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/v1/completions", strings.NewReader(`{"model":"Tiny_1","prompt":"Hi","max_tokens":2}`))
	busy.Header.Set("X-Request-Timeout", "0.2")
	if resp, err := http.DefaultClient.Do(busy); err != nil || resp.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("beside it: got %v, %v, want a slot that is taken", resp, err)
	}
	leave()
	if status, text := r.ask("/v1/completions", `{"model":"Tiny_1","prompt":"Hi","max_tokens":2}`, "X-Request-Timeout", "20"); status != 200 {
		t.Errorf("after it: got %d %s", status, text)
	}
}

// Clients at the same time get their own answers.
func TestTwoClients(t *testing.T) {
	r := newRig(t)
	r.language("Tiny_1", gguftest.Options{}, map[string]string{"slots": "2", "context": "256"})
	ask := func(prompt string) string {
		status, text := r.ask("/v1/completions", `{"model":"Tiny_1","prompt":"`+prompt+`","max_tokens":30,"temperature":0,"cache_prompt":false}`)
		var answer struct{ Choices []struct{ Text string } }
		if err := json.Unmarshal([]byte(text), &answer); status != 200 || err != nil || len(answer.Choices) != 1 {
			t.Errorf("%s: got %d %s", prompt, status, text)
			return ""
		}
		return answer.Choices[0].Text
	}
	want := map[string]string{"one": ask("one"), "two": ask("two"), "three": ask("three")}
	var all sync.WaitGroup
	for prompt, text := range want {
		all.Go(func() {
			for range 10 {
				if got := ask(prompt); got != text {
					t.Errorf("%s: got %q, want %q", prompt, got, text)
				}
			}
		})
	}
	all.Wait()
}

// The server or the worker dies in the middle of a stream: the client is told,
// and the next one is served.
func TestKilled(t *testing.T) {
	r := newRig(t)
	starter := r.language("Tiny_1", gguftest.Options{Context: 1 << 17}, map[string]string{"slots": "1", "context": "110000"})
	for _, victim := range []string{"llama-server", "worker"} {
		resp := r.request(t.Context(), http.MethodPost, "/v1/completions", long)
		killed, last := false, ""
		events(t, resp.Body, func(data string) bool {
			if last = data; !killed {
				killed = true
				kill(t, starter, victim == "worker")
			}
			return true
		})
		if !strings.Contains(last, `"error":{`) || !strings.Contains(last, "server_error") {
			t.Errorf("%s killed: the stream ends with %s", victim, last)
		}
		if status, text := r.ask("/v1/completions", `{"model":"Tiny_1","prompt":"Hi","max_tokens":2}`); status != 200 {
			t.Errorf("%s killed: the next client got %d %s", victim, status, text)
		}
	}
}

// kill kills the worker or its child.
func kill(t *testing.T, starter *servetest.Exec, worker bool) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		isWorker := bytes.HasPrefix(text, []byte(starter.Command[0]+"\x00"))
		isServer := bytes.Contains(text, []byte("\x00"+starter.Model+"\x00")) && !isWorker
		if worker && isWorker || !worker && isServer {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err == nil {
				err = syscall.Kill(pid, syscall.SIGKILL)
			}
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("nothing to kill")
}

// A model that starts is not ready, and says when to come again.
func TestNotReady(t *testing.T) {
	r := newRig(t)
	r.Serve(core.Model{Name: "m", Instances: core.One(servetest.Worker(t.TempDir(), "refuse"))})
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		resp := r.request(t.Context(), http.MethodPost, "/v1/chat/completions", `{"model":"m"}`)
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(string(text), "model_not_ready") {
			t.Fatalf("got %d %s, %v", resp.StatusCode, text, err)
		}
		if strings.Contains(string(text), "not a model: it is a test") {
			return
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("the reason is not told: %s", text)
		}
	}
}
