package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// ErrEndorsement is wrapped by the errors of endorsement certificates that prove
// nothing.
var ErrEndorsement = errors.New("the TPM's endorsement certificate proves nothing")

// Makers are the authorities by which makers sign the endorsement certificates of
// their TPMs.
type Makers struct{ roots, intermediates *x509.CertPool }

// ReadMakers reads authorities from certificates in PEM. Those that signed
// themselves are trusted, the others lie between.
func ReadMakers(text []byte) (*Makers, error) {
	m := &Makers{x509.NewCertPool(), x509.NewCertPool()}
	trusted := false
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("a certificate of a TPM's maker: %w", err)
		}
		if bytes.Equal(cert.RawSubject, cert.RawIssuer) {
			m.roots.AddCert(cert)
			trusted = true
		} else {
			m.intermediates.AddCert(cert)
		}
	}
	if !trusted {
		return nil, errors.New("no root certificate in PEM: give the maker's root, and the intermediate ones behind it")
	}
	return m, nil
}

// Endorsement is a TPM's endorsement certificate, and what it says of the TPM.
type Endorsement struct {
	Maker, Model, Version string // as the maker wrote them; empty where it did not
	Issuer                string

	cert *x509.Certificate
}

// Objects of TCG EK Credential Profile for TPM 2.0, section 3.1 and annex A.
var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidEndorsementKey = asn1.ObjectIdentifier{2, 23, 133, 8, 1} // tcg-kp-EKCertificate
	oidManufacturer   = asn1.ObjectIdentifier{2, 23, 133, 2, 1}
	oidModel          = asn1.ObjectIdentifier{2, 23, 133, 2, 2}
	oidVersion        = asn1.ObjectIdentifier{2, 23, 133, 2, 3}
)

// directoryName is the tag of that choice of a GeneralName (RFC 5280, section 4.2.1.6).
const directoryName = 4

// ParseEndorsement reads an endorsement certificate. Nothing of it is verified.
func ParseEndorsement(der []byte) (*Endorsement, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEndorsement, err)
	}
	e := &Endorsement{cert: cert, Issuer: cert.Issuer.String()}
	for _, extension := range cert.Extensions {
		if extension.Id.Equal(oidSubjectAltName) {
			if err := e.describe(extension.Value); err != nil {
				return nil, fmt.Errorf("%w: its subject alternative name: %w", ErrEndorsement, err)
			}
		}
	}
	return e, nil
}

// describe reads the TPM's description out of the subject alternative name. The
// extension is critical where the subject is empty, and crypto/x509 does not know
// this name: it counts as handled then.
func (e *Endorsement) describe(value []byte) error {
	var names []asn1.RawValue
	if rest, err := asn1.Unmarshal(value, &names); err != nil || len(rest) > 0 {
		return errors.Join(errors.New("is not a list of names"), err)
	}
	for _, name := range names {
		if name.Class != asn1.ClassContextSpecific || name.Tag != directoryName {
			continue
		}
		var sequence pkix.RDNSequence
		if rest, err := asn1.Unmarshal(name.Bytes, &sequence); err != nil || len(rest) > 0 {
			return errors.Join(errors.New("has no directory name"), err)
		}
		for _, set := range sequence {
			for _, attribute := range set {
				text, _ := attribute.Value.(string)
				switch {
				case attribute.Type.Equal(oidManufacturer):
					e.Maker = vendor(text)
				case attribute.Type.Equal(oidModel):
					e.Model = text
				case attribute.Type.Equal(oidVersion):
					e.Version = text
				}
			}
		}
		e.cert.UnhandledCriticalExtensions = slices.DeleteFunc(e.cert.UnhandledCriticalExtensions, oidSubjectAltName.Equal)
	}
	return nil
}

// vendor is the name that "id:" and eight hexadecimal digits stand for, four
// characters (TCG TPM Vendor ID Registry), or the number where those are none.
func vendor(text string) string {
	raw, err := hex.DecodeString(strings.TrimPrefix(text, "id:"))
	name := strings.Trim(string(raw), " \x00")
	if err != nil || len(raw) != 4 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return text
	}
	return name
}

