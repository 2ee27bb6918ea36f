package modelpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/artifact/artifacttest"
	"oscine.dev/oscine/internal/serve/bundle"
)

func parse(t *testing.T, text string) artifact.Reference {
	t.Helper()
	r, err := artifact.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func plain(_ string, _ int64, r io.ReadCloser) io.ReadCloser { return r }

// fetched is what the model of a reference unpacks to.
func fetched(t *testing.T, r artifact.Reference, progress func(int64) error) (map[string]string, *Model, error) {
	t.Helper()
	store, err := artifact.Open(t.Context(), r, artifact.Access{})
	if err != nil {
		return nil, nil, err
	}
	m, err := Find(t.Context(), store, "amd64")
	if err != nil {
		return nil, nil, err
	}
	if progress == nil {
		progress = func(int64) error { return nil }
	}
	above := t.TempDir()
	work, out := filepath.Join(above, "work"), filepath.Join(above, "out")
	if err := errors.Join(os.Mkdir(work, 0o700), os.Mkdir(out, 0o700)); err != nil {
		t.Fatal(err)
	}
	err = m.Fetch(t.Context(), store, work, out, progress)
	if entries, _ := os.ReadDir(above); len(entries) != 2 {
		t.Errorf("written beside the model: %v", entries)
	}
	if err != nil {
		return nil, m, err
	}
	got := map[string]string{}
	err = filepath.WalkDir(out, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if info, err := d.Info(); err != nil || info.Mode() != 0o444 {
			t.Errorf("%s: mode %v, %v", file, info.Mode(), err)
		}
		content, err := os.ReadFile(file)
		name, _ := filepath.Rel(out, file)
		got[name] = string(content)
		return err
	})
	return got, m, err
}

