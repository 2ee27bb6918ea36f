package model

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/pack"
)

// TestKernelDriver has a model with a GPU whose driver a pack's libraries cannot
// use: the pack is left out, and where it is the only one its reason is the model's.
func TestKernelDriver(t *testing.T) {
	b := newBench(t)
	m := b.upload(t, "weights")
	c := b.c.(*controller)
	w := &work{model: m, digest: m.Spec.Source, key: digits, placement: &allocate.Placement{Devices: []string{"oscine.dev/gpu=gpu0"}}}
	cuda := func(least string) pack.Info {
		return pack.Info{Manifest: pack.Manifest{Name: "cuda", Requires: pack.Requires{Devices: []string{"oscine.dev/gpu"}, KernelDrivers: map[string]string{"nvidia": least}}}}
	}
	b.packs = []pack.Info{cuda("580")}
	if _, err := c.candidates(w); err == nil || !strings.Contains(err.Error(), "nvidia 580 or newer; gpu0 has 550.163.01: install a newer driver") {
		t.Errorf("got %v", err)
	}
	b.packs = []pack.Info{cuda("580"), {Manifest: pack.Manifest{Name: "plain"}}, cuda("550")}
	usable, err := c.candidates(w)
	if names := []string{usable[0].Name, usable[1].Name}; err != nil || len(usable) != 2 || !slices.Equal(names, []string{"cuda", "plain"}) {
		t.Errorf("got %v, %v", names, err)
	}
}

// A worker of an earlier daemon that runs from a pack found damaged meanwhile is stopped,
// so that it is not taken over once the pack is good.
func TestWorkerOfDamagedPack(t *testing.T) {
	b := newBench(t)
	m := b.upload(t, "weights")
	if err := b.c.Up(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if _, err := b.served.Instances[0].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(b.Running()) != 1 {
		t.Fatalf("running: %v", b.Running())
	}
	b.c, b.served = b.next(digits), nil
	for range 2 {
		b.noMount = fmt.Errorf("mount the pack: %w", pack.ErrDamaged)
		if err := b.c.Up(t.Context(), m); !errors.Is(err, pack.ErrDamaged) {
			t.Errorf("up: %v", err)
		}
		if len(b.Running()) != 0 {
			t.Errorf("running still: %v", b.Running())
		}
	}
	b.noMount = nil
	if err := b.c.Up(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if _, err := b.served.Instances[0].Start(t.Context()); err != nil || len(b.Running()) != 1 {
		t.Errorf("started again: %v, running: %v", err, b.Running())
	}
}

// TestDriverLibraries has the worker of a model with a device find the libraries
// that come with it.
func TestDriverLibraries(t *testing.T) {
	for _, devices := range [][]string{nil, {"oscine.dev/gpu=gpu0"}} {
		b := newBench(t)
		m := b.upload(t, "weights")
		if err := b.c.Up(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		c := b.c.(*controller)
		c.live.placement.Devices = devices
		if _, err := c.start(t.Context(), c.live); err != nil {
			t.Fatal(err)
		}
		if env := b.Running()["model-digits"].Env; slices.Contains(env, "LD_LIBRARY_PATH=/usr/local/nvidia/lib64") != (devices != nil) {
			t.Errorf("with devices %q: environment %q", devices, env)
		}
	}
}
