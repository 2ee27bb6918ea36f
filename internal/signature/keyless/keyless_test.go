package keyless_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/signature"
	"oscine.dev/oscine/internal/signature/keyless"
	"oscine.dev/oscine/internal/signature/signaturetest"
)

const (
	rita   = "rita@example.com"
	issuer = "https://accounts.example.com"
)

func identity(t *testing.T, root string, signers ...signature.Signer) *signature.Keys {
	t.Helper()
	var trusted signature.Root
	if root != "" {
		r, err := keyless.ParseRoot([]byte(root))
		if err != nil {
			t.Fatal(err)
		}
		trusted = r
	}
	k, err := signature.NewKeys(trusted, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A model that was signed keyless is trusted where its identity, its issuer, and the Sigstore are.
func TestIdentity(t *testing.T) {
	s, other := signaturetest.NewSigstore(t), signaturetest.NewSigstore(t)
	path := filepath.Join(t.TempDir(), "net")
	if err := os.WriteFile(path, []byte("graph"), 0o600); err != nil {
		t.Fatal(err)
	}
	raw := []byte(s.Sign(rita, issuer, map[string]string{".": "graph"}))
	key := signaturetest.New(t)
	for name, c := range map[string]struct {
		root   string
		signer signature.Signer
		raw    []byte
		want   string // "": it is trusted
	}{
		"as signed":         {root: s.Root, signer: signature.Signer{Identity: rita, Issuer: issuer}},
		"a regexp":          {root: s.Root, signer: signature.Signer{IdentityRegexp: `@example\.com$`, Issuer: issuer}},
		"another identity":  {root: s.Root, signer: signature.Signer{Identity: "eve@example.com", Issuer: issuer}, want: `expected SAN value "eve@example.com", got "rita@example.com"`},
		"another regexp":    {root: s.Root, signer: signature.Signer{IdentityRegexp: `^eve@`, Issuer: issuer}, want: `got "rita@example.com"`},
		"another issuer":    {root: s.Root, signer: signature.Signer{Identity: rita, Issuer: "https://evil.example.com"}, want: `expected issuer value`},
		"another Sigstore":  {root: other.Root, signer: signature.Signer{Identity: rita, Issuer: issuer}, want: "its keyless signature"},
		"no trusted root":   {signer: signature.Signer{Identity: rita, Issuer: issuer}, want: "spec.models.trustedRoot"},
		"keys alone":        {root: s.Root, signer: signature.Signer{Key: key.PEM}, want: "trusted are key "},
		"another file":      {root: s.Root, signer: signature.Signer{Identity: rita, Issuer: issuer}, raw: []byte(s.Sign(rita, issuer, map[string]string{".": "other"})), want: "not the one that was signed"},
		"a changed payload": {root: s.Root, signer: signature.Signer{Identity: rita, Issuer: issuer}, raw: change(t, raw, "dsseEnvelope", func(e map[string]any) { e["payload"] = "e30=" }), want: "its keyless signature"},
		"no entry in a log": {root: s.Root, signer: signature.Signer{Identity: rita, Issuer: issuer}, raw: change(t, raw, "verificationMaterial", func(m map[string]any) { delete(m, "tlogEntries") }), want: "its keyless signature"},
		"by a key":          {root: s.Root, signer: signature.Signer{Identity: rita, Issuer: issuer}, raw: []byte(key.Sign(map[string]string{".": "graph"})), want: "another key; trusted are identity"},
	} {
		signed := raw
		if c.raw != nil {
			signed = c.raw
		}
		by, err := identity(t, c.root, c.signer).File(path, signed)
		if c.want == "" && (err != nil || by != rita+" ("+issuer+")") {
			t.Errorf("%s: signed by %q, %v", name, by, err)
		}
		if c.want != "" && (!errors.Is(err, signature.ErrUntrusted) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: signed by %q, %v, want %q", name, by, err, c.want)
		}
	}
	// A key and an identity: either signs.
	both := identity(t, s.Root, signature.Signer{Key: key.PEM}, signature.Signer{Identity: rita, Issuer: issuer})
	for _, raw := range []string{string(raw), key.Sign(map[string]string{".": "graph"})} {
		if _, err := both.File(path, []byte(raw)); err != nil {
			t.Error(err)
		}
	}
}

// change returns a bundle of which a member was changed.
func change(t *testing.T, raw []byte, part string, spoil func(map[string]any)) []byte {
	t.Helper()
	var b map[string]any
	if err := json.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	spoil(b[part].(map[string]any))
	raw, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// What the public Sigstore signed is verified by its trusted root: the provenance of a package
// of npm, which is no signature of an artifact.
func TestPublicSigstore(t *testing.T) {
	root, err := os.ReadFile("testdata/trusted_root.json")
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := os.ReadFile("testdata/npm-provenance.json")
	if err != nil {
		t.Fatal(err)
	}
	const workflow, actions = `^https://github\.com/sigstore/sigstore-js/\.github/workflows/release\.yml@refs/heads/main$`, "https://token.actions.githubusercontent.com"
	for _, c := range []struct {
		signer signature.Signer
		want   string
	}{
		{signature.Signer{IdentityRegexp: workflow, Issuer: actions}, `a statement of the type "https://slsa.dev/provenance/`},
		{signature.Signer{IdentityRegexp: workflow, Issuer: issuer}, "expected issuer value"},
		{signature.Signer{Identity: rita, Issuer: actions}, "expected SAN value"},
	} {
		_, err := identity(t, string(root), c.signer).Artifact("sha256:0", []signature.Attached{{Bundle: bundle}})
		if !errors.Is(err, signature.ErrUntrusted) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.signer, err, c.want)
		}
	}
}

// Artifacts that cosign signed keyless, in both of its formats, of themselves and by an index.
func TestArtifactOfIdentity(t *testing.T) {
	s := signaturetest.NewSigstore(t)
	k := identity(t, s.Root, signature.Signer{Identity: rita, Issuer: issuer})
	digestOf := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return "sha256:" + hex.EncodeToString(sum[:])
	}
	simple := func(by, digest string) signature.Attached {
		payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"x"},"image":{"docker-manifest-digest":"%s"},"type":"cosign container image signature"},"optional":null}`, digest)
		signed, der, entry := s.SignPayload(by, issuer, payload)
		return signature.Attached{Payload: payload, Signature: signed, Entry: entry, Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
	}
	bundle := func(digest string) signature.Attached {
		statement := fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"","digest":{"sha256":"%s"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`, strings.TrimPrefix(digest, "sha256:"))
		return signature.Attached{Bundle: []byte(s.SignStatement(rita, issuer, statement))}
	}
	manifest := digestOf("manifest")
	index := `{"manifests":[{"digest":"` + manifest + `"}]}`
	of := func(a signature.Attached, index string) signature.Attached {
		a.Index = []byte(index)
		return a
	}
	noEntry := simple(rita, manifest)
	noEntry.Entry = ""
	stolen := simple("eve@example.com", manifest)
	stolen.Certificate = noEntry.Certificate
	for name, c := range map[string]struct {
		a    signature.Attached
		want string
	}{
		"its own format":       {simple(rita, manifest), ""},
		"a bundle":             {bundle(manifest), ""},
		"of its index":         {of(simple(rita, digestOf(index)), index), ""},
		"a bundle of an index": {of(bundle(digestOf(index)), index), ""},
		"of another":           {simple(rita, digestOf("x")), "of another artifact"},
		"by another":           {simple("eve@example.com", manifest), "expected SAN value"},
		"without an entry":     {noEntry, "its keyless signature"},
		"another certificate":  {stolen, "its keyless signature"},
		"no certificate":       {signature.Attached{Payload: []byte("x"), Signature: "eA==", Certificate: "x"}, "not in PEM"},
		"no JSON in its entry": {signature.Attached{Payload: []byte("x"), Signature: "eA==", Certificate: noEntry.Certificate, Entry: "x"}, "its entry of the transparency log"},
		"another's index":      {of(simple(rita, digestOf(index)), `{"manifests":[{"digest":"`+manifest+`"}],"x":1}`), "of another artifact"},
		"an index without it":  {of(simple(rita, digestOf("{}")), "{}"), "of another artifact"},
	} {
		by, err := k.Artifact(manifest, []signature.Attached{c.a})
		if c.want == "" && (err != nil || by != rita+" ("+issuer+")") {
			t.Errorf("%s: signed by %q, %v", name, by, err)
		}
		if c.want != "" && (!errors.Is(err, signature.ErrUntrusted) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: signed by %q, %v, want %q", name, by, err, c.want)
		}
	}
}

func TestRefusedIdentities(t *testing.T) {
	for want, s := range map[string]signature.Signer{
		"needs the issuer":             {Identity: rita},
		"identity and identityRegexp":  {Identity: rita, IdentityRegexp: rita, Issuer: issuer},
		"identityRegexp: error":        {IdentityRegexp: "(", Issuer: issuer},
		"needs a key, an identity":     {Issuer: issuer},
		"has a key beside an identity": {Key: "x", Identity: rita},
		"has more than 2048 bytes":     {Identity: strings.Repeat("x", 2048), Issuer: issuer},
	} {
		if _, err := signature.NewKeys(nil, s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", s, err, want)
		}
	}
	for text, want := range map[string]string{
		"x": "must be a trusted root of Sigstore",
		`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`: "has no certificate authority",
		strings.Repeat("x", signature.MaxRoot+1):                                    "at most",
	} {
		if _, err := keyless.ParseRoot([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParseRoot(f *testing.F) {
	f.Add([]byte(signaturetest.NewSigstore(f).Root))
	f.Fuzz(func(_ *testing.T, text []byte) { _, _ = keyless.ParseRoot(text) })
}
