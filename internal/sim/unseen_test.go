package sim

import (
	"fmt"
	"math/rand"
	"testing"

	"oscine.dev/oscine/internal/place"
)

// TestDefaultPolicyGeneralises compares our default policy with FGD on
// workloads and clusters that it was not made with.
func TestDefaultPolicyGeneralises(t *testing.T) {
	nodes := openb(t)
	r := rand.New(rand.NewSource(7))
	changed := func(workload string, change func(*place.Shape)) []Pod {
		pods := openbPods(t, workload)
		for i := range pods {
			change(&pods[i].Shape)
		}
		return pods
	}
	few := func(model string) (kept []place.FleetNode) {
		for _, n := range nodes {
			if n.Model != model || r.Intn(5) == 0 {
				kept = append(kept, n)
			}
		}
		return kept
	}
	bound := func(part float64, models ...string) func(*place.Shape) {
		return func(s *place.Shape) {
			if s.GPUs > 0 && r.Float64() < part {
				s.Models = []string{models[r.Intn(len(models))]}
			}
		}
	}
	var mixed []Pod
	for i := range 5000 {
		s := place.Shape{MilliCPU: int64(500 + r.Intn(24)*1000), Memory: 1000}
		switch r.Intn(6) {
		case 0:
		case 1, 2, 3:
			s.GPUs, s.MilliGPU = 1, int64(50+r.Intn(19)*50)
		case 4:
			s.GPUs, s.MilliGPU = 1, 1000
		case 5:
			s.GPUs, s.MilliGPU = 2<<r.Intn(3), 1000
		}
		mixed = append(mixed, Pod{Name: fmt.Sprint("p", i), Shape: s})
	}
	cases := []struct {
		name  string
		nodes []place.FleetNode
		pods  []Pod
	}{
		{"half the CPU", nodes, changed("default", func(s *place.Shape) { s.MilliCPU /= 2 })},
		{"half more CPU", nodes, changed("default", func(s *place.Shape) { s.MilliCPU = s.MilliCPU * 3 / 2 })},
		{"a tenth bound to V100", nodes, changed("default", bound(0.1, "V100M16", "V100M32"))},
		{"few T4", few("T4"), openbPods(t, "default")},
		{"random amounts", nodes, mixed},
	}
	var gain float64
	for _, c := range cases {
		m := &Matrix{Nodes: c.nodes, Workloads: []Workload{{c.name, c.pods}}, Policies: []string{"fgd", "oscine"}, Seeds: []int64{42, 43}}
		results := runMatrix(t, m)
		at100 := func(c *Curve) float64 { return c.Allocated[100] }
		fgd, _ := meanAndDeviation(results[0].Curves, at100)
		ours, _ := meanAndDeviation(results[1].Curves, at100)
		t.Logf("%s: FGD allocates %.2f, ours %.2f", c.name, fgd, ours)
		gain += (ours - fgd) / float64(len(cases))
		if ours < fgd-0.1 {
			t.Errorf("%s: ours allocates %.2f, FGD %.2f", c.name, ours, fgd)
		}
	}
	if gain < 0.3 {
		t.Errorf("the mean gain over FGD is %.2f, want at least 0.3", gain)
	}
}
