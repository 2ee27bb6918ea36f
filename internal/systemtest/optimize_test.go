package systemtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/cli"
	"oscine.dev/oscine/internal/demo"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/optimize"
	"oscine.dev/oscine/internal/serve/picture"
	"oscine.dev/oscine/internal/tensor"
)

// drawRows draws digits as rows of one array and writes them to a folder with their
// labels, as a person would who has them in NumPy.
func drawRows(t *testing.T, rows int) (dir string) {
	t.Helper()
	fonts, err := demo.GoFonts()
	if err != nil {
		t.Fatal(err)
	}
	pictures, err := demo.Draw(rows, fonts, 7)
	if err != nil {
		t.Fatal(err)
	}
	all := optimize.Tensor{Type: tensor.FP32, Shape: tensor.Shape{int64(rows), 1, 28, 28}}
	var labels strings.Builder
	for _, p := range pictures {
		data, _, err := picture.Tensor(p.Image, tensor.Spec{Name: "image", Type: tensor.FP32, Shape: tensor.Shape{-1, 1, 28, 28}})
		if err != nil {
			t.Fatal(err)
		}
		all.Data = append(all.Data, data...)
		fmt.Fprintln(&labels, p.Digit)
	}
	dir = t.TempDir()
	f, err := os.Create(filepath.Join(dir, "digits.npy"))
	if err == nil {
		err = optimize.WriteNPY(f, all)
	}
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, optimize.LabelsFile), []byte(labels.String()), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestHostedOptimize quantises a real model with the real tools on a node, serves the
// result, and has one refused. Which of two models is faster is the machine's business:
// the result is kept by --force.
func TestHostedOptimize(t *testing.T) {
	const digits = "../../models/digits/digits.onnx"
	d := newDaemon(t)
	t.Cleanup(func() { d.try("delete", "model", "small") })
	data := drawRows(t, 200)
	dir := t.TempDir()
	result := filepath.Join(dir, "small.onnx")
	static := []string{"optimize", digits, "--for", "node1", "--int8", "--calibration", data, "--output", result}

	d.refuse(static, "pack not installed", "oscine pack build optimize-onnx")
	for _, name := range []string{"onnxruntime", "optimize-onnx"} {
		d.run("pack", "build", name, "--arch", d.arch, "-o", dir, "--source", "../..")
		d.run("pack", "install", filepath.Join(dir, name+"-"+d.arch+".erofs"))
	}
	out := d.run(append(static, "--force")...)
	t.Log(out)
	for _, want := range []string{result + " created", "accuracy: ", "instead of", "of 100 rows that were held out", "speed: a run takes "} {
		if !strings.Contains(out, want) {
			t.Errorf("the command does not say %q", want)
		}
	}
	text, err := os.ReadFile(result + ".provenance.json")
	if err != nil {
		t.Fatal(err)
	}
	var r optimize.Report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if r.Method != optimize.Static || r.Options["per_channel"] != "True" || r.Accuracy.Measure != optimize.Labels || !(r.Accuracy.Result > 0.9) ||
		r.Target.Node != "node1" || !strings.HasPrefix(r.Pack, "optimize-onnx ") || !strings.HasPrefix(r.Calibration.Digest, "sha256:") || r.Speed.ResultRun <= 0 {
		t.Errorf("the provenance is %s", text)
	}
	d.run("serve", result, "--name", "small", "--cpu", "250m")
	if got := d.run("infer", "small", drawOne(t)); !strings.Contains(got, "1 ") {
		t.Errorf("the quantised model answers %s", got)
	}

	// No quantised model answers to the last bit as the original does.
	other := filepath.Join(dir, "other.onnx")
	strict := []string{"optimize", digits, "--int8=dynamic", "--calibration", data, "--accuracy", "difference", "--max-drop", "0%", "--output", other}
	d.refuse(strict, "is not optimised: its outputs differ by", "more than the 0 % that --max-drop allows", "speed: a run takes ", "--force")
	if _, err := os.Lstat(other); err == nil {
		t.Error("a refused model was written")
	}

	d.refuse([]string{"optimize", result, "--int8", "--output", other}, "the model is quantised already")
	wrong := t.TempDir()
	if err := os.WriteFile(filepath.Join(wrong, "x.npy"), npy(t, tensor.Shape{2, 3}), 0o600); err != nil {
		t.Fatal(err)
	}
	d.refuse([]string{"optimize", digits, "--int8", "--calibration", wrong, "--output", other}, "x.npy: input \"image\"", "got [2,3], want [-1,1,28,28]")
	// What is written to a layout can be served from there, its origin beside it.
	layout := "oci:" + filepath.Join(dir, "layout") + ":digits"
	if out := d.run("optimize", digits, "--int8=dynamic", "--calibration", data, "--force", "--output", layout); !strings.Contains(out, layout+" pushed") {
		t.Errorf("writing to a layout says %s", out)
	}
	d.run("delete", "model", "small")
	d.run("serve", layout, "--name", "small", "--cpu", "250m")
	if got := d.run("infer", "small", drawOne(t)); !strings.Contains(got, "1 ") {
		t.Errorf("the model out of a layout answers %s", got)
	}

	// One who interrupts it finds nothing of it, here or there.
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		env := &cli.Env{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard, Kinds: object.Kinds()}
		ended <- env.Run(ctx, []string{"--config", d.config, "optimize", digits, "--int8", "--calibration", data, "--force", "--output", other})
	}()
	d.awaitOutput("pack optimize-onnx", "ps")
	interrupt()
	if code := <-ended; code != 130 {
		t.Errorf("the interrupted command ended with %d, want 130", code)
	}
	if _, err := os.Lstat(other); err == nil {
		t.Error("an interrupted command wrote a model")
	}
	d.eventually("the workload is gone", soon, func() (string, bool) {
		got := d.run("get", string(object.KindWorkload))
		return got, !strings.Contains(got, "optimize-")
	})
	if left, _ := filepath.Glob(filepath.Join(dir, ".optimize-*")); len(left) > 0 {
		t.Errorf("files are left: %s", left)
	}
}

func npy(t *testing.T, shape tensor.Shape) []byte {
	t.Helper()
	size, err := shape.Bytes(tensor.FP32)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := optimize.WriteNPY(&b, optimize.Tensor{Type: tensor.FP32, Shape: shape, Data: make([]byte, size)}); err != nil {
		t.Fatal(err)
	}
	return []byte(b.String())
}
