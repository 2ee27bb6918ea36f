package pytorch

import (
	"archive/zip"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// kind is what an archive holds.
type kind int

const (
	script   kind = iota + 1 // TorchScript: code and constants
	compiled                 // a package of AOTInductor: a library for each model
)

// Bounds of an archive. PyTorch compresses code alone, and no tensors.
const (
	maxEntries      = 100_000
	maxUnpacked     = 64 << 20 // bytes of one compressed file
	maxUnpackedAll  = 256 << 20
	maxArchiveField = 64 // bytes of the file that names the archive's format
)

var errArchive = errors.New("not a model that PyTorch can load: it is no archive of PyTorch")

// archive is what the engine knows of a model before the library reads it.
type archive struct {
	kind   kind
	models []string // of a package, by their names
}

// inspect tells what an archive holds, and refuses all that PyTorch would not run,
// would read objects of Python from, or would unpack without bounds. The library
// unpacks packages by the names in them.
func inspect(file string) (*archive, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(f, head); err != nil {
		return nil, errArchive
	}
	switch {
	case head[0] == 0x80 && head[1] >= 2 && head[1] <= 5:
		return nil, errors.New("the file is a Python pickle, which can run any program when it is read: export the model with torch.jit.save, AOTInductor or ExecuTorch")
	case !bytes.Equal(head, []byte("PK\x03\x04")):
		return nil, errArchive
	}
	z, err := zip.NewReader(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errArchive, err)
	}
	names, err := bounded(z, info.Size())
	if err != nil {
		return nil, err
	}
	return contents(names)
}

// bounded lists the files of an archive by their names without the folder that all
// lie in.
func bounded(z *zip.Reader, size int64) (map[string]*zip.File, error) {
	if len(z.File) > maxEntries {
		return nil, fmt.Errorf("the archive has %d files, at most %d are accepted", len(z.File), maxEntries)
	}
	if len(z.File) == 0 {
		return nil, errArchive
	}
	top, _, _ := strings.Cut(z.File[0].Name, "/")
	names := map[string]*zip.File{}
	var stored, unpacked uint64
	for _, f := range z.File {
		folder, name, inside := strings.Cut(f.Name, "/")
		switch {
		case !filepath.IsLocal(f.Name) || strings.Contains(f.Name, `\`) || path.Clean(f.Name) != strings.TrimSuffix(f.Name, "/"):
			return nil, fmt.Errorf("the archive has a file of the name %q, which leads elsewhere", f.Name)
		case !inside || folder != top:
			return nil, fmt.Errorf("%w: not all its files are in one folder", errArchive)
		case names[name] != nil:
			return nil, fmt.Errorf("the archive has two files of the name %q", f.Name)
		}
		names[name] = f
		switch f.Method {
		case zip.Store:
			if f.UncompressedSize64 != f.CompressedSize64 {
				return nil, fmt.Errorf("the archive's file %q has two sizes", f.Name)
			}
		case zip.Deflate:
			if unpacked += f.UncompressedSize64; f.UncompressedSize64 > maxUnpacked || unpacked > maxUnpackedAll {
				return nil, fmt.Errorf("the archive unpacks to too much: at most %d MiB a file and %d MiB in all may be compressed", maxUnpacked>>20, maxUnpackedAll>>20)
			}
		default:
			return nil, fmt.Errorf("the archive's file %q is compressed by a method that PyTorch does not use", f.Name)
		}
		// Files may not overlap: of a small archive they would make a large one.
		if stored += f.CompressedSize64; f.CompressedSize64 > uint64(size) || stored > uint64(size) {
			return nil, errors.New("the archive's files are larger than the archive")
		}
	}
	return names, nil
}

func contents(names map[string]*zip.File) (*archive, error) {
	if f := names["archive_format"]; f != nil {
		text, err := read(f, maxArchiveField)
		if err != nil || string(text) != "pt2" {
			return nil, fmt.Errorf("%w: its format is %q", errArchive, text)
		}
		models, err := compiledModels(names)
		return &archive{compiled, models}, err
	}
	code := false
	for name := range names {
		code = code || strings.HasPrefix(name, "code/")
	}
	switch {
	case code && names["constants.pkl"] != nil && names["data.pkl"] != nil:
		return &archive{kind: script}, nil
	case names["data.pkl"] != nil:
		return nil, errors.New("the file was written by torch.save: it holds objects of Python, which can run any program when they are read, and no model that runs without its source: export the model with torch.jit.save, AOTInductor or ExecuTorch")
	}
	return nil, errArchive
}

// compiledModels lists the models of a package. One without a compiled model, or with
// one for other processors, is refused.
func compiledModels(names map[string]*zip.File) ([]string, error) {
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	var models []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		rest, inside := strings.CutPrefix(name, "data/aotinductor/")
		if !inside || path.Ext(name) != ".so" {
			continue
		}
		const header = 20 // up to e_machine
		text, err := read(names[name], header)
		if err != nil || len(text) < header || !bytes.HasPrefix(text, []byte(elf.ELFMAG)) {
			return nil, fmt.Errorf("%s of the package is no library", name)
		}
		if m := elf.Machine(text[18]) | elf.Machine(text[19])<<8; m != machines[runtime.GOARCH] {
			return nil, fmt.Errorf("the package is compiled for %s, this node is %s: compile it on a machine like the node", strings.TrimPrefix(m.String(), "EM_"), runtime.GOARCH)
		}
		model, _, _ := strings.Cut(rest, "/")
		models = append(models, model)
	}
	if len(models) == 0 {
		return nil, errors.New("the package holds a graph of torch.export, which only Python can run: compile it with torch._inductor.aoti_compile_and_package, or export it for ExecuTorch")
	}
	return slices.Compact(models), nil
}

// read reads at most n bytes of a file.
func read(f *zip.File, n int64) ([]byte, error) {
	in, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return io.ReadAll(io.LimitReader(in, n))
}
