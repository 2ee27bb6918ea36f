package debian

import (
	"bytes"
	_ "embed" // of lock.json
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"oscine.dev/oscine/internal/pattern"
)

// Package is one binary package at one version, as a Debian index lists it
// (Debian Policy, chapter 5).
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch"`  // amd64, arm64 or all
	Suite   string `json:"suite"` // the suite that listed it, such as trixie-backports
	Path    string `json:"path"`  // below the mirror: pool/main/…
	Size    int64  `json:"size"`  // bytes
	SHA256  string `json:"sha256"`
}

// Set is a named group of packages for one architecture that are unpacked
// together.
type Set struct {
	Name     string    `json:"name"`
	Arch     string    `json:"arch"`
	Packages []Package `json:"packages"`
}

// Lock is every set that this release uses.
type Lock struct {
	Sets []Set `json:"sets"`
}

//go:embed lock.json
var embedded []byte

// Embedded returns the lock of this release.
func Embedded() (*Lock, error) { return ParseLock(embedded) }

// maxPackage bounds the size of one package in bytes.
const maxPackage = 4 << 30

var (
	nameRule   = pattern.New(`^[a-z0-9][a-z0-9+.-]{1,127}$`)
	digestRule = pattern.New(`^[0-9a-f]{64}$`)
	suiteRule  = pattern.New(`^[a-z][a-z0-9-]{1,63}$`)
)

// ParseLock reads a lock file and checks every entry, so that no name or path
// in it can leave the cache or the mirror.
func ParseLock(data []byte) (*Lock, error) {
	var lock Lock
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&lock); err != nil {
		return nil, fmt.Errorf("read the package lock: %w", err)
	}
	for _, set := range lock.Sets {
		if !nameRule.MatchString(set.Name) || !nameRule.MatchString(set.Arch) {
			return nil, fmt.Errorf("read the package lock: set %q of %q: not a name", set.Name, set.Arch)
		}
		for _, p := range set.Packages {
			if err := p.check(); err != nil {
				return nil, fmt.Errorf("read the package lock: set %s of %s: %w", set.Name, set.Arch, err)
			}
		}
	}
	return &lock, nil
}

func (p Package) check() error {
	clean := path.Clean(p.Path) == p.Path && strings.HasPrefix(p.Path, "pool/") && strings.HasSuffix(p.Path, ".deb")
	switch {
	case !nameRule.MatchString(p.Name):
		return fmt.Errorf("package %q: not a package name", p.Name)
	case !suiteRule.MatchString(p.Suite):
		return fmt.Errorf("package %s: %q is not a suite", p.Name, p.Suite)
	case !clean || strings.ContainsAny(p.Path, " \t\n\\'\"?#"):
		return fmt.Errorf("package %s: %q is not a path in a mirror's pool", p.Name, p.Path)
	case !digestRule.MatchString(p.SHA256):
		return fmt.Errorf("package %s: %q is not a SHA-256", p.Name, p.SHA256)
	case p.Size <= 0 || p.Size > maxPackage:
		return fmt.Errorf("package %s: size %d is out of range", p.Name, p.Size)
	}
	return nil
}

// Set returns the set of that name and architecture.
func (l *Lock) Set(name, arch string) (Set, error) {
	for _, set := range l.Sets {
		if set.Name == name && set.Arch == arch {
			return set, nil
		}
	}
	return Set{}, fmt.Errorf("no packages %q are pinned for the architecture %q", name, arch)
}
