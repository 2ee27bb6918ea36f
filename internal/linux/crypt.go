package linux

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Flags of a request about a table that holds a key (include/uapi/linux/dm-ioctl.h).
const (
	dmStatusTableFlag = 1 << 4  // the table's parameters, not its state
	dmSecureDataFlag  = 1 << 15 // the kernel wipes its copy
)

// CryptMapping is a writable device-mapper device with the target crypt.
type CryptMapping struct {
	Name    string
	Params  string // they hold the key
	Sectors uint64 // of 512 bytes
}

// Create makes the device and returns its node, such as /dev/dm-1. A failure removes
// what was made.
func (m CryptMapping) Create() (string, error) {
	return createMapping(m.Name, dmSecureDataFlag, dmTable("crypt", m.Params, m.Sectors))
}

// ReadCryptMapping returns the mapping of that name.
func ReadCryptMapping(name string) (CryptMapping, error) {
	m, err := readCryptMapping(name)
	if err != nil {
		return m, fmt.Errorf("read mapping %s: %w", name, err)
	}
	return m, nil
}

func readCryptMapping(name string) (CryptMapping, error) {
	ask := dmHeader{Flags: dmStatusTableFlag | dmSecureDataFlag}
	copy(ask.Name[:len(ask.Name)-1], name)
	buf, err := dmAsk(dmTableStatus, ask)
	if err != nil {
		return CryptMapping{}, err
	}
	return parseCryptMapping(name, buf)
}

// parseCryptMapping reads the answer: struct dm_ioctl, struct dm_target_spec, and the
// parameters as text.
func parseCryptMapping(name string, buf []byte) (CryptMapping, error) {
	var h dmHeader
	var spec dmTarget
	if _, err := binary.Decode(buf, binary.NativeEndian, &h); err != nil {
		return CryptMapping{}, err
	}
	if h.TargetCount != 1 || uint64(h.DataStart)+dmTargetSize > uint64(len(buf)) {
		return CryptMapping{}, fmt.Errorf("it has %d targets, want 1", h.TargetCount)
	}
	n, err := binary.Decode(buf[h.DataStart:], binary.NativeEndian, &spec)
	if err != nil {
		return CryptMapping{}, err
	}
	if target, _, _ := bytes.Cut(spec.Type[:], []byte{0}); string(target) != "crypt" {
		return CryptMapping{}, fmt.Errorf("its target is %q, want crypt", target)
	}
	params, _, _ := bytes.Cut(buf[int(h.DataStart)+n:], []byte{0})
	return CryptMapping{name, string(params), spec.Length}, nil
}

// ResizeCryptMapping gives a mapping another length; it may be in use.
func ResizeCryptMapping(name string, sectors uint64) error {
	m, err := ReadCryptMapping(name)
	if err != nil || m.Sectors == sectors {
		return err
	}
	control, err := os.OpenFile(DeviceMapperControl, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("device mapper: %w", err)
	}
	defer control.Close()
	fd := int(control.Fd())
	if _, err := dmCall(fd, dmTableLoad, name, dmSecureDataFlag, dmTable("crypt", m.Params, sectors)); err != nil {
		return fmt.Errorf("resize mapping %s: %w", name, err)
	}
	if _, err := dmCall(fd, dmDevSuspend, name, 0, nil); err != nil {
		return fmt.Errorf("resize mapping %s: %w", name, err)
	}
	return nil
}

// OpenMapping is a mapping that a file system lies on.
type OpenMapping struct {
	Name string
	Node string // such as /dev/dm-1
}

// MappingUnder returns the mapping that the file system of a folder lies on; false for
// one that lies on a disk itself.
func MappingUnder(folder string) (OpenMapping, bool) {
	var st unix.Stat_t
	if unix.Stat(folder, &st) != nil {
		return OpenMapping{}, false
	}
	name, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/dm/name", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return OpenMapping{}, false
	}
	return OpenMapping{string(bytes.TrimSpace(name)), fmt.Sprintf("/dev/dm-%d", unix.Minor(st.Dev))}, true
}
