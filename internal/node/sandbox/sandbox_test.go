package sandbox_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/node/sandbox"
	"oscine.dev/oscine/internal/node/sandbox/sandboxtest"
	"oscine.dev/oscine/internal/object"
)

func workload(t *testing.T, name, spec string) *object.Workload {
	t.Helper()
	objects, err := object.Kinds().Parse(strings.NewReader("apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: " + name + "}\nspec: {image: x, " + spec + "}\n"))
	if err != nil {
		t.Fatal(err)
	}
	return objects[0].(*object.Workload)
}

const exclusive = "class: interactive, resources: {cpu: '2', cpuPolicy: exclusive, memory: 64Mi}"

// start places and starts a workload.
func start(t *testing.T, m *sandboxtest.Machine, w *object.Workload) container.Status {
	t.Helper()
	p, err := m.Place(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.Attach(t.Context(), w.Key(), w.Spec.Ports, false); err != nil {
		t.Fatal(err)
	}
	now, err := m.Start(t.Context(), sandbox.Run{Object: w, Placement: p, Spec: container.Spec{Image: w.Spec.Image, Env: []string{"A=1"}}, KeepMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	return now
}

func TestStartTellsTheKernelFirst(t *testing.T) {
	m := sandboxtest.New(t)
	w := workload(t, "web", exclusive)
	if st := m.Isolation(w.Key()); st != nil {
		t.Errorf("isolation before it starts: %+v", st)
	}
	if now := start(t, m, w); now.State != container.Running {
		t.Errorf("started: %+v", now)
	}
	spec := m.Running()["workload-web"]
	if spec.Hostname != "web" || spec.CgroupPath != "/oscine.slice/interactive/workload-web" || spec.OOMScore != 300 ||
		spec.Limits.CPUs == "" || spec.Limits.PIDs != 1024 || spec.Limits.MemoryBytes != 64<<20 || !slices.Contains(spec.Env, "A=1") {
		t.Errorf("container %+v", spec)
	}
	promise, _ := m.Promise("workload-web")
	if !promise.Exclusive || promise.CPUs.Len() != 2 || promise.MilliCPU != 2000 || promise.MemoryLow != 64<<20 || promise.Class != isolate.Interactive {
		t.Errorf("promised %+v", promise)
	}
	if m.Isolation(w.Key()) == nil {
		t.Error("no isolation is shown")
	}
	// By another manifest it is started again, by the same it goes on.
	start(t, m, w)
	if now := start(t, m, workload(t, "web", exclusive+", args: [new]")); now.Labels[sandbox.LabelManifest] == sandbox.Hash(w) {
		t.Error("it goes on by the old manifest")
	}
	if err := m.Remove(t.Context(), w.Key(), time.Second); err != nil {
		t.Fatal(err)
	}
	if left := m.Left(); len(left) != 0 {
		t.Errorf("removed, and left: %v", left)
	}
	if err := m.Remove(t.Context(), w.Key(), time.Second); err != nil {
		t.Errorf("removed again: %v", err)
	}
}

// Whatever fails, another Remove ends it and nothing is left.
func TestRemoveCanBeRepeated(t *testing.T) {
	for _, call := range []string{"Stop", "Delete", "Detach", "Release"} {
		m := sandboxtest.New(t)
		w := workload(t, "web", exclusive)
		start(t, m, w)
		m.Fail(call, errors.New("not now"))
		if err := m.Remove(t.Context(), w.Key(), time.Second); err == nil {
			t.Errorf("%s failed and nobody is told", call)
		}
		m.Fail(call, nil)
		if err := m.Remove(t.Context(), w.Key(), time.Second); err != nil || len(m.Left()) != 0 {
			t.Errorf("%s works again: %v, left %v", call, err, m.Left())
		}
	}
}

// Refusals that stand are told from failures that may pass.
func TestRefusals(t *testing.T) {
	m := sandboxtest.New(t)
	if _, err := m.Place(t.Context(), workload(t, "big", "resources: {cpu: '9', cpuPolicy: exclusive}")); !reconcile.IsRefused(err) {
		t.Errorf("nine of four CPUs: got %v, want a refusal", err)
	}
	w := workload(t, "web", exclusive)
	for call, want := range map[string]struct {
		err     error
		refused bool
	}{
		"Prepare": {isolate.ErrNoHousekeeping, true}, "Start": {errors.New("no space left"), false}, "Divide": {errors.New("the driver is busy"), false}, "Apply": {isolate.ErrOverCommitted, true},
	} {
		p, err := m.Place(t.Context(), w)
		if err != nil {
			t.Fatal(err)
		}
		m.Fail(call, want.err)
		_, err = m.Start(t.Context(), sandbox.Run{Object: w, Placement: p})
		if !errors.Is(err, want.err) || reconcile.IsRefused(err) != want.refused {
			t.Errorf("%s: got %v, refused %v", call, err, reconcile.IsRefused(err))
		}
		m.Fail(call, nil)
	}
	m.Fail("Admit", isolate.ErrOverCommitted)
	d := workload(t, "d", "class: realtime, resources: {cpu: '1', deadline: {runtime: 1ms, deadline: 5ms, period: 10ms}}")
	if _, err := m.Place(t.Context(), d); !reconcile.IsRefused(err) || !strings.Contains(err.Error(), "shorten spec.resources.deadline.runtime") {
		t.Errorf("a reservation that cannot be held: %v", err)
	}
}

// What has finished gives back its part, and objects that wait for it are woken.
func TestFinishFrees(t *testing.T) {
	m := sandboxtest.New(t)
	job := workload(t, "job", exclusive)
	start(t, m, job)
	m.End("workload-job", 0, false)
	if err := m.Finish(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	if err := m.Finish(t.Context(), job); err != nil || m.Freed() != 1 {
		t.Errorf("finished twice: %v, freed %d times", err, m.Freed())
	}
	if _, promised := m.Promise("workload-job"); promised {
		t.Error("it keeps its promise")
	}
	start(t, m, workload(t, "next", "resources: {cpu: '3', cpuPolicy: exclusive}"))
}

// The network is not compared with what is wanted while somebody is attached.
func TestRepairNetwork(t *testing.T) {
	m := sandboxtest.New(t)
	w := workload(t, "web", exclusive)
	start(t, m, w)
	err := m.RepairNetwork(context.Background(), func() map[string][]object.Port { return map[string][]object.Port{} })
	if err != nil || slices.Contains(m.Left(), "network workload-web") {
		t.Errorf("%v, left %v", err, m.Left())
	}
}

// Batch work whose place another needs is told.
func TestDisplacedAreTold(t *testing.T) {
	m := sandboxtest.New(t)
	start(t, m, workload(t, "web", exclusive))
	slow := workload(t, "slow", "class: batch, resources: {cpu: '1', cpuPolicy: exclusive}")
	start(t, m, slow)
	start(t, m, workload(t, "quick", "resources: {cpu: '1', cpuPolicy: exclusive}"))
	if told := m.Displaced(); len(told) != 1 || told["workload-slow"] == nil {
		t.Errorf("displaced %v, want slow", told)
	}
}

// A refusal frees what the object had and others can use; a failure that may pass
// frees nothing, and neither does a refusal of what still runs.
func TestOnlyRefusalsGiveUpThePlace(t *testing.T) {
	key := object.Key{Kind: object.KindWorkload, Name: "web"}
	larger := exclusive[:len(exclusive)-1] + ", priority: 1}"
	for name, c := range map[string]struct {
		fail    func(m *sandboxtest.Machine)
		next    string
		stopped bool
		kept    bool
	}{
		"the store":              {func(m *sandboxtest.Machine) { m.Fail("Store", errors.New("input/output error")) }, larger, true, true},
		"a deadline":             {func(m *sandboxtest.Machine) { m.Fail("Admit", isolate.ErrOverCommitted) }, "class: realtime, resources: {cpu: '2', memory: 64Mi, deadline: {runtime: 1ms, period: 10ms}}", true, false},
		"too large":              {nil, "resources: {cpu: '9', cpuPolicy: exclusive}", true, false},
		"too large, and it runs": {nil, "resources: {cpu: '9', cpuPolicy: exclusive}", false, true},
	} {
		m := sandboxtest.New(t)
		start(t, m, workload(t, "web", exclusive))
		if c.stopped {
			if err := m.Stop(t.Context(), key, 0); err != nil {
				t.Fatal(err)
			}
		}
		if c.fail != nil {
			c.fail(m)
		}
		if _, err := m.Place(t.Context(), workload(t, "web", c.next)); err == nil {
			t.Fatalf("%s: placed", name)
		}
		if got := slices.Contains(m.Left(), "share workload-web"); got != c.kept {
			t.Errorf("%s: its shares are kept: %t, want %t", name, got, c.kept)
		}
		if got := m.Placer.Release("workload-web"); got != c.kept {
			t.Errorf("%s: its place is kept: %t, want %t", name, got, c.kept)
		}
		if freed := m.Freed() > 0; freed == c.kept {
			t.Errorf("%s: others are told that there is room: %t", name, freed)
		}
	}
}

// Workloads with deadlines have CPUs of their own, so that no sum of those of one
// manifest passes what a CPU can keep: who finds no CPU is refused.
func TestDeadlinesOfOneManifest(t *testing.T) {
	m := sandboxtest.New(t)
	var desired []allocate.Desired
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		desired = append(desired, allocate.Desired{Object: workload(t, name, "class: realtime, resources: {cpu: '1', deadline: {runtime: 9ms, period: 10ms}}"), Changed: true})
	}
	for _, dryRun := range []bool{true, false} {
		seen, placed := map[int]bool{}, 0
		for _, outcome := range m.Allot(t.Context(), desired, false, dryRun) {
			if outcome.Placement == nil {
				if outcome.Err == nil {
					t.Error("neither placed nor refused")
				}
				continue
			}
			placed++
			for _, cpu := range outcome.Placement.CPUs {
				if seen[cpu] {
					t.Errorf("CPU %d is promised twice", cpu)
				}
				seen[cpu] = true
			}
		}
		if placed == 0 || placed == len(desired) {
			t.Errorf("dry run %t: %d of %d are placed on four CPUs", dryRun, placed, len(desired))
		}
	}
}
