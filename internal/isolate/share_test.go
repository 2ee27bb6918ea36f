package isolate

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/hardware"
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
		if err := i.Share("s", cpus); err != nil {
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
	if err := i.Share("rt", all); !errors.Is(err, ErrInvalid) {
		t.Errorf("real-time work shares its CPU: %v", err)
	}
	if err := i.Share("nobody", all); !errors.Is(err, ErrUnknown) {
		t.Errorf("got %v, want %v", err, ErrUnknown)
	}
}

// Threads that are cloned while the others are moved come along, though the
// kernel misses some of them.
func TestKernelClonedThreadsMove(t *testing.T) {
	const mark = "OSCINE_TEST_CLONES"
	if os.Getenv(mark) == "1" {
		for range time.Tick(time.Millisecond) {
			go func() {
				runtime.LockOSThread() // so that its thread ends with it
				time.Sleep(20 * time.Millisecond)
			}()
		}
	}
	i, _ := open(t)
	all := hardware.NewSet(0, 1, 2, 3)
	s := Spec{ID: "s", Class: Interactive, CPUs: all, MilliCPU: 500}
	prepare(t, i, s)
	cloner := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$")
	cloner.Env = append(os.Environ(), mark+"=1")
	if err := cloner.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cloner.Process.Kill()
		_ = cloner.Wait() // it was killed
	}()
	if err := writeFile("/sys/fs/cgroup"+CgroupPath(s.Class, s.ID)+"/cgroup.procs", strconv.Itoa(cloner.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // until it clones
	moves, behind := 0, 0
	for began := time.Now(); time.Since(began) < 5*time.Second; {
		for _, cpus := range []hardware.Set{hardware.NewSet(0, 1), hardware.NewSet(2), all} {
			if err := i.Share("s", cpus); err != nil {
				t.Fatal(err)
			}
			moves++
			time.Sleep(5 * time.Millisecond) // what is cloned now knows its place
			if slices.ContainsFunc(threads(t, cloner.Process.Pid), func(tid string) bool {
				got := allowed(t, cloner.Process.Pid, tid)
				return got != "" && got != cpus.String()
			}) {
				behind++
			}
		}
	}
	t.Logf("%d of %d moves left a thread behind", behind, moves)
	if moves < 20 || behind > moves/100 { // the next Verify finds the rest
		t.Errorf("%d of %d moves left a thread behind", behind, moves)
	}
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

// allowed is the list of CPUs that a thread may run on, "" for one that ended.
func allowed(t *testing.T, pid int, tid string) string {
	t.Helper()
	text, err := readFile("/proc/" + strconv.Itoa(pid) + "/task/" + tid + "/status")
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
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

func hasPromise(st Status, what string) bool {
	for _, p := range st.Promises {
		if p.What == what {
			return p.Held
		}
	}
	return false
}
