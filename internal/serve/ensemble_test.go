package serve_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/samples/synthetic"
	"oscine.dev/oscine/internal/serve"
	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/ensemble"
	"oscine.dev/oscine/internal/tensor"
)

// softmax writes an ONNX model of one operator: y = Softmax(x) over [batch,10].
func softmax(t *testing.T) (file string) {
	t.Helper()
	m := synthetic.New(10)
	m.Operator("Softmax")
	file = filepath.Join(t.TempDir(), "softmax.onnx")
	if err := os.WriteFile(file, m.Bytes(10), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Two real models in one request give what they give one after the other.
func TestEnsembleOfRealModels(t *testing.T) {
	registry := core.NewRegistry()
	server := newServer(serve.NewHandler(registry, serve.Options{}))
	t.Cleanup(server.Close)
	for _, m := range []core.Model{
		{Name: "digits", Instances: core.One(engine(t, digits))}, {Name: "softmax", Instances: core.One(engine(t, softmax(t)))},
		{Name: "chances", Ensemble: &core.Ensemble{Steps: []ensemble.Step{
			{Model: "softmax", Inputs: map[string]string{"x": "scores"}, Outputs: map[string]string{"y": "chances"}},
			{Model: "digits", Inputs: map[string]string{"image": "picture"}, Outputs: map[string]string{"scores": "scores"}},
		}}},
	} {
		if err := registry.Add(m); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := registry.Remove(m.Name); err != nil {
				t.Error(err)
			}
		})
	}
	if err := registry.WaitReady(t.Context(), "chances"); err != nil {
		t.Fatal(err)
	}
	_, body := digitsBody(true)
	picture := core.Bytes(body[len(body)-3136:])
	ask := func(model, input string, shape tensor.Shape, data []byte) []byte {
		t.Helper()
		response, err := registry.Infer(t.Context(), core.Request{Model: model, Inputs: []core.Input{{Name: input, Type: tensor.FP32, Shape: shape, Data: core.Bytes(data)}}})
		if err != nil || len(response.Outputs) != 1 || response.Outputs[0].Shape.String() != "[1,10]" {
			t.Fatalf("%s: %+v, %v", model, response, err)
		}
		return response.Outputs[0].Data
	}
	scores := ask("digits", "image", tensor.Shape{1, 1, 28, 28}, picture)
	want := ask("softmax", "x", tensor.Shape{1, 10}, scores)
	got := ask("chances", "picture", tensor.Shape{1, 1, 28, 28}, picture)
	if !bytes.Equal(got, want) || bytes.Equal(got, scores) {
		t.Errorf("got %v, want %v", got, want)
	}
	sum := 0.0
	for at := 0; at < len(got); at += 4 {
		sum += float64(math.Float32frombits(binary.LittleEndian.Uint32(got[at:])))
	}
	if math.Abs(sum-1) > 1e-5 {
		t.Errorf("chances add up to %g", sum)
	}
	for path, part := range map[string]string{
		"/v2/models/chances":        `{"name":"chances","versions":["1"],"platform":"ensemble","inputs":[{"name":"picture","datatype":"FP32","shape":[-1,1,28,28]}],"outputs":[{"name":"chances","datatype":"FP32","shape":[-1,10]}]}`,
		"/v2/models/chances/config": `"ensemble_scheduling":{"step":[{"model_name":"softmax","model_version":-1,"input_map":{"x":"scores"},"output_map":{"y":"chances"}},`,
	} {
		if status, _, text := doRequest(t, server.URL, "GET", path, nil, ""); status != 200 || !strings.Contains(text, part) {
			t.Errorf("%s: got %d %s", path, status, text)
		}
	}
	t.Run("Triton's client", func(t *testing.T) {
		out, err := exec.CommandContext(t.Context(), pythonClients(t), "testdata/ensemble/triton.py", server.Listener.Addr().String()).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "answers agree") {
			t.Errorf("%v\n%s", err, out)
		}
	})
}
