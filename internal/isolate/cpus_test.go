package isolate

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/object"
)

// Work that shares its CPUs leaves those that another was given, and comes
// back, by its own cpuset and not only because the kernel has a partition.
func TestKernelSharedWorkMoves(t *testing.T) {
	i, _ := open(t)
	all := hardware.NewSet(0, 1, 2, 3)
	s := Spec{ID: "s", Class: Interactive, CPUs: all, MilliCPU: 500}
	prepare(t, i, s)
	p := start(t, i, s, spin(2))
	for _, cpus := range []hardware.Set{hardware.NewSet(0, 1), hardware.NewSet(2), all} {
		if err := i.SetCPUs("s", cpus); err != nil {
			t.Fatal(err)
		}
		shows(t, cpus.String(), "oscine.slice/interactive/s/cpuset.cpus")
		for _, tid := range threads(t, p.PID) {
			if got := allowed(t, p.PID, tid); got != cpus.String() {
				t.Errorf("thread %s may run on CPUs %s, want %s", tid, got, cpus)
			}
		}
	}
	if drifts := i.Verify(); len(drifts) != 0 {
		t.Errorf("nothing was changed by others, got %v", drifts)
	}
	prepare(t, i, Spec{ID: "rt", Class: Realtime, CPUs: hardware.NewSet(3)})
	if err := i.SetCPUs("rt", all); !errors.Is(err, ErrInvalid) {
		t.Errorf("real-time work shares its CPU: %v", err)
	}
	if err := i.SetCPUs("nobody", all); !errors.Is(err, ErrUnknown) {
		t.Errorf("got %v, want %v", err, ErrUnknown)
	}
}

// A thread that a move left on the old CPUs, as the kernel does with one that
// is being cloned meanwhile, is sent after the others; one that put itself
// elsewhere is left alone. The emulator runs its CPUs in turns and seldom loses
// that race, so the thread's own affinity stands for it.
func TestKernelThreadsLeftBehindFollow(t *testing.T) {
	i, _ := open(t)
	all, old := hardware.NewSet(0, 1, 2, 3), hardware.NewSet(0, 1)
	s := Spec{ID: "s", Class: Interactive, CPUs: old, MilliCPU: 500}
	prepare(t, i, s)
	p := start(t, i, s, spin(1))
	pin := func(cpus ...int) {
		t.Helper()
		var mask unix.CPUSet
		for _, cpu := range cpus {
			mask.Set(cpu)
		}
		if err := unix.SchedSetaffinity(p.PID, &mask); err != nil {
			t.Fatal(err)
		}
	}
	share := func(cpus hardware.Set, want string) {
		t.Helper()
		if err := i.SetCPUs("s", cpus); err != nil {
			t.Fatal(err)
		}
		if got := allowed(t, p.PID, strconv.Itoa(p.PID)); got != want {
			t.Errorf("on CPUs %s, want %s", got, want)
		}
	}
	pin(0, 1)
	share(all, "0-3")
	share(old, "0-1")
	pin(1)
	share(all, "1")
}

func threads(t *testing.T, pid int) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		t.Fatal(err)
	}
	var tids []string
	for _, e := range entries {
		tids = append(tids, e.Name())
	}
	return tids
}

// allowed is the list of CPUs that a thread may run on.
func allowed(t *testing.T, pid int, tid string) string {
	t.Helper()
	text, err := readFile("/proc/" + strconv.Itoa(pid) + "/task/" + tid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(text, "Cpus_allowed_list:")
	list, _, _ = strings.Cut(list, "\n")
	return strings.TrimSpace(list)
}

// The SMT siblings of real-time CPUs are set aside with them and run nothing.
func TestKernelSiblingsStayIdle(t *testing.T) {
	i, _ := open(t)
	s := Spec{ID: "rt", Class: Realtime, CPUs: hardware.NewSet(2), Idle: hardware.NewSet(3), Memory: 16 << 20,
		Deadline: &Reservation{Runtime: ms, Period: 10 * ms}}
	if err := i.Prepare(s); err != nil {
		t.Fatal(err)
	}
	shows(t, "root", "oscine.slice/realtime/rt/cpuset.cpus.partition")
	shows(t, "isolated", "oscine.slice/realtime/rt.siblings/cpuset.cpus.partition")
	shows(t, "2-3", "oscine.slice/realtime/cpuset.cpus.exclusive")
	shows(t, "0-1", "cpuset.cpus.effective")
	if got, err := readFile("/sys/devices/system/cpu/cpu3/power/pm_qos_resume_latency_us"); err == nil && got == "n/a" {
		t.Error("the idle sibling is kept awake")
	}
	noInterrupts(t, i, hardware.NewSet(3))
	p := start(t, i, s, spinFor(ms))
	onlyOn(t, p.PID, hardware.NewSet(3))
	st, err := i.Status("rt")
	if err != nil || !hasPromise(st, guaranteeIdle) {
		t.Errorf("the siblings are not promised: %+v %v", st.Promises, err)
	}
	for _, other := range []Spec{
		{ID: "other", Class: Realtime, CPUs: hardware.NewSet(3)},
		{ID: "other", Class: Realtime, CPUs: hardware.NewSet(1), Idle: hardware.NewSet(2)},
	} {
		if err := i.Prepare(other); !errors.Is(err, ErrTaken) {
			t.Errorf("%+v: got %v, want %v", other, err, ErrTaken)
		}
	}
	if err := i.Prepare(Spec{ID: "other", Class: Realtime, CPUs: hardware.NewSet(0), Idle: hardware.NewSet(1)}); !errors.Is(err, ErrNoHousekeeping) {
		t.Errorf("got %v, want %v", err, ErrNoHousekeeping)
	}
	if drifts := i.Verify(); len(drifts) != 0 {
		t.Errorf("nothing was changed by others, got %v", drifts)
	}
	if err := i.Release("rt"); err != nil {
		t.Fatal(err)
	}
	shows(t, "0-3", "cpuset.cpus.effective")
	shows(t, "", "cpuset.cpus.isolated")
	if exists("/sys/fs/cgroup/oscine.slice/realtime/rt.siblings") {
		t.Error("the siblings' cgroup is left over")
	}
}

func hasPromise(st object.IsolationStatus, what string) bool {
	for _, p := range st.Promises {
		if p.What == what {
			return p.Held
		}
	}
	return false
}
