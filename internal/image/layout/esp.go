package layout

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
)

// File is one file of the ESP.
type File struct {
	Path string // with slashes, from the ESP's root
	Data []byte
}

// LoaderName is the name of systemd-boot for an architecture, as its package has it.
func LoaderName(arch string) string {
	return map[string]string{"amd64": "systemd-bootx64.efi", "arm64": "systemd-bootaa64.efi"}[arch]
}

// LoaderPath is where firmware looks for the boot loader on the ESP
// (UEFI specification, section 3.5.1.1).
func LoaderPath(arch string) string {
	return "/EFI/BOOT/" + map[string]string{"amd64": "BOOTX64.EFI", "arm64": "BOOTAA64.EFI"}[arch]
}

// WriteESP makes the ESP's file system on a disk or disk image, with all times set
// to at. What was there must be zero.
func WriteESP(disk *os.File, files []File, at time.Time) error {
	store := file.New(disk, false)
	esp, err := fat32.Create(store, ESPSize, MiB, SectorSize, "OSCINE-ESP", true)
	if err != nil {
		return err
	}
	if err := addFiles(esp, files, at); err != nil {
		return err
	}
	return fixTimes(store, at)
}

// AddToESP writes more files into the ESP that WriteESP made.
func AddToESP(disk *os.File, files []File, at time.Time) error {
	esp, err := fat32.Read(file.New(disk, false), ESPSize, MiB, SectorSize)
	if err != nil {
		return err
	}
	return addFiles(esp, files, at)
}

func addFiles(esp *fat32.FileSystem, files []File, at time.Time) error {
	made, order := map[string]bool{"/": true}, []string(nil)
	for _, f := range files {
		for _, dir := range parents(path.Dir(f.Path)) {
			if !made[dir] {
				if err := esp.Mkdir(dir); err != nil {
					return fmt.Errorf("%s: %w", dir, err)
				}
				made[dir] = true
				order = append(order, dir)
			}
		}
		w, err := esp.OpenFile(f.Path, os.O_CREATE|os.O_RDWR)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		_, err = io.Copy(w, bytes.NewReader(f.Data))
		if err = errors.Join(err, w.Close()); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		order = append(order, f.Path)
	}
	for _, name := range order {
		if err := esp.Chtimes(name, at, at, at); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// parents lists a folder's ancestors and itself, outermost first.
func parents(dir string) []string {
	if dir == "/" || dir == "." {
		return nil
	}
	return append(parents(path.Dir(dir)), dir)
}
