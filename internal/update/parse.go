package update

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/pattern"
	"oscine.dev/oscine/internal/release"
)

// Bounds of a manifest.
const (
	MaxManifest = 1 << 20 // bytes
	MaxIndex    = 4 << 20 // bytes of a transfer's index
	maxContent  = 1 << 40 // bytes of one file
	maxDeltas   = 64      // for one file
	maxPins     = 256     // packs, and models
	maxPath     = 256     // bytes
)

// Digest is a SHA-256, in hex where it is written.
type Digest [sha256.Size]byte

// String is the digest in hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements [encoding.TextMarshaler].
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(d)) {
		return fmt.Errorf("%.80q is not a SHA-256 in hex", text)
	}
	if _, err := hex.Decode(d[:], text); err != nil {
		return fmt.Errorf("%.80q is not a SHA-256 in hex", text)
	}
	return nil
}

// ParseManifest reads and checks a manifest; the error names every fault.
func ParseManifest(text []byte) (*Manifest, error) {
	if len(text) > MaxManifest {
		return nil, fmt.Errorf("%w: it is larger than %d bytes", ErrManifest, MaxManifest)
	}
	m := new(Manifest)
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if err := m.Check(); err != nil {
		return nil, err
	}
	return m, nil
}

// Check finds what is wrong with a manifest. Its error wraps [ErrManifest].
func (m *Manifest) Check() error {
	if m.Format != ManifestFormat {
		return fmt.Errorf("%w: it has format %d and this version reads %d: install a release between the two first", ErrManifest, m.Format, ManifestFormat)
	}
	var faults []error
	fault := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	optional := func(v string) bool { return v == "" || release.ValidVersion(v) }
	fault(release.ValidVersion(m.Version), "version %.80q: use letters, digits, points and hyphens", m.Version)
	fault(m.Arch == "amd64" || m.Arch == "arm64", "arch %.80q: it is amd64 or arm64", m.Arch)
	fault(slices.Contains([]string{"cloud", "metal", "rt"}, m.Flavour), "flavour %.80q: it is cloud, metal or rt", m.Flavour)
	fault(m.Kernel != "" && len(m.Kernel) <= 64, "kernel %.80q: it is a version of at most 64 bytes", m.Kernel)
	fault(!m.Built.IsZero(), "built: it is missing")
	fault(optional(m.MinVersion) && release.CompareVersions(m.MinVersion, m.Version) <= 0, "minVersion %.80q: it is no version up to the release's own", m.MinVersion)
	fault(optional(m.Floor) && release.CompareVersions(m.Floor, m.Version) <= 0, "floor %.80q: it is no version up to the release's own", m.Floor)
	fault(hashRule.MatchString(m.RootHash), "rootHash %.80q: it is a SHA-256 in hex", m.RootHash)
	fault(m.PCR11 == "" || hashRule.MatchString(m.PCR11), "pcr11 %.80q: it is a SHA-256 in hex", m.PCR11)
	faults = append(faults, m.Image.faults("image")...)
	faults = append(faults, m.Root.faults("root")...)
	fault(m.Root.Size%release.BlockSize == 0, "root: %d bytes are not whole blocks", m.Root.Size)
	faults = append(faults, faultsOfPins("packs", m.Packs)...)
	faults = append(faults, faultsOfPins("models", m.Models)...)
	if len(faults) > 0 {
		return fmt.Errorf("%w: %w", ErrManifest, errors.Join(faults...))
	}
	return nil
}

var hashRule = pattern.New(`^[0-9a-f]{64}$`)

func (c *Content) faults(name string) (faults []error) {
	fault := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(name+format, args...))
		}
	}
	fault(c.Size > 0 && c.Size <= maxContent, ".size %d: out of range", c.Size)
	fault(len(c.Deltas) <= maxDeltas, ".deltas: more than %d", maxDeltas)
	fault(c.Full.Base == "", ".full.base: a full transfer has none")
	for _, t := range append([]Transfer{c.Full}, c.Deltas[:min(len(c.Deltas), maxDeltas)]...) {
		fault(validPath(t.Path), ".path %.80q: not a path below the release folder", t.Path)
		fault(t.Size > 0 && t.Size <= maxContent && t.IndexSize > 0 && t.IndexSize <= min(t.Size, MaxIndex), " %.80q: size %d or indexSize %d out of range", t.Path, t.Size, t.IndexSize)
	}
	for _, t := range c.Deltas[:min(len(c.Deltas), maxDeltas)] {
		fault(hashRule.MatchString(t.Base), ".deltas base %.80q: it is a hash in hex", t.Base)
	}
	return faults
}

func faultsOfPins(name string, pins []Pin) (faults []error) {
	if len(pins) > maxPins {
		return []error{fmt.Errorf("%s: more than %d", name, maxPins)}
	}
	names := map[string]bool{}
	for _, p := range pins {
		if names[p.Name] {
			faults = append(faults, fmt.Errorf("%s: name %.80q: it is there twice", name, p.Name))
		}
		names[p.Name] = true
		if _, err := release.ParseVerity(p.Verity); p.Verity != "" && err != nil {
			faults = append(faults, fmt.Errorf("%s: verity of %.80q: %w", name, p.Name, err))
		}
		if p.Name == "" || len(p.Name) > maxPath || !validPath(p.Path) || p.Size <= 0 || p.Size > maxContent {
			faults = append(faults, fmt.Errorf("%s: name %.80q, path %.80q or size %d out of range", name, p.Name, p.Path, p.Size))
		}
	}
	return faults
}

// validPath allows relative paths of plain names alone: they become file names,
// parts of URLs and tags of registries.
func validPath(p string) bool {
	return p != "" && len(p) <= maxPath && path.Clean(p) == p && p[0] != '/' && pathRule.MatchString(p) &&
		!slices.ContainsFunc(strings.Split(p, "/"), func(name string) bool { return name[0] == '.' })
}

var pathRule = pattern.New(`^[0-9A-Za-z._~^/-]+$`)
