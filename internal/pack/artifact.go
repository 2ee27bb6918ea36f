package pack

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/pki"
	"oscine.dev/oscine/internal/release"
)

// How a pack looks as an OCI artifact: its configuration is the pack's manifest,
// its one layer the erofs file with the hash tree, and annotations of its manifest
// are the signature and what it is for besides the layer's digest.
const (
	ArtifactType        = "application/vnd.oscine.pack.v1"
	mediaTypeManifest   = "application/vnd.oscine.pack.manifest.v1+json"
	mediaTypeErofs      = "application/vnd.oscine.pack.v1.erofs"
	annotationSignature = "dev.oscine.pack.signature" // base64 of the JSON of a pki.Signature
	annotationVerity    = "dev.oscine.pack.verity"    // Info.Verity
)

// Artifact is a pack that lies in a registry or an OCI layout.
type Artifact struct {
	Info
	Reference string // with the digest of its OCI manifest
	layer     ocispec.Descriptor
}

// FindArtifact reads what the pack of a store is, for an architecture where there are
// several. Nothing of it is proven yet: Store.Pull checks the signature.
func FindArtifact(ctx context.Context, store *artifact.Store, arch string) (*Artifact, error) {
	m, err := store.Manifest(ctx, arch)
	if err != nil {
		return nil, err
	}
	if m.ArtifactType != ArtifactType || m.Config.MediaType != mediaTypeManifest || len(m.Layers) != 1 || m.Layers[0].MediaType != mediaTypeErofs {
		return nil, fmt.Errorf("%w: %s holds no pack (artifact type %.100q): oscine pack push makes one", artifact.ErrManifest, store.Reference(), m.ArtifactType)
	}
	a := &Artifact{layer: m.Layers[0], Reference: store.Reference().Pinned(m.Digest).String()}
	if a.Digest, a.SizeBytes = a.layer.Digest.String(), a.layer.Size; !digestRE.MatchString(a.Digest) || a.SizeBytes > MaxBytes {
		return nil, fmt.Errorf("%w: the layer %.80q of %s, with %d bytes, is no pack", ErrNotPack, a.Digest, store.Reference(), a.SizeBytes)
	}
	text, err := store.Bytes(ctx, m.Config, maxManifest)
	if err != nil {
		return nil, err
	}
	manifest, err := ParseManifest(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNotPack, store.Reference(), err)
	}
	a.Manifest, a.Verity = *manifest, m.Annotations[annotationVerity]
	if _, err := release.ParseVerity(a.Verity); a.Verity != "" && err != nil {
		return nil, fmt.Errorf("%w: %s: annotation %s: %w", ErrNotPack, store.Reference(), annotationVerity, err)
	}
	if raw := m.Annotations[annotationSignature]; raw != "" {
		if a.Signature, err = decodeSignature(raw); err != nil {
			return nil, fmt.Errorf("%w: the signature of %s: %w", ErrUntrusted, store.Reference(), err)
		}
	}
	return a, nil
}

// Fetch writes the pack's file, from where f ends; see artifact.Store.Fetch.
func (a *Artifact) Fetch(ctx context.Context, store *artifact.Store, f *os.File, progress func(int64) error) error {
	return store.Fetch(ctx, a.layer, f, progress)
}

// PushArtifact writes packs' files, one or one for each architecture, as an artifact
// with their signatures, and returns its digest.
func PushArtifact(ctx context.Context, r artifact.Reference, access artifact.Access, files []string,
	sign func(statement []byte) (pki.Signature, error), progress artifact.Progress) (digest string, err error) {
	return artifact.Create(ctx, r, access, func(store *artifact.Store) (ocispec.Descriptor, error) {
		var index []ocispec.Descriptor
		arches := map[string]string{}
		for _, file := range files {
			d, m, err := pushFile(ctx, store, file, sign, progress)
			if err != nil {
				return d, err
			}
			if other, twice := arches[m.Arch]; twice {
				return d, fmt.Errorf("%s and %s are both for %s: an artifact has one pack for each architecture", other, file, m.Arch)
			}
			arches[m.Arch] = file
			d.Platform = &ocispec.Platform{OS: "linux", Architecture: m.Arch}
			index = append(index, d)
		}
		if len(index) == 1 {
			index[0].Platform = nil
			return index[0], nil
		}
		return store.PushIndex(ctx, index)
	})
}

func pushFile(ctx context.Context, store *artifact.Store, file string, sign func(statement []byte) (pki.Signature, error),
	progress artifact.Progress) (d ocispec.Descriptor, m *Manifest, err error) {
	text, m, err := readFile(ctx, file)
	if err != nil {
		return d, nil, err
	}
	signature, verity, err := signFile(file, sign)
	if err != nil {
		return d, nil, err
	}
	annotation, err := encodeSignature(signature)
	if err != nil {
		return d, nil, err
	}
	title := map[string]string{ocispec.AnnotationTitle: m.Name + "-" + m.Arch + ".erofs"}
	layer, err := store.PushFile(ctx, mediaTypeErofs, file, file, title, progress)
	if err != nil {
		return d, nil, err
	}
	config, err := store.PushBytes(ctx, mediaTypeManifest, text)
	if err != nil {
		return d, nil, err
	}
	annotations := map[string]string{ocispec.AnnotationTitle: m.Name, ocispec.AnnotationVersion: m.Version, annotationSignature: annotation}
	if verity != "" {
		annotations[annotationVerity] = verity
	}
	d, err = store.PushManifest(ctx, ocispec.Manifest{ArtifactType: ArtifactType, Config: config, Layers: []ocispec.Descriptor{layer}, Annotations: annotations})
	return d, m, err
}

func encodeSignature(s pki.Signature) (string, error) {
	raw, err := json.Marshal(s)
	return base64.StdEncoding.EncodeToString(raw), err
}

func decodeSignature(text string) (s pki.Signature, err error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	return s, err
}

// ReadFile describes a pack's file without mounting it.
func ReadFile(ctx context.Context, file string) (*Info, error) {
	_, m, err := readFile(ctx, file)
	if err != nil {
		return nil, err
	}
	return describeFile(file, m)
}

// describeFile tells what a pack's file with a manifest is.
func describeFile(file string, m *Manifest) (*Info, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	verity, err := verityOf(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	digest, err := sumOf(f)
	if err != nil {
		return nil, err
	}
	return &Info{Manifest: *m, Digest: digest, SizeBytes: info.Size(), Verity: verity, File: file}, nil
}

// readFile reads the manifest in a pack's file, as it is and parsed.
func readFile(ctx context.Context, file string) ([]byte, *Manifest, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, fmt.Errorf("%w; give the path of a pack's file on this machine", err)
	}
	_, err = copyPack(ctx, io.Discard, io.LimitReader(f, HeadBytes))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	tool, err := debian.FindTool(ctx, "dump.erofs")
	if err != nil {
		return nil, nil, err
	}
	cmd := tool.Command(ctx, "--cat", "--path=/"+ManifestPath, file)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", file, err)
	}
	text, err := bounded.ReadAll(out, maxManifest)
	_, _ = io.Copy(io.Discard, out) // until it ends by itself
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return nil, nil, fmt.Errorf("%w: %s: dump.erofs: %w: %.300s", ErrNotPack, file, err, bytes.TrimSpace(said.Bytes()))
	}
	m, err := ParseManifest(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %s: %w", ErrNotPack, file, err)
	}
	return text, m, nil
}
