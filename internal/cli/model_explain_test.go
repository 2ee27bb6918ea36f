package cli

import (
	"strings"
	"testing"

	pb "oscine.dev/oscine/internal/api/oscinepb"
)

func TestModelExplain(t *testing.T) {
	n := &fakeNode{objects: []*pb.Object{{Kind: "Model", Name: "digits", Manifest: structOf(t, `{"apiVersion":"oscine.dev/v1","kind":"Model","metadata":{"name":"digits"},"spec":{"source":"sha256:`+strings.Repeat("0", 64)+`"}}`),
		Status: structOf(t, `{"phase":"Running","candidates":[
 {"pack":"litert 2.3.0-3","reason":"refused: it would answer zeros"},
 {"pack":"openvino 2026.4.1-3","engine":"openvino 2026.4.1","load":"412.345ms","batch1":"1.23456ms","batch8":"8ms","difference":0,"chosen":true,"reason":"the only one that can be taken"}]}`)}}}
	n.serve(t)
	status, out, errOut := n.command(t, "model", "explain", "digits")
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	if status != 0 || len(lines) != 3 {
		t.Fatalf("status %d: %q, %s", status, out, errOut)
	}
	for i, want := range []string{"PACK LOAD 1 ROW 8 ROWS DIFFERENCE WHY", "litert 2.3.0-3 - - - - refused: it would answer zeros", "* openvino 2026.4.1-3 412ms 1.23ms 8ms 0 the only one that can be taken"} {
		if got := strings.Join(strings.Fields(lines[i]), " "); got != want {
			t.Errorf("line %d: got %q, want %q", i, got, want)
		}
	}
	if _, out, _ := n.command(t, "model", "explain", "digits", "-o", "name"); out != "litert 2.3.0-3\nopenvino 2026.4.1-3\n" {
		t.Errorf("names: %q", out)
	}
	n.objects[0].Status = structOf(t, `{"phase":"Waiting","message":"no installed pack can run the model"}`)
	if _, out, _ := n.command(t, "model", "explain", "digits"); out != "model/digits has no engine yet: Waiting no installed pack can run the model\n" {
		t.Errorf("without an engine: %q", out)
	}
	n.objects[0].Manifest = structOf(t, `{"apiVersion":"oscine.dev/v1","kind":"Model","metadata":{"name":"digits"},"spec":{"ensemble":{"steps":[{"modelName":"a","inputMap":{"x":"raw"},"outputMap":{"y":"out"}}]}}}`)
	if status, _, errOut := n.command(t, "model", "explain", "digits"); status == 0 || !strings.Contains(errOut, "is an ensemble, which has no engine") {
		t.Errorf("an ensemble: %d %q", status, errOut)
	}
}
