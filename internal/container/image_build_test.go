package container

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime"
	"testing"

	digest "github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// testImage is an image in the making. Zero fields have defaults.
type testImage struct {
	name   string // annotation in the archive
	arch   string
	config ocispec.ImageConfig
	layers [][]byte // tar streams
	diffID digest.Digest
}

// file is an entry of a layer.
type file struct {
	name     string
	content  string
	mode     int64
	uid, gid int
	link     string
	kind     byte
}

func layer(t testing.TB, files ...file) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Uid: f.uid, Gid: f.gid, Linkname: f.link, Typeflag: f.kind, Size: int64(len(f.content))}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// blobs are an image's parts by digest, and its manifest.
func (i testImage) blobs(t testing.TB) (map[digest.Digest][]byte, ocispec.Descriptor) {
	t.Helper()
	blobs := map[digest.Digest][]byte{}
	put := func(mediaType string, data []byte) ocispec.Descriptor {
		d := digest.FromBytes(data)
		blobs[d] = data
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
	}
	if i.arch == "" {
		i.arch = runtime.GOARCH
	}
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: i.arch}, Config: i.config}
	config.RootFS.Type = "layers"
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, plain := range i.layers {
		id := digest.FromBytes(plain)
		if i.diffID != "" {
			id = i.diffID
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, id)
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		w.Write(plain)
		w.Close()
		manifest.Layers = append(manifest.Layers, put(ocispec.MediaTypeImageLayerGzip, packed.Bytes()))
	}
	manifest.Config = put(ocispec.MediaTypeImageConfig, marshal(t, config))
	return blobs, put(ocispec.MediaTypeImageManifest, marshal(t, manifest))
}

// archive is an OCI layout of images as a tar stream.
func archiveOf(t testing.TB, list ...testImage) []byte {
	t.Helper()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	files := []file{{name: "oci-layout", content: `{"imageLayoutVersion":"1.0.0"}`}}
	seen := map[digest.Digest]bool{}
	for _, image := range list {
		blobs, manifest := image.blobs(t)
		for d, data := range blobs {
			if !seen[d] {
				files = append(files, file{name: "blobs/sha256/" + d.Encoded(), content: string(data)})
				seen[d] = true
			}
		}
		if image.name != "" {
			manifest.Annotations = map[string]string{ocispec.AnnotationRefName: image.name}
		}
		index.Manifests = append(index.Manifests, manifest)
	}
	return layer(t, append(files, file{name: "index.json", content: string(marshal(t, index))})...)
}

// dockerArchive is an image as "docker save" writes it.
func dockerArchive(t testing.TB, image testImage) []byte {
	t.Helper()
	if image.arch == "" {
		image.arch = runtime.GOARCH
	}
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: image.arch}, Config: image.config}
	config.RootFS.Type = "layers"
	var files []file
	var names []string
	for n, plain := range image.layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(plain))
		names = append(names, fmt.Sprintf("%d/layer.tar", n))
		files = append(files, file{name: names[n], content: string(plain)})
	}
	data := marshal(t, config)
	sum := sha256.Sum256(data)
	name := hex.EncodeToString(sum[:]) + ".json"
	manifest := []map[string]any{{"Config": name, "RepoTags": []string{image.name}, "Layers": names}}
	return layer(t, append(files, file{name: name, content: string(data)}, file{name: "manifest.json", content: string(marshal(t, manifest))})...)
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
