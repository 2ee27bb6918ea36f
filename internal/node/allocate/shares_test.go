package allocate

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/hardware/hardwaretest"
	"oscine.dev/oscine/internal/inventory"
	"oscine.dev/oscine/internal/nvml/nvmltest"
	"oscine.dev/oscine/internal/place"
)

// gpus is a machine with two H100 whose helper is the real program, and what
// the node does with them.
type gpus struct {
	*nvmltest.Machine
	t       *testing.T
	kernel  *hardware.Machine // as the kernel has it
	m       *hardware.Machine // completed
	drivers []hardware.Driver
	shares  *Shares
	placer  *Placer
}

func newGPUs(t *testing.T, helper string, kernel *hardware.Machine) *gpus {
	t.Helper()
	g := &gpus{Machine: nvmltest.New(t, helper), t: t, kernel: kernel}
	g.refresh(t.Context())
	g.shares = g.daemon(t.TempDir())
	state, err := place.NewState(inventory.Machine(g.m, "test"))
	if err != nil {
		t.Fatal(err)
	}
	g.placer = newPlacer(slog.New(slog.DiscardHandler), state, cdiNames(g.m))
	return g
}

// daemon is what one daemon has of the devices; dir outlives it.
func (g *gpus) daemon(dir string) *Shares {
	g.t.Helper()
	s := &Shares{dir: dir, log: slog.New(slog.DiscardHandler), machine: func() *hardware.Machine { return g.m }, refresh: g.refresh,
		sharer: func(address string) *hardware.Driver {
			for i := range g.drivers {
				if slices.Contains(g.drivers[i].Devices, address) {
					return &g.drivers[i]
				}
			}
			return nil
		}}
	if err := s.load(); err != nil {
		g.t.Fatal(err)
	}
	return s
}

func (g *gpus) refresh(ctx context.Context) {
	g.t.Helper()
	m, err := g.kernel.Clone()
	if err == nil {
		g.drivers, err = hardware.AskDrivers(ctx, m, g.Program)
	}
	if err != nil || len(g.drivers) != 1 {
		g.t.Fatalf("the helper does not answer: %v, %v", err, m.Gaps)
	}
	g.m = m
}

// place gives a request a part of one of the GPUs that the stand-in has.
func (g *gpus) place(name string, class place.Class, f place.Fraction) *Placement {
	g.t.Helper()
	selector, err := place.CompileSelector(`device.attributes["resource.kubernetes.io"].pciBusID == "` + nvmltest.First + `"`)
	if err != nil {
		g.t.Fatal(err)
	}
	p, err := g.placer.state.Load().Place(g.t.Context(), place.Request{Name: name, Class: class, Devices: []place.DeviceRequest{{Name: "gpu", Selector: selector, Fraction: f}}})
	if err != nil {
		g.t.Fatalf("%s: %v", name, err)
	}
	return &Placement{Placement: p, Devices: g.placer.cdiNames(&p)}
}

func (g *gpus) start(p *Placement) error {
	return g.shares.Prepare(g.t.Context(), p.Request.Name, p, func() error { return nil })
}

// modes are MIG and the compute mode of the first GPU, in the stand-in's file.
func (g *gpus) modes() (mig, compute byte) {
	g.t.Helper()
	state, err := os.ReadFile(filepath.Join(g.Dir, "state"))
	if err != nil {
		g.t.Fatal(err)
	}
	return state[0], state[4]
}

const exclusiveProcess = 3

func TestShares(t *testing.T) {
	helper := nvmltest.Build(t, "../../..")
	dir := t.TempDir()
	if err := hardwaretest.Server8GPU().Write(dir); err != nil {
		t.Fatal(err)
	}
	kernel, err := hardware.Discover(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]func(*testing.T, *gpus){
		"partitions": sharePartitions, "MPS": shareMPS, "two by MPS": shareTwoByMPS, "needs": shareNeeds, "two partitions": shareTwoPartitions, "whole": shareWhole, "refusals": shareRefusals, "restart": shareRestart, "change": shareChange,
	} {
		t.Run(name, func(t *testing.T) { test(t, newGPUs(t, helper, kernel)) })
	}
}

