package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/image"
	"oscine.dev/oscine/internal/uki"
)

const commandLineFile = "cmdline"

// loaders are the files UEFI firmware of each architecture starts from a disk
// (UEFI specification, section 3.5.1.1).
func loaderOf(arch string) string {
	if arch == "arm64" {
		return "BOOTAA64.EFI"
	}
	return "BOOTX64.EFI"
}

// checkImage refuses what cannot start, before anything is made.
func checkImage(name, arch string) (os.FileInfo, error) {
	info, err := os.Stat(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("image %s does not exist: make one with oscine image build", name)
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("image %s is not a file", name)
	}
	if strings.ContainsRune(name, ',') {
		return nil, fmt.Errorf("image %s: QEMU cannot open a path with a comma", name)
	}
	disk, err := image.Open(name)
	if err != nil {
		return nil, err
	}
	defer disk.Close()
	if err := checkLoader(disk, arch); err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	return info, nil
}

// checkLoader finds out which architecture an image is made for.
func checkLoader(disk *image.Image, arch string) error {
	for _, other := range []string{"amd64", "arm64"} {
		_, err := disk.ReadESP("/EFI/BOOT/" + loaderOf(other))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case other != arch:
			return fmt.Errorf("it is made for %s, and the machine for %s: start it with --arch %s", other, arch, other)
		default:
			return nil
		}
	}
	return errors.New("its ESP has no boot loader: it is not an Oscine image (see oscine image inspect)")
}

// extractKernel takes kernel, initramfs and command line out of the unified
// kernel image that the boot loader would choose.
func (m *Machine) extractKernel() error {
	uki, err := readKernelImage(m.record.Options.Image)
	if err != nil {
		return err
	}
	initramfs := uki.Initramfs
	for _, name := range m.record.Options.ExtraInitramfs {
		more, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		initramfs = append(pad4(initramfs), more...)
	}
	return errors.Join(
		os.WriteFile(filepath.Join(m.dir, kernelFile), uki.DirectKernel(), 0o600),
		os.WriteFile(filepath.Join(m.dir, initramfsFile), initramfs, 0o600),
		os.WriteFile(filepath.Join(m.dir, commandLineFile), []byte(uki.Cmdline), 0o600),
	)
}

// pad4 ends an archive where the kernel expects the next one.
func pad4(b []byte) []byte { return append(slices.Clip(b), make([]byte, -len(b)&3)...) }

func readKernelImage(name string) (*uki.Image, error) {
	disk, err := image.Open(name)
	if err != nil {
		return nil, err
	}
	defer disk.Close()
	return disk.UKI()
}

// CommandLine is the kernel command line of the unified kernel image that the
// boot loader would choose on a disk image.
func CommandLine(diskImage string) (string, error) {
	uki, err := readKernelImage(diskImage)
	if err != nil {
		return "", err
	}
	return uki.Cmdline, nil
}
