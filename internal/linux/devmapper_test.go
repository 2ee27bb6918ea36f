package linux

import (
	"bytes"
	"encoding/binary"
	"testing"
	"unsafe"
)

// The sizes and places are those of include/uapi/linux/dm-ioctl.h.
func TestDeviceMapperLayout(t *testing.T) {
	if got := binary.Size(dmHeader{}); got != dmHeaderSize {
		t.Errorf("struct dm_ioctl: got %d bytes, want %d", got, dmHeaderSize)
	}
	table := dmTable("verity", "1 254:2", 80)
	if len(table)%8 != 0 || len(table) < 40+len("1 254:2")+1 {
		t.Errorf("table of %d bytes", len(table))
	}
	if got := binary.NativeEndian.Uint64(table[8:]); got != 80 {
		t.Errorf("length: got %d sectors, want 80", got)
	}
	if !bytes.Equal(table[24:31], []byte("verity\x00")) || !bytes.Equal(table[40:48], []byte("1 254:2\x00")) {
		t.Errorf("type and parameters: got %q", table[24:])
	}
}

func TestPartitionLayout(t *testing.T) {
	if got := unsafe.Sizeof(blkpgPartition{}); got != 152 {
		t.Errorf("struct blkpg_partition: got %d bytes, want 152", got)
	}
	if got := unsafe.Offsetof(blkpgArg{}.Data); got != 16 {
		t.Errorf("struct blkpg_ioctl_arg: data at %d, want 16", got)
	}
}

func TestWaitKey(t *testing.T) {
	event := func(kind, code uint16, value uint32) []byte {
		b := make([]byte, 24)
		binary.NativeEndian.PutUint16(b[16:], kind)
		binary.NativeEndian.PutUint16(b[18:], code)
		binary.NativeEndian.PutUint32(b[20:], value)
		return b
	}
	other := bytes.Join([][]byte{event(0, 0, 0), event(evKey, 30, 1), event(evKey, KeyPower, 0)}, nil)
	if err := WaitKey(bytes.NewReader(other), KeyPower); err == nil {
		t.Error("another key, or its release, counts as pressed")
	}
	if err := WaitKey(bytes.NewReader(append(other, event(evKey, KeyPower, 1)...)), KeyPower); err != nil {
		t.Errorf("the pressed key: %v", err)
	}
}
