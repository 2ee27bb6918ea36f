package secureboot

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/uki"
)

func generate(t *testing.T, trusted ...*x509.Certificate) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	if _, err := Generate(dir, "Test", trusted); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestGenerate(t *testing.T) {
	other, err := uki.NewKey("card")
	if err != nil {
		t.Fatal(err)
	}
	dir := generate(t, other.Certificate())
	key, files, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := key.Certificate().Subject.CommonName; got != "Test db" {
		t.Errorf("the image is signed by %q", got)
	}
	for _, name := range Variables() {
		info, err := os.Stat(filepath.Join(dir, name+".pem"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s.pem: mode %v, %v", name, info.Mode(), err)
		}
		list, err := os.ReadFile(filepath.Join(dir, name+".esl"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasSuffix(files[name], list) {
			t.Errorf("%s.auth does not end with the variable's content", name)
		}
		if name == "db" && !bytes.Contains(list, other.Certificate().Raw) {
			t.Error("db lacks the trusted certificate")
		}
	}
	if _, err := Generate(dir, "Test", nil); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("keys over keys: got %v", err)
	}
	// What signs images needs neither of the keys that belong offline.
	for _, name := range []string{"PK.pem", "KEK.pem"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := Load(dir); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "KEK.auth"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "KEK.auth") {
		t.Errorf("an empty variable: got %v", err)
	}
	if _, _, err := Load(t.TempDir()); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "oscine keys secureboot") {
		t.Errorf("an empty folder: got %v", err)
	}
}

// A key whose certificate the variable does not list signs nothing that starts.
func TestLoadOtherKey(t *testing.T) {
	dir, other := generate(t), generate(t)
	text, err := os.ReadFile(filepath.Join(other, "db.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "db.pem"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "does not hold the certificate") {
		t.Errorf("got %v", err)
	}
	auth, err := os.ReadFile(filepath.Join(other, "db.auth"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := uki.LoadKey(filepath.Join(other, "db.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for n := range auth { // a file that was cut off
		if trusts(auth[:n], key.Certificate()) {
			t.Fatalf("%d of %d bytes list the certificate", n, len(auth))
		}
	}
}

// The files are what sbsigntool, by others, makes of the same key.
func TestFilesAreThoseOfOthers(t *testing.T) {
	key, err := uki.NewKey("compared")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	text, err := key.PEM()
	if err != nil {
		t.Fatal(err)
	}
	owner := "77fa9abd-0359-4d32-bd60-28f4e78f784b"
	files := map[string][]byte{"key.pem": text, "cert.der": key.Certificate().Raw}
	list := signatureList(uuid.MustParse(owner), []*x509.Certificate{key.Certificate()})
	files["ours.esl"] = list
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) {
		t.Helper()
		tool, err := debian.FindTool(t.Context(), name)
		if err != nil {
			t.Skipf("needs %s: %v", name, err)
		}
		cmd := tool.Command(t.Context(), args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	run("sbsiglist", "--owner", owner, "--type", "x509", "--output", "theirs.esl", "cert.der")
	theirs, err := os.ReadFile(filepath.Join(dir, "theirs.esl"))
	if err != nil || !bytes.Equal(list, theirs) {
		t.Errorf("the signature list differs from that of sbsiglist (%v)", err)
	}
	run("sbvarsign", "--key", "key.pem", "--cert", "key.pem", "--attrs",
		"NON_VOLATILE,BOOTSERVICE_ACCESS,RUNTIME_ACCESS,TIME_BASED_AUTHENTICATED_WRITE_ACCESS",
		"--output", "theirs.auth", "db", "ours.esl")
	theirs, err = os.ReadFile(filepath.Join(dir, "theirs.auth"))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(int(binary.LittleEndian.Uint16(theirs)), time.Month(theirs[2]), int(theirs[3]), int(theirs[4]), int(theirs[5]), int(theirs[6]), 0, time.UTC)
	ours, err := authenticated("db", securityDatabase, list, at, key)
	if err != nil {
		t.Fatal(err)
	}
	// Theirs has signed attributes, of which the specification says that there are
	// none: what stands before and behind the signature is the same.
	const length, head = 16, 40
	if !bytes.Equal(ours[:length], theirs[:length]) || !bytes.Equal(ours[length+4:head], theirs[length+4:head]) ||
		!bytes.HasSuffix(theirs, list) || !bytes.HasSuffix(ours, list) {
		t.Error("the signed variable differs from that of sbvarsign outside of the signature")
	}
	if got, want := int(binary.LittleEndian.Uint32(ours[length:])), len(ours)-len(list)-length; got != want {
		t.Errorf("the signature says it has %d bytes and has %d", got, want)
	}
}
