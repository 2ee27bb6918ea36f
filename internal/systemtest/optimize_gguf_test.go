package systemtest

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/gguf"
	"oscine.dev/oscine/internal/gguf/gguftest"
	"oscine.dev/oscine/internal/optimize"
	"oscine.dev/oscine/internal/samples"
)

// TestHostedOptimizeGGUF quantises language models with llama.cpp's own tools on a
// node. The small one has random weights: what is lost, and which is faster, says
// little, so results are kept by --force.
func TestHostedOptimizeGGUF(t *testing.T) {
	d := newDaemon(t)
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	model := write("talk.gguf", gguftest.Tiny(gguftest.Options{}))
	text := write("text.txt", []byte(strings.Repeat("bala dona\nfiri guso\nkeve lola\nmina nuri\n", 150)))
	result := filepath.Join(dir, "talk-Q8_0.gguf")
	quantize := func(file, to string, more ...string) []string {
		return append([]string{"optimize", file, "--for", "node1", "--output", to}, more...)
	}

	d.refuse(quantize(model, result), "pack not installed", "oscine pack build optimize-gguf")
	d.run("pack", "build", "optimize-gguf", "--arch", d.arch, "-o", dir, "--source", "../..")
	d.run("pack", "install", filepath.Join(dir, "optimize-gguf-"+d.arch+".erofs"))
	d.run("pack", "install", llamaPack(d.testNode))

	out := d.run(quantize(model, result, "--type", "q8_0", "--calibration", text, "--imatrix", "--force")...)
	t.Log(out)
	for _, want := range []string{result + " created", "perplexity ", " instead of ", "the same next token for ", "tokens that were held out", "tokens per second instead of ", "size: "} {
		if !strings.Contains(out, want) {
			t.Errorf("the command does not say %q", want)
		}
	}
	r := provenanceOf(t, result)
	a := &r.Accuracy
	if r.Method != optimize.Quantize || r.Options[optimize.OptionType] != "Q8_0" || r.Options[optimize.OptionImatrix] != "true" || !strings.HasPrefix(r.Tool, "llama-quantize") || !strings.HasPrefix(r.Pack, "optimize-gguf ") {
		t.Errorf("the provenance is %+v", r)
	}
	if a.Measure != optimize.Perplexity || !(a.Original > 1 && a.Result > 1 && a.SameTop > 0.5) || a.Inputs < 100 || r.Calibration.HeldOut != a.Inputs || r.Speed.ResultRun <= 0 || r.Speed.OriginalPrompt <= 0 || r.MaxDrop != 0.05 {
		t.Errorf("the provenance says %+v, %+v, %+v", a, r.Calibration, r.Speed)
	}
	if h, err := gguf.Open(result); err != nil || !h.Quantized {
		t.Errorf("the result is %+v, %v", h, err)
	}
	t.Cleanup(func() { d.try("delete", "model", "talk") })
	d.run("serve", result, "--name", "talk", "--cpu", "200m")
	if got := d.run("chat", "talk", "Good day", "--max-tokens", "8"); len(strings.Fields(got)) == 0 {
		t.Error("the quantised model says nothing")
	}

	other := filepath.Join(dir, "other.gguf")
	d.refuse(quantize(result, other), "is quantised already", "--allow-requantize")
	d.refuse(quantize(model, other, "--calibration", write("short.txt", []byte("bala"))), "the text is too short", "at least 1024")
	// No model in four bits expects after each token what the original does.
	d.refuse(quantize(model, other, "--type", "Q4_0", "--calibration", text, "--accuracy", "top-1", "--max-drop", "0%"),
		"is not optimised: another next token is the likeliest for ", "more than the 0 % that --max-drop allows", "tokens per second", "--force")
	if _, err := os.Lstat(other); err == nil {
		t.Error("a refused model was written")
	}

	d.run("delete", "model", "talk")
	smol, err := samples.SmolLM2(t.Context(), false, nil)
	if errors.Is(err, os.ErrNotExist) || runtime.GOARCH != d.arch {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	out = d.run(quantize(smol, other, "--allow-requantize", "--type", "Q4_0", "--force")...)
	t.Log(out)
	if r := provenanceOf(t, other); r.Accuracy.Measure != optimize.Top1 || !r.Accuracy.MadeUp || !(r.Accuracy.SameTop > 0.7) || r.Options[optimize.OptionAllowRequantize] != "true" {
		t.Errorf("of a text that the original wrote itself: %+v", r)
	}
}

// provenanceOf reads what lies beside an optimised model.
func provenanceOf(t *testing.T, result string) *optimize.Report {
	t.Helper()
	text, err := os.ReadFile(result + ".provenance.json")
	if err != nil {
		t.Fatal(err)
	}
	r := new(optimize.Report)
	if err := json.Unmarshal(text, r); err != nil {
		t.Fatal(err)
	}
	return r
}
