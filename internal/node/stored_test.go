package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/node/kind/model"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/release"
)

// Everything stored can be listed and removed, but not what an object needs.
func TestVolumesAreListedAndRemoved(t *testing.T) {
	h := newHouse(t)
	if err := h.RemoveVolume("none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("remove one where there was never any: got %v, want ErrNotFound", err)
	}
	if err := h.apply(t, "w", ", volumes: [{name: used, path: /data}]"); err != nil {
		t.Fatal(err)
	}
	h.await(t, object.Key{Kind: object.KindWorkload, Name: "w"}, object.Running)
	old := filepath.Join(h.volumesDir(), "old")
	if err := errors.Join(os.MkdirAll(filepath.Join(old, "sub"), 0o700), os.WriteFile(filepath.Join(old, "sub/data"), make([]byte, 8192), 0o600)); err != nil {
		t.Fatal(err)
	}
	list, err := h.Volumes()
	if err != nil || len(list) != 2 || list[0].Name != "old" || list[0].Used.Bytes < 8192 || list[0].Used.Inodes != 3 || len(list[0].Objects) != 0 ||
		list[1].Name != "used" || strings.Join(list[1].Objects, ",") != "Workload/w" {
		t.Errorf("got %+v, %v", list, err)
	}
	for name, want := range map[string]error{"used": ErrConflict, "none": ErrNotFound, "../packs": ErrInvalid, ".": ErrInvalid, "": ErrInvalid} {
		if err := h.RemoveVolume(name); !errors.Is(err, want) {
			t.Errorf("remove %q: got %v, want %v", name, err, want)
		}
	}
	if err := h.RemoveVolume("old"); err != nil {
		t.Fatal(err)
	}
	// One that was cut short goes on.
	if err := os.MkdirAll(filepath.Join(h.volumesDir(), removing+"1", "old"), 0o700); err != nil {
		t.Fatal(err)
	}
	if list, err = h.Volumes(); err != nil || len(list) != 1 {
		t.Errorf("got %+v, %v", list, err)
	}
	h.sweepVolumes()
	if left, err := os.ReadDir(h.volumesDir()); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestModelFilesAreListedAndRemoved(t *testing.T) {
	h := newHouse(t)
	digest := func(text string) string {
		t.Helper()
		d, _, err := h.UploadModel(t.Context(), strings.NewReader(text), model.Upload{})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	used, old := digest("used"), digest("old")
	objects, err := h.Kinds().Parse(strings.NewReader("apiVersion: oscine.dev/v1\nkind: Model\nmetadata: {name: m}\nspec: {source: '" + used + "'}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Apply(t.Context(), objects, ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	files, err := h.ModelFiles()
	if err != nil || len(files) != 2 {
		t.Fatalf("got %+v, %v", files, err)
	}
	for _, f := range files {
		if want := map[string]string{used: "Model/m", old: ""}[f.Digest]; strings.Join(f.Objects, ",") != want {
			t.Errorf("%s: got %v, want %q", f.Digest, f.Objects, want)
		}
	}
	for d, want := range map[string]error{used: ErrConflict, used[7:13]: ErrConflict, "sha256:": ErrInvalid, "sha256:../../x": ErrNotFound, "": ErrInvalid, old[:12]: ErrInvalid, old[7:12]: ErrInvalid} {
		if _, err := h.RemoveModelFile(d); !errors.Is(err, want) {
			t.Errorf("remove %q: got %v, want %v", d, err, want)
		}
	}
	if full, err := h.RemoveModelFile(old[len("sha256:"):][:12]); err != nil || full != old {
		t.Errorf("got %q, %v", full, err)
	}
	if files, err := h.ModelFiles(); err != nil || len(files) != 1 || files[0].Digest != used {
		t.Errorf("got %+v, %v", files, err)
	}
	// A release of Oscine in a slot keeps the files that it brought.
	kept := digest("kept")
	state := `{"releases": [{"version": "1.1", "models": [{"name": "kept.onnx", "sha256": "` + strings.TrimPrefix(kept, "sha256:") + `"}]}]}`
	if err := os.WriteFile(filepath.Join(h.config.StateDir, upgradeFile), []byte(state), 0o600); err != nil {
		t.Fatal(err)
	}
	h.config.Upgrading.Facts = func() release.Facts { return release.Facts{Image: "EFI/Linux/oscine_1.1.efi"} }
	h.openUpgrades()
	if _, err := h.RemoveModelFile(kept); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "release 1.1") {
		t.Errorf("got %v", err)
	}
	if referred, ok := h.referredFiles(); !ok || !referred[kept] || h.upgrades.PinnedModel("kept.onnx") != kept {
		t.Errorf("referred to are %v, pinned is %q", referred, h.upgrades.PinnedModel("kept.onnx"))
	}
	if space := h.Info().Disk; space.Size.Bytes == 0 || space.Free.Bytes == 0 {
		t.Errorf("the node reports no disk: %+v", space)
	}
}
