package systemtest

import (
	"fmt"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/machine"
)

// TestPlacement boots a machine of two sockets and NUMA nodes and checks that
// what was placed runs where it was placed.
func TestPlacement(t *testing.T) {
	n, _ := resumeNode(t, nodeKind{Options: machine.Options{
		Direct: true, CPUs: "4,sockets=2,cores=2,threads=1",
		ExtraArgs: []string{
			"-object", "memory-backend-ram,id=m0,size=512M", "-object", "memory-backend-ram,id=m1,size=512M",
			"-numa", "node,nodeid=0,memdev=m0,cpus=0-1", "-numa", "node,nodeid=1,memdev=m1,cpus=2-3",
			"-numa", "dist,src=0,dst=1,val=21",
		},
	}})
	if got := n.run("hardware"); strings.Count(got, "package ") != 2 {
		t.Errorf("the map lacks two packages:\n%s", got)
	}

	// Two exclusive cores lie together on the node that the system leaves free.
	n.apply(fmt.Sprintf(`
apiVersion: oscine.dev/v1
kind: Workload
metadata: {name: pair}
spec:
  image: %s
  resources: {cpu: 2, cpuPolicy: exclusive, memory: 64Mi}
`, webImage))
	n.awaitPhase("workload", "pair", "Running", later)
	if cpus, nodes := n.placed("pair"); cpus != "2-3" || nodes != "1" {
		t.Errorf("two cores were placed on CPUs %s of node %s, want 2-3 of node 1", cpus, nodes)
	}
	if got := n.run("exec", "pair", "--", "/web", "facts"); !strings.Contains(got, "Cpus_allowed_list: 2-3\n") || !strings.Contains(got, "Mems_allowed_list: 1\n") {
		t.Errorf("the pair runs elsewhere than where it was placed:\n%s", got)
	}

	// Shared work stays away from them.
	if got := n.run("run", "--cpu", "500m", webImage, "--", "facts"); !strings.Contains(got, "Cpus_allowed_list: 0-1\n") {
		t.Errorf("shared work may run on exclusive cores:\n%s", got)
	}

	// What does not fit is refused with what would satisfy it; what is stricter
	// takes the place of batch.
	n.refuse([]string{"run", "--cpu", "64", webImage, "--", "facts"}, "cpu")
	n.run("delete", "workload", "pair")
}

// placed returns the CPUs and NUMA nodes of a workload, as get shows them.
func (n *testNode) placed(name string) (cpus, nodes string) {
	n.t.Helper()
	st, _ := n.object("workload", name)["status"].(map[string]any)
	p, _ := st["placement"].(map[string]any)
	return fmt.Sprint(p["cpus"]), fmt.Sprint(p["numaNodes"])
}
