package attesttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Maker is a maker of TPMs with a root and an authority below it, which signs.
type Maker struct {
	t            testing.TB
	root, signer *x509.Certificate
	key          *ecdsa.PrivateKey // of signer
}

// NewMaker makes a maker of TPMs.
func NewMaker(t testing.TB) *Maker {
	t.Helper()
	m := &Maker{t: t}
	key := m.newKey()
	root := m.authority("Test TPM Root CA")
	m.root = m.sign(root, root, &key.PublicKey, key)
	m.key = m.newKey()
	m.signer = m.sign(m.authority("Test TPM EK CA"), m.root, &m.key.PublicKey, key)
	return m
}

func (m *Maker) newKey() *ecdsa.PrivateKey {
	m.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		m.t.Fatal(err)
	}
	return key
}

func (m *Maker) authority(name string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
}

func (m *Maker) sign(template, parent *x509.Certificate, public any, key *ecdsa.PrivateKey) *x509.Certificate {
	m.t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		m.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		m.t.Fatal(err)
	}
	return cert
}

// Authorities are the maker's, in PEM.
func (m *Maker) Authorities() []byte {
	var text []byte
	for _, cert := range []*x509.Certificate{m.root, m.signer} {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return text
}

// Certify signs an endorsement certificate for a key, as TCG's profile has it:
// without subject, with a critical name of the TPM instead. usage is tcg-kp-EKCertificate,
// or another one.
func (m *Maker) Certify(public any, usage asn1.ObjectIdentifier) []byte {
	m.t.Helper()
	attribute := func(number int, text string) pkix.RelativeDistinguishedNameSET {
		return pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 23, 133, 2, number}, Value: text}}
	}
	name, err := asn1.Marshal(pkix.RDNSequence{attribute(1, "id:49424D00"), attribute(2, "swtpm"), attribute(3, "id:20191023")})
	if err != nil {
		m.t.Fatal(err)
	}
	names, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: name}})
	if err != nil {
		m.t.Fatal(err)
	}
	return m.sign(&x509.Certificate{
		KeyUsage: x509.KeyUsageKeyEncipherment, UnknownExtKeyUsage: []asn1.ObjectIdentifier{usage}, BasicConstraintsValid: true,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: names}},
	}, m.signer, public, m.key).Raw
}

// EndorsementUsage is what an endorsement certificate is for: tcg-kp-EKCertificate.
func EndorsementUsage() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 23, 133, 8, 1} }

// Endorse puts certificates for the TPM's endorsement keys into it, RSA or ECC, as
// its maker does before it sells it.
func (m *Maker) Endorse(tpm transport.TPM, keys ...tpm2.TPMAlgID) {
	m.t.Helper()
	for _, kind := range keys {
		index, template := tpm2.TPMHandle(0x01C00002), tpm2.RSAEKTemplate
		if kind == tpm2.TPMAlgECC {
			index, template = 0x01C0000A, tpm2.ECCEKTemplate
		}
		m.write(tpm, index, m.Certify(m.endorsementKey(tpm, template), EndorsementUsage()))
	}
}

func (m *Maker) endorsementKey(tpm transport.TPM, template tpm2.TPMTPublic) any {
	m.t.Helper()
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template)}.Execute(tpm)
	if err != nil {
		m.t.Fatal(err)
	}
	if _, err := (tpm2.FlushContext{FlushHandle: made.ObjectHandle}).Execute(tpm); err != nil {
		m.t.Fatal(err)
	}
	public, err := made.OutPublic.Contents()
	if err != nil {
		m.t.Fatal(err)
	}
	key, err := tpm2.Pub(*public)
	if err != nil {
		m.t.Fatal(err)
	}
	return key
}

// write makes an index that is larger than the certificate, and writes it in parts.
func (m *Maker) write(tpm transport.TPM, index tpm2.TPMHandle, certificate []byte) {
	m.t.Helper()
	const spare, chunk = 64, 512
	certificate = append(certificate, make([]byte, spare)...)
	_, err := tpm2.NVDefineSpace{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHPlatform, Auth: tpm2.PasswordAuth(nil)},
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(certificate)),
			Attributes: tpm2.TPMANV{PPWrite: true, PPRead: true, OwnerRead: true, AuthRead: true, NoDA: true, PlatformCreate: true, NT: tpm2.TPMNTOrdinary},
		}),
	}.Execute(tpm)
	if err != nil {
		m.t.Fatal(err)
	}
	for at := 0; at < len(certificate); at += chunk {
		public, err := tpm2.NVReadPublic{NVIndex: index}.Execute(tpm)
		if err != nil {
			m.t.Fatal(err)
		}
		_, err = tpm2.NVWrite{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHPlatform, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: public.NVName},
			Data:       tpm2.TPM2BMaxNVBuffer{Buffer: certificate[at:min(at+chunk, len(certificate))]}, Offset: uint16(at),
		}.Execute(tpm)
		if err != nil {
			m.t.Fatal(err)
		}
	}
}
