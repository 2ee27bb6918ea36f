package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	erofs "github.com/erofs/go-erofs"

	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/image/layout"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/uki"
)

// Source is a version of Oscine that can be put on disks.
type Source struct {
	Version, Arch, Kernel string

	image    []byte // the signed unified kernel image
	verity   release.Verity
	root     io.ReaderAt
	rootSize int64         // without the hash tree
	tree     []byte        // the hash tree
	esp      []layout.File // boot loader and configuration
	data     []byte        // an empty data partition, compressed
}

const (
	maxESPFile  = 8 << 20
	maxESPFiles = 64
	maxData     = 8 << 20 // compressed
)

// ErrSource is returned for what cannot be installed.
var ErrSource = errors.New("this version of Oscine cannot be installed")

// Open takes a version from its unified kernel image and the root that it names,
// which root begins with, and checks every block of that.
func Open(image []byte, root io.ReaderAt) (*Source, error) {
	s, err := openSource(image, root)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSource, err)
	}
	return s, nil
}

func openSource(image []byte, root io.ReaderAt) (*Source, error) {
	u, err := uki.Read(image)
	if err != nil {
		return nil, err
	}
	s := &Source{Version: u.Version(), Kernel: u.Uname, Arch: uki.Arch(image), image: image, root: root}
	if s.Arch == "" || !release.ValidVersion(s.Version) {
		return nil, fmt.Errorf("its kernel image is of version %.80q for an architecture that Oscine does not run on", s.Version)
	}
	if s.verity, err = u.Verity(); err != nil {
		return nil, err
	}
	s.rootSize = int64(s.verity.Blocks) * release.BlockSize
	tree, v, err := release.HashTree(io.NewSectionReader(root, 0, s.rootSize), s.verity.Salt)
	if err != nil {
		return nil, err
	}
	if v.RootHash != s.verity.RootHash || v.Blocks != s.verity.Blocks {
		return nil, errors.New("its root is damaged, or not the one that the kernel image names")
	}
	s.tree = tree
	files, err := erofs.Open(io.NewSectionReader(root, 0, s.size())) // see package image: not without the tree
	if err != nil {
		return nil, fmt.Errorf("its root: %w", err)
	}
	if err := s.readESP(files); err != nil {
		return nil, err
	}
	s.data, err = s.read(files, strings.TrimPrefix(release.EmptyData, "/"), maxData)
	return s, err
}

// readESP reads what the ESP is to hold beside the kernel image.
func (s *Source) readESP(files fs.FS) error {
	top, loader := strings.TrimPrefix(release.ESPOnRoot, "/"), []byte(nil)
	err := fs.WalkDir(files, top, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if len(s.esp) == maxESPFiles {
			return fmt.Errorf("/%s holds more than %d files", top, maxESPFiles)
		}
		f := layout.File{Path: strings.TrimPrefix(name, top)}
		if f.Data, err = s.read(files, name, maxESPFile); err != nil {
			return err
		}
		if f.Path == layout.LoaderPath(s.Arch) {
			loader = f.Data
		}
		s.esp = append(s.esp, f)
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) || err == nil && loader == nil {
		return s.tooOld(strings.TrimPrefix(release.ESPOnRoot+layout.LoaderPath(s.Arch), "/"))
	}
	if arch := uki.Arch(loader); err == nil && arch != s.Arch {
		return fmt.Errorf("its boot loader is for %q, its kernel image for %s", arch, s.Arch)
	}
	return err
}

func (s *Source) tooOld(name string) error {
	return fmt.Errorf("%s is from before oscine install: its root lacks /%s; build an image of this version, or upgrade first", s.Version, name)
}

func (s *Source) read(files fs.FS, name string, limit int64) ([]byte, error) {
	f, err := files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, s.tooOld(name)
	}
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", name, err)
	}
	defer f.Close()
	content, err := bounded.ReadAll(f, limit)
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", name, err)
	}
	return content, nil
}

// size is that of the root with its hash tree, in bytes.
func (s *Source) size() int64 { return s.rootSize + int64(len(s.tree)) }

// reader reads root and hash tree.
func (s *Source) reader() io.Reader {
	return io.MultiReader(io.NewSectionReader(s.root, 0, s.rootSize), bytes.NewReader(s.tree))
}

// bootFiles are the files of the ESP, the boot loader, without which firmware starts
// nothing, apart. machine is a Machine manifest for the first
// boot to take; nil for none.
func (s *Source) bootFiles(machine []byte) (files []layout.File, loader layout.File) {
	name := release.NewEntry("oscine", s.Version).File()
	for _, f := range s.esp {
		if f.Path == layout.LoaderPath(s.Arch) {
			loader = f
		} else {
			files = append(files, f)
		}
	}
	files = append(files, layout.File{Path: "/" + path.Join(release.ImageFolder, name), Data: s.image})
	if machine != nil {
		files = append(files, layout.File{Path: "/" + release.ESPMachine, Data: machine})
	}
	return files, loader
}
