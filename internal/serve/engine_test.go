package serve_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve"
	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/engine/onnx"
	"oscine.dev/oscine/internal/serve/servetest"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// digits is the committed model of the demo: [batch,1,28,28] → [batch,10].
const digits = "../../models/digits/digits.onnx"

// engine returns a Starter of the real worker with the real ONNX Runtime, or
// skips the test.
func engine(t testing.TB, model string) *servetest.Exec {
	t.Helper()
	library, err := pack.Libraries(t.Context(), "onnxruntime", runtime.GOARCH, false, os.Stderr)
	if err != nil {
		t.Skip(err)
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	worker := filepath.Join(dir, "oscine-engine")
	cmd := exec.CommandContext(t.Context(), goTool, "build", "-o", worker, "oscine.dev/oscine/cmd/oscine-engine")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the worker: %v\n%s", err, out)
	}
	return &servetest.Exec{Command: []string{worker, "onnxruntime", "--library", filepath.Join(library, onnx.Name)}, Model: model, Threads: 1, Dir: filepath.Join(dir, "s"), Log: os.Stderr}
}

// serveEngine serves a model file by the real worker and waits for it.
func serveEngine(t testing.TB, model string) (*core.Registry, *httptest.Server, *servetest.Exec) {
	t.Helper()
	starter, registry := engine(t, model), core.NewRegistry()
	server := newServer(serve.NewHandler(registry, serve.Options{}))
	if err := registry.Add(core.Model{Name: "m", Instances: core.One(starter)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Close()
		if err := registry.Remove("m"); err != nil {
			t.Error(err)
		}
	})
	return registry, server, starter
}

func TestEngine(t *testing.T) {
	registry, server, _ := serveEngine(t, digits)
	if err := registry.WaitReady(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	s, err := registry.Status("m")
	if err != nil || !strings.HasPrefix(s.Engine, "onnxruntime ") || s.Inputs[0].Shape.String() != "[-1,1,28,28]" {
		t.Errorf("status %+v, %v", s, err)
	}
	data := strings.TrimSuffix(strings.Repeat("0.5,", 2*784), ",")
	status, _, got := doRequest(t, server.URL, "POST", "/v2/models/m/infer", nil,
		`{"inputs":[{"name":"image","shape":[2,1,28,28],"datatype":"FP32","data":[`+data+`]}]}`)
	var answer struct {
		Outputs []struct {
			Shape tensor.Shape
			Data  []float64
		}
	}
	if err := json.Unmarshal([]byte(got), &answer); err != nil || status != 200 || answer.Outputs[0].Shape.String() != "[2,10]" {
		t.Fatalf("got %d %s", status, got)
	}
	// Both rows are the same picture.
	for i, v := range answer.Outputs[0].Data[:10] {
		if math.Abs(v-answer.Outputs[0].Data[10+i]) > 1e-4 {
			t.Errorf("score %d differs between equal rows: %g and %g", i, v, answer.Outputs[0].Data[10+i])
		}
	}
}

func TestEngineRefusesModel(t *testing.T) {
	file := filepath.Join(t.TempDir(), "text.onnx")
	if err := os.WriteFile(file, []byte("no model"), 0o600); err != nil {
		t.Fatal(err)
	}
	registry, _, _ := serveEngine(t, file)
	err := registry.WaitReady(t.Context(), "m")
	if !errors.Is(err, core.ErrNotReady) || !strings.Contains(err.Error(), "not a model that ONNX Runtime") {
		t.Errorf("got %v", err)
	}
}

// workerPID finds the process of the one worker that runs.
func workerPID(t testing.TB, starter *servetest.Exec) int {
	t.Helper()
	tasks, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range tasks {
		if text, err := os.ReadFile(file); err == nil && bytes.HasPrefix(text, []byte(starter.Command[0])) {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
				return pid
			}
		}
	}
	t.Fatal("the worker's process is not there")
	return 0
}

// cpuTime is the CPU time that all threads of a process have used.
func cpuTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		t.Fatal(err)
	}
	var total time.Duration
	for _, file := range tasks {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		total += time.Duration(ns)
	}
	return total
}

func digitsBody(binaryTensors bool) (http.Header, []byte) {
	raw := make([]byte, 4*784)
	numbers := make([]string, 784)
	for i := range numbers {
		v := float32(i%97) / 97
		binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(v))
		numbers[i] = strconv.FormatFloat(float64(v), 'g', -1, 32)
	}
	if binaryTensors {
		head := `{"inputs":[{"name":"image","shape":[1,1,28,28],"datatype":"FP32","parameters":{"binary_data_size":3136}}],"parameters":{"binary_data_output":true}}`
		return http.Header{"Inference-Header-Content-Length": {strconv.Itoa(len(head))}}, append([]byte(head), raw...)
	}
	return nil, []byte(`{"inputs":[{"name":"image","shape":[1,1,28,28],"datatype":"FP32","data":[` + strings.Join(numbers, ",") + `]}]}`)
}

