package schedext

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"oscine.dev/oscine/internal/bench/guest"
	"oscine.dev/oscine/internal/bench/guest/guesttest"
	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/bpf"
)

// TestMain lets the test program be three things: the tests, the init of a
// guest that runs those named TestKernel…, and a measuring process there.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "child":
		if err := latency.RunChild(os.Args[2], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case guest.Inside() && os.Getpid() == 1:
		guest.Main(m.Run)
	default:
		os.Exit(m.Run())
	}
}

// cpus of the guest, in three sockets.
const cpus = 6

// TestInMachine boots the product's kernels on several sockets, each with its
// own last-level cache.
func TestInMachine(t *testing.T) {
	guesttest.Need(t)
	if _, err := bpf.Read(objects, object); errors.Is(err, bpf.ErrNotBuilt) {
		t.Skip(err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			guesttest.RunKernelTests(t, guest.Options{
				Arch: arch, CPUs: fmt.Sprintf("%d,sockets=3,cores=%d,threads=1", cpus, cpus/3), Memory: 1024,
			}, 10*time.Minute)
		})
	}
}

// On the last CPU, in the last domain, interactive work interrupts batch.
func TestKernelManyCaches(t *testing.T) {
	guesttest.NeedGuest(t)
	groups := map[string]string{}
	for _, name := range []string{"system", "interactive", "batch"} {
		groups[name] = filepath.Join("/sys/fs/cgroup/test.slice", name)
		if err := os.MkdirAll(groups[name], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var domains [][]int
	for socket := range 3 {
		domains = append(domains, nil)
		for core := range cpus / 3 {
			domains[socket] = append(domains[socket], socket*cpus/3+core)
		}
	}
	s, err := Start(Options{System: groups["system"], Interactive: groups["interactive"], Batch: groups["batch"], Domains: domains})
	if err != nil {
		t.Fatal(err)
	}
	run := func(class string, task latency.Child) *latency.Process {
		p, err := latency.Start(t.Context(), []string{"/proc/self/exe", "child"}, groups[class], task)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		if err := p.Begin(); err != nil {
			t.Fatal(err)
		}
		return p
	}
	load := run("batch", latency.Child{Load: &latency.Load{Threads: 2, CPU: cpus}})
	worker := run("interactive", latency.Child{Worker: &latency.Worker{Duration: 3 * time.Second, CPU: cpus}})
	var w latency.WorkerReport
	var l latency.LoadReport
	if err := errors.Join(worker.Wait(&w), load.End(&l)); err != nil {
		t.Fatal(err)
	}
	h := &w.Histogram
	t.Logf("on CPU %d beside two batch spinners: p50 %v, p99 %v, max %v of %d", cpus-1, h.Quantile(.5), h.Quantile(.99), h.Max(), h.Count())
	// A batch thread's turn is 20 ms.
	if n, p99 := h.Count(), h.Quantile(.99); n < 500 || p99 > 2*time.Millisecond {
		t.Errorf("%d wake-ups with p99 %v, want 598 within 2 ms: batch was not interrupted", n, p99)
	}
	if l.Units == 0 {
		t.Error("batch had nothing")
	}
	if !s.Running() {
		t.Errorf("the kernel took the scheduler out: %s", s.Verdict())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
