package container

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive/compression"
)

// maxArchiveEntries bounds the files of an image archive: a handful per image
// and one per layer.
const maxArchiveEntries = 20_000

// checkArchive passes an image archive on, unpacked, as far as it keeps to the
// bounds: every file of it becomes a blob on disk before anyone looks inside.
// The caller calls stop when it reads no more.
func checkArchive(r io.Reader, bound int64) (_ io.Reader, stop func()) {
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		pw.CloseWithError(copyArchive(pw, r, bound))
	}()
	return pr, func() {
		pr.CloseWithError(errors.New("stopped"))
		<-done
	}
}

func copyArchive(w io.Writer, r io.Reader, bound int64) error {
	plain, err := compression.DecompressStream(r)
	if err != nil {
		return fmt.Errorf("not an image archive: %w", err)
	}
	defer plain.Close()
	in, out := tar.NewReader(plain), tar.NewWriter(w)
	left := bound
	for entries := 0; ; entries++ {
		header, err := in.Next()
		if err == io.EOF && entries == 0 {
			return errors.New("not an image archive: it is empty")
		} else if err == io.EOF {
			return out.Close()
		} else if err != nil {
			return fmt.Errorf("not an image archive, or cut short: %w", err)
		}
		if entries == maxArchiveEntries {
			return fmt.Errorf("more than %d files: %w", maxArchiveEntries, ErrTooLarge)
		}
		if left -= header.Size; left < 0 {
			return fmt.Errorf("more than this node's bound of %d bytes: %w", bound, ErrTooLarge)
		}
		if err := checkEntry(header); err != nil {
			return err
		}
		// Only what an importer looks at: no sparse maps, no extended attributes.
		plain := &tar.Header{Typeflag: header.Typeflag, Name: header.Name, Linkname: header.Linkname, Size: header.Size, Mode: 0o600}
		if err := out.WriteHeader(plain); err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return fmt.Errorf("cut short within %s: %w", header.Name, err)
		}
	}
}

func checkEntry(header *tar.Header) error {
	name := path.Clean(header.Name)
	if path.IsAbs(name) || name == ".." || strings.HasPrefix(name, "../") || len(name) > 512 {
		return fmt.Errorf("not an image archive: it has a file %.80q", header.Name)
	}
	manifest := name == "index.json" || name == "manifest.json" || name == "oci-layout"
	if manifest && header.Size > maxManifest {
		return fmt.Errorf("%s has %d bytes: %w", header.Name, header.Size, ErrTooLarge)
	}
	switch header.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink:
		return nil
	}
	return fmt.Errorf("not an image archive: %s is neither a file, a folder nor a link", header.Name)
}
