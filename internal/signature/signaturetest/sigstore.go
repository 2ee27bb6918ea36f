package signaturetest

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"testing"

	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	commonpb "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	dssepb "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	rekorpb "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"google.golang.org/protobuf/encoding/protojson"
)

// Sigstore is one for tests, with an authority and a transparency log: sigstore-go's own.
type Sigstore struct {
	Root string // its trusted_root.json

	t       testing.TB
	virtual *ca.VirtualSigstore
}

// NewSigstore makes one. Its certificates stand in no log of certificates.
func NewSigstore(t testing.TB) *Sigstore {
	t.Helper()
	virtual, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	logs := map[string]*root.TransparencyLog{}
	for id, log := range virtual.RekorLogs() {
		if log.ID, err = hex.DecodeString(id); err != nil {
			t.Fatal(err)
		}
		logs[id] = log
	}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, virtual.FulcioCertificateAuthorities(), nil, nil, logs)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := trusted.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return &Sigstore{Root: string(raw), t: t, virtual: virtual}
}

// Sign returns the signature of files by an identity, as [Signer.Sign] does by a key.
func (s *Sigstore) Sign(identity, issuer string, files map[string]string) string {
	s.t.Helper()
	return s.SignStatement(identity, issuer, modelStatement(s.t, files))
}

// SignStatement returns the bundle of an in-toto statement, signed by an identity.
func (s *Sigstore) SignStatement(identity, issuer string, statement []byte) string {
	s.t.Helper()
	entity, err := s.virtual.Attest(identity, issuer, statement)
	if err != nil {
		s.t.Fatal(err)
	}
	content, err := entity.SignatureContent()
	if err != nil {
		s.t.Fatal(err)
	}
	envelope := content.EnvelopeContent().RawEnvelope()
	signed, err := base64.StdEncoding.DecodeString(envelope.Signatures[0].Sig)
	if err != nil {
		s.t.Fatal(err)
	}
	b := s.bundle(entity)
	b.Content = &bundlepb.Bundle_DsseEnvelope{DsseEnvelope: &dssepb.Envelope{
		Payload: statement, PayloadType: envelope.PayloadType, Signatures: []*dssepb.Signature{{Sig: signed}}}}
	raw, err := protojson.Marshal(b)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(raw)
}

// SignPayload signs what cosign signs in its own format. It returns the signature in base64, the
// certificate in DER, and the entry of the log as cosign keeps it.
func (s *Sigstore) SignPayload(identity, issuer string, payload []byte) (signed string, certificate []byte, entry string) {
	s.t.Helper()
	entity, err := s.virtual.Sign(identity, issuer, payload)
	if err != nil {
		s.t.Fatal(err)
	}
	content, err := entity.SignatureContent()
	if err != nil {
		s.t.Fatal(err)
	}
	b := s.bundle(entity)
	log := b.VerificationMaterial.TlogEntries[0]
	raw, err := json.Marshal(map[string]any{"SignedEntryTimestamp": log.InclusionPromise.SignedEntryTimestamp, "Payload": map[string]any{
		"body": log.CanonicalizedBody, "integratedTime": log.IntegratedTime, "logIndex": log.LogIndex, "logID": hex.EncodeToString(log.LogId.KeyId)}})
	if err != nil {
		s.t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(content.Signature()), b.VerificationMaterial.GetX509CertificateChain().Certificates[0].RawBytes, string(raw)
}

// promise is that of the log to have an entry.
func (s *Sigstore) promise(entry *rekorpb.TransparencyLogEntry) []byte {
	s.t.Helper()
	signed, err := s.virtual.RekorSignPayload(tlog.RekorPayload{
		Body: base64.StdEncoding.EncodeToString(entry.CanonicalizedBody), IntegratedTime: entry.IntegratedTime, LogIndex: entry.LogIndex, LogID: hex.EncodeToString(entry.LogId.KeyId)})
	if err != nil {
		s.t.Fatal(err)
	}
	return signed
}

// bundle has all but what was signed.
func (s *Sigstore) bundle(entity *ca.TestEntity) *bundlepb.Bundle {
	s.t.Helper()
	content, err := entity.VerificationContent()
	if err != nil {
		s.t.Fatal(err)
	}
	entries, err := entity.TlogEntries()
	if err != nil {
		s.t.Fatal(err)
	}
	material := &bundlepb.VerificationMaterial{Content: &bundlepb.VerificationMaterial_X509CertificateChain{X509CertificateChain: &commonpb.X509CertificateChain{
		Certificates: []*commonpb.X509Certificate{{RawBytes: content.Certificate().Raw}}}}}
	for _, e := range entries {
		entry := e.TransparencyLogEntry()
		var kind struct{ Kind, APIVersion string }
		if err := json.Unmarshal(entry.CanonicalizedBody, &kind); err != nil {
			s.t.Fatal(err)
		}
		entry.KindVersion = &rekorpb.KindVersion{Kind: kind.Kind, Version: kind.APIVersion}
		entry.InclusionPromise = &rekorpb.InclusionPromise{SignedEntryTimestamp: s.promise(entry)}
		material.TlogEntries = append(material.TlogEntries, entry)
	}
	return &bundlepb.Bundle{MediaType: "application/vnd.dev.sigstore.bundle+json;version=0.1", VerificationMaterial: material}
}