// discard is a ResponseWriter that keeps only the status.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }

func (d *discard) SetReadDeadline(time.Time) error  { return nil }
func (d *discard) SetWriteDeadline(time.Time) error { return nil }
func (d *discard) Flush()                           {}

// BenchmarkDigits compares one inference of the demo's model by a bare call of
// ONNX Runtime with the same inference through the handler, shared memory and
// the worker, and with the whole way over HTTP. cpu-µs/op is the CPU time of
// daemon and worker together; for HTTP that includes the client.
func BenchmarkDigits(b *testing.B) {
	library, err := pack.Libraries(b.Context(), "onnxruntime", runtime.GOARCH, false, os.Stderr)
	if err != nil {
		b.Skip(err)
	}
	b.Run("bare", func(b *testing.B) { benchmarkBare(b, filepath.Join(library, onnx.Name)) })
	registry, server, starter := serveEngine(b, digits)
	if err := registry.WaitReady(b.Context(), "m"); err != nil {
		b.Fatal(err)
	}
	worker := workerPID(b, starter)
	measure := func(b *testing.B, one func()) {
		b.ReportAllocs()
		before := cpuTime(b, os.Getpid()) + cpuTime(b, worker)
		for b.Loop() {
			one()
		}
		used := cpuTime(b, os.Getpid()) + cpuTime(b, worker) - before
		b.ReportMetric(float64(used.Nanoseconds())/1000/float64(b.N), "cpu-µs/op")
	}
	for _, kind := range []string{"json", "binary"} {
		header, body := digitsBody(kind == "binary")
		handler := server.Config.Handler
		b.Run("handler-"+kind, func(b *testing.B) {
			measure(b, func() {
				r := httptest.NewRequest(http.MethodPost, "/v2/models/m/infer", bytes.NewReader(body))
				for k, v := range header {
					r.Header[k] = v
				}
				w := &discard{header: http.Header{}, status: 200}
				if handler.ServeHTTP(w, r); w.status != 200 {
					b.Fatalf("status %d", w.status)
				}
			})
		})
		b.Run("http-"+kind, func(b *testing.B) {
			measure(b, func() {
				r, err := http.NewRequest(http.MethodPost, server.URL+"/v2/models/m/infer", bytes.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				for k, v := range header {
					r.Header[k] = v
				}
				resp, err := http.DefaultClient.Do(r)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
					b.Fatalf("status %d, %v", resp.StatusCode, err)
				}
				resp.Body.Close()
			})
		})
	}
	benchmarkGRPC(b, server, measure)
	b.Run("handler-binary-64-clients", func(b *testing.B) {
		header, body := digitsBody(true)
		before := cpuTime(b, os.Getpid()) + cpuTime(b, worker)
		b.SetParallelism(64 / runtime.GOMAXPROCS(0))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				r := httptest.NewRequest(http.MethodPost, "/v2/models/m/infer", bytes.NewReader(body))
				for k, v := range header {
					r.Header[k] = v
				}
				w := &discard{header: http.Header{}, status: 200}
				if server.Config.Handler.ServeHTTP(w, r); w.status != 200 {
					b.Errorf("status %d", w.status)
				}
			}
		})
		used := cpuTime(b, os.Getpid()) + cpuTime(b, worker) - before
		b.ReportMetric(float64(used.Nanoseconds())/1000/float64(b.N), "cpu-µs/op")
	})
}

func benchmarkBare(b *testing.B, library string) {
	l, err := onnx.Load(library)
	if err != nil {
		b.Fatal(err)
	}
	s, err := l.Open(digits, 1)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	_, body := digitsBody(true)
	meta, memory := s.Metadata(), make([]byte, 64<<10)
	in := []worker.Tensor{{Shape: tensor.Shape{1, 1, 28, 28}, Data: body[len(body)-3136:]}}
	before := cpuTime(b, os.Getpid())
	for b.Loop() {
		if err := s.Run(b.Context(), in, worker.NewOutput(&meta, memory)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpuTime(b, os.Getpid())-before).Nanoseconds())/1000/float64(b.N), "cpu-µs/op")
}

func doRequest(t *testing.T, url, method, path string, header http.Header, body string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(got)
}
