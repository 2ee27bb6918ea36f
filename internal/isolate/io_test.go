package isolate

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/bench/guest/guesttest"
	"oscine.dev/oscine/internal/object"
)

// TestKernelDiskIsDivided reads back that the guest's disk is divided by class.
func TestKernelDiskIsDivided(t *testing.T) {
	guesttest.NeedGuest(t)
	number, err := readFile("/sys/class/block/nvme0n1/dev")
	if err != nil {
		t.Skipf("the guest has no disk: %v", err)
	}
	seen := &events{}
	i, err := Open(Options{Own: true, OnEvent: seen.add})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	if gaps := i.divide(number, false); len(gaps) > 0 {
		t.Fatalf("gaps: %v", gaps)
	}
	if text, err := readFile("/sys/fs/cgroup/io.cost.qos"); err == nil {
		t.Logf("io.cost.qos: %s", text)
		if !strings.Contains(text, number+" enable=1") {
			t.Errorf("io.cost.qos: got %q, want disk %s enabled", text, number)
		}
		model, err := readFile("/sys/fs/cgroup/io.cost.model")
		t.Logf("io.cost.model: %s %v", model, err)
	} else {
		for _, c := range []object.Class{Realtime, Interactive} {
			text, err := i.cg.get("oscine.slice/"+string(c), "io.latency")
			if err != nil || !strings.Contains(text, number+" target=") {
				t.Errorf("io.latency of %s: got %q %v", c, text, err)
			}
		}
	}
	shows(t, "default 10", "oscine.slice/batch/io.weight")
	shows(t, "default 1000", "oscine.slice/realtime/io.weight")
}

func TestNoDiskIsNamed(t *testing.T) {
	i := &Isolator{host: host{root: "/"}}
	var st unix.Stat_t
	if err := unix.Stat("/proc", &st); err != nil {
		t.Skip("needs /proc")
	}
	if _, _, err := i.diskBelow("/proc"); err == nil || !strings.Contains(err.Error(), "no disk") {
		t.Errorf("the disk of /proc: got %v", err)
	}
	if _, _, err := i.diskBelow("/nowhere"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the disk of nothing: got %v", err)
	}
}
