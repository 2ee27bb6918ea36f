package systemtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestHostedImport serves a Triton repository: a model in two versions and an
// ensemble of it, which clients ask under Triton's names.
func TestHostedImport(t *testing.T) {
	d := newDaemon(t)
	n := d.testNode
	model, err := os.ReadFile(digits)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := writing(t, dir)
	config := `platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "image" data_type: TYPE_FP32 dims: [ 1, 28, 28 ] } ]
output [ { name: "scores" data_type: TYPE_FP32 dims: [ 10 ] } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
`
	write("Digits_CNN/config.pbtxt", config+"version_policy { all { } }\ninstance_group { count: 33 kind: KIND_CPU }\n")
	write("Digits_CNN/1/model.onnx", string(model))
	write("Digits_CNN/2/model.onnx", string(model))
	write("chances/config.pbtxt", `platform: "ensemble"
input [ { name: "picture" data_type: TYPE_FP32 dims: [ -1, 1, 28, 28 ] } ]
output [ { name: "chances" data_type: TYPE_FP32 dims: [ -1, 10 ] } ]
ensemble_scheduling {
  step [ { model_name: "Digits_CNN" model_version: -1 input_map { key: "image" value: "picture" } output_map { key: "scores" value: "chances" } } ]
}
`)
	write("chances/1/.keep", "")
	n.run("pack", "install", onnxruntimePack(n))
	n.refuse([]string{"model", "import", dir}, "model Digits_CNN: instance_group.count is not supported", "--ignore instance_group.count")
	out := n.run("model", "import", dir, "--ignore", "instance_group.count")
	for _, want := range []string{"model/digits-cnn-v1 is served as Digits_CNN version 1 by onnxruntime", "model/digits-cnn-v2 is served as Digits_CNN version 2", "model/chances is served as chances version 1 by its steps"} {
		if !strings.Contains(out, want) {
			t.Errorf("import lacks %q:\n%s", want, out)
		}
	}
	picture := drawOne(t)
	for _, name := range []string{"Digits_CNN", "chances"} {
		if got := n.run("infer", name, picture); !strings.Contains(got, "1 ") {
			t.Errorf("%s: the picture of a one reads as:\n%s", name, got)
		}
	}
	// Clients send and get other shapes than the model has.
	write("flat/config.pbtxt", `input { name: "image" data_type: TYPE_FP32 dims: [ 784 ] reshape { shape: [ 1, 1, 28, 28 ] } }
output { name: "scores" data_type: TYPE_FP32 dims: [ 2, 5 ] reshape { shape: [ 1, 10 ] } }
`)
	write("flat/1/model.onnx", string(model))
	n.run("model", "import", filepath.Join(dir, "flat"))
	write("request.json", `{"inputs":[{"name":"image","shape":[784],"datatype":"FP32","data":[`+strings.Repeat("0,", 783)+`0]}]}`)
	if got := strings.ReplaceAll(n.run("infer", "flat", "-f", filepath.Join(dir, "request.json")), " ", ""); !strings.Contains(got, "[2,5]") {
		t.Errorf("a model with other shapes answers\n%s", got)
	}
	if err := os.RemoveAll(filepath.Join(dir, "flat")); err != nil {
		t.Fatal(err)
	}
	// One version by itself, and once more.
	write("Digits_CNN/config.pbtxt", config)
	n.run("delete", "model", "digits-cnn-v1", "digits-cnn-v2")
	for range 2 {
		if out := n.run("model", "import", filepath.Join(dir, "Digits_CNN")); !strings.Contains(out, "model/digits-cnn is served as Digits_CNN version 2") {
			t.Errorf("import of one model:\n%s", out)
		}
	}
}
