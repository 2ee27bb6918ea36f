package systemtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/optimize"
)

// TestHostedOptimizeOpenVINO makes models for OpenVINO with NNCF on a node, of one in
// ONNX and of an IR, and serves the result.
func TestHostedOptimizeOpenVINO(t *testing.T) {
	const digits = "../../models/digits/digits.onnx"
	d := newDaemon(t)
	t.Cleanup(func() { d.try("delete", "model", "small") })
	data := drawRows(t, 200)
	dir := t.TempDir()
	result, plain, weights := filepath.Join(dir, "small.xml"), filepath.Join(dir, "plain.xml"), filepath.Join(dir, "weights.xml")
	static := []string{"optimize", digits, "--to", "openvino", "--for", "node1", "--int8", "--preset", "transformer", "--calibration", data, "--output", result}

	d.refuse(static, "pack not installed", "oscine pack build optimize-openvino")
	for _, name := range []string{"openvino", "optimize-openvino"} {
		t.Log(d.run("pack", "build", name, "--arch", d.arch, "-o", dir, "--source", "../.."))
		d.run("pack", "install", filepath.Join(dir, name+"-"+d.arch+".erofs"))
	}
	out := d.run(append(static, "--force")...)
	t.Log(out)
	for _, want := range []string{result + " created", "of 100 rows that were held out", "speed: a run takes "} {
		if !strings.Contains(out, want) {
			t.Errorf("the command does not say %q", want)
		}
	}
	r := provenanceOf(t, result)
	if r.Method != optimize.Static || r.Options["preset"] != "transformer" || r.Options["overflow_fix"] == "" || !strings.HasPrefix(r.Tool, "nncf ") || !strings.HasPrefix(r.Pack, "optimize-openvino ") ||
		r.Accuracy.Measure != optimize.Labels || !(r.Accuracy.Result > 0.9) || r.Speed.ResultRun <= 0 || r.Result.SizeBytes >= r.Original.SizeBytes+40<<10 {
		t.Errorf("the provenance is %+v", r)
	}
	d.run("serve", result, "--name", "small", "--cpu", "250m")
	if got := d.run("infer", "small", drawOne(t)); !strings.Contains(got, "1 ") {
		t.Errorf("the quantised model answers %s", got)
	}
	d.refuse([]string{"optimize", result, "--int8", "--output", weights}, "the model is quantised already")

	// Of ONNX an IR, of that one with small weights; no model in eight bits answers to
	// the last bit as the original does.
	d.run("optimize", digits, "--to", "openvino", "--calibration", data, "--output", plain, "--force")
	if r := provenanceOf(t, plain); r.Method != optimize.Graph || r.Accuracy.Drop > 0.005 {
		t.Errorf("the provenance is %+v", r)
	}
	d.refuse([]string{"optimize", plain, "--output", weights}, "give --int8")
	d.refuse([]string{"optimize", plain, "--int8=weights", "--calibration", data, "--accuracy", "difference", "--max-drop", "0%", "--output", weights},
		"is not optimised: its outputs differ by", "more than the 0 % that --max-drop allows")
	for _, file := range []string{weights, filepath.Join(dir, "weights.bin")} {
		if _, err := os.Lstat(file); err == nil {
			t.Errorf("of a refused model %s was written", file)
		}
	}
	d.run("optimize", plain, "--int8=weights", "--calibration", data, "--output", weights, "--force")
	if r := provenanceOf(t, weights); r.Method != optimize.Weights || !(r.Accuracy.Result > 0.9) {
		t.Errorf("the provenance is %+v", r)
	}
	d.refuse([]string{"optimize", plain, "--int8=weights", "--output", weights}, "is there already")
}
