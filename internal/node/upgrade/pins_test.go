package upgrade

import (
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/slot"
)

// pinned is a release with a pack and a model.
func pinned(version string, mark byte) *update.Manifest {
	m := manifest(version)
	m.Packs = []update.Pin{{Name: "engine.erofs", Path: "packs/engine.erofs", Size: 10, SHA256: update.Digest{mark}, Verity: strings.Repeat("ab", 32) + ",-,1"}}
	m.Models = []update.Pin{{Name: "digits.onnx", Path: "models/digits.onnx", Size: 20, SHA256: update.Digest{mark, 1}}}
	return m
}

func (w *world) settled(m *Manager, packs ...string) {
	w.t.Helper()
	w.await("the packs to be settled", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.Equal(slices.Sorted(maps.Keys(w.packs)), packs)
	})
	w.await("what is pinned", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.state.Packs) == len(packs)
	})
}

// TestPins has the packs and models of a release come before its slot is written,
// count when it runs, go when it fails, and stay when it is good.
func TestPins(t *testing.T) {
	w := newWorld(t)
	one := pinned("1.1", 1)
	w.offered = []*update.Manifest{one}
	pack, model := digestOf(&one.Packs[0]), digestOf(&one.Models[0])
	m := w.daemon(manual())
	plan, err := m.Plan(t.Context(), Request{})
	if err != nil {
		t.Fatal(err)
	}
	if pins := m.Pins(plan.Manifest); len(pins) != 2 || pins[0].Here || pins[1].Here || pins[0].Kind != "pack" || pins[1].Name != "digits.onnx" {
		t.Errorf("planned %+v", pins)
	}
	pins := func() bool { _, ok := m.PinsPack(pack); return ok }
	if pins() || m.PinnedModel("digits.onnx") != "" {
		t.Error("pinned before anything was asked for")
	}
	w.failing["network"] = errors.New("no address")
	start(t, m, Request{})
	w.awaitReboot()
	if verity, ok := m.PinsPack(pack); !ok || verity != one.Packs[0].Verity {
		t.Errorf("the release pins the pack: %v, with the hash tree %q", ok, verity)
	}
	if !pins() || m.PinnedModels()[model] != "1.1" || m.PinnedModel("digits.onnx") != "" {
		t.Error("fetched, and not pinned, or pinned by the release that runs still")
	}
	w.restart(true)
	m = w.daemon(manual())
	w.awaitBack()
	if m.PinnedModel("digits.onnx") != model || m.PinnedModel("other.onnx") != "" {
		t.Error("on trial: it has not the model of its release")
	}
	w.back()
	m = w.daemon(manual())
	w.awaitStage(m, Failed)
	w.settled(m)
	if pins() || len(m.PinnedModels()) != 0 {
		t.Error("failed, and still pinned")
	}

	delete(w.failing, "network")
	m = w.upgraded(m, Request{To: "1.1", Options: Options{Force: true}}, manual())
	w.awaitStage(m, Good)
	w.mu.Lock()
	if release, here := w.packs[pack]; !here || release != "" {
		t.Error("good, and its pack is staged still: an upgrade that begins now would lose it")
	}
	w.mu.Unlock()
	w.settled(m, pack)
	if !pins() || m.PinnedModel("digits.onnx") != model {
		t.Error("good, and not pinned")
	}
	if pins := m.Pins(one); !pins[0].Here || !pins[1].Here {
		t.Errorf("they are here: %+v", pins)
	}
	// It can be fetched again, where a source is known.
	w.mu.Lock()
	w.fetched = nil
	w.mu.Unlock()
	if err := m.FetchPack(t.Context(), pack, nil, io.Discard); err != nil || !slices.Equal(w.fetched, []string{"engine.erofs"}) {
		t.Errorf("fetched %v, %v", w.fetched, err)
	}
	if err := m.FetchPack(t.Context(), model, nil, io.Discard); !errors.Is(err, update.ErrNotOffered) {
		t.Errorf("what is no pack of the release: %v", err)
	}
	source := m.Machine.Source
	m.Machine.Source = ""
	if err := m.FetchPack(t.Context(), pack, nil, io.Discard); !errors.Is(err, ErrNoSource) {
		t.Errorf("without a source: %v", err)
	}
	m.Machine.Source = source

	// The next one brings another model and no pack; the one before stays for the way back.
	two := pinned("1.2", 2)
	two.Packs = nil
	w.mu.Lock()
	w.offered, w.fetched = []*update.Manifest{two}, nil
	w.mu.Unlock()
	m = w.upgraded(m, Request{}, manual())
	w.awaitStage(m, Good)
	w.settled(m, pack)
	if got := m.PinnedModels(); len(got) != 2 || got[model] != "1.1" || m.PinnedModel("digits.onnx") != digestOf(&two.Models[0]) {
		t.Errorf("pinned %v", got)
	}
	if !slices.Equal(w.fetched, []string{"digits.onnx"}) {
		t.Errorf("fetched %v", w.fetched)
	}
}

