package llama_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"oscine.dev/oscine/internal/gguf/gguftest"
	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/engine/llama"
	"oscine.dev/oscine/internal/serve/language"
	"oscine.dev/oscine/internal/serve/servetest"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// open loads a model as the worker would.
func open(t *testing.T, model []byte, o worker.Options) (worker.Session, error) {
	t.Helper()
	var e llama.Engine
	flags := flag.NewFlagSet("llama", flag.ContinueOnError)
	e.Flags(flags)
	dir, err := os.MkdirTemp("", "o") // short: it is to hold a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left in the socket's folder: %v, %v", left, err)
		}
		_ = os.RemoveAll(dir)
	})
	if err := flags.Parse([]string{"--server", servetest.LlamaServer(t), "--dir", dir}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "model")
	if err := os.WriteFile(file, model, 0o600); err != nil {
		t.Fatal(err)
	}
	o.Threads = 1
	s, err := e.Open(file, o)
	if err == nil {
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return s, err
}

func tiny(t *testing.T, options gguftest.Options, o worker.Options) worker.Session {
	t.Helper()
	s, err := open(t, gguftest.Tiny(options), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ask(ctx context.Context, s worker.Session, path, body string) (int, string, error) {
	meta := s.Metadata()
	out := worker.NewOutput(&meta, make([]byte, 1<<20))
	in := []worker.Tensor{
		{Shape: tensor.Shape{1}, Data: language.AppendText(nil, []byte(path))},
		{Shape: tensor.Shape{1}, Data: language.AppendText(nil, []byte(body))},
	}
	if err := s.Run(ctx, in, out); err != nil {
		return 0, "", err
	}
	tensors := out.Tensors()
	status, err := language.Code(tensors[0].Data)
	if err != nil {
		return 0, "", err
	}
	text, err := language.Text(tensors[1].Data)
	return status, string(text), err
}

func TestAnswers(t *testing.T) {
	s := tiny(t, gguftest.Options{}, worker.Options{Name: "Tiny_1.0", Values: map[string]string{"slots": "2", "context": "256"}})
	if meta := s.Metadata(); !strings.HasPrefix(meta.Engine, "llama.cpp b") || !language.Is(meta.Inputs, meta.Outputs) || meta.Runs() != 2 || !meta.Streams {
		t.Errorf("metadata %+v", meta)
	}
	for _, test := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"", "", 200, "ok"},
		{language.Chat, `{"messages":[{"role":"user","content":"Hi"}],"max_tokens":5}`, 200, `"model":"Tiny_1.0"`},
		{language.Completions, `{"prompt":"Hi","max_tokens":5}`, 200, `"completion_tokens":5`},
		{language.Responses, `{"input":"Hi","max_output_tokens":5}`, 200, `"output_text"`},
		{language.Tokenize, `{"content":"Hi"}`, 200, `"tokens":[`},
		{language.Detokenize, `{"tokens":[75,108]}`, 200, `Hi`},
		{language.Chat, `{"messages":"none"}`, 400, "messages"},
		{language.Chat, `{"messages":[{"role":"user","content":"` + strings.Repeat("long ", 200) + `"}]}`, 400, "exceed_context_size"},
	} {
		status, text, err := ask(t.Context(), s, test.path, test.body)
		if err != nil || status != test.status || !strings.Contains(text, test.want) {
			t.Errorf("%s %.60s: got %d %.300s, %v, want %d %s", test.path, test.body, status, text, err, test.status, test.want)
		}
	}
	// What it was not made for is refused before the server hears of it.
	for path, want := range map[string]string{
		language.Embeddings: "option task=embed", "/slots": "there is no request", "/props": "there is no request", "/v1/chat/completions/../../../metrics": "there is no request",
	} {
		if _, _, err := ask(t.Context(), s, path, "{}"); err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, worker.ErrEngine) {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
	}
}

func TestTasks(t *testing.T) {
	for name, test := range map[string]struct {
		options    gguftest.Options
		values     map[string]string
		path, body string
		want       string
	}{
		"embed":     {gguftest.Options{Pooling: 1}, nil, language.Embeddings, `{"input":["a","b"]}`, `"embedding":[`},
		"as option": {gguftest.Options{}, map[string]string{"task": "embed"}, language.Embeddings, `{"input":["a","b"]}`, `"embedding":[`},
		"rerank":    {gguftest.Options{Pooling: 4}, nil, language.Rerank, `{"query":"a","documents":["b","c"]}`, `"relevance_score":`},
	} {
		t.Run(name, func(t *testing.T) {
			s := tiny(t, test.options, worker.Options{Values: test.values})
			status, text, err := ask(t.Context(), s, test.path, test.body)
			if err != nil || status != 200 || strings.Count(text, test.want) < 1 {
				t.Errorf("got %d %.200s, %v", status, text, err)
			}
			if _, _, err := ask(t.Context(), s, language.Chat, `{}`); err == nil || !strings.Contains(err.Error(), "option task=generate") {
				t.Errorf("a chat: got %v", err)
			}
		})
	}
}