func sharePartitions(t *testing.T, g *gpus) {
	first, second := g.place("a", place.Realtime, place.Fraction{Milli: 100}), g.place("b", place.Interactive, place.Fraction{Profile: "3g.40gb"})
	for _, p := range []*Placement{first, second} {
		if err := g.start(p); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([][]string{{"oscine.dev/gpu=gpu0-mig1-0"}, {"oscine.dev/gpu=gpu0-mig2-0"}}, [][]string{first.Devices, second.Devices}); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	if mig, _ := g.modes(); mig != 1 || first.Env != nil {
		t.Errorf("MIG %d, environment %v", mig, first.Env)
	}
	// What the container gets is that partition's device nodes.
	for _, spec := range hardware.CDI(g.m) {
		for _, d := range spec.Devices {
			if d.Name != "gpu0-mig1-0" {
				continue
			}
			var nodes []string
			for _, n := range d.ContainerEdits.DeviceNodes {
				nodes = append(nodes, n.Path)
			}
			if !slices.Contains(nodes, "/dev/nvidia-caps/nvidia-cap100") || !slices.Contains(nodes, "/dev/nvidia-caps/nvidia-cap101") || !slices.Contains(nodes, "/dev/nvidia0") {
				t.Errorf("device nodes %v", nodes)
			}
		}
	}
	// Placement knows which partitions are its own.
	g.placer.Existing(g.m)
	third := g.place("c", place.Batch, place.Fraction{Milli: 100})
	if third.Placement.Devices[0].Sharing != place.Partitions {
		t.Errorf("a third: %+v", third.Placement.Devices)
	}
	g.shares.Release(t.Context(), "a")
	if mig, _ := g.modes(); mig != 1 {
		t.Error("MIG is off while b has its partition")
	}
	g.shares.Release(t.Context(), "b")
	if mig, _ := g.modes(); mig != 0 || len(g.shares.held) != 0 {
		t.Errorf("after all are gone: MIG %d, held %+v", mig, g.shares.held)
	}
}

// Two partitions of one device are two devices to who has both.
func shareTwoPartitions(t *testing.T, g *gpus) {
	p, other := g.place("a", place.Interactive, place.Fraction{Profile: "1g.10gb"}), g.place("b", place.Interactive, place.Fraction{Profile: "3g.40gb"})
	p.Placement.Devices = append(p.Placement.Devices, other.Placement.Devices...)
	if err := g.start(p); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"oscine.dev/gpu=gpu0-mig1-0", "oscine.dev/gpu=gpu0-mig2-0"}, p.Devices); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
}

