package sandboxtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/node/sandbox"
	"oscine.dev/oscine/internal/object"
)

// Machine is a machine with four CPUs on which containers are entries in maps.
// It is safe for concurrent use.
type Machine struct {
	*sandbox.Sandbox
	Placer *allocate.Placer

	mu         sync.Mutex
	containers map[string]*running
	attached   map[string][]object.Port
	admitted   map[string]bool
	promised   map[string]isolate.Spec
	shares     map[string]bool
	placements map[string]json.RawMessage
	failing    map[string]error // by call, such as "Delete"
	freed      int
	displaced  map[string]error
	execs      func(e container.Exec) (int, error)
	graceful   bool
}

// running is a container.
type running struct {
	status container.Status
	spec   container.Spec
	ended  chan struct{}
}

// New returns an empty machine.
func New(t *testing.T) *Machine {
	t.Helper()
	all := hardware.NewSet(0, 1, 2, 3)
	hw := &hardware.Machine{Online: all, Allowed: all, Present: all, Nodes: []hardware.Node{{CPUs: all, Own: all, Bytes: 1 << 30, Memory: "DRAM", Allowed: true, Distance: []int{10}}}}
	for id := range 4 {
		hw.CPUs = append(hw.CPUs, hardware.CPU{ID: id, Core: id, Kind: -1, Allowed: true})
	}
	placer, err := allocate.NewPlacer(hw, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	m := &Machine{
		Placer: placer, containers: map[string]*running{}, attached: map[string][]object.Port{}, admitted: map[string]bool{}, promised: map[string]isolate.Spec{},
		shares: map[string]bool{}, placements: map[string]json.RawMessage{}, failing: map[string]error{}, displaced: map[string]error{},
	}
	m.Sandbox = sandbox.New(sandbox.Options{
		Placer: placer, Store: store{m}, Shares: shares{m}, Network: network{m}, Isolator: isolator{m}, Runtime: runtime{m},
		Log: slog.New(slog.DiscardHandler), Displace: m.displace, Freed: func() { m.locked(func() { m.freed++ }) },
	})
	return m
}

func (m *Machine) locked(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// Fail has a call, such as "Start" or "Delete", fail until it is given nil.
func (m *Machine) Fail(call string, err error) { m.locked(func() { m.failing[call] = err }) }

func (m *Machine) fails(call string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failing[call]
}

// Exec has f answer what is run beside containers.
func (m *Machine) Exec(f func(container.Exec) (int, error)) { m.locked(func() { m.execs = f }) }

// Graceful has programs end with exit code 0 when they are asked to.
func (m *Machine) Graceful() { m.locked(func() { m.graceful = true }) }

// End ends a container as its program does.
func (m *Machine) End(id string, code int, oom bool) {
	m.locked(func() {
		if c := m.containers[id]; c != nil {
			c.end(code, oom)
		}
	})
}

func (c *running) end(code int, oom bool) {
	if c.status.State != container.Running {
		return
	}
	c.status.State, c.status.ExitCode, c.status.OOMKilled, c.status.PID = container.Exited, code, oom, 0
	close(c.ended)
}

// Admitted reports whether an object may reach the node's API.
func (m *Machine) Admitted(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.admitted[id]
}

// Running returns the specs of what runs, by ID.
func (m *Machine) Running() map[string]container.Spec {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[string]container.Spec{}
	for id, c := range m.containers {
		if c.status.State == container.Running {
			all[id] = c.spec
		}
	}
	return all
}

// Left names all that the machine still holds.
func (m *Machine) Left() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var left []string
	for what, ids := range map[string][]string{
		"container": slices.Collect(maps.Keys(m.containers)), "network": slices.Collect(maps.Keys(m.attached)),
		"promise": slices.Collect(maps.Keys(m.promised)), "share": slices.Collect(maps.Keys(m.shares)),
	} {
		for _, id := range ids {
			left = append(left, what+" "+id)
		}
	}
	for name := range m.Placer.Shared() {
		left = append(left, "placement "+name)
	}
	slices.Sort(left)
	return left
}

// Promise returns what was set up in the kernel for an object.
func (m *Machine) Promise(id string) (isolate.Spec, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.promised[id]
	return s, ok
}

// Freed is how often there was room for others.
func (m *Machine) Freed() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.freed
}

// Displaced returns who was told that its placement is gone.
func (m *Machine) Displaced() map[string]error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.displaced)
}

func (m *Machine) displace(names map[string]error) {
	m.locked(func() { maps.Copy(m.displaced, names) })
}

type runtime struct{ m *Machine }

func (r runtime) Start(ctx context.Context, spec container.Spec) error {
	if err := r.m.fails("Start"); err != nil {
		return err
	}
	r.m.mu.Lock()
	old := r.m.containers[spec.ID]
	hash := fmt.Sprint(spec.Image, spec.RootFS, spec.Entrypoint, spec.Args, spec.Env, spec.Mounts, spec.Labels, spec.Limits)
	r.m.mu.Unlock()
	if old != nil && old.status.State == container.Running {
		if old.status.SpecHash == hash {
			r.m.locked(func() { old.spec.Files = spec.Files }) // rewritten
			return nil
		}
		return container.ErrRunning
	}
	const pid = 4711
	if spec.Created != nil {
		if err := spec.Created(ctx, pid); err != nil {
			return err
		}
	}
	r.m.locked(func() {
		r.m.containers[spec.ID] = &running{spec: spec, ended: make(chan struct{}), status: container.Status{
			ID: spec.ID, Image: spec.Image, Digest: "sha256:0", Labels: spec.Labels, State: container.Running, PID: pid,
			StartedAt: time.Now(), SpecHash: hash,
		}}
	})
	return ctx.Err()
}

