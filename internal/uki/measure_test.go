package uki

import (
	"crypto/sha256"
	"testing"

	"oscine.dev/oscine/internal/uki/ukitest"
)

// The value that a machine's TPM has then is compared in internal/machine.
func TestPCR11(t *testing.T) {
	sections := []Section{{".cmdline", []byte("a=b")}, {".pcrsig", []byte("not measured")}, {".initrd", []byte("files")}, {".linux", []byte("kernel")}}
	image, err := Assemble(ukitest.Stub(), sections)
	if err != nil {
		t.Fatal(err)
	}
	var want [sha256.Size]byte
	for _, data := range []string{".linux\x00", "kernel", ".cmdline\x00", "a=b", ".initrd\x00", "files"} { // the stub's order, not the file's
		digest := sha256.Sum256([]byte(data))
		want = sha256.Sum256(append(want[:], digest[:]...))
	}
	got, err := PCR11(image)
	if err != nil || got != want {
		t.Errorf("got %x, %v, want %x", got, err, want)
	}
	// A signature changes nothing of it.
	key, err := NewKey("test")
	if err != nil {
		t.Fatal(err)
	}
	signed, err := key.Sign(image)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := PCR11(signed); err != nil || got != want {
		t.Errorf("signed: got %x, %v, want %x", got, err, want)
	}
	if _, err := PCR11(image[:len(image)-0x400]); err == nil {
		t.Error("an image that is cut off was measured")
	}
	if _, err := PCR11([]byte("no")); err == nil {
		t.Error("a text was measured")
	}
}
