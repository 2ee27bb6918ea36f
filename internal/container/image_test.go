package container

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	digest "github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestImport(t *testing.T) {
	r := openRuntime(t, testConfig(t))
	oci, docker, nameless := probeImage(t), probeImage(t), probeImage(t)
	docker.name, nameless.name = "probe:2", ""
	nameless.config.Cmd = []string{"id"}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	w.Write(dockerArchive(t, docker))
	w.Close()
	var names []string
	for _, data := range [][]byte{archiveOf(t, oci, nameless), packed.Bytes(), archiveOf(t, oci)} {
		got, err := r.Import(t.Context(), bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		for _, image := range got {
			names = append(names, image.Name)
			if image.SizeBytes < 1<<19 || image.Created.IsZero() || !strings.HasPrefix(image.Platform, "linux/") || !strings.HasPrefix(image.Digest, "sha256:") {
				t.Errorf("%+v", image)
			}
		}
	}
	if len(names) != 4 || names[0] != probeName || !strings.HasPrefix(names[1], "localhost/imported:") || names[2] != "docker.io/library/probe:2" {
		t.Errorf("got images %q", names)
	}
	for _, name := range names[:3] {
		if got, _ := output(t, r, Spec{ID: "check", Image: name, Args: []string{"id"}}); got != "id 65532 65532\n" {
			t.Errorf("%s says %q", name, got)
		}
		if err := r.Delete(t.Context(), "check"); err != nil {
			t.Fatal(err)
		}
	}
	all, err := r.Images(t.Context())
	if err != nil || len(all) != 3 {
		t.Errorf("got %v, %v, want three images", all, err)
	}
	for _, image := range all {
		if err := r.RemoveImage(t.Context(), image.Name); err != nil {
			t.Error(err)
		}
	}
	if err := r.RemoveImage(t.Context(), probeName); !errors.Is(err, ErrNotFound) {
		t.Errorf("remove what is not there: %v", err)
	}
	if left := diskFiles(t, r); len(left) > 0 {
		t.Errorf("removed images leave %q", left)
	}
}

// diskFiles lists blobs and layers on disk.
func diskFiles(t *testing.T, r *Runtime) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"content/blobs/*/*", "content/ingest/*", snapshotterName + "/snapshots/*"} {
		names, err := filepath.Glob(filepath.Join(r.config.Root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, names...)
	}
	return found
}

func TestHostileArchives(t *testing.T) {
	config := testConfig(t)
	config.ImageBytes, config.UnpackBytes = 32<<20, 64<<20
	r := openRuntime(t, config)
	good := archiveOf(t, probeImage(t))
	probe := func(change func(*testImage)) []byte {
		image := probeImage(t)
		change(&image)
		return archiveOf(t, image)
	}
	foreign := map[string]string{"amd64": "arm64"}
	if foreign[probeArch] == "" {
		foreign[probeArch] = "amd64"
	}
	for name, test := range map[string]struct {
		data   []byte
		reason string
		is     error
	}{
		"empty":        {nil, "not an image archive", nil},
		"text":         {[]byte(strings.Repeat("hello ", 1000)), "not an image archive", nil},
		"cut":          {good[:len(good)/2], "cut short", nil},
		"other tar":    {layer(t, file{name: "readme", content: "x"}), "unrecognized image format", nil},
		"no index":     {layer(t, file{name: "oci-layout", content: `{"imageLayoutVersion":"1.0.0"}`}), "index.json", nil},
		"bad json":     {layer(t, file{name: "oci-layout", content: `{"imageLayoutVersion":"1.0.0"}`}, file{name: "index.json", content: "{"}), "unexpected end", nil},
		"no manifests": {layer(t, file{name: "oci-layout", content: `{"imageLayoutVersion":"1.0.0"}`}, file{name: "index.json", content: "{}"}), "", nil},
		"outside":      {layer(t, file{name: "../../etc/passwd", content: "x"}), "it has a file", nil},
		"device":       {layer(t, file{name: "dev", kind: tar.TypeChar}), "neither a file", nil},
		"wrong arch":   {probe(func(i *testImage) { i.arch = foreign[probeArch] }), "it is for linux/" + foreign[probeArch], ErrPlatform},
		"wrong diff":   {probe(func(i *testImage) { i.diffID = digest.FromString("other") }), "wrong diff id", nil},
		"bad layer":    {probe(func(i *testImage) { i.layers = append(i.layers, []byte("not a tar stream")) }), "", nil},
		"climbs out": {probe(func(i *testImage) {
			i.layers = append(i.layers, layer(t, file{name: "../../../../escaped", content: "x"}))
		}), "", nil},
		"bomb": {probe(func(i *testImage) {
			i.layers = append(i.layers, layer(t, file{name: "zero", content: strings.Repeat("\x00", 80<<20)}))
		}), "bound of one image", ErrTooLarge},
		"big": {layer(t, file{name: "blobs/sha256/x", content: strings.Repeat("x", 33<<20)}), "bound", ErrTooLarge},
		"big index": {layer(t, file{name: "oci-layout", content: `{"imageLayoutVersion":"1.0.0"}`},
			file{name: "index.json", content: strings.Repeat(" ", maxManifest+1)}), "index.json", ErrTooLarge},
		"many layers": {probe(func(i *testImage) {
			for n := range maxLayers {
				i.layers = append(i.layers, layer(t, file{name: fmt.Sprint(n)}))
			}
		}), "layers", ErrTooLarge},
		"second is bad": {archiveOf(t, probeImage(t), testImage{name: "example.test/other:1", arch: foreign[probeArch]}), "it is for", ErrPlatform},
	} {
		got, err := r.Import(t.Context(), bytes.NewReader(test.data))
		if name == "climbs out" {
			// Unpacked within the layer's own root, or refused: both are fine.
			if _, statErr := os.Stat(filepath.Join(filepath.Dir(config.Root), "escaped")); statErr == nil {
				t.Error("a layer wrote outside")
			}
			for _, image := range got {
				r.RemoveImage(t.Context(), image.Name)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), test.reason) || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%s: %v, %v, want %q", name, got, err, test.reason)
		}
	}
	if all, err := r.Images(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("refused archives leave images: %v, %v", all, err)
	}
	if left := diskFiles(t, r); len(left) > 0 {
		t.Errorf("refused archives leave %q", left)
	}
	if _, err := r.Import(t.Context(), bytes.NewReader(good)); err != nil {
		t.Errorf("after all that, a good archive: %v", err)
	}
}

