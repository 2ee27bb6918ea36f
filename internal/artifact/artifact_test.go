package artifact_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/artifact/artifacttest"
)

// content is bytes that no compression and no chance make equal.
func content(n int) []byte {
	data := make([]byte, n)
	random := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	return data
}

func parse(t *testing.T, text string) artifact.Reference {
	t.Helper()
	r, err := artifact.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// push writes an artifact of one layer for each architecture.
func push(t *testing.T, r artifact.Reference, a artifact.Access, data []byte, arches ...string) (digest string, err error) {
	t.Helper()
	return artifact.Create(t.Context(), r, a, func(s *artifact.Store) (d ocispec.Descriptor, err error) {
		var all []ocispec.Descriptor
		for _, arch := range append([]string{""}, arches...) {
			layer, err := artifact.Descriptor("application/x-test", strings.NewReader(string(data)+arch))
			if err != nil {
				return d, err
			}
			if err := s.PushBlob(t.Context(), layer, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(data) + arch)), nil }); err != nil {
				return d, err
			}
			config, err := s.PushBytes(t.Context(), "application/x-config", []byte("{}"))
			if err != nil {
				return d, err
			}
			if d, err = s.PushManifest(t.Context(), ocispec.Manifest{ArtifactType: "application/x-test", Config: config, Layers: []ocispec.Descriptor{layer}}); err != nil {
				return d, err
			}
			d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
			all = append(all, d)
		}
		if len(arches) == 0 {
			return all[0], nil
		}
		return s.PushIndex(t.Context(), all[1:])
	})
}

// fetch reads the artifact's layer into a file, which may hold its beginning.
func fetch(t *testing.T, r artifact.Reference, a artifact.Access, arch, file string) (*artifact.Manifest, error) {
	t.Helper()
	s, err := artifact.Open(t.Context(), r, a)
	if err != nil {
		return nil, err
	}
	m, err := s.Manifest(t.Context(), arch)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return m, s.Fetch(t.Context(), m.Layers[0], f, nil)
}

// A second artifact in a layout leaves the first there, and nothing but a layout is
// written over.
func TestSeveralTagsOfALayout(t *testing.T) {
	for _, layout := range []string{"layout", "layout.tar"} {
		at := "oci:" + filepath.Join(t.TempDir(), layout)
		for _, tag := range []string{"1", "2", "2", "3"} {
			if _, err := push(t, parse(t, at+":"+tag), artifact.Access{}, []byte("data "+tag)); err != nil {
				t.Fatal(err)
			}
		}
		for _, tag := range []string{"1", "2", "3"} {
			file := filepath.Join(t.TempDir(), "layer")
			if _, err := fetch(t, parse(t, at+":"+tag), artifact.Access{}, "", file); err != nil {
				t.Errorf("%s:%s: %v", layout, tag, err)
				continue
			}
			if got, err := os.ReadFile(file); err != nil || string(got) != "data "+tag {
				t.Errorf("%s:%s: got %q %v", layout, tag, got, err)
			}
		}
	}
	other := new(bytes.Buffer)
	w := tar.NewWriter(other)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "../../x", Typeflag: tar.TypeReg, Size: 1}), w.Close()); err == nil {
		t.Fatal("a tar file is whole without its content")
	}
	for name, text := range map[string]string{"no tar file": strings.Repeat("notes ", 1000), "another tar file": other.String() + "x" + strings.Repeat("\x00", 511+1024)} {
		file := filepath.Join(t.TempDir(), "a.tar")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := push(t, parse(t, "oci:"+file+":1"), artifact.Access{}, []byte("x"))
		if got, _ := os.ReadFile(file); !errors.Is(err, artifact.ErrManifest) || string(got) != text {
			t.Errorf("%s: got %v, and the file is the same: %v", name, err, string(got) == text)
		}
	}
}

