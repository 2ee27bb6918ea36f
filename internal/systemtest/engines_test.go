package systemtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/serve/engine/modeltest"
)

// TestHostedEngines serves real models in the formats of several engines, which the
// node tries against each other.
func TestHostedEngines(t *testing.T) {
	hand, pitch, folder := modeltest.Path(t, modeltest.Hand), modeltest.Path(t, modeltest.BasicPitchTFLite), modeltest.Path(t, modeltest.BasicPitchSavedModel)
	d := newDaemon(t)
	t.Cleanup(func() { // before the daemon ends, which leaves workers to its successor
		for _, name := range []string{"hand", "pitch", "named", "folder", "graph", "pickle"} {
			d.try("delete", "model", name)
		}
	})
	d.refuse([]string{"serve", hand, "--name", "hand", "--wait", "5s"}, "the pack litert does: make it with oscine pack build litert")
	d.run("delete", "model", "hand")
	dir := t.TempDir()
	for _, name := range []string{"litert", "openvino"} {
		d.run("pack", "build", name, "--arch", d.arch, "-o", dir, "--source", "../..")
		d.run("pack", "install", filepath.Join(dir, name+"-"+d.arch+".erofs"))
	}
	explain := func(model string) string {
		out := d.run("model", "explain", model)
		t.Logf("model explain %s:\n%s", model, out)
		return out
	}

	d.run("serve", hand, "--name", "hand", "--cpu", "250m")
	table := explain("hand")
	for _, want := range []string{"litert 2.3.0", "openvino 2026.4", "\n*"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table of two engines lacks %q", want)
		}
	}
	// LiteRT would answer it with zeros.
	d.run("serve", pitch, "--name", "pitch", "--cpu", "250m")
	if table := explain("pitch"); !strings.Contains(table, "refused: the engine") || !strings.Contains(table, "the only one that can be taken") {
		t.Error("the engine that cannot run the model is not left out")
	}
	if got := d.run("describe", "model", "pitch"); !strings.Contains(got, "runs the model, the only one that can be taken") || !strings.Contains(got, "engine: openvino") {
		t.Errorf("describe does not say which engine was chosen:\n%s", got)
	}
	d.refuse([]string{"serve", pitch, "--name", "named", "--cpu", "250m", "--engine", "litert"}, "the engine")
	d.run("delete", "model", "named")

	d.run("serve", folder, "--name", "folder", "--cpu", "250m")
	if table := explain("folder"); !strings.Contains(table, "the only installed pack that reads the model") {
		t.Error("a folder that one engine reads is not explained")
	}

	graph := filepath.Join(t.TempDir(), "graph.xml")
	if err := os.WriteFile(graph, []byte(`<?xml version="1.0"?><net name="t" version="11"></net>`), 0o600); err != nil {
		t.Fatal(err)
	}
	d.refuse([]string{"serve", graph, "--name", "graph", "--cpu", "250m"}, "put both in one folder")
	pickle := filepath.Join(t.TempDir(), "model.pt")
	if err := os.WriteFile(pickle, []byte("\x80\x04\x95anything"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.refuse([]string{"serve", pickle, "--name", "pickle", "--wait", "5s"}, "a Python pickle")
}
