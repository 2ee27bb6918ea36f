package image

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"

	erofs "github.com/erofs/go-erofs"

	"oscine.dev/oscine/internal/image/layout"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/uki"
)

// ErrNotImage is wrapped by [Open] when a file is no Oscine disk image.
var ErrNotImage = errors.New("not an Oscine disk image")

// Image is an opened disk image.
type Image struct {
	Path string
	Size int64 // bytes

	file  *os.File
	parts map[string]layout.Partition
	esp   *layout.FAT
}

// Open reads the partition table and the ESP of a raw disk image. It changes
// nothing. Call Close when done.
func Open(name string) (*Image, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open the image: %w", err)
	}
	m, err := open(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", name, err), f.Close())
	}
	return m, nil
}

func open(f *os.File) (*Image, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: it is not a regular file", ErrNotImage)
	}
	m := &Image{Path: f.Name(), Size: info.Size(), file: f}
	if m.parts, err = layout.ReadTable(f, m.Size); err != nil {
		return nil, fmt.Errorf("%w: %w; build one with oscine image build", ErrNotImage, err)
	}
	for _, name := range release.Partitions() {
		if _, ok := m.parts[name]; !ok {
			return nil, fmt.Errorf("%w: it has no partition %q", ErrNotImage, name)
		}
	}
	esp := m.parts[release.PartitionESP]
	if m.esp, err = layout.OpenFAT(io.NewSectionReader(f, esp.Start, esp.Size), esp.Size); err != nil {
		return nil, fmt.Errorf("%w: its ESP cannot be read: %w", ErrNotImage, err)
	}
	return m, nil
}

// Close closes the image; what was read from it stays valid, except files of
// [Image.Root].
func (m *Image) Close() error { return m.file.Close() }

// Partition returns one partition by its name, such as [release.PartitionRootA].
func (m *Image) Partition(name string) (layout.Partition, bool) {
	p, ok := m.parts[name]
	return p, ok
}

// maxESPFile bounds one file of the ESP in bytes.
const maxESPFile = uki.MaxSize

// ReadESP reads a file of the ESP; name has slashes and begins with one.
func (m *Image) ReadESP(name string) ([]byte, error) {
	data, err := m.esp.ReadFile(name, maxESPFile)
	if err != nil {
		return nil, fmt.Errorf("read %s from the ESP: %w", name, err)
	}
	return data, nil
}

// ukiFolder is where systemd-boot looks for unified kernel images.
const ukiFolder = "/" + release.ImageFolder

// UKIs returns the paths on the ESP of the unified kernel images, in the order
// in which the boot loader tries them: those with tries left first, newer
// versions first (UAPI Group Specification: Boot Loader, Version Format).
func (m *Image) UKIs() (names []string, err error) {
	entries, err := m.esp.ReadDir(ukiFolder)
	if err != nil {
		return nil, fmt.Errorf("list %s of the ESP: %w", ukiFolder, err)
	}
	for _, e := range entries {
		if _, ok := release.ParseEntry(e.Name); ok && !e.Dir {
			names = append(names, path.Join(ukiFolder, e.Name))
		}
	}
	slices.SortFunc(names, bootOrder)
	return names, nil
}

// bootOrder compares the paths of two images by which of them the boot loader
// tries first.
func bootOrder(a, b string) int {
	entryA, _ := release.ParseEntry(path.Base(a)) // UKIs took only what parses
	entryB, _ := release.ParseEntry(path.Base(b))
	if entryA.Bad() != entryB.Bad() {
		return map[bool]int{true: 1, false: -1}[entryA.Bad()]
	}
	return cmp.Or(-release.CompareVersions(entryA.Version(), entryB.Version()), cmp.Compare(a, b))
}

// UKI opens the unified kernel image that the boot loader would start.
func (m *Image) UKI() (*uki.Image, error) {
	name, data, err := m.KernelImage()
	if err != nil {
		return nil, err
	}
	u, err := uki.Read(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", m.Path, name, err)
	}
	return u, nil
}

// KernelImage returns the file that [Image.UKI] reads, and its name on the ESP.
func (m *Image) KernelImage() (name string, data []byte, err error) {
	names, err := m.UKIs()
	if err != nil {
		return "", nil, err
	}
	if len(names) == 0 {
		return "", nil, fmt.Errorf("%s: the ESP holds no unified kernel image in %s", m.Path, ukiFolder)
	}
	data, err = m.ReadESP(names[0])
	return names[0], data, err
}

// Root finds the slot that holds the root of v, checks every block of it
// against the root hash and opens it.
func (m *Image) Root(v release.Verity) (root fs.FS, slot string, err error) {
	var reasons []error
	for _, slot := range release.Slots() {
		p := m.parts[slot]
		if err := checkTree(io.NewSectionReader(m.file, p.Start, p.Size), v); err != nil {
			reasons = append(reasons, fmt.Errorf("%s: %w", slot, err))
			continue
		}
		// With the hash tree: go-erofs reads a little beyond an inode that is the last.
		root, err := erofs.Open(io.NewSectionReader(m.file, p.Start, p.Size))
		if err != nil {
			return nil, "", fmt.Errorf("%s: %s: %w", m.Path, slot, err)
		}
		return root, slot, nil
	}
	return nil, "", fmt.Errorf("%s: no slot holds the root of the unified kernel image: %w", m.Path, errors.Join(reasons...))
}

// errOtherRoot tells that a slot is not the one that is looked for.
var errOtherRoot = errors.New("it holds another root or none")

// checkTree recomputes a slot's hash tree.
func checkTree(slot *io.SectionReader, v release.Verity) error {
	if int64(v.Blocks) > slot.Size()/release.BlockSize {
		return errOtherRoot
	}
	if _, ok, err := v.Match(slot); err != nil || !ok {
		return errOtherRoot
	}
	_, got, err := release.HashTree(io.NewSectionReader(slot, 0, int64(v.Blocks)*release.BlockSize), v.Salt)
	if err != nil {
		return err
	}
	if got.RootHash != v.RootHash {
		return errors.New("its data is damaged: the root hash does not match")
	}
	return nil
}
