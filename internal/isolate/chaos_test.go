package isolate

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/object"
)

// account is what a machine has to give, as the kernel shows it.
func account(t *testing.T) map[string]string {
	t.Helper()
	files := []string{
		"/sys/fs/cgroup/cpuset.cpus.effective", "/sys/fs/cgroup/cpuset.cpus.isolated", "/sys/fs/cgroup/cpuset.mems.effective",
		"/sys/fs/cgroup/oscine.slice/memory.min", "/sys/fs/cgroup/oscine.slice/memory.low",
		"/sys/fs/cgroup/oscine.slice/cpuset.cpus.exclusive", "/sys/fs/cgroup/oscine.slice/realtime/cpuset.cpus.exclusive",
		"/sys/fs/cgroup/oscine.slice/realtime/memory.min", "/sys/fs/cgroup/oscine.slice/interactive/cpuset.cpus.exclusive",
		"/sys/devices/virtual/workqueue/cpumask", "/proc/irq/default_smp_affinity",
		"/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages",
	}
	irqs, err := filepath.Glob("/proc/irq/*/smp_affinity_list")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, f := range append(files, irqs...) {
		if text, err := readFile(f); err == nil {
			out[f] = text
		}
	}
	return out
}

// Hundreds of workloads of all classes come, run, are killed and go; then
// every CPU, byte, interrupt and cgroup is where it was.
func TestKernelChaosLeavesNothing(t *testing.T) {
	i, _ := open(t)
	before := account(t)
	random := rand.New(rand.NewPCG(7, 8))
	live := map[string]*latency.Process{}
	refused := map[string]int{}
	for n := range 400 {
		if len(live) > 0 && (len(live) > 6 || random.IntN(2) == 0) {
			endOne(t, i, live)
			continue
		}
		s := randomSpec(random, n)
		err := i.Prepare(s)
		switch {
		case errors.Is(err, ErrTaken):
			refused["taken"]++
			continue
		case errors.Is(err, ErrNoHousekeeping):
			refused["no CPU left"]++
			continue
		case err != nil:
			t.Fatal(err)
		}
		live[s.ID] = nil
		if n%5 != 0 {
			continue
		}
		p, err := latency.Start(t.Context(), []string{"/proc/self/exe", "child"}, i.Cgroup(s.ID), spin(1))
		if err != nil {
			t.Fatal(err)
		}
		live[s.ID] = p
		if err := errors.Join(i.Apply(s.ID, p.PID), p.Begin()); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("refused: %v", refused)
	for len(live) > 0 {
		endOne(t, i, live)
	}
	for range 50 { // the last of the dead
		i.Verify()
		if len(leaves(t)) == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if left := leaves(t); len(left) > 0 {
		t.Errorf("cgroups are left: %v", left)
	}
	after := account(t)
	for file, want := range before {
		if after[file] != want {
			t.Errorf("%s: got %q, was %q", file, after[file], want)
		}
	}
	if !i.Reserved().Empty() || len(i.latency) > 0 {
		t.Errorf("CPUs %s are still reserved, %d held awake", i.Reserved(), len(i.latency))
	}
}

func randomSpec(random *rand.Rand, n int) Spec {
	s := Spec{ID: fmt.Sprintf("w%d", n), Class: []object.Class{Realtime, Interactive, Batch}[random.IntN(3)], Memory: 1 << 20 * int64(1+random.IntN(8))}
	if s.Class == Realtime || random.IntN(3) == 0 {
		s.CPUs = hardware.NewSet(random.IntN(4))
		if random.IntN(3) == 0 {
			s.CPUs.Add(random.IntN(4))
		}
	}
	s.Exclusive = s.Class == Interactive && !s.CPUs.Empty() && random.IntN(2) == 0
	if s.Class != Realtime {
		s.MemoryLow = s.Memory
	}
	return s
}

func endOne(t *testing.T, i *Isolator, live map[string]*latency.Process) {
	t.Helper()
	for id, p := range live {
		if p != nil {
			p.Kill()
		}
		if err := i.Release(id); err != nil {
			t.Fatal(err)
		}
		delete(live, id)
		return
	}
}

// leaves lists the workloads' cgroups.
func leaves(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("/sys/fs/cgroup/oscine.slice/*/*")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(path string) bool {
		info, err := os.Stat(path)
		return err != nil || !info.IsDir() || strings.HasSuffix(path, "/system/oscined")
	})
}
