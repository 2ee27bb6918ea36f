package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/bench/serving"
	"oscine.dev/oscine/internal/gguf"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/oip"
	"oscine.dev/oscine/internal/tensor"
)

// A server of the protocol that knows JSON alone, as the specification allows.
func plainServer(t *testing.T) string {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"name":"plain","extensions":[]}`) })
	mux.HandleFunc("GET /v2/models/m", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"name":"m","platform":"plain","inputs":[{"name":"x","datatype":"FP32","shape":[-1,-1]}],"outputs":[]}`)
	})
	mux.HandleFunc("POST /v2/models/m/infer", func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Inputs []struct{ Shape []int } }
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || len(q.Inputs) != 1 || q.Inputs[0].Shape[1] != 4 {
			w.WriteHeader(400)
			io.WriteString(w, `{"error":"x needs 4 columns"}`)
			return
		}
		time.Sleep(2 * time.Millisecond) // so that a client's rate has an end
		io.WriteString(w, `{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":[1]}]}`)
	})
	mux.HandleFunc("POST /v2/models/m/versions/2/infer", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"model_version":"2"}`)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(404)
		io.WriteString(w, `{"error":"no such model"}`)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

func runCommand(ctx context.Context, args ...string) (status int, out, errOut string) {
	var stdout, stderr bytes.Buffer
	env := &Env{In: strings.NewReader(""), Out: &stdout, Err: &stderr, Kinds: object.Kinds()}
	return env.Run(ctx, args), stdout.String(), stderr.String()
}

func TestBenchServe(t *testing.T) {
	address := plainServer(t)
	dir := t.TempDir()
	request, page := filepath.Join(dir, "request.json"), filepath.Join(dir, "report.html")
	if err := os.WriteFile(request, []byte(`{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"m", "--shape", "x:1,4", "--count", "50", "--warmup", "0", "--html", page}, 0, "50 answered, 0 failed"},
		{[]string{"m", "--input", request, "--rate", "1000", "--count", "50", "--warmup", "10ms"}, 0, "open loop, 1000 requests/s"},
		{[]string{"m", "--shape", "x:2,4", "--count", "5", "-o", "json"}, 0, `"encoding": "json"`},
		{[]string{"m", "--shape", "x:2,4", "--count", "5", "-o", "yaml"}, 0, "answered: 5"},
		{[]string{"m", "--count", "5"}, 2, "refuses generated inputs: x needs 4 columns: choose others by --shape"},
		{[]string{"m", "--shape", "y:2,4"}, 2, `model m has no input "y": it has x FP32[-1,-1]`},
		{[]string{"m", "--shape", "x"}, 2, "write NAME:1,3,224,224"},
		{[]string{"other"}, 3, "no such model: see oscine get models"},
	} {
		status, out, errOut := runCommand(t.Context(), append([]string{"bench", "serve", "--url", address}, c.args...)...)
		if status != c.status || !strings.Contains(out+errOut, c.want) {
			t.Errorf("%q: exit status %d\n%s%s", c.args, status, out, errOut)
		}
	}
	if html, err := os.ReadFile(page); err != nil || !bytes.Contains(html, []byte("<svg")) {
		t.Errorf("the page: %.100s, %v", html, err)
	}
}

