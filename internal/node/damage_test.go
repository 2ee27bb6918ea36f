package node

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
)

// record lays the record of a pack that was found damaged on the disk.
func (h *house) record(t *testing.T, source string) {
	t.Helper()
	digest := strings.Repeat("ab", 32)
	text, err := json.Marshal(map[string]any{
		"digest": "sha256:" + digest, "damaged": time.Now(), "source": source,
		"manifest": pack.Manifest{Name: "e", Version: "1", Arch: "amd64", Drivers: []string{"d"}},
	})
	if err == nil {
		err = os.WriteFile(filepath.Join(h.config.StateDir, "packs", "e.json"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (h *house) told(t *testing.T) (messages []string) {
	t.Helper()
	if err := h.Events(t.Context(), EventQuery{}, func(e Event) error {
		if e.Reason == reasonPackDamaged || e.Reason == reasonPackRepaired {
			messages = append(messages, e.Reason+" "+e.Message)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return messages
}

// A damaged pack is told once, with the next step.
func TestDamagedPackIsTold(t *testing.T) {
	h := newHouse(t)
	h.record(t, "")
	h.checkPacks(t.Context())
	h.checkPacks(t.Context())
	got := h.told(t)
	if len(got) != 1 || !strings.Contains(got[0], "PackDamaged the file of the pack e is damaged") || !strings.Contains(got[0], "oscine pack install FILE") {
		t.Errorf("events: %q", got)
	}
	if _, _, err := h.packs.Mount("e"); err == nil {
		t.Error("a damaged pack was mounted")
	}
	// Another one is installed in its place.
	h.packInstalled(&pack.Info{Manifest: pack.Manifest{Name: "e"}, Digest: "sha256:1"})
	h.packInstalled(&pack.Info{Manifest: pack.Manifest{Name: "e"}, Digest: "sha256:1"})
	if got := h.told(t); len(got) != 2 || !strings.Contains(got[1], "PackRepaired the pack e is good again") {
		t.Errorf("events: %q", got)
	}
}

// It is fetched again where its source is known; what fails is tried again, at longer
// and longer intervals.
func TestDamagedPackIsFetched(t *testing.T) {
	h := newHouse(t)
	h.record(t, "localhost:1/packs/e@sha256:"+strings.Repeat("cd", 32))
	h.checkPacks(t.Context())
	h.checkPacks(t.Context())
	got := h.told(t)
	if len(got) != 2 || !strings.Contains(got[0], "the node fetches it again") || !strings.Contains(got[1], "cannot be fetched again") || !strings.Contains(got[1], "the next try is in 30s") {
		t.Errorf("events: %q", got)
	}
	known := h.damage.packs["e"]
	for range 20 {
		known.next = time.Now().Add(-time.Second)
		h.checkPacks(t.Context())
	}
	if known.wait != lastRefetch {
		t.Errorf("the wait grows to %v, want %v", known.wait, lastRefetch)
	}
}

// What is damaged again soon after it was made good waits like what could not be fetched;
// after an hour without damage it is fetched at once.
func TestDamagedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDamage()
		p := &pack.Info{Manifest: pack.Manifest{Name: "e"}, Digest: "sha256:1"}
		for _, whole := range []bool{false, true} {
			for i, wait := range []time.Duration{0, 30 * time.Second, time.Minute, 2 * time.Minute} {
				began := time.Now()
				if !d.found(p, whole) || d.found(p, whole) {
					t.Errorf("whole %v: damage %d is not new once", whole, i)
				}
				for {
					if _, ok := d.due("e", !whole); ok {
						t.Fatalf("whole %v: damage %d is due as the other kind", whole, i)
					}
					if _, ok := d.due("e", whole); ok {
						break
					}
					time.Sleep(time.Second)
				}
				if waited := time.Since(began); waited != wait {
					t.Errorf("whole %v: damage %d waited %v, want %v", whole, i, waited, wait)
				}
				if d.repaired("e") != p.Digest || d.repaired("e") != "" {
					t.Errorf("whole %v: damage %d is not repaired once", whole, i)
				}
			}
			time.Sleep(forgetDamage + time.Second)
		}
	})
}

// Workloads that run from a pack are told, and restarted when it is good again.
func TestDamagedPackOfWorkload(t *testing.T) {
	h := newHouse(t)
	objects, err := h.Kinds().Parse(strings.NewReader("apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: job}\nspec: {pack: e}\n"))
	if err == nil {
		_, err = h.Apply(t.Context(), objects, ApplyOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	h.record(t, "")
	h.checkPacks(t.Context())
	h.packInstalled(&pack.Info{Manifest: pack.Manifest{Name: "e"}, Digest: "sha256:1"})
	var got []string
	if err := h.Events(t.Context(), EventQuery{}, func(e Event) error {
		if e.Kind == object.KindWorkload && e.Name == "job" && strings.HasPrefix(e.Reason, "Pack") {
			got = append(got, e.Reason)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{reasonPackDamaged, reasonPackRepaired}; !slices.Equal(got, want) {
		t.Errorf("the workload was told %q, want %q", got, want)
	}
}

// onPack is the controller of what runs from the pack of a digest.
type onPack struct{ digest string }

func (*onPack) Up(context.Context, object.Object) error { return nil }
func (*onPack) Attend(ctx context.Context, _ object.Object) error {
	<-ctx.Done()
	return ctx.Err()
}
func (*onPack) Stop(context.Context, object.Object) error   { return nil }
func (*onPack) Halt(context.Context, object.Object) error   { return nil }
func (*onPack) Remove(context.Context, object.Object) error { return nil }
func (c *onPack) Status(seen object.Observed) object.Status {
	return &object.ModelStatus{Observed: seen, Pack: c.digest}
}

// A model that runs from a damaged pack is told when another version took its place, too.
func TestDamagedPackOfModel(t *testing.T) {
	damaged := &pack.Info{Manifest: pack.Manifest{Name: "e"}, Digest: "sha256:1"}
	controllers := map[object.Kind]reconcile.NewController{}
	for _, row := range object.Kinds().Stored() {
		controllers[row.Kind] = func(object.Key, reconcile.Reporter) reconcile.Controller { return &onPack{damaged.Digest} }
	}
	n, err := OpenWithoutKernel(t.Context(), t.TempDir(), object.Kinds(), &object.Machine{}, controllers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.CloseWithoutKernel(); err != nil {
			t.Error(err)
		}
	})
	n.damage = newDamage()
	objects, err := n.Kinds().Parse(strings.NewReader("apiVersion: oscine.dev/v1\nkind: Model\nmetadata: {name: m}\nspec: {source: 'oci://registry.example/m:1'}\n"))
	if err == nil {
		_, err = n.loop.Apply(t.Context(), objects, false, func([]object.Object) error { return nil }, func([]reconcile.Result) {})
	}
	if err != nil {
		t.Fatal(err)
	}
	n.damage.found(damaged, false)
	n.packRepaired(&pack.Info{Manifest: damaged.Manifest, Digest: "sha256:2"})
	told := 0
	if err := n.Events(t.Context(), EventQuery{Kind: object.KindModel, Name: "m"}, func(e Event) error {
		if e.Reason == reasonPackRepaired {
			told++
		}
		return nil
	}); err != nil || told != 1 {
		t.Errorf("the model was told %d times, %v, want once", told, err)
	}
}

// Packs are looked at when the kernel announces a change of a mapping, and for no other
// device.
func TestMappingChanged(t *testing.T) {
	events := []hardware.Event{
		{Action: "change", Subsystem: "block", Path: "/devices/virtual/block/dm-1"},
		{Action: "add", Subsystem: "block", Path: "/devices/virtual/block/dm-1"},
		{Action: "change", Subsystem: "block", Path: "/devices/virtual/block/loop0"},
		{Action: "change", Subsystem: "net", Path: "/devices/virtual/net/dm-1"},
	}
	var got []bool
	for _, e := range events {
		got = append(got, mappingChanged(e))
	}
	if want := []bool{true, false, false, false}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	synctest.Test(t, func(t *testing.T) {
		d := newDamage()
		ctx, cancel := context.WithCancel(t.Context())
		looked := 0
		listed := make(chan hardware.Event)
		go d.watch(ctx, listed, func() { looked++ })
		synctest.Wait()
		d.wake()
		synctest.Wait()
		listed <- events[0]
		listed <- events[2]
		synctest.Wait()
		if looked != 3 {
			t.Errorf("looked %d times at first, when woken and after an event, want 3", looked)
		}
		close(listed)
		time.Sleep(damageInterval + time.Second)
		if looked != 4 {
			t.Errorf("looked %d times without events, want 4", looked)
		}
		cancel()
	})
}
