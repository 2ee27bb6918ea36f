package attest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"oscine.dev/oscine/internal/attest/attesttest"
	"oscine.dev/oscine/internal/debian"
)

// extend takes data up into a register.
func extend(t *testing.T, tpm transport.TPM, pcr uint32, data string) {
	t.Helper()
	digest := sha256.Sum256([]byte(data))
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: digest[:]}}},
	}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
}

func TestQuote(t *testing.T) {
	tpm := attesttest.Emulated(t)
	extend(t, tpm, 11, "kernel")
	digest := sha256.Sum256([]byte("kernel"))
	want := sha256.Sum256(append(make([]byte, 32), digest[:]...))
	nonce := bytes.Repeat([]byte{7}, 32)
	e, err := Quote(tpm, nonce)
	if err != nil {
		t.Fatal(err)
	}
	s, err := e.Verify(nonce)
	if err != nil {
		t.Fatal(err)
	}
	expected := map[int]string{11: hex.EncodeToString(want[:]), 12: strings.Repeat("00", 32)}
	if err := s.Compare(expected); err != nil {
		t.Error(err)
	}

	// A value that differs is told with its register and both values.
	extend(t, tpm, 12, "another command line")
	later, err := Quote(tpm, nonce)
	if err != nil {
		t.Fatal(err)
	}
	changed, err := later.Verify(nonce)
	if err != nil {
		t.Fatal(err)
	}
	err = changed.Compare(expected)
	if want := fmt.Sprintf("PCR 12 is %x, want 0000", changed.PCRs[12]); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "PCR 11") {
		t.Errorf("got %v, want %q", err, want)
	}
	if s.Fingerprint() != changed.Fingerprint() || len(s.Fingerprint()) != 64 {
		t.Errorf("the key of one TPM is %s, then %s", s.Fingerprint(), changed.Fingerprint())
	}
	another, err := Quote(attesttest.Emulated(t), nonce)
	if err != nil {
		t.Fatal(err)
	}

	for name, test := range map[string]struct {
		bad  Evidence
		want string
	}{
		"another nonce":     {*must(Quote(tpm, bytes.Repeat([]byte{8}, 32))), "it is of the nonce 0808"},
		"other registers":   {Evidence{e.Public, e.Quote, e.Signature, later.PCRs}, "are not those that were signed"},
		"an older quote":    {Evidence{e.Public, e.Quote, later.Signature, e.PCRs}, "not of the key"},
		"another TPM's key": {Evidence{another.Public, e.Quote, e.Signature, e.PCRs}, "not of the key"},
		"no registers":      {Evidence{e.Public, e.Quote, e.Signature, nil}, "16 registers"},
		"nothing":           {Evidence{PCRs: e.PCRs}, "its key"},
		"a long part":       {Evidence{e.Public, make([]byte, maxPart+1), e.Signature, e.PCRs}, "at most 4096"},
		"a free key":        {Evidence{freeKey(t, e.Public), e.Quote, e.Signature, e.PCRs}, "not for attestation alone"},
	} {
		if _, err := test.bad.Verify(nonce); !errors.Is(err, ErrEvidence) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}

	// A quote that is bound to a request proves nothing for another one, and no
	// caller has the TPM sign the binding of a request of its own.
	request := []byte("a request")
	boundTo, err := QuoteRequest(tpm, nonce, request)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := boundTo.Verify(Binding(nonce, request)); err != nil {
		t.Error(err)
	}
	for name, qualifying := range map[string][]byte{"another request": Binding(nonce, []byte("another")), "another nonce": Binding(bytes.Repeat([]byte{8}, 32), request), "none": nonce} {
		if _, err := boundTo.Verify(qualifying); !errors.Is(err, ErrEvidence) {
			t.Errorf("bound to a request, and verified for %s: got %v", name, err)
		}
	}
	if _, err := Quote(tpm, Binding(nonce, request)); !errors.Is(err, ErrNonce) {
		t.Errorf("a binding as nonce: got %v", err)
	}
	if _, err := QuoteRequest(tpm, nil, request); !errors.Is(err, ErrNonce) {
		t.Errorf("a request without nonce: got %v", err)
	}
	for _, n := range []int{0, MinNonce - 1, MaxNonce + 1} {
		if _, err := Quote(tpm, make([]byte, n)); !errors.Is(err, ErrNonce) {
			t.Errorf("a nonce of %d bytes: got %v", n, err)
		}
	}
}

func must(e *Evidence, err error) *Evidence {
	if err != nil {
		panic(err)
	}
	return e
}

// freeKey is the key as one that signs whatever it is given.
func freeKey(t *testing.T, public []byte) []byte {
	t.Helper()
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		t.Fatal(err)
	}
	p.ObjectAttributes.Restricted = false
	return tpm2.Marshal(*p)
}

// The files are what tpm2-tools, by others, verify.
func TestFilesForOthers(t *testing.T) {
	nonce := bytes.Repeat([]byte{7}, 32)
	tpm := attesttest.Emulated(t)
	extend(t, tpm, 11, "kernel")
	e, err := Quote(tpm, nonce)
	if err != nil {
		t.Fatal(err)
	}
	s, err := e.Verify(nonce)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	command, err := WriteFiles(dir, e, s, nonce)
	if err != nil {
		t.Fatal(err)
	}
	check := func() ([]byte, error) {
		tool, err := debian.FindTool(t.Context(), command[0])
		if err != nil {
			t.Skipf("needs tpm2-tools: %v", err)
		}
		cmd := tool.Command(t.Context(), command[1:]...)
		cmd.Dir = dir
		return cmd.CombinedOutput()
	}
	if out, err := check(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
	pcrs, err := os.ReadFile(filepath.Join(dir, "pcrs.bin"))
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(pcrs, e.PCRs[11])
	if at < 0 {
		t.Fatal("the file lacks register 11")
	}
	pcrs[at] ^= 1
	if err := os.WriteFile(filepath.Join(dir, "pcrs.bin"), pcrs, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := check(); err == nil {
		t.Errorf("a changed register was taken:\n%s", out)
	}
}

func FuzzVerify(f *testing.F) {
	nonce := bytes.Repeat([]byte{7}, 32)
	e, err := Quote(attesttest.Emulated(f), nonce)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.Public, e.Quote, e.Signature)
	f.Fuzz(func(t *testing.T, public, quote, signature []byte) {
		got := Evidence{public, quote, signature, e.PCRs}
		if _, err := got.Verify(nonce); err == nil && bytes.Equal(public, e.Public) && !bytes.Equal(quote, e.Quote) {
			t.Error("a forged quote was taken")
		}
	})
}

func TestNoTPM(t *testing.T) {
	if _, err := open(filepath.Join(t.TempDir(), "tpmrm0")); !errors.Is(err, ErrNoTPM) || !strings.Contains(err.Error(), "--tpm") {
		t.Errorf("got %v", err)
	}
}
