package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/disk"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/journal"
	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/node/identity"
	"oscine.dev/oscine/internal/node/kind/model"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/node/sandbox"
	"oscine.dev/oscine/internal/node/sandbox/sandboxtest"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/pki"
)

// house is a node on a machine in memory.
type house struct {
	*Node
	box *sandboxtest.Machine
}

// fakeRuntime is the machine's, with a store of images.
type fakeRuntime struct {
	sandbox.Runtime
	mu     sync.Mutex
	images []string
	stray  []string // containers that no object has
	logs   string
}

func (r *fakeRuntime) Images(context.Context) ([]container.Image, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []container.Image
	for _, name := range r.images {
		list = append(list, container.Image{Name: name})
	}
	return list, nil
}

func (r *fakeRuntime) Import(_ context.Context, tarball io.Reader) ([]container.Image, error) {
	name, err := io.ReadAll(tarball)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.images = append(r.images, string(name))
	return []container.Image{{Name: string(name)}}, err
}

func (r *fakeRuntime) Pull(_ context.Context, ref string, _ container.Login, _ func(string)) (container.Image, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.images = append(r.images, ref)
	return container.Image{Name: ref}, nil
}

func (r *fakeRuntime) RemoveImage(_ context.Context, ref string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.images = slices.DeleteFunc(r.images, func(name string) bool { return name == ref })
	return nil
}

func (r *fakeRuntime) Status(ctx context.Context, id string) (container.Status, error) {
	st, err := r.Runtime.Status(ctx, id)
	st.LogPath = filepath.Join(r.logs, id+".log")
	return st, err
}

func (r *fakeRuntime) Delete(ctx context.Context, id string) error {
	r.mu.Lock()
	r.stray = slices.DeleteFunc(r.stray, func(s string) bool { return s == id })
	r.mu.Unlock()
	return r.Runtime.Delete(ctx, id)
}

func (r *fakeRuntime) List(context.Context) ([]container.Status, error) {
	var list []container.Status
	for _, id := range r.stray {
		list = append(list, container.Status{ID: id})
	}
	return list, nil
}

func (r *fakeRuntime) CopyIn(context.Context, string, string, io.Reader) error { return nil }
func (r *fakeRuntime) CopyOut(_ context.Context, _, name string, w io.Writer) error {
	_, err := io.WriteString(w, name)
	return err
}
func (r *fakeRuntime) Missing() []string { return []string{"quotas"} }
func (r *fakeRuntime) Close() error      { return nil }

// twoGPUs maps a machine with eight CPUs and two GPUs.
func twoGPUs() *hardware.Machine {
	all := hardware.NewSet(0, 1, 2, 3, 4, 5, 6, 7)
	m := &hardware.Machine{
		Online: all, Allowed: all, Present: all,
		Nodes: []hardware.Node{{CPUs: all, Own: all, Bytes: 16 << 30, Memory: "DRAM", Allowed: true, Distance: []int{10}}},
	}
	for _, id := range all.IDs() {
		m.CPUs = append(m.CPUs, hardware.CPU{ID: id, Core: id, Kind: -1, Allowed: true})
	}
	for _, id := range []string{"gpu0", "gpu1"} {
		m.Accelerators = append(m.Accelerators, hardware.Accelerator{
			ID: id, Kind: "gpu", Bus: "pci", Address: "0000:0" + id[3:] + ":00.0", Driver: "nvidia", Health: hardware.Health{State: "ok"},
			DeviceNodes: []string{"/dev/nvidia" + id[3:]},
		})
	}
	return m
}