func TestBenchServeScenarios(t *testing.T) {
	address := plainServer(t)
	logs := filepath.Join(t.TempDir(), "logs")
	const rate, peak = "\n  \"rate\":", "\"peakRate\":"
	const anyStatus = -1 // chance decides whether so few queries at the peak are enough
	for _, c := range []struct {
		args   []string
		status int
		want   string
		not    string // "": nothing
	}{
		{[]string{"--scenario", "single-stream", "--count", "70", "--duration", "10ms", "--logs", logs}, 0, "single-stream: VALID", ""},
		{[]string{"--scenario", "single-stream", "--count", "10", "--duration", "1ms"}, 1, "single-stream: INVALID", ""},
		{[]string{"--scenario", "multi-stream", "--count", "100", "--duration", "10ms"}, 1, "the run is not valid: the report says why", ""},
		{[]string{"--scenario", "server", "--rate", "1000", "--count", "500", "--duration", "10ms", "--latency", "1m"}, 0, "server: VALID", ""},
		{[]string{"--scenario", "server", "--rate", "1000", "--count", "500", "--duration", "10ms", "--latency", "1ns"}, 1, "lower the rate", ""},
		{[]string{"--scenario", "offline", "--rate", "100", "--count", "300", "--duration", "1ms", "-o", "json"}, 0, `"valid": true`, rate},
		{[]string{"--scenario", "server", "--mode", "find-peak", "--rate", "1000", "--count", "500", "--duration", "10ms", "--latency", "1ns"}, 1, "begin at a lower rate", ""},
		{[]string{"--scenario", "server", "--mode", "find-peak", "--rate", "50", "--clients", "1", "--count", "100", "--duration", "10ms", "--latency", "60ms", "--percentile", "0.5", "-o", "json"}, anyStatus, peak, ""},
		{[]string{"--scenario", "server", "--rate", "1000", "--count", "500", "--duration", "10ms", "--latency", "1m", "-o", "json"}, 0, rate, peak},
		{[]string{"--scenario", "server", "--mode", "accuracy", "--rate", "1000", "--logs", logs}, 0, "closed loop", "open loop"},
		{[]string{"--scenario", "server", "--mode", "accuracy", "--rate", "1000", "--logs", logs, "-o", "json"}, 0, `"answered": 16`, rate},
	} {
		status, out, errOut := runCommand(t.Context(), append([]string{"bench", "serve", "m", "--shape", "x:1,4", "--warmup", "0", "--url", address}, c.args...)...)
		if c.status != anyStatus && status != c.status || !strings.Contains(out+errOut, c.want) || c.not != "" && strings.Contains(out, c.not) {
			t.Errorf("%q: exit status %d\n%s%s", c.args, status, out, errOut)
		}
	}
	for _, name := range []string{"mlperf_log_summary.txt", "mlperf_log_detail.txt", "mlperf_log_accuracy.json"} {
		if _, err := os.Stat(filepath.Join(logs, name)); err != nil {
			t.Error(err)
		}
	}
}

// An interrupt ends the measurement with the report of what ran.
func TestBenchServeInterrupted(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	status, out, errOut := runCommand(ctx, "bench", "serve", "m", "--url", plainServer(t), "--shape", "x:1,4", "--warmup", "0", "--duration", "1h")
	if status != 0 || !strings.Contains(out, "interrupted") || strings.Contains(out, " 0 answered") {
		t.Errorf("exit status %d\n%s%s", status, out, errOut)
	}
}

// Rows are those that are sent, whatever --batch says.
func TestRowsOfRequests(t *testing.T) {
	model := &oip.Model{Inputs: []tensor.Spec{
		{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{-1, 4}}, {Name: "y", Type: tensor.FP32, Shape: tensor.Shape{2}}, {Name: "z", Type: tensor.FP32, Shape: tensor.Shape{-1}},
	}}
	for _, test := range []struct {
		shapes map[string]tensor.Shape
		want   int
	}{
		{nil, 8},
		{map[string]tensor.Shape{"x": {1, 4}, "z": {1}}, 1},
		{map[string]tensor.Shape{"x": {1, 4}}, 0},
	} {
		inputs, err := serving.Inputs(model, serving.InputOptions{Batch: 8, Shapes: test.shapes})
		if err != nil {
			t.Fatal(err)
		}
		if got := rows(model, inputs); got != test.want {
			t.Errorf("%v: got %d rows, want %d", test.shapes, got, test.want)
		}
	}
	model.Inputs = model.Inputs[1:2]
	if inputs, err := serving.Inputs(model, serving.InputOptions{Batch: 8}); err != nil || rows(model, inputs) != 1 {
		t.Errorf("fixed shapes: got %d rows, %v", rows(model, inputs), err)
	}
}

