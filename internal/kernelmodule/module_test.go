package kernelmodule

import (
	"bytes"
	"encoding/binary"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/uki"
)

// TestSign has OpenSSL verify a signature, by the structure that the kernel reads.
func TestSign(t *testing.T) {
	key, err := uki.NewKey("modules")
	if err != nil {
		t.Fatal(err)
	}
	module := []byte("\x7fELF and the rest of a module")
	signed, err := Sign(module, key)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Sign(module, key); err != nil || !bytes.Equal(again, signed) {
		t.Errorf("another signature of the same: %v", err)
	}
	if _, err := Sign(signed, key); err == nil {
		t.Error("a signed module was signed again")
	}
	body, ok := bytes.CutSuffix(signed, []byte("~Module signature appended~\n"))
	if !ok || !bytes.HasPrefix(body, module) {
		t.Fatalf("got %q", signed)
	}
	size := int(binary.BigEndian.Uint32(body[len(body)-4:]))
	if want := len(module) + size + 12; len(body) != want || body[len(body)-10] != 2 {
		t.Fatalf("%d bytes before the magic, want %d; type %d", len(body), want, body[len(body)-10])
	}
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("needs openssl, to verify a signature by another's code")
	}
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	certificate := write("db.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: key.Certificate().Raw}))
	check := exec.Command(openssl, "cms", "-verify", "-binary", "-inform", "DER", "-in", write("sig", body[len(module):len(module)+size]),
		"-content", write("module", module), "-certfile", certificate, "-CAfile", certificate, "-purpose", "any", "-out", os.DevNull)
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("openssl: %v\n%s", err, out)
	}
}

func TestKernelOf(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"linux-headers-7.2.12+deb13-cloud-amd64", "linux-headers-7.2.12+deb13-common"} {
		if err := os.MkdirAll(filepath.Join(dir, "usr/src", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	k, err := kernelOf(dir, "amd64")
	if err != nil || k.Release != "7.2.12+deb13-cloud-amd64" || k.Arch != "x86_64" || !strings.HasSuffix(k.Headers, "-common") {
		t.Errorf("got %+v, %v", k, err)
	}
	if _, err := kernelOf(t.TempDir(), "amd64"); err == nil {
		t.Error("a folder without headers was taken")
	}
}

func TestComplaints(t *testing.T) {
	got := complaints([]byte("CC a.o\na.c:1:2: error: no such thing\nmake: *** Error 1\n"))
	if got != "a.c:1:2: error: no such thing" {
		t.Errorf("got %q", got)
	}
	if got := complaints([]byte("unshare: Operation not permitted\n")); got != "unshare: Operation not permitted" {
		t.Errorf("got %q", got)
	}
}
