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

// DeviceMapperControl is the control node of the device mapper.
const DeviceMapperControl = "/dev/mapper/control"

// Device mapper ioctls of include/uapi/linux/dm-ioctl.h: _IOWR(0xfd, n, struct dm_ioctl).
const (
	dmListDevices = 0xc138fd02
	dmDevCreate   = 0xc138fd03
	dmDevRemove   = 0xc138fd04
	dmDevSuspend  = 0xc138fd06
	dmTableLoad   = 0xc138fd09
	dmTableStatus = 0xc138fd0c

	dmReadOnlyFlag       = 1 << 0
	dmDeferredRemoveFlag = 1 << 17
	dmHeaderSize         = 312
	dmTargetSize         = 40
	dmAnswerSize         = 16 << 10
)

// dmHeader is struct dm_ioctl.
type dmHeader struct {
	Version     [3]uint32
	DataSize    uint32
	DataStart   uint32
	TargetCount uint32
	OpenCount   int32
	Flags       uint32
	EventNr     uint32
	_           uint32
	Dev         uint64
	Name        [128]byte
	UUID        [129]byte
	_           [7]byte
}

// dmTarget is struct dm_target_spec.
type dmTarget struct {
	SectorStart uint64
	Length      uint64
	Status      int32
	Next        uint32
	Type        [16]byte
}

// CreateMapping makes the read-only device-mapper device name with one target
// over sectors sectors of 512 bytes and returns its node, such as /dev/dm-0.
// A failure removes what was made.
func CreateMapping(name, target, params string, sectors uint64) (string, error) {
	return createMapping(name, dmReadOnlyFlag, dmTable(target, params, sectors))
}

func createMapping(name string, flags uint32, table []byte) (string, error) {
	control, err := os.OpenFile(DeviceMapperControl, os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("device mapper: %w", err)
	}
	defer control.Close()
	fd := int(control.Fd())
	created, err := dmCall(fd, dmDevCreate, name, flags, nil)
	if err != nil {
		return "", fmt.Errorf("create mapping %s: %w", name, err)
	}
	if _, err := dmCall(fd, dmTableLoad, name, flags, table); err != nil {
		return "", dmUndo(fd, name, fmt.Errorf("load the table of mapping %s: %w", name, err))
	}
	if _, err := dmCall(fd, dmDevSuspend, name, 0, nil); err != nil {
		return "", dmUndo(fd, name, fmt.Errorf("resume mapping %s: %w", name, err))
	}
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(created.Dev)), nil
}

// RemoveMapping has the kernel remove a mapping: at once, or when nothing has it
// open any more, such as a mount.
func RemoveMapping(name string) error {
	control, err := os.OpenFile(DeviceMapperControl, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("device mapper: %w", err)
	}
	defer control.Close()
	if _, err := dmCall(int(control.Fd()), dmDevRemove, name, dmDeferredRemoveFlag, nil); err != nil {
		return fmt.Errorf("remove mapping %s: %w", name, err)
	}
	return nil
}

// MappingStatus returns what the target of a mapping says of itself, such as V or C,
// corrupted, of verity. The mapping is that of a device number, as stat(2) has it; one
// with another target is an error.
func MappingStatus(device uint64, target string) (string, error) {
	text, _, err := dmStatus(dmHeader{Dev: device}, target)
	if err != nil {
		return "", fmt.Errorf("status of the mapping %d:%d: %w", unix.Major(device), unix.Minor(device), err)
	}
	return text, nil
}

// dmStatus asks a mapping with that one target for its state or, by ask's flags, its
// parameters.
func dmStatus(ask dmHeader, target string) (text string, sectors uint64, err error) {
	buf, err := dmAsk(dmTableStatus, ask)
	if err != nil {
		return "", 0, err
	}
	return parseStatus(buf, target)
}