func newHouse(t *testing.T) *house {
	t.Helper()
	dir := t.TempDir()
	hw := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(hw, "proc/self"), 0o700), os.MkdirAll(filepath.Join(hw, "sys"), 0o700)); err != nil {
		t.Fatal(err)
	}
	found := twoGPUs()
	var err error
	h := &house{box: sandboxtest.New(t)}
	log := slog.New(slog.DiscardHandler)
	n := &Node{
		damage: newDamage(),
		config: Config{Mode: Hosted, Version: "test", StateDir: dir, RunDir: dir, LogDir: dir, Kinds: object.Kinds(), Logger: log},
		log:    log, machine: &object.Machine{},
		runtime: &fakeRuntime{Runtime: h.box.Runtime, images: []string{"docker.io/library/x:latest"}, stray: []string{"workload-stray"}, logs: dir},
	}
	h.Node = n
	n.openRegistry()
	n.machine.Spec.API.Port = 7443
	n.life, n.end = context.WithCancel(t.Context())
	var errs []error
	keep := func(err error) { errs = append(errs, err) }
	authority, err := pki.NewAuthority("test")
	keep(err)
	own, err := pki.NewNode(authority, "test", nil)
	keep(err)
	n.identity, err = identity.Open(filepath.Join(dir, identityFile), object.MachineAPI{CA: string(authority.Certificate), Certificate: string(own.Certificate), Key: string(own.Key)}, log)
	keep(err)
	n.openUpgrades()
	n.isolator, err = isolate.Open(isolate.Options{Root: hw, Logger: log})
	keep(err)
	n.store, err = reconcile.OpenStore(filepath.Join(dir, "state.db"), n.config.Kinds)
	keep(err)
	n.events = reconcile.OpenEvents(t.Context(), n.systemLog(eventJournal), time.Now, log)
	n.packs, err = pack.OpenStore(filepath.Join(dir, "packs"), filepath.Join(dir, "mounts"), nil)
	keep(err)
	n.drivers = allocate.NewDrivers(n.packs, log)
	m := n.drivers.Complete(t.Context(), found)
	n.placer, err = allocate.NewPlacer(m, "test", log)
	keep(err)
	n.shares, err = allocate.OpenShares(filepath.Join(dir, "devices"), n.drivers, n.askDrivers, log)
	keep(err)
	n.disk, err = disk.Open[object.Key](dir)
	keep(err)
	n.files, err = model.OpenFiles(filepath.Join(dir, "models"), func() error { return nil }, log)
	keep(err)
	n.live = hardware.NewLive(hw, func(*hardware.Machine) map[string]hardware.DeviceLoad { return nil })
	n.live.Set(m, nil)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	n.box = sandbox.New(sandbox.Options{
		Placer: n.placer, Store: placements{n}, Shares: h.box.Shares, Network: h.box.Network, Isolator: h.box.Isolator, Runtime: n.runtime, Log: log,
		Displace: func(names map[string]error) { n.loop.Displace(names) }, Freed: func() { n.loop.Wake(nil) },
		MakeRoom: n.makeRoom,
	})
	if err := n.takeUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// apply applies a workload of this spec.
