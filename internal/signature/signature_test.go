package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// publicPEM is a key as it is configured.
func publicPEM(t testing.TB, key crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func trust(t testing.TB, texts ...string) *Keys {
	t.Helper()
	var signers []Signer
	for _, text := range texts {
		signers = append(signers, Signer{Key: text})
	}
	k, err := NewKeys(nil, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sign signs a statement; chain are certificates of the key, none for a bare one.
func sign(t testing.TB, key crypto.Signer, hash crypto.Hash, s any, chain ...[]byte) []byte {
	t.Helper()
	payload, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	text := dsse.PAE(inTotoType, payload)
	if hash != 0 {
		text = sum(hash, text)
	}
	signed, err := key.Sign(rand.Reader, text, hash)
	if err != nil {
		t.Fatal(err)
	}
	material := map[string]any{"publicKey": map[string]any{"hint": "x"}}
	if len(chain) > 0 {
		var list []map[string]any
		for _, der := range chain {
			list = append(list, map[string]any{"rawBytes": der})
		}
		material = map[string]any{"x509CertificateChain": map[string]any{"certificates": list}}
	}
	raw, err := json.Marshal(map[string]any{
		"mediaType": BundleMediaType, "verificationMaterial": material,
		"dsseEnvelope": map[string]any{"payload": payload, "payloadType": inTotoType, "signatures": []map[string]any{{"sig": signed}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// modelOf is the statement about files with these contents.
func modelOf(files map[string]string) map[string]any {
	all := sha256.New()
	var resources []map[string]any
	for _, name := range slices.Sorted(maps.Keys(files)) {
		digest := sha256.Sum256([]byte(files[name]))
		all.Write(digest[:])
		resources = append(resources, map[string]any{"name": name, "algorithm": "sha256", "digest": hex.EncodeToString(digest[:])})
	}
	return map[string]any{
		"_type": statementType, "predicateType": modelPredicate,
		"subject":   []map[string]any{{"name": "m", "digest": map[string]string{"sha256": hex.EncodeToString(all.Sum(nil))}}},
		"predicate": map[string]any{"serialization": map[string]any{"method": "files", "hash_type": "sha256"}, "resources": resources},
	}
}

// lay writes files and returns their paths by their names.
func lay(t testing.TB, files map[string]string) map[string]string {
	t.Helper()
	dir, paths := t.TempDir(), map[string]string{}
	for name, content := range files {
		paths[name] = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(paths[name]), 0o700), os.WriteFile(paths[name], []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

func TestKeysOfEachKind(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{".": "graph"}
	path := lay(t, map[string]string{"net": "graph"})["net"]
	for _, c := range []struct {
		name string
		key  crypto.Signer
		hash crypto.Hash
	}{
		{"P-256", newKey(t, elliptic.P256()), crypto.SHA256}, {"P-384", newKey(t, elliptic.P384()), crypto.SHA384}, {"P-521", newKey(t, elliptic.P521()), crypto.SHA512},
		{"P-384 as cosign", newKey(t, elliptic.P384()), crypto.SHA256}, {"Ed25519", ed, 0}, {"RSA", r, crypto.SHA256},
	} {
		raw := sign(t, c.key, c.hash, modelOf(files))
		by, err := trust(t, publicPEM(t, newKey(t, elliptic.P256()).Public()), publicPEM(t, c.key.Public())).File(path, raw)
		if err != nil || by != "key "+ID(c.key.Public()) {
			t.Errorf("%s: signed by %q, %v", c.name, by, err)
		}
		if _, err := trust(t, publicPEM(t, newKey(t, elliptic.P384()).Public())).File(path, raw); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "another key; trusted are key ") {
			t.Errorf("%s, another key: %v", c.name, err)
		}
	}
}

func TestFolder(t *testing.T) {
	key := newKey(t, elliptic.P256())
	k := trust(t, publicPEM(t, key.Public()))
	signed := map[string]string{"net.onnx": "graph", "sub/weights": "w", ".hidden": "h"}
	raw := sign(t, key, crypto.SHA256, modelOf(signed))
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"as signed":         {map[string]string{"net.onnx": "graph", "sub/weights": "w", FileName: "x"}, ""},
		"with hidden files": {map[string]string{"net.onnx": "graph", "sub/weights": "w", ".hidden": "h"}, ""},
		"tampered":          {map[string]string{"net.onnx": "grapH", "sub/weights": "w"}, `"net.onnx" is not the file that was signed`},
		"tampered, hidden":  {map[string]string{"net.onnx": "graph", "sub/weights": "w", ".hidden": "x"}, `".hidden" is not the file`},
		"another file":      {map[string]string{"net.onnx": "graph", "sub/weights": "w", "sub/code.py": "x"}, `"sub/code.py" is not signed`},
		"another signature": {map[string]string{"net.onnx": "graph", "sub/weights": "w", "sub/model.sig": "x"}, `"sub/model.sig" is not signed`},
		"a missing file":    {map[string]string{"net.onnx": "graph"}, `"sub/weights" is signed and missing`},
		"two files swapped": {map[string]string{"net.onnx": "w", "sub/weights": "graph"}, "is not the file that was signed"},
	} {
		by, err := k.Folder(lay(t, c.files), raw)
		if c.want == "" && (err != nil || by == "") || c.want != "" && (!errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: signed by %q, %v, want %q", name, by, err, c.want)
		}
	}
	if _, err := k.File(lay(t, signed)["net.onnx"], raw); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "a folder of 3 files") {
		t.Errorf("a file of it: %v", err)
	}
	file := sign(t, key, crypto.SHA256, modelOf(map[string]string{".": "graph"}))
	if _, err := k.Folder(lay(t, signed), file); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "that of one file") {
		t.Errorf("with a file's signature: %v", err)
	}
	if _, err := k.File(lay(t, signed)["sub/weights"], file); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "not the one that was signed") {
		t.Errorf("another file: %v", err)
	}
}

// authority makes a certificate of a key, signed by parent's key, or by itself.
func authority(t testing.TB, name string, key, parentKey *ecdsa.PrivateKey, parent *x509.Certificate, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if change != nil {
		change(c)
	}
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCertificates(t *testing.T) {
	rootKey, midKey, key := newKey(t, elliptic.P256()), newKey(t, elliptic.P384()), newKey(t, elliptic.P256())
	root := authority(t, "root", rootKey, rootKey, nil, nil)
	mid := authority(t, "between", midKey, rootKey, root, nil)
	signer := func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature
		c.NotAfter = time.Now().Add(-24 * time.Hour) // expired since
	}
	leaf := authority(t, "rita", key, midKey, mid, signer)
	rootPEM := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}))
	k := trust(t, rootPEM)
	path := lay(t, map[string]string{"net": "graph"})["net"]
	statement := modelOf(map[string]string{".": "graph"})
	raw := sign(t, key, crypto.SHA256, statement, leaf.Raw, mid.Raw)
	if by, err := k.File(path, raw); err != nil || by != "CN=rita" {
		t.Errorf("signed by %q, %v", by, err)
	}
	if by, err := trust(t, publicPEM(t, key.Public())).File(path, raw); err != nil || by == "" {
		t.Errorf("its key alone is trusted: %q, %v", by, err)
	}
	other := newKey(t, elliptic.P256())
	stranger := authority(t, "root", other, other, nil, nil)
	for name, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"no chain":            {sign(t, key, crypto.SHA256, statement, leaf.Raw), "signed by unknown authority"},
		"another's signature": {sign(t, other, crypto.SHA256, statement, leaf.Raw, mid.Raw), `not by the key of its certificate, of "CN=rita"`},
		"a stranger's":        {sign(t, other, crypto.SHA256, statement, authority(t, "rita", other, other, stranger, signer).Raw, stranger.Raw), "rita"},
		"an authority's own":  {sign(t, midKey, crypto.SHA384, statement, mid.Raw), "is not for signing"},
		"no certificate":      {sign(t, key, crypto.SHA256, statement, []byte("x")), "its certificate"},
	} {
		if _, err := k.File(path, c.raw); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	keyless := strings.Replace(string(sign(t, key, crypto.SHA256, statement)), `"publicKey":{"hint":"x"}`, `"certificate":{"rawBytes":"`+base64.StdEncoding.EncodeToString(leaf.Raw)+`"}`, 1)
	if _, err := k.File(path, []byte(keyless)); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "keyless") {
		t.Errorf("keyless: %v", err)
	}
}

func TestStatementsThatSayOtherThings(t *testing.T) {
	key := newKey(t, elliptic.P256())
	k := trust(t, publicPEM(t, key.Public()))
	path := lay(t, map[string]string{"net": "graph"})["net"]
	for want, change := range map[string]func(map[string]any){
		"no in-toto statement": func(s map[string]any) { s["_type"] = "x" },
		"is of the type":       func(s map[string]any) { s["predicateType"] = cosignPredicate },
		`has the method "shards"`: func(s map[string]any) {
			s["predicate"].(map[string]any)["serialization"].(map[string]any)["method"] = "shards"
		},
		`with "blake3"`: func(s map[string]any) {
			s["predicate"].(map[string]any)["serialization"].(map[string]any)["hash_type"] = "blake3"
		},
		"contradicts itself": func(s map[string]any) {
			s["subject"] = []map[string]any{{"digest": map[string]string{"sha256": strings.Repeat("0", 64)}}}
		},
		"lists 0 files": func(s map[string]any) { s["predicate"].(map[string]any)["resources"] = nil },
		"has no SHA-256": func(s map[string]any) {
			s["predicate"].(map[string]any)["resources"].([]map[string]any)[0]["digest"] = "00"
		},
		"cannot be read": func(s map[string]any) { s["predicate"] = "x" },
	} {
		s := modelOf(map[string]string{".": "graph"})
		change(s)
		if _, err := k.File(path, sign(t, key, crypto.SHA256, s)); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	twice := modelOf(map[string]string{".": "graph"})
	resources := twice["predicate"].(map[string]any)["resources"].([]map[string]any)
	twice["predicate"].(map[string]any)["resources"] = append(resources, resources...)
	if _, err := k.File(path, sign(t, key, crypto.SHA256, twice)); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a name twice: %v", err)
	}
	for _, raw := range []string{"", "x", "{}", `{"dsseEnvelope":{}}`, `{"messageSignature":{}}`, strings.Repeat("x", MaxBytes+1)} {
		if _, err := k.File(path, []byte(raw)); !errors.Is(err, ErrUntrusted) {
			t.Errorf("%.20q: %v", raw, err)
		}
	}
}

func TestArtifact(t *testing.T) {
	key := newKey(t, elliptic.P256())
	k := trust(t, publicPEM(t, key.Public()))
	digest := "sha256:" + strings.Repeat("a", 64)
	simple := func(by *ecdsa.PrivateKey, payload string) Attached {
		signed, err := by.Sign(rand.Reader, sum(crypto.SHA256, []byte(payload)), crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		return Attached{Payload: []byte(payload), Signature: base64.StdEncoding.EncodeToString(signed)}
	}
	payload := `{"critical":{"identity":{"docker-reference":"x/y"},"image":{"docker-manifest-digest":"` + digest + `"},"type":"cosign container image signature"},"optional":null}`
	bundle := func(of string) Attached {
		return Attached{Bundle: sign(t, key, crypto.SHA256, map[string]any{
			"_type": statementType, "predicateType": cosignPredicate, "subject": []map[string]any{{"digest": map[string]string{"sha256": of}}}, "predicate": map[string]any{}})}
	}
	other := newKey(t, elliptic.P256())
	for name, list := range map[string][]Attached{"simple": {simple(key, payload)}, "a bundle": {bundle(strings.Repeat("a", 64))}, "beside another's": {simple(other, payload), {}, simple(key, payload)}} {
		if by, err := k.Artifact(digest, list); err != nil || by != "key "+ID(key.Public()) {
			t.Errorf("%s: signed by %q, %v", name, by, err)
		}
	}
	for want, list := range map[string][]Attached{
		"has no signature":          nil,
		"with another key":          {simple(other, payload)},
		"not base64":                {{Payload: []byte(payload), Signature: "?"}},
		"is of another artifact":    {simple(key, strings.ReplaceAll(payload, "256:a", "256:b")), bundle(strings.Repeat("b", 64))},
		"of the type":               {simple(key, strings.ReplaceAll(payload, "cosign container", "atomic container"))},
		"not a signature of cosign": {{Bundle: sign(t, key, crypto.SHA256, modelOf(map[string]string{".": "x"}))}},
	} {
		if _, err := k.Artifact(digest, list); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestNewKeysRefuses(t *testing.T) {
	key := newKey(t, elliptic.P256())
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := authority(t, "rita", key, key, nil, func(c *x509.Certificate) { c.IsCA = false })
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	good := publicPEM(t, key.Public())
	for text, want := range map[string]string{
		"":         "needs a key, an identity",
		"hush":     "must be public keys",
		good + "x": "must be public keys",
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})):    "neither a PUBLIC KEY nor a CERTIFICATE",
		string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")})): "cannot be read",
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})):   "is no authority",
		publicPEM(t, small.Public()):             "1024 bits",
		strings.Repeat(good, maxPEM/len(good)+1): "at most",
	} {
		if _, err := NewKeys(nil, Signer{Key: text}); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
	if k := trust(t, good+"\n"+good, good); len(k.keys) != 3 {
		t.Errorf("got %d keys", len(k.keys))
	}
}

