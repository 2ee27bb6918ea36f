package serve_test

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/serve"
	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/fastpath"
)

// pythonClients returns a Python that has others' clients of inference, or skips
// the test. scripts/python-clients.sh installs them.
func pythonClients(t *testing.T) string {
	t.Helper()
	pins, err := os.ReadFile("testdata/python-clients.txt")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := debian.CacheDir()
	if err != nil {
		t.Skip(err)
	}
	digest := sha256.Sum256(pins)
	folder := filepath.Join(cache, "python-clients-"+hex.EncodeToString(digest[:])[:16])
	if _, err := os.Stat(filepath.Join(folder, "complete")); err != nil {
		t.Skipf("needs others' clients of inference: run scripts/python-clients.sh: %v", err)
	}
	return filepath.Join(folder, "bin", "python")
}

// newServer serves the handler as an open endpoint of a node does: HTTP/1.1, with
// the fast path, and HTTP/2 without TLS.
func newServer(handler http.Handler) *httptest.Server {
	server := httptest.NewUnstartedServer(handler)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.URL = "http://" + server.Listener.Addr().String()
	go fastpath.Serve(server.Config, server.Listener)
	return server
}

// TestForeignClients lets others' clients, unchanged, speak to the server, with
// a real model behind it.
func TestForeignClients(t *testing.T) {
	python := pythonClients(t)
	registry := core.NewRegistry()
	server := newServer(serve.NewHandler(registry, serve.Options{}))
	t.Cleanup(server.Close)
	if err := registry.Add(core.Model{Name: "digits", Platform: "onnxruntime_onnx", Instances: core.One(engine(t, digits))}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := registry.Remove("digits"); err != nil {
			t.Error(err)
		}
	})
	if err := registry.WaitReady(t.Context(), "digits"); err != nil {
		t.Fatal(err)
	}
	socket := overUnix(t, server.Config.Handler)
	for name, args := range map[string][]string{
		"triton_grpc over a Unix socket": {"testdata/triton_grpc.py", "unix:" + socket, "digits"},
		"the example":                    {"../../docs/examples/inference_socket.py", "digits", socket},
		"the example with shared memory": {"../../docs/examples/inference_memory.py", "digits", socket},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), python, args...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "answers agree") && !strings.Contains(string(out), "FP32 [1, 10] 40 bytes") && !strings.Contains(string(out), "float32 [1, 10] 40 bytes") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	scripts, err := filepath.Glob("testdata/*.py")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts of clients: %v", err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".py"), func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), python, script, server.Listener.Addr().String(), "digits").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "answers agree") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// TestForeignClientsOnDemand lets Triton's and KServe's clients, unchanged, ask a
// model that their first call loads, and that is unloaded between their calls.
func TestForeignClientsOnDemand(t *testing.T) {
	python := pythonClients(t)
	for _, script := range []string{"triton_grpc", "triton_http", "kserve_client"} {
		t.Run(script, func(t *testing.T) {
			registry := core.NewRegistry()
			server := newServer(serve.NewHandler(registry, serve.Options{}))
			t.Cleanup(server.Close)
			m := core.Model{Name: "digits", Platform: "onnxruntime_onnx", Instances: core.One(engine(t, digits)), Loading: core.Loading{OnDemand: true, Idle: time.Millisecond}}
			if err := registry.Add(m); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := registry.Remove("digits"); err != nil {
					t.Error(err)
				}
			})
			out, err := exec.CommandContext(t.Context(), python, "testdata/"+script+".py", server.Listener.Addr().String(), "digits").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "answers agree") {
				t.Errorf("%v\n%s", err, out)
			}
			if s, err := registry.Status("digits"); err != nil || s.Loads < 1 {
				t.Errorf("it was loaded %d times, %v", s.Loads, err)
			}
		})
	}
}

// overUnix serves the handler on a Unix socket, as the node does for workloads.
func overUnix(t *testing.T, handler http.Handler) (path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "oscine-") // short: a socket's path is
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "inference.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	go fastpath.Serve(server, l)
	t.Cleanup(func() {
		server.Close()
		os.RemoveAll(dir)
	})
	return path
}
