package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/artifact/artifacttest"
	"oscine.dev/oscine/internal/pki"
)

// pushed is a pack in a registry, as the cluster's admin pushes it.
func (c *cluster) pushed(host string, raws ...[]byte) (r artifact.Reference, digest string) {
	c.t.Helper()
	r, err := artifact.Parse(host + "/packs/e:1")
	if err != nil {
		c.t.Fatal(err)
	}
	var files []string
	for _, raw := range raws {
		file := filepath.Join(c.t.TempDir(), "p.erofs")
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			c.t.Fatal(err)
		}
		files = append(files, file)
	}
	sign := func(statement []byte) (pki.Signature, error) { return pki.Sign(c.admin, statement) }
	digest, err = PushArtifact(c.t.Context(), r, artifact.Access{}, files, sign, func(_ string, _ int64, r io.ReadCloser) io.ReadCloser { return r })
	if err != nil {
		c.t.Fatal(err)
	}
	return r, digest
}

func (c *cluster) pull(s *Store, r artifact.Reference, progress func(int64) error) (*Info, error) {
	c.t.Helper()
	store, err := artifact.Open(c.t.Context(), r, artifact.Access{})
	if err != nil {
		return nil, err
	}
	a, err := FindArtifact(c.t.Context(), store, runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	return s.Pull(c.t.Context(), a, store, progress)
}

// leftovers are the files of a store's folder that are no pack's.
func leftovers(t *testing.T, s *Store) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(s.dir, "*-*"))
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func TestPull(t *testing.T) {
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	mine, foreign := makePack(t, runtime.GOARCH, strings.Repeat("mine ", 9000)), makePack(t, other, "foreign")
	s, c, _ := openTestStore(t)
	registry := artifacttest.StartFaulty(t)
	r, digest := c.pushed(registry.Host, foreign, mine)
	for _, r := range []artifact.Reference{r, r.Pinned(digest)} {
		p, err := c.pull(s, r, nil)
		skipUnmountable(t, err)
		if err != nil {
			t.Fatal(err)
		}
		if p.Name != "e" || p.Arch != runtime.GOARCH || p.SizeBytes != int64(len(mine)) || !strings.HasPrefix(p.Source, registry.Host+"/packs/e@sha256:") || p.Signature.Signer() != "rita" {
			t.Errorf("%s: got %+v", r, p)
		}
	}
	if sent := registry.Sent(); sent > int64(len(mine))+10_000 {
		t.Errorf("the pack that is installed was fetched again: %d bytes for %d", sent, len(mine))
	}
	if _, _, err := s.Mount("e"); err != nil {
		t.Error(err)
	}
	if err := s.Remove("e"); err != nil {
		t.Error(err)
	}
	if left := leftovers(t, s); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A pack is refused before its file is fetched where its signature does not hold.
func TestPullUntrusted(t *testing.T) {
	raw := makePack(t, runtime.GOARCH, "x")
	s, c, _ := openTestStore(t)
	registry := artifacttest.StartFaulty(t)
	r, _ := newCluster(t).pushed(registry.Host, raw)
	registry.Asked()
	if _, err := c.pull(s, r, nil); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "stranger") {
		t.Errorf("a stranger's: got %v", err)
	}
	for _, asked := range registry.Asked() {
		if strings.Contains(asked, "/blobs/"+digestOf(raw)) {
			t.Errorf("it was asked for %s", asked)
		}
	}
	if left := leftovers(t, s); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// An admin whose certificate was revoked signs no more packs; a registry passes off
// no signed pack as another.
func TestPullOfAnotherAndOfARevokedSigner(t *testing.T) {
	raw := makePack(t, runtime.GOARCH, "x")
	s, c, _ := openTestStore(t)
	registry := artifacttest.StartFaulty(t)
	r, _ := c.pushed(registry.Host, raw)
	s.Revoked = func(serial string) bool { return len(serial) > 0 }
	if _, err := c.pull(s, r, nil); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), `"rita" is revoked`) {
		t.Errorf("a revoked signer's: got %v", err)
	}
	s.Revoked = nil
	f, err := os.CreateTemp(s.dir, "x-*")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(raw); err != nil {
		t.Fatal(err)
	}
	_, err = s.take(f, digestOf(raw), int64(len(raw)), c.signed(raw), &Artifact{Info: Info{Manifest: Manifest{Name: "nvidia", Version: "1", Arch: runtime.GOARCH}}})
	skipUnmountable(t, err)
	if !errors.Is(err, ErrNotPack) || !strings.Contains(err.Error(), "promised the pack nvidia") {
		t.Errorf("another pack than promised: got %v", err)
	}
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("installed: %v, %v", list, err)
	}
}

