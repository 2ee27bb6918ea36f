package image

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/image/cpio"
	"oscine.dev/oscine/internal/uki"
)

// maxContents bounds the list of a root's contents in bytes.
const maxContents = 32 << 20

// Report is what [Inspect] finds.
type Report struct {
	Contents
	Slot     string `json:"slot,omitempty"`     // that holds the root, when a disk image was read
	RootHash string `json:"rootHash,omitempty"` // checked against every block
	UKI      string `json:"uki,omitempty"`      // that the boot loader would start
	Cmdline  string `json:"cmdline,omitempty"`
	PCR11    string `json:"pcr11,omitempty"` // of a TPM once that kernel image has started, SHA-256 in hex

	Initramfs []cpio.Entry `json:"initramfs,omitempty"`

	root  fs.FS
	image *Image
}

// Close closes the image that was inspected.
func (r *Report) Close() error {
	if r.image == nil {
		return nil
	}
	return r.image.Close()
}

// Inspect reads a disk image, or a folder into which a root was unpacked, and
// lists every file with its reason. A file that the root's own list does not
// explain, or one that differs from it, gets a reason that begins with
// [Unexplained]. Call Close on the report when done.
func Inspect(name string) (*Report, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("inspect: %w", err)
	}
	if info.IsDir() {
		r := &Report{root: os.DirFS(name)}
		if err := r.list(); err != nil {
			return nil, fmt.Errorf("inspect %s: %w", name, err)
		}
		return r, nil
	}
	m, err := Open(name)
	if err != nil {
		return nil, err
	}
	r := &Report{image: m}
	if err := r.readImage(m); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return r, nil
}

func (r *Report) readImage(m *Image) error {
	name, kernel, err := m.KernelImage()
	if err != nil {
		return err
	}
	u, err := uki.Read(kernel)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", m.Path, name, err)
	}
	pcr, err := uki.PCR11(kernel)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", m.Path, name, err)
	}
	v, err := u.Verity()
	if err != nil {
		return err
	}
	if r.root, r.Slot, err = m.Root(v); err != nil {
		return err
	}
	r.UKI, r.Cmdline, r.RootHash = name, u.Cmdline, fmt.Sprintf("%x", v.RootHash)
	r.PCR11 = fmt.Sprintf("%x", pcr)
	if r.Initramfs, err = ReadInitramfs(u.Initramfs); err != nil {
		return err
	}
	if err := r.list(); err != nil {
		return fmt.Errorf("%s: %s: %w", m.Path, r.Slot, err)
	}
	return nil
}

// Unexplained begins the reason of a file for which the root gives none.
const Unexplained = "UNEXPLAINED"

// list walks the root and joins what is there with what the root says of it.
func (r *Report) list() error {
	text, err := readFile(r.root, ContentsFile, maxContents)
	if err != nil {
		return fmt.Errorf("not a root of Oscine: %w", err)
	}
	if err := json.Unmarshal(text, &r.Contents); err != nil {
		return fmt.Errorf("%s: %w", ContentsFile, err)
	}
	told := map[string]File{}
	for _, f := range r.Files {
		told[f.Path] = f
	}
	r.Files = nil
	err = fs.WalkDir(r.root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		f, err := r.file(name, d, told)
		r.Files = append(r.Files, f)
		delete(told, name)
		return err
	})
	if err != nil {
		return err
	}
	for _, f := range told {
		f.Why = Unexplained + ": missing; " + f.Why
		r.Files = append(r.Files, f)
	}
	slices.SortFunc(r.Files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return nil
}

func (r *Report) file(name string, d fs.DirEntry, told map[string]File) (File, error) {
	info, err := d.Info()
	if err != nil {
		return File{}, err
	}
	f := File{Path: name, Mode: info.Mode()}
	if f.Mode.IsRegular() {
		f.Size = info.Size()
	}
	if f.Mode&fs.ModeSymlink != 0 {
		if f.Link, err = fs.ReadLink(r.root, name); err != nil {
			return f, err
		}
	}
	want, ok := told[name]
	f.Why, f.From = want.Why, want.From
	same := f.Mode.Type() == want.Mode.Type() && f.Link == want.Link && (f.Size == want.Size || name == ContentsFile)
	switch {
	case !ok:
		f.Why = Unexplained + ": not in the root's list"
	case !same:
		f.Why = Unexplained + ": differs from the root's list; " + want.Why
	}
	return f, nil
}

// readFile reads a file of at most limit bytes.
func readFile(root fs.FS, name string, limit int64) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := bounded.ReadAll(f, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}