func lay(t *testing.T, files map[string]string) []bundle.File {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	list, err := bundle.Find(dir)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestPushAndFetch(t *testing.T) {
	files := map[string]string{"net.onnx": "graph", "data/weights": "1234", "data/same": "1234", "tokenizer.json": "{}", "README.md": "read", "LICENSE": "free"}
	want := map[string]string{"net.onnx": "graph", "data/weights": "1234", "data/same": "1234", "tokenizer.json": "{}"}
	for name, place := range map[string]string{"registry": artifacttest.StartFaulty(t).Host + "/net:1", "Docker's registry": artifacttest.StartDocker(t, "") + "/net:1", "tar": "oci:" + filepath.Join(t.TempDir(), "m.tar") + ":net"} {
		r := parse(t, place)
		digest, err := Push(t.Context(), r, artifact.Access{}, lay(t, files), "net", "1", plain)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, m, err := fetched(t, r, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if m.Digest != digest || m.Layout != "ModelPack" || m.Format != "" {
			t.Errorf("%s: got %+v, want the digest %s", name, m, digest)
		}
		if again, err := Push(t.Context(), r, artifact.Access{}, lay(t, files), "net", "1", plain); err != nil || again != digest {
			t.Errorf("%s: again %s, %v, want %s", name, again, err, digest)
		}
	}
	r := parse(t, "oci:"+filepath.Join(t.TempDir(), "one")+":net")
	if _, err := Push(t.Context(), r, artifact.Access{}, lay(t, map[string]string{"net.onnx": "graph"}), "net", "", plain); err != nil {
		t.Fatal(err)
	}
	if got, m, err := fetched(t, r, nil); err != nil || m.Format != ".onnx" || got["net.onnx"] != "graph" {
		t.Errorf("one file: %v, %+v, %v", got, m, err)
	}
	if _, err := Push(t.Context(), r, artifact.Access{}, lay(t, map[string]string{"README.md": "x"}), "net", "", plain); err == nil || !strings.Contains(err.Error(), "no file with weights") {
		t.Errorf("no weights: %v", err)
	}
}

// layer is a layer of a model made by others.
type layer struct {
	mediaType, name string
	content         []byte
}

// pushed writes an artifact as others do.
func pushed(t *testing.T, r artifact.Reference, artifactType, config, configText string, layers ...layer) {
	t.Helper()
	_, err := artifact.Create(t.Context(), r, artifact.Access{}, func(s *artifact.Store) (d ocispec.Descriptor, err error) {
		m := ocispec.Manifest{ArtifactType: artifactType}
		if m.Config, err = s.PushBytes(t.Context(), config, []byte(configText)); err != nil {
			return d, err
		}
		for _, l := range layers {
			d, err := s.PushBytes(t.Context(), l.mediaType, l.content)
			if err != nil {
				return d, err
			}
			if l.name != "" {
				d.Annotations = map[string]string{annotationPath: l.name}
			}
			m.Layers = append(m.Layers, d)
		}
		return s.PushManifest(t.Context(), m)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func tarOf(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		h.Mode = 0o777
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			_, _ = w.Write(bytes.Repeat([]byte("w"), int(h.Size)))
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipOf(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstdOf(t *testing.T, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

func TestLayoutsOfOthers(t *testing.T) {
	host := artifacttest.StartFaulty(t).Host
	archive := tarOf(t, tar.Header{Name: "m/", Typeflag: tar.TypeDir}, tar.Header{Name: "./m/net.onnx", Size: 3})
	for name, test := range map[string]struct {
		artifactType, config, text string
		layers                     []layer
		want                       map[string]string
		layout, format             string
	}{
		"Docker": {"", "application/vnd.docker.ai.model.config.v0.1+json", "{}",
			[]layer{{dockerGGUF, "", []byte("GGUF")}, {"application/vnd.docker.ai.license", "", []byte("MIT")}}, map[string]string{"model.gguf": "GGUF"}, "Docker", ".gguf"},
		"Ollama": {"", "application/vnd.docker.container.image.v1+json", "{}",
			[]layer{{ollamaModel, "", []byte("GGUF")}, {prefixOllama + "template", "", []byte("{{}}")}, {prefixOllama + "params", "", []byte("{}")}}, map[string]string{"model.gguf": "GGUF"}, "Ollama", ".gguf"},
		"ModelPack in archives": {ArtifactType, mediaTypeConfig, "{}",
			[]layer{{prefixWeight + "tar", "m", archive}, {prefixWeightConfig + "raw", "m/config.json", []byte("{}")}, {prefixCode + "tar", "", []byte("?")}},
			map[string]string{"m/net.onnx": "www", "m/config.json": "{}"}, "ModelPack", ""},
		"gzip":             {ArtifactType, mediaTypeConfig, "{}", []layer{{prefixWeight + "tar+gzip", "m", gzipOf(t, archive)}}, map[string]string{"m/net.onnx": "www"}, "ModelPack", ""},
		"zstd":             {ArtifactType, mediaTypeConfig, "{}", []layer{{prefixWeight + "tar+zstd", "m", zstdOf(t, archive)}}, map[string]string{"m/net.onnx": "www"}, "ModelPack", ""},
		"GGUF by its type": {ArtifactType, mediaTypeConfig, "{}", []layer{{prefixWeight + "gguf", "", []byte("GGUF")}}, map[string]string{"model.gguf": "GGUF"}, "ModelPack", ".gguf"},
		"by its format":    {ArtifactType, mediaTypeConfig, `{"config":{"format":"ONNX"}}`, []layer{{prefixWeight + "raw", "net", []byte("graph")}}, map[string]string{"net": "graph"}, "ModelPack", ".onnx"},
	} {
		r := parse(t, host+"/a:1")
		pushed(t, r, test.artifactType, test.config, test.text, test.layers...)
		got, m, err := fetched(t, r, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(test.want, got); diff != "" || m.Layout != test.layout || m.Format != test.format {
			t.Errorf("%s: %+v\n%s", name, m, diff)
		}
	}
}

// hostile are the layers of models that nobody should take.
func hostile(t *testing.T) map[string][]layer {
	weight := func(kind, name string, content []byte) layer { return layer{prefixWeight + kind, name, content} }
	archive := func(h ...tar.Header) layer { return weight("tar", "", tarOf(t, h...)) }
	return map[string][]layer{
		"no layers":             nil,
		"documents alone":       {{prefixDoc + "raw", "README.md", []byte("x")}},
		"an unknown layer":      {weight("raw", "a", []byte("x")), {"application/vnd.docker.image.rootfs.diff.tar.gzip", "", []byte("x")}},
		"an unknown packing":    {weight("tar+xz", "a", []byte("x"))},
		"out of the folder":     {weight("raw", "../x", []byte("x"))},
		"absolute":              {weight("raw", "/etc/passwd", []byte("x"))},
		"a control byte":        {weight("raw", "a\nb", []byte("x"))},
		"twice":                 {weight("raw", "a", []byte("x")), weight("raw", "a", []byte("y"))},
		"a file as folder":      {weight("raw", "a", []byte("x")), weight("raw", "a/b", []byte("y"))},
		"archive: out":          {archive(tar.Header{Name: "../x", Size: 1})},
		"archive: out, hidden":  {archive(tar.Header{Name: "a/../../x", Size: 1})},
		"archive: absolute":     {archive(tar.Header{Name: "/x", Size: 1})},
		"archive: a link":       {archive(tar.Header{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "/etc"})},
		"archive: a hard link":  {archive(tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"})},
		"archive: a device":     {archive(tar.Header{Name: "x", Typeflag: tar.TypeChar})},
		"archive: twice":        {archive(tar.Header{Name: "x", Size: 1}, tar.Header{Name: "x", Size: 1})},
		"archive: no archive":   {weight("tar", "", bytes.Repeat([]byte("text"), 500))},
		"archive: cut":          {weight("tar", "", tarOf(t, tar.Header{Name: "x", Size: 5000})[:3000])},
		"archive: no gzip":      {weight("tar+gzip", "", []byte("text"))},
		"archive: cut gzip":     {weight("tar+gzip", "", gzipOf(t, tarOf(t, tar.Header{Name: "x", Size: 5000}))[:60])},
		"archive: a gzip bomb":  {weight("tar+gzip", "", gzipOf(t, tarOf(t, tar.Header{Name: "x", Size: 80 << 20})))},
		"archive: a zstd bomb":  {weight("tar+zstd", "", zstdOf(t, tarOf(t, tar.Header{Name: "x", Size: 80 << 20})))},
		"archive: after a file": {weight("raw", "x", []byte("x")), archive(tar.Header{Name: "x/y", Size: 1})},
	}
}

func TestHostileModels(t *testing.T) {
	host := artifacttest.StartFaulty(t).Host
	for name, layers := range hostile(t) {
		r := parse(t, host+"/a:1")
		pushed(t, r, ArtifactType, mediaTypeConfig, "{}", layers...)
		got, _, err := fetched(t, r, nil)
		if err == nil || strings.HasSuffix(name, "bomb") && !strings.Contains(err.Error(), "unpacks to more than") {
			t.Errorf("%s: got %d files, %v", name, len(got), err)
		}
	}
	for name, test := range map[string]struct {
		config, text, want string
		layers             []layer
	}{
		"an image":         {ocispec.MediaTypeImageConfig, "{}", "neither CNCF's ModelPack layout", []layer{{ocispec.MediaTypeImageLayer, "", []byte("x")}}},
		"an adapter":       {ocispec.MediaTypeImageConfig, "{}", "adapter upon another model", []layer{{ollamaModel, "", []byte("GGUF")}, {ollamaAdapter, "", []byte("x")}}},
		"two GGUF files":   {"application/vnd.docker.ai.model.config.v0.1+json", "{}", "divided into 2 GGUF files", []layer{{dockerGGUF, "", []byte("GGUF")}, {dockerGGUF, "", []byte("GGUF2")}}},
		"safetensors":      {"application/vnd.docker.ai.model.config.v0.1+json", "{}", "it has no layer " + dockerGGUF, []layer{{"application/vnd.docker.ai.safetensors", "", []byte("x")}}},
		"a bad config":     {mediaTypeConfig, "{", "its configuration", []layer{{prefixWeight + "raw", "a", []byte("x")}}},
		"a large config":   {mediaTypeConfig, strings.Repeat(" ", maxConfig+1), "at most", []layer{{prefixWeight + "raw", "a", []byte("x")}}},
		"an unknown layer": {mediaTypeConfig, "{}", `"application/x-strange"`, []layer{{prefixWeight + "raw", "a", []byte("x")}, {"application/x-strange", "", []byte("x")}}},
	} {
		r := parse(t, host+"/b:1")
		pushed(t, r, "", test.config, test.text, test.layers...)
		if _, _, err := fetched(t, r, nil); !errors.Is(err, artifact.ErrManifest) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
	}
	r := parse(t, host+"/c:1")
	pushed(t, r, ArtifactType, mediaTypeConfig, "{}", layer{prefixWeight + "tar", "", tarOf(t, tar.Header{Name: "x", Size: 40 << 20})})
	full := errors.New("the disk is full")
	if _, _, err := fetched(t, r, func(n int64) error {
		if n > 30<<20 {
			return full
		}
		return nil
	}); !errors.Is(err, full) {
		t.Errorf("a full disk: %v", err)
	}
}

func FuzzUntar(f *testing.F) {
	f.Add([]byte("text"))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range 3 {
		_ = w.WriteHeader(&tar.Header{Name: fmt.Sprint("a/", i), Mode: 0o644, Size: 1})
		_, _ = w.Write([]byte("x"))
	}
	_ = w.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, archive []byte) {
		above := t.TempDir()
		if err := os.Mkdir(filepath.Join(above, "out"), 0o700); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(filepath.Join(above, "out"))
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		left := int64(100)
		_ = untar(root, tar.NewReader(io.LimitReader(bytes.NewReader(archive), 1<<16)), &left)
		if entries, _ := os.ReadDir(above); len(entries) != 1 {
			t.Errorf("written beside the folder: %v", entries)
		}
	})
}
