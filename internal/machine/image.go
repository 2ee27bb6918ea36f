package machine

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"oscine.dev/oscine/internal/image"
)

const (
	commandLineFile = "cmdline"
	kernelFolder    = "EFI/Linux"
	sectorSize      = 512
	maxKernelImage  = 512 << 20
)

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
	err = withESP(name, func(esp *fat32.FileSystem) error {
		for _, other := range []string{"amd64", "arm64"} {
			f, err := esp.OpenFile("EFI/BOOT/"+loaderOf(other), os.O_RDONLY)
			if err != nil {
				continue
			}
			_ = f.Close()
			if other != arch {
				return fmt.Errorf("it is made for %s, and the machine for %s: start it with --arch %s", other, arch, other)
			}
			return nil
		}
		return errors.New("its ESP has no boot loader: it is not an Oscine image (see oscine image inspect)")
	})
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	return info, nil
}

// withESP runs f on the ESP of a disk image.
func withESP(name string, f func(*fat32.FileSystem) error) error {
	disk, err := os.Open(name)
	if err != nil {
		return err
	}
	defer disk.Close()
	table, err := gpt.Read(disk, sectorSize, sectorSize)
	if err != nil {
		return fmt.Errorf("no disk image, its partition table cannot be read: %w", err)
	}
	for _, p := range table.Partitions {
		if p.Name != image.PartitionESP {
			continue
		}
		esp, err := fat32.Read(file.New(disk, true), int64(p.End-p.Start+1)*sectorSize, int64(p.Start)*sectorSize, sectorSize)
		if err != nil {
			return fmt.Errorf("its ESP cannot be read: %w", err)
		}
		return f(esp)
	}
	return fmt.Errorf("it has no partition named %s", image.PartitionESP)
}

// extractKernel takes kernel, initramfs and command line out of the unified
// kernel image that the boot loader would choose.
func (m *Machine) extractKernel() error {
	uki, err := readKernelImage(m.record.Options.Image)
	if err != nil {
		return fmt.Errorf("image %s: %w", m.record.Options.Image, err)
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

func readKernelImage(name string) (uki *image.UKI, err error) {
	err = withESP(name, func(esp *fat32.FileSystem) error {
		entries, err := esp.ReadDir(kernelFolder)
		if err != nil {
			return fmt.Errorf("%s: %w", kernelFolder, err)
		}
		var names []string
		for _, e := range entries {
			if strings.HasSuffix(strings.ToLower(e.Name()), ".efi") {
				names = append(names, e.Name())
			}
		}
		if len(names) == 0 {
			return errors.New("its ESP has no unified kernel image")
		}
		f, err := esp.OpenFile(kernelFolder+"/"+slices.MaxFunc(names, compareImages), os.O_RDONLY)
		if err != nil {
			return err
		}
		defer f.Close()
		raw, err := io.ReadAll(io.LimitReader(f, maxKernelImage))
		if err != nil {
			return err
		}
		uki, err = image.ReadUKI(raw)
		return err
	})
	return uki, err
}

// compareImages puts names without tries left first, as the boot loader puts
// them last, and then sorts by name.
func compareImages(a, b string) int {
	if badA, badB := strings.Contains(a, "+0"), strings.Contains(b, "+0"); badA != badB {
		if badA {
			return -1
		}
		return 1
	}
	return cmp.Compare(a, b)
}

// CommandLine is the kernel command line of the unified kernel image that the
// boot loader would choose on a disk image.
func CommandLine(diskImage string) (string, error) {
	uki, err := readKernelImage(diskImage)
	if err != nil {
		return "", fmt.Errorf("image %s: %w", diskImage, err)
	}
	return uki.Cmdline, nil
}