// Verify returns an error unless one of the makers signed the certificate, for the
// endorsement key of a TPM. Its errors wrap ErrEndorsement.
func (e *Endorsement) Verify(makers *Makers, now time.Time) error {
	if e.cert.IsCA {
		return fmt.Errorf("%w: it is of an authority", ErrEndorsement)
	}
	if len(e.cert.ExtKeyUsage)+len(e.cert.UnknownExtKeyUsage) > 0 && !slices.ContainsFunc(e.cert.UnknownExtKeyUsage, oidEndorsementKey.Equal) {
		return fmt.Errorf("%w: it is for another use than as endorsement key", ErrEndorsement)
	}
	_, err := e.cert.Verify(x509.VerifyOptions{Roots: makers.roots, Intermediates: makers.intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return fmt.Errorf("%w: it is of %s by %q: %w", ErrEndorsement, e.Maker, e.Issuer, err)
	}
	return nil
}

// Challenge makes a secret that the TPM with this endorsement key opens only where
// the key that signed evidence is its own; see Activate. Evidence has been verified.
func (e *Endorsement) Challenge(evidence *Evidence) (c Challenge, secret []byte, err error) {
	public, err := e.public()
	if err != nil {
		return Challenge{}, nil, fmt.Errorf("%w: %w", ErrEndorsement, err)
	}
	key, err := tpm2.ImportEncapsulationKey(public)
	if err != nil {
		return Challenge{}, nil, fmt.Errorf("%w: %w", ErrEndorsement, err)
	}
	attestation, err := tpm2.Unmarshal[tpm2.TPMTPublic](evidence.Public)
	if err != nil {
		return Challenge{}, nil, err
	}
	name, err := tpm2.ObjectName(attestation)
	if err != nil {
		return Challenge{}, nil, err
	}
	secret = make([]byte, 32)
	rand.Read(secret)
	c.Endorsement = e.cert.Raw
	if c.Credential, c.Secret, err = tpm2.CreateCredential(rand.Reader, key, name.Buffer, secret); err != nil {
		return Challenge{}, nil, fmt.Errorf("%w: %w", ErrEndorsement, err)
	}
	return c, secret, nil
}

// Opened reports whether a TPM has opened the challenge with this secret.
func Opened(secret, answer []byte) bool { return subtle.ConstantTimeCompare(secret, answer) == 1 }

// oidOAEP marks RSA keys for that padding alone (RFC 4055, section 4), which some
// makers write and crypto/x509 does not read.
var oidOAEP = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}

// key is that of the certificate.
func (e *Endorsement) key() (any, error) {
	if e.cert.PublicKey != nil {
		return e.cert.PublicKey, nil
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(e.cert.RawSubjectPublicKeyInfo, &info); err != nil {
		return nil, err
	}
	if !info.Algorithm.Algorithm.Equal(oidOAEP) {
		return nil, fmt.Errorf("its key is of the unknown kind %s", info.Algorithm.Algorithm)
	}
	return x509.ParsePKCS1PublicKey(info.Key.RightAlign())
}

// public is the endorsement key as its template makes it.
func (e *Endorsement) public() (*tpm2.TPMTPublic, error) {
	key, err := e.key()
	if err != nil {
		return nil, err
	}
	switch key := key.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() != 2048 {
			return nil, fmt.Errorf("its key has %d bits, want 2048", key.N.BitLen())
		}
		public := tpm2.RSAEKTemplate
		public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.N.FillBytes(make([]byte, 256))})
		return &public, nil
	case *ecdsa.PublicKey:
		if key.Curve.Params().Name != "P-256" {
			return nil, fmt.Errorf("its key is on %s, want P-256", key.Curve.Params().Name)
		}
		point, err := key.Bytes() // 4, x, y
		if err != nil {
			return nil, err
		}
		public := tpm2.ECCEKTemplate
		public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]},
		})
		return &public, nil
	}
	return nil, fmt.Errorf("its key is of the kind %s", e.cert.PublicKeyAlgorithm)
}