func TestEveryPlace(t *testing.T) {
	dir := t.TempDir()
	data := content(3 << 20)
	for name, place := range map[string]func(*testing.T) string{
		"registry":          func(t *testing.T) string { return artifacttest.StartFaulty(t).Host + "/a/b:1" },
		"Docker's registry": func(t *testing.T) string { return "oci://" + artifacttest.StartDocker(t, "") + "/a/b:1" },
		"folder":            func(*testing.T) string { return "oci:" + filepath.Join(dir, "layout") + ":one" },
		"tar":               func(*testing.T) string { return "oci:" + filepath.Join(dir, "layout.tar") + ":one" },
	} {
		t.Run(name, func(t *testing.T) {
			r := parse(t, place(t))
			digest, err := push(t, r, artifact.Access{}, data)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "layer")
			for _, r := range []artifact.Reference{r, r.Pinned(digest)} {
				m, err := fetch(t, r, artifact.Access{}, "amd64", file)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, data) || m.Digest != digest || m.ArtifactType != "application/x-test" {
					t.Errorf("%s: got %d bytes, %v, manifest %s, want %s", r, len(got), err, m.Digest, digest)
				}
			}
			if _, err := push(t, r, artifact.Access{}, data, "amd64", "arm64"); err != nil {
				t.Fatal(err)
			}
			if _, err := fetch(t, r, artifact.Access{}, "arm64", filepath.Join(t.TempDir(), "layer")); err != nil {
				t.Error(err)
			}
			if _, err := fetch(t, r, artifact.Access{}, "mips", file); !errors.Is(err, artifact.ErrNotFound) || !strings.Contains(err.Error(), "nothing for mips") {
				t.Errorf("another architecture: %v", err)
			}
			gone := r.Pinned("sha256:" + strings.Repeat("0", 64))
			if _, err := fetch(t, gone, artifact.Access{}, "amd64", file); !errors.Is(err, artifact.ErrNotFound) {
				t.Errorf("what is not there: %v", err)
			}
		})
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestCutDownloadGoesOn(t *testing.T) {
	data := content(1 << 20)
	for name, ranges := range map[string]bool{"with ranges": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			registry := artifacttest.StartFaulty(t)
			r := parse(t, registry.Host+"/a:1")
			if _, err := push(t, r, artifact.Access{}, data); err != nil {
				t.Fatal(err)
			}
			if !ranges {
				registry.NoRanges()
			}
			file := filepath.Join(t.TempDir(), "layer")
			if err := os.WriteFile(file, data[:700_000], 0o600); err != nil {
				t.Fatal(err)
			}
			registry.Cut(400_000)
			if !ranges {
				registry.Cut(0)
			}
			registry.Asked()
			if _, err := fetch(t, r, artifact.Access{}, "amd64", file); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, data) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			if asked := strings.Join(registry.Asked(), "\n"); ranges && !strings.Contains(asked, "bytes=700000-") {
				t.Errorf("it did not ask for the end alone:\n%s", asked)
			}
		})
	}
}

func TestBadRegistries(t *testing.T) {
	data := content(300_000)
	registry := artifacttest.StartFaulty(t)
	r := parse(t, registry.Host+"/a:1")
	if _, err := push(t, r, artifact.Access{}, data); err != nil {
		t.Fatal(err)
	}
	layer, err := artifact.Descriptor("", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "layer")
	refused := func(what string, is error, reason string) {
		t.Helper()
		_, err := fetch(t, r, artifact.Access{SignIn: "sign in to %s"}, "amd64", file)
		if !errors.Is(err, is) || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: got %v, want %v with %q", what, err, is, reason)
		}
	}
	registry.Password("secret")
	refused("no password", artifact.ErrDenied, "sign in to "+registry.Host)
	wrong := artifact.Access{Login: artifact.Passwords(func(string) (string, string) { return "rita", "guess" })}
	if _, err := fetch(t, r, wrong, "amd64", file); !errors.Is(err, artifact.ErrDenied) {
		t.Errorf("another password: %v", err)
	}
	right := artifact.Access{Login: artifact.Passwords(func(host string) (string, string) { return "rita", map[string]string{registry.Host: "secret"}[host] })}
	if _, err := fetch(t, r, right, "amd64", file); err != nil {
		t.Errorf("the right password: %v", err)
	}
	registry.Password("")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	registry.Answer(http.StatusForbidden)
	refused("403", artifact.ErrDenied, "")
	registry.Answer(http.StatusTeapot)
	_, err = fetch(t, r, artifact.Access{}, "amd64", file)
	if err == nil || !strings.Contains(err.Error(), "answered 418") {
		t.Errorf("418: %v", err)
	}
	registry.Answer(0)
	lie := bytes.Clone(data)
	lie[7]++
	registry.Lie(layer.Digest.String(), lie)
	refused("a blob that lies", artifact.ErrDigest, "sent something else")
	if info, err := os.Stat(file); err != nil || info.Size() != 0 {
		t.Errorf("a lie left %v, %v", info, err)
	}
	registry.Lie(layer.Digest.String(), data[:1000])
	if _, err := fetch(t, r, artifact.Access{}, "amd64", file); err == nil {
		t.Error("a blob that is too short was taken")
	}
	for name, manifest := range map[string]string{
		"text":         "hello",
		"a bad digest": `{"schemaVersion":2,"layers":[{"digest":"../../etc/passwd","size":1}]}`,
		"a bad size":   fmt.Sprintf(`{"schemaVersion":2,"layers":[{"digest":%q,"size":-1}]}`, layer.Digest),
		"no config":    `{"schemaVersion":2}`,
		"too large":    strings.Repeat(" ", 5<<20),
	} {
		careless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.Header().Set("Content-Length", strconv.Itoa(len(manifest)))
			w.Header().Set("Docker-Content-Digest", digest.FromString(manifest).String())
			_, _ = io.WriteString(w, manifest)
		}))
		defer careless.Close()
		bad := parse(t, strings.TrimPrefix(careless.URL, "http://")+"/bad:1")
		if _, err := fetch(t, bad, artifact.Access{}, "amd64", file); !errors.Is(err, artifact.ErrManifest) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	unreachable := parse(t, "127.0.0.1:1/a:1")
	if _, err := fetch(t, unreachable, artifact.Access{}, "amd64", file); !errors.Is(err, artifact.ErrUnreachable) || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("unreachable: %v", err)
	}
}

