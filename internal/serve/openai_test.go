package serve_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/gguf/gguftest"
	"oscine.dev/oscine/internal/serve"
	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/servetest"
)

// TestOpenAIClient lets OpenAI's client, unchanged, speak to the server, with
// real language models behind it.
func TestOpenAIClient(t *testing.T) {
	python := pythonClients(t)
	registry := core.NewRegistry()
	server := newServer(serve.NewHandler(registry, serve.Options{}))
	t.Cleanup(server.Close)
	for name, options := range map[string]gguftest.Options{"Chat_1": {}, "vectors": {Pooling: 1}} {
		file := filepath.Join(t.TempDir(), "model.gguf")
		if err := os.WriteFile(file, gguftest.Tiny(options), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := registry.Add(core.Model{Name: name, Instances: core.One(servetest.Llama(t, file, name, nil))}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := registry.Remove(name); err != nil {
				t.Error(err)
			}
		})
		if err := registry.WaitReady(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), python, "testdata/openai/client.py", server.URL, "Chat_1", "vectors").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "answers agree") {
		t.Errorf("%v\n%s", err, out)
	}
}

// llama-server computes, so its threads are those that a deadline makes urgent.
func TestServerOfLanguageModelIsUrgent(t *testing.T) {
	file := filepath.Join(t.TempDir(), "model.gguf")
	if err := os.WriteFile(file, gguftest.Tiny(gguftest.Options{}), 0o600); err != nil {
		t.Fatal(err)
	}
	registry, u := core.NewRegistry(), &recorder{}
	server := newServer(serve.NewHandler(registry, serve.Options{}))
	t.Cleanup(server.Close)
	starter := servetest.Llama(t, file, "m", map[string]string{"slots": "1"})
	if err := registry.Add(core.Model{Name: "m", Instances: []core.Instance{{Starter: starter, Urgency: u}}, Objective: time.Second}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := registry.Remove("m"); err != nil {
			t.Error(err)
		}
	})
	if err := registry.WaitReady(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", childOf(t, workerPID(t, starter))))
	if err != nil {
		t.Fatal(err)
	}
	if status, _, text := doRequest(t, server.URL, "POST", "/v1/completions", nil, `{"model":"m","prompt":"Hi","max_tokens":2}`); status != 200 {
		t.Fatal(status, text)
	}
	// The one that serves the daemon, and those of the server.
	want := fmt.Sprintf("raise %d, lower %[1]d", 1+len(tasks))
	if got := strings.Join(u.events, ", "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
