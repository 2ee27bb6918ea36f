package systemtest

import (
	"fmt"
	"os"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/oip"
)

// TestHostedInferenceSocket looks for the node's models from inside workloads:
// one that asks for them, and one that does not.
func TestHostedInferenceSocket(t *testing.T) {
	d := newDaemon(t)
	d.run("image", "import", webArchive(t, d.arch))
	for name, asks := range map[string]bool{"asks": true, "does-not": false} {
		d.apply(fmt.Sprintf(`apiVersion: oscine.dev/v1
kind: Workload
metadata: {name: %s}
spec: {image: %s, args: [sleep], resources: {cpu: 100m, memory: 32Mi}, inference: %v}
`, name, webImage, asks))
	}
	d.awaitPhase("workload", "asks", "Running", time.Minute)
	d.awaitPhase("workload", "does-not", "Running", time.Minute)
	// The container's own view of its files.
	inside := func(name string) string { return fmt.Sprintf("/proc/%d/root%s", d.pid("workload", name), oip.Socket) }
	client := oip.Unix(inside("asks"))
	defer client.HTTP.CloseIdleConnections()
	resp, err := client.HTTP.Get(client.URL + "/v2/health/live")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("got %s", resp.Status)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/root/web", d.pid("workload", "does-not"))); err != nil {
		t.Errorf("the files of a workload that did not ask cannot be seen: %v", err)
	}
	if _, err := os.Stat(inside("does-not")); !os.IsNotExist(err) {
		t.Errorf("a workload that did not ask: %v", err)
	}
}
