package repository

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"oscine.dev/oscine/internal/image"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/uki"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/delta"
)

// Parts are what a release is made from, as files or taken from a disk image.
type Parts struct {
	Version, Arch, Flavour, Kernel string

	verity   release.Verity
	image    []byte // the signed unified kernel image
	root     io.ReaderAt
	rootSize int64 // with the hash tree
	close    func() error
}

// OpenImage takes the kernel image and the root out of a disk image, as oscine
// image build makes it. Close it when done.
func OpenImage(name string) (*Parts, error) {
	m, err := image.Open(name)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	file, kernel, err := m.KernelImage()
	if err != nil {
		return nil, err
	}
	u, err := uki.Read(kernel)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", name, file, err)
	}
	v, err := u.Verity()
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", name, file, err)
	}
	_, slot, err := m.Root(v) // checks every block
	if err != nil {
		return nil, err
	}
	where, _ := m.Partition(slot)
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	p, err := NewParts(kernel, io.NewSectionReader(f, where.Start, where.Size))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	p.close = f.Close
	return p, nil
}

// NewParts takes a signed unified kernel image and the root that it names: erofs
// and hash tree, and perhaps more behind them.
func NewParts(kernel []byte, root io.ReaderAt) (*Parts, error) {
	p := &Parts{image: kernel, root: root}
	if err := p.describe(); err != nil {
		return nil, err
	}
	p.rootSize = int64(p.verity.Blocks) * release.BlockSize
	tree, v, err := release.HashTree(io.NewSectionReader(root, 0, p.rootSize), p.verity.Salt)
	if err != nil {
		return nil, err
	}
	if v.RootHash != p.verity.RootHash || v.Blocks != p.verity.Blocks {
		return nil, errors.New("the root is not the one that the kernel image names")
	}
	p.rootSize += int64(len(tree))
	return p, nil
}

// Close closes the file that the parts are in.
func (p *Parts) Close() error {
	if p.close == nil {
		return nil
	}
	return p.close()
}

// describe reads what a kernel image says of its release.
func (p *Parts) describe() error {
	u, err := uki.Read(p.image)
	if err != nil {
		return err
	}
	if p.verity, err = u.Verity(); err != nil {
		return err
	}
	p.Kernel = u.Uname
	p.Flavour, p.Arch = flavourOf(u.Uname)
	if p.Flavour == "" {
		return fmt.Errorf("the kernel %q is of no flavour and architecture that Oscine has", u.Uname)
	}
	p.Version = u.Version()
	if !release.ValidVersion(p.Version) {
		return fmt.Errorf("the kernel image says it is of version %.80q", p.Version)
	}
	return nil
}

// flavourOf takes the name of a Debian kernel apart, such as
// 7.2.12+deb13-cloud-amd64.
func flavourOf(kernel string) (flavour, arch string) {
	for _, arch := range []string{"amd64", "arm64"} {
		if base, ok := strings.CutSuffix(kernel, "-"+arch); ok {
			for _, flavour := range []string{image.FlavourCloud, image.FlavourRT} {
				if strings.HasSuffix(base, "-"+flavour) {
					return flavour, arch
				}
			}
			return image.FlavourMetal, arch
		}
	}
	return "", ""
}

// contents describes image and root for making transfers.
func (p *Parts) contents() (img, root *delta.Content, err error) {
	if img, err = delta.Image(p.image); err != nil {
		return nil, nil, err
	}
	root, err = delta.Root(p.root, p.rootSize, p.verity)
	return img, root, err
}

// digestOf hashes content of a size.
func digestOf(r io.ReaderAt, size int64) (update.Digest, error) {
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(r, 0, size)); err != nil {
		return update.Digest{}, err
	}
	return update.Digest(sum.Sum(nil)), nil
}
