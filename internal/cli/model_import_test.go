package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	pb "oscine.dev/oscine/internal/api/oscinepb"
)

// Two folders of different repositories whose names become the same one do not
// replace each other.
func TestModelImportReplacesNoOther(t *testing.T) {
	n := &fakeNode{objects: []*pb.Object{{Kind: "Model", Name: "ab-c", Manifest: structOf(t, `{"apiVersion":"oscine.dev/v1","kind":"Model","metadata":{"name":"ab-c"},"spec":{"servedAs":"Ab_c","source":"sha256:`+strings.Repeat("0", 64)+`"}}`), Status: structOf(t, `{"phase":"Running"}`)}}}
	n.serve(t)
	dir := filepath.Join(t.TempDir(), "ab-c", "1")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "model.onnx"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, errOut := n.command(t, "model", "import", filepath.Dir(dir)); status == 0 || !strings.Contains(errOut, "model ab-c would take the place of the Model ab-c, which clients know as Ab_c: rename the folder, or delete that one first: oscine delete model ab-c") {
		t.Errorf("got %d %s", status, errOut)
	}
}
