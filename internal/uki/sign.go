package uki

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// Key signs what the firmware starts.
type Key struct {
	key  *rsa.PrivateKey
	cert *x509.Certificate
}

// LoadKey reads an RSA key and its certificate from one PEM file, PKCS #8 or
// PKCS #1.
func LoadKey(file string) (*Key, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	var k Key
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "CERTIFICATE":
			k.cert, err = x509.ParseCertificate(block.Bytes)
		case "RSA PRIVATE KEY":
			k.key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "PRIVATE KEY":
			var any any
			if any, err = x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
				k.key, _ = any.(*rsa.PrivateKey)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("signing key %s: %w", file, err)
		}
	}
	if k.key == nil || k.cert == nil {
		return nil, fmt.Errorf("signing key %s: it must hold an RSA private key and its certificate, both PEM", file)
	}
	if pub, ok := k.cert.PublicKey.(*rsa.PublicKey); !ok || !pub.Equal(k.key.Public()) {
		return nil, fmt.Errorf("signing key %s: the certificate is not that of the key", file)
	}
	return &k, nil
}

// DevelopmentKey returns the key of this machine for images that are not
// released, and makes it on first use.
func DevelopmentKey(cache string) (*Key, error) {
	file := filepath.Join(cache, "keys", "image.pem")
	k, err := LoadKey(file)
	if !errors.Is(err, os.ErrNotExist) {
		return k, err
	}
	if k, err = NewKey("Oscine development image key"); err != nil {
		return nil, err
	}
	text, err := k.PEM()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".new-") // mode 0600
	if err != nil {
		return nil, err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Link(f.Name(), file) // fails if another process was first
	}
	err = errors.Join(ignoreExist(err), os.Remove(f.Name()))
	if err != nil {
		return nil, fmt.Errorf("make the signing key: %w", err)
	}
	return LoadKey(file)
}

// NewKey makes a key with a certificate of that common name, which it signs
// itself: RSA of 2048 bits, the one kind that all firmware takes.
func NewKey(name string) (*Key, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	from := time.Now().UTC().Add(-24 * time.Hour)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: from, NotAfter: from.AddDate(30, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &Key{key: key, cert: cert}, err
}

// Certificate is the certificate of the key.
func (k *Key) Certificate() *x509.Certificate { return k.cert }

// PEM is the key and its certificate as LoadKey reads them.
func (k *Key) PEM() ([]byte, error) {
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k.key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.cert.Raw})...), nil
}

func ignoreExist(err error) error {
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

// Words of an entry of the certificate table (UEFI specification §32.4.1,
// WIN_CERTIFICATE): WIN_CERT_REVISION_2_0, WIN_CERT_TYPE_PKCS_SIGNED_DATA.
const (
	winCertRevision = 0x0200
	winCertPKCS7    = 0x0002
)

// Sign appends an Authenticode signature (Microsoft: Windows Authenticode
// Portable Executable Signature Format; UEFI specification §32.2.4) to a PE
// image. The same image and key give the same bytes.
func (k *Key) Sign(image []byte) ([]byte, error) {
	l, err := layoutOf(image)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	directory := image[l.optional+peCertificates:][:8]
	if binary.LittleEndian.Uint64(directory) != 0 {
		return nil, errors.New("sign: the image has a signature already")
	}
	out := append(append([]byte(nil), image...), make([]byte, -len(image)&7)...)
	blob, err := k.signedData(authenticodeDigest(out, l))
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	size := alignUp(8+len(blob), 8)
	binary.LittleEndian.PutUint32(out[l.optional+peCertificates:], uint32(len(out)))
	binary.LittleEndian.PutUint32(out[l.optional+peCertificates+4:], uint32(size))
	head := binary.LittleEndian.AppendUint32(nil, uint32(size))
	head = binary.LittleEndian.AppendUint16(head, winCertRevision)
	head = binary.LittleEndian.AppendUint16(head, winCertPKCS7)
	out = append(append(out, head...), blob...)
	return append(out, make([]byte, size-8-len(blob))...), nil
}

// authenticodeDigest hashes everything but the checksum, the entry of the
// certificate table and the table itself.
func authenticodeDigest(image []byte, l peLayout) []byte {
	end := len(image)
	if at := binary.LittleEndian.Uint32(image[l.optional+peCertificates:]); at != 0 && int(at) < end {
		end = int(at)
	}
	h := sha256.New()
	h.Write(image[:l.optional+peChecksum])
	h.Write(image[l.optional+peChecksum+4 : l.optional+peCertificates])
	h.Write(image[l.optional+peCertificates+8 : end])
	return h.Sum(nil)
}

type algorithm struct {
	ID   asn1.ObjectIdentifier
	Null asn1.RawValue
}

type attribute struct {
	ID     asn1.ObjectIdentifier
	Values asn1.RawValue `asn1:"set"`
}

type signerInfo struct {
	Version   int
	Issuer    issuerAndSerial
	Digest    algorithm
	Attrs     asn1.RawValue
	Algorithm algorithm
	Signature []byte
}

type issuerAndSerial struct {
	Issuer asn1.RawValue
	Serial *big.Int
}

type contentInfo struct {
	ID      asn1.ObjectIdentifier
	Content asn1.RawValue
}

type signedData struct {
	Version      int
	Digests      []algorithm `asn1:"set"`
	Content      contentInfo
	Certificates asn1.RawValue
	Signers      []signerInfo `asn1:"set"`
}

// The object identifiers of PKCS #7, PKCS #9 and Authenticode, in dotted form
// in the specifications.
func oid(n ...int) asn1.ObjectIdentifier { return n }

func oidSHA256() asn1.ObjectIdentifier { return oid(2, 16, 840, 1, 101, 3, 4, 2, 1) }

// SignDetached makes a PKCS #7 SignedData, in DER, over content that it does not
// hold, without attributes: the form of a signature in a variable of the firmware
// (UEFI specification §8.2.2, EFI_VARIABLE_AUTHENTICATION_2).
func (k *Key) SignDetached(content []byte) ([]byte, error) {
	digest := sha256.Sum256(content)
	signature, err := rsa.SignPKCS1v15(nil, k.key, crypto.SHA256, digest[:])
	if err != nil {
		return nil, err
	}
	null := asn1.RawValue{Tag: asn1.TagNull}
	sha := algorithm{oidSHA256(), null}
	type signer struct {
		Version   int
		Issuer    issuerAndSerial
		Digest    algorithm
		Algorithm algorithm
		Signature []byte
	}
	return asn1.Marshal(struct {
		Version      int
		Digests      []algorithm `asn1:"set"`
		Content      struct{ ID asn1.ObjectIdentifier }
		Certificates asn1.RawValue
		Signers      []signer `asn1:"set"`
	}{
		Version: 1, Digests: []algorithm{sha},
		Content:      struct{ ID asn1.ObjectIdentifier }{oid(1, 2, 840, 113549, 1, 7, 1)},
		Certificates: asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: k.cert.Raw},
		Signers: []signer{{
			Version: 1, Issuer: issuerAndSerial{asn1.RawValue{FullBytes: k.cert.RawIssuer}, k.cert.SerialNumber},
			Digest: sha, Algorithm: algorithm{oid(1, 2, 840, 113549, 1, 1, 1), null}, Signature: signature,
		}},
	})
}

