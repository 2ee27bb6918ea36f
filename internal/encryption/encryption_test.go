package encryption

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"oscine.dev/oscine/internal/attest/attesttest"
	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/luks"
	"oscine.dev/oscine/internal/release"
)

// extend has the TPM take something up into a register, as firmware does.
func extend(t *testing.T, tpm transport.TPM, pcr uint32) {
	t.Helper()
	digest := sha256.Sum256([]byte("something"))
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: digest[:]}}},
	}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
}

func TestSeal(t *testing.T) {
	tpm := attesttest.Emulated(t)
	extend(t, tpm, secureBootPCR)
	secret := passphrase()
	s, err := seal(tpm, secret)
	if err != nil {
		t.Fatal(err)
	}
	extend(t, tpm, 11) // another release
	if got, err := unseal(tpm, s); err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("another release: got %d bytes, %v", len(got), err)
	}
	if _, err := unseal(attesttest.Emulated(t), s); err == nil || !strings.Contains(err.Error(), "another TPM") {
		t.Errorf("another TPM: got %v", err)
	}
	for range 2 { // it may be closed twice
		if err := closeKey(tpm); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := unseal(tpm, s); err == nil || !strings.Contains(err.Error(), "once in a boot") {
		t.Errorf("closed: got %v", err)
	}
	// What is sealed later in a boot opens at the next, not in this one.
	if again, err := seal(tpm, secret); err != nil {
		t.Error(err)
	} else if _, err := unseal(tpm, again); err == nil {
		t.Error("a key was opened that is closed")
	}
}

func TestSecureBootChanged(t *testing.T) {
	tpm := attesttest.Emulated(t)
	s, err := seal(tpm, passphrase())
	if err != nil {
		t.Fatal(err)
	}
	extend(t, tpm, secureBootPCR)
	if _, err := unseal(tpm, s); !errors.Is(err, errChanged) {
		t.Errorf("got %v, want %v", err, errChanged)
	}
}

func TestBytesOfOthers(t *testing.T) {
	tpm := attesttest.Emulated(t)
	for _, bad := range []sealed{{}, {[]byte{1}, []byte{2}}, {make([]byte, 4096), make([]byte, 4096)}} {
		if _, err := unseal(tpm, &bad); err == nil {
			t.Errorf("%d and %d bytes: got no error", len(bad.Public), len(bad.Private))
		}
	}
}

// TestKeys takes a partition through its life, but for the kernel's part: key by the
// TPM, recovery key, another recovery key, another key by the TPM.
func TestKeys(t *testing.T) {
	tpm := attesttest.Emulated(t)
	f, err := os.Create(filepath.Join(t.TempDir(), "partition"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(MinSize); err != nil {
		t.Fatal(err)
	}
	key := luks.NewKey()
	header := luks.Create(key, Label)
	put := func(kind string, passphrase []byte, fields map[string]any) {
		t.Helper()
		if err := replaceKey(f, header, key, kind, passphrase, fields); err != nil {
			t.Fatal(err)
		}
	}
	reseal := func() {
		t.Helper()
		secret := passphrase()
		s, err := seal(tpm, secret)
		if err != nil {
			t.Fatal(err)
		}
		put(tpmToken, secret, s.fields())
	}
	reseal()
	if has, err := HasRecoveryKey(f.Name()); has || err != nil {
		t.Errorf("a recovery key before one was made: %t, %v", has, err)
	}
	if err := Unlock(f.Name(), newRecoveryKey()); err == nil || !strings.Contains(err.Error(), "recovery-key create") {
		t.Errorf("without a recovery key: got %v", err)
	}
	first, second := newRecoveryKey(), newRecoveryKey()
	put(recoveryToken, []byte(first), nil)
	put(recoveryToken, []byte(second), nil)
	reseal()
	_, header, err = readHeader(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if got := len(header.Slots()); got != 2 {
		t.Errorf("%d key slots, want 2", got)
	}
	if got, err := keyByTPM(tpm, f, header); err != nil || !bytes.Equal(got, key) {
		t.Errorf("by the TPM: %v", err)
	}
	if err := Unlock(f.Name(), first); !errors.Is(err, ErrRecoveryKey) {
		t.Errorf("the recovery key before: got %v", err)
	}
	tool, err := debian.FindTool(t.Context(), "cryptsetup")
	if err != nil {
		t.Skipf("needs cryptsetup: %v", err)
	}
	for recovery, opens := range map[string]bool{first: false, second: true} {
		cmd := tool.Command(t.Context(), "open", "--test-passphrase", "--key-file=-", f.Name())
		cmd.Stdin = strings.NewReader(recovery)
		if out, err := cmd.CombinedOutput(); (err == nil) != opens {
			t.Errorf("cryptsetup with a recovery key that opens %t: %v\n%s", opens, err, out)
		}
	}
}

func TestRecoveryKey(t *testing.T) {
	key := newRecoveryKey()
	if len(key) != 47 || key == newRecoveryKey() {
		t.Errorf("got %s", key)
	}
	for _, typed := range []string{key, strings.ToLower(key), " " + strings.ReplaceAll(key, "-", " ") + "\n"} {
		if got := normalize(typed); got != key {
			t.Errorf("%q: got %s, want %s", typed, got, key)
		}
	}
	if got := normalize("!"); got != "" {
		t.Errorf("got %q", got)
	}
}

// Programs that do not read LUKS headers know their layout from internal/release.
func TestLayout(t *testing.T) {
	if release.EncryptedMagic != luks.Magic || release.EncryptedStart != luks.DataStart || release.EncryptedCount != luks.FreeStart {
		t.Error("internal/release and internal/luks disagree")
	}
}
