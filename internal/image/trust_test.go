package image

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update/keys"
)

// The root of an image takes root metadata that verifies, and nothing else.
func TestTrustedRoot(t *testing.T) {
	dir := t.TempDir()
	k, err := keys.Generate(filepath.Join(dir, "keys"), "root", nil)
	if err != nil {
		t.Fatal(err)
	}
	have, err := keys.Load(filepath.Join(dir, "keys"), nil)
	if err != nil {
		t.Fatal(err)
	}
	m, good, unsigned := metadata.Root(), filepath.Join(dir, "root.json"), filepath.Join(dir, "unsigned.json")
	if err := m.Signed.AddKey(k.Public, metadata.ROOT); err != nil {
		t.Fatal(err)
	}
	if err := m.ToFile(unsigned, true); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Sign(have[0].Signer); err != nil {
		t.Fatal(err)
	}
	if err := m.ToFile(good, true); err != nil {
		t.Fatal(err)
	}
	c := newContent()
	if err := c.addTrustedRoot(good); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(good)
	if got := c.files[release.TrustedRoot[1:]]; err != nil || string(got.data) != string(text) || got.Why == "" {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{unsigned, filepath.Join(dir, "none"), filepath.Join(dir, "keys")} {
		if err := newContent().addTrustedRoot(bad); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}
