package systemtest

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/engine/enginetest"
)

// TestHostedReplacement replaces a model while clients ask without a pause: none of
// their requests fails, and what does not load leaves the old one serving.
func TestHostedReplacement(t *testing.T) {
	d := newDaemon(t)
	n := d.testNode
	write := writing(t, t.TempDir())
	model := func(i int) string { return write("digits.otm", fmt.Sprintf("%sadd\nnumber %d\n", enginetest.Magic, i)) }
	n.run("pack", "install", makeEnginePack(n))
	n.run("serve", model(0))
	request := write("request.json", `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}`)

	var clients sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(150 * time.Millisecond): // each call takes one of the node's connections
				}
				if out, errOut, code := n.try("infer", "digits", "-f", request); code != 0 || !strings.Contains(out, "[2,3,4,5]") {
					t.Errorf("a request while the model is replaced: exit status %d, %s %s", code, out, errOut)
					return
				}
			}
		})
	}
	for i := 1; i <= 5; i++ {
		n.run("serve", model(i), "--version", fmt.Sprint(i+1))
	}
	n.refuse([]string{"serve", write("digits.otm", enginetest.Magic+"unknown\n"), "--version", "7"}, "the new manifest is not served", "version 6 still answers", "not a model of the engine")
	close(done)
	clients.Wait()
	var st struct {
		Phase, Version string
		Update         struct{ Phase string }
	}
	raw, err := json.Marshal(n.object("model", "digits")["status"])
	if err != nil || json.Unmarshal(raw, &st) != nil || st.Phase != "Running" || st.Version != "6" || st.Update.Phase != "Failed" {
		t.Errorf("status %s, %v", raw, err)
	}
	if got := n.run("events"); !strings.Contains(got, "the new manifest is not served") {
		t.Errorf("no event tells of it:\n%s", got)
	}
}
