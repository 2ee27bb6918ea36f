package serve_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"oscine.dev/oscine/internal/samples"
	"oscine.dev/oscine/internal/serve"
	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/servetest"
)

// tokensOfOne is how many tokens each client asks for.
const tokensOfOne = 64

// BenchmarkTokens compares the tokens of one CPU-second that reach clients
// through HTTP, core, shared memory and the worker with those of the same
// llama-server alone, over its own socket. Both take turns in one run; clients
// count on both sides. The goal is a ratio of 0.97.
func BenchmarkTokens(b *testing.B) {
	model, err := samples.SmolLM2(b.Context(), false, nil)
	if err != nil {
		b.Skip(err)
	}
	starter := servetest.Llama(b, model, "m", map[string]string{"slots": "4", "context": "512"})
	registry := core.NewRegistry()
	server := newServer(serve.NewHandler(registry, serve.Options{}))
	defer server.Close()
	if err := registry.Add(core.Model{Name: "m", Instances: core.One(starter)}); err != nil {
		b.Fatal(err)
	}
	defer registry.Remove("m")
	if err := registry.WaitReady(b.Context(), "m"); err != nil {
		b.Fatal(err)
	}
	sockets, err := filepath.Glob(filepath.Join(starter.Command[len(starter.Command)-1], "*", "s.sock"))
	if err != nil || len(sockets) != 1 {
		b.Fatalf("sockets of llama-server: %v, %v", sockets, err)
	}
	alone := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", sockets[0])
	}}}
	worker := workerPID(b, starter)
	pids := []int{os.Getpid(), worker, childOf(b, worker)}
	used := func() (total time.Duration) {
		for _, pid := range pids {
			total += cpuTime(b, pid)
		}
		return total
	}
	for _, clients := range []int{1, 4} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			round := func(c *http.Client, url string) time.Duration {
				before := used()
				var all sync.WaitGroup
				for range clients {
					all.Go(func() { generate(b, c, url) })
				}
				all.Wait()
				return used() - before
			}
			round(alone, "http://llama") // fills the caches of prompts
			round(http.DefaultClient, server.URL)
			var bare, whole time.Duration
			for i := 0; b.Loop(); i++ {
				if i%2 == 0 { // neither is always first
					bare += round(alone, "http://llama")
					whole += round(http.DefaultClient, server.URL)
				} else {
					whole += round(http.DefaultClient, server.URL)
					bare += round(alone, "http://llama")
				}
			}
			tokens := float64(b.N * clients * tokensOfOne)
			b.ReportMetric(tokens/bare.Seconds(), "alone-tokens/cpu-s")
			b.ReportMetric(tokens/whole.Seconds(), "tokens/cpu-s")
			b.ReportMetric(bare.Seconds()/whole.Seconds(), "ratio")
		})
	}
}

// generate asks for a stream of tokens and reads it.
func generate(b *testing.B, c *http.Client, url string) {
	body := fmt.Sprintf(`{"model":"m","prompt":"The weather","max_tokens":%d,"temperature":0,"ignore_eos":true,"stream":true}`, tokensOfOne)
	q, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url+"/v1/completions", strings.NewReader(body))
	if err != nil {
		b.Error(err)
		return
	}
	resp, err := c.Do(q)
	if err != nil {
		b.Error(err)
		return
	}
	defer resp.Body.Close()
	events := 0
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadSlice('\n')
		if bytes.HasPrefix(line, []byte("data: {")) {
			events++
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			b.Error(err)
			return
		}
	}
	if resp.StatusCode != http.StatusOK || events < tokensOfOne {
		b.Errorf("status %d, %d events, want %d", resp.StatusCode, events, tokensOfOne)
	}
}

// childOf is the one child of a process.
func childOf(t testing.TB, pid int) int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if fields := strings.Fields(string(text)); err == nil && len(fields) > 0 {
			child, err := strconv.Atoi(fields[0])
			if err != nil {
				t.Fatal(err)
			}
			return child
		}
	}
	t.Fatalf("process %d has no child", pid)
	return 0
}
