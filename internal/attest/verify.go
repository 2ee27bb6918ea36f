package attest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// Statement is what verified evidence proves of the machine whose TPM holds the
// key.
type Statement struct {
	Key    crypto.PublicKey
	PCRs   [][]byte // of the SHA-256 bank, from 0
	Resets uint32   // how often the machine was switched on or reset
}

// Fingerprint names the TPM's key: the SHA-256 of its public half as PKIX in DER,
// in hex.
func (s *Statement) Fingerprint() string {
	der, err := x509.MarshalPKIXPublicKey(s.Key)
	if err != nil {
		return "" // Verify makes keys that can be encoded
	}
	return fmt.Sprintf("%x", sha256.Sum256(der))
}

// PEM is the public half of the TPM's key.
func (s *Statement) PEM() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(s.Key)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), err
}

// Verify checks that the evidence is of this nonce, signed by a key that only a TPM
// can use so, and that it is of the registers beside it. Whose TPM that is, is the
// caller's question. Its errors wrap ErrEvidence.
func (e *Evidence) Verify(nonce []byte) (*Statement, error) {
	s, err := e.verify(nonce)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEvidence, err)
	}
	return s, nil
}

func (e *Evidence) verify(nonce []byte) (*Statement, error) {
	if max(len(e.Public), len(e.Quote), len(e.Signature)) > maxPart || len(e.PCRs) != Registers ||
		slices.ContainsFunc(e.PCRs, func(pcr []byte) bool { return len(pcr) != sha256.Size }) {
		return nil, fmt.Errorf("it does not have %d registers of 32 bytes and parts of at most %d", Registers, maxPart)
	}
	key, err := attestationKey(e.Public)
	if err != nil {
		return nil, err
	}
	signature, err := tpm2.Unmarshal[tpm2.TPMTSignature](e.Signature)
	if err != nil {
		return nil, fmt.Errorf("its signature: %w", err)
	}
	ecc, err := signature.Signature.ECDSA()
	if err != nil || signature.SigAlg != tpm2.TPMAlgECDSA || ecc.Hash != tpm2.TPMAlgSHA256 {
		return nil, errors.New("its signature is not by ECDSA with SHA-256")
	}
	digest := sha256.Sum256(e.Quote)
	if !ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(ecc.SignatureR.Buffer), new(big.Int).SetBytes(ecc.SignatureS.Buffer)) {
		return nil, errors.New("its signature is not of the key that it names")
	}
	attested, err := tpm2.Unmarshal[tpm2.TPMSAttest](e.Quote)
	if err != nil {
		return nil, fmt.Errorf("what was signed: %w", err)
	}
	if attested.Magic != tpm2.TPMGeneratedValue || attested.Type != tpm2.TPMSTAttestQuote {
		return nil, errors.New("what was signed is not a quote")
	}
	if !bytes.Equal(attested.ExtraData.Buffer, nonce) {
		return nil, fmt.Errorf("it is of the nonce %x, and %x was sent: it may be an old one that is sent again", attested.ExtraData.Buffer, nonce)
	}
	quote, err := attested.Attested.Quote()
	if err != nil {
		return nil, fmt.Errorf("what was signed: %w", err)
	}
	if !bytes.Equal(tpm2.Marshal(quote.PCRSelect), tpm2.Marshal(quoted())) {
		return nil, fmt.Errorf("it is of other registers than the first %d of the SHA-256 bank", Registers)
	}
	if !bytes.Equal(quote.PCRDigest.Buffer, digestOf(e.PCRs)) {
		return nil, errors.New("the registers are not those that were signed")
	}
	return &Statement{Key: key, PCRs: e.PCRs, Resets: attested.ClockInfo.ResetCount}, nil
}

// attestationKey reads a key that can sign nothing but what its TPM has made, and
// that never leaves it.
func attestationKey(public []byte) (*ecdsa.PublicKey, error) {
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return nil, fmt.Errorf("its key: %w", err)
	}
	if a := p.ObjectAttributes; !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin || !a.Restricted || !a.SignEncrypt || a.Decrypt {
		return nil, errors.New("its key is not for attestation alone")
	}
	key, err := tpm2.Pub(*p)
	if err != nil {
		return nil, fmt.Errorf("its key: %w", err)
	}
	ecc, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return nil, errors.New("its key is not on a curve")
	}
	if _, err := ecc.ECDH(); err != nil { // checks that the point is on the curve
		return nil, fmt.Errorf("its key: %w", err)
	}
	return ecc, nil
}

// Compare returns an error for each register that differs from what is expected,
// naming it and both values. Its errors wrap ErrMismatch.
func (s *Statement) Compare(expected map[int]string) error {
	var errs []error
	for i, pcr := range s.PCRs {
		if want, ok := expected[i]; ok && hex.EncodeToString(pcr) != want {
			errs = append(errs, fmt.Errorf("%w: PCR %d is %x, want %s", ErrMismatch, i, pcr, want))
		}
	}
	return errors.Join(errs...)
}
