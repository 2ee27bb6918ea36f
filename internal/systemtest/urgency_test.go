package systemtest

import (
	"fmt"
	"strings"
	"testing"
)

// TestUrgency serves a model with a latency objective on a booted machine: the
// kernel takes the priority of its threads, and its wake-ups are measured.
func TestUrgency(t *testing.T) {
	n, _ := resumeNode(t, standard())
	n.run("pack", "install", onnxruntimePack(n))
	n.run("serve", digits, "--class", "interactive")
	spec, _ := n.object("model", "digits")["spec"].(map[string]any)
	n.apply(fmt.Sprintf(`
apiVersion: oscine.dev/v1
kind: Model
metadata: {name: digits}
spec:
  class: interactive
  source: %v
  resources: {cpu: "1", memory: 256Mi, latency: 15ms}
`, spec["source"]))
	// The worker before serves until the new one does.
	n.eventually("the model with its promise", later, func() (string, bool) {
		st, _ := n.object("model", "digits")["status"].(map[string]any)
		placement, _ := st["placement"].(map[string]any)
		return fmt.Sprint(st), st["phase"] == "Running" && st["update"] == nil && strings.HasPrefix(fmt.Sprint(placement["reason"]), "cpu 1 ")
	})
	picture := drawOne(t)
	for range 10 {
		n.run("infer", "digits", picture)
	}
	text := n.run("describe", "model", "digits")
	t.Log(text)
	st, _ := n.object("model", "digits")["status"].(map[string]any)
	if requests, _ := st["requests"].(float64); requests < 10 || st["priorityUnavailable"] != nil {
		t.Errorf("%v requests; urgency: %v", st["requests"], st["priorityUnavailable"])
	}
	for _, want := range []string{"wakeups:", "wakes within 15ms", "99 % within"} {
		if !strings.Contains(text, want) {
			t.Errorf("describe lacks %q", want)
		}
	}
}
