package pack

import (
	"fmt"
	"io"
	"os"
	"path"

	"github.com/opencontainers/go-digest"

	"oscine.dev/oscine/internal/bounded"
)

// Read reads the manifest of a mounted pack.
func Read(dir string) (*Manifest, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.Open(ManifestPath)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotPack, err)
	}
	defer f.Close()
	text, err := bounded.ReadAll(f, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNotPack, ManifestPath, err)
	}
	m, err := ParseManifest(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotPack, err)
	}
	programs := map[string]string{}
	if len(m.Entrypoint) > 0 {
		programs["entrypoint"] = m.Entrypoint[0]
	}
	for _, d := range m.Drivers {
		programs["driver "+d] = "/" + path.Join(DriversPath, d)
	}
	if k := m.Kernel; k != nil {
		for _, kernel := range k.Kernels {
			for _, name := range k.Modules {
				file := path.Join(ModulesPath, kernel, name+".ko")
				if info, err := root.Stat(file); err != nil || !info.Mode().IsRegular() {
					return nil, fmt.Errorf("%w: it lacks its kernel module %s", ErrNotPack, file)
				}
			}
		}
	}
	for what, file := range programs {
		if info, err := root.Stat(file[1:]); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			return nil, fmt.Errorf("%w: its %s %s is no program in it", ErrNotPack, what, file)
		}
	}
	return m, nil
}

// fileDigest returns the digest of a file, sha256:….
func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return sumOf(f)
}

// sumOf is fileDigest of what is left to read.
func sumOf(r io.Reader) (string, error) {
	d, err := digest.SHA256.FromReader(r)
	return d.String(), err
}