// registryOf serves an image by the distribution protocol, at any repository
// and tag.
func registryOf(t *testing.T, image testImage) (host string, requests *[]string) {
	t.Helper()
	blobs, manifest := image.blobs(t)
	return serveBlobs(t, blobs, manifest)
}

func serveBlobs(t *testing.T, blobs map[digest.Digest][]byte, manifest ocispec.Descriptor) (host string, requests *[]string) {
	t.Helper()
	requests = new([]string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		*requests = append(*requests, q.URL.Path)
		part := filepath.Base(q.URL.Path)
		want := manifest
		kind := manifest.MediaType
		if strings.Contains(q.URL.Path, "/manifests/sha256:") {
			kind = ocispec.MediaTypeImageManifest
		}
		if d, err := digest.Parse(part); err == nil {
			want = ocispec.Descriptor{MediaType: "application/octet-stream", Digest: d}
		}
		data, ok := blobs[want.Digest]
		if !ok {
			http.NotFound(w, q)
			return
		}
		if want.Digest == manifest.Digest || strings.Contains(q.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", kind)
		}
		w.Header().Set("Docker-Content-Digest", want.Digest.String())
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		if q.Method != http.MethodHead {
			w.Write(data)
		}
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://"), requests
}

func TestPull(t *testing.T) {
	image := probeImage(t)
	host, requests := registryOf(t, image)
	config := testConfig(t)
	config.Allow = []string{host + "/good"}
	r := openRuntime(t, config)
	for _, ref := range []string{host + "/evil/probe:1", host + "/good-not/probe:1", "docker.io/library/nginx"} {
		if _, err := r.Pull(t.Context(), ref, nil, nil); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v, want %v", ref, err, ErrDenied)
		}
	}
	if len(*requests) > 0 {
		t.Errorf("denied pulls asked the registry for %q", *requests)
	}
	var lines []string
	got, err := r.Pull(t.Context(), host+"/good/probe:1", nil, func(line string) { lines = append(lines, line) })
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != host+"/good/probe:1" || len(lines) == 0 {
		t.Errorf("%+v, progress %q", got, lines)
	}
	if said, _ := output(t, r, Spec{ID: "pulled", Image: host + "/good/probe:1", Args: []string{"say", "hi"}}); said != "hi\n" {
		t.Errorf("said %q", said)
	}
}

