package sim

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/place"
)

// madeUp is a fleet of three kinds of nodes and work of many shapes for it, in
// the form of the openb trace.
func madeUp(t *testing.T) (nodes []place.FleetNode, pods []Pod) {
	t.Helper()
	r := rand.New(rand.NewSource(7))
	var n, p strings.Builder
	n.WriteString("sn,cpu_milli,memory_mib,gpu,model\n")
	for i := range 60 {
		kind := [...]string{"32000,131072,2,T4", "96000,393216,8,A10", "64000,262144,0,"}[i%3]
		fmt.Fprintf(&n, "node-%02d,%s\n", i, kind)
	}
	p.WriteString("name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n")
	for i := range 600 {
		gpus, milli, models := 0, 0, ""
		switch r.Intn(5) {
		case 0, 1:
			gpus, milli = 1, 50+r.Intn(19)*50
		case 2:
			gpus, milli = 1, 1000
		case 3:
			gpus, milli = 2<<r.Intn(3), 1000
		}
		if gpus > 0 && r.Intn(3) == 0 {
			models = [...]string{"T4", "A10", "T4|A10"}[r.Intn(3)]
		}
		fmt.Fprintf(&p, "pod-%03d,%d,%d,%d,%d,%s\n", i, 500+r.Intn(16)*1000, 1024+r.Intn(8)*4096, gpus, milli, models)
	}
	var err error
	if nodes, err = ReadNodes(strings.NewReader(n.String()), "nodes"); err != nil {
		t.Fatal(err)
	}
	if pods, err = ReadPods(strings.NewReader(p.String()), "pods"); err != nil {
		t.Fatal(err)
	}
	return nodes, pods
}

// TestTreesAnswerLikeScansMadeUp is TestTreesAnswerLikeScans without the trace.
func TestTreesAnswerLikeScansMadeUp(t *testing.T) {
	nodes, pods := madeUp(t)
	for _, p := range []string{"fgd", "bestfit", "dotprod", "packing", "clustering", "oscine"} {
		for _, tune := range []float64{0.5, 1.3} { // work is taken out, and added
			e := Experiment{Nodes: nodes, Pods: pods, Policy: p, Tune: tune}
			fast, err := e.Run(t.Context(), 42, nil)
			if err != nil {
				t.Fatal(err)
			}
			e.ScanAll = true
			slow, err := e.Run(t.Context(), 42, nil)
			if err != nil {
				t.Fatal(err)
			}
			if fast.Placements == 0 || fast.Placements != slow.Placements || !sameLine(&fast.Allocated, &slow.Allocated) || !sameLine(&fast.Fragmented, &slow.Fragmented) {
				t.Errorf("%s: the trees placed %d, the scan %d, or elsewhere", p, fast.Placements, slow.Placements)
			}
		}
	}
}

// TestFGDFragmentsLeast holds the order of policies that the paper is about.
func TestFGDFragmentsLeast(t *testing.T) {
	nodes, pods := madeUp(t)
	m := &Matrix{Nodes: nodes, Seeds: []int64{1, 2, 3}, Policies: []string{"random", "fgd"}, Workloads: []Workload{{"made-up", pods}}}
	results := runMatrix(t, m)
	at100 := func(c *Curve) float64 { return c.Allocated[100] }
	random, _ := meanAndDeviation(results[0].Curves, at100)
	fgd, _ := meanAndDeviation(results[1].Curves, at100)
	if fgd <= random {
		t.Errorf("FGD allocates %.2f %%, random placement %.2f %%", fgd, random)
	}
}

// TestWorstDifference compares results with what was written of them, under the
// names of the published tables.
func TestWorstDifference(t *testing.T) {
	nodes, pods := madeUp(t)
	m := &Matrix{Nodes: nodes, Seeds: []int64{1}, Policies: Policies(), Workloads: []Workload{{"made-up", pods}}}
	results := runMatrix(t, m)
	var written bytes.Buffer
	if err := WriteCSV(&written, results); err != nil {
		t.Fatal(err)
	}
	text := written.String()
	for _, p := range Policies() {
		text = strings.ReplaceAll(text, "\nmade-up,"+p+",", "\nmade-up,"+publishedName(p)+",")
	}
	want, err := ReadPublished(strings.NewReader(text), "published")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range Policies()[:6] {
		if worst, where, err := worstDifference(results, want, p); err != nil || worst > 0.001 {
			t.Errorf("%s differs by %g from itself at %s: %v", p, worst, where, err)
		}
	}
	moved := want[[2]string{"made-up", "FGD"}]
	moved["alloc_100_mean"] += 2
	if worst, where, err := worstDifference(results, want, "fgd"); err != nil || worst < 1.9 || where != "made-up alloc_100_mean" {
		t.Errorf("got %g at %q, %v, want 2 at made-up alloc_100_mean", worst, where, err)
	}
	if _, _, err := worstDifference(results, Published{}, "fgd"); err == nil {
		t.Error("nothing published is no error")
	}
}

// worstDifference returns the largest distance from the published means at
// 100 % and 130 % arrived over the results of a policy, and where it is.
func worstDifference(results []Result, published Published, policy string) (worst float64, where string, err error) {
	for i := range results {
		r := &results[i]
		if r.Policy != policy {
			continue
		}
		want := published.of(r)
		if want == nil {
			return 0, "", errors.New("nothing published for workload " + r.Workload)
		}
		for _, f := range r.fields() {
			if f.name != "alloc_100_mean" && f.name != "alloc_130_mean" {
				continue
			}
			if d := math.Abs(f.value - want[f.name]); d > worst {
				worst, where = d, r.Workload+" "+f.name
			}
		}
	}
	return worst, where, nil
}
