package model

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/artifact/artifacttest"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/bundle"
	"oscine.dev/oscine/internal/serve/modelpack"
)

// push writes a model of these files to a registry.
func push(t *testing.T, reference string, files map[string]string) (digest string) {
	t.Helper()
	r, err := artifact.Parse(reference)
	if err != nil {
		t.Fatal(err)
	}
	var list []bundle.File
	dir := t.TempDir()
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		list = append(list, bundle.File{Name: name, Path: file, Size: int64(len(content))})
	}
	digest, err = modelpack.Push(t.Context(), r, artifact.Access{}, list, "net", "", func(_ string, _ int64, r io.ReadCloser) io.ReadCloser { return r })
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func untold(int64, int64) {}

func TestPull(t *testing.T) {
	b := newBench(t)
	registry := artifacttest.StartFaulty(t)
	source := "oci://" + registry.Host + "/net:1"
	digest := push(t, source, map[string]string{"net.onnx": "graph"})
	pull := func(source string) *Pulled {
		t.Helper()
		p, err := b.files.Pull(t.Context(), source, artifact.Access{}, "amd64", untold)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := pull(source)
	if p.Digest != digest || p.Reference != registry.Host+"/net@"+digest || p.Format != ".onnx" || p.SizeBytes != 5 || b.files.Digest(source) != digest {
		t.Errorf("got %+v, want %s", p, digest)
	}
	if text, err := os.ReadFile(b.files.Path(digest)); err != nil || string(text) != "graph" {
		t.Errorf("stored %q, %v", text, err)
	}
	registry.Asked()
	if again := pull("oci://" + p.Reference); *again != *p || len(registry.Asked()) > 0 {
		t.Errorf("a pinned model that is here: %+v", again)
	}
	// The tag moves on; what it named stays until nothing refers to it.
	second := push(t, source, map[string]string{"net.onnx": "graph 2", "weights": "w"})
	if p := pull(source); p.Digest != second || p.Format != "" {
		t.Errorf("after the tag has moved: %+v, want %s", p, second)
	}
	if text, err := os.ReadFile(filepath.Join(b.files.Path(second), "weights")); err != nil || string(text) != "w" {
		t.Errorf("a model of several files: %q, %v", text, err)
	}
	// Offline the last one is taken.
	registry.Answer(503)
	if p := pull(source); p.Digest != second {
		t.Errorf("offline: %+v", p)
	}
	if _, err := b.files.Pull(t.Context(), "oci://"+registry.Host+"/other:1", artifact.Access{}, "amd64", untold); !errors.Is(err, artifact.ErrUnreachable) {
		t.Errorf("offline, another model: %v", err)
	}
	old := time.Now().Add(-2 * unreferenced)
	entries, err := os.ReadDir(b.files.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Chtimes(filepath.Join(b.files.dir, e.Name()), old, old); err != nil {
			t.Fatal(err)
		}
	}
	b.files.Sweep(map[string]bool{source: true})
	if !b.files.Has(second) || b.files.Has(digest) || b.files.Digest(source) != second {
		t.Errorf("swept: the second is there: %v, the first: %v, the source leads to %q", b.files.Has(second), b.files.Has(digest), b.files.Digest(source))
	}
	for _, e := range entries {
		_ = os.Chtimes(filepath.Join(b.files.dir, e.Name()), old, old)
	}
	b.files.Sweep(nil)
	if left, err := os.ReadDir(b.files.dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestPullIsResumed(t *testing.T) {
	b := newBench(t)
	registry := artifacttest.StartFaulty(t)
	source := "oci://" + registry.Host + "/net:1"
	content := strings.Repeat("weights ", 100_000)
	digest := push(t, source, map[string]string{"a.bin": content, "net.onnx": "graph"})
	registry.Cut(150_000)
	full := errors.New("the disk is full")
	f := b.files
	f.room = func() error { return full }
	if _, err := f.Pull(t.Context(), source, artifact.Access{}, "amd64", untold); !errors.Is(err, full) {
		t.Errorf("a full disk: %v", err)
	}
	f.room = func() error { return nil }
	if left, err := os.ReadDir(f.dir); err != nil || len(left) > 0 {
		t.Errorf("a full disk leaves %v, %v", left, err)
	}
	if _, err := f.Pull(t.Context(), source, artifact.Access{}, "amd64", untold); err != nil {
		t.Fatal(err)
	}
	if err := f.Remove(digest); err != nil {
		t.Fatal(err)
	}
	registry.Cut(0)
	// What lies half-downloaded is used.
	layer, err := artifact.Descriptor("", strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	work := f.partial(digest)
	if err := errors.Join(os.MkdirAll(work, 0o700), os.WriteFile(filepath.Join(work, layer.Digest.Encoded()), []byte(content[:700_000]), 0o600)); err != nil {
		t.Fatal(err)
	}
	registry.Asked()
	if _, err := f.Pull(t.Context(), source, artifact.Access{}, "amd64", untold); err != nil {
		t.Fatal(err)
	}
	if asked := strings.Join(registry.Asked(), "\n"); !strings.Contains(asked, "bytes=700000-799999") {
		t.Errorf("it did not ask for the last 100,000 bytes:\n%s", asked)
	}
	if err := f.Remove(digest); err != nil {
		t.Fatal(err)
	}
	registry.Lie(layer.Digest.String(), []byte(strings.Repeat("x", len(content))))
	if _, err := f.Pull(t.Context(), source, artifact.Access{}, "amd64", untold); !errors.Is(err, artifact.ErrDigest) {
		t.Errorf("a registry that lies: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(f.dir, ".[pu]*")); err != nil || len(left) > 0 {
		t.Errorf("a lie leaves %v, %v", left, err)
	}
}

// A Model whose source is a reference is pulled before its worker starts.
func TestModelFromARegistry(t *testing.T) {
	b := newBench(t)
	registry := artifacttest.StartFaulty(t)
	m := b.upload(t, "uploaded")
	m.Spec.Source = "oci://" + registry.Host + "/net:1"
	if err := b.c.Up(t.Context(), m); !errors.Is(err, artifact.ErrNotFound) {
		t.Errorf("what is not there: %v", err)
	}
	digest := push(t, m.Spec.Source, map[string]string{"net.onnx": "graph"})
	if err := b.c.Up(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if b.chosen.Suffix != ".onnx" || string(b.chosen.Head) != "graph" {
		t.Errorf("the engine was chosen by %+v", b.chosen)
	}
	st := b.c.Status(object.Observed{}).(*object.ModelStatus)
	if st.Source != m.Spec.Source || st.Digest != digest {
		t.Errorf("the status has the source %s and the digest %s", st.Source, st.Digest)
	}
	if _, err := b.served.Instances[0].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if mount := b.Running()["model-digits"].Mounts[1]; mount.Source != b.files.Path(digest) {
		t.Errorf("the worker gets %s", mount.Source)
	}
}
