package update

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func valid() *Manifest {
	transfer := func(path, base string, size int64) Transfer {
		return Transfer{Base: base, Path: path, Size: size, SHA256: Digest{1}, IndexSize: 10, IndexSHA256: Digest{2}}
	}
	hash := strings.Repeat("ab", 32)
	return &Manifest{
		Format: ManifestFormat, Version: "1.2.0", Arch: "amd64", Flavour: "cloud", Kernel: "7.2.12-cloud-amd64",
		Built: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), MinVersion: "1.0.0", Floor: "1.1.0", RootHash: hash,
		Image: Content{Size: 5000, SHA256: Digest{3}, Full: transfer("1.2.0/amd64-cloud/image", "", 4000)},
		Root: Content{
			Size: 8192, SHA256: Digest{4}, Full: transfer("1.2.0/amd64-cloud/root", "", 6000),
			Deltas: []Transfer{transfer("1.2.0/amd64-cloud/root.from-1.1.0", hash, 600), transfer("1.2.0/amd64-cloud/root.from-1.0.0", strings.Repeat("cd", 32), 7000)},
		},
		Packs: []Pin{{Name: "onnxruntime", Path: "packs/onnxruntime.pack", Size: 1, SHA256: Digest{5}}},
	}
}

func TestManifestRoundTrip(t *testing.T) {
	want := valid()
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseManifest(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestManifestFaults(t *testing.T) {
	for want, change := range map[string]func(*Manifest){
		"format 2":               func(m *Manifest) { m.Format = 2 },
		`version "../x"`:         func(m *Manifest) { m.Version = "../x" },
		`arch "s390x"`:           func(m *Manifest) { m.Arch = "s390x" },
		`flavour "tiny"`:         func(m *Manifest) { m.Flavour = "tiny" },
		"kernel":                 func(m *Manifest) { m.Kernel = "" },
		"built":                  func(m *Manifest) { m.Built = time.Time{} },
		"minVersion":             func(m *Manifest) { m.MinVersion = "1.3.0" },
		"floor":                  func(m *Manifest) { m.Floor = "2" },
		"pcr11":                  func(m *Manifest) { m.PCR11 = "ab" },
		"rootHash":               func(m *Manifest) { m.RootHash = "ab" },
		"image.size 0":           func(m *Manifest) { m.Image.Size = 0 },
		"root: 8193":             func(m *Manifest) { m.Root.Size = 8193 },
		"full transfer has none": func(m *Manifest) { m.Root.Full.Base = m.RootHash },
		`path "../root"`:         func(m *Manifest) { m.Root.Full.Path = "../root" },
		`path "/root"`:           func(m *Manifest) { m.Root.Full.Path = "/root" },
		`path "a/.b"`:            func(m *Manifest) { m.Root.Full.Path = "a/.b" },
		`path "a?b"`:             func(m *Manifest) { m.Root.Deltas[0].Path = "a?b" },
		"indexSize 6001":         func(m *Manifest) { m.Root.Full.IndexSize = 6001 },
		"deltas base":            func(m *Manifest) { m.Root.Deltas[0].Base = "x" },
		"root.deltas: more":      func(m *Manifest) { m.Root.Deltas = make([]Transfer, maxDeltas+1) },
		"packs: name":            func(m *Manifest) { m.Packs[0].Path = "" },
		"models: more":           func(m *Manifest) { m.Models = make([]Pin, maxPins+1) },
	} {
		m := valid()
		change(m)
		if err := m.Check(); !errors.Is(err, ErrManifest) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := ParseManifest(make([]byte, MaxManifest+1)); !errors.Is(err, ErrManifest) {
		t.Errorf("a manifest that is too large: %v", err)
	}
}

// The smaller of delta and full is taken, and no delta for another base.
func TestBestTransfer(t *testing.T) {
	root := &valid().Root
	for _, test := range []struct {
		base *Base
		want Transfer
	}{
		{nil, root.Full},
		{&Base{ID: strings.Repeat("ab", 32)}, root.Deltas[0]},
		{&Base{ID: strings.Repeat("cd", 32)}, root.Full}, // its delta is larger
		{&Base{ID: strings.Repeat("ef", 32)}, root.Full},
	} {
		if got := root.Best(test.base); got != test.want {
			t.Errorf("base %v: got %s, want %s", test.base, got.Path, test.want.Path)
		}
	}
}

func TestAllowed(t *testing.T) {
	for _, test := range []struct {
		arch, flavour, running, floor string
		want                          error
	}{
		{"amd64", "cloud", "1.1.0", "", nil},
		{"amd64", "cloud", "1.1.0", "1.2.0", nil},
		{"amd64", "cloud", "2.0", "1.0", nil}, // going back is allowed down to the floor
		{"arm64", "cloud", "1.1.0", "", ErrWrongMachine},
		{"amd64", "metal", "1.1.0", "", ErrWrongMachine},
		{"amd64", "cloud", "1.3.0", "1.2.1", ErrTooOld},
		{"amd64", "cloud", "0.9.0", "", ErrSkips},
	} {
		if err := valid().Allowed(test.arch, test.flavour, test.running, test.floor); !errors.Is(err, test.want) {
			t.Errorf("%+v: got %v", test, err)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	text, err := json.Marshal(valid())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ParseManifest(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > MaxManifest {
			return // escapes may take more room than what they stand for
		}
		if _, err := ParseManifest(again); err != nil {
			t.Errorf("what was read is refused once written: %v", err)
		}
	})
}
