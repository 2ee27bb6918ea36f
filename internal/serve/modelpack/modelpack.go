package modelpack

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/gguf"
	"oscine.dev/oscine/internal/serve/bundle"
)

// Names of the ModelPack specification (github.com/modelpack/model-spec, specs-go/v1).
const (
	ArtifactType       = "application/vnd.cncf.model.manifest.v1+json"
	mediaTypeConfig    = "application/vnd.cncf.model.config.v1+json"
	prefixPack         = "application/vnd.cncf.model."
	prefixWeight       = prefixPack + "weight.v1."
	prefixWeightConfig = prefixPack + "weight.config.v1."
	prefixDoc          = prefixPack + "doc.v1."
	prefixCode         = prefixPack + "code.v1."
	prefixDataset      = prefixPack + "dataset.v1."
	annotationPath     = "org.cncf.model.filepath"
)

// Names of Docker's model specification and of Ollama's layers.
const (
	prefixDockerConfig = "application/vnd.docker.ai.model.config."
	dockerGGUF         = "application/vnd.docker.ai.gguf.v3"
	prefixOllama       = "application/vnd.ollama.image."
	ollamaModel        = prefixOllama + "model"
	ollamaAdapter      = prefixOllama + "adapter"
)

// MaxBytes bounds all files of one model.
const MaxBytes = 64 << 30

// maxConfig bounds the bytes of a model's configuration.
const maxConfig = 1 << 20

// Model is a model in a registry or an OCI layout.
type Model struct {
	Reference string // with the digest of its manifest
	Digest    string // of the manifest
	Layout    string // ModelPack, Docker or Ollama
	Format    string // ending of the model's file where it is one, such as .gguf
	SizeBytes int64  // of what is downloaded
	parts     []part
}

// part is a layer with files of a model.
type part struct {
	ocispec.Descriptor
	name string // of the file that it is; "" for an archive
	pack packing
}

// packing is how a layer holds its files.
type packing string

const (
	raw     packing = "raw"
	tarball packing = "tar"
	gzipped packing = "tar+gzip"
	zstded  packing = "tar+zstd"
)

// Find reads what the model of a store is. What is no model, or one that cannot be
// read, is artifact.ErrManifest.
func Find(ctx context.Context, store *artifact.Store, arch string) (*Model, error) {
	manifest, err := store.Manifest(ctx, arch)
	if err != nil {
		return nil, err
	}
	m := &Model{Digest: manifest.Digest, Reference: store.Reference().Pinned(manifest.Digest).String()}
	switch {
	case manifest.ArtifactType == ArtifactType, manifest.Config.MediaType == mediaTypeConfig:
		m.Layout = "ModelPack"
		err = m.readPack(ctx, store, manifest.Config, manifest.Layers)
	case strings.HasPrefix(manifest.Config.MediaType, prefixDockerConfig):
		m.Layout = "Docker"
		err = m.readGGUF(manifest.Layers, dockerGGUF)
	case hasLayer(manifest.Layers, ollamaModel):
		m.Layout = "Ollama"
		if hasLayer(manifest.Layers, ollamaAdapter) {
			err = fmt.Errorf("it is an adapter upon another model: merge them into one GGUF file")
		} else {
			err = m.readGGUF(manifest.Layers, ollamaModel)
		}
	default:
		err = fmt.Errorf("it has neither CNCF's ModelPack layout nor Docker's or Ollama's (artifact type %.100q, configuration %.100q)", manifest.ArtifactType, manifest.Config.MediaType)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s holds no model that can be served: %w", artifact.ErrManifest, store.Reference(), err)
	}
	for _, p := range m.parts {
		if m.SizeBytes += p.Size; p.Size > MaxBytes || m.SizeBytes > MaxBytes {
			return nil, fmt.Errorf("%w: the model %s is larger than %d bytes", artifact.ErrManifest, store.Reference(), int64(MaxBytes))
		}
	}
	return m, nil
}

func hasLayer(layers []ocispec.Descriptor, mediaType string) bool {
	for _, l := range layers {
		if l.MediaType == mediaType {
			return true
		}
	}
	return false
}

// readGGUF takes the one GGUF file of a model.
func (m *Model) readGGUF(layers []ocispec.Descriptor, mediaType string) error {
	var other []string
	for _, l := range layers {
		if l.MediaType != mediaType {
			other = append(other, l.MediaType)
			continue
		}
		m.parts = append(m.parts, part{l, "model.gguf", raw})
	}
	switch len(m.parts) {
	case 0:
		return fmt.Errorf("it has no layer %s, only %.300q", mediaType, other)
	case 1:
		m.Format = ".gguf"
		return nil
	}
	return fmt.Errorf("it is divided into %d GGUF files: merge them (llama-gguf-split --merge)", len(m.parts))
}

