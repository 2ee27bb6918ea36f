package modelpack

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/serve/bundle"
)

// Push writes the files of a model as a ModelPack, a layer for each, and returns
// the digest of its manifest. The same files, name and version give the same digest.
func Push(ctx context.Context, r artifact.Reference, access artifact.Access, files []bundle.File, name, version string, progress artifact.Progress) (digest string, err error) {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b bundle.File) int { return strings.Compare(a.Name, b.Name) })
	var config modelConfig
	config.Descriptor.Name, config.Descriptor.Version, config.ModelFS.Type = name, version, "layers"
	config.describe(files)
	return artifact.Create(ctx, r, access, func(store *artifact.Store) (d ocispec.Descriptor, err error) {
		m := ocispec.Manifest{ArtifactType: ArtifactType}
		weights := 0
		for _, f := range files {
			layer, err := pushFile(ctx, store, f, progress)
			if err != nil {
				return d, err
			}
			if strings.HasPrefix(layer.MediaType, prefixWeight) {
				weights++
			}
			m.Layers = append(m.Layers, layer)
			config.ModelFS.DiffIDs = append(config.ModelFS.DiffIDs, layer.Digest.String())
		}
		if weights == 0 {
			return d, errors.New("there is no file with weights among these")
		}
		text, err := json.Marshal(config)
		if err != nil {
			return d, err
		}
		if m.Config, err = store.PushBytes(ctx, mediaTypeConfig, text); err != nil {
			return d, err
		}
		return store.PushManifest(ctx, m)
	})
}

func pushFile(ctx context.Context, store *artifact.Store, f bundle.File, progress artifact.Progress) (layer ocispec.Descriptor, err error) {
	if err := bundle.CheckName(f.Name); err != nil {
		return layer, err
	}
	return store.PushFile(ctx, mediaTypeOf(f.Name), f.Path, f.Name, map[string]string{annotationPath: f.Name}, progress)
}