func shareMPS(t *testing.T, g *gpus) {
	front, back := g.place("front", place.Interactive, place.Fraction{Milli: 400, Memory: 20 << 30}), g.place("back", place.Batch, place.Fraction{Milli: 250, Memory: 8 << 30})
	for _, p := range []*Placement{front, back} {
		if err := g.start(p); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"CUDA_MPS_PIPE_DIRECTORY=/run/nvidia-mps", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=25", "CUDA_MPS_CLIENT_PRIORITY=1", "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=8192M"}
	if diff := cmp.Diff(want, back.Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	pipe := filepath.Join(g.shares.dir, "gpu0", "pipe")
	mounts := []hardware.ShareMount{{Source: pipe, Target: "/run/nvidia-mps"}, {Source: filepath.Join(g.shares.dir, "gpu0", "shm"), Target: "/dev/shm"}}
	if diff := cmp.Diff(mounts, back.Mounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	if _, compute := g.modes(); compute != exclusiveProcess {
		t.Errorf("compute mode %d, want that nobody goes past MPS", compute)
	}
	log := func() string {
		text, err := os.ReadFile(filepath.Join(g.shares.dir, "gpu0", "log", "control.log"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if text := log(); strings.Count(text, "start ") != 1 || strings.Contains(text, "percentage 25") {
		t.Errorf("the daemon was told:\n%s\nwant one start, and limits of the largest share", text)
	}
	g.shares.Release(t.Context(), "front")
	if text := log(); !strings.Contains(text, "set_default_active_thread_percentage 25") || strings.Contains(text, "quit") {
		t.Errorf("after the larger share is gone:\n%s", text)
	}
	g.shares.Release(t.Context(), "back")
	if _, compute := g.modes(); compute != 0 || !strings.Contains(log(), "quit") {
		t.Errorf("after all are gone: compute mode %d\n%s", compute, log())
	}
}

// One process has one MPS: two are refused before anything is done.
func shareTwoByMPS(t *testing.T, g *gpus) {
	p := g.place("a", place.Interactive, place.Fraction{Milli: 250})
	p.Placement.Devices = append(p.Placement.Devices, p.Placement.Devices[0])
	if err := g.start(p); err == nil || !strings.Contains(err.Error(), "2 devices by MPS") {
		t.Errorf("got %v", err)
	}
	if _, compute := g.modes(); compute != 0 || len(g.shares.held) != 0 {
		t.Errorf("a refusal left compute mode %d, held %+v", compute, g.shares.held)
	}
}

// What two devices need alike a container gets once; what they need otherwise
// is refused by name.
func shareNeeds(t *testing.T, g *gpus) {
	p := &Placement{Placement: place.Placement{Devices: []place.DeviceGrant{{ID: "gpu0"}, {ID: "gpu1"}}}}
	answer := func(env, source string) hardware.ShareAnswer {
		return hardware.ShareAnswer{Env: []string{env}, Mounts: []hardware.ShareMount{{Source: source, Target: "/run/driver"}}}
	}
	equip := func(one, other hardware.ShareAnswer) error {
		return g.shares.equip(t.Context(), p, map[place.DeviceGrant]hardware.ShareAnswer{p.Placement.Devices[0]: one, p.Placement.Devices[1]: other})
	}
	if err := equip(answer("A=1", "/run/x"), answer("A=1", "/run/x")); err != nil || len(p.Env) != 1 || len(p.Mounts) != 1 {
		t.Errorf("alike: %v, environment %v, mounts %v", err, p.Env, p.Mounts)
	}
	for need, other := range map[string]hardware.ShareAnswer{"A": answer("A=2", "/run/x"), "/run/driver": answer("A=1", "/run/y")} {
		if err := equip(answer("A=1", "/run/x"), other); err == nil || !strings.Contains(err.Error(), "gpu0 and gpu1 together: each needs another "+need) {
			t.Errorf("another %s: got %v", need, err)
		}
	}
}

func shareWhole(t *testing.T, g *gpus) {
	for class, want := range map[place.Class]byte{place.Realtime: exclusiveProcess, place.Interactive: 0, place.Batch: 0} {
		p := g.place("a", class, place.Fraction{})
		if err := g.start(p); err != nil {
			t.Fatal(err)
		}
		if _, compute := g.modes(); compute != want || !slices.Equal(p.Devices, []string{"oscine.dev/gpu=gpu0"}) {
			t.Errorf("%s: compute mode %d, devices %v", class, compute, p.Devices)
		}
		g.shares.Release(t.Context(), "a")
		g.placer.state.Load().Release("a")
	}
	if _, compute := g.modes(); compute != 0 {
		t.Errorf("an idle GPU has compute mode %d", compute)
	}
}

// A refusal has its reason and leaves nothing behind.
func shareRefusals(t *testing.T, g *gpus) {
	p := g.place("a", place.Interactive, place.Fraction{Profile: "1g.10gb"})
	g.Fail("nvmlGpuInstanceCreateComputeInstance=23")
	if err := g.start(p); err == nil || !strings.Contains(err.Error(), "gpu0: partition was refused") || !strings.Contains(err.Error(), "no room") {
		t.Errorf("got %v", err)
	}
	g.Fail()
	if mig, _ := g.modes(); mig != 0 || len(g.shares.held) != 0 {
		t.Errorf("a refusal left MIG %d, held %+v", mig, g.shares.held)
	}
	// Who comes waits for who is being stopped.
	if err := g.start(p); err != nil {
		t.Fatal(err)
	}
	g.placer.state.Load().Release("a")
	whole := g.place("b", place.Interactive, place.Fraction{})
	if err := g.start(whole); err == nil || !strings.Contains(err.Error(), "still held by a") {
		t.Errorf("got %v", err)
	}
	// What cannot be taken back is tried again, and then free.
	g.Fail("nvmlComputeInstanceDestroy=19")
	g.shares.Release(t.Context(), "a")
	if err := g.start(whole); err == nil || !strings.Contains(err.Error(), "still held by a") {
		t.Errorf("a partition in use: got %v", err)
	}
	g.Fail()
	g.shares.Sweep(t.Context(), func(string) bool { return true })
	if err := g.start(whole); err != nil {
		t.Error(err)
	}
	g.drivers = nil
	if err := g.start(&Placement{Placement: p.Placement}); err == nil || !strings.Contains(err.Error(), "install its driver pack") {
		t.Errorf("without the helper: got %v", err)
	}
}

// A daemon that starts again takes over what is its own, and clears away what
// belongs to objects that are gone.
func shareRestart(t *testing.T, g *gpus) {
	kept, gone := g.place("kept", place.Interactive, place.Fraction{Profile: "2g.20gb"}), g.place("gone", place.Interactive, place.Fraction{Profile: "1g.10gb"})
	for _, p := range []*Placement{kept, gone} {
		if err := g.start(p); err != nil {
			t.Fatal(err)
		}
	}
	before := slices.Clone(kept.Devices)
	g.shares = g.daemon(g.shares.dir)
	g.shares.Sweep(t.Context(), func(id string) bool { return id == "kept" })
	kept.Devices = nil
	if err := g.start(kept); err != nil || !slices.Equal(before, kept.Devices) {
		t.Errorf("after the restart: %v, %v, want %v", kept.Devices, err, before)
	}
	var left []string
	for _, a := range g.m.Accelerators {
		for _, p := range a.Partitions {
			if a.Address == nvmltest.First {
				left = append(left, p.Profile)
			}
		}
	}
	if !slices.Equal(left, []string{"2g.20gb"}) {
		t.Errorf("partitions after the restart: %v", left)
	}
	// A damaged file keeps no node from starting.
	if err := os.WriteFile(filepath.Join(g.shares.dir, sharesFile), []byte("{torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.shares = g.daemon(g.shares.dir)
	if err := g.start(kept); err != nil || !slices.Equal(before, kept.Devices) {
		t.Errorf("after the file was damaged: %v, %v, want %v", kept.Devices, err, before)
	}
}

// A workload that is placed otherwise gives its old part back, stopped before.
func shareChange(t *testing.T, g *gpus) {
	p := g.place("a", place.Interactive, place.Fraction{Profile: "1g.10gb"})
	if err := g.start(p); err != nil {
		t.Fatal(err)
	}
	g.placer.state.Load().Release("a")
	other := g.place("a", place.Interactive, place.Fraction{Profile: "3g.40gb"})
	stopped := 0
	err := g.shares.Prepare(t.Context(), "a", other, func() error { stopped++; return nil })
	if err != nil || stopped != 1 || len(g.shares.held) != 1 || !slices.Equal(other.Devices, []string{"oscine.dev/gpu=gpu0-mig2-0"}) {
		t.Errorf("placed otherwise: %v, stopped %d times, held %+v, devices %v", err, stopped, g.shares.held, other.Devices)
	}
	err = g.shares.Prepare(t.Context(), "a", other, func() error { stopped++; return nil })
	if err != nil || stopped != 1 {
		t.Errorf("placed as before: %v, stopped %d times, want that it runs on", err, stopped)
	}
}