// readPack takes the weights and their configuration from the layers of a ModelPack.
func (m *Model) readPack(ctx context.Context, store *artifact.Store, config ocispec.Descriptor, layers []ocispec.Descriptor) error {
	text, err := store.Bytes(ctx, config, maxConfig)
	if err != nil {
		return err
	}
	var c modelConfig
	if err := json.Unmarshal(text, &c); err != nil {
		return fmt.Errorf("its configuration: %w", err)
	}
	weights := 0
	for _, l := range layers {
		kind, ok := strings.CutPrefix(l.MediaType, prefixWeight)
		if ok {
			weights++
		} else if kind, ok = strings.CutPrefix(l.MediaType, prefixWeightConfig); !ok {
			if !leftOut(l.MediaType) {
				return fmt.Errorf("the media type %.100q of a layer is unknown", l.MediaType)
			}
			continue
		}
		p, err := newPart(l, kind)
		if err != nil {
			return err
		}
		m.parts = append(m.parts, p)
	}
	if weights == 0 {
		return fmt.Errorf("it has no layer with weights")
	}
	if len(m.parts) == 1 && m.parts[0].pack == raw {
		if m.Format = strings.ToLower(path.Ext(m.parts[0].name)); m.Format == "" && c.Config.Format != "" {
			m.Format = "." + strings.ToLower(c.Config.Format)
		}
	}
	return nil
}

// leftOut reports whether a layer has nothing that an engine reads.
func leftOut(mediaType string) bool {
	for _, prefix := range []string{prefixDoc, prefixCode, prefixDataset} {
		if strings.HasPrefix(mediaType, prefix) {
			return true
		}
	}
	return false
}

func newPart(l ocispec.Descriptor, kind string) (part, error) {
	p := part{Descriptor: l, pack: packing(kind)}
	switch p.pack {
	case tarball, gzipped, zstded:
		return p, nil
	case "gguf", "safetensors": // as Docker's tools name files by format
		p.pack = raw
	case raw:
	default:
		return p, fmt.Errorf("the media type %.100q of a layer is unknown", l.MediaType)
	}
	p.name = l.Annotations[annotationPath]
	if p.name == "" {
		p.name = l.Annotations[ocispec.AnnotationTitle]
	}
	if p.name == "" {
		p.name = "model" + map[string]string{"gguf": ".gguf", "safetensors": ".safetensors"}[kind]
	}
	return p, bundle.CheckName(p.name)
}

// modelConfig is what is written and read of a ModelPack's configuration.
type modelConfig struct {
	Descriptor struct {
		Name    string `json:"name,omitempty"`
		Version string `json:"version,omitempty"`
	} `json:"descriptor"`
	ModelFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diffIds"`
	} `json:"modelfs"`
	Config struct {
		Architecture string `json:"architecture,omitempty"`
		Format       string `json:"format,omitempty"`
	} `json:"config"`
}

// describe fills in what a model's file tells.
func (c *modelConfig) describe(files []bundle.File) {
	for _, f := range files {
		format := strings.TrimPrefix(strings.ToLower(path.Ext(f.Name)), ".")
		if !strings.HasPrefix(mediaTypeOf(f.Name), prefixWeight) || c.Config.Format != "" || format == "" {
			continue
		}
		c.Config.Format = format
		if header, err := gguf.Open(f.Path); format == "gguf" && err == nil {
			c.Config.Architecture = header.Architecture
		}
	}
}

// mediaTypeOf is the media type of a model's file.
func mediaTypeOf(name string) string {
	base := strings.ToLower(path.Base(name))
	if strings.HasSuffix(base, ".provenance.json") { // of oscine optimize
		return prefixDoc + string(raw)
	}
	switch path.Ext(base) {
	case ".md":
		return prefixDoc + string(raw)
	case ".json", ".txt", ".yaml", ".yml", ".pbtxt", ".jinja":
		return prefixWeightConfig + string(raw)
	}
	switch strings.TrimSuffix(base, path.Ext(base)) {
	case "readme", "license", "licence", "notice", "copying":
		return prefixDoc + string(raw)
	}
	return prefixWeight + string(raw)
}
