package systemtest

import (
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// digits is the model of the demo.
const digits = "../../models/digits/digits.onnx"

// onnxruntimePack builds the pack for an architecture, or finds it in the
// cache of an earlier run, and returns its file.
func onnxruntimePack(n *testNode) string {
	n.t.Helper()
	dir := n.t.TempDir()
	n.run("pack", "build", "onnxruntime", "--arch", n.arch, "-o", dir, "--source", "../..")
	files, err := filepath.Glob(filepath.Join(dir, "*.erofs"))
	if err != nil || len(files) != 1 {
		n.t.Fatalf("pack build left %v, %v, want one file", files, err)
	}
	return files[0]
}

// drawOne draws the digit 1 as a thick bar, white on black.
func drawOne(t testing.TB) string {
	t.Helper()
	picture := image.NewGray(image.Rect(0, 0, 64, 64))
	for y := 8; y < 56; y++ {
		for x := 28; x < 36; x++ {
			picture.SetGray(x, y, color.Gray{Y: 255})
		}
	}
	path := filepath.Join(t.TempDir(), "one.png")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, picture); err != nil {
		t.Fatal(err)
	}
	return path
}

// testModel serves the digit reader, asks it, and replaces and removes it. It
// is left running.
func testModel(n *testNode) {
	t := n.t
	notModel := filepath.Join(t.TempDir(), "broken.onnx")
	if err := os.WriteFile(notModel, []byte("\x08\x08this is no graph"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.refuse([]string{"serve", digits, "--wait", "30s"}, "onnxruntime", "oscine pack install")
	n.refuse([]string{"infer", "digits", drawOne(t)}, "model digits is Waiting and answers nothing", "oscine describe model digits")
	n.run("delete", "model", "digits")
	n.refuse([]string{"pack", "install", digits}, "not a pack")
	n.run("pack", "install", onnxruntimePack(n))
	if got := n.run("pack", "list"); !strings.Contains(got, "onnxruntime") {
		t.Errorf("pack list lacks the pack:\n%s", got)
	}
	n.run("serve", digits)
	picture := drawOne(t)
	if got := n.run("infer", "digits", picture); !strings.Contains(got, "1 ") {
		t.Errorf("the picture of a one reads as:\n%s", got)
	}
	n.refuse([]string{"serve", notModel}, "broken")
	n.run("delete", "model", "broken")
	n.refuse([]string{"infer", "nobody", picture}, "nobody")
	n.refuse([]string{"infer", "digits", picture, "--labels", "zero,one"}, "--labels names 2 answers, the model has 10")
	n.run("logs", "digits") // a model needs no kind
	if got := n.run("describe", "digits"); !strings.Contains(got, "serves with ") {
		t.Errorf("describe lacks the event of the start:\n%s", got)
	}
	n.refuse([]string{"infer", "digits", digits}, "digits.onnx")
	n.refuse([]string{"pack", "remove", "onnxruntime"}, "Model/digits runs on the pack")
	description := n.run("describe", "model", "digits")
	for _, want := range []string{"placement:", "reason:", "engine: "} {
		if !strings.Contains(description, want) {
			t.Errorf("describe lacks %q:\n%s", want, description)
		}
	}
}

// object reads one object as the API gives it.
func (n *testNode) object(kind, name string) map[string]any {
	n.t.Helper()
	var list []map[string]any
	if err := json.Unmarshal([]byte(n.run("get", kind, name, "-o", "json")), &list); err != nil || len(list) != 1 {
		n.t.Fatalf("get %s %s: %d objects, %v", kind, name, len(list), err)
	}
	return list[0]
}

func (n *testNode) pid(kind, name string) int {
	n.t.Helper()
	st, _ := n.object(kind, name)["status"].(map[string]any)
	pid, _ := st["pid"].(float64)
	return int(pid)
}

// TestHostedModel serves a model, kills its worker, and watches that another
// model feels nothing and the worker comes back.
func TestHostedModel(t *testing.T) {
	d := newDaemon(t)
	testModel(d.testNode)
	d.run("serve", digits, "--name", "second")
	picture := drawOne(t)

	// The worker runs where it was placed, and with no right it does not need.
	pid := d.pid("model", "digits")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CapEff:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the worker's status lacks %q", want)
		}
	}

	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		d.run("infer", "second", picture)
	}
	d.eventually("the killed worker's model to answer", soon, func() (string, bool) {
		_, errOut, code := d.try("infer", "digits", picture)
		return errOut, code == 0
	})
	if again := d.pid("model", "digits"); again == pid || again == 0 {
		t.Errorf("the worker has process %d, before it was killed %d", again, pid)
	}

	// The daemon's death does not stop workers; the next one takes them over.
	pid = d.pid("model", "digits")
	d.stop(syscall.SIGKILL)
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("the worker died with the daemon: %v", err)
	}
	d.start()
	d.awaitPhase("model", "digits", "Running", soon)
	if again := d.pid("model", "digits"); again != pid {
		t.Errorf("the next daemon started a new worker %s, before %s", strconv.Itoa(again), strconv.Itoa(pid))
	}
	d.run("infer", "digits", picture)
}
