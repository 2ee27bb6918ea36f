package artifact

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/pattern"
)

// createTar writes an artifact into a layout beside the tar file, and that into the
// file. What the file holds already stays.
func createTar(ctx context.Context, r Reference, a Access, fill func(*Store) (ocispec.Descriptor, error)) (digest string, err error) {
	folder, err := os.MkdirTemp(filepath.Dir(r.layout), ".oci-")
	if err != nil {
		return "", fmt.Errorf("write %s: %w", r.layout, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	if err := unpackTar(ctx, r.layout, folder); err != nil {
		return "", err
	}
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

// inLayout matches the files of an OCI layout.
var inLayout = pattern.New(`^(oci-layout|index\.json|blobs/[a-z0-9+._-]+/[a-zA-Z0-9]+)$`)

// unpackTar unpacks the layout of a tar file, which need not be there.
func unpackTar(ctx context.Context, file, folder string) error {
	in, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the OCI layout: %w", err)
	}
	defer in.Close()
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		switch name := ""; {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("%w: %s is there, and is no OCI layout: choose another file: %v", ErrManifest, file, err)
		case ctx.Err() != nil:
			return ctx.Err()
		case h.Typeflag == tar.TypeDir:
		default:
			if name = path.Clean(h.Name); h.Typeflag != tar.TypeReg || !inLayout.MatchString(name) {
				return fmt.Errorf("%w: %s is there, and holds %.100q, which is not of an OCI layout: choose another file", ErrManifest, file, h.Name)
			}
			if err := unpackFile(r, filepath.Join(folder, filepath.FromSlash(name))); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
	}
}

func unpackFile(r io.Reader, name string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, r)
	return errors.Join(err, out.Close())
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
