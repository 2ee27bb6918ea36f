package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/place"
)

// tolerance is how far from the published mean a policy may be, in points.
func tolerance(policy string) float64 {
	if policy == "fgd" || policy == "bestfit" {
		return 0.3
	}
	return 0.75
}

func runMatrix(t *testing.T, m *Matrix) []Result {
	t.Helper()
	results, err := m.Run(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// TestPublished holds some cells of the published table; make bench-place
// shows all of them.
func TestPublished(t *testing.T) {
	want := published(t)
	seeds, err := ParseSeeds("42..51")
	if err != nil {
		t.Fatal(err)
	}
	m := &Matrix{Nodes: openb(t), Seeds: seeds, Policies: []string{"fgd", "bestfit", "dotprod", "packing", "clustering"}}
	for _, w := range []string{"default", "gpushare100"} {
		m.Workloads = append(m.Workloads, Workload{w, openbPods(t, w)})
	}
	results := runMatrix(t, m)
	random := &Matrix{Nodes: m.Nodes, Seeds: seeds[:3], Policies: []string{"random"}, Workloads: m.Workloads[:1]}
	results = append(results, runMatrix(t, random)...)
	for _, p := range append(m.Policies, "random") {
		worst, where, err := worstDifference(results, want, p)
		if err != nil {
			t.Fatal(err)
		}
		if worst > tolerance(p) {
			t.Errorf("%s: %s is %.2f from the published mean, at most %.2f is allowed", p, where, worst, tolerance(p))
		}
	}
}

// TestDefaultPolicyBeatsFGD compares our default with FGD in the same runs.
func TestDefaultPolicyBeatsFGD(t *testing.T) {
	m := &Matrix{Nodes: openb(t), Seeds: []int64{42, 43, 44}, Policies: []string{"fgd", "oscine"}}
	least := map[string]float64{"cpu250": 0.5, "gpuspec33": 0.5, "multigpu40": -0.1}
	for w := range least {
		m.Workloads = append(m.Workloads, Workload{w, openbPods(t, w)})
	}
	results := runMatrix(t, m)
	for i := 0; i < len(results); i += 2 {
		at100 := func(c *Curve) float64 { return c.Allocated[100] }
		fgd, _ := meanAndDeviation(results[i].Curves, at100)
		ours, _ := meanAndDeviation(results[i+1].Curves, at100)
		if ours < fgd+least[results[i].Workload] {
			t.Errorf("%s: ours allocates %.2f, FGD %.2f; want at least %+.1f", results[i].Workload, ours, fgd, least[results[i].Workload])
		}
	}
}

// TestTreesAnswerLikeScans compares every curve point of the fast search with
// that of a scan over all nodes.
func TestTreesAnswerLikeScans(t *testing.T) {
	nodes := openb(t)
	for _, w := range []string{"default", "gpuspec33"} {
		pods := openbPods(t, w)
		for _, p := range []string{"fgd", "bestfit", "dotprod", "packing", "clustering", "oscine"} {
			e := Experiment{Nodes: nodes, Pods: pods, Policy: p}
			fast, err := e.Run(t.Context(), 42, nil)
			if err != nil {
				t.Fatal(err)
			}
			e.ScanAll = true
			slow, err := e.Run(t.Context(), 42, nil)
			if err != nil {
				t.Fatal(err)
			}
			if fast.Placements != slow.Placements || !sameLine(&fast.Allocated, &slow.Allocated) || !sameLine(&fast.Fragmented, &slow.Fragmented) {
				t.Errorf("%s under %s: the trees and the scan placed differently", w, p)
			}
		}
	}
}

func sameLine(a, b *[columns]float64) bool {
	for i := range a {
		if a[i] != b[i] && !(math.IsNaN(a[i]) && math.IsNaN(b[i])) {
			return false
		}
	}
	return true
}

const (
	nodesCSV = "sn,cpu_milli,memory_mib,gpu,model\nn0,8000,1000,2,A\nn1,8000,1000,1,B\nn2,4000,1000,0,\n"
	podsCSV  = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\np0,1000,10,1,500,\np1,1000,10,1,1000,A|B\np2,500,10,0,0,\np3,1000,10,1,250,Z\n"
)

func small(t *testing.T) *Matrix {
	t.Helper()
	nodes, err := ReadNodes(strings.NewReader(nodesCSV), "nodes.csv")
	if err != nil {
		t.Fatal(err)
	}
	pods, err := ReadPods(strings.NewReader(podsCSV), "pods.csv")
	if err != nil {
		t.Fatal(err)
	}
	return &Matrix{Nodes: nodes, Workloads: []Workload{{"small <1>", pods}}, Policies: Policies(), Seeds: []int64{1, 2}}
}

func TestOutputs(t *testing.T) {
	m := small(t)
	var last float64
	results, err := m.Run(context.Background(), func(done float64) { last = done })
	if err != nil || math.Abs(last-1) > 1e-9 {
		t.Fatalf("got %v with progress %v, want success and 1", err, last)
	}
	var table, plain, js, svg bytes.Buffer
	for _, err := range []error{WriteTable(&table, results, nil), WriteCSV(&plain, results), json.NewEncoder(&js).Encode(Documents(results)), WriteSVG(&svg, results)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if lines := strings.Count(table.String(), "\n"); lines != 1+len(Policies()) {
		t.Errorf("the table has %d lines:\n%s", lines, &table)
	}
	again, err := ReadPublished(&plain, "own.csv")
	if err != nil || len(again) != len(Policies()) {
		t.Errorf("our own CSV cannot be read again: %v, %d rows", err, len(again))
	}
	var objects []map[string]any
	if err := json.Unmarshal(js.Bytes(), &objects); err != nil || len(objects) != len(Policies()) || objects[0]["workload"] != "small <1>" || objects[0]["seeds"] != 2.0 {
		t.Errorf("JSON: %v, %v", err, objects)
	}
	if _, ok := objects[0]["fragratio_130_sd"]; !ok {
		t.Errorf("no column fragratio_130_sd in %v", objects[0])
	}
	dec := xml.NewDecoder(&svg)
	lines := 0
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the SVG is not XML: %v", err)
		}
		if s, ok := tok.(xml.StartElement); ok && s.Name.Local == "polyline" {
			lines++
		}
	}
	if want := 2 * len(Policies()); lines != want {
		t.Errorf("the plot has %d lines, want %d", lines, want)
	}
}

func TestWorkForMissingModelsIsDropped(t *testing.T) {
	m := small(t)
	m.Workloads[0].Pods = slices.DeleteFunc(m.Workloads[0].Pods, func(p Pod) bool { return p.Name != "p3" })
	m.Policies = []string{"oscine"}
	for _, c := range runMatrix(t, m)[0].Curves {
		if c.Placements != 0 || c.Dropped == 0 {
			t.Errorf("got %d placements and %d drops of work for a model that no node has", c.Placements, c.Dropped)
		}
	}
}

func TestBrokenTraces(t *testing.T) {
	cases := []struct{ name, nodes, pods, want string }{
		{"no header", "", podsCSV, "header"},
		{"missing column", "sn,cpu_milli\n", podsCSV, `no column "memory_mib"`},
		{"no rows", "sn,cpu_milli,memory_mib,gpu,model\n", podsCSV, "no nodes"},
		{"negative", "sn,cpu_milli,memory_mib,gpu,model\nn,-1,1,1,A\n", podsCSV, "nodes.csv:2: cpu_milli"},
		{"overflow", "sn,cpu_milli,memory_mib,gpu,model\nn,9223372036854775808,1,1,A\n", podsCSV, "cpu_milli"},
		{"too many GPUs", "sn,cpu_milli,memory_mib,gpu,model\nn,1,1,17,A\n", podsCSV, "gpu must be"},
		{"ragged row", "sn,cpu_milli,memory_mib,gpu,model\nn,1\n", podsCSV, "nodes.csv:2"},
		{"two mistakes", "sn,cpu_milli,memory_mib,gpu,model\nn,x,1,1,A\nm,1,1,y,A\n", podsCSV, "nodes.csv:3"},
		{"contradiction", nodesCSV, "name,cpu_milli,memory_mib,num_gpu,gpu_milli\np,1,1,2,500\n", "contradict"},
		{"same name", nodesCSV, "name,cpu_milli,memory_mib,num_gpu,gpu_milli\np,1,1,0,0\np,1,1,0,0\n", "used twice"},
		{"quote", nodesCSV, "name,cpu_milli,memory_mib,num_gpu,gpu_milli\n\"p,1,1,0,0\n", "pods.csv"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, errNodes := ReadNodes(strings.NewReader(c.nodes), "nodes.csv")
			_, errPods := ReadPods(strings.NewReader(c.pods), "pods.csv")
			if err := errors.Join(errNodes, errPods); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want it to contain %q", err, c.want)
			}
		})
	}
}

