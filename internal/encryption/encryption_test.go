package encryption

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"oscine.dev/oscine/internal/attest"
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

// bankless is a TPM that has no register which it is asked for.
type bankless struct{}

// Send answers TPM2_PCR_Read with no values: header, counter, no selection, no digest.
func (bankless) Send([]byte) ([]byte, error) {
	return []byte{0x80, 1, 0, 0, 0, 22, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, nil
}

// A TPM without the bank that is needed is as good as none.
func TestNoBank(t *testing.T) {
	if err := closeKey(bankless{}); !errors.Is(err, attest.ErrNoTPM) || !strings.Contains(err.Error(), "SHA-256 bank") {
		t.Errorf("close: got %v", err)
	}
	if _, err := seal(bankless{}, passphrase()); !errors.Is(err, attest.ErrNoTPM) {
		t.Errorf("seal: got %v", err)
	}
}

// failing is a device whose power fails at a write, which is not done, or for its first sector.
type failing struct {
	*os.File
	left int
	torn bool
}

func (f *failing) WriteAt(b []byte, at int64) (int, error) {
	if f.left--; f.left > 0 {
		return f.File.WriteAt(b, at)
	}
	if f.left == 0 && f.torn {
		_, _ = f.File.WriteAt(b[:512], at)
	}
	return 0, errPower
}

func (f *failing) Sync() error { return nil }

var errPower = errors.New("the power failed")

// Two power failures, at any write of a key and at any of the next one, leave a
// partition that both kinds of keys open.
func TestPowerFailures(t *testing.T) {
	for over, first := false, 1; !over; first++ {
		for second := 1; !twoFailures(t, failing{left: first}, failing{left: second, torn: true}, &over); second++ {
		}
	}
}

// twoFailures reports that the second power failure came after the last write; over
// says so of the first.
func twoFailures(t *testing.T, first, second failing, over *bool) bool {
	writes := [2]int{first.left, second.left}
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
	put := func(d failing, kind, passphrase string) (whole bool) {
		d.File = f
		err := replaceKey(&d, header, key, kind, []byte(passphrase), nil)
		if err != nil && !errors.Is(err, errPower) {
			t.Fatal(err)
		}
		return err == nil
	}
	put(failing{left: 100}, tpmToken, "tpm 1")
	put(failing{left: 100}, recoveryToken, "recovery 1")
	*over = put(first, tpmToken, "tpm 2")
	if header, err = luks.Read(f); err != nil {
		t.Fatal(err)
	}
	over2 := put(second, recoveryToken, "recovery 2")
	if header, err = luks.Read(f); err != nil {
		t.Fatal(err)
	}
	for kind, passphrases := range map[string][]string{tpmToken: {"tpm 1", "tpm 2"}, recoveryToken: {"recovery 1", "recovery 2"}} {
		_, slots := header.Token(kind)
		opens := slices.ContainsFunc(passphrases, func(passphrase string) bool {
			got, err := header.Unlock(f, []byte(passphrase), slots...)
			return err == nil && bytes.Equal(got, key)
		})
		if !opens {
			t.Errorf("power failed at writes %v: nothing opens the slot of %s", writes, kind)
		}
	}
	return over2
}