func (r runtime) Stop(ctx context.Context, id string, _ time.Duration) error {
	if err := r.m.fails("Stop"); err != nil {
		return err
	}
	err := r.Kill(ctx, id, syscall.SIGTERM)
	if err == nil {
		r.m.locked(func() { r.m.containers[id].status.Stopped = true })
	}
	if errors.Is(err, container.ErrNotRunning) {
		return nil
	}
	return err
}

func (r runtime) Kill(_ context.Context, id string, signal syscall.Signal) error {
	if err := r.m.fails("Kill"); err != nil {
		return err
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	c := r.m.containers[id]
	switch {
	case c == nil:
		return container.ErrNotFound
	case c.status.State != container.Running:
		return container.ErrNotRunning
	}
	code := 128 + int(signal)
	if r.m.graceful && signal == syscall.SIGTERM {
		code = 0
	}
	c.end(code, false)
	return nil
}

func (r runtime) Clear(ctx context.Context, id string) error { return r.Delete(ctx, id) }

func (r runtime) Delete(_ context.Context, id string) error {
	if err := r.m.fails("Delete"); err != nil {
		return err
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	c := r.m.containers[id]
	if c == nil {
		return container.ErrNotFound
	}
	c.end(137, false)
	delete(r.m.containers, id)
	return nil
}

func (r runtime) Status(_ context.Context, id string) (container.Status, error) {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	if c := r.m.containers[id]; c != nil {
		return c.status, nil
	}
	return container.Status{}, container.ErrNotFound
}

func (r runtime) Wait(ctx context.Context, id string) (container.Status, error) {
	r.m.mu.Lock()
	c := r.m.containers[id]
	r.m.mu.Unlock()
	if c == nil {
		return container.Status{}, container.ErrNotFound
	}
	select {
	case <-ctx.Done():
		return container.Status{}, ctx.Err()
	case <-c.ended:
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	return c.status, nil
}

func (r runtime) Exec(_ context.Context, _ string, e container.Exec) (int, error) {
	r.m.mu.Lock()
	f := r.m.execs
	r.m.mu.Unlock()
	if f == nil {
		return 0, nil
	}
	return f(e)
}

func (r runtime) Layer(_ context.Context, id string) (string, error) { return "/layer/" + id, nil }

type network struct{ m *Machine }

func (n network) Admit(id string, admitted bool) {
	n.m.locked(func() { n.m.admitted[id] = admitted })
}

func (n network) Attach(_ context.Context, id string, ports []object.Port) (string, netip.Addr, error) {
	if err := n.m.fails("Attach"); err != nil {
		return "", netip.Addr{}, err
	}
	n.m.locked(func() { n.m.attached[id] = ports })
	return "/run/netns/" + id, netip.MustParseAddr("127.0.0.1"), nil
}

func (n network) Detach(id string) error {
	if err := n.m.fails("Detach"); err != nil {
		return err
	}
	n.m.locked(func() { delete(n.m.attached, id) })
	return nil
}

func (n network) Reconcile(_ context.Context, active map[string][]object.Port) error {
	n.m.locked(func() {
		maps.DeleteFunc(n.m.attached, func(id string, _ []object.Port) bool { _, ok := active[id]; return !ok })
	})
	return n.m.fails("Reconcile")
}

type isolator struct{ m *Machine }

func (i isolator) Admit(isolate.Reservation) error { return i.m.fails("Admit") }

func (i isolator) Prepare(s isolate.Spec) error {
	if err := i.m.fails("Prepare"); err != nil {
		return err
	}
	i.m.locked(func() { i.m.promised[s.ID] = s })
	return nil
}

func (i isolator) Apply(string, int) error { return i.m.fails("Apply") }

func (i isolator) Adopt(string, int) error { return nil }

func (i isolator) SetCPUs(id string, cpus hardware.Set) error {
	i.m.mu.Lock()
	defer i.m.mu.Unlock()
	s, ok := i.m.promised[id]
	if !ok {
		return isolate.ErrUnknown
	}
	s.CPUs = cpus
	i.m.promised[id] = s
	return nil
}

func (i isolator) Status(id string) (object.IsolationStatus, error) {
	if _, ok := i.m.Promise(id); !ok {
		return object.IsolationStatus{}, isolate.ErrUnknown
	}
	return object.IsolationStatus{}, nil
}

func (i isolator) Release(id string) error {
	i.m.locked(func() { delete(i.m.promised, id) })
	return i.m.fails("Release")
}

type shares struct{ m *Machine }

func (s shares) Prepare(_ context.Context, id string, _ *allocate.Placement, _ func() error) error {
	if err := s.m.fails("Divide"); err != nil {
		return err
	}
	s.m.locked(func() { s.m.shares[id] = true })
	return nil
}

func (s shares) Release(_ context.Context, id string) {
	s.m.locked(func() { delete(s.m.shares, id) })
}

// store keeps placements; no gang is placed with it.
type store struct{ m *Machine }

func (s store) Objects() ([]object.Object, error) { return nil, nil }

func (s store) SetPlacements(placed []allocate.Placed) error {
	s.m.locked(func() {
		for _, p := range placed {
			s.m.placements[p.Object.Key().ID()], _ = json.Marshal(p.Placement)
		}
	})
	return s.m.fails("Store")
}

func (s store) ForgetPlacement(obj object.Object) error {
	s.m.locked(func() { delete(s.m.placements, obj.Key().ID()) })
	return s.m.fails("Store")
}
