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
	"oscine.dev/oscine/internal/release"
)

// booted is what the boot loader left in EFI variables; zero after a boot
// without one (a kernel handed over directly).
type booted struct {
	image   string // path of the UKI on the ESP with slashes, such as EFI/Linux/oscine_0.1+2-1.efi
	entry   release.Entry
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
	b := booted{espUUID: strings.ToLower(uuid)}
	if entry, ok := release.ParseEntry(path.Base(image)); ok {
		b.image, b.entry = image, entry
	}
	return b
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

const (
	machineFile    = "/var/lib/oscine/" + release.MachineFile
	maxMachineFile = 1 << 20
)

// adoptMachineFile copies the Machine file of the mounted ESP to target, all
// of it or nothing. No such file is no error; too large a one is.
func adoptMachineFile(esp, target string) (adopted bool, err error) {
	f, err := os.Open(filepath.Join(esp, release.ESPMachine))
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
		return false, fmt.Errorf("%s on the ESP is larger than %d bytes", release.ESPMachine, maxMachineFile)
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
