package schedext

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/bench/guest"
	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/isolate"
)

// TestMain lets the test program be the tests, the init of a guest, and a
// measuring process there.
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

func TestObjectIsWhole(t *testing.T) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"deadlines", "classes", "cpus", "oscine"} {
		if spec.Maps[name] == nil {
			t.Errorf("the object lacks the map %s", name)
		}
	}
	if got := spec.Maps["deadlines"].ValueSize; got != 16 {
		t.Errorf("a slot has %d bytes, want 16", got)
	}
}

func TestInMachine(t *testing.T) {
	if os.Getenv("OSCINE_VM_TESTS") != "1" {
		t.Skip("boots a machine: set OSCINE_VM_TESTS=1, or use make test")
	}
	if guest.Inside() {
		t.Skip("is inside one")
	}
	program := filepath.Join(t.TempDir(), "schedext.test")
	build := exec.Command("go", "test", "-c", "-ldflags", "-s -w", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the test program: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute)
	defer cancel()
	err := guest.Run(ctx, guest.Options{
		Init: program, CPUs: "2", Memory: 1024, Args: []string{"-test.v", "-test.timeout=4m", "-test.run=^TestKernel"},
	}, testLog{t})
	if err != nil {
		t.Fatal(err)
	}
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}

func TestKernelSchedulerRunsTheClasses(t *testing.T) {
	if !guest.Inside() {
		t.Skip("changes the whole machine: runs inside the guest of TestInMachine")
	}
	iso, err := isolate.Open(isolate.Options{Own: true})
	if err != nil {
		t.Fatal(err)
	}
	const slice = "/sys/fs/cgroup/oscine.slice/"
	o := Options{System: slice + "system", Interactive: slice + "interactive", Batch: slice + "batch", Pin: "/sys/fs/bpf/oscine/scheduler"}
	s, err := Start(o)
	if err != nil {
		var verifier *ebpf.VerifierError
		if errors.As(err, &verifier) {
			t.Logf("%+v", verifier)
		}
		t.Fatal(err)
	}
	if !s.Running() {
		t.Fatal("the scheduler does not run")
	}
	if _, err := Start(o); !errors.Is(err, ErrOccupied) {
		t.Errorf("a second scheduler: got %v, want %v", err, ErrOccupied)
	}
	if err := s.SetDeadline(unix.Gettid(), 1); err != nil {
		t.Error(err)
	}
	wait, share := contend(t, iso)
	t.Logf("beside four batch spinners: p99 wake-up %v, batch had %.0f %% of the machine", wait, share*100)
	if !s.Running() {
		t.Error("the kernel's watchdog took the scheduler out")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if state, err := State(); err != nil || state != "disabled" {
		t.Errorf("after Close: got %q %v", state, err)
	}
}

// contend runs an interactive worker beside batch spinners.
func contend(t *testing.T, iso *isolate.Isolator) (p99 time.Duration, share float64) {
	t.Helper()
	start := func(s isolate.Spec, task latency.Child) *latency.Process {
		if err := iso.Prepare(s); err != nil {
			t.Fatal(err)
		}
		p, err := latency.Start(t.Context(), []string{"/proc/self/exe", "child"}, iso.Cgroup(s.ID), task)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		if err := errors.Join(iso.Apply(s.ID, p.PID), p.Begin()); err != nil {
			t.Fatal(err)
		}
		return p
	}
	load := start(isolate.Spec{ID: "b", Class: isolate.Batch}, latency.Child{Load: &latency.Load{Threads: 4}})
	worker := start(isolate.Spec{ID: "i", Class: isolate.Interactive}, latency.Child{Worker: &latency.Worker{Duration: 3 * time.Second, Work: time.Millisecond}})
	var w latency.WorkerReport
	var l latency.LoadReport
	if err := errors.Join(worker.Wait(&w), load.End(&l)); err != nil {
		t.Fatal(err)
	}
	return w.Histogram.Quantile(.99), float64(l.CPUTime) / float64(2*l.Elapsed)
}