func FuzzSignature(f *testing.F) {
	key := newKey(f, elliptic.P256())
	k := trust(f, publicPEM(f, key.Public()))
	path := lay(f, map[string]string{"net": "graph"})["net"]
	good := sign(f, key, crypto.SHA256, modelOf(map[string]string{".": "graph"}))
	f.Add(good)
	f.Add([]byte(`{"dsseEnvelope":{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{}]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		// Whatever changes around what is signed, only what was signed is taken.
		if _, err := k.File(path, raw); err != nil && !errors.Is(err, ErrUntrusted) {
			t.Errorf("%v is not ErrUntrusted", err)
		}
		if by, err := k.Folder(map[string]string{"net": path}, raw); err == nil {
			t.Errorf("a file's signature stands for a folder, by %s", by)
		}
	})
}

// FuzzStatement signs what it is given: the parser of what is inside is as safe.
func FuzzStatement(f *testing.F) {
	key := newKey(f, elliptic.P256())
	k := trust(f, publicPEM(f, key.Public()))
	path := lay(f, map[string]string{"net": "graph"})["net"]
	for _, s := range []map[string]any{modelOf(map[string]string{".": "graph"}), modelOf(map[string]string{"net": "graph"})} {
		text, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !json.Valid(text) {
			return
		}
		raw := sign(t, key, crypto.SHA256, json.RawMessage(text))
		_, _ = k.File(path, raw)
		_, _ = k.Folder(map[string]string{"net": path}, raw)
		_, _ = k.Artifact("sha256:", []Attached{{Bundle: raw}})
	})
}
