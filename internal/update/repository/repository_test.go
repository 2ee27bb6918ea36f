package repository_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/update/keys"
	"oscine.dev/oscine/internal/update/repository"
	"oscine.dev/oscine/internal/update/repository/repositorytest"
)

// tree lists all files of a folder with their sizes.
func tree(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	all := map[string]int64{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().IsRegular() {
			all[name] = info.Size()
		} else if err == nil {
			all[name] = -1
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestCreate(t *testing.T) {
	_, r, _ := repositorytest.New(t, repository.Options{}, "1.0.0", "1.1.0")
	list, err := r.List()
	if err != nil || len(list) != 2 {
		t.Fatalf("got %v, %v", list, err)
	}
	m := list[0]
	if m.Version != "1.1.0" || m.Arch != "amd64" || m.Flavour != "cloud" || m.Kernel != repositorytest.Kernel || time.Since(m.Built) > time.Hour {
		t.Errorf("got %+v", m)
	}
	if len(m.PCR11) != 64 || m.PCR11 == list[1].PCR11 {
		t.Errorf("PCR 11 of two versions: %q and %q", m.PCR11, list[1].PCR11)
	}
	// The delta is far smaller, and is offered for the release before by its root.
	if len(m.Root.Deltas) != 1 || m.Root.Deltas[0].Base != list[1].RootHash || m.Root.Deltas[0].Size*20 > m.Root.Full.Size {
		t.Errorf("root: %+v", m.Root)
	}
	if len(m.Image.Deltas) != 1 || m.Image.Deltas[0].Base != list[1].Image.SHA256.String() {
		t.Errorf("image: %+v", m.Image)
	}
}

// What is refused or interrupted leaves the folder as it was.
func TestCreateLeavesNothing(t *testing.T) {
	dir, r, _ := repositorytest.New(t, repository.Options{}, "1.1.0")
	before := tree(t, dir)
	parts := func(version string) *repository.Parts {
		return repositorytest.Parts(t, version, repositorytest.Kernel, repositorytest.Files(version))
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		ctx  context.Context
		rel  repository.Release
		want error
	}{
		"the same version": {t.Context(), repository.Release{Parts: parts("1.1.0")}, repository.ErrVersion},
		"an older version": {t.Context(), repository.Release{Parts: parts("1.1.0~rc1")}, repository.ErrVersion},
		"a floor above it": {t.Context(), repository.Release{Parts: parts("1.2.0"), Floor: "1.3.0"}, nil},
		"an interrupt":     {cancelled, repository.Release{Parts: parts("1.2.0")}, context.Canceled},
		"a missing pack":   {t.Context(), repository.Release{Parts: parts("1.2.0"), Packs: []string{"/none"}}, os.ErrNotExist},
		"a pack, a folder": {t.Context(), repository.Release{Parts: parts("1.2.0"), Packs: []string{t.TempDir()}}, nil},
	} {
		_, err := r.Create(test.ctx, test.rel)
		if err == nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
		if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
			t.Errorf("%s left something:\n%s", name, diff)
		}
	}
	// For another machine the version is one of its own.
	if _, err := r.Create(t.Context(), repository.Release{Parts: repositorytest.Parts(t, "1.0.0", "7.2.12+deb13-rt-arm64", repositorytest.Files("1.0.0"))}); err != nil {
		t.Error(err)
	}
}

// Two at once do not get into each other's way: one is refused.
func TestTwoAtOnce(t *testing.T) {
	dir, r, _ := repositorytest.New(t, repository.Options{})
	second := repository.Open(dir, r.Keys(), repository.Options{})
	refused := false
	options := repository.Options{Now: func() time.Time { // asked while the first holds the folder
		if !refused {
			refused = true
			if _, err := second.Sign(); !errors.Is(err, repository.ErrBusy) {
				t.Errorf("got %v", err)
			}
		}
		return time.Now()
	}}
	if _, err := repository.Open(dir, r.Keys(), options).Sign(); err != nil || !refused {
		t.Errorf("got %v, %v", err, refused)
	}
}

func TestInit(t *testing.T) {
	dir := t.TempDir()
	have := repositorytest.Keys(t, "root", "targets", "snapshot")
	if _, err := repository.Open(dir, have, repository.Options{}).Init(repository.Setup{}); err == nil || !strings.Contains(err.Error(), "timestamp needs 1 keys and there are 0") {
		t.Errorf("got %v", err)
	}
	have = append(have, repositorytest.Keys(t, "timestamp")...)
	r := repository.Open(dir, have, repository.Options{})
	if _, err := r.Init(repository.Setup{Threshold: map[string]int{"root": 2}}); err == nil {
		t.Error("a threshold above the number of keys was taken")
	}
	if result, err := r.Init(repository.Setup{}); err != nil || !result.Published {
		t.Fatalf("%+v, %v", result, err)
	}
	if _, err := r.Init(repository.Setup{}); !errors.Is(err, repository.ErrThere) {
		t.Errorf("got %v", err)
	}
	if _, err := repository.Open(t.TempDir(), have, repository.Options{}).Sign(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is none: %v", err)
	}
}

// public are keys without their private halves.
func public(all []*keys.Key) (out []*keys.Key) {
	for _, k := range all {
		half := *k
		half.Signer = nil
		out = append(out, &half)
	}
	return out
}

// Two of three hold root, each elsewhere; everything waits for the second.
func TestThresholdAndOfflineKeys(t *testing.T) {
	dir := t.TempDir()
	roots := repositorytest.Keys(t, "root", "root", "root")
	online := repositorytest.Keys(t, "snapshot", "timestamp")
	offline := repositorytest.Keys(t, "targets")
	at := func(all ...[]*keys.Key) *repository.Repository {
		var have []*keys.Key
		for _, k := range all {
			have = append(have, k...)
		}
		return repository.Open(dir, have, repository.Options{})
	}
	step := func(result *repository.Result, err error) *repository.Result {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	first := at(roots[:1], public(roots[1:]), online, public(offline))
	result := step(first.Init(repository.Setup{Threshold: map[string]int{"root": 2}}))
	if result.Published || result.Missing["root"] == "" || result.Missing["targets"] == "" {
		t.Errorf("got %+v", result)
	}
	if result = step(at(online).Sign()); result.Published {
		t.Errorf("got %+v", result)
	}
	if result = step(at(offline).Sign()); result.Published || result.Missing["targets"] != "" || result.Missing["root"] == "" {
		t.Errorf("got %+v", result)
	}
	if result = step(at(roots[2:]).Sign()); result.Published || result.Missing["root"] != "" || result.Missing["snapshot"] == "" {
		t.Errorf("got %+v", result)
	}
	if result = step(at(online).Sign()); !result.Published {
		t.Fatalf("got %+v", result)
	}
	// Only the server's keys, and not for new targets.
	if result = step(at(online).Sign()); !result.Published || len(result.Versions) != 2 {
		t.Errorf("got %+v", result)
	}
	created, err := at(online).Create(t.Context(), repository.Release{Parts: repositorytest.Parts(t, "1.0.0", repositorytest.Kernel, repositorytest.Files("1.0.0"))})
	if err != nil || created.Published || created.Missing["targets"] == "" {
		t.Fatalf("got %+v, %v", created, err)
	}
	if result = step(at(online, offline).Sign()); !result.Published {
		t.Errorf("got %+v", result)
	}
	// A key is lost: two others replace it.
	fresh := repositorytest.Keys(t, "root")
	result = step(at(roots[1:2], public(roots), public(fresh)).Rotate(repository.Rotation{Role: "root", Add: public(fresh), Remove: []string{roots[0].ID}}))
	if result.Published {
		t.Errorf("got %+v", result)
	}
	if result = step(at(roots[2:], online).Sign()); !result.Published || result.Versions["root"] != 2 {
		t.Errorf("got %+v", result)
	}
	for name, bad := range map[string]repository.Rotation{
		"too few keys": {Role: "root", Remove: []string{roots[1].ID, roots[2].ID}}, "an unknown key": {Role: "root", Remove: []string{"0123456789"}},
		"a short key": {Role: "root", Remove: []string{"01"}}, "an unknown role": {Role: "mirrors"}, "a threshold too high": {Role: "targets", Threshold: 5},
	} {
		if _, err := at(roots).Rotate(bad); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	staged, err := filepath.Glob(filepath.Join(dir, ".staged", "*"))
	if err != nil || len(staged) != 0 {
		t.Errorf("left: %v, %v", staged, err)
	}
}

// No private key comes near the folder.
func TestNoKeysArePublished(t *testing.T) {
	dir, _, _ := repositorytest.New(t, repository.Options{}, "1.0.0")
	for name := range tree(t, dir) {
		if text, err := os.ReadFile(name); err == nil && strings.Contains(string(text), "PRIVATE KEY") {
			t.Errorf("%s holds a private key", name)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "metadata", "timestamp.json"))
	if err != nil || !json.Valid(text) {
		t.Errorf("%s, %v", text, err)
	}
}
