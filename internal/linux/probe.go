package linux

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LandlockABI returns the version of the kernel's Landlock interface; see
// landlock_create_ruleset(2). It returns ENOSYS where the kernel has none and
// EOPNOTSUPP where it is switched off.
func LandlockABI() (int, error) {
	const createRulesetVersion = 1
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, createRulesetVersion)
	if errno != 0 {
		return 0, errno
	}
	return int(version), nil
}

// MappingTargets lists the targets that the device mapper has loaded, such as
// linear and verity, by DM_LIST_VERSIONS.
func MappingTargets() ([]string, error) {
	const listVersions = 0xc138fd0d
	control, err := os.OpenFile(DeviceMapperControl, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("device mapper: %w", err)
	}
	defer control.Close()
	buf := make([]byte, 16<<10)
	h := dmHeader{Version: [3]uint32{4, 0, 0}, DataStart: dmHeaderSize, DataSize: uint32(len(buf))}
	if _, err := binary.Encode(buf, binary.NativeEndian, &h); err != nil {
		return nil, fmt.Errorf("list device mapper targets: %w", err)
	}
	if err := ioctl(int(control.Fd()), listVersions, unsafe.Pointer(&buf[0])); err != nil {
		return nil, fmt.Errorf("list device mapper targets: %w", err)
	}
	return mappingTargets(buf)
}

// mappingTargets reads the chain of struct dm_target_versions: the distance to
// the next, three numbers of the version, the name.
func mappingTargets(buf []byte) ([]string, error) {
	var h dmHeader
	if _, err := binary.Decode(buf, binary.NativeEndian, &h); err != nil {
		return nil, fmt.Errorf("list device mapper targets: %w", err)
	}
	var names []string
	for at := uint64(h.DataStart); at+16 < uint64(len(buf)); {
		name, _, found := bytes.Cut(buf[at+16:], []byte{0})
		if !found {
			return nil, errors.New("list device mapper targets: a name does not end")
		}
		names = append(names, string(name))
		next := binary.NativeEndian.Uint32(buf[at:])
		if next == 0 {
			break
		}
		at += uint64(next)
	}
	return names, nil
}
