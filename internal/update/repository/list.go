package repository

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update"
)

// List returns the manifests of all releases, newest first; those of a staged
// publication are among them. It checks no signature: that is what clients do.
func (r *Repository) List() ([]*update.Manifest, error) {
	s, err := r.load()
	if err != nil {
		return nil, err
	}
	return r.manifests(s)
}

func (r *Repository) manifests(s *state) (all []*update.Manifest, err error) {
	for _, m := range s.targets {
		for name, info := range m.Signed.Targets {
			if path.Base(name) != update.ManifestName {
				continue
			}
			text, err := os.ReadFile(r.target(prefixed(name, info.Hashes["sha256"])))
			if err == nil {
				err = info.VerifyLengthHashes(text)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			manifest, err := update.ParseManifest(text)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			all = append(all, manifest)
		}
	}
	slices.SortFunc(all, func(a, b *update.Manifest) int {
		return cmp.Or(-release.CompareVersions(a.Version, b.Version), cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Flavour, b.Flavour))
	})
	return all, nil
}

// earlier lists the releases for the machine of the new one, newest first.
func (c *creation) earlier() ([]*update.Manifest, error) {
	all, err := c.manifests(c.state)
	return slices.DeleteFunc(all, func(m *update.Manifest) bool { return m.Arch != c.Parts.Arch || m.Flavour != c.Parts.Flavour }), err
}

// RootMetadata returns the newest published root metadata, which nodes trust:
// the signed bytes.
func (r *Repository) RootMetadata() ([]byte, error) {
	version, err := r.newestRoot()
	if err != nil || version == 0 {
		return nil, errors.Join(err, fmt.Errorf("%s: no root was published", r.dir))
	}
	return os.ReadFile(r.metadata(fmt.Sprintf("%d.root.json", version)))
}