// signedData makes the PKCS #7 message over the digest of an image.
func (k *Key) signedData(digest []byte) ([]byte, error) {
	null := asn1.RawValue{Tag: asn1.TagNull}
	sha := algorithm{oidSHA256(), null}
	spc := oid(1, 3, 6, 1, 4, 1, 311, 2, 1, 4)
	var failed error
	der := func(v any) []byte {
		b, err := asn1.Marshal(v)
		failed = errors.Join(failed, err)
		return b
	}
	tagged := func(tag int, content []byte) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: true, Bytes: content}
	}
	// SpcPeImageData with no flags and an empty file name.
	name := der(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0})
	link := der(tagged(0, der(tagged(2, name))))
	peData := der(struct {
		Flags asn1.BitString
		File  asn1.RawValue
	}{File: asn1.RawValue{FullBytes: link}})
	content := der(struct {
		Data   contentInfo
		Digest struct {
			Algorithm algorithm
			Digest    []byte
		}
	}{
		Data: contentInfo{oid(1, 3, 6, 1, 4, 1, 311, 2, 1, 15), asn1.RawValue{FullBytes: peData}},
		Digest: struct {
			Algorithm algorithm
			Digest    []byte
		}{sha, digest},
	})
	var inner asn1.RawValue
	if _, err := asn1.Unmarshal(content, &inner); err != nil {
		return nil, errors.Join(failed, err)
	}
	message := sha256.Sum256(inner.Bytes)
	set := func(v []byte) asn1.RawValue {
		return asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: v}
	}
	attrs := append(der(attribute{oid(1, 2, 840, 113549, 1, 9, 3), set(der(spc))}),
		der(attribute{oid(1, 2, 840, 113549, 1, 9, 4), set(der(message[:]))})...)
	toSign := sha256.Sum256(der(set(attrs)))
	signature, err := rsa.SignPKCS1v15(nil, k.key, crypto.SHA256, toSign[:])
	if err != nil {
		return nil, errors.Join(failed, err)
	}
	out := der(contentInfo{oid(1, 2, 840, 113549, 1, 7, 2), tagged(0, der(signedData{
		Version: 1, Digests: []algorithm{sha},
		Content:      contentInfo{spc, tagged(0, content)},
		Certificates: tagged(0, k.cert.Raw),
		Signers: []signerInfo{{
			Version: 1,
			Issuer:  issuerAndSerial{asn1.RawValue{FullBytes: k.cert.RawIssuer}, k.cert.SerialNumber},
			Digest:  sha, Attrs: tagged(0, attrs),
			Algorithm: algorithm{oid(1, 2, 840, 113549, 1, 1, 1), null}, Signature: signature,
		}},
	}))})
	return out, failed
}