// A model with state refuses generated requests: the hint is the flag that helps.
func TestBenchServeOfState(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			io.WriteString(w, `{"name":"m","inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}`)
			return
		}
		w.WriteHeader(400)
		io.WriteString(w, `{"error":"m keeps state: the request needs a sequence_id that is not 0 or empty"}`)
	}))
	defer s.Close()
	if status, _, errOut := runCommand(t.Context(), "bench", "serve", "m", "--url", s.URL); status != 2 || !strings.Contains(errOut, "sequence_end by --input FILE") || strings.Contains(errOut, "--shape") {
		t.Errorf("exit status %d, %s", status, errOut)
	}
}

// What serve prints can be typed: the name by which clients ask, and the command that
// the model's inputs fit.
func TestServeReports(t *testing.T) {
	input := ""
	n := &fakeNode{answers: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/models/digits" {
			w.WriteHeader(404)
			return
		}
		io.WriteString(w, `{"name":"digits","inputs":[{"name":"x","datatype":"FP32","shape":`+input+`}]}`)
	})}
	n.serve(t)
	for _, test := range []struct {
		o     serveOptions
		phase object.Phase
		input string
		want  []string
	}{
		// One that is not loaded is not asked, which would load it.
		{serveOptions{name: "digits"}, object.Idle, "[1,1,28,28]", []string{"is loaded by its next request\n", "try: oscine infer digits -f REQUEST.json\n"}},
		{serveOptions{name: "d3", servedAs: "digits"}, object.Running, "[1,1,28,28]", []string{"/v2/models/digits/infer\n", "try: oscine infer digits PICTURE.png\n"}},
		{serveOptions{name: "digits"}, object.Running, "[-1,4]", []string{"/v2/models/digits/infer\n", "try: oscine infer digits -f REQUEST.json\n"}},
		{serveOptions{name: "d3", servedAs: "tiny", task: gguf.Generate}, object.Running, "", []string{"/v1\n", "try: oscine chat tiny\n"}},
		{serveOptions{name: "d3", servedAs: "tiny", task: gguf.Embed}, object.Running, "", []string{"/v1/embeddings, model tiny\n"}},
	} {
		input = test.input
		var out bytes.Buffer
		env := &Env{Out: &out, Err: io.Discard, ConfigPath: filepath.Join(n.dir, "config"), Kinds: object.Kinds()}
		if err := test.o.report(t.Context(), env, &object.ModelStatus{Observed: object.Observed{Phase: test.phase}}); err != nil {
			t.Fatal(err)
		}
		for _, want := range test.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%+v: %q is not in\n%s", test.o, want, out.String())
			}
		}
		if test.o.task == gguf.Embed && strings.Contains(out.String(), "oscine chat") {
			t.Errorf("an embedding model is no partner for chat:\n%s", out.String())
		}
	}
}

// A version is asked for by name.
func TestVersionIsAskedFor(t *testing.T) {
	address, request := plainServer(t), filepath.Join(t.TempDir(), "request.json")
	if err := os.WriteFile(request, []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, out, errOut := runCommand(t.Context(), "infer", "m", "--version", "2", "-f", request, "--url", address); status != 0 || !strings.Contains(out, `"model_version":"2"`) {
		t.Errorf("infer: exit status %d, %s%s", status, out, errOut)
	}
	for _, args := range [][]string{{"infer", "m", "-f", request}, {"bench", "serve", "m"}} {
		if status, _, errOut := runCommand(t.Context(), append(args, "--version", "9", "--url", address)...); status != exitNotFound || !strings.Contains(errOut, "no such model") {
			t.Errorf("%q: exit status %d, %s", args, status, errOut)
		}
	}
}
