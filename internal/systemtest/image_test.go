package systemtest

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// webImage is the reference of the image that every test runs.
const webImage = "oscine.test/web:1"

// goBuild compiles packages of this module into a folder, without cgo.
func goBuild(t testing.TB, arch, dir string, packages ...string) {
	t.Helper()
	build := exec.Command("go", append([]string{"build", "-trimpath", "-o", dir + string(filepath.Separator)}, packages...)...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build %v: %v\n%s", packages, err, out)
	}
}

// webArchive writes a Docker archive with the program of testdata/web for arch
// as /web, running as user 1000, and returns its path.
func webArchive(t testing.TB, arch string) string {
	t.Helper()
	dir := t.TempDir()
	goBuild(t, arch, dir, "./testdata/web")
	program, err := os.ReadFile(filepath.Join(dir, "web"))
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	for _, h := range []*tar.Header{
		{Name: "data/", Typeflag: tar.TypeDir, Mode: 0o777},
		{Name: "web", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(program))},
	} {
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tw.Write(program); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "web.tar")
	writeArchive(t, path, arch, layer.Bytes())
	return path
}

func writeArchive(t testing.TB, path, arch string, layer []byte) {
	t.Helper()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		t.Fatal(err)
	}
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		Architecture: arch, OS: "linux",
		Config: v1.Config{Entrypoint: []string{"/web"}, User: "1000"},
		RootFS: mustConfig(t, image).RootFS,
	})
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(webImage)
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(path, tag, image); err != nil {
		t.Fatal(err)
	}
}

func mustConfig(t testing.TB, image v1.Image) *v1.ConfigFile {
	t.Helper()
	c, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return c
}
