package systemtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/pack"
)

// pictureRequest writes a request with a batch of pictures for the networks in the engines'
// testdata, and returns its file.
func pictureRequest(t *testing.T, rows int) string {
	t.Helper()
	var data []string
	for i := range rows * 3 * 16 * 16 {
		data = append(data, fmt.Sprint(float32(i*7%17)/17))
	}
	file := filepath.Join(t.TempDir(), "request.json")
	text := fmt.Sprintf(`{"inputs":[{"name":"picture","datatype":"FP32","shape":[%d,3,16,16],"data":[%s]}]}`, rows, strings.Join(data, ","))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestHostedExecuTorch serves a program of ExecuTorch whose batch dimension the
// model's options state.
func TestHostedExecuTorch(t *testing.T) {
	const program = "../serve/engine/executorch/testdata/net.pte"
	d := newDaemon(t)
	t.Cleanup(func() { // before the daemon ends, which leaves workers to its successor
		for _, name := range []string{"net", "damaged"} {
			d.try("delete", "model", name)
		}
	})
	d.refuse([]string{"serve", program, "--name", "net", "--wait", "5s"}, "the pack executorch does: make it with oscine pack build executorch")
	d.run("delete", "model", "net")
	dir := t.TempDir()
	d.run("pack", "build", "executorch", "--arch", d.arch, "-o", dir, "--source", "../..")
	d.run("pack", "install", filepath.Join(dir, "executorch-"+d.arch+".erofs"))
	d.run("serve", program, "--name", "net", "--cpu", "250m", "--option", "inputs=picture:FP32[-1,3,16,16]", "--option", "outputs=answer:FP32[-1,4] seen:FP32[-1,8]")
	for _, rows := range []int{1, 3} {
		if got := d.run("infer", "net", "-f", pictureRequest(t, rows)); !strings.Contains(got, fmt.Sprintf("[%d,4]", rows)) || !strings.Contains(got, "0.198") {
			t.Errorf("%d rows: got %s", rows, got)
		}
	}
	d.refuse([]string{"infer", "net", "-f", pictureRequest(t, 9)}, "run: ")

	whole, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(t.TempDir(), "damaged.pte")
	if err := os.WriteFile(damaged, bytes.Replace(whole[:2000], []byte("forward"), []byte("backwar"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	d.refuse([]string{"serve", damaged, "--name", "damaged", "--cpu", "250m"}, "not a model that executorch 1.5.1 can load")
}

// TestHostedPyTorch serves TorchScript, and where a Python with PyTorch is at hand a
// model that AOTInductor compiles on this machine.
func TestHostedPyTorch(t *testing.T) {
	if _, err := pack.Libraries(t.Context(), "pytorch", runtime.GOARCH, false, os.Stderr); err != nil {
		t.Skip(err)
	}
	const script = "../serve/engine/pytorch/testdata/net.ts"
	d := newDaemon(t)
	t.Cleanup(func() { // before the daemon ends, which leaves workers to its successor
		for _, name := range []string{"net", "unstated", "wrong", "weights", "compiled", "graph"} {
			d.try("delete", "model", name)
		}
	})
	dir := t.TempDir()
	d.run("pack", "build", "pytorch", "--arch", d.arch, "-o", dir, "--source", "../..")
	d.run("pack", "install", filepath.Join(dir, "pytorch-"+d.arch+".erofs"))
	stated := []string{"--cpu", "250m", "--option", "inputs=picture:FP32[-1,3,16,16]", "--option", "outputs=answer:FP32[-1,4] seen:FP32[-1,8]"}
	d.run(append([]string{"serve", script, "--name", "net"}, stated...)...)
	for _, rows := range []int{1, 3} {
		if got := d.run("infer", "net", "-f", pictureRequest(t, rows)); !strings.Contains(got, fmt.Sprintf("[%d,4]", rows)) || !strings.Contains(got, "0.198") {
			t.Errorf("%d rows: got %s", rows, got)
		}
	}
	d.refuse([]string{"serve", script, "--name", "unstated", "--cpu", "250m"}, "does not say what its inputs are: state them")
	d.refuse([]string{"serve", script, "--name", "wrong", "--cpu", "250m", "--option", "inputs=picture:FP32[-1,3,16]", "--option", "outputs=answer:FP32[-1,4]"},
		"with inputs and outputs as the options state them")

	t.Run("AOTInductor", func(t *testing.T) {
		program := os.Getenv("OSCINE_ENGINES_PYTHON")
		if program == "" {
			t.Skip("needs a Python with the engines' own packages: make test-engines")
		}
		if out, err := exec.Command(program, "../../cmd/oscine-engine/testdata/export.py", dir).CombinedOutput(); err != nil {
			t.Fatalf("export: %v\n%s", err, out)
		}
		d.run(append([]string{"serve", filepath.Join(dir, "net.pt2"), "--name", "compiled"}, stated...)...)
		if got := d.run("infer", "compiled", "-f", pictureRequest(t, 3)); !strings.Contains(got, "[3,4]") || !strings.Contains(got, "0.198") {
			t.Errorf("compiled: got %s", got)
		}
		d.refuse([]string{"serve", filepath.Join(dir, "graph.pt2"), "--name", "graph", "--cpu", "250m"}, "which only Python can run")
		d.refuse([]string{"serve", filepath.Join(dir, "weights.pt"), "--name", "weights", "--cpu", "250m"}, "was written by torch.save")
	})
}
