package slot

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
)

// efi is firmware with EFI variables (UEFI specification, section 3.3).
type efi struct {
	dir  string // of efivarfs
	find func() (linux.Partition, error)
}

// OpenFirmware is the firmware of the running machine, which was started from the ESP
// of a disk with that kernel name.
func OpenFirmware(disk string) Firmware {
	d := &device{sys: "/sys", disk: disk}
	return &efi{linux.EFIVariables, func() (linux.Partition, error) { return d.find(release.PartitionESP) }}
}

const (
	globalVendor = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
	bootNext     = "BootNext"
	// trialName begins the description of our boot entry, by which it is found again; how
	// often it was tried ends it.
	trialName = "Oscine, boot loader on trial: "
	// attributes of a variable that is kept: non-volatile, and seen by loader and system.
	attributes = 7
	maxEntries = 1000
)

func (e *efi) file(name string) string { return filepath.Join(e.dir, name+"-"+globalVendor) }

// Loader implements Firmware.
func (e *efi) Loader() (string, error) {
	name, err := linux.ReadEFIString(e.dir, "LoaderImageIdentifier", linux.LoaderVendor)
	if err != nil {
		return "", fmt.Errorf("which boot loader started this boot: %w", err)
	}
	return strings.TrimPrefix(path.Clean("/"+strings.ReplaceAll(name, `\`, "/")), "/"), nil
}

// TryOnce implements Firmware.
func (e *efi) TryOnce(name string) error {
	esp, err := e.find()
	if err != nil {
		return err
	}
	_, tries, err := e.ours()
	if err != nil {
		return err
	}
	option, err := loadOption(esp, name, trialName+strconv.Itoa(tries+1))
	if err != nil {
		return err
	}
	if err := e.Forget(); err != nil {
		return err
	}
	number, err := e.free()
	if err != nil {
		return err
	}
	if err := e.write(entryName(number), option); err != nil {
		return err
	}
	return e.write(bootNext, binary.LittleEndian.AppendUint16(nil, number))
}

// Tries implements Firmware.
func (e *efi) Tries() (n int, waits bool, err error) {
	numbers, tries, err := e.ours()
	if err != nil {
		return 0, false, err
	}
	next, ok, err := e.next()
	return tries, ok && slices.Contains(numbers, next), err
}

// Forget implements Firmware.
func (e *efi) Forget() error {
	numbers, _, err := e.ours()
	if err != nil {
		return err
	}
	next, ok, err := e.next()
	if err != nil {
		return err
	}
	var errs []error
	if ok && slices.Contains(numbers, next) {
		errs = append(errs, os.Remove(e.file(bootNext)))
	}
	for _, n := range numbers {
		errs = append(errs, os.Remove(e.file(entryName(n))))
	}
	return errors.Join(errs...)
}

func entryName(number uint16) string { return fmt.Sprintf("Boot%04X", number) }

// next is the boot entry that firmware starts next, if one was named.
func (e *efi) next() (number uint16, ok bool, err error) {
	raw, err := os.ReadFile(e.file(bootNext))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	if len(raw) != 6 {
		return 0, false, fmt.Errorf("EFI variable %s has %d bytes, not 6", bootNext, len(raw))
	}
	return binary.LittleEndian.Uint16(raw[4:]), true, nil
}

// entries are the numbers of all boot entries.
func (e *efi) entries() (numbers []uint16, err error) {
	names, err := os.ReadDir(e.dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(names) == 0 {
		return nil, fmt.Errorf("%w: this machine's firmware shows no EFI variables", errors.ErrUnsupported)
	}
	for _, f := range names {
		digits, ok := strings.CutSuffix(f.Name(), "-"+globalVendor)
		digits, ok2 := strings.CutPrefix(digits, "Boot")
		if raw, err := hex.DecodeString(digits); ok && ok2 && err == nil && len(raw) == 2 {
			numbers = append(numbers, binary.BigEndian.Uint16(raw))
		}
	}
	return numbers, err
}

// ours are the numbers of boot entries that TryOnce made, and how often it was called.
func (e *efi) ours() (numbers []uint16, tries int, err error) {
	all, err := e.entries()
	if err != nil {
		return nil, 0, err
	}
	name := utf16z(trialName)
	name = name[:len(name)-2]
	for _, n := range all {
		raw, err := os.ReadFile(e.file(entryName(n)))
		if err != nil || len(raw) < 10 {
			continue
		}
		if count, ok := bytes.CutPrefix(raw[10:], name); ok && len(count) > 0 { // after attributes, twice, and a length
			numbers, tries = append(numbers, n), max(tries, int(count[0])-'0')
		}
	}
	return numbers, tries, nil
}

// free is the lowest number without a boot entry.
func (e *efi) free() (uint16, error) {
	taken, err := e.entries()
	if err != nil {
		return 0, err
	}
	for n := range uint16(maxEntries) {
		if !slices.Contains(taken, n) {
			return n, nil
		}
	}
	return 0, errors.New("the firmware has too many boot entries")
}

// write sets a variable, at once as efivarfs wants it.
func (e *efi) write(name string, value []byte) error {
	f, err := os.OpenFile(e.file(name), os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("%w: the firmware takes no EFI variables: %w", errors.ErrUnsupported, err)
	}
	_, err = f.Write(append(binary.LittleEndian.AppendUint32(nil, attributes), value...))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%w: set the EFI variable %s: %w", errors.ErrUnsupported, name, err)
	}
	return nil
}

// loadOption is a boot entry for a file of an ESP (UEFI specification, sections
// 3.1.3, 10.3.5.1 and 10.3.5.4).
func loadOption(esp linux.Partition, name, description string) ([]byte, error) {
	guid, err := hex.DecodeString(strings.ReplaceAll(esp.UUID, "-", ""))
	if err != nil || len(guid) != 16 {
		return nil, fmt.Errorf("the ESP %s has no partition GUID: %q", esp.Device, esp.UUID)
	}
	slices.Reverse(guid[:4]) // the first three parts are little-endian
	slices.Reverse(guid[4:6])
	slices.Reverse(guid[6:8])
	le := binary.LittleEndian
	const sector = 512
	node := []byte{4, 1, 42, 0} // a partition
	node = le.AppendUint32(node, uint32(esp.Number))
	node = le.AppendUint64(node, uint64(esp.Start/sector))
	node = le.AppendUint64(node, uint64(esp.Size/sector))
	node = append(append(node, guid...), 2, 2) // a GPT, and its GUID
	file := utf16z(`\` + strings.ReplaceAll(name, "/", `\`))
	node = append(node, 4, 4) // a file
	node = append(le.AppendUint16(node, uint16(4+len(file))), file...)
	node = append(node, 0x7f, 0xff, 4, 0) // the end
	const active = 1
	option := le.AppendUint32(nil, active)
	option = le.AppendUint16(option, uint16(len(node)))
	option = append(option, utf16z(description)...)
	return append(option, node...), nil
}

// utf16z is a string as EFI has it, with its final NUL.
func utf16z(s string) (out []byte) {
	for _, u := range utf16.Encode([]rune(s + "\x00")) {
		out = binary.LittleEndian.AppendUint16(out, u)
	}
	return out
}
