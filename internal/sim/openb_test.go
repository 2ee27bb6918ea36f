package sim

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"oscine.dev/oscine/internal/place"
)

// openbFile opens a file of the openb trace beside the checkout, or skips.
func openbFile(t testing.TB, name string) *os.File {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "..", "shared", "data", "openb", name))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("the oracle data openb/%s is not beside the checkout", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func openb(t testing.TB) []place.FleetNode {
	t.Helper()
	nodes, err := ReadNodes(openbFile(t, "openb_node_list_gpu_node.csv"), "nodes")
	if err != nil {
		t.Fatal(err)
	}
	return nodes
}

func openbPods(t testing.TB, workload string) []Pod {
	t.Helper()
	pods, err := ReadPods(openbFile(t, "openb_pod_list_"+workload+".csv"), workload)
	if err != nil {
		t.Fatal(err)
	}
	return pods
}

func published(t testing.TB) Published {
	t.Helper()
	p, err := ReadPublished(openbFile(t, filepath.Join("expected", "summary-published.csv")), "published")
	if err != nil {
		t.Fatal(err)
	}
	return p
}