func TestRefusesModel(t *testing.T) {
	file := gguftest.Tiny(gguftest.Options{})
	cut := file[:len(file)-4096]
	for name, test := range map[string]struct {
		model []byte
		o     worker.Options
		want  string
	}{
		"cut":             {cut, worker.Options{}, "cut short"},
		"no model":        {[]byte("GGUF"), worker.Options{}, "not a sound GGUF"},
		"option":          {file, worker.Options{Values: map[string]string{"ctx": "5"}}, "there are context, slots, task"},
		"number":          {file, worker.Options{Values: map[string]string{"slots": "-1"}}, "must be a number"},
		"task":            {file, worker.Options{Values: map[string]string{"task": "sing"}}, "choose generate, embed or rerank"},
		"memory":          {file, worker.Options{Memory: 8 << 20}, "give it more memory"},
		"not an engine's": {[]byte(strings.Replace(string(file), "llama", "lamma", 1)), worker.Options{}, "unknown model architecture"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := open(t, test.model, test.o); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

// Several requests are computed at once, each with its own answer, and one
// whose client leaves ends soon.
func TestSeveralAtOnce(t *testing.T) {
	s := tiny(t, gguftest.Options{Context: 65536}, worker.Options{Values: map[string]string{"slots": "3", "context": "60000"}})
	long, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, _, err := ask(long, s, language.Completions, `{"prompt":"Hi","max_tokens":50000}`)
		ended <- err
	}()
	want := map[string]string{}
	for _, word := range []string{"one", "two"} {
		_, text, err := ask(t.Context(), s, language.Completions, greedy(word))
		if err != nil {
			t.Fatal(err)
		}
		want[word] = content(t, text)
	}
	var all sync.WaitGroup
	for word, text := range want {
		all.Go(func() {
			for range 5 {
				_, got, err := ask(t.Context(), s, language.Completions, greedy(word))
				if err != nil || content(t, got) != text {
					t.Errorf("%s: got %q, %v, want %q", word, got, err, text)
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-ended:
		t.Fatalf("the long request ended with %v before its client left", err)
	default:
	}
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it goes on without its client")
	}
}

func greedy(prompt string) string {
	return `{"prompt":"` + prompt + `","max_tokens":20,"temperature":0,"cache_prompt":false}`
}

func content(t *testing.T, text string) string {
	t.Helper()
	var answer struct {
		Choices []struct{ Text string }
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || len(answer.Choices) != 1 {
		t.Errorf("%v in %s", err, text)
		return ""
	}
	return answer.Choices[0].Text
}

// The end of the server is the end of the worker, and is no request's fault.
func TestServerKilled(t *testing.T) {
	lost := make(chan error, 1)
	s := tiny(t, gguftest.Options{Context: 65536}, worker.Options{Values: map[string]string{"slots": "1", "context": "60000"}, Lost: func(err error) { lost <- err }})
	failed := make(chan error, 1)
	go func() {
		_, _, err := ask(t.Context(), s, language.Completions, `{"prompt":"Hi","max_tokens":50000}`)
		failed <- err
	}()
	if err := syscall.Kill(child(t), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-lost:
		if err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("lost by %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nobody noticed")
	}
	// The request has no answer: the daemon tries it again once the worker is gone.
	select {
	case err := <-failed:
		t.Errorf("the request was answered: %v", err)
	default:
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, worker.ErrEngine) {
		t.Errorf("the request: %v", err)
	}
}

// child is the one process that this one started.
func child(t *testing.T) int {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range tasks {
		text, err := os.ReadFile(file)
		if fields := strings.Fields(string(text)); err == nil && len(fields) > 0 {
			pid, err := strconv.Atoi(fields[0])
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatal("llama-server is not there")
	return 0
}

func TestCounts(t *testing.T) {
	s := tiny(t, gguftest.Options{}, worker.Options{})
	if _, _, err := ask(t.Context(), s, language.Completions, greedy("Hi")); err != nil {
		t.Fatal(err)
	}
	var figures channel.Statistics
	for begin := time.Now(); figures.GeneratedTokens == 0; time.Sleep(10 * time.Millisecond) {
		if s.(worker.Counter).Count(&figures); time.Since(begin) > 20*time.Second {
			t.Fatalf("counted %+v", figures)
		}
	}
	if figures.GeneratedTokens != 20 || figures.PromptTokens == 0 || figures.MemoryBytes < 1<<20 {
		t.Errorf("got %+v", figures)
	}
}
