package boot

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

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
	if err := linux.FlushFileSystem(dir); err != nil {
		return fmt.Errorf("flush %s: %w", dir, err)
	}
	return nil
}
