package sim

import (
	"math/rand"
	"syscall"
	"testing"
	"time"

	"oscine.dev/oscine/internal/place"
)

// cpuTime is the user and system time of the process: what a loaded machine
// does not spoil.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPlacements reports placement decisions per second of CPU time on
// the openb cluster and on one of eight times its size, by tournament trees,
// and for scale by a scan over all nodes in the same run.
func BenchmarkPlacements(b *testing.B) {
	nodes, pods := openb(b), openbPods(b, "default")
	var eight []place.FleetNode
	for range 8 {
		eight = append(eight, nodes...)
	}
	var many []Pod
	for i := range 8 {
		for _, p := range pods {
			p.Name = string(rune('a'+i)) + p.Name
			many = append(many, p)
		}
	}
	cases := []struct {
		name   string
		nodes  []place.FleetNode
		pods   []Pod
		policy string
		scan   bool
	}{
		{"fgd/1213nodes", nodes, pods, "fgd", false},
		{"oscine/1213nodes", nodes, pods, "oscine", false},
		{"oscine/1213nodes/scan", nodes, pods, "oscine", true},
		{"fgd/9704nodes", eight, many, "fgd", false},
		{"oscine/9704nodes", eight, many, "oscine", false},
		{"oscine/1213nodes/10000shapes", nodes, distinct(pods, 10_000), "oscine", false},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			e := Experiment{Nodes: c.nodes, Pods: c.pods, Policy: c.policy, ScanAll: c.scan}
			var spent time.Duration
			decisions := 0
			for b.Loop() {
				r, err := e.prepare(42)
				if err != nil {
					b.Fatal(err)
				}
				start := cpuTime(b)
				for i := range r.order {
					r.step(i)
				}
				spent += cpuTime(b) - start
				decisions += len(r.order)
			}
			b.ReportMetric(float64(decisions)/spent.Seconds(), "placements/CPU-s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// distinct varies pods so that n shapes occur.
func distinct(pods []Pod, n int) []Pod {
	r := rand.New(rand.NewSource(1))
	varied := make([]Pod, 0, n)
	for i := range n {
		p := pods[i%len(pods)]
		p.Name += string(rune('a' + i/len(pods)))
		p.Shape.MilliCPU += int64(r.Intn(3000))
		if p.Shape.GPUs == 1 && p.Shape.MilliGPU < 1000 {
			p.Shape.MilliGPU = min(999, p.Shape.MilliGPU+int64(r.Intn(50)))
		}
		varied = append(varied, p)
	}
	return varied
}
