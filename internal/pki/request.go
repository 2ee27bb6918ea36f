package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// maxRequest bounds a request for a certificate in bytes.
const maxRequest = 16 << 10

// NewKey makes a private key, as PEM.
func NewKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("read the private key: it is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the private key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("read the private key: it cannot sign")
	}
	return signer, nil
}

// NewRequest returns a request for a certificate (PKCS #10, as PEM) for a private
// key, which stays where it is.
func NewRequest(key []byte) ([]byte, error) {
	signer, err := parseKey(key)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, signer)
	if err != nil {
		return nil, fmt.Errorf("make a request for a certificate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// publicKey is any key that crypto/x509 reads.
type publicKey interface {
	Equal(other crypto.PublicKey) bool
}

// parseRequest returns the key for which a request asks, whose holder signed it.
func parseRequest(request []byte) (publicKey, error) {
	if len(request) > maxRequest {
		return nil, fmt.Errorf("the request for a certificate is larger than %d bytes", maxRequest)
	}
	block, _ := pem.Decode(request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("the request for a certificate is not PEM")
	}
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the request for a certificate: %w", err)
	}
	if err := parsed.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the request for a certificate: %w", err)
	}
	key, ok := parsed.PublicKey.(publicKey)
	if !ok {
		return nil, errors.New("the request for a certificate has a key of no known kind")
	}
	return key, nil
}
