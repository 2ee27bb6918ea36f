package linux

import (
	"encoding/binary"
	"fmt"

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
	buf, err := dmAsk(listVersions, dmHeader{})
	if err != nil {
		return nil, fmt.Errorf("list device mapper targets: %w", err)
	}
	return mappingTargets(buf)
}

// mappingTargets reads the chain of struct dm_target_versions: the distance to
// the next, three numbers of the version, the name.
func mappingTargets(buf []byte) ([]string, error) {
	names, err := dmNames(buf, 16, func(at uint64) (uint32, bool) { return binary.NativeEndian.Uint32(buf[at:]), true })
	if err != nil {
		return nil, fmt.Errorf("list device mapper targets: %w", err)
	}
	return names, nil
}
