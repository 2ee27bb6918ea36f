package uki

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/uki/ukitest"
)

func makeUKI(t testing.TB) []byte {
	t.Helper()
	uki, err := Assemble(ukitest.Stub(), []Section{{".cmdline", []byte("a=b")}, {".initrd", bytes.Repeat([]byte{7}, 600)}, {".linux", []byte("kernel")}})
	if err != nil {
		t.Fatal(err)
	}
	return uki
}

func TestUKI(t *testing.T) {
	got, err := Read(makeUKI(t))
	if err != nil {
		t.Fatal(err)
	}
	want := &Image{Kernel: []byte("kernel"), Initramfs: bytes.Repeat([]byte{7}, 600), Cmdline: "a=b"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := Assemble([]byte("no"), nil); err == nil {
		t.Error("a stub that is none was accepted")
	}
	if _, err := Assemble(ukitest.Stub(), make([]Section, 40)); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("too many sections: got %v", err)
	}
}

func FuzzUKI(f *testing.F) {
	f.Add(makeUKI(f))
	f.Add(ukitest.Stub())
	key, err := DevelopmentKey(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(_ *testing.T, image []byte) {
		_, _ = Read(image)
		_, _ = key.Sign(image)
	})
}

func TestSignatureIsVerifiedByOthers(t *testing.T) {
	dir := t.TempDir()
	key, err := DevelopmentKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	unsigned := makeUKI(t)
	signed, err := key.Sign(unsigned)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := key.Sign(unsigned); err != nil || !bytes.Equal(signed, again) {
		t.Errorf("two signatures of one image differ (%v)", err)
	}
	if _, err := key.Sign(signed); err == nil {
		t.Error("a signed image was signed again")
	}
	file, pem := filepath.Join(dir, "x.efi"), filepath.Join(dir, "keys", "image.pem")
	if err := os.WriteFile(file, signed, 0o644); err != nil {
		t.Fatal(err)
	}
	signer, err := Signer(signed)
	if err != nil || !signer.Equal(key.cert) {
		t.Errorf("the signer: got %v, %v", signer, err)
	}
	t.Setenv("OSCINE_DEBIAN_MIRROR", "http://127.0.0.1:1/debian") // what is not in the cache is skipped
	tools, err := debian.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	verify, err := tools.Tool(t.Context(), "sbverify")
	if err != nil {
		t.Skipf("sbverify is neither installed nor in the cache: %v", err)
	}
	if out, err := verify.Command(t.Context(), "--cert", pem, file).CombinedOutput(); err != nil || !strings.Contains(string(out), "Signature verification OK") {
		t.Errorf("sbverify says %s, %v", out, err)
	}
	signed[0x420] ^= 1
	if err := os.WriteFile(file, signed, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := verify.Command(t.Context(), "--cert", pem, file).CombinedOutput(); err == nil {
		t.Errorf("sbverify accepts an altered image: %s", out)
	}
}

// TestSigner alters every signed byte of an image in turn.
func TestSigner(t *testing.T) {
	key, err := DevelopmentKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	signed, err := key.Sign(makeUKI(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Signer(makeUKI(t)); !errors.Is(err, ErrUnsigned) {
		t.Errorf("unsigned: got %v", err)
	}
	l, err := layoutOf(signed)
	if err != nil {
		t.Fatal(err)
	}
	table := int(binary.LittleEndian.Uint32(signed[l.optional+peCertificates:]))
	for at := range signed[:table] {
		if at >= l.optional+peChecksum && at < l.optional+peChecksum+4 {
			continue // not signed
		}
		altered := bytes.Clone(signed)
		altered[at] ^= 0x10
		if signer, err := Signer(altered); err == nil {
			t.Errorf("byte %d of %d altered: accepted as signed by %s", at, table, signer.Subject)
		}
	}
	// A certificate that says it is the trusted one has not its key.
	other, err := DevelopmentKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	other.cert = key.cert
	forged, err := other.Sign(makeUKI(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Signer(forged); err == nil || !strings.Contains(err.Error(), "not of the certificate") {
		t.Errorf("signed with another key: got %v", err)
	}
	for _, size := range []int{0, 0x200, len(signed) - 1, len(signed) - 600} {
		if _, err := Signer(signed[:size]); err == nil {
			t.Errorf("cut to %d bytes: accepted", size)
		}
	}
}

func FuzzSigner(f *testing.F) {
	key, err := DevelopmentKey(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	signed, err := key.Sign(makeUKI(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Add(makeUKI(f))
	f.Fuzz(func(_ *testing.T, image []byte) { _, _ = Signer(image) })
}

func TestLoadKey(t *testing.T) {
	dir := t.TempDir()
	one, err := DevelopmentKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	two, err := DevelopmentKey(dir)
	if err != nil || !one.key.Equal(two.key) {
		t.Errorf("the key was not kept (%v)", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "keys", "image.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v (%v), want mode 0600", info.Mode(), err)
	}
	for name, text := range map[string]string{"empty": "", "no pem": "hello", "broken": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v, want an error that names the file", name, err)
		}
	}
}

// makeBzImage wraps data as the kernel's build does.
func makeBzImage(t testing.TB, data []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	frame := z.EncodeAll(data, nil)
	frame = binary.LittleEndian.AppendUint32(frame, uint32(len(data)))
	kernel := make([]byte, 2*sectorSize, 2*sectorSize+len(frame))
	kernel[0x1f1] = 1
	copy(kernel[0x202:], "HdrS")
	binary.LittleEndian.PutUint32(kernel[0x24c:], uint32(len(frame)))
	return append(kernel, frame...)
}

func TestDirectKernel(t *testing.T) {
	elf := append([]byte("\x7fELF"), bytes.Repeat([]byte("kernel"), 100)...)
	if got := (&Image{Kernel: makeBzImage(t, elf)}).DirectKernel(); !bytes.Equal(got, elf) {
		t.Errorf("got %d bytes, want the %d of the ELF file", len(got), len(elf))
	}
	for name, kernel := range map[string][]byte{"arm64": []byte("MZ image"), "not ELF": makeBzImage(t, []byte("other")), "cut off": makeBzImage(t, elf)[:1040]} {
		if got := (&Image{Kernel: kernel}).DirectKernel(); !bytes.Equal(got, kernel) {
			t.Errorf("%s: got %d bytes, want the kernel as it stands", name, len(got))
		}
	}
}

func FuzzDirectKernel(f *testing.F) {
	f.Add(makeBzImage(f, []byte("\x7fELF and more")))
	f.Fuzz(func(_ *testing.T, kernel []byte) { (&Image{Kernel: kernel}).DirectKernel() })
}