func TestBlob(t *testing.T) {
	registry := artifacttest.StartFaulty(t)
	r, raw := parse(t, registry.Host+"/a:1"), content(350_000)
	if _, err := push(t, r, artifact.Access{}, raw); err != nil {
		t.Fatal(err)
	}
	s, err := artifact.Open(t.Context(), r, artifact.Access{})
	if err != nil {
		t.Fatal(err)
	}
	artifact.SetStall(s)
	m, err := s.Manifest(t.Context(), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	blob := func() ([]byte, error) {
		b, err := s.Blob(t.Context(), m.Layers[0], 100)
		if err != nil {
			return nil, err
		}
		defer b.Close()
		return io.ReadAll(b)
	}
	if got, err := blob(); err != nil || !bytes.Equal(got, raw[100:]) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	registry.Hang(200_000)
	if got, err := blob(); !errors.Is(err, artifact.ErrUnreachable) || !bytes.HasPrefix(raw[100:], got) {
		t.Errorf("a silent registry: %d bytes, %v", len(got), err)
	}
	if _, err := s.Blob(t.Context(), ocispec.Descriptor{Digest: digest.FromString("none"), Size: 4}, 0); !errors.Is(err, artifact.ErrNotFound) {
		t.Errorf("no such blob: got %v", err)
	}
}

func TestSilentRegistry(t *testing.T) {
	registry := artifacttest.StartFaulty(t)
	r := parse(t, registry.Host+"/a:1")
	if _, err := push(t, r, artifact.Access{}, content(350_000)); err != nil {
		t.Fatal(err)
	}
	// The last part ends before the silence.
	registry.Hang(100_000)
	s, err := artifact.Open(t.Context(), r, artifact.Access{})
	if err != nil {
		t.Fatal(err)
	}
	artifact.SetStall(s)
	m, err := s.Manifest(t.Context(), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "layer"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.Fetch(t.Context(), m.Layers[0], f, nil); err != nil {
		t.Errorf("it went on after each silence: %v", err)
	}
	full := errors.New("the disk is full")
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := s.Fetch(t.Context(), m.Layers[0], f, func(int64) error { return full }); !errors.Is(err, full) {
		t.Errorf("a full disk: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Fetch(ctx, m.Layers[0], f, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestDockerLogin(t *testing.T) {
	host := artifacttest.StartDocker(t, "open sesame")
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	r, data := parse(t, host+"/a:1"), content(1000)
	login := func() artifact.Access {
		t.Helper()
		l, err := artifact.DockerLogin()
		if err != nil {
			t.Fatal(err)
		}
		return artifact.Access{Login: l, SignIn: "docker login %s"}
	}
	if _, err := push(t, r, login(), data); !errors.Is(err, artifact.ErrDenied) || !strings.Contains(err.Error(), "docker login "+host) {
		t.Errorf("without credentials: %v", err)
	}
	config, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]any{"auth": "cml0YTpvcGVuIHNlc2FtZQ=="}}})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := push(t, r, login(), data); err != nil {
		t.Errorf("with Docker's credentials: %v", err)
	}
}
