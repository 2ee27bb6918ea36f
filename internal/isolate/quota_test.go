package isolate

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/bench/latency"
)

// An interactive workload that asked for 300 thousandths of a CPU and uses 400
// while nobody else of its class wants any: by weight it has them at once, by
// quota it waits for the next period again and again.
func TestKernelQuotasDelay(t *testing.T) {
	i, _ := open(t)
	prepare(t, i, Spec{ID: "b", Class: Batch})
	load := start(t, i, Spec{ID: "b", Class: Batch}, spin(8))
	s := Spec{ID: "w", Class: Interactive, MilliCPU: 300}
	prepare(t, i, s)
	throttled := func(quota string) time.Duration {
		t.Helper()
		before, err := i.Status("w")
		if err != nil {
			t.Fatal(err)
		}
		if err := writeFile(i.cg.path("oscine.slice/interactive/w/cpu.max"), quota); err != nil {
			t.Fatal(err)
		}
		p := start(t, i, s, latency.Child{Worker: &latency.Worker{Period: 20 * ms, Work: 8 * ms, Duration: 4 * time.Second}})
		var report latency.WorkerReport
		if err := p.Wait(&report); err != nil {
			t.Fatal(err)
		}
		h := &report.Histogram
		t.Logf("cpu.max %s: wake-ups p50 %v, p99 %v, max %v of %d", quota, h.Quantile(.5), h.Quantile(.99), h.Max(), h.Count())
		after, err := i.Status("w")
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(after.Throttled - before.Throttled)
	}
	// A worker that is held back skips wake-ups, so that few of them show it.
	weight, quota := throttled("max 100000"), throttled("30000 100000")
	if weight != 0 || quota < 100*ms {
		t.Errorf("held back for %v by weight and %v by quota, want none and much", weight, quota)
	}
	var report latency.LoadReport
	if err := load.End(&report); err != nil {
		t.Error(err)
	}
}

// readInto reads a part of the guest's disk from within a workload's cgroup, so
// that the page cache of it is the workload's.
func readInto(t *testing.T, group, offset, bytes string) {
	t.Helper()
	dir, err := unix.Open("/sys/fs/cgroup/"+group, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	child := exec.CommandContext(t.Context(), "/proc/self/exe", "read", "/dev/nvme0n1", offset, bytes)
	child.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: dir}
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("read: %v\n%s", err, out)
	}
}

// What a model has read of its file stays in memory when the machine is short,
// and what batch work has read goes.
func TestKernelModelCacheIsSpared(t *testing.T) {
	i, _ := open(t)
	// Held open: the last to close a disk drops what is cached of it.
	disk, err := os.Open("/dev/nvme0n1")
	if err != nil {
		t.Skipf("the guest has no disk: %v", err)
	}
	defer disk.Close()
	prepare(t, i, Spec{ID: "model", Class: Interactive, Memory: 64 << 20, MemoryLow: 64 << 20})
	prepare(t, i, Spec{ID: "b", Class: Batch})
	readInto(t, "oscine.slice/interactive/model", "0", "25165824")
	readInto(t, "oscine.slice/batch/b", "33554432", "25165824")
	cached := func(group string) uint64 {
		t.Helper()
		text, err := i.cg.get(group, "memory.stat")
		if err != nil {
			t.Fatal(err)
		}
		return numbers(text)["file"] >> 20
	}
	model, batch := cached("oscine.slice/interactive/model"), cached("oscine.slice/batch/b")
	if model < 20 || batch < 20 {
		t.Fatalf("%d and %d MiB are cached of 24 each", model, batch)
	}
	// The model's file is shared: another reads it and is charged nothing.
	readInto(t, "oscine.slice/batch/b", "0", "25165824")
	if again := cached("oscine.slice/batch/b"); again > batch+1 {
		t.Errorf("a second reader of the model's file has %d MiB of its own", again-batch)
	}
	// It cannot give so much without the model's: what it gives is batch's.
	_ = writeFile(i.cg.path("oscine.slice/memory.reclaim"), "20M")
	t.Logf("cached: model %d → %d MiB, batch %d → %d MiB", model, cached("oscine.slice/interactive/model"), batch, cached("oscine.slice/batch/b"))
	if after := cached("oscine.slice/interactive/model"); after+2 < model {
		t.Errorf("of the model's %d MiB %d are left", model, after)
	}
	if after := cached("oscine.slice/batch/b"); after > batch/2 {
		t.Errorf("of batch's %d MiB %d are left: nothing was reclaimed", batch, after)
	}
}
