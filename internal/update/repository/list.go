package repository

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

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

// Role tells who signs a role of a release folder.
type Role struct {
	Name      string    `json:"name"`
	Version   int64     `json:"version"`
	Expires   time.Time `json:"expires"`
	Threshold int       `json:"threshold"` // how many keys must sign
	Keys      []string  `json:"keys"`      // identifiers
}

// Roles lists the roles, root first; what is staged counts.
func (r *Repository) Roles() ([]Role, error) {
	s, err := r.load()
	if err != nil {
		return nil, err
	}
	top := func(name string, version int64, expires time.Time) Role {
		return Role{name, version, expires, s.root.Signed.Roles[name].Threshold, s.root.Signed.Roles[name].KeyIDs}
	}
	all := []Role{top(metadata.ROOT, s.root.Signed.Version, s.root.Signed.Expires)}
	targets := s.targets[metadata.TARGETS]
	if targets != nil {
		all = append(all, top(metadata.TARGETS, targets.Signed.Version, targets.Signed.Expires))
		if targets.Signed.Delegations != nil {
			for _, d := range targets.Signed.Delegations.Roles {
				role := Role{Name: d.Name, Threshold: d.Threshold, Keys: d.KeyIDs}
				if m := s.targets[d.Name]; m != nil {
					role.Version, role.Expires = m.Signed.Version, m.Signed.Expires
				}
				all = append(all, role)
			}
		}
	}
	if s.snapshot != nil {
		all = append(all, top(metadata.SNAPSHOT, s.snapshot.Signed.Version, s.snapshot.Signed.Expires))
	}
	if s.timestamp != nil {
		all = append(all, top(metadata.TIMESTAMP, s.timestamp.Signed.Version, s.timestamp.Signed.Expires))
	}
	return all, nil
}
