package keys

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestGenerateAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	plain, err := Generate(dir, "root", nil)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := Generate(dir, "timestamp", []byte("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	right := func() ([]byte, error) { asked++; return []byte("hunter2"), nil }
	all, err := Load(dir, right)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || all[0].ID != plain.ID || all[1].ID != secret.ID || all[0].Name != "root" || all[1].Name != "timestamp" || all[1].Signer == nil || asked != 1 {
		t.Errorf("got %+v, asked %d times", all, asked)
	}
	for name, ask := range map[string]func() ([]byte, error){
		"none": nil, "empty": func() ([]byte, error) { return nil, nil }, "wrong": func() ([]byte, error) { return []byte("x"), nil },
	} {
		if _, err := Load(dir, ask); !errors.Is(err, ErrPassphrase) {
			t.Errorf("passphrase %s: got %v", name, err)
		}
	}
	file := filepath.Join(dir, "timestamp-"+secret.ID[:8]+".key")
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), "ENCRYPTED") {
		t.Errorf("the key is not encrypted: %s, %v", text, err)
	}
	// Where the private half is elsewhere, the public one is known.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if all, err = Load(dir, nil); err != nil || len(all) != 2 || all[1].ID != secret.ID || all[1].Signer != nil {
		t.Errorf("got %+v, %v", all, err)
	}
}

// A private key is its owner's alone, and one that others can read is refused.
func TestPrivateKeysArePrivate(t *testing.T) {
	dir := t.TempDir()
	k, err := Generate(dir, "root", nil)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "root-"+k.ID[:8]+".key")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", info, err)
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, nil); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("got %v", err)
	}
}

func TestOutside(t *testing.T) {
	dir := t.TempDir()
	published := filepath.Join(dir, "releases")
	if err := os.MkdirAll(published, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(published, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for keys, want := range map[string]bool{"keys": true, ".": true, "releases": false, "releases/keys": false, "releases/a/b": false, "link/keys": false, "releases2": true} {
		if err := Outside(filepath.Join(dir, keys), published); (err == nil) != want {
			t.Errorf("%s: got %v", keys, err)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	dir := f.TempDir()
	k, err := Generate(dir, "root", nil)
	if err != nil {
		f.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "root-"+k.ID[:8]+".key"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		if k, err := parse(text, func() ([]byte, error) { return nil, ErrPassphrase }); err == nil && k.Signer == nil {
			t.Error("a key without a signer")
		}
	})
}