// parseStatus reads the answer: struct dm_ioctl, struct dm_target_spec, and the text.
func parseStatus(buf []byte, target string) (text string, sectors uint64, err error) {
	var h dmHeader
	var spec dmTarget
	if _, err := binary.Decode(buf, binary.NativeEndian, &h); err != nil {
		return "", 0, err
	}
	if h.TargetCount != 1 || uint64(h.DataStart)+dmTargetSize > uint64(len(buf)) {
		return "", 0, fmt.Errorf("it has %d targets, want 1", h.TargetCount)
	}
	n, err := binary.Decode(buf[h.DataStart:], binary.NativeEndian, &spec)
	if err != nil {
		return "", 0, err
	}
	if got, _, _ := bytes.Cut(spec.Type[:], []byte{0}); string(got) != target {
		return "", 0, fmt.Errorf("its target is %q, want %s", got, target)
	}
	raw, _, _ := bytes.Cut(buf[int(h.DataStart)+n:], []byte{0})
	return string(raw), spec.Length, nil
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

// Mappings lists the names of all mappings.
func Mappings() ([]string, error) {
	buf, err := dmAsk(dmListDevices, dmHeader{})
	if err != nil {
		return nil, err
	}
	return mappings(buf)
}

// mappings reads the chain of struct dm_name_list: the device's number, the distance
// to the next, the name. One without mappings has a device number of zero.
func mappings(buf []byte) ([]string, error) {
	return dmNames(buf, 12, func(at uint64) (uint32, bool) {
		return binary.NativeEndian.Uint32(buf[at+8:]), binary.NativeEndian.Uint64(buf[at:]) != 0
	})
}

// dmNames reads a chain of names, each offset bytes into its element. element tells
// the distance to the next one, and whether the one at a place counts.
func dmNames(buf []byte, offset uint64, element func(at uint64) (next uint32, ok bool)) ([]string, error) {
	var h dmHeader
	if _, err := binary.Decode(buf, binary.NativeEndian, &h); err != nil {
		return nil, err
	}
	var names []string
	for at := uint64(h.DataStart); at+offset < uint64(len(buf)); {
		next, ok := element(at)
		if !ok {
			break
		}
		name, _, found := bytes.Cut(buf[at+offset:], []byte{0})
		if !found {
			return nil, errors.New("a name does not end")
		}
		names = append(names, string(name))
		if next == 0 {
			break
		}
		at += uint64(next)
	}
	return names, nil
}

// dmAsk issues a request that answers more than a header.
func dmAsk(request uintptr, h dmHeader) ([]byte, error) {
	control, err := os.OpenFile(DeviceMapperControl, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("device mapper: %w", err)
	}
	defer control.Close()
	buf := make([]byte, dmAnswerSize)
	h.Version, h.DataStart, h.DataSize = [3]uint32{4, 0, 0}, dmHeaderSize, uint32(len(buf))
	if _, err := binary.Encode(buf, binary.NativeEndian, &h); err != nil {
		return nil, err
	}
	if err := ioctl(int(control.Fd()), request, unsafe.Pointer(&buf[0])); err != nil {
		return nil, fmt.Errorf("device mapper: %w", err)
	}
	return buf, nil
}

func dmUndo(fd int, name string, cause error) error {
	if _, err := dmCall(fd, dmDevRemove, name, 0, nil); err != nil {
		return fmt.Errorf("%w (and removing it: %v)", cause, err)
	}
	return cause
}

// dmTable is the payload of a table load: one target and its parameters.
func dmTable(target, params string, sectors uint64) []byte {
	spec := dmTarget{Length: sectors}
	copy(spec.Type[:len(spec.Type)-1], target)
	var b bytes.Buffer
	_ = binary.Write(&b, binary.NativeEndian, &spec) // a bytes.Buffer takes every fixed-size value
	b.WriteString(params)
	b.WriteByte(0)
	for b.Len()%8 != 0 {
		b.WriteByte(0)
	}
	return b.Bytes()
}

func dmCall(fd int, request uintptr, name string, flags uint32, payload []byte) (dmHeader, error) {
	h := dmHeader{Version: [3]uint32{4, 0, 0}, DataStart: dmHeaderSize, Flags: flags}
	h.DataSize = uint32(dmHeaderSize + len(payload))
	copy(h.Name[:len(h.Name)-1], name)
	if len(payload) > 0 {
		h.TargetCount = 1
	}
	var b bytes.Buffer
	_ = binary.Write(&b, binary.NativeEndian, &h)
	b.Write(payload)
	buf := b.Bytes()
	if err := ioctl(fd, request, unsafe.Pointer(&buf[0])); err != nil {
		return h, err
	}
	err := binary.Read(bytes.NewReader(buf), binary.NativeEndian, &h)
	return h, err
}
