package serve_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
		if err := registry.Add(core.Model{Name: name, Starter: servetest.Llama(t, file, name, nil)}); err != nil {
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