// TestPinFails leaves the other slot as it was.
func TestPinFails(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		err  error
		want string
	}{
		"damaged":    {"engine.erofs", update.ErrDamaged, "fetch the pack engine.erofs: "},
		"not stored": {"digits.onnx", errors.New("the disk is full"), "fetch the model digits.onnx: the disk is full"},
		"too large":  {"", nil, "its packs and models need"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.idle = slot.Version{Slot: "root-b", Version: "0.9", Health: slot.Good}
			r := pinned("1.1", 1)
			w.offered, w.pins[c.file] = []*update.Manifest{r}, c.err
			if c.file == "" {
				r.Models[0].Size = 1 << 60
			}
			m := w.daemon(manual())
			start(t, m, Request{})
			u := w.awaitStage(m, Failed)
			if u.FailedStage != Downloading || !strings.Contains(u.Message, c.want) {
				t.Errorf("got %+v", u)
			}
			if _, idle := w.slots(); idle.Version != "0.9" {
				t.Errorf("the other slot: %+v", idle)
			}
			w.settled(m)
		})
	}
}

// TestPinNeedsItsRestOnly has a download that was cut go on where there is room for the
// rest.
func TestPinNeedsItsRestOnly(t *testing.T) {
	w := newWorld(t)
	r := pinned("1.1", 1)
	r.Models[0].Size = 1 << 60
	w.offered, w.left = []*update.Manifest{r}, map[string]int64{digestOf(&r.Models[0]): 1<<60 - 10}
	start(t, w.daemon(manual()), Request{})
	w.awaitReboot()
}

// TestPinUnreachable tries again, and goes on.
func TestPinUnreachable(t *testing.T) {
	w := newWorld(t)
	w.offered, w.pins["digits.onnx"] = []*update.Manifest{pinned("1.1", 1)}, update.ErrUnreachable
	m := w.daemon(manual())
	start(t, m, Request{})
	w.await("a pause", func() bool { u := m.Current(); return u != nil && strings.Contains(u.Message, "trying again") })
	w.mu.Lock()
	delete(w.pins, "digits.onnx")
	w.mu.Unlock()
	m.poke()
	w.awaitReboot()
	if again := w.fetched[1:]; w.fetched[0] != "engine.erofs" || len(again) < 2 || slices.Contains(again, "engine.erofs") {
		t.Errorf("fetched %v", w.fetched)
	}
}

// TestKernelDriver refuses a release whose kernel an installed driver does not fit,
// before anything is fetched, and again when the release's own pack does not fit.
func TestKernelDriver(t *testing.T) {
	w := newWorld(t)
	one := pinned("1.1", 1)
	one.Kernel = "8-cloud-amd64"
	w.offered = []*update.Manifest{one}
	w.fits = func(kernel string, pins []string, staged string) error {
		if kernel == "8-cloud-amd64" && (len(pins) == 0 || staged != "") {
			return errors.New("no modules for 8-cloud-amd64")
		}
		return nil
	}
	m := w.daemon(manual())
	start(t, m, Request{})
	if u := w.awaitStage(m, Failed); u.FailedStage != Downloading || !strings.Contains(u.Message, "no modules for 8-cloud-amd64") {
		t.Errorf("got %+v", u)
	}
	if len(w.reboots) > 0 {
		t.Error("the machine restarts")
	}
	one.Packs = nil
	if _, err := m.Plan(t.Context(), Request{}); !errors.Is(err, update.ErrWrongMachine) {
		t.Errorf("a release without a pack: %v", err)
	}
}

// TestPolicyKernelDriver has the policy begin no upgrade that an installed driver refuses.
func TestPolicyKernelDriver(t *testing.T) {
	w := newWorld(t)
	newest, older := pinned("1.2", 1), pinned("1.1", 1)
	newest.Kernel, older.Kernel = "8-cloud-amd64", "7-cloud-amd64"
	w.offered = []*update.Manifest{newest, older}
	w.fits = func(kernel string, _ []string, _ string) error {
		if kernel == "8-cloud-amd64" {
			return errors.New("no modules for 8-cloud-amd64")
		}
		return nil
	}
	m := w.daemon(manual())
	if got, err := m.wanted(t.Context()); err != nil || got != "1.1" {
		t.Errorf("got %q, %v, want 1.1", got, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.notes, "UpgradeRefused") {
		t.Errorf("noted %v", w.notes)
	}
}
