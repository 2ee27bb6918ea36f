package pack

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/pki"
)

// cluster is an authority with an admin.
type cluster struct {
	t     testing.TB
	pool  *x509.CertPool
	admin tls.Certificate
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	authority, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pki.Pool(authority.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := pki.NewClient(authority, "rita", pki.Admin, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{t, pool, admin}
}

// signed is the admin's signature of a pack's bytes.
func (c *cluster) signed(raw []byte) pki.Signature {
	c.t.Helper()
	return c.sign(statement(digestOf(raw), rootOf(raw)))
}

// rootOf is Info.Verity of a pack's bytes.
func rootOf(raw []byte) string {
	v, err := readVerity(bytes.NewReader(raw), int64(len(raw)))
	if err != nil || v == nil {
		return ""
	}
	return v.String()
}

func (c *cluster) sign(statement []byte) pki.Signature {
	c.t.Helper()
	s, err := pki.Sign(c.admin, statement)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// install installs a pack that the store's admin has signed.
func (c *cluster) install(s *Store, raw []byte) (*Info, error) {
	return s.Install(c.t.Context(), bytes.NewReader(raw), c.signed(raw))
}

// Anyone who can write to the disk can put any file and any record there, but no
// signature: it is not mounted.
func TestUntrustedPack(t *testing.T) {
	s, c, dir := openTestStore(t)
	good, evil := makePack(t, runtime.GOARCH, "good"), makePack(t, runtime.GOARCH, "evil")
	p, err := c.install(s, good)
	skipUnmountable(t, err)
	if err != nil {
		t.Fatal(err)
	}
	for name, signature := range map[string]pki.Signature{
		"no signature": {}, "for something else": c.signed(good), "stranger": newCluster(t).signed(evil),
	} {
		if _, err := s.Install(t.Context(), bytes.NewReader(evil), signature); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	sum := sha256.Sum256(evil)
	digest := hex.EncodeToString(sum[:])
	forge := func(r record) {
		t.Helper()
		text, err := json.Marshal(r)
		if err == nil {
			err = errors.Join(os.WriteFile(s.file(digest), evil, 0o644), os.WriteFile(s.recordFile(p.Name), text, 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Remove("e"); err != nil {
		t.Fatal(err)
	}
	forge(record{Digest: "sha256:" + digest, Manifest: p.Manifest, Signature: c.signed(good)})
	if _, _, err := s.Mount("e"); !errors.Is(err, ErrUntrusted) {
		t.Errorf("a pack that somebody laid on the disk: got %v", err)
	}
	// Its manifest is what the signed file says, not the record beside it.
	lying := p.Manifest
	lying.Drivers = []string{"root"}
	forge(record{Digest: "sha256:" + digest, Manifest: lying, Signature: c.signed(evil), Verity: rootOf(evil)})
	for range 2 { // mounted now, and mounted already
		info, _, err := s.Mount("e")
		if err != nil {
			t.Fatal(err)
		}
		if len(info.Drivers) != 0 {
			t.Errorf("the record's drivers count: %v", info.Drivers)
		}
	}
	if err := s.Remove("e"); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(s.recordFile("e"), []byte(`{"digest":"sha256:0"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("a record that cannot be read: got %v, %v", list, err)
	}
	if _, err := OpenStore(filepath.Join(dir, "packs"), filepath.Join(dir, "mounts"), c.pool); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*", "*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// What an oscine signed that knew of no hash trees is taken, for its digest only.
func TestSignedDigest(t *testing.T) {
	s, c, _ := openTestStore(t)
	raw := makePack(t, runtime.GOARCH, "x")
	p, err := s.Install(t.Context(), bytes.NewReader(raw), c.sign(statement(digestOf(raw), "")))
	skipUnmountable(t, err)
	if err != nil {
		t.Fatal(err)
	}
	if root, err := s.authentic(p.Digest, p.Verity, p.Signature, ""); err != nil || root {
		t.Errorf("signed for its digest: got %t, %v", root, err)
	}
	if _, _, err := s.Mount("e"); err != nil {
		t.Error(err)
	}
	if p, err = c.install(s, raw); err != nil {
		t.Fatal(err)
	}
	if root, err := s.authentic(p.Digest, p.Verity, p.Signature, ""); err != nil || !root {
		t.Errorf("signed for its root hash: got %t, %v", root, err)
	}
	lie := strings.Replace(p.Verity, p.Verity[:8], "00000000", 1)
	if _, err := s.authentic(p.Digest, lie, p.Signature, ""); !errors.Is(err, ErrUntrusted) {
		t.Errorf("another root hash: got %v", err)
	}
	if err := s.Remove("e"); err != nil {
		t.Error(err)
	}
}

func FuzzRecord(f *testing.F) {
	digest := strings.Repeat("ab", 32)
	f.Add([]byte(`{"digest":"sha256:` + digest + `","sizeBytes":1,"manifest":` + manifestText("amd64") + `,"signature":{"certificate":"AA==","value":"AA=="}}`))
	f.Add([]byte(`{"digest":"sha256:0"}`))
	f.Add([]byte(`{}`))
	s := Store{mounts: f.TempDir()}
	f.Fuzz(func(t *testing.T, text []byte) {
		rec, err := parseRecord(text, "e")
		if err != nil {
			return
		}
		_ = s.mountDir(s.info(rec)) // must not panic
	})
}
