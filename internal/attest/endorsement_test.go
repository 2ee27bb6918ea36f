package attest

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"oscine.dev/oscine/internal/attest/attesttest"
)

// The maker's certificate, and a challenge that only the TPM opens whose keys both
// are.
func TestEndorsement(t *testing.T) {
	nonce := bytes.Repeat([]byte{7}, 32)
	maker, other := attesttest.NewMaker(t), attesttest.NewMaker(t)
	for name, kind := range map[string]tpm2.TPMAlgID{"RSA": tpm2.TPMAlgRSA, "ECC": tpm2.TPMAlgECC} {
		t.Run(name, func(t *testing.T) {
			tpm := attesttest.Emulated(t)
			if found, err := Endorsements(tpm); err != nil || len(found) != 0 {
				t.Fatalf("before the maker: got %d, %v", len(found), err)
			}
			maker.Endorse(tpm, kind)
			found, err := Endorsements(tpm)
			if err != nil || len(found) != 1 {
				t.Fatalf("got %d, %v", len(found), err)
			}
			e, err := ParseEndorsement(found[0])
			if err != nil {
				t.Fatal(err)
			}
			if e.Maker != "IBM" || e.Model != "swtpm" || !strings.Contains(e.Issuer, "Test TPM EK CA") {
				t.Errorf("got %+v", e)
			}
			if err := e.Verify(makers(t, maker.Authorities()), time.Now()); err != nil {
				t.Error(err)
			}
			if err := e.Verify(makers(t, other.Authorities()), time.Now()); !errors.Is(err, ErrEndorsement) || !strings.Contains(err.Error(), "of IBM by") {
				t.Errorf("of another maker: got %v", err)
			}
			evidence, err := Quote(tpm, nonce)
			if err != nil {
				t.Fatal(err)
			}
			c, secret, err := e.Challenge(evidence)
			if err != nil {
				t.Fatal(err)
			}
			if answer, err := Activate(tpm, c); err != nil || !Opened(secret, answer) {
				t.Errorf("its own challenge: got %x, %v", answer, err)
			}

			// Of another TPM of the same maker, the endorsement certificate says nothing
			// about this one's key.
			second := attesttest.Emulated(t)
			maker.Endorse(second, kind)
			theirs, err := Endorsements(second)
			if err != nil {
				t.Fatal(err)
			}
			relayed, err := ParseEndorsement(theirs[0])
			if err != nil {
				t.Fatal(err)
			}
			c, _, err = relayed.Challenge(evidence)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Activate(second, c); !errors.Is(err, ErrChallenge) {
				t.Errorf("the other TPM opens it: %v", err)
			}
			if _, err := Activate(tpm, c); !errors.Is(err, ErrChallenge) {
				t.Errorf("the TPM opens it without that endorsement key: %v", err)
			}
			c.Endorsement = found[0]
			if _, err := Activate(tpm, c); !errors.Is(err, ErrChallenge) {
				t.Errorf("the TPM opens what is sealed to another endorsement key: %v", err)
			}
			for name, bad := range map[string]Challenge{"empty": {}, "no credential": {Endorsement: found[0]}, "long": {Endorsement: found[0], Credential: make([]byte, maxEndorsement+1)}} {
				if _, err := Activate(tpm, bad); !errors.Is(err, ErrChallenge) {
					t.Errorf("%s: got %v", name, err)
				}
			}
			if _, err := Quote(tpm, nonce); err != nil { // no handle is left behind
				t.Error(err)
			}
		})
	}
}

func makers(t *testing.T, text []byte) *Makers {
	t.Helper()
	m, err := ReadMakers(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMakers(t *testing.T) {
	maker := attesttest.NewMaker(t)
	root, rest := pem.Decode(maker.Authorities())
	for name, text := range map[string][]byte{"nothing": nil, "no PEM": []byte("hello"), "no root": rest, "broken": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Bytes[1:]})} {
		if _, err := ReadMakers(text); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	cert, err := x509.ParseCertificate(root.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{
		"another use": maker.Certify(cert.PublicKey, asn1.ObjectIdentifier{1, 2, 3}), "an authority": root.Bytes,
	} {
		e, err := ParseEndorsement(der)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Verify(makers(t, maker.Authorities()), time.Now()); !errors.Is(err, ErrEndorsement) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestVendor(t *testing.T) {
	for text, want := range map[string]string{"id:49424D00": "IBM", "id:53544D20": "STM", "id:00001014": "id:00001014", "id:49424D": "id:49424D", "Infineon": "Infineon", "": ""} {
		if got := vendor(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func FuzzEndorsement(f *testing.F) {
	maker := attesttest.NewMaker(f)
	root, _ := pem.Decode(maker.Authorities())
	cert, err := x509.ParseCertificate(root.Bytes)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(maker.Certify(cert.PublicKey, attesttest.EndorsementUsage()))
	f.Add(root.Bytes)
	evidence := &Evidence{Public: tpm2.Marshal(template())}
	f.Fuzz(func(t *testing.T, der []byte) {
		e, err := ParseEndorsement(trim(der))
		if err != nil {
			return
		}
		if _, secret, err := e.Challenge(evidence); err == nil && len(secret) != 32 {
			t.Errorf("a secret of %d bytes", len(secret))
		}
	})
}
