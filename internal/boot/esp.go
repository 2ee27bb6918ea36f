package boot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/linux"
)

// booted is what the boot loader left in EFI variables; zero after a boot
// without one (a kernel handed over directly).
type booted struct {
	image   string // path of the UKI on the ESP with slashes, such as EFI/Linux/oscine_0.1+2-1.efi
	espUUID string // partition GUID of that ESP, lower case
}

// readBooted asks the UKI's own stub: LoaderBootCountPath can name an entry
// that was tried before and refused.
func readBooted(efivars string) booted {
	image, err := linux.ReadEFIString(efivars, "StubImageIdentifier", linux.LoaderVendor)
	if err != nil {
		return booted{}
	}
	uuid, err := linux.ReadEFIString(efivars, "StubDevicePartUUID", linux.LoaderVendor)
	if err != nil {
		uuid, err = linux.ReadEFIString(efivars, "LoaderDevicePartUUID", linux.LoaderVendor)
	}
	if err != nil {
		uuid = ""
	}
	image = strings.TrimPrefix(path.Clean("/"+strings.ReplaceAll(image, `\`, "/")), "/")
	return booted{image: image, espUUID: strings.ToLower(uuid)}
}

// counted reports whether the image still has its boot counter: a trial boot.
func (b booted) counted() bool {
	_, ok := stripCounter(path.Base(b.image))
	return ok
}

// stripCounter removes the boot counter of a file name, +LEFT or +LEFT-DONE
// before the suffix, and says whether there was one
// (https://uapi-group.org/specifications/specs/boot_loader_specification).
func stripCounter(name string) (string, bool) {
	stem, isImage := strings.CutSuffix(name, ".efi")
	plus := strings.LastIndexByte(stem, '+')
	if !isImage || plus < 0 {
		return name, false
	}
	left, done, hasDone := strings.Cut(stem[plus+1:], "-")
	if !digits(left) || hasDone && !digits(done) {
		return name, false
	}
	return stem[:plus] + ".efi", true
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// demoted is the name of an image that the boot loader sorts behind every
// other: no tries left after done ones.
func demoted(name string, done int) string {
	plain, _ := stripCounter(name)
	return fmt.Sprintf("%s+0-%d.efi", strings.TrimSuffix(plain, ".efi"), done)
}

// withESP mounts the ESP at dir only while f runs. Not synchronously: that made
// one rename take 70 s.
func withESP(p Partition, dir string, flags uintptr, f func(dir string) error) (err error) {
	m := mount{p.Node(), dir, "vfat", hardened | flags, "umask=0077"}
	if err := m.do(); err != nil {
		return err
	}
	defer func() {
		if unmountErr := unix.Unmount(dir, 0); unmountErr != nil {
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", dir, unmountErr))
		}
	}()
	return f(dir)
}

// renameImage renames image (a path below the ESP's root) to name beside it and
// flushes the file system.
func renameImage(esp, image, name string) error {
	from := filepath.Join(esp, image)
	dir := filepath.Dir(from)
	if _, err := os.Stat(from); err != nil {
		return err
	}
	if err := os.Rename(from, filepath.Join(dir, name)); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("flush %s: %w", dir, err)
	}
	return unix.Syncfs(int(d.Fd()))
}

// Where a Machine file lies on the ESP, and where oscined reads it.
const (
	espMachineFile = "oscine/machine.yaml"
	machineFile    = "/var/lib/oscine/machine.yaml"
	maxMachineFile = 1 << 20
)

// adoptMachineFile copies the Machine file of the mounted ESP to target, all
// of it or nothing. No such file is no error; too large a one is.
func adoptMachineFile(esp, target string) (adopted bool, err error) {
	f, err := os.Open(filepath.Join(esp, espMachineFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxMachineFile+1))
	if err != nil {
		return false, err
	}
	if len(content) > maxMachineFile {
		return false, fmt.Errorf("%s on the ESP is larger than %d bytes", espMachineFile, maxMachineFile)
	}
	return true, writeFileSynced(target, content, 0o600)
}

// writeFileSynced replaces name so that after a power failure it is the old
// file or the new one.
func writeFileSynced(name string, content []byte, perm os.FileMode) error {
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(name+".new"))
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
