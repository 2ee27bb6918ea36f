package linux

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DeviceMapperControl is the control node of the device mapper.
const DeviceMapperControl = "/dev/mapper/control"

// Device mapper ioctls of include/uapi/linux/dm-ioctl.h: _IOWR(0xfd, n, struct dm_ioctl).
const (
	dmDevCreate  = 0xc138fd03
	dmDevRemove  = 0xc138fd04
	dmDevSuspend = 0xc138fd06
	dmTableLoad  = 0xc138fd09

	dmReadOnlyFlag = 1 << 0
	dmHeaderSize   = 312
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
	control, err := os.OpenFile(DeviceMapperControl, os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("device mapper: %w", err)
	}
	defer control.Close()
	fd := int(control.Fd())
	created, err := dmCall(fd, dmDevCreate, name, dmReadOnlyFlag, nil)
	if err != nil {
		return "", fmt.Errorf("create mapping %s: %w", name, err)
	}
	if _, err := dmCall(fd, dmTableLoad, name, dmReadOnlyFlag, dmTable(target, params, sectors)); err != nil {
		return "", dmUndo(fd, name, fmt.Errorf("load %s table of mapping %s: %w", target, name, err))
	}
	if _, err := dmCall(fd, dmDevSuspend, name, 0, nil); err != nil {
		return "", dmUndo(fd, name, fmt.Errorf("resume mapping %s: %w", name, err))
	}
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(created.Dev)), nil
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