func TestSeeds(t *testing.T) {
	got, err := ParseSeeds("42..44,7")
	if want := []int64{42, 43, 44, 7}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"", "x", "5..4", "1..99999999", "1..", "..", "9223372036854775807..9223372036854775808"} {
		if _, err := ParseSeeds(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzReadPods(f *testing.F) {
	f.Add(podsCSV)
	f.Add("name,cpu_milli\n")
	f.Add("\ufeffname,cpu_milli,memory_mib,num_gpu,gpu_milli\np,1,1,1,1\n")
	nodes, err := ReadNodes(strings.NewReader(nodesCSV), "nodes.csv")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		pods, err := ReadPods(strings.NewReader(text), "pods.csv")
		if err != nil || len(pods) > 50 {
			return
		}
		e := Experiment{Nodes: nodes, Pods: pods, Policy: "oscine"}
		if _, err := e.Run(t.Context(), 1, nil); err != nil {
			t.Errorf("pods that were read cannot be replayed: %v", err)
		}
	})
}

// TestReplayEndsWithItsContext: a replay of minutes can be interrupted.
func TestReplayEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	nodes := []place.FleetNode{{Name: "n", MilliCPU: 64_000, Memory: 1 << 40, GPUs: 8}}
	pods := []Pod{{Name: "p", Shape: place.Shape{GPUs: 1, MilliGPU: 1000}}}
	m := Matrix{Nodes: nodes, Workloads: []Workload{{Name: "w", Pods: pods}}, Policies: []string{"oscine"}, Seeds: []int64{1}}
	cancel()
	if _, err := m.Run(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a replay that ends with its context", err)
	}
}