func TestPullGoesOn(t *testing.T) {
	raw := makePack(t, runtime.GOARCH, random(400_000))
	s, c, dir := openTestStore(t)
	registry := artifacttest.StartFaulty(t)
	r, _ := c.pushed(registry.Host, raw)
	full := errors.New("the disk is full")
	if _, err := c.pull(s, r, func(int64) error { return full }); !errors.Is(err, full) {
		t.Errorf("a full disk: %v", err)
	}
	if left := leftovers(t, s); len(left) > 0 {
		t.Errorf("a full disk leaves %v", left)
	}
	part := filepath.Join(s.dir, partial+strings.TrimPrefix(digestOf(raw), "sha256:"))
	if err := os.WriteFile(part, raw[:300_000], 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := OpenStore(s.dir, filepath.Join(dir, "mounts"), c.pool) // a restart
	if err != nil {
		t.Fatal(err)
	}
	registry.Asked()
	registry.Cut(100_000)
	if _, err = c.pull(s, r, nil); err != nil {
		skipUnmountable(t, err)
		t.Fatal(err)
	}
	if asked := strings.Join(registry.Asked(), "\n"); !strings.Contains(asked, "bytes=300000-") {
		t.Errorf("it did not ask for the end alone:\n%s", asked)
	}
	if err := s.Remove("e"); err != nil {
		t.Error(err)
	}
	registry.Lie(digestOf(raw), bytes.Repeat([]byte{7}, len(raw)))
	registry.Cut(0)
	if _, err := c.pull(s, r, nil); !errors.Is(err, artifact.ErrDigest) {
		t.Errorf("a registry that lies: %v", err)
	}
	if left := leftovers(t, s); len(left) > 0 {
		t.Errorf("a lie leaves %v", left)
	}
}

func TestNotAPackArtifact(t *testing.T) {
	registry := artifacttest.StartFaulty(t)
	config := `{"name":"e"}`
	for name, test := range map[string]struct {
		change func(*ocispec.Manifest)
		want   string
	}{
		"an image":          {func(m *ocispec.Manifest) { m.ArtifactType = "" }, "holds no pack"},
		"two layers":        {func(m *ocispec.Manifest) { m.Layers = append(m.Layers, m.Layers[0]) }, "holds no pack"},
		"another layer":     {func(m *ocispec.Manifest) { m.Layers[0].MediaType = ocispec.MediaTypeImageLayer }, "holds no pack"},
		"too large":         {func(m *ocispec.Manifest) { m.Layers[0].Size = MaxBytes + 1 }, "is no pack"},
		"a bad manifest":    {func(*ocispec.Manifest) {}, "pack.json"},
		"a large manifest":  {func(m *ocispec.Manifest) { m.Config.Size = maxManifest + 1 }, "at most"},
		"a bad signature":   {func(m *ocispec.Manifest) { m.Annotations = map[string]string{annotationSignature: "?"} }, "signature"},
		"a signature alone": {func(m *ocispec.Manifest) { m.Annotations = map[string]string{annotationSignature: "bnVsbA=="} }, "pack.json"},
	} {
		r, err := artifact.Parse(registry.Host + "/bad:1")
		if err != nil {
			t.Fatal(err)
		}
		if name == "a bad signature" {
			config = manifestText(runtime.GOARCH)
		} else {
			config = `{"name":"e"}`
		}
		_, err = artifact.Create(t.Context(), r, artifact.Access{}, func(s *artifact.Store) (d ocispec.Descriptor, err error) {
			c, err := s.PushBytes(t.Context(), mediaTypeManifest, []byte(config))
			if err != nil {
				return d, err
			}
			layer, err := s.PushBytes(t.Context(), mediaTypeErofs, []byte("erofs"))
			if err != nil {
				return d, err
			}
			m := ocispec.Manifest{ArtifactType: ArtifactType, Config: c, Layers: []ocispec.Descriptor{layer}}
			test.change(&m)
			return s.PushManifest(t.Context(), m)
		})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		store, err := artifact.Open(t.Context(), r, artifact.Access{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := FindArtifact(t.Context(), store, runtime.GOARCH); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
	}
}

func TestReadFile(t *testing.T) {
	raw := makePack(t, "arm64", "x")
	dir := t.TempDir()
	for name, test := range map[string]struct {
		raw  []byte
		want string
	}{
		"good": {raw, ""}, "text": {bytes.Repeat([]byte("text"), 5000), "no erofs file"}, "broken": {append(bytes.Clone(raw[:1030]), bytes.Repeat([]byte{0xff}, 8000)...), "dump.erofs"},
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, test.raw, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := ReadFile(t.Context(), file)
		if test.want == "" && (err != nil || p.Arch != "arm64" || p.Digest != digestOf(raw)) || test.want != "" && (!errors.Is(err, ErrNotPack) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %+v, %v", name, p, err)
		}
	}
}

func digestOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// random is text that does not compress.
func random(n int) string {
	text := make([]byte, n)
	source := rand.New(rand.NewPCG(1, 2))
	for i := range text {
		text[i] = byte(source.Uint32())
	}
	return string(text)
}
