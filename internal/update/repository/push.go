package repository

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"oscine.dev/oscine/internal/artifact"
)

// The media types of a release folder in a registry.
const (
	folderType = "application/vnd.oscine.releases.v1"
	fileType   = "application/vnd.oscine.releases.file.v1"
)

// OpenPublished opens a release folder of which something is published.
func OpenPublished(dir string) (*os.Root, error) {
	root, err := os.OpenRoot(dir)
	if err == nil {
		if _, err = root.Stat("metadata/timestamp.json"); err == nil {
			return root, nil
		}
		root.Close()
	}
	return nil, fmt.Errorf("%s is not a published release folder: make one with oscine release init and create: %w", dir, err)
}

// Push writes what is published of a release folder to a registry, as one artifact
// with a layer for each file. What is there already is not sent, and the tag moves
// last: nodes see the old state or the new one. It returns the artifact's digest.
func Push(ctx context.Context, dir string, r artifact.Reference, access artifact.Access, progress artifact.Progress) (string, error) {
	root, err := OpenPublished(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	files, err := published(root)
	if err != nil {
		return "", err
	}
	return artifact.Create(ctx, r, access, func(store *artifact.Store) (ocispec.Descriptor, error) {
		config, err := store.PushBytes(ctx, ocispec.MediaTypeEmptyJSON, []byte("{}"))
		if err != nil {
			return config, err
		}
		m := ocispec.Manifest{ArtifactType: folderType, Config: config}
		for _, name := range files {
			title := map[string]string{ocispec.AnnotationTitle: name}
			d, err := store.PushFile(ctx, fileType, dir+"/"+name, name, title, progress)
			if err != nil {
				return d, fmt.Errorf("push %s: %w", name, err)
			}
			m.Layers = append(m.Layers, d)
		}
		return store.PushManifest(ctx, m)
	})
}

// published lists the files that nodes read.
func published(root *os.Root) (files []string, err error) {
	for _, top := range []string{"metadata", "targets"} {
		err := fs.WalkDir(root.FS(), top, func(name string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case strings.HasPrefix(d.Name(), "."): // of a write that was cut
				if d.IsDir() {
					return fs.SkipDir
				}
			case d.Type().IsRegular():
				files = append(files, name)
			}
			return nil
		})
		if err != nil && (top == "metadata" || !os.IsNotExist(err)) {
			return nil, err
		}
	}
	return files, nil
}