// TestPullLogsIn: a registry that asks for a password gets that of its host,
// and no message repeats it.
func TestPullLogsIn(t *testing.T) {
	image := probeImage(t)
	open, _ := registryOf(t, image)
	const password = "hunter2canary"
	var asked []string
	target := &url.URL{Scheme: "http", Host: open}
	locked := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if user, given, ok := q.BasicAuth(); !ok || user != "rita" || given != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		httputil.NewSingleHostReverseProxy(target).ServeHTTP(w, q)
	}))
	defer locked.Close()
	host := strings.TrimPrefix(locked.URL, "http://")
	config := testConfig(t)
	config.Allow = []string{"*"}
	r := openRuntime(t, config)
	var lines []string
	tell := func(line string) { lines = append(lines, line) }
	for name, login := range map[string]Login{
		"no credentials":        nil,
		"a wrong password":      func(string) (string, string) { return "rita", password + "x" },
		"those of another host": func(host string) (string, string) { return "", "" },
	} {
		if _, err := r.Pull(t.Context(), host+"/probe:1", login, tell); err == nil || strings.Contains(err.Error(), password) {
			t.Errorf("%s: %v", name, err)
		}
	}
	login := func(of string) (string, string) {
		asked = append(asked, of)
		return "rita", password
	}
	if _, err := r.Pull(t.Context(), host+"/probe:1", login, tell); err != nil {
		t.Fatal(err)
	}
	if len(asked) == 0 || asked[0] != host || strings.Contains(strings.Join(lines, ""), password) {
		t.Errorf("asked for %q, told %q", asked, lines)
	}
}

// TestPullIndex takes only its own platform out of an index: the registry has
// no blob of the others.
func TestPullIndex(t *testing.T) {
	blobs, own := probeImage(t).blobs(t)
	own.Platform = &ocispec.Platform{OS: "linux", Architecture: probeArch}
	_, foreign := testImage{arch: "s390x", layers: [][]byte{layer(t, file{name: "x"})}}.blobs(t)
	foreign.Platform = &ocispec.Platform{OS: "linux", Architecture: "s390x"}
	serve := func(manifests ...ocispec.Descriptor) string {
		data := marshal(t, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests})
		d := digest.FromBytes(data)
		blobs[d] = data
		host, _ := serveBlobs(t, blobs, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: d, Size: int64(len(data))})
		return host + "/probe:1"
	}
	config := testConfig(t)
	config.Allow = []string{"*"}
	r := openRuntime(t, config)
	both := serve(foreign, own)
	if _, err := r.Pull(t.Context(), both, nil, nil); err != nil {
		t.Fatal(err)
	}
	if said, _ := output(t, r, Spec{ID: "pulled", Image: both, Args: []string{"say", "hi"}}); said != "hi\n" {
		t.Errorf("said %q", said)
	}
	if _, err := r.Pull(t.Context(), serve(foreign), nil, nil); !errors.Is(err, ErrPlatform) || !strings.Contains(err.Error(), "linux/s390x") {
		t.Errorf("an index without this platform: %v", err)
	}
}

func TestPullFails(t *testing.T) {
	config := testConfig(t)
	config.Allow, config.ImageBytes = []string{"*"}, 1<<19
	r := openRuntime(t, config)
	big, _ := registryOf(t, probeImage(t))
	foreign, _ := registryOf(t, testImage{arch: "s390x", layers: [][]byte{layer(t, file{name: "x"})}})
	nothing := httptest.NewServer(http.NotFoundHandler())
	defer nothing.Close()
	for ref, is := range map[string]error{
		big + "/x:1":      ErrTooLarge,
		foreign + "/x:1":  ErrPlatform,
		"127.0.0.1:1/x:1": nil,
		strings.TrimPrefix(nothing.URL, "http://") + "/x:1": nil,
		"Not A Reference": nil,
	} {
		_, err := r.Pull(t.Context(), ref, nil, nil)
		if err == nil || is != nil && !errors.Is(err, is) {
			t.Errorf("%s: %v, want %v", ref, err, is)
		}
		t.Log(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Pull(ctx, big+"/x:1", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if left := diskFiles(t, r); len(left) > 0 {
		t.Errorf("failed pulls leave %q", left)
	}
}

func FuzzArchive(f *testing.F) {
	f.Add(layer(f, file{name: "oci-layout", content: "{}"}))
	f.Add([]byte("\x1f\x8b\x08 cut"))
	f.Fuzz(func(t *testing.T, data []byte) {
		const bound = 1 << 20
		r, stop := checkArchive(bytes.NewReader(data), bound)
		defer stop()
		n, _ := io.Copy(io.Discard, io.LimitReader(r, 16<<20))
		if n > 8<<20 && len(data) < 1<<20 {
			t.Errorf("%d bytes became %d", len(data), n)
		}
	})
}
