package artifact

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"oscine.dev/oscine/internal/durable"
)

// createTar writes an artifact into a layout beside the tar file, and that into the
// file.
func createTar(ctx context.Context, r Reference, a Access, fill func(*Store) (ocispec.Descriptor, error)) (digest string, err error) {
	folder, err := os.MkdirTemp(filepath.Dir(r.layout), ".oci-")
	if err != nil {
		return "", fmt.Errorf("write %s: %w", r.layout, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	inside := r
	inside.layout = folder
	if digest, err = Create(ctx, inside, a, fill); err != nil {
		return "", err
	}
	err = durable.Write(r.layout, 0o644, func(f *os.File) error {
		w := tar.NewWriter(f)
		for _, pattern := range []string{"oci-layout", "index.json", "blobs/*/*"} {
			files, err := filepath.Glob(filepath.Join(folder, pattern))
			if err != nil {
				return err
			}
			for _, file := range files {
				if err := addFile(ctx, w, folder, file); err != nil {
					return err
				}
			}
		}
		return w.Close()
	})
	if err != nil {
		return "", fmt.Errorf("write %s: %w", r.layout, err)
	}
	return digest, nil
}

func addFile(ctx context.Context, w *tar.Writer, folder, file string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name, err := filepath.Rel(folder, file)
	if err != nil {
		return err
	}
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: filepath.ToSlash(name), Size: info.Size(), Mode: 0o444}); err != nil {
		return err
	}
	_, err = io.Copy(w, in)
	return err
}
