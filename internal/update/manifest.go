package update

import (
	"cmp"
	"io"
	"slices"
	"time"

	"oscine.dev/oscine/internal/release"
)

// Manifest describes one release of Oscine for one architecture and kernel
// flavour. It is a target of the release folder's TUF metadata, and everything
// that it names is pinned by size and SHA-256.
type Manifest struct {
	Format  int       `json:"format"`  // [ManifestFormat]
	Version string    `json:"version"` // see [release.ValidVersion]
	Arch    string    `json:"arch"`    // amd64 or arm64
	Flavour string    `json:"flavour"` // of the kernel: cloud, metal or rt
	Kernel  string    `json:"kernel"`  // version of the kernel, as uname -r prints it
	Built   time.Time `json:"built"`   // when the release was made: no sound clock is earlier

	// MinVersion is the oldest version that may be upgraded to this one at once;
	// empty for any.
	MinVersion string `json:"minVersion,omitempty"`
	// Floor is the oldest version that a node accepts once this one was found
	// good: releases before it have a known hole. Empty keeps the node's floor.
	Floor string `json:"floor,omitempty"`

	// PCR11 is what register 11 of a TPM holds once the kernel image has started, in
	// its SHA-256 bank, in hex; empty in manifests made before it was measured.
	PCR11    string  `json:"pcr11,omitempty"`
	RootHash string  `json:"rootHash"` // of the root's verity tree, in hex, as the image's command line names it
	Image    Content `json:"image"`    // the signed unified kernel image
	Root     Content `json:"root"`     // the bytes of the root partition: erofs and verity tree

	Packs  []Pin `json:"packs,omitempty"`  // installed with the release, new beside old
	Models []Pin `json:"models,omitempty"` // stored with the release; a Model names one as release:NAME
}

// ManifestFormat is the format of manifests that this version reads and
// writes. Fields may be added within a format.
const ManifestFormat = 1

// ManifestName is the last part of the TUF target that holds a manifest; before
// it come the version, and architecture and flavour with a hyphen between them.
const ManifestName = "manifest.json"

// Content is what one file of a release is in the end, and the ways to get it.
type Content struct {
	Size   int64      `json:"size"`   // bytes
	SHA256 Digest     `json:"sha256"` // of the bytes
	Full   Transfer   `json:"full"`   // needs nothing else
	Deltas []Transfer `json:"deltas,omitempty"`
}

// Transfer is a file that a [Content] is made from: see package delta for its
// format.
type Transfer struct {
	// Base says which old content a delta needs: the root hash of a root, in hex,
	// or the SHA-256 of any other file. Empty for a full transfer.
	Base   string `json:"base,omitempty"`
	Path   string `json:"path"`   // target of the TUF metadata
	Size   int64  `json:"size"`   // bytes to fetch in total
	SHA256 Digest `json:"sha256"` // of the whole transfer file
	// The index is the head of the transfer file: it says what each further part
	// makes, and what each part's SHA-256 is, so that nothing is decoded unchecked.
	IndexSize   int64  `json:"indexSize"` // bytes
	IndexSHA256 Digest `json:"indexSHA256"`
}

// Pin is a file that belongs to a release: a pack or a model.
type Pin struct {
	Name   string `json:"name"`
	Path   string `json:"path"` // target of the TUF metadata
	Size   int64  `json:"size"` // bytes
	SHA256 Digest `json:"sha256"`
	// Verity names the hash tree of a pack, as [release.Verity] writes it: ROOTHASH,SALT,BLOCKS.
	// Empty for a file without one, and in manifests made before it was named.
	Verity string `json:"verity,omitempty"`
}

// Base is old content on this node, which deltas are decoded against. It may
// change while it is read: what comes out is checked.
type Base struct {
	ID   string // as in [Transfer.Base]
	Size int64  // bytes
	Data io.ReaderAt
}

// Usable are the transfers that a node with that base can use, the smallest first; base
// may be nil.
func (c *Content) Usable(base *Base) []Transfer {
	usable := []Transfer{c.Full}
	for _, d := range c.Deltas {
		if base != nil && d.Base == base.ID && d.Size < c.Full.Size {
			usable = append(usable, d)
		}
	}
	slices.SortStableFunc(usable, func(a, b Transfer) int { return cmp.Compare(a.Size, b.Size) })
	return usable
}

// Best is the smallest of Usable.
func (c *Content) Best(base *Base) Transfer { return c.Usable(base)[0] }

// Newer reports whether the release is newer than a version.
func (m *Manifest) Newer(version string) bool {
	return release.CompareVersions(m.Version, version) > 0
}