func (h *house) apply(t *testing.T, name, spec string) error {
	t.Helper()
	objects, err := h.Kinds().Parse(strings.NewReader("apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: " + name + "}\nspec: {image: x" + spec + "}\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Apply(t.Context(), objects, ApplyOptions{})
	return err
}

// await waits until an object is in a phase.
func (h *house) await(t *testing.T, key object.Key, phase object.Phase) {
	t.Helper()
	reached := errors.New("reached")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	last := ""
	err := h.Watch(ctx, key.Kind, key.Name, func(_ string, s object.State) error {
		if s.Status != nil {
			o := s.Status.Common()
			if last = fmt.Sprint(o.Phase, " ", o.Message); o.Phase == phase {
				return reached
			}
		}
		return nil
	})
	if !errors.Is(err, reached) {
		t.Fatalf("%s is %s, want %s", key, last, phase)
	}
}

func web() object.Key { return object.Key{Kind: object.KindWorkload, Name: "web"} }

func TestLifeOfAnObject(t *testing.T) {
	h := newHouse(t)
	if err := h.apply(t, "web", ", ports: [{port: 80, hostPort: 8080}], resources: {cpu: '1', devices: [{name: gpu, selector: 'device.attributes[\"oscine.dev\"].kind == \"gpu\"', count: 1}]}"); err != nil {
		t.Fatal(err)
	}
	h.await(t, web(), object.Running)
	states, err := h.Get("", "")
	if err != nil || len(states) != 1 || states[0].Status.Common().CreatedAt == nil {
		t.Fatalf("%v, %v", states, err)
	}
	if got := h.wantedPorts()["workload-web"]; len(got) != 1 || got[0].HostPort != 8080 {
		t.Errorf("ports %v", got)
	}
	for port, want := range map[string]string{"8080": "tcp/8080 is taken by Workload/web", "7443": "the node's API"} {
		if err := h.apply(t, "other", ", ports: [{port: 80, hostPort: "+port+"}]"); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("port %s: got %v", port, err)
		}
	}

	// Its GPU is lost: it is told, and placed again.
	gpu := states[0].Status.Common().Placement.Devices[0]
	before := h.drivers.Machine()
	after, err := before.Clone()
	if err != nil {
		t.Fatal(err)
	}
	for i := range after.Accelerators {
		if after.Accelerators[i].ID == gpu {
			after.Accelerators[i].Health = hardware.Health{State: "lost", Reasons: []string{"gone from the bus"}}
		}
	}
	h.hardwareFound(t.Context(), after, nil)
	h.await(t, web(), object.Running)
	var told []string
	if err := h.Events(t.Context(), EventQuery{Kind: object.KindWorkload, Name: "web"}, func(e Event) error {
		told = append(told, e.Reason)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Started", "DeviceLost", "Displaced"} {
		if !slices.Contains(told, want) {
			t.Errorf("events %q lack %s", told, want)
		}
	}
	if err := h.Delete(t.Context(), web()); err != nil {
		t.Error(err)
	}
	if err := h.Delete(t.Context(), web()); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted again: %v", err)
	}
	if left := h.box.Left(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestRefusals(t *testing.T) {
	h := newHouse(t)
	bad := object.Key{Kind: "Pod", Name: "x"}
	_, getErr := h.Get("Pod", "")
	for name, err := range map[string]error{
		"get": getErr, "delete": h.Delete(t.Context(), bad), "watch": h.Watch(t.Context(), "Pod", "", nil), "events": h.Events(t.Context(), EventQuery{Kind: "Pod"}, nil),
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s of a kind that is not there: got %v, want ErrInvalid", name, err)
		}
	}
	if _, err := h.Get("", "nobody"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	m := &object.Model{Header: object.Header{Kind: object.KindModel, Metadata: object.Metadata{Name: "digits"}}}
	m.Spec.Source = "sha256:" + strings.Repeat("0", 64)
	if _, err := h.Apply(t.Context(), []object.Object{m}, ApplyOptions{}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "upload it with oscine serve FILE") {
		t.Errorf("a model without its file: %v", err)
	}
	machine := &object.Machine{Header: object.Header{Kind: object.KindMachine, Metadata: object.Metadata{Name: "n"}}}
	if _, err := h.Apply(t.Context(), []object.Object{machine}, ApplyOptions{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a Machine: %v", err)
	}
	if err := h.Reboot(false); !errors.Is(err, ErrConflict) {
		t.Errorf("reboot: %v", err)
	}
	if err := h.RemovePack(t.Context(), "nobody"); !errors.Is(err, ErrNotFound) || strings.Contains(err.Error(), "install its pack") {
		t.Errorf("remove a pack that is not there: %v", err)
	}
	if _, err := h.InstallPack(t.Context(), strings.NewReader("no pack"), pki.Signature{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("install what is no pack: %v", err)
	}
	if packs, err := h.Packs(); err != nil || len(packs) != 0 {
		t.Errorf("packs: %v, %v", packs, err)
	}
}

func TestModelFilesAreReferredTo(t *testing.T) {
	h := newHouse(t)
	digest, size, err := h.UploadModel(t.Context(), strings.NewReader("weights"), model.Upload{})
	if err != nil || size != 7 {
		t.Fatal(digest, size, err)
	}
	m := &object.Model{Header: object.Header{Kind: object.KindModel, Metadata: object.Metadata{Name: "digits"}}}
	m.Spec.Source = digest
	m.SetDefaults()
	if _, err := h.Apply(t.Context(), []object.Object{m}, ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	h.await(t, m.Key(), object.Waiting) // no pack reads it
	if referred, known := h.referredFiles(); !known || !referred[digest] {
		t.Errorf("referred: %v, %v", referred, known)
	}
	h.retryModels()
	if err := h.Delete(t.Context(), m.Key()); err != nil {
		t.Error(err)
	}
	if referred, _ := h.referredFiles(); len(referred) != 0 {
		t.Errorf("after its deletion: %v", referred)
	}
}

func TestImagesAndExec(t *testing.T) {
	h := newHouse(t)
	if err := h.apply(t, "web", ""); err != nil {
		t.Fatal(err)
	}
	h.await(t, web(), object.Running)
	if err := h.RemoveImage(t.Context(), "x"); !errors.Is(err, ErrConflict) {
		t.Errorf("removed an image that is used: %v", err)
	}
	if _, err := h.ImportImage(t.Context(), strings.NewReader("docker.io/library/y:1")); err != nil {
		t.Fatal(err)
	}
	if im, err := h.PullImage(t.Context(), "docker.io/library/z:1", nil); err != nil || im.Name != "docker.io/library/z:1" {
		t.Errorf("pulled %v, %v", im, err)
	}
	if err := h.RemoveImage(t.Context(), "y:1"); err != nil {
		t.Error(err)
	}
	if err := h.RemoveImage(t.Context(), "y:1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed again: %v", err)
	}
	if list, err := h.Images(t.Context()); err != nil || len(list) != 2 {
		t.Errorf("images %v, %v", list, err)
	}
	h.box.Exec(func(e container.Exec) (int, error) { return len(e.Args), nil })
	resize := make(chan TerminalSize)
	close(resize)
	if code, err := h.Exec(t.Context(), "web", ExecOptions{Command: []string{"a", "b"}, Resize: resize}); code != 2 || err != nil {
		t.Errorf("exec: %d, %v", code, err)
	}
	var out bytes.Buffer
	if err := errors.Join(h.CopyIn(t.Context(), "web", "/", nil), h.CopyOut(t.Context(), "web", "/etc", &out)); err != nil || out.String() != "/etc" {
		t.Errorf("copy: %v, %q", err, out.String())
	}
	if _, err := h.Exec(t.Context(), "nobody", ExecOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("exec in nobody: %v", err)
	}
	h.box.Fail("Start", errors.New("not now"))
	h.box.End("workload-web", 1, false)
	h.await(t, web(), object.Waiting)
	if err := h.CopyIn(t.Context(), "web", "/", nil); !errors.Is(err, ErrConflict) {
		t.Errorf("copy into one that has ended: %v", err)
	}
}

// The daemon's own log has no end, whatever a workload is called.
func TestSystemLogGoesOn(t *testing.T) {
	h := newHouse(t)
	for _, path := range []string{"oscined", "workload-oscined"} {
		w := journal.Open(h.systemLog(path), 1<<20)
		if err := errors.Join(w.Append(journal.Line{Time: time.Now(), Stream: journal.Stdout, Text: "hello"}), w.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.apply(t, "oscined", ", restart: never"); err != nil {
		t.Fatal(err)
	}
	key := object.Key{Kind: object.KindWorkload, Name: "oscined"}
	h.await(t, key, object.Running)
	h.box.End("workload-oscined", 0, false)
	h.await(t, key, object.Exited)
	lines := 0
	count := func(LogLine) error { lines++; return nil }
	if err := h.Logs(t.Context(), object.KindWorkload, "oscined", LogQuery{Follow: true}, count); err != nil || lines != 1 {
		t.Errorf("the log of a workload that has ended: %d lines, %v; want one and an end", lines, err)
	}
	if err := h.Logs(t.Context(), object.KindWorkload, "oscined", LogQuery{}, count); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer cancel()
	if err := h.Logs(ctx, "", "oscined", LogQuery{Follow: true}, count); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("following the daemon's log ended with %v", err)
	}
	for name, want := range map[string]error{"../../etc": ErrInvalid, "nobody": ErrNotFound} {
		if err := h.Logs(t.Context(), "", name, LogQuery{}, nil); !errors.Is(err, want) {
			t.Errorf("log of %s: got %v, want %v", name, err, want)
		}
	}
	if err := h.Logs(t.Context(), object.KindWorkload, "nobody", LogQuery{}, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("log of nobody: %v", err)
	}
}

// classes are the limits of a Machine file that has one.
func (h *house) classes() isolate.Slices {
	h.machine.Spec.Classes.Batch.CPUWeight = 7
	return classLimits(h.machine.Spec.Classes)
}

func TestWatchHardwareRefuses(t *testing.T) {
	n := &Node{live: hardware.NewLive(sysRoot, nil)}
	if err := n.WatchHardware(t.Context(), time.Millisecond, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("a load every millisecond: got %v, want ErrInvalid", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	var watchers sync.WaitGroup
	refused := make(chan error, 100)
	for range cap(refused) {
		watchers.Go(func() {
			if err := n.WatchHardware(gone, 0, nil); !errors.Is(err, context.Canceled) {
				refused <- err
			}
		})
	}
	if err := <-refused; !errors.Is(err, ErrConflict) {
		t.Errorf("100 watchers: got %v, want ErrConflict", err)
	}
	cancel()
	watchers.Wait()
	if err := n.WatchHardware(gone, 0, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a watcher that left: got %v", err)
	}
}
