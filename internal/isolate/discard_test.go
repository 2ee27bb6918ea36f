package isolate

import (
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/hardware"
)

// What a daemon that was killed left is ended by the next, and its CPUs are
// free again.
func TestKernelDiscardEndsWhatIsLeft(t *testing.T) {
	earlier, _ := open(t)
	s := Spec{ID: "stray", Class: Realtime, CPUs: hardware.NewSet(3)}
	prepare(t, earlier, s)
	p := start(t, earlier, s, latency.Child{Worker: &latency.Worker{Duration: time.Hour}})
	shows(t, "3", "cpuset.cpus.isolated")

	i, _ := open(t)
	if err := i.Discard(Batch, s.ID); err != nil { // one that is not there
		t.Error(err)
	}
	if err := i.Discard(Realtime, s.ID); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(nil); err == nil {
		t.Error("its process was not killed")
	}
	i.Verify()
	if _, err := os.Stat("/sys/fs/cgroup" + CgroupPath(Realtime, s.ID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its cgroup is still there: %v", err)
	}
	shows(t, "", "cpuset.cpus.isolated")

	// One that this process prepared stays.
	own := Spec{ID: "own", Class: Interactive}
	prepare(t, i, own)
	if err := i.Discard(Interactive, own.ID); err != nil || !exists(i.Cgroup(own.ID)) {
		t.Errorf("one that is prepared: %v", err)
	}
}
