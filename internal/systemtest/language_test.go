package systemtest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/gguf/gguftest"
	"oscine.dev/oscine/internal/samples"
)

// llamaPack builds the pack of llama.cpp from the cache and returns its file, or
// skips the test.
func llamaPack(n *testNode) string {
	n.t.Helper()
	source, err := debian.Open(os.Stderr)
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := source.Cached("llama.cpp", n.arch); err != nil {
		n.t.Skipf("needs llama.cpp (oscine pack build llama.cpp): %v", err)
	}
	dir := n.t.TempDir()
	n.run("pack", "build", "llama.cpp", "--arch", n.arch, "-o", dir, "--source", "../..")
	return filepath.Join(dir, "llama.cpp-"+n.arch+".erofs")
}

// children returns the processes whose parent is a process.
func children(t *testing.T, pid int) (list []int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for field := range strings.FieldsSeq(string(text)) {
			var child int
			if _, err := fmt.Sscan(field, &child); err == nil {
				list = append(list, child)
			}
		}
	}
	return list
}

// scraped returns the node's metrics as text.
func scraped(t *testing.T, file string) string {
	t.Helper()
	config, err := client.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	_, who, err := config.Context("")
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(who)
	if err != nil {
		t.Fatal(err)
	}
	web, base := c.HTTP()
	resp, err := web.Get(base + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestHostedLanguageModel serves a tiny language model, chats with it, kills its
// server, its worker and the daemon, and serves a real one beside it.
func TestHostedLanguageModel(t *testing.T) {
	d := newDaemon(t)
	d.run("pack", "install", llamaPack(d.testNode))
	file := filepath.Join(t.TempDir(), "Talk.gguf")
	model := gguftest.Tiny(gguftest.Options{})
	if err := os.WriteFile(file, model, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, name := range []string{"talk", "smollm2", "cut", "small"} {
			d.try("delete", "model", name)
		}
	})
	// Half a model, and one that its memory cannot hold, are refused at once.
	cut := filepath.Join(t.TempDir(), "cut.gguf")
	if err := os.WriteFile(cut, model[:len(model)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	d.refuse([]string{"serve", cut}, "not a sound GGUF file")
	d.refuse([]string{"serve", file, "--name", "small", "--memory", "64Mi"}, "it needs", "give it more memory")

	// One line serves and asks; the next finds it served.
	fixed := []string{"--temperature", "0", "--max-tokens", "12"}
	ask := func() string { return d.run(append([]string{"chat", "talk", "Good", "day"}, fixed...)...) }
	first := d.run(append([]string{"chat", file, "Good", "day", "--cpu", "200m"}, fixed...)...)
	if len(strings.Fields(first)) != 12 {
		t.Errorf("12 words were asked for, got %q", first)
	}
	if got := ask(); got != first {
		t.Errorf("the same question: got %q, before %q", got, first)
	}
	if out, errOut, code := d.tryWith(d.config, "Good day\n", append([]string{"chat", "talk"}, fixed...)...); code != 0 || out != first {
		t.Errorf("through a pipe: got %q, %s, status %d, want %q", out, errOut, code, first)
	}
	out, errOut, code := d.tryWith(d.config, "Good day\nAnd?\n/bye\nnever read\n", append([]string{"chat", "talk", "--interactive", "--verbose"}, fixed...)...)
	if lines := strings.Split(strings.TrimRight(out, "\n"), "\n"); code != 0 || len(lines) != 2 || lines[0]+"\n" != first || strings.Count(errOut, "tokens read") != 2 {
		t.Errorf("a conversation: got %q, %s, status %d", out, errOut, code)
	}
	d.refuse([]string{"chat", "nobody", "Hi"}, "nobody", "oscine get models")
	if got := d.run("describe", "model", "talk"); !strings.Contains(got, "llama.cpp b") || !strings.Contains(got, "memory") {
		t.Errorf("the description:\n%s", got)
	}

	// Its server, then its worker, are killed: it answers again, and the same.
	pid := d.pid("model", "talk")
	for _, victim := range []func() int{
		func() int {
			if list := children(t, pid); len(list) == 1 {
				return list[0]
			}
			t.Fatal("the worker has not one child")
			return 0
		},
		func() int { return d.pid("model", "talk") },
	} {
		if err := syscall.Kill(victim(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		d.eventually("the killed worker's model to answer", soon, func() (string, bool) {
			out, errOut, code := d.try(append([]string{"chat", "talk", "Good", "day"}, fixed...)...)
			now := d.pid("model", "talk")
			return fmt.Sprintf("%q %s", out, errOut), code == 0 && out == first && now != pid && now != 0
		})
		pid = d.pid("model", "talk")
	}
	// The next daemon takes the worker over, with its server.
	server := children(t, pid)
	d.stop(syscall.SIGKILL)
	d.start()
	d.awaitPhase("model", "talk", "Running", soon)
	if again := d.pid("model", "talk"); again != pid || fmt.Sprint(children(t, pid)) != fmt.Sprint(server) {
		t.Errorf("the next daemon has worker %d with %v, before it was %d with %v", again, children(t, pid), pid, server)
	}
	if got := ask(); got != first {
		t.Errorf("after the restart: got %q, before %q", got, first)
	}
	d.eventually("tokens to be counted", soon, func() (string, bool) {
		text := scraped(t, filepath.Join(d.dir, "config"))
		return text, regexp.MustCompile(`oscine_model_generated_tokens_total\{model="talk"\} [1-9]`).MatchString(text)
	})

	smol, err := samples.SmolLM2(t.Context(), false, nil)
	if errors.Is(err, os.ErrNotExist) || runtime.GOARCH != d.arch {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	answer, errOut, code := d.try("chat", smol, "Why is the sky blue?", "--temperature", "0", "--max-tokens", "24", "--option", "slots=1", "--option", "context=2048", "--cpu", "500m")
	if code != 0 {
		log, _, _ := d.try("logs", "model", "smollm2")
		t.Fatalf("chat ended with %d: %s\nits worker wrote:\n%s", code, errOut, log)
	}
	if !strings.Contains(answer, "Rayleigh scattering") {
		t.Errorf("why the sky is blue: got %q", answer)
	}
}
