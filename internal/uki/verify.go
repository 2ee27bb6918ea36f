package uki

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrUnsigned is returned by Signer for an image without a signature.
var ErrUnsigned = errors.New("it has no signature")

// Signer verifies the one Authenticode signature of a PE image and returns the
// certificate that made it, as the firmware would find it: whether that
// certificate is trusted is the caller's question. It takes what Key.Sign makes
// (SHA-256 and RSA), and returns an error for an image that was altered, cut off,
// or signed in another way.
func Signer(image []byte) (*x509.Certificate, error) {
	l, err := layoutOf(image)
	if err != nil {
		return nil, err
	}
	message, err := certificateTable(image, l)
	if err != nil {
		return nil, err
	}
	data, err := parseSignedData(message)
	if err != nil {
		return nil, fmt.Errorf("its signature cannot be read: %w", err)
	}
	content, err := checkContent(data.Content, authenticodeDigest(image, l))
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(data.Certificates.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the certificate of its signature cannot be read: %w", err)
	}
	if len(data.Signers) != 1 {
		return nil, fmt.Errorf("it has %d signatures, want 1", len(data.Signers))
	}
	if err := checkSignature(data.Signers[0], cert, content); err != nil {
		return nil, err
	}
	return cert, nil
}

// certificateTable returns the PKCS #7 message of the only entry of the image's
// certificate table, which must be the end of the file.
func certificateTable(image []byte, l peLayout) ([]byte, error) {
	at := uint64(binary.LittleEndian.Uint32(image[l.optional+peCertificates:]))
	size := uint64(binary.LittleEndian.Uint32(image[l.optional+peCertificates+4:]))
	if at == 0 && size == 0 {
		return nil, ErrUnsigned
	}
	if at < uint64(l.table) || size < 8 || at+size != uint64(len(image)) {
		return nil, errors.New("its signature is not the end of the file: it was cut off or added to")
	}
	table := image[at:]
	length, revision, kind := binary.LittleEndian.Uint32(table), binary.LittleEndian.Uint16(table[4:]), binary.LittleEndian.Uint16(table[6:])
	if uint64(length) != size || revision != winCertRevision || kind != winCertPKCS7 {
		return nil, errors.New("its certificate table holds something else than one PKCS #7 message")
	}
	return table[8:], nil
}

// parseSignedData reads a message that padding may follow.
func parseSignedData(message []byte) (*signedData, error) {
	var outer contentInfo
	rest, err := asn1.Unmarshal(message, &outer)
	if err != nil {
		return nil, err
	}
	if len(bytes.Trim(rest, "\x00")) > 0 || len(rest) > 8 {
		return nil, errors.New("something follows it")
	}
	if !outer.ID.Equal(oid(1, 2, 840, 113549, 1, 7, 2)) {
		return nil, errors.New("it is not signed data")
	}
	var data signedData
	if rest, err = asn1.Unmarshal(outer.Content.Bytes, &data); err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, errors.New("something follows the signed data")
	}
	return &data, nil
}

// checkContent compares the digest that was signed with that of the image, and
// returns the bytes that the message digest covers.
func checkContent(c contentInfo, digest []byte) ([]byte, error) {
	if !c.ID.Equal(oid(1, 3, 6, 1, 4, 1, 311, 2, 1, 4)) {
		return nil, errors.New("its signature is not of a program")
	}
	var content struct {
		Data   contentInfo
		Digest struct {
			Algorithm algorithm
			Digest    []byte
		}
	}
	var inner asn1.RawValue
	if rest, err := asn1.Unmarshal(c.Content.Bytes, &inner); err != nil || len(rest) > 0 {
		return nil, errors.New("the content of its signature cannot be read")
	}
	if _, err := asn1.Unmarshal(inner.FullBytes, &content); err != nil {
		return nil, fmt.Errorf("the content of its signature cannot be read: %w", err)
	}
	if !content.Digest.Algorithm.ID.Equal(oidSHA256()) || !bytes.Equal(content.Digest.Digest, digest) {
		return nil, errors.New("it differs from what was signed")
	}
	return inner.Bytes, nil
}

// checkSignature checks the signed attributes against the content, and their
// signature.
func checkSignature(s signerInfo, cert *x509.Certificate, content []byte) error {
	want := sha256.Sum256(content)
	types := map[string]asn1.RawValue{}
	for rest := s.Attrs.Bytes; len(rest) > 0; {
		var a attribute
		var err error
		if rest, err = asn1.Unmarshal(rest, &a); err != nil {
			return fmt.Errorf("the attributes of its signature cannot be read: %w", err)
		}
		types[a.ID.String()] = a.Values
	}
	var kind asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(types["1.2.840.113549.1.9.3"].Bytes, &kind); err != nil || !kind.Equal(oid(1, 3, 6, 1, 4, 1, 311, 2, 1, 4)) {
		return errors.New("its signature is not of a program")
	}
	var message []byte
	if _, err := asn1.Unmarshal(types["1.2.840.113549.1.9.4"].Bytes, &message); err != nil || !bytes.Equal(message, want[:]) {
		return errors.New("its signature is of something else")
	}
	if !bytes.Equal(s.Issuer.Issuer.FullBytes, cert.RawIssuer) || s.Issuer.Serial == nil || s.Issuer.Serial.Cmp(cert.SerialNumber) != 0 ||
		!s.Digest.ID.Equal(oidSHA256()) {
		return errors.New("its signature names another certificate than the one it brings")
	}
	signed, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: s.Attrs.Bytes})
	if err != nil {
		return err
	}
	if err := cert.CheckSignature(x509.SHA256WithRSA, signed, s.Signature); err != nil {
		return fmt.Errorf("its signature is not of the certificate that it brings: %w", err)
	}
	return nil
}
