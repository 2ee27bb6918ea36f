package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"oscine.dev/oscine/internal/release"
)

// Section is one part of a unified kernel image (UAPI Group Specification
// UKI): a PE section that systemd's stub finds by name.
type Section struct {
	Name string
	Data []byte
}

// Offsets in a PE32+ image (Microsoft PE Format).
const (
	peOffsetAt      = 0x3c
	peSections      = 6  // from the signature: number of sections
	peOptionalSize  = 20 // size of the optional header
	peOptional      = 24 // where it begins
	peInitialised   = 8  // in the optional header: size of initialised data
	peSectionAlign  = 32
	peFileAlign     = 36
	peImageSize     = 56
	peHeaderSize    = 60
	peChecksum      = 64
	peCertificates  = 144 // data directory 4
	peSectionHeader = 40
	peReadData      = 0x40000040 // initialised data, readable
)

// peLayout is where the headers of an image lie.
type peLayout struct {
	optional, table, count int
}

func layoutOf(image []byte) (peLayout, error) {
	bad := errors.New("not a PE32+ image")
	if len(image) < 0x200 || !bytes.HasPrefix(image, []byte("MZ")) {
		return peLayout{}, bad
	}
	at := int(binary.LittleEndian.Uint32(image[peOffsetAt:]))
	if at < 0 || at > len(image)-0x200 || !bytes.HasPrefix(image[at:], []byte("PE\x00\x00")) {
		return peLayout{}, bad
	}
	l := peLayout{optional: at + peOptional, count: int(binary.LittleEndian.Uint16(image[at+peSections:]))}
	l.table = l.optional + int(binary.LittleEndian.Uint16(image[at+peOptionalSize:]))
	if binary.LittleEndian.Uint16(image[l.optional:]) != 0x20b || l.table-l.optional < peCertificates+8 ||
		l.count > 96 || l.table+l.count*peSectionHeader > len(image) {
		return peLayout{}, bad
	}
	return l, nil
}

func alignUp[T int | uint32](n, to T) T { return (n + to - 1) / to * to }

// Assemble appends sections to systemd's stub.
func Assemble(stub []byte, sections []Section) ([]byte, error) {
	l, err := layoutOf(stub)
	if err != nil {
		return nil, fmt.Errorf("assemble the unified kernel image: the stub is %w", err)
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(stub[at:]) }
	sectionAlign, fileAlign := u32(l.optional+peSectionAlign), u32(l.optional+peFileAlign)
	if sectionAlign == 0 || fileAlign == 0 || int(u32(l.optional+peHeaderSize)) < l.table+(l.count+len(sections))*peSectionHeader {
		return nil, fmt.Errorf("assemble the unified kernel image: the stub has no room for %d more sections", len(sections))
	}
	out := append([]byte(nil), stub...)
	out = append(out, make([]byte, alignUp(len(out), int(fileAlign))-len(out))...)
	address, initialised := u32(l.optional+peImageSize), u32(l.optional+peInitialised)
	for i, s := range sections {
		address = alignUp(address, sectionAlign)
		raw := alignUp(len(s.Data), int(fileAlign))
		head := out[l.table+(l.count+i)*peSectionHeader:][:peSectionHeader]
		clear(head)
		copy(head[:8], s.Name)
		for j, v := range []uint32{uint32(len(s.Data)), address, uint32(raw), uint32(len(out))} {
			binary.LittleEndian.PutUint32(head[8+4*j:], v)
		}
		binary.LittleEndian.PutUint32(head[36:], peReadData)
		out = append(append(out, s.Data...), make([]byte, raw-len(s.Data))...)
		address += uint32(len(s.Data))
		initialised += uint32(raw)
	}
	binary.LittleEndian.PutUint16(out[l.optional-peOptional+peSections:], uint16(l.count+len(sections)))
	binary.LittleEndian.PutUint32(out[l.optional+peImageSize:], alignUp(address, sectionAlign))
	binary.LittleEndian.PutUint32(out[l.optional+peInitialised:], initialised)
	return out, nil
}

// Image is an opened unified kernel image.
type Image struct {
	Kernel    []byte // .linux
	Initramfs []byte // .initrd
	Cmdline   string // .cmdline
	Uname     string // .uname: the kernel's version
	OSRelease string // .osrel
}

// MaxSize bounds a unified kernel image in bytes.
const MaxSize = 512 << 20

// Read takes a unified kernel image apart.
func Read(image []byte) (*Image, error) {
	if _, err := layoutOf(image); err != nil {
		return nil, fmt.Errorf("read the unified kernel image: %w", err)
	}
	file, err := pe.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, fmt.Errorf("read the unified kernel image: %w", err)
	}
	part := func(name string) []byte {
		s := file.Section(name)
		if s == nil || uint64(s.Offset)+uint64(min(s.VirtualSize, s.Size)) > uint64(len(image)) {
			return nil
		}
		return image[s.Offset:][:min(s.VirtualSize, s.Size)]
	}
	text := func(name string) string { return string(bytes.TrimRight(part(name), "\x00\n")) }
	u := &Image{Kernel: part(".linux"), Initramfs: part(".initrd"), Cmdline: text(".cmdline"), Uname: text(".uname"), OSRelease: text(".osrel")}
	if u.Kernel == nil || u.Initramfs == nil {
		return nil, errors.New("read the unified kernel image: it lacks a kernel or an initramfs")
	}
	return u, nil
}

// Arch is the architecture that a PE image is for, amd64 or arm64; empty for
// another.
func Arch(image []byte) string {
	f, err := pe.NewFile(bytes.NewReader(image))
	if err != nil {
		return ""
	}
	return map[uint16]string{pe.IMAGE_FILE_MACHINE_AMD64: "amd64", pe.IMAGE_FILE_MACHINE_ARM64: "arm64"}[f.Machine]
}

// Version is the version of Oscine that the image says it is, IMAGE_VERSION of its
// os-release(5); empty where it says none.
func (u *Image) Version() (version string) {
	for line := range strings.Lines(u.OSRelease) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "IMAGE_VERSION="); ok {
			version = strings.Trim(v, `"`)
		}
	}
	return version
}

// Verity returns how the image opens its root.
func (u *Image) Verity() (release.Verity, error) { return release.FindVerity(u.Cmdline) }

// maxText bounds what ReadHead reads of one section, in bytes.
const maxText = 64 << 10

// ReadHead is Read without kernel and initramfs, for a file that stays where it
// is.
func ReadHead(r io.ReaderAt) (*Image, error) {
	file, err := pe.NewFile(r)
	if err != nil {
		return nil, fmt.Errorf("read the unified kernel image: %w", err)
	}
	var failed error
	text := func(name string) string {
		s := file.Section(name)
		if s == nil {
			return ""
		}
		b := make([]byte, min(s.VirtualSize, s.Size, maxText))
		if _, err := r.ReadAt(b, int64(s.Offset)); err != nil {
			failed = errors.Join(failed, fmt.Errorf("read %s: %w", name, err))
		}
		return string(bytes.TrimRight(b, "\x00\n"))
	}
	u := &Image{Cmdline: text(".cmdline"), Uname: text(".uname"), OSRelease: text(".osrel")}
	if failed != nil {
		return nil, fmt.Errorf("read the unified kernel image: %w", failed)
	}
	if file.Section(".linux") == nil || file.Section(".initrd") == nil {
		return nil, errors.New("read the unified kernel image: it lacks a kernel or an initramfs")
	}
	return u, nil
}
