package linux

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"unicode/utf16"
)

// EFIVariables is where efivarfs is mounted.
const EFIVariables = "/sys/firmware/efi/efivars"

// LoaderVendor is the vendor GUID of the boot loader interface
// (https://systemd.io/BOOT_LOADER_INTERFACE).
const LoaderVendor = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

const maxEFIString = 4096

// ReadEFIString returns the EFI variable name of vendor, a string of UTF-16,
// without its attributes and final NUL. dir is normally EFIVariables. An absent
// variable gives fs.ErrNotExist.
func ReadEFIString(dir, name, vendor string) (string, error) {
	f, err := os.Open(dir + "/" + name + "-" + vendor)
	if err != nil {
		return "", err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxEFIString+1))
	if err != nil {
		return "", fmt.Errorf("EFI variable %s: %w", name, err)
	}
	if len(raw) < 4 || len(raw) > maxEFIString || len(raw)%2 != 0 {
		return "", fmt.Errorf("EFI variable %s: %d bytes is no UTF-16 string", name, len(raw))
	}
	var units []uint16
	for i := 4; i < len(raw); i += 2 {
		u := binary.LittleEndian.Uint16(raw[i:])
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units)), nil
}
