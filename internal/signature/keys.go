package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrUntrusted means that nobody who is trusted signed a model as it is.
var ErrUntrusted error = untrusted{}

// untrusted is of the class of errdefs.ErrPermissionDenied, without importing it: manifests are
// checked without containerd's packages.
type untrusted struct{}

func (untrusted) Error() string { return "model not trusted" }

// Forbidden marks the class.
func (untrusted) Forbidden() {}

// Keys are the signers who are trusted. It is safe for concurrent use.
type Keys struct {
	keys       []crypto.PublicKey
	roots      []*x509.Certificate
	identities []Signer
	root       Root // by which they are verified; nil: none was given
}

// maxPEM bounds one text with a key or certificate.
const maxPEM = 64 << 10

// NewKeys reads signers: public keys (PUBLIC KEY), and certificates of authorities whose
// certificates sign (CERTIFICATE), all in PEM: ECDSA on NIST's curves, Ed25519, or RSA of at
// least 2048 bits; and identities, whose signatures are verified by a trusted root. Without
// one, nil, no identity is known to have signed.
func NewKeys(root Root, signers ...Signer) (*Keys, error) {
	k := &Keys{root: root}
	for _, s := range signers {
		if s.Key == "" {
			if err := s.check(); err != nil {
				return nil, err
			}
			k.identities = append(k.identities, s)
			continue
		}
		if s != (Signer{Key: s.Key}) {
			return nil, errors.New("has a key beside an identity: make two entries of them")
		}
		if err := k.addPEM(s.Key); err != nil {
			return nil, err
		}
	}
	return k, nil
}

func (k *Keys) addPEM(text string) error {
	rest := []byte(text)
	if len(rest) > maxPEM {
		return fmt.Errorf("has %d bytes, at most %d are accepted", len(rest), maxPEM)
	}
	for n := 0; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if n == 0 || strings.TrimSpace(string(rest)) != "" {
				return errors.New("must be public keys or certificates in PEM, beginning with -----BEGIN PUBLIC KEY----- or -----BEGIN CERTIFICATE-----")
			}
			return nil
		}
		if err := k.add(block); err != nil {
			return err
		}
	}
}

func (k *Keys) add(block *pem.Block) error {
	switch block.Type {
	case "PUBLIC KEY":
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return fmt.Errorf("has a public key that cannot be read: %w", err)
		}
		if err := checkKey(key); err != nil {
			return err
		}
		k.keys = append(k.keys, key)
	case "CERTIFICATE":
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("has a certificate that cannot be read: %w", err)
		}
		if !certificate.IsCA {
			return fmt.Errorf("has the certificate of %q, which is no authority: give its authority's, or its public key", certificate.Subject)
		}
		k.roots = append(k.roots, certificate)
	default: // a private key among them; not repeated
		return fmt.Errorf("has a PEM block that is neither a PUBLIC KEY nor a CERTIFICATE")
	}
	return nil
}

func checkKey(key crypto.PublicKey) error {
	switch key := key.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if key.N.BitLen() < 2048 {
			return fmt.Errorf("has an RSA key of %d bits: use 2048 or more", key.N.BitLen())
		}
		return nil
	}
	return fmt.Errorf("has a key of the kind %T: use ECDSA, Ed25519 or RSA", key)
}

// ID is the beginning of the SHA-256 of a public key's DER form.
func ID(key crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "unknown"
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:6])
}

// String lists the keys by their IDs, and authorities and identities by their names.
func (k *Keys) String() string {
	var names []string
	for _, key := range k.keys {
		names = append(names, "key "+ID(key))
	}
	for _, root := range k.roots {
		names = append(names, fmt.Sprintf("authority %q", root.Subject.String()))
	}
	for _, s := range k.identities {
		names = append(names, s.name())
	}
	return strings.Join(names, ", ")
}

// signer returns who among the keys made a signature of text.
func (k *Keys) signer(text, signature []byte) (string, bool) {
	for _, key := range k.keys {
		if verifies(key, text, signature) {
			return "key " + ID(key), true
		}
	}
	return "", false
}

// certified returns who made a signature, with the first certificate of a chain that leads to one
// of the authorities. As with model signing, it has to be valid when it was issued: a signature
// outlives its certificate.
func (k *Keys) certified(chain [][]byte, text, signature []byte) (string, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return "", fmt.Errorf("it has %d certificates", len(chain))
	}
	var certificates []*x509.Certificate
	for _, der := range chain {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return "", fmt.Errorf("its certificate: %w", err)
		}
		certificates = append(certificates, certificate)
	}
	leaf := certificates[0]
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, root := range k.roots {
		roots.AddCert(root)
	}
	for _, certificate := range certificates[1:] {
		between.AddCert(certificate)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: leaf.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return "", fmt.Errorf("the certificate of %q: %w", leaf.Subject.String(), err)
	}
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageCodeSigning) {
		return "", fmt.Errorf("the certificate of %q is not for signing", leaf.Subject.String())
	}
	if err := checkKey(leaf.PublicKey); err != nil {
		return "", fmt.Errorf("the certificate of %q %w", leaf.Subject.String(), err)
	}
	if !verifies(leaf.PublicKey, text, signature) {
		return "", fmt.Errorf("it is not by the key of its certificate, of %q", leaf.Subject.String())
	}
	return leaf.Subject.String(), nil
}

const maxChain = 10

// verifies reports whether a signature of text is by a key, with the hash that Sigstore uses with the
// key: for ECDSA by its curve, and SHA-256 as cosign uses with all.
func verifies(key crypto.PublicKey, text, signature []byte) bool {
	switch key := key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(key, text, signature)
	case *ecdsa.PublicKey:
		hashes := []crypto.Hash{crypto.SHA256}
		switch size := key.Curve.Params().BitSize; {
		case size > 384:
			hashes = append(hashes, crypto.SHA512)
		case size > 256:
			hashes = append(hashes, crypto.SHA384)
		}
		return slices.ContainsFunc(hashes, func(h crypto.Hash) bool { return ecdsa.VerifyASN1(key, sum(h, text), signature) })
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum(crypto.SHA256, text), signature) == nil
	}
	return false
}

func sum(h crypto.Hash, text []byte) []byte {
	w := h.New()
	w.Write(text)
	return w.Sum(nil)
}
